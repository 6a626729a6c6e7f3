"""The caller's deadline caps everything: attempts, waits, queues, hedges, and other people's runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from contract.doors import until
from fakes.bodies import chunks
from fakes.steps import answer, chat, error, hang, hang_after_headers, rate_limited, slow, sse
from fakes.wire import Exchange, Step
from robustness.callers import Callers, Told, asking

both = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
# The ways in that have a deadline; REST has none.
ways = pytest.mark.parametrize("way", ["direct", "grpc"])

SLACK = 0.6


async def timed(call: Any) -> tuple[Told, float]:
    began = time.monotonic()
    told = await call
    return told, time.monotonic() - began


async def each_way(found: Callers, model: str, seconds: float, **options: Any) -> list[Any]:
    """The same call through each way in that has deadlines, unary and stream, at the same time."""
    return await asyncio.gather(
        *(
            timed(found.ask(way, model, "hi", stream=stream, seconds=seconds, **options))
            for way in ("direct", "grpc")
            for stream in (False, True)
        )
    )


@dataclass(frozen=True)
class Case:
    """Targets that hang somehow.

    Attributes:
        step: what all of them do, by whether it is a stream.
        attempts: how many of them are asked in the second that there is.
        more: of the model.
        extra: of the configuration.
    """

    step: Callable[[bool], Step]
    attempts: int = 1
    more: str = ""
    extra: str = ""


def stopped(stream: bool) -> Step:
    """The beginning of an answer, without any content of a stream."""
    if not stream:
        return answer(framing="chunked", ending="hang")
    return replace(sse(chunks()), stop_after=1, ending="hang")


HANGING: dict[str, Case] = {
    "before headers": Case(lambda s: hang()),
    "after headers": Case(lambda s: hang_after_headers(stream=s)),
    "in the body": Case(stopped),
    "limits shorter than the deadline": Case(
        lambda s: hang(), 3, extra="timeouts: {first_byte: 400ms}"
    ),
    "silence shorter than the deadline": Case(
        lambda s: hang_after_headers(stream=s), 3, extra="timeouts: {idle: 400ms}"
    ),
    "failures that take their time": Case(lambda s: slow(0.4, error(500)), 3),
    "beside each other": Case(lambda s: hang(), 3, more=", hedge: {after: 200ms, max: 2}"),
}


@pytest.mark.parametrize("name", HANGING)
async def test_three_hanging_targets(name: str) -> None:
    """A second is a second, not three."""
    case = HANGING[name]
    targets = ", ".join(f"{{provider: up, model: {each}}}" for each in "abc")
    models = f"  m: {{targets: [{targets}]{case.more}}}"
    async with asking(models, f"breaker: {{enabled: false}}\n{case.extra}") as (found, up):

        async def play(exchange: Exchange) -> None:
            await case.step(exchange.record.json.get("stream", False))(exchange)

        up.default(play)
        for told, took in await each_way(found, "m", 1.0):
            assert told.error == "DEADLINE_EXCEEDED", told
            assert 0.95 < took < 1.0 + SLACK
        asked = sorted(each.json["model"] for each in up.requests)
        assert asked == sorted("abc"[: case.attempts] * 4)
        for record in up.requests:
            assert record.finished or await record.wait_closed(3)
        await until(lambda: len(found.settled) == 4)
        for each in found.settled:
            assert (each.outcome, each.attempts) == ("DEADLINE_EXCEEDED", case.attempts)


async def test_in_the_queue_of_a_full_target() -> None:
    models = "  m: {targets: [{provider: up, concurrency: {limit: 1, queue_wait: 30s}}]}"
    async with asking(models) as (found, up):
        up.default(hang())
        first = asyncio.ensure_future(found.ask("direct", "m", "hi", stream=False))
        await up.wait_for_requests(1)
        for told, took in await each_way(found, "m", 0.5):
            assert told.error == "DEADLINE_EXCEEDED", told
            assert 0.45 < took < 0.5 + SLACK
        assert len(up.requests) == 1
        await until(lambda: len(found.settled) == 4)
        for each in found.settled:
            assert (each.outcome, each.attempts) == ("DEADLINE_EXCEEDED", 0)
        first.cancel()
        await asyncio.wait({first})


async def test_after_a_wait() -> None:
    """The wait is part of the deadline, and what comes after it gets the rest."""
    extra = "retries: {max: 1, base: 400ms}\nbreaker: {enabled: false}"
    async with asking("  m: {targets: [{provider: up}]}", extra) as (found, up):
        found.app.core.setup.executor._dice = lambda: 0.75
        up.script(*[error(500)] * 4)
        up.default(hang())
        for told, took in await each_way(found, "m", 0.6):
            assert told.error == "DEADLINE_EXCEEDED", told
            assert 0.55 < took < 0.6 + SLACK
        await until(lambda: len(found.settled) == 4)
        for each in found.settled:
            assert each.attempts == 2
            assert each.waited == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("asked_for", ["by the upstream", "by the dice"])
async def test_a_wait_beyond_the_deadline_is_not_begun(asked_for: str) -> None:
    extra = "retries: {max: 3, base: 2s, max_wait: 10s}\nbreaker: {enabled: false}"
    async with asking("  m: {targets: [{provider: up}]}", extra) as (found, up):
        found.app.core.setup.executor._dice = lambda: 0.9
        headers = {"retry-after": "2"} if asked_for == "by the upstream" else {}
        up.default(error(503, headers=headers))
        for told, took in await each_way(found, "m", 1.0):
            assert (told.error, told.attempts) == ("OVERLOADED", 1), told
            assert took < 0.7
        assert len(up.requests) == 4


@both
async def test_what_remains_is_not_worth_a_slow_target(stream: bool) -> None:
    """A target that usually takes a second is not asked with less than half of one left."""
    models = """
  m: {targets: [{provider: up, model: quick}, {provider: up, model: slow}]}
  slow: {targets: [{provider: up}]}
