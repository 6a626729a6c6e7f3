"""Callers that leave while their call waits: for a retry, a place, a hedge, a copy, somebody else's run.

After that nothing runs: no task, no request at an upstream, no place that is still taken.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from contract.doors import until
from fakes.bodies import chunks
from fakes.steps import chat, error, hang, hang_after_headers, slow, sse
from fakes.upstream import FakeUpstream
from fakes.wire import Exchange, Record
from robustness.callers import Callers, asking, idle

ways = pytest.mark.parametrize("way", Callers.ways)

WITHIN = 0.5
NO_BREAKER = "breaker: {enabled: false}\noutliers: {enabled: false}\n"
# Every way in, unary and stream.
CALLS = [(way, stream) for way in Callers.ways for stream in (False, True)]
MANY = len(CALLS)


@asynccontextmanager
async def called(
    found: Callers, calls: Sequence[tuple[str, bool]] = CALLS, **options: Any
) -> AsyncIterator[None]:
    """Calls under way, which are left at the end of the block."""
    options = {"model": "m", "text": "hi"} | options
    tasks = [
        asyncio.ensure_future(found.ask(way, stream=stream, **options)) for way, stream in calls
    ]
    try:
        yield
        assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


def under_way(up: FakeUpstream) -> list[Record]:
    """Requests whose answer has not ended, and whose connection the gateway has not closed."""
    return [each for each in up.requests if not each.finished and each.closed_at is None]


async def nothing_runs(found: Callers, up: FakeUpstream, settled: int = MANY) -> None:
    """Waits until nothing is under way; and after that nothing begins."""
    await until(lambda: not under_way(up), WITHIN)
    await idle(found)
    await until(lambda: len(found.settled) == settled, WITHIN)
    assert {each.outcome for each in found.settled} == {"CANCELLED"}
    asked = len(up.requests)
    await asyncio.sleep(0.05)
    assert len(up.requests) == asked


async def test_during_a_wait() -> None:
    models = "  m: {targets: [{provider: up}], retries: {max: 3}}"
    async with asking(models, NO_BREAKER + "retries: {base: 400ms}") as (found, up):
        found.app.core.setup.executor._dice = lambda: 1.0
        up.default(error(500))
        async with called(found):
            await up.wait_for_requests(MANY)
        await asyncio.sleep(0.4)
        await nothing_runs(found, up)
        assert len(up.requests) == MANY


async def test_in_a_queue() -> None:
    models = "  m: {targets: [{provider: up, concurrency: {limit: 1, queue: 9, queue_wait: 20s}}]}"
    async with asking(models) as (found, up):
        gate = asyncio.Event()
        up.default(slow(gate, chat()))
        first = asyncio.ensure_future(found.ask("direct", "m", "first", stream=False))
        await up.wait_for_requests(1)
        (health,) = found.app.core.setup.board.all()
        async with called(found):
            await until(lambda: health.queued == MANY)
            last = asyncio.ensure_future(found.ask("direct", "m", "last", stream=True))
            await until(lambda: health.queued == MANY + 1)
        await until(lambda: health.queued == 1, WITHIN)
        gate.set()
        assert (await first).whole and (await last).whole
        await idle(found)
        texts = [each.json["messages"][0]["content"] for each in up.requests]
        assert texts == ["first", "last"]


HEDGED = (
    "  m: {targets: [{provider: up, model: a}, {provider: up, model: b}], hedge: {after: 50ms}}"
)


@pytest.mark.parametrize("broken", [False, True], ids=["both slow", "the first fails"])
async def test_beside_each_other(broken: bool) -> None:
    async with asking(HEDGED, NO_BREAKER + "retries: {max: 0}") as (found, up):

        async def play(exchange: Exchange) -> None:
            asked = exchange.record.json
            if broken and asked["model"] == "a":
                await slow(0.3, error(500))(exchange)
            else:
                await hang_after_headers(stream=asked.get("stream", False))(exchange)

        up.default(play)
        async with called(found):
            await up.wait_for_requests(2 * MANY)
            if broken:
                await until(lambda: len(under_way(up)) == MANY)
        await nothing_runs(found, up)
        assert len(up.requests) == 2 * MANY
        assert {each.attempts for each in found.settled} == {2}


async def test_after_a_hedge_has_won() -> None:
    """The streams that won are left in the middle."""
    async with asking(HEDGED) as (found, up):

        async def play(exchange: Exchange) -> None:
            if exchange.record.json["model"] == "a":
                await hang()(exchange)
            else:
                await sse(chunks(["Hel", "lo"]), stop_after=3, ending="hang")(exchange)

        up.default(play)
        async with called(found, [(way, True) for way in Callers.ways]):
            await up.wait_for_requests(8)
            lost = [each for each in up.requests if each.json["model"] == "a"]
            await until(lambda: all(each.closed_at for each in lost), WITHIN)
            assert len(under_way(up)) == 4
        await nothing_runs(found, up, 4)


SHADOWED = """
  m: {targets: [{provider: up}]}
  s: {targets: [{provider: by}]}
