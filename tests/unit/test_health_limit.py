"""The adaptive limit in front of a simulated server, in virtual time; and the fixed one."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from headgate_server.config import Breaker, Concurrency
from headgate_server.faults import Fault
from headgate_server.health import Standing, TargetHealth


class Server:
    """So many slots, each `seconds` for a call (give or take); further calls queue."""

    def __init__(self, slots: int, seconds: float, seed: int = 1) -> None:
        self.slots = slots
        self.seconds = seconds
        self._free = [0.0] * 1000  # when each slot is free
        self._draw = random.Random(seed)

    def answer_at(self, now: float) -> float:
        busy = min(self._free[: self.slots])
        at = self._free.index(busy, 0, self.slots)
        done = max(now, busy) + self.seconds * self.noise()
        self._free[at] = done
        return done

    def noise(self) -> float:
        return self._draw.uniform(0.8, 1.2)


class Fickle(Server):
    """Some answers take five times as long as others."""

    def noise(self) -> float:
        return self._draw.lognormvariate(-0.32, 0.8)


class Load:
    """Callers that keep `demand` calls at the target, as far as its limit lets them."""

    def __init__(self, health: TargetHealth, server: Server, demand: int) -> None:
        self.health, self.server, self.demand = health, server, demand
        self.now = 0.0
        self._calls: list[tuple[float, float]] = []  # end, beginning

    def run(self, seconds: float, each: Callable[[int], None] = lambda limit: None) -> int:
        """Lets it run; returns the limit."""
        health = self.health
        until = self.now + seconds
        while self.now < until:
            while len(self._calls) < self.demand and health.standing(self.now) is Standing.READY:
                health.begin(self.now)
                heapq.heappush(self._calls, (self.server.answer_at(self.now), self.now))
            end, begun = heapq.heappop(self._calls)
            self.now = end
            health.first(end - begun, end)
            health.end(Fault.NONE, end - begun, end)
            assert health.in_flight == len(self._calls)
            assert health.limit is not None
            each(health.limit)
        assert health.limit is not None
        return health.limit


def adaptive(limit: int | None = None, *, least: int = 1, most: int = 1000) -> TargetHealth:
    settings = Concurrency(adaptive=True, limit=limit, min=least, max=most)
    return TargetHealth("p", "m", Breaker(), settings)


@pytest.mark.parametrize("seconds", [0.2, 2.0])
def test_it_grows_to_what_the_server_bears(seconds: float) -> None:
    load = Load(adaptive(), Server(50, seconds), demand=500)
    assert load.health.limit == 16
    found = load.run(150 * max(seconds, 1))
    # Twice the latency of an idle server is tolerated, and a headroom of the square root.
    assert 80 <= found <= 120


def test_it_shrinks_to_what_the_server_bears() -> None:
    load = Load(adaptive(200), Server(20, 0.5), demand=10)
    load.run(30)  # quiet: this is how long an answer takes
    load.demand = 1000
    assert 30 <= load.run(200) <= 60


def test_an_overload_that_lasts_does_not_carry_it_away() -> None:
    load = Load(adaptive(), Server(10, 0.2), demand=500)
    load.run(120)
    limits: list[int] = []
    load.run(600, limits.append)
    assert min(limits) >= 10
    assert max(limits) <= 45


def test_a_server_that_loses_slots_and_gets_them_back() -> None:
    load = Load(adaptive(), Server(50, 0.2), demand=500)
    large = load.run(200)
    load.server.slots = 10
    small = load.run(200)
    load.server.slots = 50
    again = load.run(300)
    assert small <= large / 3
    assert again >= large * 0.8


def test_answers_that_take_longer_for_good_do_not_keep_it_small() -> None:
    load = Load(adaptive(), Server(60, 0.2), demand=60)
    assert load.run(100) >= 60
    load.server.seconds = 1.5  # other prompts
    lowest: list[int] = []
    again = load.run(300, lowest.append)
    assert min(lowest) < 40, "at first they look like an overload"
    assert again >= 60


def test_a_limit_that_stays_a_little_low_is_halved_to_see() -> None:
    load = Load(adaptive(), Server(100, 0.2), demand=24)
    assert load.run(30) >= 24
    load.server.seconds = 0.54
    assert load.run(25) < 24
    assert load.run(75) >= 24


@pytest.mark.parametrize("seed", [1, 2])
def test_answers_of_all_lengths_are_no_overload(seed: int) -> None:
    load = Load(adaptive(), Fickle(200, 1.0, seed), demand=80)
    load.run(100)
    seen: list[int] = []
    load.run(300, seen.append)
    assert sum(seen) / len(seen) >= 80


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    load = Load(adaptive(), Server(100, 0.1), demand=8)
    assert load.run(300) == 16


def test_it_stays_within_its_bounds() -> None:
    seen: list[int] = []
    Load(adaptive(most=24), Server(100, 0.1), demand=500).run(200, seen.append)
    assert max(seen) == 24
    health = adaptive(least=5)
    for second in range(100):
        health.begin(second)
        health.end(Fault.OVERLOAD, 0.1, second + 0.1)
    assert health.limit == 5


@pytest.mark.parametrize("fault", [Fault.OVERLOAD, Fault.RATE_LIMIT, Fault.TIMEOUT])
def test_being_told_of_an_overload_shrinks_it_once_for_all_that_were_under_way(
    fault: Fault,
) -> None:
    health = adaptive(100)
    for _ in range(50):
        health.begin(0.0)
    for later in range(50):
        health.end(fault, 1 + later / 100, 1 + later / 100)
    assert health.limit == 90
    health.begin(2.0)
    health.end(fault, 1.0, 3.0)
    assert health.limit == 81


def test_other_faults_do_not() -> None:
    health = adaptive(100)
    for fault in set(Fault) - {Fault.OVERLOAD, Fault.RATE_LIMIT, Fault.TIMEOUT}:
        health.begin(0.0)
        health.end(fault, 1.0, 1.0)
    assert health.limit == 100


def test_a_fixed_limit_is_full_and_free_again() -> None:
    health = TargetHealth("p", "m", Breaker(), Concurrency(limit=2))
    assert health.calm
    health.begin(0.0)
    assert health.calm
    assert health.standing(0.0) is Standing.READY
    health.begin(0.0)
    assert not health.calm
    assert health.standing(0.0) is Standing.FULL
    assert health.until(0.0) == 0.0
    health.end(Fault.CANCELLED, 1.0, 1.0)
    assert health.standing(1.0) is Standing.READY
    assert health.calm
    assert health.limit == 2
