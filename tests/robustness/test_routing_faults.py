"""Targets that keep failing, that ask to be left alone, or that fall silent: over real sockets."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from contract.doors import until
from fakes.bodies import chunks
from fakes.steps import (
    answer,
    chat,
    disconnect,
    error,
    hang,
    html,
    rate_limited,
    reset,
    slow,
    sse,
)
from fakes.upstream import FakeUpstream
from fakes.wire import Exchange, Step
from headgate_server.health import TargetHealth
from headgate_server.health.breaker import Position
from robustness.callers import Callers, Told, asking

both = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])

PAIR = """
  m: {targets: [{provider: up, model: bad}, {provider: up, model: good}]}
  alone: {targets: [{provider: up, model: bad}]}
"""
BREAKER = """
breaker: {min_requests: 4, window: 10s, open_for: 300ms, max_open: 2s, probes: 2}
outliers: {enabled: false}
retries: {max: 0}
"""


def plays(up: FakeUpstream, **steps: Step) -> None:
    """Lets the upstream do this for each of its models; others are well."""

    async def play(exchange: Exchange) -> None:
        await steps.get(exchange.record.json["model"], chat())(exchange)

    up.default(play)


def asked(up: FakeUpstream, model: str = "bad") -> int:
    """How often one of its models was asked."""
    return sum(each.json["model"] == model for each in up.requests)


def health(found: Callers, model: str = "bad") -> TargetHealth:
    (one,) = [each for each in found.app.core.setup.board.all() if each.model == model]
    return one


async def ask(found: Callers, model: str = "m", count: int = 1, **options: Any) -> list[Told]:
    """One after the other, through one door after the other."""
    options = {"stream": False} | options
    return [
        await found.ask(Callers.ways[number % 4], model, "hi", **options) for number in range(count)
    ]


async def each_way(found: Callers, streams: Sequence[bool] = (False, True)) -> list[Told]:
    """The same call at every door at the same time."""
    return await asyncio.gather(
        *(found.ask(way, "m", "hi", stream=stream) for way in Callers.ways for stream in streams)
    )


# -- breakers -------------------------------------------------------------------------------------------


@both
async def test_a_breaker_opens_and_closes(stream: bool) -> None:
    async with asking(PAIR, BREAKER) as (found, up):
        plays(up, bad=error(500))
        assert all(each.attempts == 2 for each in await ask(found, count=4, stream=stream))
        bad = health(found)
        assert bad.breaker(time.monotonic())[0] is Position.OPEN
        # It is left alone.
        assert all(each.attempts == 1 for each in await ask(found, count=8, stream=stream))
        assert asked(up) == 4
        # Half open it fails again, and is left alone for twice as long.
        await until(lambda: bad.breaker(time.monotonic())[0] is Position.HALF_OPEN)
        assert [each.attempts for each in await ask(found, count=2, stream=stream)] == [2, 1]
        position, left = bad.breaker(time.monotonic())
        assert position is Position.OPEN and 0.3 < left <= 0.6
        # Half open it does well, and serves again.
        plays(up)
        await until(lambda: bad.breaker(time.monotonic())[0] is Position.HALF_OPEN)
        told = await ask(found, count=2, stream=stream)
        assert [(each.whole, each.attempts) for each in told] == [(True, 1)] * 2
        assert bad.breaker(time.monotonic())[0] is Position.CLOSED
        assert asked(up) == 7


async def test_a_few_probes_at_a_time() -> None:
    async with asking(PAIR, BREAKER) as (found, up):
        plays(up, bad=error(500))
        await ask(found, count=4)
        await until(lambda: health(found).breaker(time.monotonic())[0] is Position.HALF_OPEN)
        gate = asyncio.Event()
        plays(up, bad=slow(gate, chat()))
        calls = [
            asyncio.ensure_future(found.ask("rest", "m", "hi", stream=False)) for _ in range(20)
        ]
        await until(lambda: sum(each.done() for each in calls) == 18)
        assert asked(up) == 4 + 2
        gate.set()
        assert all(each.whole for each in await asyncio.gather(*calls))
        assert health(found).breaker(time.monotonic())[0] is Position.CLOSED


LATE = sse(chunks(["Hel", "lo"]), stop_after=3, ending="fin")
# What the upstream does, whether it speaks against it, and whether only a stream shows it.
COUNTS: dict[str, tuple[Callable[[], Step], bool]] = {
    "500": (lambda: error(500), True),
    "503": (lambda: error(503), True),
    "529": (lambda: error(529), True),
    "reset": (reset, True),
    "closed": (disconnect, True),
    "silent": (hang, True),
    "HTML": (lambda: html(200), True),
    "nonsense": (lambda: answer(b"{nope"), True),
    "a stream that breaks off": (lambda: LATE, True),
    "a caller's mistake": (lambda: error(400, "no", type="invalid_request_error"), False),
    "no such model": (lambda: error(404, "no", code="model_not_found"), False),
    "a prompt too long": (lambda: error(400, "no", code="context_length_exceeded"), False),
    "filtered": (lambda: error(400, "no", code="content_filter"), False),
    "429": (lambda: error(429, "no"), False),
    "401": (lambda: error(401, "no"), False),
    "402": (lambda: error(402, "no"), False),
}


@pytest.mark.parametrize("how", COUNTS)
async def test_what_speaks_against_a_target(how: str) -> None:
    """Also when it comes by the dozen."""
    step, counts = COUNTS[how]
    extra = BREAKER + "timeouts: {first_byte: 100ms}"
    async with asking(PAIR, extra, allowed=["rejected the gateway's credentials"]) as (found, up):
        plays(up, bad=step())
        stream = how == "a stream that breaks off"
        await asyncio.gather(
            *(
                found.ask(Callers.ways[number % 4], "alone", "hi", stream=stream)
                for number in range(12)
            )
        )
        bad = health(found)
        position = bad.breaker(time.monotonic())[0]
        assert position is (Position.OPEN if counts else Position.CLOSED)
        if not counts:
            assert bad.window_calls(time.monotonic()) == 0
            plays(up)
            assert (await found.ask("rest", "alone", "hi", stream=True)).whole


async def test_who_leaves_says_nothing_about_a_target() -> None:
    async with asking(PAIR, BREAKER) as (found, up):
        plays(up, bad=hang())
        calls = [
            asyncio.ensure_future(found.ask("rest", "m", "hi", stream=True)) for _ in range(12)
        ]
        await up.wait_for_requests(12)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await until(lambda: not health(found).in_flight)
        assert health(found).breaker(time.monotonic())[0] is Position.CLOSED
        assert health(found).window_calls(time.monotonic()) == 0


@both
async def test_the_last_resort(stream: bool) -> None:
    """When every target is out, one attempt is made all the same."""
    extra = BREAKER.replace("300ms", "30s").replace("max_open: 2s", "max_open: 60s")
    async with asking(PAIR, extra) as (found, up):
        plays(up, bad=error(500), good=error(503))
        await ask(found, count=4)
        for one in ("bad", "good"):
            assert health(found, one).breaker(time.monotonic())[0] is Position.OPEN
        before = len(up.requests)
        for told in await ask(found, count=4, stream=stream):
            assert told.error and told.attempts == 1
        assert len(up.requests) == before + 4
        plays(up)
        assert all(each.whole for each in await ask(found, count=3, stream=stream))
        # Successes close it even now.
        # Of three, two were at the same one.
        positions = [health(found, one).breaker(time.monotonic())[0] for one in ("bad", "good")]
        assert Position.CLOSED in positions


async def test_an_outlier_is_ejected() -> None:
    """Three in ten fail: too few for the breaker, too many beside a target that is well."""
    models = PAIR.replace("{targets", "{strategy: weighted, targets")
    extra = """
