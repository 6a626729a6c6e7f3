"""Media to inlineData, fileData and the parts of a function's response. Pure.

Sources: https://ai.google.dev/gemini-api/docs/file-input-methods (inline, files API, URLs),
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference#filedata (a media type is
required), https://ai.google.dev/gemini-api/docs/function-calling#multimodal (responses of functions).
"""

from __future__ import annotations

import base64
import mimetypes
from urllib.parse import unquote_to_bytes, urlsplit

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate_server.providers.encoding import Json

# What the Files API calls its files, whatever address a request for them goes to.
_FILES = "https://generativelanguage.googleapis.com/v1beta"
_VIDEO_HOSTS = ("youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be")


def encode_media(media: content_pb2.Media, path: str, *, vertex: bool) -> Json:
    """The member of a part that holds the media.

    Args:
        media: what to send.
        path: where it stands in the request, for errors.
        vertex: whether it goes to Vertex AI, which insists on media types.
    """
    source = media.WhichOneof("source")
    if source == "data":
        data = base64.b64encode(media.data).decode()
        return {"inlineData": {"mimeType": media.media_type, "data": data}}
    if source == "url" and media.url.startswith("data:"):
        return {"inlineData": _data_url(media.url, media.media_type, path)}
    if source == "url":
        return {"fileData": _file_data(media.url, media.media_type, f"{path}.url", vertex=vertex)}
    if source == "file_id":
        uri = media.file_id
        if uri.startswith("files/") and not vertex:
            uri = f"{_FILES}/{uri}"
        return {"fileData": _file_data(uri, media.media_type, f"{path}.file_id", vertex=vertex)}
    raise InvalidRequest.of(
        path,
        "the gemini API takes media as data, URL or file id, and no reference to an earlier answer; "
        "send one of these, or leave the part out",
    )


def encode_result_media(media: content_pb2.Media, path: str, *, vertex: bool) -> Json:
    """Media as a part of a function's response."""
    wire = encode_media(media, path, vertex=vertex)
    if "fileData" in wire and not vertex:
        raise InvalidRequest.of(
            path, "the gemini API takes media in function responses as data only; send the bytes"
        )
    if media.HasField("filename"):
        for blob in wire.values():
            blob["displayName"] = media.filename
    return wire


def _data_url(url: str, media_type: str, path: str) -> Json:
    head, comma, body = url.removeprefix("data:").partition(",")
    if not comma:
        raise InvalidRequest.of(f"{path}.url", "a data: URL must have a comma before its data")
    head, _, encoding = head.rpartition(";") if head.endswith(";base64") else (head, "", "")
    data = body if encoding else base64.b64encode(unquote_to_bytes(body)).decode()
    return {"mimeType": head or media_type or "text/plain", "data": data}


def _file_data(uri: str, media_type: str, path: str, *, vertex: bool) -> Json:
    found = media_type or _guess(uri)
    if not found and vertex:
        raise InvalidRequest.of(
            f"{path.rpartition('.')[0]}.media_type",
            "is required: Vertex AI wants the media type of what it fetches, and the address "
            "does not tell it",
        )
    return {"mimeType": found, "fileUri": uri} if found else {"fileUri": uri}


def _guess(uri: str) -> str:
    try:
        place = urlsplit(uri)
    except ValueError:
        return ""
    if place.hostname in _VIDEO_HOSTS:
        return "video/mp4"
    return mimetypes.guess_type(place.path)[0] or ""
