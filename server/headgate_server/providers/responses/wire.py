"""The shapes of the Responses API's answers, items and events.

Members that no field names end up in the `extra` slots and travel on to the caller. Source: the "response
object" of https://platform.openai.com/docs/api-reference/responses/object and its streaming events at
https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.wire import Extra, ShapeDecoder, extra_slot
from headgate_server.providers.logprobs import TokenLogprobWire
from headgate_server.providers.shapes import ABSENT, Number, Wire


class InputDetailsWire(Wire):
    """Details of the prompt's tokens."""

    cached_tokens: Number | None = None
    cache_write_tokens: Number | None = None
    extra: Extra = extra_slot()


class OutputDetailsWire(Wire):
    """Details of the generated tokens."""

    reasoning_tokens: Number | None = None
    extra: Extra = extra_slot()


class UsageWire(Wire):
    """Tokens used."""

    input_tokens: Number | None = None
    output_tokens: Number | None = None
    total_tokens: Number | None = None
    input_tokens_details: InputDetailsWire | None = None
    output_tokens_details: OutputDetailsWire | None = None
    extra: Extra = extra_slot()


class CountWire(Wire):
    """The number of tokens of a prompt."""

    input_tokens: Number
    object: str | None = None
    extra: Extra = extra_slot()


class IncompleteWire(Wire):
    """Why an answer is not whole."""

    reason: str | None = None
    extra: Extra = extra_slot()


class AnswerWire(Wire, kw_only=True):
    """A response object."""

    id: str | None = None
    object: str | None = None
    created_at: Number | None = None
    model: str | None = None
    status: str | None = None
    error: msgspec.Raw = ABSENT
    incomplete_details: IncompleteWire | None = None
    output: list[msgspec.Raw] | None = None
    usage: UsageWire | None = None
    service_tier: str | None = None
    extra: Extra = extra_slot()
    # What follows repeats the request, so that nobody learns from it; it is not passed on.
    background: msgspec.Raw = ABSENT
    conversation: msgspec.Raw = ABSENT
    frequency_penalty: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    max_output_tokens: msgspec.Raw = ABSENT
    max_tool_calls: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT
    parallel_tool_calls: msgspec.Raw = ABSENT
    presence_penalty: msgspec.Raw = ABSENT
    previous_response_id: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    prompt_cache_key: msgspec.Raw = ABSENT
    prompt_cache_options: msgspec.Raw = ABSENT
    prompt_cache_retention: msgspec.Raw = ABSENT
    reasoning: msgspec.Raw = ABSENT
    safety_identifier: msgspec.Raw = ABSENT
    store: msgspec.Raw = ABSENT
    temperature: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    top_logprobs: msgspec.Raw = ABSENT
    top_p: msgspec.Raw = ABSENT
    truncation: msgspec.Raw = ABSENT
    user: msgspec.Raw = ABSENT


# Items of `output`. Which shape one has, its type says.


class MessageWire(Wire):
    """A message item."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    status: str | None = None
    phase: str | None = None
    content: list[msgspec.Raw] | None = None
    extra: Extra = extra_slot()


class TextWire(Wire):
    """A text of a message."""

    type: str | None = None
    text: str = ""
    annotations: list[msgspec.Raw] | None = None
    logprobs: list[TokenLogprobWire] | None = None
    extra: Extra = extra_slot()


class RefusalWire(Wire):
    """A refusal in a message."""

    type: str | None = None
    refusal: str = ""
    extra: Extra = extra_slot()


class ThoughtWire(Wire):
    """A piece of a reasoning item: of its summary, or of the thinking itself."""

    type: str | None = None
    text: str = ""
    extra: Extra = extra_slot()


class ReasoningWire(Wire):
    """A reasoning item."""

    type: str | None = None
    id: str | None = None
    status: str | None = None
    summary: list[ThoughtWire] | None = None
    content: list[ThoughtWire] | None = None
    encrypted_content: str | None = None
    extra: Extra = extra_slot()


class CallWire(Wire):
    """A call of a function or of a custom tool."""

    type: str | None = None
    id: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    extra: Extra = extra_slot()


class ImageWire(Wire):
    """A generated image."""

    type: str | None = None
    id: str | None = None
    status: str | None = None
    result: str | None = None
    output_format: str | None = None
    extra: Extra = extra_slot()


class CitationWire(Wire):
    """The one kind of annotation that we know; with other members it stays JSON."""

    type: str
    url: str
    title: str = ""
    start_index: int = 0
    end_index: int = 0


class EventWire(msgspec.Struct, gc=False):
    """An event of a stream: its type, and whatever the types that we read have.

    Not strict: sequence numbers, item ids and the noise against traffic analysis mean nothing here.
    """

    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: Any = None
    logprobs: msgspec.Raw = ABSENT
    annotation: msgspec.Raw = ABSENT
    item: msgspec.Raw = ABSENT
    response: msgspec.Raw = ABSENT


COUNT = ShapeDecoder(CountWire)
ANSWER = ShapeDecoder(AnswerWire)
MESSAGE = ShapeDecoder(MessageWire)
TEXT = ShapeDecoder(TextWire)
TOKENS = ShapeDecoder(list[TokenLogprobWire])
REFUSAL = ShapeDecoder(RefusalWire)
REASONING = ShapeDecoder(ReasoningWire)
CALL = ShapeDecoder(CallWire)
IMAGE = ShapeDecoder(ImageWire)
CITATION = msgspec.json.Decoder(CitationWire)
EVENT = msgspec.json.Decoder(EventWire)
