"""Identical calls at the same time: one run, whoever comes, goes, or runs out of time."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from fakes.runs import Source, ask, call_of, config, nothing_left, record_of, reply, ticks
from headgate.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    RateLimited,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.fold import fold
from headgate.v1 import chat_pb2, routing_pb2
from headgate_server.answers import Answers
from headgate_server.settlement import Settlement

MISS, SHARED = routing_pb2.CACHE_STATUS_MISS, routing_pb2.CACHE_STATUS_SHARED
HIT = routing_pb2.CACHE_STATUS_HIT
RUNS = ("complete", "stream")


class Caller:
    """One caller of the answers. `told` are the events that it has had."""

    def __init__(self, answers: Answers, source: Source, how: str, **facts: Any) -> None:
        self.call = call_of(**{"cache": "on"} | facts)
        self.record = record_of(self.call, streamed=how == "stream")
        self.told: list[chat_pb2.ChatEvent] = []
        run: Callable[..., Coroutine[Any, Any, chat_pb2.ChatResponse]]
        run = self._complete if how == "complete" else self._stream
        self.task = asyncio.create_task(run(answers, source))

    async def _complete(self, answers: Answers, source: Source) -> chat_pb2.ChatResponse:
        return await answers.complete(self.call, self.record, source.complete)

    async def _stream(self, answers: Answers, source: Source) -> chat_pb2.ChatResponse:
        async with aclosing(answers.stream(self.call, self.record, source.stream)) as batches:
            async for batch in batches:
                self.told += batch
        return fold(self.told)

    async def answer(self) -> chat_pb2.ChatResponse:
        async with asyncio.timeout(5):
            return await self.task

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        assert self.task.cancelled() or self.task.exception() is None


def same(answer: chat_pb2.ChatResponse) -> bool:
    bare, expected = chat_pb2.ChatResponse(), reply()
    bare.CopyFrom(answer)
    for each in (bare, expected):
        each.ClearField("served")
    return bare == expected


def billed(callers: list[Caller]) -> list[int]:
    """Who pays: the places of those whose record has attempts, each with its usage."""
    found = [place for place, caller in enumerate(callers) if caller.record.attempts]
    for place, caller in enumerate(callers):
        assert (caller.record.usage is not None) == (place in found)
        assert len(caller.record.tried) == caller.record.attempts
    return found


@pytest.mark.parametrize("hows", [("complete",), ("stream",), RUNS, ("stream", "complete")])
async def test_a_hundred_at_once_make_one_run(hows: tuple[str, ...]) -> None:
    async with nothing_left():
        answers, source = Answers(config()), Source(held=True)
        ways = itertools.cycle(hows)
        callers = [Caller(answers, source, next(ways)) for _ in range(100)]
        await ticks(3)
        source.gate.set()
        found = [await caller.answer() for caller in callers]
        assert (source.begun, source.running) == (1, 0)
        assert all(same(answer) for answer in found)
        assert [answer.served.cache for answer in found] == [MISS] + [SHARED] * 99
        assert [caller.record.cache for caller in callers] == [MISS] + [SHARED] * 99
        assert billed(callers) == [0]
        assert {caller.record.target_model for caller in callers} == {"up"}
        late = Caller(answers, source, "complete")
        assert (await late.answer()).served.cache == HIT


async def test_each_gets_an_answer_of_its_own() -> None:
    answers, source = Answers(config()), Source(held=True)
    callers = [Caller(answers, source, "complete") for _ in range(3)]
    await ticks(2)
    source.gate.set()
    for caller in callers:
        answer = await caller.answer()
        assert same(answer)
        answer.choices[0].message.parts[0].text = "changed"


async def test_a_follower_gets_events_as_they_come() -> None:
    answers, source = Answers(config()), Source(held=True)
    first = Caller(answers, source, "stream")
    await ticks(4)
    second = Caller(answers, source, "stream")
    await ticks(4)
    assert len(first.told) == len(second.told) == 2  # and the run is held
    assert second.told[0].started.served.cache == SHARED
    assert first.told[0].started.served.cache == MISS
    source.gate.set()
    assert same(await second.answer())
    assert same(await first.answer())


async def test_a_slow_reader_slows_nobody() -> None:
    answers, source = Answers(config()), Source()
    call = call_of(cache="on")
    slow = answers.stream(call, record_of(call), source.stream)
    first = await anext(slow)
    quick = Caller(answers, source, "stream")
    assert same(await quick.answer())
    assert source.running == 0
    rest = [event async for batch in slow for event in batch]
    assert same(fold([*first, *rest]))


@pytest.mark.parametrize("how", RUNS)
async def test_refresh_follows_nobody_but_is_followed(how: str) -> None:
    async with nothing_left():
        answers = Answers(config())
        old, new = Source(reply("old"), held=True), Source(held=True)
        first = Caller(answers, old, how)
        await ticks(2)
        second = Caller(answers, new, how, cache="refresh")
        await ticks(2)
        third = Caller(answers, Source(), how)
        await ticks(2)
        new.gate.set()
        assert same(await second.answer())
        assert same(await third.answer())
        assert (second.record.cache, third.record.cache) == (MISS, SHARED)
        old.gate.set()
        assert not same(await first.answer())
        kept = Caller(answers, Source(), how)
        assert same(await kept.answer())  # not the older one, although it was later
        assert kept.record.cache == HIT


# Leaving.


@pytest.mark.parametrize("first", RUNS)
@pytest.mark.parametrize("second", RUNS)
async def test_the_run_goes_on_without_the_one_who_began_it(first: str, second: str) -> None:
    async with nothing_left():
        answers, source = Answers(config()), Source(held=True)
        callers = [Caller(answers, source, how) for how in (first, second, second)]
        await ticks(4)
        await callers[0].leave()
        assert source.running == 1
        source.gate.set()
        for caller in callers[1:]:
            assert same(await caller.answer())
        assert source.begun == 1
        assert billed(callers) == [1]  # the next one pays, and says so
        assert [caller.record.cache for caller in callers[1:]] == [MISS, SHARED]


@pytest.mark.parametrize("how", RUNS)
async def test_the_last_one_ends_the_run_at_once(how: str) -> None:
    async with nothing_left():
        answers, source = Answers(config()), Source(held=True)
        callers = [Caller(answers, source, how) for _ in range(3)]
        await ticks(4)
        for caller in callers:
            assert source.running == 1
            await caller.leave()
        assert source.running == 0
        assert [caller.record.attempts for caller in callers] == [0, 0, 1]
        source.gate.set()
        again = Caller(answers, source, how)
        assert same(await again.answer())
        assert again.record.cache == MISS


@pytest.mark.parametrize("hows", [*itertools.product(RUNS, repeat=2), ("complete",), ("stream",)])
async def test_leaving_at_every_moment(hows: tuple[str, ...]) -> None:
    """One or two callers, each cancelled after every number of turns of the loop."""
    whole = 0
    async with nothing_left():
        tasks = asyncio.all_tasks()
        for moments in itertools.product(range(14), repeat=len(hows)):
            answers, source = Answers(config()), Source()
            callers = [Caller(answers, source, how) for how in hows]
            for moment in range(14):
                for caller, end in zip(callers, moments, strict=True):
                    if end == moment:
                        caller.task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([caller.task for caller in callers])
            assert asyncio.all_tasks() == tasks
            assert source.running == 0
            assert source.begun <= 2
            for caller in callers:
                if not caller.task.cancelled():
                    assert same(caller.task.result())
                    whole += 1
            assert sum(caller.record.attempts for caller in callers) == source.begun
    assert whole


async def test_who_had_the_whole_answer_first_pays_even_if_they_leave() -> None:
    """Although the upstream's connection takes its time to end."""
    async with nothing_left():
        answers, source = Answers(config()), Source()
        whole = source.stream

        async def lingering(record: Settlement) -> Any:
            async for batch in whole(record):
                yield batch
            await ticks(10)

        source.stream = lingering  # type: ignore[method-assign]
        call = call_of(cache="on")
        record = record_of(call)
        events = answers.stream(call, record, source.stream)
        await anext(events)
        second = Caller(answers, source, "complete")
        async for batch in events:
            if batch[-1].HasField("completed"):
                break
        await events.aclose()
        assert not second.task.done()
        assert same(await second.answer())
        assert (record.attempts, record.usage) == (1, reply().usage)
        assert (second.record.attempts, second.record.cache) == (0, SHARED)


