"""The shapes of Cohere's chat answers and stream events.

Every member is optional. Members that no field names end up in the `extra` slots and travel on to the
caller. Source: https://docs.cohere.com/reference/chat and https://docs.cohere.com/reference/chat-stream.
"""

from __future__ import annotations

import msgspec

from headgate.wire import Extra, ShapeDecoder, extra_slot
from headgate_server.providers.shapes import ABSENT, Number, Wire


class FunctionWire(Wire):
    """The function of a tool call; in events, a piece of it."""

    name: str | None = None
    arguments: str | None = None
    extra: Extra = extra_slot()


class ToolCallWire(Wire):
    """A tool call; in events, a piece of one."""

    id: str | None = None
    type: str | None = None
    function: FunctionWire | None = None
    extra: Extra = extra_slot()


class ContentWire(Wire):
    """A block of content; in events, a piece of one."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    extra: Extra = extra_slot()


class MessageWire(Wire):
    """The answer's message."""

    role: str | None = None
    content: list[msgspec.Raw] | str | None = None
    tool_plan: str | None = None
    tool_calls: list[ToolCallWire] | None = None
    citations: list[msgspec.Raw] | None = None
    extra: Extra = extra_slot()


class TokensWire(Wire):
    """What the model has read and written."""

    input_tokens: Number | None = None
    output_tokens: Number | None = None
    extra: Extra = extra_slot()


class UsageWire(Wire):
    """Tokens used, and what is billed of them."""

    tokens: TokensWire | None = None
    billed_units: msgspec.Raw = ABSENT
    cached_tokens: Number | None = None
    extra: Extra = extra_slot()


class AnswerWire(Wire):
    """A whole answer."""

    id: str | None = None
    finish_reason: str | None = None
    message: MessageWire | None = None
    usage: UsageWire | None = None
    logprobs: list[msgspec.Raw] | None = None
    extra: Extra = extra_slot()


class BilledWire(msgspec.Struct, gc=False):
    """The billed tokens, where the answer says nothing of the others."""

    input_tokens: Number = 0
    output_tokens: Number = 0


class LogprobWire(msgspec.Struct, gc=False):
    """A stretch of text, and the log probability of each of its tokens."""

    text: str | None = None
    logprobs: list[Number] | None = None


class CitationWire(msgspec.Struct, gc=False):
    """Where a citation belongs; the citation itself stays JSON."""

    content_index: int | None = None
    type: str | None = None


# The events of a stream.


class DeltaMessageWire(msgspec.Struct, gc=False):
    """What an event brings. Citations and calls come one at a time, or as lists of one."""

    content: ContentWire | list[ContentWire] | None = None
    tool_plan: str | None = None
    tool_calls: ToolCallWire | list[ToolCallWire] | None = None
    citations: msgspec.Raw = ABSENT


class DeltaWire(msgspec.Struct, gc=False):
    """What an event brings, in its wrapping."""

    message: DeltaMessageWire | None = None


class EventWire(msgspec.Struct, gc=False):
    """Any event."""

    type: str | None = None
    id: str | None = None
    index: int | None = None
    delta: DeltaWire | None = None
    logprobs: msgspec.Raw = ABSENT


class EndDeltaWire(Wire):
    """How the answer ended."""

    finish_reason: str | None = None
    usage: UsageWire | None = None
    error: str | None = None
    extra: Extra = extra_slot()


class EndWire(Wire):
    """message-end."""

    type: str | None = None
    id: str | None = None
    delta: EndDeltaWire | None = None
    extra: Extra = extra_slot()


ANSWER = ShapeDecoder(AnswerWire)
CONTENT = ShapeDecoder(ContentWire)
EVENT = ShapeDecoder(EventWire)
END = ShapeDecoder(EndWire)
BILLED = ShapeDecoder(BilledWire)
LOGPROB = ShapeDecoder(LogprobWire)
CITATION = ShapeDecoder(CitationWire)
