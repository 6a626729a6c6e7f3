"""A chat answer to ChatResponse, and the pieces that streams share with it. Pure.

The API gives answers no id; the core makes one up. Calls have ids in newer versions only; in older ones
they get `call_0`, `call_1`, ..., which go on behind those that the conversation has, so that the same
answer always gets the same ids and no two calls of a conversation share one.

Source: https://docs.ollama.com/api/chat.
"""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, ShapeDecoder, json_text, raw_text
from headgate_server.providers.ollama.errors import error_in_body
from headgate_server.providers.ollama.wire import (
    ANSWER,
    AnswerWire,
    CallWire,
    Number,
    TokenLogprobWire,
)

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
    try:
        return _response(parse(body), CallIds(request))
    except MalformedJson as error:
        raise malformed(error) from error


def malformed(error: MalformedJson) -> UpstreamProtocol:
    """One wording for whatever is wrong with the text."""
    return UpstreamProtocol(f"the upstream's answer is malformed: {error}")


def parse(data: bytes) -> AnswerWire:
    """A chat answer or a line of one; an error object in its place is raised."""
    try:
        wire = ANSWER.decode(data)
    except MalformedJson as error:
        raise (error_in_body(data) if error.is_json else None) or malformed(error) from error
    if bytes(wire.error) not in (b"", b"null"):
        raise error_in_body(data) or UpstreamProtocol("the upstream sent an error of unknown form")
    return wire


def _response(wire: AnswerWire, ids: CallIds) -> chat_pb2.ChatResponse:
    message = wire.message
    if message is None or not wire.done:
        raise UpstreamProtocol("the upstream's answer is not whole: no message, or it is not done")
    response = chat_pb2.ChatResponse(model=wire.model or "")
    set_time(response, wire.created_at)
    choice = response.choices.add()
    choice.message.role = content_pb2.ROLE_ASSISTANT
    parts = choice.message.parts
    if message.thinking:
        parts.add().reasoning.text = message.thinking
    if message.content:
        parts.add().text = message.content
    for image in message.images or ():
        part = image_part(image)
        part.image.data = image_bytes(image)
        parts.append(part)
    for call in message.tool_calls or ():
        part = call_start(call, ids)
        part.tool_call.arguments_json = call_arguments(call)
        parts.append(part)
    if extra := json_text(message.extra):
        choice.message.extra_json = extra
    choice.finish_reason, choice.provider_finish_reason = finish_reason(
        wire, calls=bool(message.tool_calls)
    )
    if wire.logprobs:
        choice.logprobs.content.extend(map(decode_token, wire.logprobs))
    decode_usage(wire, response)
    if extra := json_text(wire.extra):
        response.extra_json = extra
    return response


def set_time(into: chat_pb2.ChatResponse | chat_pb2.Started, created_at: str | None) -> None:
    """Sets the time of creation: RFC 3339, to the nanosecond."""
    if not created_at:
        return
    try:
        into.create_time.FromJsonString(created_at)
    except ValueError as error:
        raise UpstreamProtocol(f"the upstream's time {created_at!r:.60} is none") from error


def finish_reason(wire: AnswerWire, *, calls: bool) -> tuple[chat_pb2.FinishReason.ValueType, str]:
    """Our reason, and the vendor's words. It knows none of its own for calls."""
    words = wire.done_reason or ""
    reason = FINISH_REASONS.get(words, chat_pb2.FINISH_REASON_OTHER)
    if calls and reason == chat_pb2.FINISH_REASON_STOP:
        reason = chat_pb2.FINISH_REASON_TOOL_CALLS
    return reason, words


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
    function = call.function
    extra: dict[str, msgspec.Raw] = dict(call.extra or {})
    if function is not None:
        part.tool_call.name = function.name or ""
        if function.extra:
            extra["function"] = msgspec.Raw(msgspec.json.encode(function.extra))
    if text := json_text(extra):
        part.extra_json = text
    return part


def call_arguments(call: CallWire) -> str:
    """The arguments as JSON text, the same from whole answers and streams: without white space."""
    text = (call.function and raw_text(call.function.arguments)) or "{}"
    if text[0] == '"':  # JSON in a string, as OpenAI has it: some proxies mix the two
        return _STRING.decode(text.encode()) or "{}"
    return msgspec.json.format(text, indent=-1)


def image_bytes(image: str) -> bytes:
    """The bytes of a generated image."""
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UpstreamProtocol("the upstream's image is not base64") from error


def image_part(image: str) -> content_pb2.Part:
    """A generated image but for its bytes; they alone tell of which kind it is."""
    start = image_bytes(image[:16])
    part = content_pb2.Part()
    part.image.media_type = next(
        (kind for magic, kind in _MEDIA_TYPES if start.startswith(magic)),
        "application/octet-stream",
    )
    return part


def decode_token(wire: TokenLogprobWire) -> chat_pb2.TokenLogprob:
    """A token and how likely it was."""
    token = chat_pb2.TokenLogprob(token=wire.token or "", logprob=_logprob(wire.logprob))
    if wire.bytes is not None:
        token.bytes = _token_bytes(wire.bytes)
    for top in wire.top_logprobs or ():
        added = token.top.add(token=top.token or "", logprob=_logprob(top.logprob))
        if top.bytes is not None:
            added.bytes = _token_bytes(top.bytes)
    return token


def _logprob(value: Number | None) -> float:
    return -9999.0 if value is None else float(value)


def _token_bytes(values: list[int]) -> bytes:
    try:
        return bytes(values)
    except ValueError as error:
        raise UpstreamProtocol("the upstream's token bytes are not bytes") from error


def decode_usage(wire: AnswerWire, into: chat_pb2.ChatResponse | chat_pb2.Completed) -> None:
    """Sets the usage, unless the vendor tells none; the times that it took are among its extras.

    A count of zero is left out by the vendor: a prompt that it had in its cache counts as nothing.
    """
    if wire.prompt_eval_count is None and wire.eval_count is None:
        return
    usage = into.usage
    usage.input_tokens = _whole(wire.prompt_eval_count or 0)
    usage.output_tokens = _whole(wire.eval_count or 0)
    usage.total_tokens = usage.input_tokens + usage.output_tokens
    times = {name: value for name in _METRICS if (value := getattr(wire, name)) is not None}
    if times:
        usage.extra_json = msgspec.json.encode(times).decode()


def _whole(number: Number) -> int:
    value = int(number)
    if not 0 <= value < 2**62:
        raise UpstreamProtocol("the upstream sent a count out of range")
    return value
