"""A message object to ChatResponse, and the pieces that streams share with it. Pure.

Source: https://platform.claude.com/docs/en/api/messages/create and, for why an answer ends,
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra, MalformedJson, json_text, raw_text
from headgate_server.providers.anthropic.errors import error_in_body
from headgate_server.providers.anthropic.wire import (
    BLOCK,
    COUNT,
    MESSAGE,
    URL_CITATION,
    BlockWire,
    MessageWire,
    Number,
    UsageWire,
    is_there,
    kind_of,
    malformed,
)

DIALECT = "anthropic"

FINISH_REASONS = {
    "end_turn": chat_pb2.FINISH_REASON_STOP,
    "stop_sequence": chat_pb2.FINISH_REASON_STOP,
    "max_tokens": chat_pb2.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": chat_pb2.FINISH_REASON_LENGTH,
    "tool_use": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "pause_turn": chat_pb2.FINISH_REASON_PAUSE,
    # Of a beta (server-side compaction): the answer is a summary, to be sent back for more.
    "compaction": chat_pb2.FINISH_REASON_PAUSE,
    "refusal": chat_pb2.FINISH_REASON_REFUSAL,
}
# Blocks that have a part of their own; others travel as vendor parts.
KNOWN_BLOCKS = frozenset(("text", "thinking", "redacted_thinking", "tool_use"))


def decode_answer(body: bytes) -> chat_pb2.ChatResponse:
    """The whole answer.

    Raises:
        UpstreamProtocol: the body is not a message object.
        GatewayError: the body is an error object in spite of its status.
    """
    try:
        wire = MESSAGE.decode(body)
        if wire.type == "error" or is_there(wire.error):
            raise error_in_body(body) or UpstreamProtocol("the upstream sent an unknown error")
        return _response(wire, body)
    except MalformedJson as error:
        found = error_in_body(body) if error.is_json else None
        raise found or malformed(error) from error


def decode_count(body: bytes) -> int:
    """The number of tokens. Raises `UpstreamProtocol` for anything else."""
    try:
        return COUNT.decode(body).input_tokens
    except MalformedJson as error:
        raise malformed(error) from error


def _response(wire: MessageWire, body: bytes) -> chat_pb2.ChatResponse:
    if wire.content is None:
        raise error_in_body(body) or UpstreamProtocol("the upstream's answer has no content")
    response = chat_pb2.ChatResponse(id=wire.id or "", model=wire.model or "")
    choice = response.choices.add()
    choice.message.role = content_pb2.ROLE_ASSISTANT
    offset = 0  # of the next text block in the message's text
    for raw in wire.content:
        part = choice.message.parts.add()
        _block(raw, offset, part)
        offset += len(part.text)
    choice.finish_reason, choice.provider_finish_reason = finish_reason(wire.stop_reason)
    if wire.stop_sequence is not None:
        choice.stop_sequence = wire.stop_sequence
    if is_there(wire.stop_details):
        choice.extra_json = stop_extra(wire.stop_details)
    if wire.usage is not None:
        decode_usage(wire.usage, response.usage)
        if wire.usage.service_tier is not None:
            response.service_tier = wire.usage.service_tier
    extra = json_text(message_members(wire))
    if extra:
        response.extra_json = extra
    return response


def _block(raw: msgspec.Raw, offset: int, part: content_pb2.Part) -> None:
    """Fills a part from a whole content block."""
    kind = kind_of(raw)
    if kind not in KNOWN_BLOCKS:
        vendor_part(raw, part)
        return
    wire = BLOCK.decode(bytes(raw))
    begin_part(wire, part)
    if kind == "text":
        part.text = wire.text or ""
        rest_of_text(wire.citations or (), offset, offset + len(part.text), wire.extra, part)
    elif kind == "thinking":
        part.reasoning.text = wire.thinking or ""
        sign(part.reasoning, wire.signature)
    elif kind == "tool_use":
        part.tool_call.arguments_json = raw_text(wire.input) or ""


def begin_part(wire: BlockWire, part: content_pb2.Part) -> None:
    """Fills a part with what the start of its block tells: all but its text."""
    if wire.type == "text":
        part.text = ""
    elif wire.type == "thinking":
        part.reasoning.SetInParent()
    elif wire.type == "redacted_thinking":
        part.reasoning.encrypted = wire.data or ""
        part.reasoning.dialect = DIALECT
    else:
        part.tool_call.id, part.tool_call.name = wire.id or "", wire.name or ""
    extra = json_text(wire.extra)
    if extra:
        part.extra_json = extra


def vendor_part(raw: msgspec.Raw | bytes, part: content_pb2.Part) -> None:
    """Fills a part with a block as it is."""
    part.vendor_part.dialect = DIALECT
    part.vendor_part.json = raw_text(msgspec.Raw(bytes(raw))) or "{}"


def sign(reasoning: content_pb2.Reasoning, signature: str | None) -> None:
    """Adds the proof, if there is one."""
    if signature:
        reasoning.signature = signature
        reasoning.dialect = DIALECT


def rest_of_text(
    citations: Iterable[msgspec.Raw],
    start: int,
    end: int,
    extra: Extra,
    part: content_pb2.Part,
) -> None:
    """Fills a part with a text block's sources, which hold for the block's whole stretch of text.

    A source on the web becomes a UrlCitation. That has no place for what the vendor wants back on
    the next turn, so with one of them the block's citations also stand in `extra_json` as they are.
    """
    listed = list(citations)
    on_the_web = False
    for raw in listed:
        annotation = part.annotations.add()
        try:
            known = URL_CITATION.decode(raw)
        except msgspec.ValidationError:
            known = None
        if known is not None and known.type == "web_search_result_location":
            on_the_web = True
            citation = annotation.url_citation
            citation.url, citation.title = known.url, known.title or ""
            citation.start_index, citation.end_index = start, end
        else:
            annotation.other_json = raw_text(raw) or "{}"
    if on_the_web:
        text = json_text({**(extra or {}), "citations": listed})
        if text:
            part.extra_json = text


def finish_reason(raw: str | None) -> tuple[chat_pb2.FinishReason.ValueType, str]:
    """Our reason, and the vendor's word."""
    if raw is None:
        return chat_pb2.FINISH_REASON_OTHER, ""
    return FINISH_REASONS.get(raw, chat_pb2.FINISH_REASON_OTHER), raw


