"""Races of attempts: one result, and nothing left that runs or is open, whatever happens when."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine

import pytest

from headgate.errors import GatewayError, InvalidRequest, UpstreamUnavailable
from headgate_server.config import Hedge
from headgate_server.hedging import Race, Watch

TICK = 0.001


class Track:
    """Attempts that take a while, and what became of them."""

    def __init__(self) -> None:
        self.running = 0
        self.begun = 0
        self.open: set[str] = set()

    async def attempt(self, name: str, ticks: int, *, fails: bool = False) -> str:
        self.begun += 1
        self.running += 1
        try:
            for _ in range(ticks):
                await asyncio.sleep(TICK)
        finally:
            self.running -= 1
        if fails:
            raise UpstreamUnavailable(name)
        self.open.add(name)
        return name

    async def discard(self, name: str) -> None:
        self.open.remove(name)


def final(error: GatewayError) -> bool:
    return isinstance(error, InvalidRequest)


def race(
    track: Track, *others: Callable[[], Coroutine[None, None, str]], after: int = 3
) -> Race[str]:
    left = list(others)

    def beside() -> Coroutine[None, None, str] | None:
        return left.pop(0)() if left else None

    settings = Hedge(after=after * TICK, max=max(len(others), 1))
    return Race(beside, track.discard, final, Watch(settings, asyncio.get_running_loop()))


async def test_a_quick_first_attempt_is_alone() -> None:
    track = Track()
    found = race(track, lambda: track.attempt("second", 1))
    assert await found.run(track.attempt("first", 1)) == "first"
    await asyncio.sleep(5 * TICK)
    assert (track.begun, track.running, track.open) == (1, 0, {"first"})


async def test_a_slow_one_loses() -> None:
    track = Track()
    found = race(track, lambda: track.attempt("second", 2))
    assert await found.run(track.attempt("first", 2000)) == "second"
    assert (track.running, track.open) == (0, {"second"})
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.005)  # no interruption is left behind


async def test_a_first_one_that_fails_late_waits_for_the_other() -> None:
    track = Track()
    found = race(track, lambda: track.attempt("second", 10))
    assert await found.run(track.attempt("first", 5, fails=True)) == "second"


async def test_when_all_fail_the_first_error_is_raised() -> None:
    track = Track()
    found = race(track, lambda: track.attempt("second", 2, fails=True))
    with pytest.raises(UpstreamUnavailable, match="first"):
        await found.run(track.attempt("first", 8, fails=True))
    assert (track.begun, track.running, track.open) == (2, 0, set())


async def test_a_defect_beside_ends_it_at_once() -> None:
    async def defect() -> str:
        raise ZeroDivisionError

    track = Track()
    with pytest.raises(ZeroDivisionError):
        await race(track, defect).run(track.attempt("first", 2000))
    assert track.running == 0


@pytest.mark.parametrize("at", range(0, 14))
async def test_whoever_leaves_leaves_nothing_behind(at: int) -> None:
    track = Track()
    found = race(track, lambda: track.attempt("second", 4), lambda: track.attempt("third", 1000))
    task = asyncio.ensure_future(found.run(track.attempt("first", 1000)))
    await asyncio.sleep(at * TICK)
    if not task.done():
        task.cancel()
    await asyncio.wait([task])
    assert track.running == 0
    assert track.open == (set() if task.cancelled() else {"second"})


@pytest.mark.parametrize("seed", range(100))
async def test_any_order_of_events(seed: int) -> None:
    """One winner that is open, all others closed; or an error, and none open."""
    dice = random.Random(seed)
    track = Track()

    def some(name: str) -> Coroutine[None, None, str]:
        return track.attempt(name, dice.randrange(6), fails=dice.random() < 0.3)

    found = race(track, lambda: some("second"), lambda: some("third"), after=dice.randrange(1, 3))
    task = asyncio.ensure_future(found.run(some("first")))
    if dice.random() < 0.3:
        await asyncio.sleep(dice.random() * 8 * TICK)
        task.cancel()
    await asyncio.wait([task])
    assert track.running == 0
    if task.cancelled() or task.exception() is not None:
        assert track.open == set()
    else:
        assert track.open == {task.result()}
    assert len(asyncio.all_tasks()) == 1


async def test_many_races_share_a_timer_and_each_is_hedged_in_time() -> None:
    track = Track()
    watch = Watch(Hedge(after=0.02), asyncio.get_running_loop())
    begun: dict[int, float] = {}

    async def one(number: int) -> str:
        await asyncio.sleep(number * 0.002)
        started = time.monotonic()

        def beside() -> Coroutine[None, None, str]:
            begun[number] = time.monotonic() - started
            return track.attempt(f"second {number}", 1)

        slow = number % 2 == 0
        attempt = track.attempt(f"first {number}", 2000 if slow else 2)
        return await Race(beside, track.discard, final, watch).run(attempt)

    found = await asyncio.gather(*map(one, range(20)))
    assert found == [f"{'first' if n % 2 else 'second'} {n}" for n in range(20)]
    assert sorted(begun) == list(range(0, 20, 2))
    assert all(0.018 < seconds < 2 for seconds in begun.values())
    assert not watch._due
    await asyncio.sleep(0.03)
    assert watch._timer is None


@pytest.mark.parametrize("whose", ["first", "second"])
async def test_a_last_word_is_not_waited_behind(whose: str) -> None:
    async def refused(after: int) -> str:
        await asyncio.sleep(after * TICK)
        raise InvalidRequest("no")

    track = Track()
    slow = track.attempt("slow", 5000)
    first, second = (refused(6), slow) if whose == "first" else (slow, refused(1))
    started = time.monotonic()
    with pytest.raises(InvalidRequest):
        await race(track, lambda: second).run(first)
    assert time.monotonic() - started < 2
    assert (track.running, track.open) == (0, set())