breaker: {min_requests: 1000}
outliers: {interval: 100ms, min_requests: 20, eject_for: 30s}
"""
    async with asking(models, extra) as (found, up):
        count = 0

        async def play(exchange: Exchange) -> None:
            nonlocal count
            if exchange.record.json["model"] == "bad":
                count += 1
                if count % 10 < 3:
                    await error(500)(exchange)
                    return
            await chat()(exchange)

        up.default(play)
        deadline = time.monotonic() + 10
        while not health_of(found, "bad") and time.monotonic() < deadline:
            told = await asyncio.gather(
                *(found.ask("direct", "m", "hi", stream=False) for _ in "1234")
            )
            assert all(each.whole for each in told)
        assert health(found).ejected_for(time.monotonic()) > 20
        assert not health(found, "good").ejected_for(time.monotonic())
        before = asked(up)
        assert all(each.attempts == 1 for each in await ask(found, count=8))
        assert asked(up) == before


def health_of(found: Callers, model: str) -> float:
    known = [each for each in found.app.core.setup.board.all() if each.model == model]
    return known[0].ejected_for(time.monotonic()) if known else 0.0


# -- being asked to wait --------------------------------------------------------------------------------


def http_date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


PAUSES: dict[str, tuple[Callable[[], Step], float, float]] = {
    # What the upstream says, and between how many seconds it is left alone.
    "seconds": (lambda: rate_limited(20), 19, 20),
    "milliseconds": (lambda: rate_limited(headers={"retry-after-ms": "20000"}), 19, 20),
    "a date": (lambda: rate_limited(http_date(20)), 18, 20.5),
    "overloaded": (lambda: error(503, headers={"retry-after": "20"}), 19, 20),
    "overloaded, with 529": (lambda: error(529, headers={"retry-after": "20"}), 19, 20),
    "a week": (lambda: rate_limited(7 * 86400), 599, 600),
    "in words": (
        lambda: error(429, "Rate limit reached. Please try again in 20s.", code="rate_limit_exceeded"),
        19,
        20,
    ),
    "a date that has passed": (lambda: error(503, headers={"retry-after": http_date(-100)}), 0, 0),
    "nonsense": (lambda: error(503, headers={"retry-after": "soon"}), 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("how", PAUSES)
async def test_a_target_is_left_alone_as_long_as_it_asks(how: str) -> None:
    step, least, most = PAUSES[how]
    async with asking(PAIR, BREAKER) as (found, up):
        plays(up, bad=step())
        told = (await ask(found))[0]
        assert told.whole and told.attempts == 2
        assert least <= health(found).cooling_for(time.monotonic()) <= most
        told = (await ask(found))[0]
        assert told.whole and told.attempts == (1 if most else 2)
        # With nobody else there, it is asked all the same.
        assert (await ask(found, "alone"))[0].attempts == 1


@both
async def test_a_retry_waits_as_long_as_it_is_asked_to(stream: bool) -> None:
    extra = "retries: {max: 2, base: 1ms, max_wait: 3s}"
    async with asking("  m: {targets: [{provider: up}]}", extra) as (found, up):
        for way in Callers.ways[::3]:
            up.script(error(503, headers={"retry-after-ms": "400"}))
            told = await found.ask(way, "m", "hi", stream=stream)
            assert told.whole and told.attempts == 2
            first, second = up.requests[-2:]
            assert 0.4 <= second.received_at - first.received_at < 3


async def test_a_pause_that_is_too_long_is_the_callers() -> None:
    async with asking("  m: {targets: [{provider: up}]}", "retries: {max: 3}") as (found, up):
        up.default(error(503, headers={"retry-after": "17"}))
        began = time.monotonic()
        assert all(each.error and each.attempts == 1 for each in await each_way(found))
        assert len(up.requests) == 8
        assert time.monotonic() - began < 10
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        async with found.http.post(found.urls["rest apart"], json=body) as response:
            assert (response.status, response.headers["retry-after"]) == (503, "17")


@both
async def test_retries_do_not_storm(stream: bool) -> None:
    """During an outage an upstream sees a tenth more than the requests, and a few."""
    extra = """
