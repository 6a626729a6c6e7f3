"""A second attempt beside a slow one, over real sockets: who answers, who is cut off, what is told."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest

from contract.doors import until
from fakes.bodies import chunks
from fakes.steps import chat, error, hang, slow, sse
from fakes.upstream import FakeUpstream
from fakes.wire import Exchange, Step
from robustness.callers import Callers, Told, asking

both = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])

AFTER = 0.15
PAIR = f"""
  m:
    targets: [{{provider: up, model: a}}, {{provider: by, model: b}}]
    hedge: {{after: {AFTER}}}
"""
FREE = "retries: {max: 0, budget: 1.0, budget_min: 100}\nbreaker: {enabled: false}\n"


def plays(up: FakeUpstream, **steps: Step) -> None:
    """Lets the upstream do this for each of its models."""

    async def play(exchange: Exchange) -> None:
        await steps[exchange.record.json["model"]](exchange)

    up.default(play)


def asked(up: FakeUpstream) -> list[str]:
    return [each.json["model"] for each in up.requests]


async def test_the_quick_one_answers() -> None:
    async with asking(PAIR, FREE) as (found, up):
        plays(up, a=hang(), b=chat("quick"))
        began = time.monotonic()
        for told in await each_way(found):
            assert (told.text, told.whole) == ("quick", True)
            assert (told.provider, told.attempts) == ("by", 2)
            assert told.tried == (("up", "CANCELLED", False), ("by", "OK", True))
        assert AFTER <= time.monotonic() - began < AFTER + 3
        assert sorted(asked(up)) == ["a"] * 8 + ["b"] * 8
        for record in up.requests:
            if record.json["model"] == "a":
                await record.wait_closed(3)
            else:
                assert record.finished
        await until(lambda: len(found.settled) == 8)
        for each in found.settled:
            assert (each.outcome, each.attempts, each.provider) == ("OK", 2, "by")


async def test_it_is_told_in_the_header() -> None:
    async with asking(PAIR, FREE) as (found, up):
        plays(up, a=hang(), b=chat())
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        for url in found.urls.values():
            async with found.http.post(url, json=body) as response:
                tried = response.headers["x-headgate-tried"]
            first, second = tried.split(", ")
            assert first.startswith("up/a CANCELLED ") and second.startswith("by/b OK ")
            assert second.endswith("s hedge") and not first.endswith("hedge")


@both
async def test_a_quick_answer_needs_none(stream: bool) -> None:
    async with asking(PAIR, FREE) as (found, up):
        plays(up, a=chat())
        told = await found.ask("rest", "m", "hi", stream=stream)
        assert told.whole and told.attempts == 1
        await asyncio.sleep(AFTER + 0.05)
        assert asked(up) == ["a"]


async def test_a_stream_that_has_begun_needs_none() -> None:
    async with asking(PAIR, FREE) as (found, up):
        first, second, *rest = chunks(["Hel", "lo"])
        plays(up, a=sse([first, second, 2 * AFTER, *rest]))
        told = await found.ask("rest", "m", "hi", stream=True)
        assert told.whole and told.text == "Hello"
        assert asked(up) == ["a"]


# What the two do, in seconds; who answers, and what is told of the attempts.
ENDINGS: dict[str, tuple[Step, Step, str, list[str]]] = {
    "the first is quicker after all": (
        slow(AFTER + 0.1, chat("a")),
        hang(),
        "a",
        ["OK", "CANCELLED"],
    ),
    "the second fails": (slow(AFTER + 0.2, chat("a")), error(500), "a", ["OK", "PROVIDER"]),
    "the first fails meanwhile": (
        slow(AFTER + 0.1, error(500)),
        slow(0.2, chat("b")),
        "b",
        ["PROVIDER", "OK"],
    ),
    "the first fails before": (error(503), chat("b"), "b", ["OVERLOAD", "OK"]),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_how_a_race_may_end(name: str) -> None:
    a, b, who, faults = ENDINGS[name]
    async with asking(PAIR, FREE) as (found, up):
        plays(up, a=a, b=b)
        for told in await each_way(found):
            assert (told.text, told.whole, told.attempts) == (who, True, 2), told
            assert [fault for _, fault, _ in told.tried] == faults
            assert told.tried[1][2] is (name != "the first fails before")
        for record in up.requests:
            assert record.finished or await record.wait_closed(3)
        await until(lambda: len(found.settled) == 8)
        for each in found.settled:
            assert [tried.fault.name for tried in each.tried] == [
                "NONE" if fault == "OK" else fault for fault in faults
            ]


async def each_way(found: Callers) -> list[Told]:
    """The same call at every door, unary and stream, at the same time."""
    return await asyncio.gather(
        *(
            found.ask(way, "m", "hi", stream=stream)
            for way in Callers.ways
            for stream in (False, True)
        )
    )


async def test_both_fail() -> None:
    async with asking(PAIR, FREE) as (found, up):
        plays(up, a=slow(AFTER + 0.1, error(500)), b=slow(0.2, error(503)))
        for told in await each_way(found):
            assert told.error and told.attempts == 2
            assert sorted(fault for _, fault, _ in told.tried) == ["OVERLOAD", "PROVIDER"]


async def test_a_callers_mistake_is_the_callers() -> None:
    async with asking(PAIR, FREE) as (found, up):
        wrong = error(400, "a caller's mistake", type="invalid_request_error")
        plays(up, a=slow(AFTER + 0.1, wrong), b=slow(0.15, wrong))
        for told in await each_way(found):
            assert told.error in ("INVALID_REQUEST", "invalid_request_error")
            assert "mistake" in told.message


@both
async def test_it_comes_out_of_the_retry_budget(stream: bool) -> None:
    extra = "retries: {max: 0, budget: 0.0, budget_min: 1}\n"
    async with asking(PAIR, extra) as (found, up):
        plays(up, a=slow(AFTER + 0.15, chat("a")), b=chat("b"))
        assert (await found.ask("rest", "m", "hi", stream=stream)).text == "b"
        assert (await found.ask("rest", "m", "hi", stream=stream)).text == "a"
        assert asked(up) == ["a", "b", "a"]


async def test_a_target_that_is_alone_is_asked_again() -> None:
    models = "  m: {targets: [{provider: up}], hedge: {after: 100ms, max: 2}}"
    async with asking(models, FREE) as (found, up):
        up.script(hang(), hang(), chat("third"))
        told = await found.ask("rest", "m", "hi", stream=True)
        assert (told.text, told.attempts) == ("third", 3)
        assert [hedge for _, _, hedge in told.tried] == [False, True, True]
        for record in up.requests[:2]:
            assert await record.wait_closed(3)


async def test_it_stays_within_the_places_of_a_target() -> None:
    """What bounds the calls of a target bounds those beside others, too."""
    place = "concurrency: {limit: 1, queue_wait: 5s}"
    models = f"""
  m:
    targets: [{{provider: up, model: a}}, {{provider: by, model: b, {place}}}]
    hedge: {{after: 50ms}}
  alone: {{targets: [{{provider: by, model: b}}]}}
