"""A sans-I/O parser for newline-delimited JSON: bytes in, lines out, the same for every cut of the input.

Owns framing only: https://github.com/ndjson/ndjson-spec. Empty lines are skipped, and a last line counts
without its line end, too.
"""

from __future__ import annotations

from headgate.errors import UpstreamProtocol


class LineParser:
    """Feed it bytes, take lines. One per stream.

    Args:
        max_line_bytes: the largest line; a larger one raises `UpstreamProtocol`.
    """

    __slots__ = ("_max", "_pieces", "_size")

    def __init__(self, max_line_bytes: int) -> None:
        self._max = max_line_bytes
        self._pieces: list[bytes] = []  # an unfinished line, in the pieces that it came in
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Takes the next bytes; returns the lines that they complete, in order."""
        if b"\n" not in data:
            self._keep(data)
            return []
        if self._pieces:
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
            self._size = 0
        lines = data.split(b"\n")
        self._keep(lines.pop())
        return self._whole(lines)

    def finish(self) -> list[bytes]:
        """The end of input: returns the last line if its line end is missing."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return self._whole([rest])

    def _whole(self, lines: list[bytes]) -> list[bytes]:
        for line in lines:
            if len(line) > self._max:
                raise self._too_long()
        return [stripped for line in lines if (stripped := line.strip())]

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._size += len(piece)
            if self._size > self._max:
                raise self._too_long()
            self._pieces.append(piece)

    def _too_long(self) -> UpstreamProtocol:
        return UpstreamProtocol(f"the upstream sent a line of more than {self._max} bytes")
