"""The exact cache: what is kept for how long, who may have it, and what the caller is told."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest

from fakes.runs import Source, ask, call_of, config, record_of, reply
from headgate.errors import InvalidRequest, UpstreamUnavailable
from headgate.fold import fold
from headgate.v1 import chat_pb2, routing_pb2
from headgate_server.answers import Answers
from headgate_server.call import Call
from headgate_server.settlement import Settlement

HIT, MISS = routing_pb2.CACHE_STATUS_HIT, routing_pb2.CACHE_STATUS_MISS
MODELS = """
providers: {p: {kind: openai, api_key: k}}
models:
  cached: {targets: [{provider: p}], cache: {}}
  brief: {targets: [{provider: p}], cache: {ttl: 10}}
  plain: {targets: [{provider: p}]}
"""
ROUTES = config(MODELS)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """Answers, a source behind them, and what has come of the last call."""

    def __init__(self, text: str = "", source: Source | None = None) -> None:
        self.clock = Clock()
        self.answers = Answers(config(MODELS + text), self.clock)
        self.source = source or Source()
        self.record = Settlement("", "", streamed=False)

    async def complete(self, call: Call) -> chat_pb2.ChatResponse:
        self.record = record_of(call)
        return await self.answers.complete(call, self.record, self.source.complete)

    async def events(self, call: Call) -> list[chat_pb2.ChatEvent]:
        self.record = record_of(call, streamed=True)
        batches = self.answers.stream(call, self.record, self.source.stream)
        async with aclosing(batches):
            return [event async for batch in batches for event in batch]


def on(request: chat_pb2.ChatRequest | None = None, **facts: Any) -> Call:
    return call_of(request, **{"cache": "on"} | facts)


async def test_the_second_call_is_a_hit() -> None:
    bench = Bench()
    first = await bench.complete(on())
    assert (first.served.cache, bench.record.cache) == (MISS, MISS)
    assert (bench.record.attempts, len(bench.record.tried)) == (1, 1)
    assert bench.record.usage == reply().usage

    second = await bench.complete(on())
    assert bench.source.begun == 1
    assert (second.served.cache, bench.record.cache) == (HIT, HIT)
    assert (second.served.attempts, list(second.served.tried)) == (0, [])
    assert (bench.record.attempts, bench.record.tried, bench.record.usage) == (0, [], None)
    assert (bench.record.provider, bench.record.target_model) == ("p", "up")
    assert bench.record.route == "m"
    for answer in (first, second):
        answer.ClearField("served")
    assert first == second
    assert second.usage == reply().usage


async def test_callers_may_change_what_they_get() -> None:
    bench = Bench()
    for _ in range(3):
        answer = await bench.complete(on())
        assert answer.choices[0].message.parts[0].text == "Hello"
        answer.choices[0].message.parts[0].text = "changed"


@pytest.mark.parametrize("first", ["complete", "events"])
@pytest.mark.parametrize("second", ["complete", "events"])
async def test_streams_and_whole_answers_share_what_is_kept(first: str, second: str) -> None:
    bench = Bench()
    await getattr(bench, first)(on())
    assert bench.record.cache == MISS
    found = await getattr(bench, second)(on())
    answer = found if isinstance(found, chat_pb2.ChatResponse) else fold(found)
    assert bench.source.begun == 1
    assert (answer.served.cache, bench.record.cache) == (HIT, HIT)
    expected = reply()
    for each in (answer, expected):
        each.ClearField("served")
    assert answer == expected


@pytest.mark.parametrize(
    ("route", "wish", "wanted", "kept"),
    [
        ("plain", None, False, False),
        ("plain", "on", True, True),
        ("plain", "refresh", True, True),
        ("plain", "off", False, False),
        ("cached", None, True, True),
        ("cached", "on", True, True),
        ("cached", "off", False, False),
        ("elsewhere", None, False, False),
        ("elsewhere", "on", True, True),
    ],
)
async def test_who_uses_it(route: str, wish: str | None, wanted: bool, kept: bool) -> None:
    bench = Bench()
    for streamed in (False, True):
        assert (
            bench.answers.wanted(call_of(route=route, routes=ROUTES, cache=wish), streamed=streamed)
            is wanted
        )
    await bench.complete(call_of(route=route, routes=ROUTES, cache=wish))
    assert bench.record.cache == (MISS if kept else 0)
    await bench.events(on(route=route, routes=ROUTES))
    assert bench.record.cache == (HIT if kept else MISS)


async def test_callers_cannot_turn_it_on_where_the_operator_says_no() -> None:
    bench = Bench("cache: {on_request: false}")
    for wish in ("on", "refresh"):
        for _ in range(2):
            await bench.complete(call_of(route="plain", routes=ROUTES, cache=wish))
            await bench.events(call_of(route="plain", routes=ROUTES, cache=wish))
            assert bench.record.cache == 0
    assert bench.source.begun == 8
    await bench.complete(call_of(route="cached", routes=ROUTES, cache="on"))
    await bench.complete(call_of(route="cached", routes=ROUTES, cache="on"))
    assert (bench.source.begun, bench.record.cache) == (9, HIT)


@pytest.mark.parametrize("wish", ["", "ON", "yes", "no-store", "x" * 1000])
async def test_a_wish_that_is_none(wish: str) -> None:
    bench = Bench()
    call = call_of(cache=wish)
    assert bench.answers.wanted(call, streamed=True)
    for run in (bench.complete, bench.events):
        with pytest.raises(InvalidRequest, match="x-headgate-cache: must be on, off or refresh"):
            await run(call)
    assert bench.source.begun == 0


async def test_refresh_runs_anew_and_stores() -> None:
    bench = Bench()
    await bench.complete(on())
    bench.source.answer = reply("newer")
    await bench.complete(on(cache="refresh"))
    assert (bench.source.begun, bench.record.cache) == (2, MISS)
    assert (await bench.complete(on())).choices[0].message.parts[0].text == "newer"
    assert bench.source.begun == 2


@pytest.mark.parametrize(("route", "ttl"), [("cached", 300.0), ("brief", 10.0)])
async def test_time_to_live(route: str, ttl: float) -> None:
    bench = Bench()
    call = call_of(route=route, routes=ROUTES)
    await bench.complete(call)
    bench.clock.now += ttl - 0.01
    await bench.complete(call)
    assert bench.record.cache == HIT
    bench.clock.now += 0.01  # being read does not prolong its life
    await bench.complete(call)
    assert bench.record.cache == MISS


@pytest.mark.parametrize("reason", chat_pb2.FinishReason.values())
async def test_only_whole_answers_are_kept(reason: int) -> None:
    whole = reason in (
        chat_pb2.FINISH_REASON_STOP,
        chat_pb2.FINISH_REASON_TOOL_CALLS,
        chat_pb2.FINISH_REASON_REFUSAL,
    )
    answer = reply()
    answer.choices.add(index=1, finish_reason=reason)  # type: ignore[arg-type]
    answer.choices[1].message.role = answer.choices[0].message.role
    for run in ("complete", "events"):
        bench = Bench(source=Source(answer))
        await getattr(bench, run)(on())
        await getattr(bench, run)(on())
        assert bench.source.begun == (1 if whole else 2)


async def test_an_answer_without_choices_is_not_kept() -> None:
    bench = Bench(source=Source(chat_pb2.ChatResponse(id="1")))
    await bench.complete(on())
    await bench.complete(on())
    assert bench.source.begun == 2


async def test_failures_are_not_kept() -> None:
    for run in ("complete", "events"):
        bench = Bench()
        bench.source.error = UpstreamUnavailable("down")
        with pytest.raises(UpstreamUnavailable, match="down"):
            await getattr(bench, run)(on())
        assert (bench.record.cache, bench.record.attempts) == (MISS, 1)
        bench.source.error = None
        await getattr(bench, run)(on())
        assert (bench.source.begun, bench.record.cache) == (2, MISS)


async def test_a_stream_that_its_source_does_not_complete_is_not_kept() -> None:
    bench = Bench()
    whole = bench.source.stream

    async def cut(record: Settlement) -> Any:
        async with aclosing(whole(record)) as batches:
            async for batch in batches:
                if not batch[-1].HasField("completed"):
                    yield batch

    bench.source.stream = cut  # type: ignore[method-assign]
    events = await bench.events(on())
    assert len(events) == 5
    await bench.events(on())
    assert (bench.source.begun, bench.record.cache) == (2, MISS)


async def test_a_reader_who_leaves_after_the_end_does_not_lose_the_entry() -> None:
    bench = Bench()
    batches = bench.answers.stream(on(), record_of(on()), bench.source.stream)
    async for batch in batches:
        if batch[-1].HasField("completed"):
            break
    await batches.aclose()
    assert bench.source.running == 0
    await bench.complete(on())
    assert (bench.source.begun, bench.record.cache) == (1, HIT)


async def test_large_answers_are_not_kept() -> None:
    for size, begun in ((900, 1), (1100, 2)):
        bench = Bench("cache: {max_entry_bytes: 1024}", Source(reply("x" * size)))
        await bench.complete(on())
        await bench.complete(on())
        assert bench.source.begun == begun


async def test_memory_is_bounded_and_the_least_recently_used_goes_first() -> None:
    bench = Bench("cache: {max_bytes: 5000, max_entry_bytes: 2000}", Source(reply("x" * 1000)))
    for text in ("a", "b", "c"):
        await bench.complete(on(ask(text)))
    await bench.complete(on(ask("a")))
    assert bench.record.cache == HIT
    await bench.complete(on(ask("d")))
    found = {}
    for text in ("a", "d", "c"):
        await bench.complete(on(ask(text)))
        found[text] = bench.record.cache
    assert found == {"a": HIT, "d": HIT, "c": HIT}
    await bench.complete(on(ask("b")))
    assert bench.record.cache == MISS


async def test_tenants_routes_and_requests_are_told_apart() -> None:
    bench = Bench()
    await bench.complete(on(tenant="a"))
    for other in (on(tenant="b"), on(tenant="a", route="n"), on(ask("Ho"), tenant="a")):
        await bench.complete(other)
        assert bench.record.cache == MISS
    await bench.complete(on(tenant="a"))
    assert bench.record.cache == HIT


async def test_another_configuration_begins_with_an_empty_cache() -> None:
    bench = Bench()
    await bench.complete(on())
    newer = Bench()
    newer.answers.adopt(bench.answers)
    await newer.complete(on())
    assert newer.record.cache == MISS
