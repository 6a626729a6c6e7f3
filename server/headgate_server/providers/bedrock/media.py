"""Images, documents, videos and sound to Converse's blocks. Pure.

Source: ImageBlock, DocumentBlock, VideoBlock and AudioBlock of
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Types_Amazon_Bedrock_Runtime.html. Converse
takes bytes and addresses in S3, and fetches nothing else.
"""

from __future__ import annotations

import re

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate_server.providers.encoding import Json
from headgate_server.providers.media import base64_of, split_data_url

_IMAGES = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_VIDEOS = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_SOUNDS = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/opus": "opus",
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
    "audio/aac": "aac",
    "audio/x-aac": "x-aac",
    "audio/flac": "flac",
    "audio/mp4": "mp4",
    "audio/x-m4a": "m4a",
    "audio/ogg": "ogg",
    "audio/x-matroska": "mka",
    "audio/webm": "webm",
    "audio/pcm": "pcm",
    "audio/pcm16": "pcm",
}
_KINDS = {"image": _IMAGES, "document": _DOCUMENTS, "video": _VIDEOS, "audio": _SOUNDS}
_ENDINGS = {"jpg": "jpeg", "htm": "html", "markdown": "md", "3gp": "three_gp"}
# "alphanumeric characters, whitespace characters (no more than one in a row), hyphens, parentheses,
# square brackets": https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9 \-()\[\]]+")
_MAX_NAME = 200


class MediaEncoder:
    """Encodes the media of one request, whose documents need names of their own."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def block(self, kind: str, media: content_pb2.Media, path: str) -> Json:
        """The block of an image, audio or file part.

        Raises:
            InvalidRequest: the source or the format is one that Converse does not take.
        """
        name = _block_kind(kind, media)
        source = _source(media, path)
        form = _format(name, media, path)
        if name == "document":
            return {name: {"format": form, "name": self._name(media), "source": source}}
        return {name: {"format": form, "source": source}}

    def _name(self, media: content_pb2.Media) -> str:
        """The document's name: sanitised, and different from the others'."""
        stem = media.filename.rpartition("/")[2]
        stem = stem.rpartition(".")[0] or stem
        stem = " ".join(_NOT_IN_NAMES.sub(" ", stem).split())[: _MAX_NAME - 8] or "document"
        name, number = stem, 2
        while name in self._names:
            name, number = f"{stem}-{number}", number + 1
        self._names.add(name)
        return name


def _block_kind(kind: str, media: content_pb2.Media) -> str:
    """The kind of Converse's block: our files may be films or pictures."""
    if kind != "file":
        return kind
    family = _media_type(media).partition("/")[0]
    return family if family in ("image", "video", "audio") else "document"


def _format(name: str, media: content_pb2.Media, path: str) -> str:
    formats = _KINDS[name]
    media_type = _media_type(media)
    found = formats.get(media_type)
    if found is not None:
        return found
    if media_type in ("", "application/octet-stream"):
        ending = (media.filename or media.url).rpartition(".")[2].lower()
        ending = _ENDINGS.get(ending, ending)
        if ending in formats.values():
            return ending
    known = ", ".join(dict.fromkeys(formats.values()))
    raise InvalidRequest.of(
        f"{path}.media_type",
        f"the bedrock API takes no {name} of the type {media_type!r}; it takes {known}",
    )


def _media_type(media: content_pb2.Media) -> str:
    given = media.media_type
    if not given and media.url.startswith("data:"):
        given = media.url[5:].partition(",")[0]
    return given.partition(";")[0].strip().lower()


def _source(media: content_pb2.Media, path: str) -> Json:
    source = media.WhichOneof("source")
    if source == "data":
        return {"bytes": base64_of(media.data)}
    address = media.file_id if source == "file_id" else media.url
    if address.startswith("s3://"):
        return {"s3Location": {"uri": address}}
    if source == "url" and address.startswith("data:"):
        return {"bytes": split_data_url(address, path, check=True)[1]}
    found = {"file_id": "is a file id", "url": "is a URL"}.get(source or "", "is missing")
    raise InvalidRequest.of(
        f"{path}.{source or 'data'}",
        f"{found}; the bedrock API takes bytes, data: URLs and s3: addresses; send the bytes",
    )
