"""A Converse answer to ChatResponse, and the pieces that streams share with it. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. Converse gives
an answer no id, no time and no model's name: these stay unset.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra, MalformedJson, raw_object, raw_text
from headgate_server.providers.base import Target
from headgate_server.providers.bedrock.errors import error_in_body
from headgate_server.providers.bedrock.models import proof_dialect
from headgate_server.providers.bedrock.wire import (
    ANSWER,
    BLOCK,
    COUNT,
    STOP_SEQUENCE,
    WEB_CITATION,
    AnswerWire,
    BlockWire,
    CitationsContentWire,
    MediaWire,
    MessageWire,
    MetadataWire,
    ReasoningWire,
    ToolResultWire,
    ToolUseWire,
    UsageWire,
)
from headgate_server.providers.citations import other_citation, url_citation
from headgate_server.providers.counts import count
from headgate_server.providers.faults import parse, reading
from headgate_server.providers.media import bytes_of
from headgate_server.providers.parts import reason_of
from headgate_server.providers.shapes import Members, keep, nested, there

# Of these Converse documents all but "refusal" and "pause_turn", which are Claude's own.
FINISH_REASONS = {
    "end_turn": chat_pb2.FINISH_REASON_STOP,
    "stop_sequence": chat_pb2.FINISH_REASON_STOP,
    "max_tokens": chat_pb2.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": chat_pb2.FINISH_REASON_LENGTH,
    "tool_use": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "guardrail_intervened": chat_pb2.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": chat_pb2.FINISH_REASON_CONTENT_FILTER,
    "refusal": chat_pb2.FINISH_REASON_REFUSAL,
    "pause_turn": chat_pb2.FINISH_REASON_PAUSE,
    "malformed_model_output": chat_pb2.FINISH_REASON_OTHER,
    "malformed_tool_use": chat_pb2.FINISH_REASON_OTHER,
}
# A tool call of this type is run by the provider itself; nobody waits for its result.
SERVER_TOOL = "server_tool_use"


def decode_answer(body: bytes, target: Target) -> chat_pb2.ChatResponse:
    """The whole answer.

    Raises:
        UpstreamProtocol: the body is no answer of Converse's.
        GatewayError: the body is an error object in spite of its status.
    """
    with reading:
        return _response(*_parse(body), target)


def _parse(body: bytes) -> tuple[AnswerWire, MessageWire]:
    wire = parse(ANSWER, body, error_in_body)
    message = wire.output.message if wire.output is not None else None
    if message is None or not wire.stop_reason:
        found = error_in_body(body)
        raise found or UpstreamProtocol("the upstream's answer has no message or no stop reason")
    return wire, message


def _response(wire: AnswerWire, message: MessageWire, target: Target) -> chat_pb2.ChatResponse:
    response = chat_pb2.ChatResponse()
    choice = response.choices.add()
    choice.message.role = content_pb2.ROLE_ASSISTANT
    written = 0  # characters of text so far, which citations count
    for raw in message.content or ():
        part = decode_block(raw, target, written)
        if part is not None:
            choice.message.parts.append(part)
            written += len(part.text)
    keep(choice.message, message.extra)
    calls = any(part.HasField("tool_call") for part in choice.message.parts)
    choice.finish_reason = reason_of(FINISH_REASONS, wire.stop_reason or "", calls=calls)
    choice.provider_finish_reason = wire.stop_reason or ""
    additional = wire.additional_model_response_fields
    if (stop := stop_sequence(additional)) is not None:
        choice.stop_sequence = stop
    if wire.usage is not None:
        decode_usage(wire.usage, response.usage)
    if wire.service_tier is not None:
        response.service_tier = wire.service_tier.type
    keep(response, answer_members(wire, additional))
    return response


def stop_sequence(fields: msgspec.Raw) -> str | None:
    """The stop text, if the model's additional response fields have it."""
    if raw_text(fields) is None:
        return None
    try:
        return STOP_SEQUENCE.decode(fields).stop_sequence
    except msgspec.DecodeError:
        return None


def answer_members(wire: AnswerWire | MetadataWire, additional: msgspec.Raw) -> Members:
    """What the answer says beside its message: metrics, guardrail traces, unknown members."""
    members = {
        "metrics": wire.metrics,
        "additionalModelResponseFields": additional,
        "trace": wire.trace,
        "performanceConfig": wire.performance_config,
    }
    # The one field that we ask for ourselves has its own place.
    if stop_sequence(additional) is not None and len(raw_object(additional)) == 1:
        del members["additionalModelResponseFields"]
    return {**there(members), **(wire.extra or {})}


