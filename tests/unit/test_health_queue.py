"""The queue for a place: in order, bounded, and nobody who leaves it takes a place along."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from headgate.errors import Overloaded
from headgate_server.config import Breaker, Concurrency
from headgate_server.faults import Fault
from headgate_server.health import Standing, TargetHealth


def target(limit: int = 1, queue: int = 32, *, adaptive: bool = False) -> TargetHealth:
    settings = Concurrency(limit=limit, queue=queue, adaptive=adaptive)
    return TargetHealth("p", "m", Breaker(), settings)


async def settle() -> None:
    """Lets everybody run who can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def call(health: TargetHealth, begun: list[int], name: int, seconds: float = 5.0) -> None:
    await health.wait_for_place(seconds)
    health.begin(0.0)
    begun.append(name)


async def test_a_free_place_is_taken_at_once() -> None:
    health = target(limit=2)
    await health.wait_for_place(0.0)
    without = TargetHealth("p", "m", Breaker(), Concurrency())
    for _ in range(100):
        without.begin(0.0)
    await without.wait_for_place(0.0)


async def test_first_come_first_served() -> None:
    health, begun = target(), []
    health.begin(0.0)
    tasks = [asyncio.create_task(call(health, begun, name)) for name in range(10)]
    await settle()
    assert health.queued == 10
    for name in range(10):
        health.end(Fault.NONE, 1.0, 1.0)
        assert health.standing(1.0) is Standing.FULL, "the place belongs to the one that waits"
        await settle()
        assert begun == list(range(name + 1))
        assert health.in_flight == 1
    await asyncio.gather(*tasks)
    health.end(Fault.NONE, 1.0, 1.0)
    assert (health.in_flight, health.queued, health.standing(1.0)) == (0, 0, Standing.READY)


async def test_a_newcomer_does_not_get_ahead_of_one_that_is_waking_up() -> None:
    health, begun = target(), []
    health.begin(0.0)
    first = asyncio.create_task(call(health, begun, 1))
    await settle()
    health.end(Fault.NONE, 1.0, 1.0)
    second = asyncio.create_task(call(health, begun, 2))
    await settle()
    assert begun == [1]
    health.end(Fault.NONE, 1.0, 1.0)
    await asyncio.gather(first, second)
    assert begun == [1, 2]


async def test_the_queue_is_bounded() -> None:
    health, begun = target(queue=3), []
    health.begin(0.0)
    tasks = [asyncio.create_task(call(health, begun, name)) for name in range(3)]
    await settle()
    with pytest.raises(Overloaded, match="3 calls wait") as caught:
        await health.wait_for_place(5.0)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0
    assert health.queued == 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert health.queued == 0


async def test_no_queue_at_all() -> None:
    health = target(queue=0)
    health.begin(0.0)
    with pytest.raises(Overloaded):
        await health.wait_for_place(5.0)


async def test_waiting_ends_in_time() -> None:
    health = target()
    for now in range(3):  # answers take 8 s
        health.begin(now)
        health.end(Fault.NONE, 8.0, now + 8.0)
    health.begin(10.0)
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(Overloaded) as caught:
        await health.wait_for_place(0.05)
    assert 0.04 < loop.time() - started < 2
    assert caught.value.retry_after == pytest.approx(8.0)
    assert health.queued == 0
    health.end(Fault.NONE, 1.0, 11.0)
    assert health.standing(11.0) is Standing.READY


async def test_a_limit_that_grows_lets_waiters_in() -> None:
    health, begun = target(limit=16, adaptive=True), []
    for _ in range(16):
        health.begin(0.0)
    tasks = [asyncio.create_task(call(health, begun, name)) for name in range(2)]
    await settle()
    for second in range(29):
        health.first(1.0, float(second))
    await settle()
    assert begun == []
    health.first(1.0, 29.0)  # ten latencies thrice: to begin with, to know what is usual, to grow
    await settle()
    assert health.limit == 18
    assert begun == [0, 1]
    assert health.in_flight == 18
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("moment", ["before", "at", "after"])
async def test_a_waiter_that_is_cancelled_leaves_its_place_to_the_next(moment: str) -> None:
    health, begun = target(), []
    health.begin(0.0)
    first, second = (asyncio.create_task(call(health, begun, name)) for name in (1, 2))
    await settle()
    if moment == "before":  # the place comes to one that is about to learn that it was cancelled
        first.cancel()
        health.end(Fault.NONE, 1.0, 1.0)
    elif moment == "at":  # it has a place, but has not woken up
        health.end(Fault.NONE, 1.0, 1.0)
        first.cancel()
    else:
        first.cancel()
        await settle()
        health.end(Fault.NONE, 1.0, 1.0)
    await asyncio.gather(first, second, return_exceptions=True)
    assert first.cancelled()
    assert begun == [2]
    health.end(Fault.NONE, 1.0, 1.0)
    assert (health.in_flight, health.queued, health.standing(1.0)) == (0, 0, Standing.READY)


@pytest.mark.parametrize("seed", range(15))
async def test_no_place_is_lost_whatever_happens(seed: int) -> None:
    """Callers that come, wait briefly, are cancelled at any moment, and end in every way."""
    draw = random.Random(seed)
    limit = draw.randint(1, 3)
    health = target(limit, queue=6)
    refused = 0

    async def caller() -> None:
        nonlocal refused
        try:
            await health.wait_for_place(draw.choice([0.0, 0.001, 0.003, 1.0]))
        except Overloaded:
            refused += 1
            return
        health.begin(0.0)
        assert health.in_flight <= limit
        fault = Fault.CANCELLED
        try:
            for _ in range(draw.randint(0, 6)):
                await asyncio.sleep(0)
            fault = draw.choice(list(Fault))
        finally:
            health.end(fault, 0.1, 0.1)

    tasks: list[asyncio.Task[None]] = []
    for _ in range(300):
        tasks.append(asyncio.create_task(caller()))
        if draw.random() < 0.3:
            draw.choice(tasks[-10:]).cancel()
        if draw.random() < 0.5:
            await asyncio.sleep(0)
        if draw.random() < 0.02:
            await asyncio.sleep(0.002)
        assert health.queued <= 6
    async with asyncio.timeout(20):
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
    assert refused
    assert (health.in_flight, health.queued) == (0, 0)
    for _ in range(limit):  # all places are there
        with contextlib.suppress(Overloaded):
            await health.wait_for_place(0.0)
            health.begin(0.0)
    assert health.in_flight == limit
    with pytest.raises(Overloaded):
        await health.wait_for_place(0.0)
