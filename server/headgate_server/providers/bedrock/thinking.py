"""How much to think, in the words of each model family behind Converse. Pure.

What all of Claude's platforms have in common is in `providers.claude`.

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
from headgate_server.providers.claude import (
    budget_of,
    displayed,
    forced,
    nearest_effort,
    off_switch,
    refuses_tuning,
    switched_off,
    thinks_by_budget,
)
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.vendors import ThinkingType

_Option = Literal["enabled", "effort", "budget_tokens", "summary"]


def encode_reasoning(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    """Puts the wish for thinking into the body."""
    family = encoding.target.family
    if options.HasField("native_json") and family.name == "nova-2":
        _nova(encoding, _nova_wishes(options))
    elif options.HasField("native_json"):
        native = msgspec.Raw(options.native_json)
        encoding.put("additionalModelRequestFields.thinking", native)
        if family.efforts and not off_switch(options):
            _effort(encoding, options)
    elif is_claude(encoding.target):
        _claude(encoding, options)
    elif family.name == "nova-2":
        _nova(encoding, options)
    elif family.name == "gpt-oss":
        if options.HasField("effort"):
            encoding.put("additionalModelRequestFields.reasoning_effort", options.effort)
        _leave_out(encoding, options, "enabled", "budget_tokens", "summary")
    else:
        _leave_out(encoding, options, "enabled", "effort", "budget_tokens", "summary")


def _claude(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    known = thinking_types(encoding.target)
    if off := off_switch(options):
        if thinking := switched_off(encoding, known, off):
            encoding.put("additionalModelRequestFields.thinking", thinking)
        return
    if not known:
        _leave_out(encoding, options, "enabled", "effort", "budget_tokens", "summary")
        return
    if encoding.target.family.efforts:
        _effort(encoding, options)
    if thinking := _claude_thinking(encoding, options, known):
        if options.HasField("summary"):
            thinking = displayed(thinking, options.summary)
        encoding.put("additionalModelRequestFields.thinking", thinking)


def _claude_thinking(
    encoding: Encoding, options: chat_pb2.ReasoningOptions, known: frozenset[ThinkingType]
) -> Json:
    """Claude's own `thinking` object; empty if it cannot be had."""
    if not thinks_by_budget(known, options):
        _leave_out(encoding, options, "budget_tokens")
        return {"type": "adaptive"}
    request = encoding.request
    if forced(request):
        encoding.leave_out("reasoning", "Claude takes no thinking budget beside a forced call")
        return {}
    if options.HasField("budget_tokens"):
        return {"type": "enabled", "budget_tokens": options.budget_tokens}
    limit = request.max_completion_tokens or request.max_tokens
    said = bool(options.effort and encoding.target.family.efforts)
    return budget_of(
        encoding,
        options.effort,
        lambda budget: min(budget, limit // 2) if limit else budget,
        said=said,
    )


def _effort(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    """Sends the effort in Converse's own place for it."""
    if options.HasField("effort"):
        effort = nearest_effort(encoding, options.effort, repr(encoding.target.model))
        encoding.put("outputConfig.effort", effort)


def _nova(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    config: Json = {"type": "disabled"}
    if not off_switch(options):
        effort = nearest_effort(encoding, options.effort or "medium", repr(encoding.target.model))
        config = {"type": "enabled", "maxReasoningEffort": effort}
        _leave_out(encoding, options, "budget_tokens", "summary")
    encoding.put("additionalModelRequestFields.reasoningConfig", config)


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
    """Leaves out tuning that Claude refuses beside thinking; call it when the body is complete."""
    body = encoding.body
    fields = body.get("additionalModelRequestFields", {})
    if not refuses_tuning(encoding, fields.get("thinking")):
        return
    tuning = body.get("inferenceConfig", {})
    if tuning.get("temperature", 1) != 1:
        encoding.leave_out("temperature", "Claude refuses it while it thinks")
        del tuning["temperature"]
    if "top_k" in fields:
        encoding.leave_out("top_k", "Claude refuses it while it thinks")
        del fields["top_k"]
    if not tuning:
        body.pop("inferenceConfig", None)


def _leave_out(encoding: Encoding, options: chat_pb2.ReasoningOptions, *names: _Option) -> None:
    for name in names:
        # Who does not think anyway needs no switch.
        if options.HasField(name) and not (name != "summary" and off_switch(options)):
            encoding.leave_out(
                f"reasoning.{name}", f"{encoding.target.model!r} has no such option on Bedrock"
            )