routes: [{shadow: s}]
"""


@pytest.mark.parametrize("moment", ["before the first content", "in the middle"])
async def test_with_copies_under_way(moment: str) -> None:
    async with asking(SHADOWED) as (found, up):

        async def play(exchange: Exchange) -> None:
            if moment == "in the middle" and exchange.record.json.get("stream"):
                await sse(chunks(["Hel", "lo"]), stop_after=3, ending="hang")(exchange)
            await hang()(exchange)

        up.default(play)
        async with called(found):
            await up.wait_for_requests(2 * MANY)
            models = sorted(each.json["model"] for each in up.requests)
            assert models == ["m"] * MANY + ["s"] * MANY
        await nothing_runs(found, up)


@ways
async def test_a_copy_outlives_an_answer_and_not_the_gateway(way: str) -> None:
    async with asking(SHADOWED) as (found, up):

        async def play(exchange: Exchange) -> None:
            await (hang() if exchange.record.json["model"] == "s" else chat())(exchange)

        up.default(play)
        assert (await found.ask(way, "m", "hi", stream=True)).whole
        await up.wait_for_requests(2)
        await asyncio.sleep(0.05)
        (copy,) = under_way(up)
        assert copy.json["model"] == "s"
        await found.app.__aexit__(None, None, None)
        assert await copy.wait_closed(WITHIN)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_shared_run_ends_with_its_last_caller(stream: bool) -> None:
    async with asking("  m: {targets: [{provider: up}], cache: {}}") as (found, up):
        up.default(hang_after_headers(stream=stream))
        async with called(found, [("direct", stream)]):  # it decides what the run is
            await up.wait_for_requests(1)
            async with called(found):
                await until(lambda: found.app.core.setup.running == 1 + MANY)
            await until(lambda: len(found.settled) == MANY, WITHIN)
            assert under_way(up) == up.requests
        await nothing_runs(found, up, 1 + MANY)
        assert len(up.requests) == 1
        # Only one of them pays for the call that was made.
        assert sorted(each.attempts for each in found.settled) == [0] * MANY + [1]


@ways
async def test_a_shared_run_goes_on_without_who_began_it(way: str) -> None:
    headers = {"idempotency-key": "k"}
    async with asking("  m: {targets: [{provider: up}]}") as (found, up):
        gate = asyncio.Event()
        up.default(slow(gate, chat()))
        async with called(found, [(way, False)], headers=headers):
            await up.wait_for_requests(1)
            second = asyncio.ensure_future(found.ask(way, "m", "hi", stream=False, headers=headers))
            await until(lambda: found.app.core.setup.running == 2)
        gate.set()
        assert (await second).whole
        assert len(up.requests) == 1


@dataclass
class Storm:
    """What the upstream of a storm does with a request, by the dice."""

    dice: random.Random

    async def __call__(self, exchange: Exchange) -> None:
        stream = exchange.record.json.get("stream", False)
        step = self.dice.choice(
            [
                chat(),
                chat("Hello " * 20, delay=0.002),
                slow(0.02, chat()),
                slow(0.03, error(500)),
                error(503),
                hang(),
                hang_after_headers(stream=stream),
                sse(chunks(["Hel", "lo"]), stop_after=3, ending="hang") if stream else hang(),
            ]
        )
        await step(exchange)


STORM = """
  plain: {targets: [{provider: up, model: a}, {provider: by, model: b}]}
  hedged:
    targets: [{provider: up, model: c}, {provider: by, model: d}, {provider: up, model: e}]
    hedge: {after: 15ms, max: 2}
  full:
    strategy: least_busy
    hedge: {after: 20ms}
    targets:
      - {provider: up, model: f, concurrency: {limit: 2, queue: 8, queue_wait: 50ms}}
      - {provider: by, model: g, concurrency: {adaptive: true, limit: 2, queue: 8, queue_wait: 50ms}}
  kept: {targets: [{provider: up, model: h}], fallbacks: [hedged], cache: {ttl: 10ms}}
  copied: {targets: [{provider: up, model: i}], fallbacks: [full]}
"""


async def test_a_storm_of_callers_who_leave() -> None:
    """At any moment, of calls of any kind, and some stay."""
    extra = f"""
routes: [{{when: {{model: copied}}, shadow: hedged}}]
retries: {{max: 2, base: 20ms, budget: 1.0, budget_min: 1000}}
timeouts: {{first_byte: 150ms, idle: 150ms}}
shadows: {{max_in_flight: 8, timeout: 200ms}}
{NO_BREAKER}
"""
    dice = random.Random(7)
    async with asking(STORM, extra) as (found, up):
        up.default(Storm(dice))
        models = ["plain", "hedged", "full", "kept", "copied"]

        async def one(number: int) -> bool:
            await asyncio.sleep(0.0025 * number)
            way = Callers.ways[number % 4]
            model = models[number % 5]
            stream = dice.random() < 0.5
            seconds = dice.choice([0.05, 0.2, None])
            headers = {"idempotency-key": f"k{number // 3}"} if model == "plain" else {}
            try:
                async with asyncio.timeout(dice.random() * 0.2 if dice.random() < 0.7 else None):
                    text = f"hi {number // 7}" if model == "kept" else "hi"
                    await found.ask(
                        way, model, text, stream=stream, seconds=seconds, headers=headers
                    )
            except TimeoutError:
                return True
            return False

        left = await asyncio.gather(*(one(number) for number in range(900)))
        assert 90 < sum(left) < 850
        await idle(found)
        assert len(found.settled) > 400  # who left at once never called
        await until(lambda: not under_way(up), 3)
        assert {each.outcome for each in found.settled} >= {"OK", "CANCELLED"}
        assert "INTERNAL" not in {each.outcome for each in found.settled}