"""
    async with asking(models, FREE) as (found, up):
        plays(up, a=slow(0.5, chat("a")), b=slow(0.5, chat("b")))
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                under_way = [
                    each for each in up.requests if not each.finished and not each.closed_at
                ]
                most = max(most, sum(each.json["model"] == "b" for each in under_way))
                await asyncio.sleep(0.005)

        watching = asyncio.ensure_future(watch())
        first = asyncio.ensure_future(found.ask("direct", "alone", "hi", stream=False))
        await up.wait_for_requests(1)
        calls: list[Any] = [found.ask("rest", "m", "hi", stream=n % 2 == 0) for n in range(6)]
        told = await asyncio.gather(first, *calls)
        watching.cancel()
        assert all(each.whole for each in told)
        assert most == 1


async def test_a_target_without_a_place_is_still_there_for_later() -> None:
    place = "concurrency: {limit: 1, queue_wait: 5s}"
    models = f"""
  m:
    targets: [{{provider: up, model: a}}, {{provider: by, model: b, {place}}}]
    hedge: {{after: 50ms}}
  alone: {{targets: [{{provider: by, model: b}}]}}
"""
    async with asking(models, FREE) as (found, up):
        plays(up, a=slow(0.3, error(500)), b=slow(0.2, chat("b")))
        first = asyncio.ensure_future(found.ask("direct", "alone", "hi", stream=False))
        await up.wait_for_requests(1)
        told = await found.ask("rest", "m", "hi", stream=True)
        assert told.whole and told.text == "b"
        assert told.tried == (("up", "PROVIDER", False), ("by", "OK", False))
        assert (await first).whole


async def test_a_queue_and_a_race() -> None:
    """Calls that waited for a place take it, and no other, before they race."""
    models = """
  m:
    targets: [{provider: up, model: a, concurrency: {limit: 1, queue_wait: 5s}}]
    hedge: {after: 10s}
"""
    async with asking(models, FREE) as (found, up):
        plays(up, a=slow(0.03, chat("a")))
        told = await asyncio.gather(
            *(found.ask(Callers.ways[n % 4], "m", "hi", stream=n % 2 == 0) for n in range(12))
        )
        assert all(each.whole and each.attempts == 1 for each in told)
        starts = sorted(each.received_at for each in up.requests)
        assert len(starts) == 12
        assert all(later - earlier >= 0.025 for earlier, later in pairwise(starts))
