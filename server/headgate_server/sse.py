"""A sans-I/O parser for server-sent events: bytes in, events out, the same for every cut of the input.

Follows the WHATWG definition (https://html.spec.whatwg.org/multipage/server-sent-events.html) with one
leniency: at the end of input an event without its closing blank line still counts, because several
upstreams leave it out behind their last line. Owns framing only; what the data means is a dialect's
business.
"""

from __future__ import annotations

from typing import NamedTuple

from headgate.errors import UpstreamProtocol

DEFAULT_MAX_EVENT_BYTES = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """One event: its type (empty if the stream names none) and its data lines, joined."""

    event: bytes
    data: bytes


class SseParser:
    """Feed it bytes, take events. One per stream.

    Args:
        max_event_bytes: the largest line, and the largest event; more raises `UpstreamProtocol`.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_data_size",
        "_event",
        "_max",
        "_pieces",
        "_size",
    )

    def __init__(self, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._pieces: list[bytes] = []  # an unfinished line, in the pieces that it came in
        self._size = 0
        self._event = b""
        self._data: list[bytes] = []
        self._data_size = 0
        self._at_start = True
        self._after_cr = False  # the last byte was a CR: a LF now belongs to it

    def feed(self, data: bytes) -> list[SseEvent]:
        """Takes the next bytes; returns the events that they complete, in order."""
        if self._at_start:
            data = self._skip_bom(data)
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\n" not in data and b"\r" not in data:
            self._keep(data)
            return []
        if self._pieces:
            self._pieces.append(data)
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        self._keep(lines.pop())
        return self._take(lines)

    def finish(self) -> list[SseEvent]:
        """The end of input: returns the last event if its blank line is missing."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return self._take([rest, b""])

    def _take(self, lines: list[bytes]) -> list[SseEvent]:
        events: list[SseEvent] = []
        for line in lines:
            if line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._add(value)
            elif not line:
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    events.append(SseEvent(self._event, data))
                    self._data = []
                    self._data_size = 0
                self._event = b""
            elif line.startswith(b"event:"):
                self._event = line[7:] if line[6:7] == b" " else line[6:]
            elif line == b"data":
                self._add(b"")
            # Comments, ids, retry times and unknown fields carry nothing that we use.
        return events

    def _add(self, value: bytes) -> None:
        self._data_size += len(value) + 1  # with its line end, so that empty lines count, too
        if self._data_size > self._max:
            raise self._too_long()
        self._data.append(value)

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._size += len(piece)
            if self._size > self._max:
                raise self._too_long()
            self._pieces.append(piece)

    def _skip_bom(self, data: bytes) -> bytes:
        # The mark may come in pieces; whatever could still become one waits.
        data = b"".join(self._pieces) + data
        self._pieces.clear()
        self._size = 0
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._pieces.append(data)
            return b""
        self._at_start = False
        return data.removeprefix(_BOM)

    def _too_long(self) -> UpstreamProtocol:
        return UpstreamProtocol(f"the upstream sent an event of more than {self._max} bytes")
