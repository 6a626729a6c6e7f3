"""How many attempts a target bears at a time, learnt from how long they take. Owns that number.

Must not know who waits for a place.
"""

from __future__ import annotations

import math

from headgate_server.config import Concurrency

START = 16
_SAMPLES = 10  # at least, for one adjustment
_SHORTEST, _LONGEST = 1.0, 30.0  # seconds between adjustments
_USED = 0.8  # of the limit, before it grows; less than half says nothing about it
_TOLERANCE = 2.0  # times the usual latency
_SMOOTHING = 0.5
_LEARNING = 0.1
_CUT = 0.9
_PATIENCE = 30  # adjustments
_HELPED = 0.8  # half the limit would halve a latency of our making, but for what is still queued


class AdaptiveLimit:
    """A limit that grows while answers are as quick as usual, and shrinks when they slow down.

    After Netflix's Gradient2 (github.com/Netflix/concurrency-limits, Gradient2Limit): the limit is
    multiplied by ``tolerance * usual / present latency``, at least 0.5 and at most 1, and gets a headroom
    of its own square root, for the queue that every server needs. Only a limit that is used is changed.
    Three things differ, since an LLM's answers are slow, and few:

    - It is adjusted once in two latencies (1 to 30 s), by the mean of at least ten of them.
    - Usual is what latencies are while less than half of the limit is used, or less than that.
      Gradient2's long average takes in everything, so that it follows an overload that lasts, and the
      limit follows it, without end.
    - Latencies that stay high although the limit is only half of what it was are not of our making:
      longer prompts, perhaps. They are usual from then on. If they are high for long, and the limit does
      not shrink that far by itself, it is halved to see.

    Being told of an overload (a 429, a 503, a timeout) multiplies it by 0.9, once for all attempts that
    were under way together.

    Attributes:
        limit: the present one.
    """

    __slots__ = (
        "_busiest",
        "_count",
        "_cut",
        "_due",
        "_lately",
        "_mark",
        "_settings",
        "_sum",
        "_usual",
        "_value",
        "limit",
    )

    def __init__(self, settings: Concurrency) -> None:
        self._settings = settings
        self._usual: float | None = None
        self._lately = 0.0  # the mean latency of the last ten adjustments or so
        # The limit when latencies became too high, the worst since, and the adjustments since.
        self._mark: tuple[float, float, int] | None = None
        self._due = -math.inf  # the next adjustment
        self._cut = -math.inf  # the last cut
        self._count, self._sum, self._busiest = 0, 0.0, 0  # since the last adjustment
        self._set(float(START if settings.limit is None else settings.limit))

    def add(self, seconds: float, in_flight: int, now: float) -> None:
        """Takes a latency.

        Args:
            seconds: to the first content: whole answers differ by their length.
            in_flight: attempts at that moment, this one included.
            now: that moment.
        """
        self._count += 1
        self._sum += seconds
        if in_flight > self._busiest:
            self._busiest = in_flight
        if now >= self._due and self._count >= _SAMPLES:
            present = max(self._sum / self._count, 1e-6)
            self._adjust(present)
            self._due = now + min(max(2 * present, _SHORTEST), _LONGEST)
            self._count, self._sum, self._busiest = 0, 0.0, 0

    def cut(self, begun: float, now: float) -> None:
        """The target is overloaded, says an attempt that began then."""
        if begun >= self._cut:
            self._cut = now
            self._set(self._value * _CUT)

    def _adjust(self, present: float) -> None:
        if self._usual is None:
            if self._lately:
                self._usual = present
            self._lately = present
            return  # the first to answer are the quick ones
        usual = self._usual
        self._lately += (present - self._lately) * _LEARNING
        idle = self._busiest < self.limit / 2
        if idle or present < usual:
            self._usual += (present - usual) * _LEARNING
        gradient = max(0.5, min(1.0, _TOLERANCE * usual / present))
        if idle or (gradient == 1.0 and self._busiest < self.limit * _USED):
            return
        if gradient == 1.0:
            self._mark = None
        elif self._doubt(present):
            self._set(self._value / 2)
            return
        wanted = self._value * gradient + math.sqrt(self._value)
        self._set(self._value + (wanted - self._value) * _SMOOTHING)

    def _doubt(self, present: float) -> bool:
        """Believes latencies that are not our doing; whether the limit is to be halved to know that."""
        limit, worst, rounds = self._mark or (self._value, present, 0)
        if self._value <= max(limit / 2, self._settings.min):
            if present >= worst * _HELPED:
                self._usual = present
            self._mark = None
        elif rounds < _PATIENCE:
            self._mark = limit, max(worst, present), rounds + 1
        else:
            self._mark = self._value, self._lately, 0
            return True
        return False

    def _set(self, value: float) -> None:
        least = self._settings.min
        self._value = min(max(value, least), max(self._settings.max, least))
        self.limit = int(self._value)
