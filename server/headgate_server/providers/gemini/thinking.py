"""ReasoningOptions to thinkingConfig. Pure.

Gemini 2.5 thinks by a budget of tokens, newer models and Gemma 4 by a level. Sources:
https://ai.google.dev/gemini-api/docs/thinking, and for efforts on a model that knows only budgets
https://ai.google.dev/gemini-api/docs/openai#thinking.
"""

from __future__ import annotations

from headgate.v1 import chat_pb2
from headgate.wire import raw_object
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.gemini.traits import is_gemma, thinks_by_budget

_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_DYNAMIC = -1
_LEVELS = ("minimal", "low", "medium", "high")
# Their default is hardly to think.
_IDLE_FAMILIES = frozenset({"gemini-3-flash-lite"})


def encode_thinking(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> Json:
    """The thinkingConfig; empty if there is nothing to say."""
    wishes = chat_pb2.ReasoningOptions()
    wishes.CopyFrom(options)
    config: Json = {}
    if options.HasField("native_json"):
        config = _native(encoding, wishes)
    _translate(encoding, wishes, config)
    return config


def _native(encoding: Encoding, wishes: chat_pb2.ReasoningOptions) -> Json:
    """The caller's own object: Gemini's, or the form that Anthropic made common."""
    given = raw_object(wishes.native_json)
    if any(name.lower().replace("_", "").startswith(("thinking", "include")) for name in given):
        for field in ("enabled", "effort", "budget_tokens", "summary"):
            wishes.ClearField(field)  # the exact spelling decides
        return dict(given)
    kind = bytes(given.get("type", b"")).strip(b'"')
    if kind in (b"enabled", b"disabled", b"adaptive"):
        del given["type"]
        wishes.enabled = kind != b"disabled"
        budget = bytes(given.pop("budget_tokens", b""))
        if budget.isdigit():
            wishes.budget_tokens = int(budget)
    if given:
        encoding.leave_out(
            "reasoning.native_json",
            f"{', '.join(given)}: not of Gemini's thinkingConfig, nor of the form "
            '{"type": "enabled", "budget_tokens": ...}',
        )
    return {}


def _translate(encoding: Encoding, wishes: chat_pb2.ReasoningOptions, config: Json) -> None:
    family, model = encoding.target.family, encoding.target.model
    effort = wishes.effort.lower()
    budget = wishes.budget_tokens if wishes.HasField("budget_tokens") else None
    off = next(
        (
            field
            for field, said in (
                ("reasoning.enabled", wishes.HasField("enabled") and not wishes.enabled),
                ("reasoning.effort", effort == "none"),
                ("reasoning.budget_tokens", budget == 0),
            )
            if said
        ),
        None,
    )
    if off is not None:
        if family.reasoning is not False:
            _switch_off(encoding, off, config)
        return
    asked = [descriptor.name for descriptor, _ in wishes.ListFields()]
    asked = [name for name in asked if name != "native_json"]
    if not asked or (asked == ["summary"] and wishes.summary == "none"):
        return
    if family.reasoning is False:
        for name in asked:
            encoding.leave_out(f"reasoning.{name}", f"{model!r} does not think")
        return
    if thinks_by_budget(family):
        _budget(encoding, effort, budget, config, switched_on=wishes.enabled)
    else:
        _level(encoding, effort, budget, config, switched_on=wishes.enabled)
    if wishes.summary in ("concise", "detailed"):
        encoding.warn(
            "reasoning.summary", "changed to auto: the gemini API does not size its summaries"
        )
    # Gemma shows its thoughts unasked and refuses to be asked.
    if wishes.summary != "none" and not is_gemma(family):
        config["includeThoughts"] = True


def _switch_off(encoding: Encoding, field: str, config: Json) -> None:
    family, model = encoding.target.family, encoding.target.model
    if thinks_by_budget(family) and "none" in family.efforts:
        config["thinkingBudget"] = 0
    elif "minimal" in family.efforts and not thinks_by_budget(family):
        config["thinkingLevel"] = "MINIMAL"
        encoding.warn(
            field, f"changed to the level minimal: {model!r} cannot be kept from thinking"
        )
    else:
        encoding.leave_out(field, f"thinking of {model!r} cannot be switched off")


def _budget(
    encoding: Encoding, effort: str, budget: int | None, config: Json, *, switched_on: bool
) -> None:
    if budget is not None:
        config["thinkingBudget"] = budget
        if effort:
            encoding.leave_out("reasoning.effort", "budget_tokens says it more exactly")
    elif effort in _BUDGETS:
        config["thinkingBudget"] = _BUDGETS[effort]
    elif effort:
        encoding.leave_out(
            "reasoning.effort",
            f"{encoding.target.model!r} knows none, minimal, low, medium and high, not {effort!r}",
        )
    elif switched_on:
        config["thinkingBudget"] = _DYNAMIC


def _level(
    encoding: Encoding, effort: str, budget: int | None, config: Json, *, switched_on: bool
) -> None:
    family, model = encoding.target.family, encoding.target.model
    if effort:
        level = _nearest(effort, family.efforts)
        if level != effort:
            encoding.warn("reasoning.effort", f"changed to {level}: {model!r} has no {effort}")
        config["thinkingLevel"] = level.upper()
        if budget is not None:
            encoding.leave_out(
                "reasoning.budget_tokens", "the API takes no budget beside an effort"
            )
    elif budget is not None and is_gemma(family):
        encoding.leave_out("reasoning.budget_tokens", f"{model!r} takes no thinking budget")
    elif budget is not None:
        config["thinkingBudget"] = budget
    elif switched_on and family.name in _IDLE_FAMILIES:
        config["thinkingLevel"] = "MEDIUM"


def _nearest(effort: str, known: tuple[str, ...]) -> str:
    """The level itself, or the next stronger one that the family has; what is no level, stays."""
    if not known or effort in known or effort not in _LEVELS:
        return effort
    stronger = _LEVELS[_LEVELS.index(effort) :]
    return next((level for level in stronger if level in known), effort)
