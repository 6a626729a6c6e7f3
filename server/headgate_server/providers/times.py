"""The times of answers, in the two forms that APIs tell them. Pure."""

from __future__ import annotations

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate_server.providers.shapes import Number

_YEAR_10000 = 253_402_300_800  # where Timestamps end

Answer = chat_pb2.ChatResponse | chat_pb2.Started


def set_unix_time(answer: Answer, unix: Number | None) -> None:
    """Sets the time of creation from seconds since 1970, if there is one."""
    if unix is None:
        return
    if not 0 <= unix < _YEAR_10000:
        raise UpstreamProtocol(f"the upstream's time {unix!r:.40} is none")
    answer.create_time.seconds = int(unix)


def set_rfc3339_time(answer: Answer, text: str | None) -> None:
    """Sets the time of creation from RFC 3339, to the nanosecond, if there is one."""
    if not text:
        return
    try:
        answer.create_time.FromJsonString(text)
    except ValueError as error:
        raise UpstreamProtocol(f"the upstream's time {text!r:.60} is none") from error
