"""When a target that keeps failing is left alone. Owns the window of outcomes and the breaker's position.

Which faults count is not decided here, nor what becomes of a call that finds the breaker open.
"""

from __future__ import annotations

import enum
import math

from headgate_server.config import resilience
from headgate_server.health.window import Window

# An attempt's beginning is computed from its end and its length, which were rounded.
_SLACK = 0.001


class Position(enum.IntEnum):
    """`headgate.admin.v1.TargetState.Breaker`, number by number."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


class Breaker:
    """The breaker of one target.

    Closed, it counts, and opens when a failure makes their share in the window too large, or when so many
    came in a row that the successes before them say nothing any more. Open, it waits;
    then, half open, it lets a few probes through at a time: enough successes close it, one failure opens
    it again, for twice as long. An attempt that began before the last change of position
    says nothing about the present one: late failures neither lengthen an opening nor count twice.
    Attempts that are made all the same while it is open (there was nothing better) can close it, but not
    lengthen the opening.

    A probe's place is lent for `max_open` seconds at the longest, so that a few endless streams do not
    keep a breaker half open for good.

    Attributes:
        window: good and bad outcomes since it was last closed.
        position: as of the last look; `at` looks.
    """

    __slots__ = (
        "_lent",
        "_open_for",
        "_passed",
        "_probing",
        "_row",
        "_settings",
        "_since",
        "_until",
        "position",
        "window",
    )

    def __init__(self, settings: resilience.Breaker) -> None:
        self.window = Window(settings.window)
        self.position = Position.CLOSED
        self._settings = settings
        self._since = -math.inf  # what began before says nothing
        self._until = -math.inf  # the end of the last opening
        self._open_for = 0.0
        self._probing = 0  # places taken while half open
        self._lent = 0.0  # when the last of them was taken
        self._passed = 0  # successes in a row since it opened
        self._row = 0  # failures in a row

    def at(self, now: float) -> Position:
        """The position now."""
        if self.position is Position.OPEN and now >= self._until:
            self.position = Position.HALF_OPEN
            self._since = self._until
            self._probing = 0
        return self.position

    def admits(self, now: float) -> bool:
        """Whether an attempt may begin: closed, or half open with a free place."""
        if self.position is Position.CLOSED:
            return True
        if self.at(now) is Position.OPEN:
            return False
        return self._probing < self._settings.probes or now - self._lent >= self._settings.max_open

    def remaining(self, now: float) -> float:
        """Seconds until an open one is half open; 0 in other positions."""
        return self._until - now if self.at(now) is Position.OPEN else 0.0

    def begin(self, now: float) -> None:
        """An attempt begins; while half open it takes a place."""
        if self.position is not Position.CLOSED and self.at(now) is Position.HALF_OPEN:
            if now - self._lent >= self._settings.max_open:
                self._probing = 0
            self._probing += 1
            self._lent = now

    def end(self, failed: bool | None, begun: float, now: float) -> None:
        """An attempt is over.

        Args:
            failed: whether it speaks against the target; None if it says nothing, and a probe's place is
                only given back.
            begun: when it began.
            now: when it ended.
        """
        if self.position is Position.CLOSED:
            if failed is not None and begun >= self._since - _SLACK:
                self.window.add(not failed, now)
                self._row = self._row + 1 if failed else 0
                if failed:
                    self._judge(now)
            return
        self.at(now)
        if begun < self._since - _SLACK:
            return
        half_open = self.position is Position.HALF_OPEN
        if half_open:
            self._probing = max(self._probing - 1, 0)
        if failed:
            self._passed = 0
            if half_open:
                self._open(now, self._open_for * 2)
        elif failed is not None:
            self._passed += 1
            if self._passed >= self._settings.probes:
                self._close(now)

    def forget(self, now: float) -> None:
        """Whatever began until now does not count, as long as it is closed."""
        if self.position is Position.CLOSED:
            self._since = now
            self.window.clear()

    def _judge(self, now: float) -> None:
        settings = self._settings
        if not settings.enabled:
            return
        good, bad = self.window.counts(now)
        calls = good + bad
        # After a busy half minute of successes it takes long until half of the calls are failures;
        # meanwhile every request of an outage would be tried on every target.
        if min(self._row, bad) >= settings.min_requests or (
            calls >= settings.min_requests and bad >= settings.failure_ratio * calls
        ):
            self._open(now, settings.open_for)

    def _open(self, now: float, seconds: float) -> None:
        self.position = Position.OPEN
        self._open_for = min(seconds, self._settings.max_open)
        self._since = now
        self._until = max(self._until, now + self._open_for)
        self._passed = 0

    def _close(self, now: float) -> None:
        self.position = Position.CLOSED
        self._since = now
        self._until = now
        self._row = 0
        self.window.clear()
