"""The sliding window, and the budget that is made of it, against plain lists of what happened."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate_server.config import Retries
from headgate_server.health import RetryBudget
from headgate_server.health.window import Window

# Steps of time in hundredths: none, within a bucket, over several, and beyond the window (of 10 s).
STEPS = st.one_of(st.just(0), st.integers(1, 30), st.integers(50, 400), st.integers(900, 5000))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([0, 5, 1_000_037_00]),
    st.lists(st.tuples(STEPS, st.sampled_from(["good", "bad", "look"])), max_size=60),
)
def test_it_holds_what_is_younger_and_not_what_is_older(
    start: int, steps: list[tuple[int, str]]
) -> None:
    window = Window(10.0)
    seen: list[tuple[int, bool]] = []
    now = start
    for step, what in steps:
        now += step
        if what != "look":
            window.add(what == "good", now / 100)
            seen.append((now, what == "good"))
        counted = window.counts(now / 100)
        for kind, count in zip((True, False), counted, strict=True):
            ages = [now - when for when, good in seen if good is kind]
            assert sum(age < 899 for age in ages) <= count <= sum(age < 1001 for age in ages)


def test_a_clock_that_runs_backwards_stands_still() -> None:
    window = Window(10.0)
    window.add(True, 100.0)
    window.add(False, 50.0)
    assert window.counts(60.0) == (1, 1)
    assert window.counts(100.0) == (1, 1)


def test_nothing_is_left_when_it_is_cleared() -> None:
    window = Window(10.0)
    for tenth in range(100):
        window.add(tenth % 2 == 0, tenth / 10)
    window.clear()
    assert window.counts(9.95) == (0, 0)
    window.add(True, 9.96)
    assert window.counts(15.0) == (1, 0)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([0.0, 0.1, 0.29, 1.0]),
    st.sampled_from([0, 3]),
    st.lists(st.tuples(STEPS, st.booleans()), max_size=80),
)
def test_retries_stay_within_their_share(
    share: float, free: int, steps: list[tuple[int, bool]]
) -> None:
    budget = RetryBudget(Retries(budget=share, budget_min=free))
    sent: list[int] = []
    taken: list[int] = []
    now = 0
    for step, retry in steps:
        now += step
        if not retry:
            budget.sent(now / 100)
            sent.append(now)
            continue

        def lately(times: list[int], hundredths: int, now: int = now) -> int:
            return sum(now - when < hundredths for when in times)

        if budget.take(now / 100):
            taken.append(now)
            assert lately(taken, 899) <= free + share * lately(sent, 1001) + 1e-6
        else:
            assert lately(taken, 1001) + 1 > free + share * lately(sent, 899)


def test_a_tenth_of_the_requests_may_be_tried_again() -> None:
    budget = RetryBudget(Retries(budget=0.1, budget_min=0))
    for _ in range(30):
        budget.sent(5.0)
    assert [budget.take(5.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(20.0), "the requests are long ago"