retries: {max: 3, base: 1ms, budget: 0.1, budget_min: 2}
breaker: {enabled: false}
"""
    async with asking("  m: {targets: [{provider: up}]}", extra) as (found, up):
        up.default(error(500))
        told = await asyncio.gather(
            *(found.ask(Callers.ways[n % 4], "m", "hi", stream=stream) for n in range(100))
        )
        assert all(each.error for each in told)
        assert 105 <= len(up.requests) <= 112
        assert sum(each.attempts for each in told) == len(up.requests)


@both
async def test_attempts_are_bounded(stream: bool) -> None:
    models = """
  m:
    targets: [{provider: up, model: a}, {provider: up, model: b}]
    fallbacks: [n, o]
    retries: {max: 3, attempts: 5}
  n: {targets: [{provider: up, model: c}]}
  o: {targets: [{provider: up, model: d}]}
"""
    extra = "retries: {base: 1ms}\nbreaker: {enabled: false}"
    async with asking(models, extra) as (found, up):
        up.default(error(500))
        told = await found.ask("rest", "m", "hi", stream=stream)
        assert told.attempts == 5
        models_asked = [each.json["model"] for each in up.requests]
        assert models_asked[:2] == ["a", "b"]  # each of them once, before any of them again
        assert Counter(models_asked[2:4]) == {"a": 1, "b": 1}


# -- silence -------------------------------------------------------------------------------------------


def pinged(pieces: Sequence[Any]) -> Step:
    """These pieces, and then nothing but comments."""
    return sse(
        [*pieces, *[piece for _ in range(400) for piece in (0.02, b": ping\n\n")]], done=False
    )


async def test_a_stalled_stream_ends_and_says_why() -> None:
    """Comments are no content, however many come."""
    async with asking(PAIR, BREAKER + "timeouts: {idle: 300ms}") as (found, up):
        plays(up, bad=pinged(chunks(["Hel", "lo"])[:3]))
        began = time.monotonic()
        for told in await each_way(found, streams=[True]):
            assert told.text == "Hello" and not told.whole
            assert "timeouts.idle = 0.3 s" in told.message
            assert told.error in ("UPSTREAM_TIMEOUT", "upstream_timeout", "timeout")
        assert 0.3 <= time.monotonic() - began < 3
        assert asked(up, "good") == 0
        for record in up.requests:
            assert await record.wait_closed(3)


@pytest.mark.parametrize("begun", [0, 1], ids=["nothing", "a role"])
async def test_a_stream_without_content_fails_over(begun: int) -> None:
    async with asking(PAIR, BREAKER + "timeouts: {first_token: 300ms}") as (found, up):
        plays(up, bad=pinged(chunks(["Hel"])[:begun]))
        for told in await each_way(found, streams=[True]):
            assert told.whole and told.attempts == 2
            assert told.tried[0][1] == "TIMEOUT"
        for record in up.requests:
            if record.json["model"] == "bad":
                assert await record.wait_closed(3)
