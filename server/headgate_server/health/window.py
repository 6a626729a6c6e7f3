"""A sliding window over good and bad events. Owns the counting, not the judging."""

from __future__ import annotations

BUCKETS = 10


class Window:
    """Counts of what happened lately, in buckets of a tenth of its length.

    It looks back by nine tenths of its length at least, and by its whole length at most. Time that runs
    backwards counts as standing still.

    Args:
        seconds: its length.
    """

    __slots__ = ("_bad", "_bads", "_ends", "_good", "_goods", "_past_bad", "_past_good", "_width")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self._ends = 0.0  # of the present bucket
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._good = self._bad = self._past_good = self._past_bad = 0
        self._goods = [0] * (BUCKETS - 1)  # the buckets before the present one, the oldest first
        self._bads = [0] * (BUCKETS - 1)

    def add(self, good: bool, now: float) -> None:
        """Counts one event."""
        if now >= self._ends:
            self._turn(now)
        if good:
            self._good += 1
        else:
            self._bad += 1

    def counts(self, now: float) -> tuple[int, int]:
        """How many good and bad ones there were."""
        if now >= self._ends:
            self._turn(now)
        return self._past_good + self._good, self._past_bad + self._bad

    def _turn(self, now: float) -> None:
        """Begins the bucket that now lies in."""
        steps = int((now - self._ends) / self._width) + 1
        self._ends += steps * self._width
        if steps >= BUCKETS:
            self.clear()
            return
        empty = [0] * (steps - 1)
        self._goods = [*self._goods[steps:], self._good, *empty]
        self._bads = [*self._bads[steps:], self._bad, *empty]
        self._good = self._bad = 0
        self._past_good, self._past_bad = sum(self._goods), sum(self._bads)