async def test_nobody_is_remembered_until_their_deadline() -> None:
    answers, source = Answers(config()), Source(held=True)
    callers = [Caller(answers, source, how, seconds=3600) for how in RUNS * 3]
    await ticks(3)
    source.gate.set()
    for caller in callers:
        await caller.answer()
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found).__name__ in ("_Seat", "_Run")]


@pytest.mark.parametrize("batches", range(5))
async def test_a_stream_that_is_closed_by_its_reader(batches: int) -> None:
    async with nothing_left():
        answers, source = Answers(config()), Source()
        call = call_of(cache="on")
        record = record_of(call)
        events = answers.stream(call, record, source.stream)
        for _ in range(batches):
            await anext(events)
        await events.aclose()
        assert source.running == 0
        assert record.attempts == source.begun == min(batches, 1)


# Deadlines.


@pytest.mark.parametrize("first", RUNS)
@pytest.mark.parametrize("second", RUNS)
async def test_everybody_has_a_deadline_of_their_own(first: str, second: str) -> None:
    async with nothing_left():
        answers, source = Answers(config()), Source(held=True)
        patient = Caller(answers, source, first, seconds=30)
        await ticks(2)
        hasty = Caller(answers, source, second, seconds=0.02)
        with pytest.raises(DeadlineExceeded, match="waited for an identical call"):
            await hasty.answer()
        assert source.running == 1
        source.gate.set()
        assert same(await patient.answer())
        assert billed([patient, hasty]) == [0]


