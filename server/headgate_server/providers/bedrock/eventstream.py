"""A sans-I/O parser of `application/vnd.amazon.eventstream`: bytes in, messages out.

Source: https://smithy.io/2.0/aws/amazon-eventstream.html. The messages are the same for every cut of the
input. Owns framing only: lengths, both checksums, the header block. What a message means is the stream
decoder's business.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from headgate.errors import UpstreamProtocol

_PRELUDE = struct.Struct("!III")  # whole length, length of the headers, checksum of these two
_CRC = struct.Struct("!I")
_LENGTH = struct.Struct("!H")  # of a header's value
_OVERHEAD = _PRELUDE.size + _CRC.size
_MAX_HEADER_BYTES = 128 * 1024  # by the specification
_STRING = 7
# Bytes of the values that have a fixed length, by type: true, false, byte, short, integer, long,
# timestamp, UUID. Types 6 and 7, byte array and string, have a length of two bytes in front.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class Message(NamedTuple):
    """One message: its headers as far as they are strings, and its payload."""

    headers: dict[str, str]
    payload: bytes


class EventStreamParser:
    """Feed it bytes, iterate over messages. One per stream.

    Args:
        max_message_bytes: the largest message; more raises `UpstreamProtocol`.
    """

    __slots__ = ("_buffer", "_header_length", "_length", "_max", "_size")

    def __init__(self, max_message_bytes: int) -> None:
        self._max = max_message_bytes
        self._buffer: list[bytes] = []  # what is not parsed yet, in the pieces that it came in
        self._size = 0
        self._length = 0  # of the message under way; 0 while its prelude is not complete
        self._header_length = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """Takes the next bytes; yields the messages that they complete, in order.

        Raises:
            UpstreamProtocol: a length is out of bounds, a checksum is wrong, a header is malformed;
                behind the messages that came before.
        """
        if data:
            self._buffer.append(data)
            self._size += len(data)
        if self._size < (self._length or _PRELUDE.size):
            return
        whole = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        place = 0
        try:
            while True:
                left = len(whole) - place
                if not self._length:
                    if left < _PRELUDE.size:
                        return
                    self._read_prelude(whole, place)
                if left < self._length:
                    return
                end = place + self._length
                self._length = 0
                message = self._message(whole, place, end)
                place = end
                yield message
        finally:
            rest = whole[place:]
            self._buffer = [rest] if rest else []
            self._size = len(rest)

    def finish(self) -> tuple[Message, ...]:
        """The end of input: no messages. Raises `UpstreamProtocol` in the middle of one."""
        if self._size:
            raise UpstreamProtocol("the upstream's stream ended in the middle of an event")
        return ()

    def _read_prelude(self, data: bytes, place: int) -> None:
        length, header_length, crc = _PRELUDE.unpack_from(data, place)
        if zlib.crc32(memoryview(data)[place : place + 8]) != crc:
            raise UpstreamProtocol("the upstream's event stream has a wrong prelude checksum")
        if length < _OVERHEAD + header_length or header_length > _MAX_HEADER_BYTES:
            raise UpstreamProtocol("the upstream's event stream has a message of impossible length")
        if length > self._max:
            raise UpstreamProtocol(f"the upstream sent an event of more than {self._max} bytes")
        self._length, self._header_length = length, header_length

    def _message(self, data: bytes, place: int, end: int) -> Message:
        (crc,) = _CRC.unpack_from(data, end - _CRC.size)
        if zlib.crc32(memoryview(data)[place : end - _CRC.size]) != crc:
            raise UpstreamProtocol("the upstream's event stream has a wrong message checksum")
        payload = place + _PRELUDE.size + self._header_length
        headers = _headers(data[place + _PRELUDE.size : payload])
        return Message(headers, data[payload : end - _CRC.size])


def _headers(block: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    place = 0
    try:
        while place < len(block):
            start = place + 1
            place = start + block[place]
            name = block[start:place].decode()
            kind = block[place]
            place += 1
            size = _FIXED.get(kind)
            if size is None:
                if kind not in (6, _STRING):
                    raise ValueError
                (size,) = _LENGTH.unpack_from(block, place)
                place += _LENGTH.size
            value = block[place : place + size]
            if len(value) != size:
                raise ValueError
            place += size
            if kind == _STRING:
                found[name] = value.decode()
    except (IndexError, ValueError, struct.error) as error:  # UnicodeDecodeError is a ValueError
        raise UpstreamProtocol("the upstream's event stream has a malformed header") from error
    return found
