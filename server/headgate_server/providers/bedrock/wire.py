"""The shapes of Converse's answers and of ConverseStream's events.

Members that no field names end up in the `extra` slots and travel on to the caller. Source: the types
ConverseResponse and ConverseStreamOutput of
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Types_Amazon_Bedrock_Runtime.html.
"""

from __future__ import annotations

import msgspec

from headgate.wire import Extra, ShapeDecoder, extra_slot
from headgate_server.providers.shapes import ABSENT
from headgate_server.providers.shapes import CamelWire as Wire


class Event(msgspec.Struct, gc=False, rename="camel"):
    """The base of what may hold members that mean nothing, such as the padding `p` of events."""


class ToolUseWire(Wire):
    """A tool call; `type` says that the provider's own server runs it."""

    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = ABSENT
    type: str | None = None
    extra: Extra = extra_slot()


class ReasoningTextWire(Wire):
    """Readable thinking, and the proof that the model wrote it."""

    text: str = ""
    signature: str | None = None
    extra: Extra = extra_slot()


class ReasoningWire(Wire):
    """Thinking, readable or not."""

    reasoning_text: ReasoningTextWire | None = None
    redacted_content: str | None = None
    extra: Extra = extra_slot()


class GeneratedWire(Event):
    """A piece of a text that citations support."""

    text: str = ""


class CitationsContentWire(Wire):
    """A text with its sources."""

    content: list[GeneratedWire] | None = None
    citations: list[msgspec.Raw] | None = None
    extra: Extra = extra_slot()


class SourceWire(Event):
    """Where media are."""

    bytes: str | None = None
    s3_location: msgspec.Raw = ABSENT


class MediaWire(Wire):
    """A generated image or sound."""

    format: str = ""
    source: SourceWire | None = None
    error: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class ToolResultWire(Wire):
    """The result of a tool that the provider ran."""

    tool_use_id: str = ""
    content: list[msgspec.Raw] | None = None
    status: str | None = None
    type: str | None = None
    extra: Extra = extra_slot()


class BlockWire(Wire):
    """One content block, of the kinds that have a part of their own; others are in `extra`."""

    text: str | None = None
    tool_use: ToolUseWire | None = None
    tool_result: ToolResultWire | None = None
    reasoning_content: ReasoningWire | None = None
    citations_content: CitationsContentWire | None = None
    image: MediaWire | None = None
    audio: MediaWire | None = None
    extra: Extra = extra_slot()


class MessageWire(Wire):
    """The answer's message."""

    role: str | None = None
    content: list[msgspec.Raw] | None = None
    extra: Extra = extra_slot()


class OutputWire(Wire):
    """What the model made."""

    message: MessageWire | None = None


class UsageWire(Wire):
    """Tokens used. The names in ...Count are older doubles, which the service still sends."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: msgspec.Raw = ABSENT
    server_tool_usage: msgspec.Raw = ABSENT
    cache_read_input_token_count: int | None = None
    cache_write_input_token_count: int | None = None
    extra: Extra = extra_slot()


class ServiceTierWire(Wire):
    """The processing tier that served the request."""

    type: str = ""


class AnswerWire(Wire):
    """A whole answer."""

    output: OutputWire | None = None
    stop_reason: str | None = None
    usage: UsageWire | None = None
    metrics: msgspec.Raw = ABSENT
    additional_model_response_fields: msgspec.Raw = ABSENT
    trace: msgspec.Raw = ABSENT
    performance_config: msgspec.Raw = ABSENT
    service_tier: ServiceTierWire | None = None
    extra: Extra = extra_slot()


class CountWire(Event):
    """An answer of CountTokens."""

    input_tokens: int


class WebWire(Wire):
    """A web page that backs a text."""

    url: str
    domain: str = ""


class LocationWire(Wire):
    """Where a source is, if it is a web page."""

    web: WebWire


class WebCitationWire(Wire):
    """A citation of a web page; with members beside these it stays JSON."""

    location: LocationWire
    title: str = ""


# The events of a stream.


class StartWire(Event):
    """How a content block begins, where it says so."""

    tool_use: ToolUseWire | None = None
    tool_result: ToolResultWire | None = None
    image: MediaWire | None = None


class BlockStartWire(Event):
    """contentBlockStart."""

    content_block_index: int = 0
    start: StartWire | None = None


class InputWire(Event):
    """A piece of a tool call's arguments."""

    input: str = ""


class ReasoningDeltaWire(Event):
    """A piece of thinking."""

    text: str = ""
    signature: str = ""
    redacted_content: str = ""


class MediaDeltaWire(Event):
    """A piece of an image."""

    source: SourceWire | None = None
    error: msgspec.Raw = ABSENT


class DeltaWire(Event):
    """What a content block goes on with; none of these if it is of a kind that we do not know."""

    text: str | None = None
    tool_use: InputWire | None = None
    reasoning_content: ReasoningDeltaWire | None = None
    citation: msgspec.Raw = ABSENT
    tool_result: list[msgspec.Raw] | None = None
    image: MediaDeltaWire | None = None


class BlockDeltaWire(Event):
    """contentBlockDelta."""

    content_block_index: int = 0
    delta: DeltaWire | None = None


class BlockStopWire(Event):
    """contentBlockStop."""

    content_block_index: int = 0


class MessageStopWire(Wire):
    """messageStop."""

    stop_reason: str | None = None
    additional_model_response_fields: msgspec.Raw = ABSENT
    p: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class MetadataWire(Wire):
    """The last event."""

    usage: UsageWire | None = None
    metrics: msgspec.Raw = ABSENT
    trace: msgspec.Raw = ABSENT
    performance_config: msgspec.Raw = ABSENT
    service_tier: ServiceTierWire | None = None
    p: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class TextDeltaWire(Event):
    """A piece of a server tool's result, if it is text."""

    text: str | None = None


class StopSequenceWire(msgspec.Struct, gc=False):
    """The one additional response field that has a place in our answer."""

    stop_sequence: str | None = None


ANSWER = ShapeDecoder(AnswerWire)
COUNT = ShapeDecoder(CountWire)
BLOCK = ShapeDecoder(BlockWire)
BLOCK_START = ShapeDecoder(BlockStartWire)
BLOCK_DELTA = ShapeDecoder(BlockDeltaWire)
BLOCK_STOP = ShapeDecoder(BlockStopWire)
MESSAGE_STOP = ShapeDecoder(MessageStopWire)
METADATA = ShapeDecoder(MetadataWire)
RESULT_DELTA = ShapeDecoder(TextDeltaWire)
WEB_CITATION = msgspec.json.Decoder(WebCitationWire)
STOP_SEQUENCE = msgspec.json.Decoder(StopSequenceWire)
