"""An average of latencies that believes bad news at once. Owns nothing else."""

from __future__ import annotations

import math

TAU = 10.0  # seconds


_NOW = 0.05  # seconds; what it would fade in them is not worth an exponential


class PeakEwma:
    """Finagle's peak EWMA (com.twitter.finagle.loadbalancer.PeakEwma).

    A sample above the average becomes the average; one below it pulls it down, the more the longer the
    last one is ago: with exp(-t / 10 s).

    Attributes:
        value: seconds; None before the first sample.
        stamp: when the last sample came.
    """

    __slots__ = ("stamp", "value")

    def __init__(self) -> None:
        self.value: float | None = None
        self.stamp = -math.inf

    def add(self, seconds: float, now: float) -> None:
        """Takes a sample."""
        value = self.value
        if value is None or seconds >= value:
            self.value = seconds
        elif now > self.stamp:
            self.value = seconds + (value - seconds) * math.exp((self.stamp - now) / TAU)
        else:
            return  # at the same moment as one that was worse
        if now > self.stamp:
            self.stamp = now

    def at_least(self, seconds: float, now: float) -> None:
        """Takes a sample of something that would have lasted longer; only if it is above the average."""
        if self.value is None or seconds > self.value:
            self.add(seconds, now)

    def faded(self, now: float, renewed: float) -> float | None:
        """The average, fading to zero while nothing is heard, so that a slow target is tried again.

        Finagle fades it since the last sample. There, all calls that come before the first answer go to
        a target that has faded; an LLM takes seconds to answer. So here it fades since the last
        attempt began, too: one attempt is enough to look again.

        Args:
            now: when it is read.
            renewed: when the last attempt began.
        """
        if self.value is None:
            return None
        quiet = now - max(self.stamp, renewed)
        return self.value * math.exp(-quiet / TAU) if quiet > _NOW else self.value
