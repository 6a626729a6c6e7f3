"""How many retries and hedges a provider may get, so that an outage is not made worse. Owns the count."""

from __future__ import annotations

from headgate_server.config import Retries
from headgate_server.health.window import Window

_SECONDS = 10.0
_ROUNDING = 1e-9


class RetryBudget:
    """One provider's: a share of its requests of the last ten seconds, and a few free ones."""

    __slots__ = ("_free", "_share", "_window")

    def __init__(self, settings: Retries) -> None:
        self._share = settings.budget
        self._free = settings.budget_min
        self._window = Window(_SECONDS)  # good: first attempts; bad: further ones

    def sent(self, now: float) -> None:
        """The first attempt of a request goes to this provider."""
        self._window.add(True, now)

    def take(self, now: float) -> bool:
        """Whether a retry or a hedge may go out; it is counted if so."""
        requests, retries = self._window.counts(now)
        if retries + 1 > self._free + self._share * requests + _ROUNDING:
            return False
        self._window.add(False, now)
        return True

    def same(self, settings: Retries) -> bool:
        """Whether it was made of these settings."""
        return (self._share, self._free) == (settings.budget, settings.budget_min)