def stop_extra(stop_details: msgspec.Raw) -> str:
    """A choice's `extra_json`: why the vendor's classifier declined."""
    return json_text({"stop_details": stop_details}) or ""


def message_members(wire: MessageWire) -> dict[str, msgspec.Raw]:
    """The members of an answer that have no place of their own."""
    return {
        **there(
            container=wire.container,
            context_management=wire.context_management,
            diagnostics=wire.diagnostics,
        ),
        **(wire.extra or {}),
    }


def there(**members: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Those of the members that came, and are not null."""
    return {name: raw for name, raw in members.items() if is_there(raw)}


def decode_usage(wire: UsageWire, usage: chat_pb2.Usage) -> None:
    """Fills `usage`. The vendor counts tokens of the cache apart from the others."""
    read, written = wire.cache_read_input_tokens, wire.cache_creation_input_tokens
    usage.input_tokens = count(wire.input_tokens) + count(read) + count(written)
    usage.output_tokens = count(wire.output_tokens)
    usage.total_tokens = usage.input_tokens + usage.output_tokens
    if read is not None:
        usage.cached_input_tokens = count(read)
    if written is not None:
        usage.cache_write_input_tokens = count(written)
    extras = there(
        cache_creation=wire.cache_creation,
        server_tool_use=wire.server_tool_use,
        inference_geo=wire.inference_geo,
        speed=wire.speed,
        iterations=wire.iterations,
    )
    if (details := wire.output_tokens_details) is not None:
        if details.thinking_tokens is not None:
            usage.reasoning_output_tokens = count(details.thinking_tokens)
        if details.extra:
            extras["output_tokens_details"] = msgspec.Raw(msgspec.json.encode(details.extra))
    text = json_text({**extras, **(wire.extra or {})})
    if text:
        usage.extra_json = text


def count(number: Number | None) -> int:
    """A number of tokens; nothing is none."""
    value = int(number or 0)
    if not 0 <= value < 2**60:  # so that sums of them fit into 64 bits
        raise UpstreamProtocol("the upstream sent a number out of range")
    return value
