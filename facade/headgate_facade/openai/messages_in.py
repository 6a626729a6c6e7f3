"""Messages of a chat completion request to the proto's. Pure.

Owns messages, content parts, tool calls of the history, and what earlier answers carried beyond OpenAI's
members. Every problem is an `InvalidRequest` that names the member.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, assert_never

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate.wire import Extra, MalformedJson, json_text, raw_array, raw_object, raw_text
from headgate_facade.malformed import misshapen
from headgate_facade.openai import wire
from headgate_facade.openai.carried import GENERATED_IMAGE, VENDOR_PART
from headgate_facade.openai.proofs import read_details, take_signature

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_MEDIA_TYPES = mimetypes.MimeTypes()  # without the machine's own files
AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}
ROLES = {
    wire.UserMessage: content_pb2.ROLE_USER,
    wire.SystemMessage: content_pb2.ROLE_SYSTEM,
    wire.DeveloperMessage: content_pb2.ROLE_DEVELOPER,
}
# A member name that nobody can send, because each process makes up its own.
_FOREIGN = f"\x7f{secrets.token_hex(8)}"


def read_message(message: wire.AnyMessage, index: int, out: content_pb2.Message) -> None:
    """Fills in a message. Raises `InvalidRequest`."""
    if isinstance(message, wire.ToolMessage):
        out.role = content_pb2.ROLE_TOOL
        result = out.parts.add().tool_result
        result.tool_call_id = message.tool_call_id
        if message.name is not None:
            result.name = message.name
        _fill(result.parts, message.content, index)
    elif isinstance(message, wire.FunctionMessage):
        out.role = content_pb2.ROLE_FUNCTION
        result = out.parts.add().tool_result
        result.name = message.name
        _fill(result.parts, message.content or "", index)
    elif isinstance(message, wire.AssistantMessage):
        out.role = content_pb2.ROLE_ASSISTANT
        if isinstance(message.content, str) and not _more_than_content(message):
            out.parts.add().text = message.content
        else:
            out.parts.extend(_assistant_parts(message, f"messages[{index}]"))
        if message.name is not None:
            out.name = message.name
    else:
        out.role = ROLES[type(message)]
        _fill(out.parts, message.content, index)
        if message.name is not None:
            out.name = message.name
    if message.extra:
        out.extra_json = json_text(message.extra) or ""


def _more_than_content(message: wire.AssistantMessage) -> bool:
    return bool(
        message.tool_calls
        or message.reasoning_content
        or message.reasoning
        or message.refusal is not None
        or message.audio
        or message.function_call
        or message.reasoning_details
        or message.images
        or message.vendor_parts
        or message.extra
    )


def _fill(
    parts: RepeatedCompositeFieldContainer[content_pb2.Part],
    content: str | Iterable[wire.UserPart | wire.ToolPart],
    index: int,
) -> None:
    if isinstance(content, str):
        parts.add().text = content
    else:
        parts.extend(read_parts(content, f"messages[{index}].content"))


def _assistant_parts(message: wire.AssistantMessage, path: str) -> list[content_pb2.Part]:
    """The parts, in the order thinking, vendors' blocks, text, refusal, images, audio, calls.

    Takes the text's signature out of the unknown members.
    """
    parts: list[content_pb2.Part] = []
    calls = message.tool_calls or ()
    signatures: dict[str, str] = {}
    if message.reasoning_details:
        where = f"{path}.reasoning_details"
        found, signatures = read_details(message.reasoning_details, where, (c.id for c in calls))
        parts.extend(found)
    thinking = message.reasoning_content or message.reasoning
    if thinking and not any(part.reasoning.text for part in parts):
        parts.insert(0, content_pb2.Part(reasoning=content_pb2.Reasoning(text=thinking)))
    for place, raw in enumerate(message.vendor_parts or ()):
        parts.append(_vendor_part(raw, f"{path}.vendor_parts[{place}]"))
    signature = take_signature(message.extra) if message.extra else None
    if message.content is not None:
        texts = read_parts(message.content, f"{path}.content")
        if signature and texts:
            texts[-1].thought_signature = signature
        parts.extend(texts)
    elif signature:
        parts.append(content_pb2.Part(text="", thought_signature=signature))
    if message.refusal is not None:
        parts.append(content_pb2.Part(refusal=message.refusal))
    for place, raw in enumerate(message.images or ()):
        parts.append(_generated_image(raw, f"{path}.images[{place}]"))
    if message.audio is not None:
        parts.append(content_pb2.Part(audio=content_pb2.Media(id=message.audio.id)))
    for place, call in enumerate(calls):
        part = _tool_call(call, f"{path}.tool_calls[{place}]")
        if not part.thought_signature and call.id in signatures:
            part.thought_signature = signatures[call.id]
        parts.append(part)
    if message.function_call is not None:
        legacy = message.function_call
        called = content_pb2.ToolCall(name=legacy.name, arguments_json=legacy.arguments or "")
        parts.append(content_pb2.Part(tool_call=called))
    return parts


def _vendor_part(raw: msgspec.Raw, path: str) -> content_pb2.Part:
    try:
        found = VENDOR_PART.decode(bytes(raw))
    except MalformedJson as error:
        raise misshapen(error, path) from error
    block = content_pb2.VendorPart(dialect=found.dialect, json=raw_text(found.json) or "")
    return content_pb2.Part(vendor_part=block)


def _generated_image(raw: msgspec.Raw, path: str) -> content_pb2.Part:
    try:
        found = GENERATED_IMAGE.decode(bytes(raw))
    except MalformedJson as error:
        raise misshapen(error, path) from error
    members = dict(found.extra or {})
    signature = take_signature(members)
    part = content_pb2.Part(image=_image(found.image_url, path), thought_signature=signature)
    inner = found.image_url.extra
    _add_extra(part, nested(members, "image_url", inner) if inner else members)
    return part


def _tool_call(call: wire.ToolCall, path: str) -> content_pb2.Part:
    out = content_pb2.ToolCall(id=call.id)
    if call.type == "custom":
        if call.custom is None:
            raise InvalidRequest.of(f"{path}.custom", "is required for a call of type custom")
        out.custom = True
        out.name, out.arguments_json = call.custom.name, call.custom.input or ""
    else:
        if call.function is None:
            raise InvalidRequest.of(f"{path}.function", "is required for a call of type function")
        out.name, out.arguments_json = call.function.name, call.function.arguments or ""
    part = content_pb2.Part(tool_call=out)
    extra = call.extra
    if extra and (signature := take_signature(extra)) is not None:
        part.thought_signature = signature
    if call.function is not None and call.function.extra:
        extra = nested(extra, "function", call.function.extra)
    _add_extra(part, extra)
    return part


def _add_extra(part: content_pb2.Part, extra: Extra) -> None:
    if text := json_text(extra):
        part.extra_json = text


def nested(extra: Extra, name: str, inner: Extra) -> Extra:
    """Unknown members of an object inside; on the way out they are merged into it again."""
    return {**(extra or {}), name: msgspec.Raw(msgspec.json.encode(inner))}


def read_parts(
    content: str | Iterable[wire.UserPart | wire.AssistantPart | wire.ToolPart], path: str
) -> list[content_pb2.Part]:
    """The parts of some content. Raises `InvalidRequest`."""
    if isinstance(content, str):
        return [content_pb2.Part(text=content)]
    return [_part(part, f"{path}[{place}]") for place, part in enumerate(content)]


def _part(part: wire.UserPart | wire.AssistantPart | wire.ToolPart, path: str) -> content_pb2.Part:
    extra = part.extra
    if isinstance(part, wire.TextPart):
        if extra and _FOREIGN in extra:
            block = content_pb2.VendorPart(dialect="openai", json=raw_text(extra[_FOREIGN]) or "")
            return content_pb2.Part(vendor_part=block)
        out = content_pb2.Part(text=part.text)
    elif isinstance(part, wire.ImagePart):
        out = content_pb2.Part(image=_image(part.image_url, path))
        if part.image_url.extra:
            extra = nested(extra, "image_url", part.image_url.extra)
    elif isinstance(part, wire.AudioPart):
        form = part.input_audio.format
        audio = content_pb2.Media(
            data=_base64(part.input_audio.data, f"{path}.input_audio.data"),
            media_type=AUDIO_TYPES.get(form, f"audio/{form}"),
        )
        out = content_pb2.Part(audio=audio)
    elif isinstance(part, wire.FilePart):
        out = content_pb2.Part(file=_file(part.file, path))
        if part.file.extra:
            extra = nested(extra, "file", part.file.extra)
    elif isinstance(part, wire.RefusalPart):
        out = content_pb2.Part(refusal=part.refusal)
    else:
        assert_never(part)
    _add_extra(out, extra)
    return out


def _image(image_url: wire.ImageUrl, path: str) -> content_pb2.Media:
    if not image_url.url.startswith(("https://", "http://", "data:")):
        raise InvalidRequest.of(
            f"{path}.image_url.url", "must be an https: URL or a data: URL with base64"
        )
    image = content_pb2.Media(url=image_url.url)
    if image_url.detail is not None:
        image.detail = image_url.detail
    return image


def _file(file: wire.FileRef, path: str) -> content_pb2.Media:
    media = content_pb2.Media()
    if file.file_id is not None:
        media.file_id = file.file_id
    elif file.file_data is None:
        raise InvalidRequest.of(f"{path}.file", "must have file_data or file_id")
    elif file.file_data.startswith(("data:", "https://", "http://")):
        media.url = file.file_data
    else:
        media.data = _base64(file.file_data, f"{path}.file.file_data")
        guessed, _ = _MEDIA_TYPES.guess_type(file.filename or "")
        media.media_type = guessed or "application/octet-stream"
    if file.filename is not None:
        media.filename = file.filename
    return media


def _base64(text: str, path: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest.of(path, "is not valid base64") from error


# Content parts of kinds that OpenAI does not document.


def with_foreign_parts(body: bytes) -> bytes:
    """The body with each content part of an unknown type inside a text part's unknown members.

    They are some vendor's own, such as `video_url`, and that vendor judges them.

    Raises:
        MalformedJson: the body is not what it was taken for.
    """
    members = raw_object(body)
    messages = []
    for raw in raw_array(members.get("messages", b"[]")):
        message = raw_object(bytes(raw))
        content = message.get("content")
        if content is not None and bytes(content)[:1] == b"[":
            parts = [_wrapped(part) for part in raw_array(content)]
            message["content"] = msgspec.Raw(msgspec.json.encode(parts))
        messages.append(msgspec.Raw(msgspec.json.encode(message)))
    members["messages"] = msgspec.Raw(msgspec.json.encode(messages))
    return msgspec.json.encode(members)


def _wrapped(part: msgspec.Raw) -> msgspec.Raw:
    if bytes(part)[:1] != b"{":
        return part
    kind = bytes(raw_object(bytes(part)).get("type", b""))
    if kind[:1] != b'"' or kind in _KNOWN_PARTS:
        return part
    return msgspec.Raw(msgspec.json.encode({"type": "text", "text": "", _FOREIGN: part}))


_KNOWN_PARTS = (b'"text"', b'"image_url"', b'"input_audio"', b'"file"', b'"refusal"')
