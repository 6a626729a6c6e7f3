"""A chat answer to ChatResponse, and the pieces that streams share with it. Pure.

The API gives answers no id; the core makes one up. Calls have ids in newer versions only; in older ones
they get `call_0`, `call_1`, ..., which go on behind those that the conversation has, so that the same
answer always gets the same ids and no two calls of a conversation share one.

Source: https://docs.ollama.com/api/chat.
"""

from __future__ import annotations

import re

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import ShapeDecoder, raw_text
from headgate_server.providers.counts import count
from headgate_server.providers.faults import parse, reading
from headgate_server.providers.logprobs import decode_token
from headgate_server.providers.media import bytes_of
from headgate_server.providers.ollama.errors import error_in_body
from headgate_server.providers.ollama.wire import (
    ANSWER,
    AnswerWire,
    CallWire,
    FunctionWire,
    MessageWire,
)
from headgate_server.providers.parts import reason_of
from headgate_server.providers.shapes import is_there, keep, nested
from headgate_server.providers.times import set_rfc3339_time

FINISH_REASONS = {
    # Older versions say only that they are done.
    "": chat_pb2.FINISH_REASON_STOP,
    "stop": chat_pb2.FINISH_REASON_STOP,
    "length": chat_pb2.FINISH_REASON_LENGTH,
}
_METRICS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
_STRING = ShapeDecoder(str)
_MADE_UP_ID = re.compile(r"call_([0-9]{1,9})")
_MEDIA_TYPES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


def decode_answer(body: bytes, request: chat_pb2.ChatRequest) -> chat_pb2.ChatResponse:
    """The whole answer.

    Raises:
        UpstreamProtocol: the body is not a chat answer, or not a whole one.
        GatewayError: the body is an error object in spite of its status.
    """
    wire = read(body)
    if wire.message is None or not wire.done:
        raise UpstreamProtocol("the upstream's answer is not whole: no message, or it is not done")
    response = chat_pb2.ChatResponse(model=wire.model or "")
    set_rfc3339_time(response, wire.created_at)
    with reading:
        _fill(response, wire, wire.message, CallIds(request))
    return response


def _fill(
    response: chat_pb2.ChatResponse, wire: AnswerWire, message: MessageWire, ids: CallIds
) -> None:
    choice = response.choices.add()
    choice.message.role = content_pb2.ROLE_ASSISTANT
    parts = choice.message.parts
    if message.thinking:
        parts.add().reasoning.text = message.thinking
    if message.content:
        parts.add().text = message.content
    for image in message.images or ():
        part = image_part(image)
        part.image.data = bytes_of(image, "image")
        parts.append(part)
    for call in message.tool_calls or ():
        part = call_start(call, ids)
        part.tool_call.arguments_json = call_arguments(call)
        parts.append(part)
    keep(choice.message, message.extra)
    words = wire.done_reason or ""
    choice.finish_reason = reason_of(FINISH_REASONS, words, calls=bool(message.tool_calls))
    choice.provider_finish_reason = words
    if wire.logprobs:
        choice.logprobs.content.extend(map(decode_token, wire.logprobs))
    decode_usage(wire, response)
    keep(response, wire.extra)


def read(data: bytes) -> AnswerWire:
    """A chat answer or a line of one; an error object in its place is raised."""
    wire = parse(ANSWER, data, error_in_body)
    if is_there(wire.error):
        raise error_in_body(data) or UpstreamProtocol("the upstream sent an error of unknown form")
    return wire


class CallIds:
    """Ids for calls that come without one.

    Args:
        request: the conversation so far.
    """

    def __init__(self, request: chat_pb2.ChatRequest) -> None:
        self._request = request
        self._next = -1

    def __call__(self) -> str:
        """The next one."""
        if self._next < 0:
            self._next = 0
            for message in self._request.messages:
                for part in message.parts:
                    for given in (part.tool_call.id, part.tool_result.tool_call_id):
                        if found := _MADE_UP_ID.fullmatch(given):
                            self._next = max(self._next, int(found[1]) + 1)
        self._next += 1
        return f"call_{self._next - 1}"


def call_start(call: CallWire, ids: CallIds) -> content_pb2.Part:
    """A tool call but for its arguments."""
    part = content_pb2.Part()
    part.tool_call.id = call.id or ids()
    function = call.function or FunctionWire()
    part.tool_call.name = function.name or ""
    keep(part, call.extra, nested("function", function.extra))
    return part


def call_arguments(call: CallWire) -> str:
    """The arguments as JSON text, the same from whole answers and streams: without white space."""
    text = (call.function and raw_text(call.function.arguments)) or "{}"
    if text[0] == '"':  # JSON in a string, as OpenAI has it: some proxies mix the two
        return _STRING.decode(text.encode()) or "{}"
    return msgspec.json.format(text, indent=-1)


def image_part(image: str) -> content_pb2.Part:
    """A generated image but for its bytes; they alone tell of which kind it is."""
    start = bytes_of(image[:16], "image")
    part = content_pb2.Part()
    part.image.media_type = next(
        (kind for magic, kind in _MEDIA_TYPES if start.startswith(magic)),
        "application/octet-stream",
    )
    return part


def decode_usage(wire: AnswerWire, into: chat_pb2.ChatResponse | chat_pb2.Completed) -> None:
    """Sets the usage, unless the vendor tells none; the times that it took are among its extras.

    A count of zero is left out by the vendor: a prompt that it had in its cache counts as nothing.
    """
    if wire.prompt_eval_count is None and wire.eval_count is None:
        return
    usage = into.usage
    usage.input_tokens, usage.output_tokens = count(wire.prompt_eval_count), count(wire.eval_count)
    usage.total_tokens = usage.input_tokens + usage.output_tokens
    times = {name: value for name in _METRICS if (value := getattr(wire, name)) is not None}
    if times:
        usage.extra_json = msgspec.json.encode(times).decode()
