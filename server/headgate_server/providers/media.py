"""Bytes of images, sound and documents as base64 and `data:` URLs, and back. Pure."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from headgate.errors import InvalidRequest, UpstreamProtocol
from headgate.v1 import content_pb2


def base64_of(data: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(data).decode()


def bytes_of(text: str, what: str) -> bytes:
    """The bytes of an answer, which JSON has in base64. Raises `UpstreamProtocol`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UpstreamProtocol(f"the upstream's {what} is not base64") from error


def web_url_of(media: content_pb2.Media, path: str) -> str:
    """The URL that media have, for vendors that fetch it themselves or take its data.

    Raises:
        InvalidRequest: it leads into the storage of a cloud.
    """
    if not media.url.startswith(("https://", "http://", "data:")):
        raise InvalidRequest.of(
            f"{path}.url", "must be an https: or data: URL; the API reads no other"
        )
    return media.url


def data_url_of(media: content_pb2.Media, path: str) -> str:
    """A URL that holds the media; or the one that they have, as `web_url_of`."""
    if media.WhichOneof("source") == "url":
        return web_url_of(media, path)
    return f"data:{media.media_type};base64,{base64_of(media.data)}"


def split_data_url(url: str, path: str, *, check: bool = False) -> tuple[str, str]:
    """(media type, base64) of a `data:` URL (RFC 2397).

    Args:
        url: the whole.
        path: of the media, for errors.
        check: whether to decode the base64, so as not to send what is none.

    Raises:
        InvalidRequest: the URL holds no data.
    """
    head, comma, data = url.removeprefix("data:").partition(",")
    if not comma:
        raise InvalidRequest.of(
            f"{path}.url", "is a data: URL without a comma, and so without data"
        )
    media_type = head[: -len(";base64")]
    if head[len(media_type) :].lower() != ";base64":
        return head, base64_of(unquote_to_bytes(data))
    if check:
        try:
            base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest.of(f"{path}.url", "holds data that is not base64") from error
    return media_type, data
