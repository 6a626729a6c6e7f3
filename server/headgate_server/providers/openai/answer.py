"""A chat completion object to ChatResponse, and the pieces that streams share with it. Pure."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, ShapeDecoder, json_text, raw_text
from headgate_server.providers.openai.counts import decode_logprobs, decode_usage, nest, whole
from headgate_server.providers.openai.errors import broken_off, error_in_body
from headgate_server.providers.openai.proofs import take_signature
from headgate_server.providers.openai.wire import (
    ANNOTATION,
    ANSWER,
    IMAGE,
    AnswerWire,
    AudioWire,
    ChoiceWire,
    FunctionWire,
    MessageWire,
    Number,
    ToolCallWire,
)
from headgate_server.providers.think_tags import ThinkTags, split

# OpenAI's five, then what other vendors say: Together (eos), Mistral (model_length), Zhipu
# (sensitive, model_context_window_exceeded). Reasons that mean a broken answer are in `errors`.
FINISH_REASONS = {
    "stop": chat_pb2.FINISH_REASON_STOP,
    "length": chat_pb2.FINISH_REASON_LENGTH,
    "tool_calls": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "function_call": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "content_filter": chat_pb2.FINISH_REASON_CONTENT_FILTER,
    "eos": chat_pb2.FINISH_REASON_STOP,
    "end_turn": chat_pb2.FINISH_REASON_STOP,
    "stop_sequence": chat_pb2.FINISH_REASON_STOP,
    "max_tokens": chat_pb2.FINISH_REASON_LENGTH,
    "model_length": chat_pb2.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": chat_pb2.FINISH_REASON_LENGTH,
    "sensitive": chat_pb2.FINISH_REASON_CONTENT_FILTER,
    "refusal": chat_pb2.FINISH_REASON_REFUSAL,
    "tool_use": chat_pb2.FINISH_REASON_TOOL_CALLS,
}
_MAX_CHOICES = 128
_YEAR_10000 = 253_402_300_800  # where Timestamps end


def decode_answer(body: bytes, tags: ThinkTags | None = None) -> chat_pb2.ChatResponse:
    """The whole answer.

    Args:
        body: the upstream's.
        tags: what the model may have put around its thinking, in the text.

    Raises:
        UpstreamProtocol: the body is not a chat completion object.
        GatewayError: the body is an error object in spite of its status, or the vendor says that the
            answer is broken.
    """
    try:
        return response_of(parse(body), body, tags)
    except MalformedJson as error:
        raise malformed(error) from error


def malformed(error: MalformedJson) -> UpstreamProtocol:
    """One wording for whatever is wrong with the text."""
    return UpstreamProtocol(f"the upstream's answer is malformed: {error}")


def response_of(
    wire: AnswerWire, body: bytes, tags: ThinkTags | None = None
) -> chat_pb2.ChatResponse:
    """The message for an answer object. Raises as `decode_answer`, and `MalformedJson`."""
    if not wire.choices:
        found = error_in_body(body)
        raise found or UpstreamProtocol("the upstream's answer has no choices")
    response = chat_pb2.ChatResponse(id=answer_id(wire), model=wire.model or "")
    set_time(response.create_time, wire.created)
    if wire.system_fingerprint is not None:
        response.system_fingerprint = wire.system_fingerprint
    if wire.service_tier is not None:
        response.service_tier = wire.service_tier
    for position, choice in enumerate(wire.choices):
        message = choice.message or choice.delta
        if message is None:
            raise UpstreamProtocol(f"the upstream's choice {position} has no message")
        if (failure := broken_off(choice.finish_reason, choice.extra)) is not None:
            raise failure
        out = response.choices.add()
        out.index = choice_index(choice, position)
        out.message.role = content_pb2.ROLE_ASSISTANT
        if isinstance(message.content, str) and tags is None and not _more_than_text(message):
            if message.content:
                out.message.parts.add().text = message.content
        else:
            out.message.parts.extend(message_parts(message, tags))
        if message.extra:
            extra = json_text(message.extra)
            if extra:
                out.message.extra_json = extra
        out.finish_reason, out.provider_finish_reason = finish_reason(
            choice.finish_reason, calls=bool(message.tool_calls or message.function_call)
        )
        logprobs = decode_logprobs(choice.logprobs)
        if logprobs is not None:
            out.logprobs.CopyFrom(logprobs)
        extra = json_text(choice.extra)
        if extra:
            out.extra_json = extra
    if wire.usage is not None:
        decode_usage(wire.usage, response.usage)
    extra = json_text(wire.extra)
    if extra:
        response.extra_json = extra
    return response


def parse(data: bytes, shape: ShapeDecoder[Any] = ANSWER) -> AnswerWire:
    """One answer or chunk object; an error object in its place is raised."""
    try:
        wire: AnswerWire = shape.decode(data)
    except MalformedJson as error:
        found = error_in_body(data) if error.is_json else None
        raise found or malformed(error) from error
    if bytes(wire.error) not in (b"", b"null"):
        raise error_in_body(data) or UpstreamProtocol("the upstream sent an error of unknown form")
    if wire.choices is None and wire.extra and (found := error_in_body(data)):
        raise found  # an error object without a wrapping
    return wire


def answer_id(wire: AnswerWire) -> str:
    """The answer's id; some vendors send numbers, some nothing."""
    return str(wire.id) if wire.id not in (None, "") else f"chatcmpl-{secrets.token_hex(12)}"


