"""A Cohere chat answer to ChatResponse, and the pieces that streams share with it. Pure.

Source: https://docs.cohere.com/reference/chat. A tool plan is thinking: it becomes a reasoning part whose
id says what it was, so that it goes back as a plan and not as a block of thinking.
"""

from __future__ import annotations

import secrets

import msgspec

from headgate.errors import UpstreamProtocol, UpstreamTimeout, UpstreamUnavailable
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import json_text, raw_text
from headgate_server.providers.citations import other_citation
from headgate_server.providers.cohere.errors import error_in_body
from headgate_server.providers.cohere.wire import (
    ANSWER,
    BILLED,
    CITATION,
    CONTENT,
    LOGPROB,
    AnswerWire,
    BilledWire,
    MessageWire,
    TokensWire,
    ToolCallWire,
    UsageWire,
)
from headgate_server.providers.counts import count
from headgate_server.providers.faults import parse, reading
from headgate_server.providers.parts import reason_of
from headgate_server.providers.shapes import as_raw, keep, nested, there

# The last two are older; "ERROR" and "TIMEOUT" are no ends of an answer, see `finish_reason`.
FINISH_REASONS = {
    "COMPLETE": chat_pb2.FINISH_REASON_STOP,
    "STOP_SEQUENCE": chat_pb2.FINISH_REASON_STOP,
    "MAX_TOKENS": chat_pb2.FINISH_REASON_LENGTH,
    "TOOL_CALL": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "ERROR_TOXIC": chat_pb2.FINISH_REASON_CONTENT_FILTER,
    "ERROR_LIMIT": chat_pb2.FINISH_REASON_LENGTH,
}
# The `Reasoning.id` of a tool plan.
TOOL_PLAN = "tool_plan"
_CITED_KINDS = {"THINKING_CONTENT": "thinking", "PLAN": "plan"}


def decode_answer(body: bytes) -> chat_pb2.ChatResponse:
    """The whole answer.

    Raises:
        UpstreamProtocol: the body is no answer of Cohere's.
        GatewayError: the body is an error object in spite of its status, or the answer failed.
    """
    with reading:
        return _response(*_parse(body))


def _parse(body: bytes) -> tuple[AnswerWire, MessageWire]:
    wire = parse(ANSWER, body, error_in_body)
    if wire.message is None or not wire.finish_reason:
        found = error_in_body(body)
        raise found or UpstreamProtocol("the upstream's answer has no message or no finish reason")
    return wire, wire.message


def _response(wire: AnswerWire, message: MessageWire) -> chat_pb2.ChatResponse:
    raw_reason = wire.finish_reason or ""
    reason = finish_reason(raw_reason, None, calls=bool(message.tool_calls))
    response = chat_pb2.ChatResponse(id=wire.id or "")
    choice = response.choices.add()
    choice.finish_reason, choice.provider_finish_reason = reason, raw_reason
    choice.message.role = content_pb2.ROLE_ASSISTANT
    _parts(message, choice.message)
    if wire.logprobs:
        choice.logprobs.content.extend(map(decode_logprob, wire.logprobs))
        choice.extra_json = json_text({"logprobs": wire.logprobs}) or ""
    if wire.usage is not None:
        decode_usage(wire.usage, response.usage)
    keep(response, wire.extra)
    return response


def _parts(wire: MessageWire, message: content_pb2.Message) -> None:
    cited: dict[tuple[str, int | None], content_pb2.Part] = {}
    content = wire.content
    if isinstance(content, str):
        content = [as_raw({"type": "text", "text": content})]
    for index, raw in enumerate(content or ()):
        part = _content(raw)
        if part is None:
            continue
        kind = "thinking" if part.HasField("reasoning") else "text"
        added = message.parts.add()
        added.CopyFrom(part)
        cited[kind, index] = added
        cited.setdefault((kind, None), added)
    if wire.tool_plan:
        added = message.parts.add()
        added.reasoning.text = wire.tool_plan
        mark_plan(added)
        cited["plan", None] = added
    for call in wire.tool_calls or ():
        part = call_start(call)
        part.tool_call.arguments_json = call_arguments(call) or "{}"
        message.parts.add().CopyFrom(part)
    homeless: list[msgspec.Raw] = []
    for citation in wire.citations or ():
        home = cited.get(cited_part(citation))
        if home is None:
            homeless.append(citation)
        else:
            home.annotations.append(other_citation(citation))
    if extra := message_extra(wire.extra, homeless):
        message.extra_json = extra


