"""A message object to ChatResponse, and the pieces that streams share with it. Pure.

Source: https://platform.claude.com/docs/en/api/messages/create and, for why an answer ends,
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra, json_text, raw_text
from headgate_server.providers.anthropic.errors import error_in_body
from headgate_server.providers.anthropic.wire import (
    BLOCK,
    COUNT,
    MESSAGE,
    URL_CITATION,
    BlockWire,
    MessageWire,
    OutputDetailsWire,
    UsageWire,
)
from headgate_server.providers.citations import other_citation, url_citation
from headgate_server.providers.counts import count
from headgate_server.providers.faults import parse, reading
from headgate_server.providers.shapes import Members, is_there, keep, kind_of, nested, there

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
    wire = parse(MESSAGE, body, error_in_body)
    if wire.type == "error" or is_there(wire.error):
        raise error_in_body(body) or UpstreamProtocol("the upstream sent an unknown error")
    if wire.content is None:
        raise error_in_body(body) or UpstreamProtocol("the upstream's answer has no content")
    response = chat_pb2.ChatResponse(id=wire.id or "", model=wire.model or "")
    with reading:
        _fill(response, wire, wire.content)
    return response


def _fill(response: chat_pb2.ChatResponse, wire: MessageWire, content: list[msgspec.Raw]) -> None:
    choice = response.choices.add()
    choice.message.role = content_pb2.ROLE_ASSISTANT
    offset = 0  # of the next text block in the message's text
    for raw in content:
        part = choice.message.parts.add()
        _block(raw, offset, part)
        offset += len(part.text)
    words = wire.stop_reason or ""
    choice.finish_reason = FINISH_REASONS.get(words, chat_pb2.FINISH_REASON_OTHER)
    choice.provider_finish_reason = words
    if wire.stop_sequence is not None:
        choice.stop_sequence = wire.stop_sequence
    if is_there(wire.stop_details):
        keep(choice, {"stop_details": wire.stop_details})
    if wire.usage is not None:
        decode_usage(wire.usage, response.usage)
        if wire.usage.service_tier is not None:
            response.service_tier = wire.usage.service_tier
    keep(response, message_members(wire))


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


def decode_count(body: bytes) -> int:
    """The number of tokens. Raises `UpstreamProtocol` for anything else."""
    return parse(COUNT, body, error_in_body).input_tokens


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
    keep(part, wire.extra)


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
    part.annotations.extend(_citation(raw, start, end) for raw in listed)
    if any(annotation.HasField("url_citation") for annotation in part.annotations):
        part.extra_json = json_text({**(extra or {}), "citations": listed}) or ""


def _citation(raw: msgspec.Raw, start: int, end: int) -> content_pb2.Annotation:
    try:
        known = URL_CITATION.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        known = None
    if known is None or known.type != "web_search_result_location":
        return other_citation(raw)
    return url_citation(known.url, known.title or "", start, end)


def message_members(wire: MessageWire) -> Members:
    """The members of an answer that have no place of their own."""
    named = {
        "container": wire.container,
        "context_management": wire.context_management,
        "diagnostics": wire.diagnostics,
    }
    return {**there(named), **(wire.extra or {})}


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
    details = wire.output_tokens_details or OutputDetailsWire()
    if details.thinking_tokens is not None:
        usage.reasoning_output_tokens = count(details.thinking_tokens)
    named = {
        "cache_creation": wire.cache_creation,
        "server_tool_use": wire.server_tool_use,
        "inference_geo": wire.inference_geo,
        "speed": wire.speed,
        "iterations": wire.iterations,
    }
    keep(usage, there(named), nested("output_tokens_details", details.extra), wire.extra)
