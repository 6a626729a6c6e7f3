"""The shapes of Ollama's chat answers; each line of a stream has the same shape.

Members that no field names end up in the `extra` slots and travel on to the caller. Source:
https://docs.ollama.com/api/chat.
"""

from __future__ import annotations

import msgspec

from headgate.wire import Extra, ShapeDecoder, extra_slot
from headgate_server.providers.logprobs import TokenLogprobWire
from headgate_server.providers.shapes import ABSENT, Number, Wire


class FunctionWire(Wire):
    """The function of a tool call."""

    name: str | None = None
    arguments: msgspec.Raw = ABSENT  # an object
    index: Number | None = None  # of the call among those of the answer, as is its place
    extra: Extra = extra_slot()


class CallWire(Wire):
    """A tool call, always whole."""

    id: str | None = None
    type: str | None = None
    function: FunctionWire | None = None
    extra: Extra = extra_slot()


class MessageWire(Wire):
    """An assistant message, or a piece of one."""

    role: str | None = None
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[CallWire] | None = None
    extra: Extra = extra_slot()


class AnswerWire(Wire, kw_only=True):
    """A chat answer, or a line of one. Times are in nanoseconds."""

    model: str | None = None
    created_at: str | None = None
    message: MessageWire | None = None
    done: bool = False
    done_reason: str | None = None
    logprobs: list[TokenLogprobWire] | None = None
    prompt_eval_count: Number | None = None
    eval_count: Number | None = None
    total_duration: Number | None = None
    load_duration: Number | None = None
    prompt_eval_duration: Number | None = None
    eval_duration: Number | None = None
    error: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


ANSWER = ShapeDecoder(AnswerWire)
