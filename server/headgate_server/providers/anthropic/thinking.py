"""How much to think, and how much to answer at most. Pure.

Newer models decide themselves how much to think, and are steered by an effort (`output_config.effort`);
older ones take a budget of tokens, which an effort is translated into:

    minimal 1,024   low 2,048   medium 8,192   high 16,000   xhigh 24,000   max 32,000

but never more than half of what the answer may have. `max_tokens` is required by the API and counts
thinking, too. A caller who gives none gets as much as the family can give, up to 32,000 tokens (4,096
if that is not known), and the thinking budget on top as far as the family can give it.

Sources: https://platform.claude.com/docs/en/build-with-claude/thinking, .../extended-thinking and
.../effort.
"""

from __future__ import annotations

import msgspec

from headgate.v1 import chat_pb2
from headgate.wire import raw_object, raw_text
from headgate_server.providers.anthropic.models import ThinkingType, facts_of
from headgate_server.providers.anthropic.tools import forced
from headgate_server.providers.encoding import Encoding, Json

BUDGETS = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_000,
    "xhigh": 24_000,
    "max": 32_000,
}
_EFFORTS = tuple(BUDGETS)  # weakest first
_SMALLEST_BUDGET = 1_024  # the API's own
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
    effort = options.effort if options.HasField("effort") else ""
    if effort == "none":
        effort = ""
    said = bool(effort) and _encode_effort(encoding, effort)
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
    known = facts_of(target.family.name).thinking
    has_budget = options.HasField("budget_tokens")
    budget = options.budget_tokens
    if (
        (options.HasField("enabled") and not options.enabled)
        or options.effort == "none"
        or (has_budget and budget == 0)
    ):
        return _off(encoding, known, options)
    if not (effort or options.enabled or has_budget):
        return {}
    if encoding.speaks_extras and said and not (options.enabled or has_budget):
        return {}  # who speaks this API means the effort of answering, thinking or not
    if not known and target.policy != "pass":
        if not (effort and said):
            field = "effort" if effort else "budget_tokens" if has_budget else "enabled"
            encoding.leave_out(f"reasoning.{field}", f"model {target.model!r} does not think")
        return {}
    by_budget = "enabled" in known and (has_budget or "adaptive" not in known)
    if by_budget and forced(encoding.request) and target.policy != "pass":
        encoding.leave_out("reasoning", "the API takes no thinking budget beside a forced call")
        return {}
    if has_budget:
        if by_budget or target.policy == "pass":
            _make_room(encoding, budget)
            return {"type": "enabled", "budget_tokens": budget}
        encoding.leave_out(
            "reasoning.budget_tokens",
            f"model {target.model!r} decides itself how much to think; use reasoning.effort",
        )
    if "adaptive" in known:
        return {"type": "adaptive"}
    return _translated(encoding, effort, said=said)


def _off(
    encoding: Encoding, known: frozenset[ThinkingType], options: chat_pb2.ReasoningOptions
) -> Json:
    if "disabled" in known or encoding.target.policy == "pass":
        return {"type": "disabled"}
    if "between_tools" in known:
        return {"type": "between_tools"}
    if known:
        field = "enabled" if options.HasField("enabled") else (
            "effort" if options.effort == "none" else "budget_tokens"
        )  # fmt: skip
        encoding.leave_out(
            f"reasoning.{field}",
            f"model {encoding.target.model!r} always thinks; a low reasoning.effort makes it think less",
        )
    return {}


def _encode_effort(encoding: Encoding, effort: str) -> bool:
    """Sends the effort as such, if the family takes efforts."""
    efforts = encoding.target.family.efforts
    if not efforts:
        return False
    sent = effort
    if effort not in efforts and effort in _EFFORTS and encoding.target.policy != "pass":
        place = _EFFORTS.index(effort)
        weaker = [known for known in efforts if known in _EFFORTS[:place]]
        sent = weaker[-1] if weaker else efforts[0]
        why = f"model {encoding.target.model!r} knows only {', '.join(efforts)}"
        if encoding.target.policy == "strict":
            encoding.leave_out("reasoning.effort", why)
        encoding.warn("reasoning.effort", f"sent as {sent!r}: {why}")
    encoding.body.setdefault("output_config", {})["effort"] = sent
    return True


def _translated(encoding: Encoding, effort: str, *, said: bool) -> Json:
    """A budget of tokens in place of an effort, or of a plain wish to think."""
    field = "reasoning.effort" if effort else "reasoning.enabled"
    budget = BUDGETS.get(effort or "medium")
    if budget is None:
        if not said:
            known = ", ".join(_EFFORTS)
            encoding.leave_out(field, f"{effort!r} is none of the known efforts: {known}")
        return {}
    if _has_own_limit(encoding):
        budget = min(budget, int(encoding.body["max_tokens"]) // 2)
    else:
        budget = _make_room(encoding, budget)
    if budget < _SMALLEST_BUDGET:
        encoding.leave_out(
            field, f"max_tokens must be at least {2 * _SMALLEST_BUDGET} to leave room for thinking"
        )
        return {}
    return {"type": "enabled", "budget_tokens": budget}


def _has_own_limit(encoding: Encoding) -> bool:
    request = encoding.request
    return request.HasField("max_completion_tokens") or request.HasField("max_tokens")


def _make_room(encoding: Encoding, budget: int) -> int:
    """Raises a default `max_tokens` by the budget. Returns what of it fits, at least half of all."""
    if _has_own_limit(encoding):
        return budget
    most = encoding.target.family.max_output_tokens
    total = int(encoding.body["max_tokens"]) + budget
    if most is not None and total > most:
        total, budget = most, min(budget, most // 2)
    encoding.body["max_tokens"] = total
    return budget


def _with_display(encoding: Encoding, summary: str, thinking: Json) -> Json:
    """Adds how much of the thinking to show; asking for it is a wish to think."""
    known = facts_of(encoding.target.family.name).thinking
    if not thinking and "adaptive" in known:
        thinking = {"type": "adaptive"}
    if thinking.get("type") not in ("adaptive", "enabled"):
        encoding.leave_out("reasoning.summary", "there is no thinking to show")
        return thinking
    return {**thinking, "display": "omitted" if summary == "none" else "summarized"}


def settle_conflicts(encoding: Encoding) -> None:
    """Leaves out tuning that the API refuses beside thinking; call it when the body is complete.

    With "pass" the vendor decides, and also where the caller wrote `thinking` in the vendor's own form.
    """
    body = encoding.body
    thinking = body.get("thinking")
    if not isinstance(thinking, dict) or encoding.target.policy == "pass":
        return
    if thinking["type"] not in ("adaptive", "enabled"):
        return
    for name in ("temperature", "top_k"):
        if name in body and not (name == "temperature" and body[name] == 1):
            encoding.leave_out(name, "the API refuses it while the model thinks")
            del body[name]
