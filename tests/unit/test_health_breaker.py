"""The breaker against a model of it that remembers every attempt, and its rules one by one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from headgate_server import faults
from headgate_server.config import Breaker as Settings
from headgate_server.config import Concurrency
from headgate_server.faults import Fault
from headgate_server.health import Position, Standing, TargetHealth

SETTINGS = Settings(window=10, min_requests=4, failure_ratio=0.5, open_for=5, max_open=18, probes=2)
SAYS_NOTHING = [
    fault for fault in Fault if fault is not Fault.NONE and not faults.VERDICTS[fault].counts
]
FAILURES = [fault for fault in Fault if faults.VERDICTS[fault].counts]


def target(settings: Settings = SETTINGS) -> TargetHealth:
    return TargetHealth("p", "m", settings, Concurrency())


def attempt(health: TargetHealth, fault: Fault, now: float, seconds: float = 0.0) -> None:
    health.begin(now - seconds)
    health.end(fault, seconds, now)


def opened(now: float = 100.0) -> TargetHealth:
    """A target whose breaker opened at that time, for 5 s."""
    health = target()
    for _ in range(4):
        attempt(health, Fault.PROVIDER, now)
    assert health.breaker(now) == (Position.OPEN, 5.0)
    return health


def test_it_does_not_open_before_the_least_volume() -> None:
    health = target()
    for _ in range(3):
        attempt(health, Fault.OVERLOAD, 1.0)
    assert health.calm
    assert health.standing(1.0) is Standing.READY
    attempt(health, Fault.OVERLOAD, 1.0)
    assert not health.calm
    assert health.standing(1.0) is Standing.OPEN
    assert health.until(2.0) == 6.0


def test_it_does_not_open_below_the_ratio() -> None:
    health = target()
    for _ in range(100):
        attempt(health, Fault.NONE, 1.0)
        attempt(health, Fault.NONE, 1.0)
        attempt(health, Fault.PROVIDER, 1.0)
    assert health.calm
    assert health.error_rate(1.0) == pytest.approx(1 / 3)
    assert health.window_calls(1.0) == 300


def test_failures_out_of_the_window_are_forgotten() -> None:
    health = target()
    for second in range(0, 200, 5):  # at most two or three of them within ten seconds
        attempt(health, Fault.PROVIDER, float(second))
    assert health.calm


@pytest.mark.parametrize("fault", SAYS_NOTHING)
def test_what_is_not_the_targets_fault_never_counts(fault: Fault) -> None:
    health = target()
    for _ in range(50):
        attempt(health, fault, 1.0)
    assert health.calm
    assert health.window_calls(1.0) == 0
    assert health.in_flight == 0


@pytest.mark.parametrize("fault", FAILURES)
def test_what_is_the_targets_fault_counts(fault: Fault) -> None:
    health = target()
    for _ in range(4):
        attempt(health, fault, 1.0)
    assert health.standing(1.0) is Standing.OPEN


def test_it_can_be_turned_off() -> None:
    health = target(Settings(enabled=False, min_requests=1))
    for _ in range(50):
        attempt(health, Fault.PROVIDER, 1.0)
    assert health.calm
    assert health.error_rate(1.0) == 1.0


def test_half_open_admits_a_few_and_their_successes_close_it() -> None:
    health = opened(100.0)
    assert health.standing(104.9) is Standing.OPEN
    assert health.standing(105.0) is Standing.READY
    health.begin(105.0)
    assert health.standing(105.0) is Standing.READY
    health.begin(105.1)
    assert health.standing(105.2) is Standing.OPEN, "both places are taken"
    assert health.breaker(105.2) == (Position.HALF_OPEN, 0.0)
    assert health.until(105.2) == 105.2
    health.end(Fault.NONE, 0.9, 105.9)
    assert health.standing(106.0) is Standing.READY
    assert not health.calm
    health.end(Fault.NONE, 0.9, 106.0)
    assert health.breaker(106.0) == (Position.CLOSED, 0.0)
    assert health.standing(106.0) is Standing.READY
    assert health.calm
    assert health.window_calls(106.0) == 0, "a new beginning"


@pytest.mark.parametrize("fault", SAYS_NOTHING)
def test_a_probe_that_says_nothing_gives_its_place_back(fault: Fault) -> None:
    health = opened(100.0)
    for _ in range(20):
        health.begin(105.0)
        health.begin(105.0)
        assert health.standing(105.5) is Standing.OPEN
        health.end(fault, 1.0, 106.0)
        health.end(fault, 1.0, 106.0)
        assert health.standing(106.0) is Standing.READY
        assert health.breaker(106.0)[0] is Position.HALF_OPEN


def test_the_opening_doubles_up_to_the_longest_and_begins_anew_once_closed() -> None:
    health = opened(100.0)
    now = 100.0
    for seconds in (5.0, 10.0, 18.0, 18.0):
        assert health.breaker(now) == (Position.OPEN, seconds)
        now += seconds
        attempt(health, Fault.TRANSPORT, now)
    now += 18.0
    attempt(health, Fault.NONE, now)
    attempt(health, Fault.NONE, now)
    assert health.breaker(now)[0] is Position.CLOSED
    for _ in range(4):
        attempt(health, Fault.PROVIDER, now + 1)
    assert health.breaker(now + 1) == (Position.OPEN, 5.0)


def test_late_failures_neither_lengthen_nor_double() -> None:
    health = target()
    for _ in range(30):
        health.begin(99.0)
    for _ in range(4):
        attempt(health, Fault.PROVIDER, 100.0)
    for late in (101.0, 104.0, 105.5, 106.0):  # open, open, half open, half open
        for _ in range(5):
            health.end(Fault.PROVIDER, late - 99.0, late)
    assert health.breaker(106.0) == (Position.HALF_OPEN, 0.0)
    health.begin(106.0)
    health.begin(106.0)
    attempt(health, Fault.PROVIDER, 106.5, 0.25)
    assert health.breaker(106.5) == (Position.OPEN, 10.0)
    health.end(Fault.PROVIDER, 1.0, 107.0)  # the other probes fail, too
    health.end(Fault.PROVIDER, 1.0, 107.0)
    assert health.breaker(107.0) == (Position.OPEN, 9.5)
    for _ in range(2):
        attempt(health, Fault.NONE, 117.0)
    assert health.breaker(117.0)[0] is Position.CLOSED
    for _ in range(10):  # begun before it opened for the first time
        health.end(Fault.PROVIDER, 118.0 - 99.0, 118.0)
    assert health.window_calls(118.0) == 0
    assert health.in_flight == 0


def test_the_last_resort_closes_it_but_does_not_lengthen_it() -> None:
    health = opened(100.0)
    attempt(health, Fault.PROVIDER, 102.0, 1.0)
    assert health.breaker(102.0) == (Position.OPEN, 3.0)
    attempt(health, Fault.NONE, 103.0, 1.0)
    attempt(health, Fault.PROVIDER, 103.0, 1.0)
    attempt(health, Fault.NONE, 103.0, 1.0)
    assert health.breaker(103.0) == (Position.OPEN, 2.0), "not in a row"
    attempt(health, Fault.NONE, 104.0, 1.0)
    assert health.breaker(104.0)[0] is Position.CLOSED


def test_endless_probes_do_not_keep_it_half_open_for_good() -> None:
    health = opened(100.0)
    health.begin(105.0)
    health.begin(106.0)
    assert health.standing(123.9) is Standing.OPEN
    assert health.standing(124.0) is Standing.READY
    health.begin(124.0)
    assert health.standing(124.0) is Standing.READY, "all places are lent anew"
    health.begin(124.0)
    assert health.standing(124.0) is Standing.OPEN


def test_so_many_failures_in_a_row_open_it_whatever_was_before() -> None:
    health = target()
    for _ in range(1000):
        attempt(health, Fault.NONE, 1.0)
    for _ in range(3):
        attempt(health, Fault.PROVIDER, 2.0)
    attempt(health, Fault.NONE, 2.0)
    for _ in range(3):
        attempt(health, Fault.PROVIDER, 2.0)
    assert health.calm
    attempt(health, Fault.PROVIDER, 2.0)
    assert health.standing(2.0) is Standing.OPEN


@pytest.mark.parametrize(("seconds", "hung"), [(2.4, False), (2.6, True)])
def test_silence_far_beyond_the_usual_is_a_failure_though_a_deadline_ended_it(
    seconds: float, hung: bool
) -> None:
    health = target()
    health.begin(0.0)
    health.first(0.5, 0.5)
    health.end(Fault.NONE, 1.0, 1.0)
    for _ in range(4):
        health.begin(10.0)
        health.end(Fault.CANCELLED, seconds, 10.0 + seconds, silent=True, late=True)
    assert (health.standing(13.0) is Standing.OPEN) is hung


def test_who_leaves_without_a_deadline_says_nothing() -> None:
    health = target()
    health.begin(0.0)
    health.first(0.5, 0.5)
    health.end(Fault.NONE, 1.0, 1.0)
    for _ in range(20):
        health.begin(10.0)
        health.end(Fault.CANCELLED, 100.0, 110.0, silent=True)
    assert health.calm


def test_a_deadline_says_nothing_where_nothing_is_usual_yet() -> None:
    health = target()
    for _ in range(20):
        health.begin(0.0)
        health.end(Fault.CANCELLED, 100.0, 100.0, silent=True, late=True)
    assert health.calm


@dataclass
class Model:
    """A breaker that keeps all attempts and looks at the whole list each time."""

    outcomes: list[tuple[int, bool]] = field(default_factory=list)  # since it closed
    position: Position = Position.CLOSED
    since: int = -1
    until: int = 0
    length: int = 0
    passed: int = 0
    probes: set[int] = field(default_factory=set)

    def at(self, now: int) -> Position:
        if self.position is Position.OPEN and now >= self.until:
            self.position, self.since, self.probes = Position.HALF_OPEN, self.until, set()
        return self.position

    def begin(self, name: int, now: int) -> None:
        if self.at(now) is Position.HALF_OPEN:
            self.probes.add(name)

    def end(self, name: int, failed: bool | None, begun: int, now: int) -> None:
        position = self.at(now)
        late = begun < self.since
        self.probes.discard(name)
        if failed is None or late:
            return
        if position is Position.CLOSED:
            self.outcomes.append((now, failed))
            # Buckets of a second: the present one and the nine before it.
            recent = [bad for when, bad in self.outcomes if when // 10 > now // 10 - 10]
            goods = [place for place, (_, bad) in enumerate(self.outcomes, 1) if not bad]
            row = len(self.outcomes) - (goods[-1] if goods else 0)
            many = len(recent) >= 4 and sum(recent) * 2 >= len(recent)
            if failed and (many or min(row, sum(recent)) >= 4):
                self.open(now, 50)
        elif failed:
            self.passed = 0
            if position is Position.HALF_OPEN:
                self.open(now, self.length * 2)
        else:
            self.passed += 1
            if self.passed == 2:
                self.position, self.since, self.outcomes = Position.CLOSED, now, []

    def open(self, now: int, length: int) -> None:
        self.length = min(length, 180)
        self.position, self.since, self.until = Position.OPEN, now, now + self.length
        self.passed = 0

    def admits(self, now: int) -> bool:
        position = self.at(now)
        return position is Position.CLOSED or (
            position is Position.HALF_OPEN and len(self.probes) < 2
        )


@pytest.mark.parametrize("seed", range(60))
def test_it_does_what_the_model_does(seed: int) -> None:
    """Random attempts, in tenths of seconds, some of them as a last resort, in any order of endings."""
    draw = random.Random(seed)
    # Loans of places are tested apart.
    health, model = target(SETTINGS), Model()
    health._breaker._lent = 1e12
    under_way: dict[int, int] = {}
    now, sick = 10, draw.choice([0.2, 0.5, 0.9])
    positions = set()
    for name in range(400):
        now += draw.choice([0, 1, 1, 2, 5, 20])
        if draw.random() < 0.02:
            sick = draw.choice([0.0, 0.2, 0.5, 0.9])
        assert health.breaker(now / 10)[0] is model.at(now)
        assert (health.standing(now / 10) is not Standing.OPEN) is model.admits(now)
        positions.add(model.position)
        if model.admits(now) or draw.random() < 0.1:
            health.begin(now / 10)
            health._breaker._lent = 1e12
            model.begin(name, now)
            under_way[name] = now
        now += 1  # what begins at the very moment of a change is a matter of taste
        while under_way and draw.random() < 0.5:
            ending = draw.choice(list(under_way))
            begun = under_way.pop(ending)
            fault = draw.choice(FAILURES if draw.random() < sick else [Fault.NONE])
            fault = draw.choice(SAYS_NOTHING) if draw.random() < 0.2 else fault
            failed = None if fault in SAYS_NOTHING else fault is not Fault.NONE
            health.end(fault, (now - begun) / 10, now / 10)
            model.end(ending, failed, begun, now)
            assert health.in_flight == len(under_way)
    assert positions == set(Position), "the test has seen every position"
