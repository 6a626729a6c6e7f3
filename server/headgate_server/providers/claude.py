"""How Claude is told how much to think, as far as it is the same wherever Claude runs. Pure.

Newer models decide themselves how much to think, and are steered by an effort; older ones take a budget
of tokens, which an effort is translated into:

    minimal 1,024   low 2,048   medium 8,192   high 16,000   xhigh 24,000   max 32,000

but never more than half of what the answer may have. Which forms of thinking a family takes stands in
families.toml.

Sources: https://platform.claude.com/docs/en/build-with-claude/thinking, .../extended-thinking and
.../effort.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from headgate.v1 import chat_pb2
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.vendors import Family, ThinkingType

_BUDGETS = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_000,
    "xhigh": 24_000,
    "max": 32_000,
}
_EFFORTS = tuple(_BUDGETS)  # weakest first
_SMALLEST_BUDGET = 1_024  # the models' own


def thinking_types(family: Family) -> tuple[ThinkingType, ...]:
    """The accepted values of `thinking.type`; empty for models that cannot think.

    Other vendors' models that are spoken to in Claude's words know the oldest of them at least.
    """
    if family.thinking_types or family.reasoning is False:
        return family.thinking_types
    return ("enabled", "disabled")


def off_switch(options: chat_pb2.ReasoningOptions) -> str:
    """The field that asks for no thinking; empty if none does."""
    if options.HasField("enabled") and not options.enabled:
        return "enabled"
    if options.effort == "none":
        return "effort"
    no_tokens = options.HasField("budget_tokens") and not options.budget_tokens
    return "budget_tokens" if no_tokens else ""


def switched_off(encoding: Encoding, known: Collection[ThinkingType], field: str) -> Json:
    """The `thinking` object that says so; empty if there is nothing to say, or no way to say it.

    Args:
        encoding: takes the warning.
        known: the accepted values of `thinking.type`.
        field: of the options, that asks for it.
    """
    target = encoding.target
    if "disabled" in known or target.policy == "pass":
        return {"type": "disabled"}
    if "between_tools" in known:
        return {"type": "between_tools"}
    if known:
        encoding.leave_out(
            f"reasoning.{field}",
            f"model {target.model!r} always thinks; a low reasoning.effort makes it think less",
        )
    return {}


def thinks_by_budget(known: Collection[ThinkingType], options: chat_pb2.ReasoningOptions) -> bool:
    """Whether thinking is to be measured in tokens, with these values of `thinking.type`."""
    return "enabled" in known and (options.HasField("budget_tokens") or "adaptive" not in known)


def nearest_effort(encoding: Encoding, effort: str, model: str) -> str:
    """The effort; or what the model has in its place, the next weaker one.

    Args:
        model: what to call the model.
    """
    efforts = encoding.target.family.efforts
    if effort in efforts or effort not in _EFFORTS or encoding.target.policy == "pass":
        return effort
    weaker = [known for known in efforts if known in _EFFORTS[: _EFFORTS.index(effort)]]
    sent = weaker[-1] if weaker else efforts[0]
    why = f"{model} knows only {', '.join(efforts)}"
    if encoding.target.policy == "strict":
        encoding.leave_out("reasoning.effort", why)
    encoding.warn("reasoning.effort", f"sent as {sent!r}: {why}")
    return sent


def budget_of(encoding: Encoding, effort: str, fit: Callable[[int], int], *, said: bool) -> Json:
    """The `thinking` object in place of an effort, or of a plain wish to think; empty if there is none.

    Args:
        effort: empty for the plain wish.
        fit: how much of a budget there is room for.
        said: whether the effort as such has been said already.
    """
    field = "reasoning.effort" if effort else "reasoning.enabled"
    budget = _BUDGETS.get(effort or "medium")
    if budget is None:
        if not said:
            known = ", ".join(_EFFORTS)
            encoding.leave_out(field, f"{effort!r} is none of the known efforts: {known}")
        return {}
    budget = fit(budget)
    if budget < _SMALLEST_BUDGET:
        encoding.leave_out(
            field, f"max_tokens must be at least {2 * _SMALLEST_BUDGET} to leave room for thinking"
        )
        return {}
    return {"type": "enabled", "budget_tokens": budget}


def displayed(thinking: Json, summary: str) -> Json:
    """The `thinking` object that says how much of the thinking to show."""
    return {**thinking, "display": "omitted" if summary == "none" else "summarized"}


def forced(request: chat_pb2.ChatRequest) -> bool:
    """Whether the model must call a tool, beside which it takes no budget."""
    choice = request.tool_choice
    kind = choice.WhichOneof("kind")
    return kind == "function_name" or (
        kind == "mode" and choice.mode == chat_pb2.ToolChoice.MODE_REQUIRED
    )


def refuses_tuning(encoding: Encoding, thinking: object) -> bool:
    """Whether the model refuses a temperature and top_k, because it thinks.

    With "pass" the vendor decides, and also where the caller wrote `thinking` in the vendor's own form.

    Args:
        thinking: what stands in the body.
    """
    return (
        isinstance(thinking, dict)
        and encoding.target.policy != "pass"
        and thinking["type"] in ("adaptive", "enabled")
    )
