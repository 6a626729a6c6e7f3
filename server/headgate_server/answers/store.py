"""Answers in memory, bounded by bytes and by time.

Owns what is dropped and when. It knows nothing of what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

# What an entry takes beside its bytes: the objects, the key, its place in the dict.
ENTRY_BYTES = 400


class _Entry(msgspec.Struct, gc=False):
    value: bytes
    until: float


class Store:
    """Values by key. When there is no room, what stands first goes first.

    Args:
        max_bytes: of memory for all of them, `ENTRY_BYTES` each included.
        clock: seconds, monotonic.
        recent: what is read moves to the end, so that the least recently used goes first, not the oldest.

    Attributes:
        used: bytes now.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float], *, recent: bool) -> None:
        self.used = 0
        self._max_bytes = max_bytes
        self._clock = clock
        self._recent = recent
        self._entries: dict[bytes, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> bytes | None:
        """The value; None if there is none, or none any more."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= self._clock():
            self._drop(key)
            return None
        if self._recent:
            self._entries[key] = self._entries.pop(key)
        return entry.value

    def put(self, key: bytes, value: bytes, ttl: float) -> None:
        """Keeps a value for `ttl` seconds, in place of an older one; not one larger than all the room."""
        if key in self._entries:
            self._drop(key)
        size = len(value) + ENTRY_BYTES
        if size > self._max_bytes:
            return
        now = self._clock()
        self._entries[key] = _Entry(value, now + ttl)
        self.used += size
        self._tidy(now)

    def limit(self, max_bytes: int) -> None:
        """Bounds it anew."""
        self._max_bytes = max_bytes
        self._tidy(self._clock())

    def _tidy(self, now: float) -> None:
        """Makes room; what has expired goes as soon as it stands first."""
        while self._entries:
            key = next(iter(self._entries))
            if self.used <= self._max_bytes and self._entries[key].until > now:
                return
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        self.used -= len(self._entries.pop(key).value) + ENTRY_BYTES