@pytest.mark.parametrize("second", RUNS)
async def test_the_deadline_of_the_one_who_began_is_not_that_of_others(second: str) -> None:
    async with nothing_left():
        answers, source, other = Answers(config()), Source(held=True), Source(held=True)
        source.deadline = asyncio.get_running_loop().time() + 0.02
        hasty = Caller(answers, source, "complete", seconds=0.02)
        await ticks(2)
        others = [Caller(answers, other, second, seconds=30) for _ in range(10)]
        with pytest.raises(DeadlineExceeded, match="passed"):
            await hasty.answer()
        await ticks(4)
        assert (source.begun, other.begun, other.running) == (1, 1, 1)
        other.gate.set()
        for caller in others:
            assert same(await caller.answer())
        assert billed(others) == [0]
        assert (others[0].record.cache, others[1].record.cache) == (MISS, SHARED)
        assert (hasty.record.attempts, hasty.record.cache) == (1, MISS)


async def test_a_stream_that_has_begun_ends_with_an_error_of_its_own() -> None:
    async with nothing_left():
        answers, source = Answers(config()), Source(held=True)
        source.deadline = asyncio.get_running_loop().time() + 0.02
        hasty = Caller(answers, source, "stream", seconds=0.02)
        await ticks(2)
        patient = Caller(answers, source, "stream", seconds=30)
        with pytest.raises(DeadlineExceeded):
            await hasty.answer()
        with pytest.raises(UpstreamUnavailable, match="has met its deadline"):
            await patient.answer()
        assert source.begun == 1  # what is out cannot be taken back


async def test_a_slow_provider_is_everybodys_failure() -> None:
    answers, source = Answers(config()), Source(held=True)
    callers = [Caller(answers, source, "complete", seconds=30) for _ in range(3)]
    await ticks(2)
    source.error = UpstreamTimeout("no answer in time")
    source.gate.set()
    for caller in callers:
        with pytest.raises(UpstreamTimeout):
            await caller.answer()
    assert source.begun == 1


# Errors.


@pytest.mark.parametrize("how", RUNS)
async def test_errors_are_shared_each_as_a_copy(how: str) -> None:
    async with nothing_left():
        answers, source = Answers(config()), Source(held=True)
        callers = [Caller(answers, source, way) for way in (how, "complete", "stream")]
        await ticks(4)
        error = RateLimited("too many", retry_after=3.5, metadata={"provider": "p"})
        source.error = error
        source.gate.set()
        found: list[GatewayError] = []
        for caller in callers:
            with pytest.raises(RateLimited, match="too many") as caught:
                await caller.answer()
            caught.value.request_id = caller.call.context.request_id
            caught.value.with_metadata(model=caller.call.context.request_id)
            found.append(caught.value)
        assert len({id(each) for each in [error, *found]}) == 4
        assert len({each.request_id for each in found}) == 3
        assert len({each.metadata["model"] for each in found}) == 3
        assert {each.retry_after for each in found} == {3.5}
        assert "model" not in error.metadata
        assert source.begun == 1
        assert [caller.record.attempts for caller in callers] == [1, 0, 0]
        del caught, found, error
        source.error = None
        assert same(await Caller(answers, source, how).answer())
        assert source.begun == 2


async def test_what_errors_say_comes_with_them() -> None:
    answers, source = Answers(config()), Source()
    source.error = InvalidRequest.of("tools[0]", "is wrong")
    with pytest.raises(InvalidRequest) as caught:
        await Caller(answers, source, "complete").answer()
    assert [each.field for each in caught.value.violations] == ["tools[0]"]


async def test_a_defect_stays_one() -> None:
    async with nothing_left():
        answers, source = Answers(config()), Source(held=True)
        callers = [Caller(answers, source, how) for how in RUNS]
        await ticks(3)
        source.error = KeyError("oops")
        source.gate.set()
        for caller in callers:
            with pytest.raises(RuntimeError, match="shared run failed") as caught:
                await caller.answer()
            assert isinstance(caught.value.__cause__, KeyError)
            del caught


async def test_a_stream_without_an_end() -> None:
    """As it is to its readers: the events; to those who want the whole: an error."""

    async def cut(record: Settlement) -> Any:
        yield [chat_pb2.ChatEvent(started=chat_pb2.Started(id="1"))]
        await ticks(5)

    answers, source = Answers(config()), Source()
    source.stream = cut  # type: ignore[method-assign]
    reader, whole = Caller(answers, source, "stream"), Caller(answers, source, "complete")
    with pytest.raises(UpstreamProtocol):
        await whole.answer()
    with pytest.raises(UpstreamProtocol):
        await reader.answer()  # by its own fold
    assert len(reader.told) == 1


# The end of it all.


@pytest.mark.parametrize("begun", [1, 2, 4])
async def test_closing(begun: int) -> None:
    """Also while the runs' tasks have not taken their first step."""
    async with nothing_left():
        answers, source = Answers(config()), Source(held=True)
        callers = [Caller(answers, source, how) for how in RUNS]
        callers += [Caller(answers, source, "complete", request=ask("Ho"), idempotency_key="k")]
        await ticks(begun)
        await answers.close()
        for caller in callers:
            with pytest.raises(UpstreamUnavailable, match="the gateway ended the call"):
                await caller.answer()
        assert source.running == 0
