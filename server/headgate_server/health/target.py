"""How one target is: everything that its attempts have shown, and whether another may begin.

Owns the state of one pair of provider and upstream model. Must not choose between targets, and must not
know routes.
"""

from __future__ import annotations

import asyncio
import enum
import math

from headgate.errors import Overloaded
from headgate_server.config import Concurrency, resilience
from headgate_server.faults import VERDICTS, Fault
from headgate_server.health.average import PeakEwma
from headgate_server.health.breaker import Breaker, Position
from headgate_server.health.limit import AdaptiveLimit
from headgate_server.health.waiting import Waiting

# What a target costs that has calls but has not answered yet: more than any that has.
_UNKNOWN = 1e6
# Successes that are taken for granted, so that the first failure is not the whole truth.
_GRANTED = 2
_LEAST_SUCCESS = 0.1
# A call that came too late hung if it was silent for so many times the usual time to the first
# content, and for so many seconds. Otherwise a target that hangs would never be found out where callers
# are less patient than `timeouts`. Who leaves without a deadline may have any reason.
_HUNG, _LEAST_HUNG = 5.0, 2.0
_LEARNING = 0.05  # of what is usual, from each attempt with content
_STALE = 300.0  # seconds after which an average tells nothing
_LONGEST_EJECTION = 300.0  # seconds; as Envoy's max_ejection_time
_LEAST_RETRY_AFTER, _MOST_RETRY_AFTER = 0.1, 60.0
_OVERLOADED = frozenset((Fault.OVERLOAD, Fault.RATE_LIMIT, Fault.TIMEOUT))


class Standing(enum.IntEnum):
    """Whether an attempt may begin, and the gravest reason if not."""

    READY = 0
    FULL = 1
    COOLING = 2
    EJECTED = 3
    OPEN = 4


