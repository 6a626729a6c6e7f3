"""How much to think, and how much to answer at most. Pure.

What all of Claude's platforms have in common is in `providers.claude`. `max_tokens` is required by the
API and counts thinking, too. A caller who gives none gets as much as the family can give, up to 32,000
tokens (4,096 if that is not known), and the thinking budget on top as far as the family can give it.

Sources: https://platform.claude.com/docs/en/build-with-claude/thinking, .../extended-thinking and
.../effort.
"""

from __future__ import annotations

import msgspec

from headgate.v1 import chat_pb2
from headgate.wire import raw_object, raw_text
from headgate_server.providers.claude import (
    budget_of,
    displayed,
    forced,
    nearest_effort,
    off_switch,
    refuses_tuning,
    switched_off,
    thinking_types,
    thinks_by_budget,
)
from headgate_server.providers.encoding import Encoding, Json

_MOST_BY_DEFAULT = 32_000
_UNKNOWN_FAMILY_MOST = 4_096


def max_tokens(encoding: Encoding) -> int:
    """What the caller asks for, else the default without thinking."""
    request = encoding.request
    if request.HasField("max_completion_tokens"):
        return request.max_completion_tokens
    if request.HasField("max_tokens"):
        return request.max_tokens
    return min(encoding.target.family.max_output_tokens or _UNKNOWN_FAMILY_MOST, _MOST_BY_DEFAULT)


def encode_reasoning(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    """Puts `thinking` and `output_config.effort` into the body; `max_tokens` is there already."""
    effort = "" if options.effort == "none" else options.effort
    said = bool(effort and encoding.target.family.efforts)
    if said:
        model = f"model {encoding.target.model!r}"
        encoding.put("output_config.effort", nearest_effort(encoding, effort, model))
    native = options.native_json or _native_extra(encoding)
    if native:
        encoding.body["thinking"] = msgspec.Raw(native)
        if effort and not said:
            encoding.leave_out(
                "reasoning.effort", f"model {encoding.target.model!r} takes no efforts"
            )
        return
    thinking = _thinking(encoding, options, effort, said=said)
    if options.HasField("summary"):
        thinking = _with_display(encoding, options.summary, thinking)
    if thinking:
        encoding.body["thinking"] = thinking


def _native_extra(encoding: Encoding) -> str:
    """The `thinking` object of a caller who speaks this API, if it says more than we have names for."""
    extra = encoding.request.extra_body_json
    if not extra or not encoding.speaks_extras:
        return ""
    given = raw_text(raw_object(extra).get("thinking", msgspec.Raw())) or ""
    return given if given.startswith("{") and "type" in raw_object(given) else ""


def _thinking(
    encoding: Encoding, options: chat_pb2.ReasoningOptions, effort: str, *, said: bool
) -> Json:
    """The `thinking` object; empty if there is nothing to say.

    Args:
        said: whether the effort went into the body already.
    """
    target = encoding.target
    known = thinking_types(target.family)
    has_budget = options.HasField("budget_tokens")
    if off := off_switch(options):
        return switched_off(encoding, known, off)
    if not (effort or options.enabled or has_budget):
        return {}
    if encoding.speaks_extras and said and not (options.enabled or has_budget):
        return {}  # who speaks this API means the effort of answering, thinking or not
    if not known and target.policy != "pass":
        if not (effort and said):
            field = "effort" if effort else "budget_tokens" if has_budget else "enabled"
            encoding.leave_out(f"reasoning.{field}", f"model {target.model!r} does not think")
        return {}
    by_budget = thinks_by_budget(known, options)
    if by_budget and forced(encoding.request) and target.policy != "pass":
        encoding.leave_out("reasoning", "the API takes no thinking budget beside a forced call")
        return {}
    if has_budget:
        if by_budget or target.policy == "pass":
            if not _has_own_limit(encoding.request):
                _make_room(encoding, options.budget_tokens)
            return {"type": "enabled", "budget_tokens": options.budget_tokens}
        encoding.leave_out(
            "reasoning.budget_tokens",
            f"model {target.model!r} decides itself how much to think; use reasoning.effort",
        )
    if "adaptive" in known:
        return {"type": "adaptive"}
    return budget_of(encoding, effort, lambda budget: _fit(encoding, budget), said=said)


def _has_own_limit(request: chat_pb2.ChatRequest) -> bool:
    return request.HasField("max_completion_tokens") or request.HasField("max_tokens")


def _fit(encoding: Encoding, budget: int) -> int:
    """What of a budget there is room for: at most half of the answer."""
    if _has_own_limit(encoding.request):
        return min(budget, int(encoding.body["max_tokens"]) // 2)
    return _make_room(encoding, budget)


def _make_room(encoding: Encoding, budget: int) -> int:
    """Raises a default `max_tokens` by the budget. Returns what of it fits, at least half of all."""
    most = encoding.target.family.max_output_tokens
    total = int(encoding.body["max_tokens"]) + budget
    if most is not None and total > most:
        total, budget = most, min(budget, most // 2)
    encoding.body["max_tokens"] = total
    return budget


def _with_display(encoding: Encoding, summary: str, thinking: Json) -> Json:
    """Adds how much of the thinking to show; asking for it is a wish to think."""
    if not thinking and "adaptive" in thinking_types(encoding.target.family):
        thinking = {"type": "adaptive"}
    if thinking.get("type") not in ("adaptive", "enabled"):
        encoding.leave_out("reasoning.summary", "there is no thinking to show")
        return thinking
    return displayed(thinking, summary)


def settle_conflicts(encoding: Encoding) -> None:
    """Leaves out tuning that the API refuses beside thinking; call it when the body is complete."""
    body = encoding.body
    if refuses_tuning(encoding, body.get("thinking")):
        for name in ("temperature", "top_k"):
            if name in body and not (name == "temperature" and body[name] == 1):
                encoding.leave_out(name, "the API refuses it while the model thinks")
                del body[name]
