"""The content of messages and of tool outputs to parts. Pure.

Source: the `input` member of https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
from typing import assert_never

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate.wire import MalformedJson, json_text, raw_object, raw_text
from headgate_facade.responses import wire
from headgate_facade.responses.tools_in import extra_text

_MEDIA_TYPES = mimetypes.MimeTypes()  # without the machine's own files
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_MEDIA_URLS = ("https://", "http://", "data:")


def fill_part(part: content_pb2.Part, content: wire.Content, path: str) -> None:
    """Fills a part. Raises `InvalidRequest`."""
    if isinstance(content, wire.InputText | wire.OutputText):
        part.text = content.text
        if isinstance(content, wire.OutputText):
            part.annotations.extend(_annotation(raw) for raw in content.annotations or ())
            signature, _ = thought_signature(raw_text(content.extra_content) or "{}")
            if signature:
                part.thought_signature = signature
    elif isinstance(content, wire.InputImage):
        _image(part.image, content, path)
    elif isinstance(content, wire.InputFile):
        _file(part.file, content, path)
    elif isinstance(content, wire.InputAudio):
        form = content.input_audio.format
        part.audio.data = _base64(content.input_audio.data, f"{path}.input_audio.data")
        part.audio.media_type = _AUDIO_TYPES.get(form, f"audio/{form}")
    elif isinstance(content, wire.Refusal):
        part.refusal = content.refusal
    else:
        assert_never(content)
    extra = extra_text(content.extra)
    if extra is not None:
        part.extra_json = extra


def _annotation(raw: msgspec.Raw) -> content_pb2.Annotation:
    return content_pb2.Annotation(other_json=raw_text(raw) or "{}")


def _image(media: content_pb2.Media, image: wire.InputImage, path: str) -> None:
    if image.file_id is not None:
        media.file_id = image.file_id
    elif image.image_url is None:
        raise InvalidRequest.of(path, "must have image_url or file_id")
    elif image.image_url.startswith(_MEDIA_URLS):
        media.url = image.image_url
    else:
        raise InvalidRequest.of(
            f"{path}.image_url", "must be an https: URL or a data: URL with base64"
        )
    if image.detail is not None:
        media.detail = image.detail


def _file(media: content_pb2.Media, file: wire.InputFile, path: str) -> None:
    if file.file_id is not None:
        media.file_id = file.file_id
    elif file.file_url is not None:
        if not file.file_url.startswith(_MEDIA_URLS):
            raise InvalidRequest.of(f"{path}.file_url", "must be an https: URL")
        media.url = file.file_url
    elif file.file_data is None:
        raise InvalidRequest.of(path, "must have file_data, file_url or file_id")
    elif file.file_data.startswith("data:"):
        media.url = file.file_data
    else:
        media.data = _base64(file.file_data, f"{path}.file_data")
        guessed, _ = _MEDIA_TYPES.guess_type(file.filename or "")
        media.media_type = guessed or "application/octet-stream"
    if file.filename is not None:
        media.filename = file.filename


def _base64(text: str, path: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest.of(path, "is not valid base64") from error


def thought_signature(content: str) -> tuple[str, str | None]:
    """Gemini's proof in an item's `extra_content`, and what else is there.

    Source: https://ai.google.dev/gemini-api/docs/thought-signatures, "OpenAI compatibility".
    """
    try:
        members = raw_object(content)
        google = raw_object(bytes(members.pop("google", msgspec.Raw(b"{}"))))
        signature = msgspec.json.decode(
            google.pop("thought_signature", msgspec.Raw(b'""')), type=str
        )
    except (MalformedJson, msgspec.DecodeError):
        return "", content
    if google:
        members["google"] = msgspec.Raw(msgspec.json.encode(google))
    return signature, json_text(members)
