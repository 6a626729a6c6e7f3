"""The averages of latencies, and what a target costs by them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.config import Breaker, Concurrency
from headgate_server.faults import Fault
from headgate_server.health import TargetHealth
from headgate_server.health.average import PeakEwma


def target() -> TargetHealth:
    return TargetHealth("p", "m", Breaker(), Concurrency())


def answered(health: TargetHealth, first: float, total: float, now: float) -> TargetHealth:
    """One attempt that ended at that time."""
    health.begin(now - total)
    health.first(first, now - total + first)
    health.end(Fault.NONE, total, now)
    return health


def test_a_peak_is_believed_at_once_and_forgotten_slowly() -> None:
    average = PeakEwma()
    average.add(1.0, 0.0)
    average.add(9.0, 1.0)
    assert average.value == 9.0
    average.add(1.0, 11.0)
    assert average.value == pytest.approx(1 + 8 * math.exp(-1))
    average.add(1.0, 11.0)
    assert average.value == pytest.approx(1 + 8 * math.exp(-1)), "no time has passed"


@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0.001, 100)), min_size=1, max_size=30))
def test_it_lies_between_the_last_sample_and_the_worst(steps: list[tuple[float, float]]) -> None:
    average = PeakEwma()
    now = 0.0
    for step, sample in steps:
        now += step
        average.add(sample, now)
        assert average.value is not None
        assert sample * 0.999999 <= average.value <= max(each for _, each in steps) * 1.000001
        assert average.faded(now + 5, -math.inf) == pytest.approx(average.value * math.exp(-0.5))
        assert average.faded(now + 5, now + 5) == average.value


def test_a_new_target_is_free_for_one_call_and_then_the_dearest() -> None:
    new, slow = target(), answered(target(), 20.0, 60.0, 99.0)
    assert new.cost(100.0) == 0.0
    new.begin(100.0)
    assert new.cost(100.0) > slow.cost(100.0)
    other = target()
    other.begin(100.0)
    other.begin(100.0)
    assert other.cost(100.0) > new.cost(100.0), "of two new ones the less busy"
    new.first(0.5, 100.5)
    assert new.cost(100.5) < slow.cost(100.5)
    new.end(Fault.CANCELLED, 0.6, 100.6)


def test_the_cost_is_the_mean_latency_times_the_calls() -> None:
    health = answered(target(), 1.0, 3.0, 100.0)
    assert health.cost(100.0) == pytest.approx(2.0, rel=0.2)  # the first content is 2 s ago
    health.begin(100.0)
    assert health.cost(100.0) == pytest.approx(4.0)
    health.begin(100.0)
    assert health.cost(100.0) == pytest.approx(6.0)


def test_a_slow_target_is_tried_again_by_one_call_not_by_all() -> None:
    slow, quick = answered(target(), 10.0, 10.0, 100.0), target()
    for now in range(100, 160):
        answered(quick, 0.5, 0.5, float(now))
    assert slow.cost(101.0) > quick.cost(101.0)
    assert slow.cost(159.0) < quick.cost(159.0), "faded"
    slow.begin(159.0)
    assert slow.cost(159.0) > 20 * quick.cost(159.0), (
        "what it was counts until the call has shown more"
    )
    slow.first(0.4, 159.4)
    slow.end(Fault.NONE, 0.4, 159.4)
    assert slow.cost(159.4) == pytest.approx(0.4, rel=0.3)


def test_failing_fast_is_not_quick() -> None:
    good, bad = target(), target()
    for each in range(20):
        now = 100 + each / 10
        answered(good, 1.0, 1.0, now)
        answered(bad, 0.5, 0.5, now)
        bad.begin(now)
        bad.end(Fault.OVERLOAD, 0.01, now + 0.01)
    assert bad.cost(102.0) > good.cost(102.0)
    only_bad = target()
    only_bad.begin(100.0)
    only_bad.end(Fault.PROVIDER, 0.01, 100.01)
    assert only_bad.cost(100.1) > bad.cost(100.1)
    assert only_bad.cost(200.0) == 0.0, "long ago"


def test_one_failure_is_not_the_whole_truth() -> None:
    health = answered(target(), 1.0, 1.0, 100.0)
    before = health.cost(100.0)
    health.begin(100.0)
    health.end(Fault.PROVIDER, 0.0, 100.0)
    assert before < health.cost(100.0) < 3 * before


@pytest.mark.parametrize(
    ("fault", "seconds", "silent", "first", "total"),
    [
        (Fault.CANCELLED, 1.0, True, 1.0, 4.0),  # not yet longer than usual for a whole answer
        (Fault.CANCELLED, 0.3, True, 0.5, 4.0),
        (Fault.CANCELLED, 9.0, False, 0.5, 9.0),
        (Fault.CANCELLED, 9.0, True, 9.0, 9.0),
        (Fault.TIMEOUT, 9.0, True, 9.0, 9.0),
        (Fault.TIMEOUT, 2.0, False, 0.5, 4.0),
        (Fault.PROVIDER, 9.0, False, 0.5, 4.0),
        (Fault.CALLER, 9.0, True, 0.5, 4.0),
    ],
)
def test_what_was_given_up_took_at_least_so_long(
    fault: Fault, seconds: float, silent: bool, first: float, total: float
) -> None:
    health = answered(target(), 0.5, 4.0, 100.0)
    health.begin(100.0)
    health.end(fault, seconds, 100.0 + seconds, silent=silent)
    assert health.first_token(110.0) == first
    assert health.total(110.0) == total


def test_a_timeout_alone_is_known_to_be_slow_a_cancelled_call_is_not() -> None:
    hanging, left = target(), target()
    hanging.begin(0.0)
    hanging.end(Fault.TIMEOUT, 30.0, 30.0, silent=True)
    assert (hanging.first_token(30.0), hanging.total(30.0)) == (30.0, 30.0)
    left.begin(0.0)
    left.end(Fault.CANCELLED, 0.01, 0.01, silent=True)
    assert (left.first_token(1.0), left.total(1.0)) == (None, None)
    assert left.cost(1.0) == 0.0


def test_averages_are_told_until_they_are_stale() -> None:
    health = target()
    assert health.first_token(0.0) is None
    answered(health, 0.5, 4.0, 100.0)
    assert (health.first_token(200.0), health.total(200.0)) == (0.5, 4.0)
    assert (health.first_token(500.0), health.total(500.0)) == (None, None)