def decode_usage(wire: UsageWire, usage: chat_pb2.Usage) -> None:
    """Fills `usage`.

    Converse's inputTokens leave out what was read from the cache or written to it:
    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    read, write = wire.cache_read_input_tokens, wire.cache_write_input_tokens
    usage.input_tokens = count(wire.input_tokens) + count(read) + count(write)
    usage.output_tokens = count(wire.output_tokens)
    if wire.total_tokens is None:
        usage.total_tokens = usage.input_tokens + usage.output_tokens
    else:
        usage.total_tokens = count(wire.total_tokens)
    if read is not None:
        usage.cached_input_tokens = count(read)
    if write is not None:
        usage.cache_write_input_tokens = count(write)
    named = {"cacheDetails": wire.cache_details, "serverToolUsage": wire.server_tool_usage}
    said = {name: raw for name, raw in there(named).items() if bytes(raw) not in (b"[]", b"{}")}
    keep(usage, wire.extra, said)


def decode_count(body: bytes) -> int:
    """The number in an answer of CountTokens. Raises `UpstreamProtocol` for nonsense."""
    return count(parse(COUNT, body, error_in_body).input_tokens)


# Content blocks.


def decode_block(raw: msgspec.Raw, target: Target, written: int) -> content_pb2.Part | None:
    """The part that a content block is; None for an empty text.

    Args:
        raw: the block.
        target: what answered.
        written: how many characters of text the message has before it.
    """
    block = BLOCK.decode(bytes(raw))
    part = _known_part(block, written, target)
    if part is None:
        # An empty text says nothing. Everything else is a block of a kind that has no part of its own.
        return None if block.text is not None else vendor_part(bytes(raw))
    return part


def _known_part(block: BlockWire, written: int, target: Target) -> content_pb2.Part | None:
    if block.text:
        return with_extra(content_pb2.Part(text=block.text), block.extra)
    if block.tool_use is not None:
        arguments = raw_text(block.tool_use.input) or "{}"
        if block.tool_use.type == SERVER_TOOL:
            return server_call(block.tool_use, arguments)
        part = call_start(block.tool_use)
        part.tool_call.arguments_json = arguments
        return part
    if block.tool_result is not None:
        return server_result(block.tool_result, block.tool_result.content or [])
    if block.reasoning_content is not None:
        return _reasoning(block.reasoning_content, target)
    if block.citations_content is not None:
        return _cited(block.citations_content, written)
    for kind, media in (("image", block.image), ("audio", block.audio)):
        if media is not None and (media.source is None or media.source.bytes is not None):
            return _media(kind, media)
    return None


def with_extra(part: content_pb2.Part, *extras: Extra) -> content_pb2.Part:
    """The part, with the members that the schema does not name."""
    keep(part, *extras)
    return part


def vendor_part(block: bytes) -> content_pb2.Part:
    """A block that only Converse has; without white space, so that streams write it alike."""
    part = content_pb2.Part()
    part.vendor_part.dialect = "bedrock"
    try:
        part.vendor_part.json = msgspec.json.format(block, indent=-1).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson("a content block is not valid JSON") from error
    return part


def server_call(wire: ToolUseWire, arguments: str) -> content_pb2.Part:
    """The call of a tool that the provider runs itself."""
    members = {
        "toolUseId": wire.tool_use_id,
        "name": wire.name,
        "input": msgspec.Raw(arguments),
        "type": wire.type,
        **(wire.extra or {}),
    }
    return vendor_part(msgspec.json.encode({"toolUse": members}))


def server_result(wire: ToolResultWire, content: list[msgspec.Raw]) -> content_pb2.Part:
    """The result of a tool that the provider ran itself."""
    members = {"toolUseId": wire.tool_use_id, "content": content}
    known = {"status": wire.status, "type": wire.type}
    members |= {name: value for name, value in known.items() if value is not None}
    return vendor_part(msgspec.json.encode({"toolResult": {**members, **(wire.extra or {})}}))


def call_start(wire: ToolUseWire) -> content_pb2.Part:
    """A tool call without its arguments."""
    part = content_pb2.Part()
    part.tool_call.id = wire.tool_use_id or f"tooluse_{secrets.token_hex(12)}"
    part.tool_call.name = wire.name
    return with_extra(part, nested("type", wire.type), wire.extra)


def _reasoning(wire: ReasoningWire, target: Target) -> content_pb2.Part:
    part = content_pb2.Part()
    part.reasoning.SetInParent()
    text = wire.reasoning_text
    if text is not None:
        part.reasoning.text = text.text
    signature = text.signature if text is not None else None
    prove(part.reasoning, signature or "", wire.redacted_content or "", target)
    return with_extra(part, text.extra if text is not None else None, wire.extra)


def prove(reasoning: content_pb2.Reasoning, signature: str, encrypted: str, target: Target) -> None:
    """Adds the proofs that came with thinking, and whose they are."""
    if signature:
        reasoning.signature = signature
    if encrypted:
        reasoning.encrypted = encrypted
    if signature or encrypted:
        reasoning.dialect = proof_dialect(target)


def _cited(wire: CitationsContentWire, written: int) -> content_pb2.Part:
    text = "".join(piece.text for piece in wire.content or ())
    part = content_pb2.Part(text=text)
    part.annotations.extend(decode_citations(wire.citations or (), written, written + len(text)))
    return with_extra(part, wire.extra)


def decode_citations(
    citations: Sequence[msgspec.Raw], start: int, end: int
) -> list[content_pb2.Annotation]:
    """The sources of a stretch of text. Those in documents of the request stay JSON."""
    return [_citation(raw, start, end) for raw in citations]


def _citation(raw: msgspec.Raw, start: int, end: int) -> content_pb2.Annotation:
    try:
        citation = WEB_CITATION.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return other_citation(raw)
    return url_citation(citation.location.web.url, citation.title, start, end)


def media_start(kind: str, wire: MediaWire) -> content_pb2.Part:
    """A generated image or sound without its bytes."""
    part = content_pb2.Part()
    media = part.image if kind == "image" else part.audio
    media.SetInParent()
    media.media_type = f"{kind}/{wire.format}"
    return part


def _media(kind: str, wire: MediaWire) -> content_pb2.Part:
    part = media_start(kind, wire)
    media = part.image if kind == "image" else part.audio
    if wire.source is not None:
        media.data = bytes_of(wire.source.bytes or "", "media")
    return with_extra(part, media_error(wire.error), wire.extra)


def media_error(error: msgspec.Raw) -> Members:
    """Why there are no media, or not all of them."""
    return there({"error": error})