def _content(raw: msgspec.Raw) -> content_pb2.Part | None:
    """The part that a block is; None for an empty one."""
    wire = CONTENT.decode(bytes(raw))
    part = content_pb2.Part()
    if wire.type in (None, "text") and wire.text is not None:
        if not wire.text:
            return None
        part.text = wire.text
    elif wire.thinking is not None:
        if not wire.thinking:
            return None
        part.reasoning.text = wire.thinking
    else:
        part.vendor_part.dialect = "cohere"
        part.vendor_part.json = raw_text(raw) or "{}"
        return part
    keep(part, wire.extra)
    return part


def cited_part(citation: msgspec.Raw) -> tuple[str, int | None]:
    """Which part a citation belongs to: the kind of content ("text", "thinking", "plan"), its index."""
    wire = CITATION.decode(bytes(citation))
    kind = _CITED_KINDS.get(wire.type or "", "text")
    return kind, None if kind == "plan" else wire.content_index


def message_extra(extra: dict[str, msgspec.Raw] | None, citations: list[msgspec.Raw]) -> str | None:
    """What a message says beside its parts: unknown members, citations of nothing that it holds."""
    members: dict[str, msgspec.Raw | list[msgspec.Raw]] = dict(extra or {})
    if citations:
        members["citations"] = citations
    return json_text(members)


def mark_plan(part: content_pb2.Part) -> content_pb2.Part:
    """Makes a reasoning part a tool plan."""
    part.reasoning.id = TOOL_PLAN
    part.reasoning.dialect = "cohere"
    return part


def call_start(wire: ToolCallWire) -> content_pb2.Part:
    """A tool call without its arguments."""
    part = content_pb2.Part()
    part.tool_call.id = wire.id or f"call_{secrets.token_hex(12)}"
    part.tool_call.name = (wire.function.name if wire.function is not None else None) or ""
    inner = wire.function.extra if wire.function is not None else None
    keep(part, wire.extra, nested("function", inner))
    return part


def call_arguments(wire: ToolCallWire) -> str:
    """The arguments, or the piece of them that an event brings."""
    return (wire.function.arguments if wire.function is not None else None) or ""


def finish_reason(raw: str, error: str | None, *, calls: bool) -> chat_pb2.FinishReason.ValueType:
    """Our reason.

    Raises:
        UpstreamUnavailable, UpstreamTimeout: the generation broke off; a part of an answer is none.
    """
    if raw == "ERROR" or error:
        raise UpstreamUnavailable(error or "the upstream's generation failed")
    if raw == "TIMEOUT":
        raise UpstreamTimeout("the upstream's generation took longer than the upstream allows")
    return reason_of(FINISH_REASONS, raw, calls=calls)


def decode_logprob(raw: msgspec.Raw) -> chat_pb2.TokenLogprob:
    """A stretch of text; where it has several tokens, how likely they were together."""
    wire = LOGPROB.decode(bytes(raw))
    return chat_pb2.TokenLogprob(token=wire.text or "", logprob=float(sum(wire.logprobs or ())))


def decode_usage(wire: UsageWire, usage: chat_pb2.Usage) -> None:
    """Fills `usage` with what the model has read and written; what is billed goes to its extras."""
    tokens: TokensWire | BilledWire
    if wire.tokens is not None:
        tokens, more = wire.tokens, wire.tokens.extra
    else:
        tokens, more = BILLED.decode((raw_text(wire.billed_units) or "{}").encode()), None
    usage.input_tokens, usage.output_tokens = (
        count(tokens.input_tokens),
        count(tokens.output_tokens),
    )
    usage.total_tokens = usage.input_tokens + usage.output_tokens
    if wire.cached_tokens is not None:
        usage.cached_input_tokens = count(wire.cached_tokens)
    keep(usage, wire.extra, there({"billed_units": wire.billed_units}), nested("tokens", more))