def set_time(time: Any, unix: Number | None) -> None:
    """Sets a Timestamp from the Unix time, which some vendors send with a fraction or not at all."""
    if type(unix) is int and 0 <= unix < _YEAR_10000:
        time.seconds = unix
        return
    if unix is None:
        time.GetCurrentTime()
        return
    try:
        time.FromMilliseconds(int(unix * 1000))
    except (ValueError, OverflowError) as error:
        raise UpstreamProtocol(f"the upstream's time {unix!r:.40} is none") from error


def choice_index(choice: ChoiceWire, default: int) -> int:
    """A choice's place."""
    index = default if choice.index is None else whole(choice.index)
    if not 0 <= index < _MAX_CHOICES:
        raise UpstreamProtocol(f"the upstream sent a choice with index {index}")
    return index


def finish_reason(raw: str | None, *, calls: bool) -> tuple[chat_pb2.FinishReason.ValueType, str]:
    """Our reason, and the vendor's words.

    A "stop" behind tool calls (Gemini's, Ollama's, and OpenAI's own behind a forced call) still means
    that the model waits for their results.
    """
    if raw is None:
        return chat_pb2.FINISH_REASON_OTHER, ""
    reason = FINISH_REASONS.get(raw, chat_pb2.FINISH_REASON_OTHER)
    if calls and reason == chat_pb2.FINISH_REASON_STOP:
        reason = chat_pb2.FINISH_REASON_TOOL_CALLS
    return reason, raw


def _more_than_text(message: MessageWire) -> bool:
    return bool(
        message.reasoning_content
        or message.reasoning
        or message.tool_calls
        or message.refusal
        or message.annotations
        or message.audio
        or message.images
        or message.function_call
        or message.extra
    )


def message_parts(message: MessageWire, tags: ThinkTags | None) -> Iterable[content_pb2.Part]:
    """The parts of a whole message, in the order thinking, text, refusal, images, audio, calls.

    Takes the text's signature out of the unknown members.
    """
    thinking, text = texts(message)
    if tags is not None and not thinking:
        thinking, text = split(text, tags)
    if thinking:
        yield content_pb2.Part(reasoning=content_pb2.Reasoning(text=thinking))
    signature = take_signature(message.extra) if message.extra else None
    if text or message.annotations or signature:
        part = content_pb2.Part(text=text, thought_signature=signature)
        part.annotations.extend(decode_annotation(raw) for raw in message.annotations or ())
        yield part
    if message.refusal:
        yield content_pb2.Part(refusal=message.refusal)
    for raw in message.images or ():
        yield decode_image(raw)
    if message.audio is not None:
        audio = audio_rest(message.audio)
        audio.audio.data = audio_bytes(message.audio)
        audio.audio.transcript = message.audio.transcript or ""
        yield audio
    for call in message.tool_calls or ():
        part = call_start(call)
        part.tool_call.arguments_json = call_arguments(call)
        yield part
    if message.function_call is not None:
        call = ToolCallWire(function=message.function_call)
        part = call_start(call)
        part.tool_call.arguments_json = call_arguments(call)
        yield part


