"""Media to inlineData, fileData and the parts of a function's response. Pure.

Sources: https://ai.google.dev/gemini-api/docs/file-input-methods (inline, files API, URLs),
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference#filedata (a media type is
required), https://ai.google.dev/gemini-api/docs/function-calling#multimodal (responses of functions).
"""

from __future__ import annotations

import mimetypes
from urllib.parse import urlsplit

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate_server.providers.encoding import Json
from headgate_server.providers.media import base64_of, split_data_url

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
        return {"inlineData": {"mimeType": media.media_type, "data": base64_of(media.data)}}
    if source == "url" and media.url.startswith("data:"):
        media_type, data = split_data_url(media.url, path)
        media_type = media_type or media.media_type or "text/plain"
        return {"inlineData": {"mimeType": media_type, "data": data}}
    if source == "url" and media.url.startswith("s3://"):
        raise InvalidRequest.of(
            f"{path}.url", "must be an https:, gs: or data: URL; the gemini API reads no other"
        )
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