"""
    async with asking(models, "retries: {max: 0}") as (found, up):
        up.default(slow(1.0, chat()))
        assert (await found.ask("direct", "slow", "hi", stream=stream)).whole
        up.default(slow(0.05, error(500)))
        told, took = await timed(found.ask("direct", "m", "hi", stream=stream, seconds=0.5))
        assert told.error == "UPSTREAM_UNAVAILABLE", told
        assert took < 0.48
        assert [each.json["model"] for each in up.requests] == ["slow", "quick"]
        # With time enough, or with nothing tried before, it is.
        told = await found.ask("direct", "m", "hi", stream=stream, seconds=5)
        assert told.attempts == 2
        told = await found.ask("grpc", "slow", "hi", stream=stream, seconds=0.2)
        assert told.attempts == 1


@pytest.mark.parametrize("kept", ["cache", "idempotency"])
async def test_while_somebody_elses_run_is_shared(kept: str) -> None:
    """Its own deadline ends a call, not the run: whoever has more time gets the answer."""
    headers = {"idempotency-key": "k"} if kept == "idempotency" else {"x-headgate-cache": "on"}
    async with asking("  m: {targets: [{provider: up}]}") as (found, up):
        gate = asyncio.Event()
        up.default(slow(gate, chat()))
        patient = asyncio.ensure_future(
            found.ask("direct", "m", "hi", stream=False, headers=headers)
        )
        await up.wait_for_requests(1)
        for told, took in await each_way(found, "m", 0.4, headers=headers):
            assert told.error == "DEADLINE_EXCEEDED", told
            assert 0.35 < took < 0.4 + SLACK
        gate.set()
        assert (await patient).whole
        # Streams have no idempotency keys.
        assert len(up.requests) == (1 if kept == "cache" else 3)


@ways
async def test_the_leader_of_a_shared_run_is_late(way: str) -> None:
    """Who follows has more time, and begins anew."""
    async with asking("  m: {targets: [{provider: up}], cache: {}}") as (found, up):
        up.script(hang())
        first = asyncio.ensure_future(found.ask(way, "m", "hi", stream=False, seconds=0.3))
        await up.wait_for_requests(1)
        second = asyncio.ensure_future(found.ask("direct", "m", "hi", stream=False))
        assert (await first).error == "DEADLINE_EXCEEDED"
        assert (await second).whole
        assert len(up.requests) == 2
        assert await up.requests[0].wait_closed(3)


async def test_rate_limits_do_not_hold_the_caller() -> None:
    async with asking("  m: {targets: [{provider: up}, {provider: by}]}") as (found, up):
        up.default(rate_limited(30))
        told, took = await timed(found.ask("grpc", "m", "hi", stream=True, seconds=1.0))
        assert told.error == "RATE_LIMITED", told
        assert (told.attempts, len(up.requests)) == (2, 2)
        assert took < 0.7