def texts(message: MessageWire) -> tuple[str, str]:
    """(thinking, text) of a message or delta.

    Thinking is `reasoning_content` at most vendors and `reasoning` at some (vLLM has both, alike).
    Mistral sends content as a list of typed chunks (https://docs.mistral.ai/capabilities/reasoning).
    """
    thinking = message.reasoning_content or message.reasoning or ""
    content = message.content
    if content is None or isinstance(content, str):
        return thinking, content or ""
    text = ""
    for raw in content:
        chunk = _content_chunk(raw)
        if chunk.type == "thinking":
            inner = chunk.thinking
            thinking += inner if isinstance(inner, str) else "".join(i.text for i in inner or ())
        else:
            text += chunk.text
    return thinking, text


class _InnerText(msgspec.Struct):
    text: str = ""


class _ContentChunk(msgspec.Struct):
    type: str = "text"
    text: str = ""
    thinking: str | list[_InnerText] | None = None


_CONTENT_CHUNK = msgspec.json.Decoder(_ContentChunk)


def _content_chunk(raw: msgspec.Raw) -> _ContentChunk:
    try:
        return _CONTENT_CHUNK.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamProtocol("the upstream's content list is malformed") from error


def decode_annotation(raw: msgspec.Raw) -> content_pb2.Annotation:
    """A citation; kinds that we do not know stay JSON."""
    try:
        known = ANNOTATION.decode(raw).url_citation
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content_pb2.Annotation(other_json=raw_text(raw) or "{}")
    return content_pb2.Annotation(
        url_citation=content_pb2.UrlCitation(
            url=known.url,
            title=known.title,
            start_index=whole(known.start_index),
            end_index=whole(known.end_index),
        )
    )


def decode_image(raw: msgspec.Raw) -> content_pb2.Part:
    """A generated image. Bytes in a data: URL become bytes; any other URL stays one."""
    try:
        wire = IMAGE.decode(bytes(raw))
    except MalformedJson as error:
        raise UpstreamProtocol("the upstream's image is malformed") from error
    members = dict(wire.extra or {})
    part = content_pb2.Part(thought_signature=take_signature(members))
    head, comma, data = wire.image_url.url.partition(",")
    media_type, marker, _ = head.removeprefix("data:").partition(";base64")
    try:
        if not (comma and marker and head.startswith("data:")):
            raise ValueError
        part.image.data = base64.b64decode(data, validate=True)
        part.image.media_type = media_type
    except ValueError:
        part.image.url = wire.image_url.url
    if extra := json_text(members):
        part.extra_json = extra
    return part


def call_start(call: ToolCallWire) -> content_pb2.Part:
    """A tool call as far as its beginning tells: id, name, the vendor's state."""
    name = ""
    if call.custom is not None:
        name = call.custom.name or ""
    elif call.function is not None:
        name = call.function.name or ""
    part = content_pb2.Part(
        tool_call=content_pb2.ToolCall(
            # Some vendors leave the id out; callers need one to answer the call.
            id=str(call.id) if call.id else f"call_{secrets.token_hex(12)}",
            name=name,
            custom=call.custom is not None,
        )
    )
    if call.extra or (call.function is not None and call.function.extra):
        members = dict(call.extra or {})
        if (signature := take_signature(members)) is not None:
            part.thought_signature = signature
        if call.function is not None:
            nest(members, "function", call.function.extra)
        if extra := json_text(members):
            part.extra_json = extra
    return part


def call_arguments(call: ToolCallWire) -> str:
    """The arguments, or the piece of them that this delta brings."""
    if call.custom is not None:
        return call.custom.input or ""
    return _arguments(call.function)


def _arguments(function: FunctionWire | None) -> str:
    if function is None:
        return ""
    raw = bytes(function.arguments)
    if raw[:1] != b'"':
        return raw_text(function.arguments) or ""  # an object where OpenAI has a string of JSON
    return _STRING.decode(raw)


_STRING = ShapeDecoder(str)


def audio_bytes(audio: AudioWire) -> bytes:
    """The bytes of generated audio."""
    try:
        return base64.b64decode(audio.data or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise UpstreamProtocol("the upstream's audio is not base64") from error


def audio_rest(audio: AudioWire) -> content_pb2.Part:
    """What is known of generated audio beside its bytes and words."""
    part = content_pb2.Part(audio=content_pb2.Media())
    if audio.id is not None:
        part.audio.id = audio.id
    if audio.expires_at is not None:
        set_time(part.audio.expire_time, audio.expires_at)
    extra = json_text(audio.extra)
    if extra:
        part.extra_json = extra
    return part
