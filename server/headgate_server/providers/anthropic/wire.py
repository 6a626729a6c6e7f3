"""The shapes of Anthropic's answers and stream events. Owns names and types, not what they mean.

Members that no field names end up in the `extra` slots and travel on to the caller. Content blocks stay
raw here: their kinds grow with every release, and one that we do not know goes through as it is.
Source: https://platform.claude.com/docs/en/api/messages/create and .../build-with-claude/streaming.
"""

from __future__ import annotations

import msgspec

from headgate.wire import Extra, ShapeDecoder, extra_slot
from headgate_server.providers.shapes import ABSENT, Number, Wire


class OutputDetailsWire(Wire):
    """What the generated tokens were."""

    thinking_tokens: Number | None = None
    extra: Extra = extra_slot()


class UsageWire(Wire):
    """Tokens used; in a stream, as far as they are known, and cumulative."""

    input_tokens: Number | None = None
    output_tokens: Number | None = None
    cache_creation_input_tokens: Number | None = None
    cache_read_input_tokens: Number | None = None
    output_tokens_details: OutputDetailsWire | None = None
    service_tier: str | None = None
    # Counts without a place of their own; named only so that the usual answer has no unknown members.
    cache_creation: msgspec.Raw = ABSENT
    server_tool_use: msgspec.Raw = ABSENT
    inference_geo: msgspec.Raw = ABSENT
    speed: msgspec.Raw = ABSENT
    iterations: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class MessageWire(Wire):
    """A message object: the whole answer, or its head at the start of a stream."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    model: str | None = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: msgspec.Raw = ABSENT
    usage: UsageWire | None = None
    container: msgspec.Raw = ABSENT
    context_management: msgspec.Raw = ABSENT
    diagnostics: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class BlockWire(Wire):
    """A content block of a kind that we know."""

    type: str
    text: str | None = None
    citations: list[msgspec.Raw] | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class DeltaWire(Wire):
    """A change of a content block, or of the message."""

    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: msgspec.Raw = ABSENT
    # A progress hint that the whole answer does not have either.
    estimated_tokens: msgspec.Raw = ABSENT
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: msgspec.Raw = ABSENT
    container: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class EventWire(Wire):
    """One event of a stream."""

    type: str = ""
    index: Number | None = None
    message: MessageWire | None = None
    content_block: msgspec.Raw = ABSENT
    delta: DeltaWire | None = None
    usage: UsageWire | None = None
    context_management: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class UrlCitationWire(msgspec.Struct):
    """A citation of a web search result, as far as it has a place of its own."""

    type: str
    url: str = ""
    title: str | None = None


class CountWire(msgspec.Struct):
    """The answer of the token counting API."""

    input_tokens: int


MESSAGE = ShapeDecoder(MessageWire)
BLOCK = ShapeDecoder(BlockWire)
EVENT = ShapeDecoder(EventWire)
COUNT = ShapeDecoder(CountWire)
URL_CITATION = msgspec.json.Decoder(UrlCitationWire)
