"""Gemini's inlineData and fileData to media. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate_facade.gemini import wire
from headgate_facade.gemini.members import camel, standard_base64

# What is none of these is the id of an uploaded file.
_URLS = ("https://", "http://", "gs://", "data:")


def inline(blob: wire.Blob, out: content_pb2.Part, path: str) -> None:
    """Reads bytes into a part. Raises `InvalidRequest`."""
    if not blob.mime_type:
        raise InvalidRequest.of(f"{path}.mimeType", "is required")
    media = _media(out, blob.mime_type)
    try:
        media.data = base64.b64decode(standard_base64(blob.data or ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest.of(f"{path}.data", "is not valid base64") from error
    if blob.display_name is not None:
        media.filename = blob.display_name


def file(given: wire.FileData, out: content_pb2.Part, path: str) -> None:
    """Reads a reference into a part. Raises `InvalidRequest`."""
    if not given.file_uri:
        raise InvalidRequest.of(f"{path}.fileUri", "is required")
    media = _media(out, given.mime_type or "")
    if given.file_uri.startswith(_URLS):
        media.url = given.file_uri
    else:
        media.file_id = given.file_uri
    if given.display_name is not None:
        media.filename = given.display_name


def members_of(blob: wire.Blob | wire.FileData) -> dict[str, Any]:
    """The object as it came."""
    known = {camel(name): getattr(blob, name) for name in blob.__struct_fields__ if name != "extra"}
    return {name: value for name, value in known.items() if value is not None} | (blob.extra or {})


def _media(out: content_pb2.Part, mime_type: str) -> content_pb2.Media:
    kind = mime_type.partition("/")[0].lower()
    media = out.image if kind == "image" else out.audio if kind == "audio" else out.file
    media.media_type = mime_type
    return media