class TargetHealth:
    """The state of one target. Every attempt calls `begin`, perhaps `first`, and `end` exactly once.

    All times are seconds on one monotonic clock, the caller's.

    Args:
        provider: the provider's name.
        model: the upstream's name of the model.
        breaker: settings.
        concurrency: settings.
        origin: what it was made of besides; another one means another target.

    Attributes:
        in_flight: attempts under way.
        limit: most attempts at a time; None if there is no limit.
        queue_wait: how long a call may wait for a place, by the settings, in seconds.
        calm: nothing speaks against it, and it is not full: `standing` is READY without a look.
    """

    __slots__ = (
        "_adaptive",
        "_begun",
        "_breaker",
        "_cooling_until",
        "_ejected_until",
        "_ejections",
        "_first",
        "_settings",
        "_total",
        "_usual",
        "_waiting",
        "calm",
        "in_flight",
        "limit",
        "model",
        "provider",
        "queue_wait",
    )

    def __init__(
        self,
        provider: str,
        model: str,
        breaker: resilience.Breaker,
        concurrency: Concurrency,
        origin: object = None,
    ) -> None:
        self.provider = provider
        self.model = model
        self.in_flight = 0
        self._settings = (breaker, concurrency, origin)
        self._breaker = Breaker(breaker)
        self._first = PeakEwma()
        self._total = PeakEwma()
        self._usual: float | None = None  # seconds to the first content, without peaks
        self._begun = -math.inf  # when the last attempt began
        self._cooling_until = self._ejected_until = -math.inf
        self._ejections = 0
        self._waiting = Waiting(concurrency.queue)
        self.queue_wait = concurrency.queue_wait
        self._adaptive = AdaptiveLimit(concurrency) if concurrency.adaptive else None
        self.limit = self._adaptive.limit if self._adaptive else concurrency.limit
        self.calm = True

    # What attempts tell.

    def begin(self, now: float) -> None:
        """An attempt begins."""
        self.in_flight += 1
        self._begun = now
        if not self.calm:
            self._breaker.begin(now)
        elif self.limit is not None and self.in_flight >= self.limit:
            self.calm = False

    def first(self, seconds: float, now: float) -> None:
        """Its first content came, so many seconds after its beginning; of a unary one, all of it."""
        self._first.add(seconds, now)
        usual = self._usual
        self._usual = seconds if usual is None else usual + (seconds - usual) * _LEARNING
        if self._adaptive is not None:
            self._adaptive.add(seconds, self.in_flight, now)
            self._resize(self._adaptive.limit)

    def end(
        self,
        fault: Fault,
        seconds: float,
        now: float,
        *,
        silent: bool = False,
        late: bool = False,
    ) -> None:
        """It is over.

        Args:
            fault: how; NONE is a success. Faults whose verdict says that they count are failures, the
                others say nothing.
            seconds: how long it ran, since `begin`.
            now: when.
            silent: no content had come before it was cancelled or timed out. What ran longer than the
                average without an end (without content) is a sample: it takes at least so long.
            late: the caller's deadline ended it, or another attempt beside it was quicker. After a much
                longer silence than usual that counts as a timeout.
        """
        self.in_flight -= 1
        begun = now - seconds
        if late and silent and fault is Fault.CANCELLED and self._hung(seconds):
            fault = Fault.TIMEOUT
        if fault is Fault.NONE:
            self._total.add(seconds, now)
            self._breaker.end(False, begun, now)
        else:
            self._breaker.end(True if VERDICTS[fault].counts else None, begun, now)
            if fault is Fault.TIMEOUT or fault is Fault.CANCELLED:
                self._at_least(seconds, now, fault, silent)
            if self._adaptive is not None and fault in _OVERLOADED:
                self._adaptive.cut(begun, now)
                self._resize(self._adaptive.limit)
        if self._breaker.position is not Position.CLOSED:
            self.calm = False
        if self._waiting:
            self._hand_out()

    def cool(self, until: float) -> None:
        """The target asked to be left alone until then (Retry-After); the later end counts."""
        if until > self._cooling_until:
            self._cooling_until = until
            self.calm = False

    # What follows.

    def standing(self, now: float) -> Standing:
        """Whether an attempt may begin. Half open without a free place for a probe is OPEN."""
        if self.calm:
            return Standing.READY
        if not self._breaker.admits(now):
            return Standing.OPEN
        if now < self._ejected_until:
            return Standing.EJECTED
        if now < self._cooling_until:
            return Standing.COOLING
        if self.limit is not None and self.in_flight + self._waiting.handed >= self.limit:
            return Standing.FULL
        if not self._waiting.handed:
            self.calm = self._breaker.position is Position.CLOSED
        return Standing.READY

    def until(self, now: float) -> float:
        """When it is no longer open, ejected or cooling, whichever lasts longest.

        Now if it is none of these, and while it is half open and all places for probes are taken.
        """
        return now + max(self._breaker.remaining(now), self.ejected_for(now), self.cooling_for(now))

    def cost(self, now: float) -> float:
        """How much speaks against the next call going here; to be compared with other targets' only.

        The mean of the time to the first content and the whole time, times the calls that there would be;
        divided by the square of the rate of success, since failing is quick and no merit. One
        without a sample is free for one call, then dearer than all others until that call has told
        something: Finagle's penalty.
        """
        good, bad = self._breaker.window.counts(now)
        first = self._first.faded(now, self._begun)
        total = self._total.faded(now, self._begun)
        if first is None and total is None:
            if not bad and not self.in_flight:
                return 0.0
            seconds = _UNKNOWN
        elif first is None or total is None:
            seconds = first or total or 0.0
        else:
            seconds = (first + total) / 2
        calls = self.in_flight + 1
        if bad:
            success = max((good + _GRANTED) / (good + bad + _GRANTED), _LEAST_SUCCESS)
            return seconds * calls / (success * success)
        return seconds * calls

    async def wait_for_place(self, seconds: float) -> None:
        """Waits for a place, behind those who wait already; returns at once if one is free.

        The caller calls `begin` at once: nothing may be awaited between the two, and this must not run
        in a task of its own.

        Raises:
            Overloaded: the queue is full, or no place was free within so many seconds.
        """
        limit = self.limit
        if limit is None or self.in_flight + self._waiting.handed < limit:
            return
        try:
            if not self._waiting.full and seconds > 0 and await self._waiting.wait(seconds):
                return
        except asyncio.CancelledError:
            self._hand_out()  # it may have got a place at that moment
            raise
        raise Overloaded(
            f"all {limit} places at {self.provider}/{self.model} are taken, and "
            f"{len(self._waiting)} calls wait",
            retry_after=self._next_place(limit),
        )

    # What is told.

    @property
    def queued(self) -> int:
        """Calls that wait for a place."""
        return len(self._waiting)

    def first_token(self, now: float) -> float | None:
        """The average time to the first content, as of the last one; None if none came lately."""
        return _lately(self._first, now)

    def total(self, now: float) -> float | None:
        """The average time of whole attempts, as of the last one; None if none ended lately."""
        return _lately(self._total, now)

    def error_rate(self, now: float) -> float:
        """The share of failures in the breaker's window, 0 to 1."""
        good, bad = self._breaker.window.counts(now)
        return bad / (good + bad) if bad else 0.0

    def window_calls(self, now: float) -> int:
        """Attempts in the breaker's window that succeeded or failed."""
        return sum(self._breaker.window.counts(now))

    def breaker(self, now: float) -> tuple[Position, float]:
        """The breaker's position, and the seconds that it stays open."""
        return self._breaker.at(now), self._breaker.remaining(now)

    def ejected_for(self, now: float) -> float:
        """Seconds that it stays ejected; 0 if it is not."""
        return max(self._ejected_until - now, 0.0)

    def cooling_for(self, now: float) -> float:
        """Seconds that it wants to be left alone; 0 if it does not."""
        return max(self._cooling_until - now, 0.0)

    # For the board.

    def eject(self, seconds: float, now: float) -> None:
        """It is worse than its peers: leaves it out for so long, times the ejections in a row.

        What it did until now is forgotten, lest it be ejected for it again.
        """
        self._ejections += 1
        self._ejected_until = now + min(seconds * self._ejections, _LONGEST_EJECTION)
        self._breaker.forget(now)
        self.calm = False

    def keep(self) -> None:
        """It is as good as its peers: one ejection in a row less."""
        if self._ejections:
            self._ejections -= 1

    def alike(self, other: TargetHealth) -> bool:
        """Whether the other was made of the same settings."""
        return self._settings == other._settings

    def _at_least(self, seconds: float, now: float, fault: Fault, silent: bool) -> None:
        if fault is Fault.TIMEOUT or self._total.value is not None:
            self._total.at_least(seconds, now)
        if silent and (fault is Fault.TIMEOUT or self._first.value is not None):
            self._first.at_least(seconds, now)

    def _hung(self, seconds: float) -> bool:
        usual = self._usual
        return usual is not None and seconds > max(_HUNG * usual, _LEAST_HUNG)

    def _resize(self, limit: int) -> None:
        if limit != self.limit:
            self.limit = limit
            self.calm = False  # until somebody looks
            self._hand_out()

    def _hand_out(self) -> None:
        if self.limit is not None:
            self._waiting.hand_out(self.limit - self.in_flight - self._waiting.handed)

    def _next_place(self, limit: int) -> float:
        """About when all who wait have got a place, in seconds from now."""
        lasts = self._total.value if self._total.value is not None else 1.0
        guess = lasts * (len(self._waiting) + 1) / limit
        return min(max(guess, _LEAST_RETRY_AFTER), _MOST_RETRY_AFTER)


def _lately(average: PeakEwma, now: float) -> float | None:
    return average.value if now - average.stamp < _STALE else None
