"""How much to think, in the words of each model family behind Converse. Pure.

Claude's newer models decide themselves how much to think, steered by an effort; its older ones take a
budget of tokens, which an effort is translated into, at most half of what the answer may have:

    minimal 1,024   low 2,048   medium 8,192   high 16,000   xhigh 24,000   max 32,000

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html and
claude-messages-extended-thinking.html there, the member `effort` of
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_OutputConfig.html, and for Nova
https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headgate.v1 import chat_pb2
from headgate.wire import raw_object
from headgate_server.providers.bedrock.models import is_claude, thinking_types
from headgate_server.providers.encoding import Encoding, Json

_BUDGETS = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_000,
    "xhigh": 24_000,
    "max": 32_000,
}
_EFFORTS = tuple(_BUDGETS)  # weakest first
_LEAST_BUDGET = 1_024  # the models' own
_DEFAULT_EFFORT = "medium"
_Option = Literal["enabled", "effort", "budget_tokens", "summary"]


def encode_reasoning(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    """Puts the wish for thinking into the body."""
    family = encoding.target.family
    if options.HasField("native_json") and family.name == "nova-2":
        _nova(encoding, _nova_wishes(options))
    elif options.HasField("native_json"):
        _additional(encoding)["thinking"] = msgspec.Raw(options.native_json)
        if family.efforts and not _is_off(options):
            _effort(encoding, options)
    elif is_claude(encoding.target):
        _claude(encoding, options)
    elif family.name == "nova-2":
        _nova(encoding, options)
    elif family.name == "gpt-oss":
        if options.HasField("effort"):
            _additional(encoding)["reasoning_effort"] = options.effort
        _leave_out(encoding, options, "enabled", "budget_tokens", "summary")
    else:
        _leave_out(encoding, options, "enabled", "effort", "budget_tokens", "summary")


def _claude(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    known = thinking_types(encoding.target)
    if _is_off(options):
        if "disabled" in known:
            _additional(encoding)["thinking"] = {"type": "disabled"}
        elif "between_tools" in known:
            _additional(encoding)["thinking"] = {"type": "between_tools"}
        elif known:
            encoding.leave_out(
                "reasoning.enabled",
                f"{encoding.target.model!r} always thinks; a low reasoning.effort makes it think less",
            )
        return
    if not known:
        _leave_out(encoding, options, "enabled", "effort", "budget_tokens", "summary")
        return
    if encoding.target.family.efforts:
        _effort(encoding, options)
    thinking = _claude_thinking(encoding, options, known)
    if thinking and options.HasField("summary"):
        thinking["display"] = "omitted" if options.summary == "none" else "summarized"
    if thinking:
        _additional(encoding)["thinking"] = thinking


def _claude_thinking(
    encoding: Encoding, options: chat_pb2.ReasoningOptions, known: frozenset[str]
) -> Json:
    """Claude's own `thinking` object; empty if it cannot be had."""
    by_budget = "enabled" in known and (
        options.HasField("budget_tokens") or "adaptive" not in known
    )
    if not by_budget:
        _leave_out(encoding, options, "budget_tokens")
        return {"type": "adaptive"}
    if _is_forced(encoding.request):
        encoding.leave_out("reasoning", "Claude takes no thinking budget beside a forced call")
        return {}
    budget = options.budget_tokens
    if not options.HasField("budget_tokens"):
        field = "reasoning.effort" if options.HasField("effort") else "reasoning.enabled"
        budget = _BUDGETS.get(options.effort or _DEFAULT_EFFORT, 0)
        limit = encoding.request.max_completion_tokens or encoding.request.max_tokens
        if limit:
            budget = min(budget, limit // 2)
        if budget < _LEAST_BUDGET:
            encoding.leave_out(
                field,
                f"it leaves Claude fewer than {_LEAST_BUDGET} tokens to think; raise max_tokens",
            )
            return {}
    return {"type": "enabled", "budget_tokens": budget}


def _effort(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    """Sends the effort in Converse's own place for it."""
    if options.HasField("effort"):
        effort = _nearest(encoding, options.effort)
        encoding.body.setdefault("outputConfig", {})["effort"] = effort


def _nearest(encoding: Encoding, effort: str) -> str:
    """The effort; or what the model has in its place, the next weaker one."""
    efforts = encoding.target.family.efforts
    if effort in efforts or effort not in _EFFORTS or encoding.target.policy == "pass":
        return effort
    weaker = [known for known in efforts if known in _EFFORTS[: _EFFORTS.index(effort)]]
    sent = weaker[-1] if weaker else efforts[0]
    why = f"{encoding.target.model!r} knows only {', '.join(efforts)}"
    if encoding.target.policy == "strict":
        encoding.leave_out("reasoning.effort", why)
    encoding.warn("reasoning.effort", f"sent as {sent!r}: {why}")
    return sent


def _nova(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    config: Json = {"type": "disabled"}
    if not _is_off(options):
        effort = _nearest(encoding, options.effort or _DEFAULT_EFFORT)
        config = {"type": "enabled", "maxReasoningEffort": effort}
        _leave_out(encoding, options, "budget_tokens", "summary")
    _additional(encoding)["reasoningConfig"] = config


def _nova_wishes(options: chat_pb2.ReasoningOptions) -> chat_pb2.ReasoningOptions:
    """What the caller's own object says: Nova's reasoningConfig, or Claude's `thinking`."""
    wishes = chat_pb2.ReasoningOptions()
    wishes.CopyFrom(options)
    wishes.ClearField("native_json")
    given = {name: bytes(value) for name, value in raw_object(options.native_json).items()}
    wishes.enabled = given.get("type") != b'"disabled"'
    if effort := given.get("maxReasoningEffort", b"").strip(b'"'):
        wishes.effort = effort.decode()
    if (budget := given.get("budget_tokens", b"")).isdigit() and wishes.enabled:
        wishes.budget_tokens = int(budget)
    return wishes


def settle_conflicts(encoding: Encoding) -> None:
    """Leaves out tuning that Claude refuses beside thinking; call it when the body is complete.

    With "pass" the vendor decides, and also where the caller wrote `thinking` in Claude's own form.
    """
    thinking = encoding.body.get("additionalModelRequestFields", {}).get("thinking")
    if not isinstance(thinking, dict) or encoding.target.policy == "pass":
        return
    if thinking["type"] not in ("adaptive", "enabled"):
        return
    tuning = encoding.body.get("inferenceConfig", {})
    if tuning.get("temperature", 1) != 1:
        encoding.leave_out("temperature", "Claude refuses it while it thinks")
        del tuning["temperature"]
    if "top_k" in encoding.body["additionalModelRequestFields"]:
        encoding.leave_out("top_k", "Claude refuses it while it thinks")
        del encoding.body["additionalModelRequestFields"]["top_k"]
    if not tuning:
        encoding.body.pop("inferenceConfig", None)


def _is_off(options: chat_pb2.ReasoningOptions) -> bool:
    return (
        options.effort == "none"
        or (options.HasField("enabled") and not options.enabled)
        or (options.HasField("budget_tokens") and options.budget_tokens == 0)
    )


def _is_forced(request: chat_pb2.ChatRequest) -> bool:
    choice = request.tool_choice
    kind = choice.WhichOneof("kind")
    return kind == "function_name" or choice.mode == chat_pb2.ToolChoice.MODE_REQUIRED


def _leave_out(encoding: Encoding, options: chat_pb2.ReasoningOptions, *names: _Option) -> None:
    for name in names:
        # Who does not think anyway needs no switch.
        if options.HasField(name) and not (name != "summary" and _is_off(options)):
            encoding.leave_out(
                f"reasoning.{name}", f"{encoding.target.model!r} has no such option on Bedrock"
            )


def _additional(encoding: Encoding) -> Json:
    fields: Json = encoding.body.setdefault("additionalModelRequestFields", {})
    return fields
