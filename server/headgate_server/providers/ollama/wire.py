"""The shapes of Ollama's chat answers; each line of a stream has the same shape.

Members that no field names end up in the `extra` slots and travel on to the caller. Source:
https://docs.ollama.com/api/chat.
"""

from __future__ import annotations

import msgspec

from headgate.wire import Extra, ShapeDecoder, extra_slot

Number = int | float
_ABSENT = msgspec.Raw()


class Wire(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The base of the shapes; strictness is what finds the unknown members."""


class FunctionWire(Wire):
    """The function of a tool call."""

    name: str | None = None
    arguments: msgspec.Raw = _ABSENT  # an object
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


class TopLogprobWire(Wire):
    """An alternative for a token."""

    token: str | None = None
    logprob: Number | None = None
    bytes: list[int] | None = None
    extra: Extra = extra_slot()


class TokenLogprobWire(Wire):
    """A token and how likely it was."""

    token: str | None = None
    logprob: Number | None = None
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprobWire] | None = None
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
    error: msgspec.Raw = _ABSENT
    extra: Extra = extra_slot()


ANSWER = ShapeDecoder(AnswerWire)
