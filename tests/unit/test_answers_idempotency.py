"""Idempotency keys: a repeated call is neither run nor billed twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from fakes.runs import Source, ask, call_of, config, nothing_left, record_of, reply, ticks
from headgate.errors import DeadlineExceeded, InvalidRequest, RateLimited
from headgate.v1 import chat_pb2, routing_pb2
from headgate_server.answers import Answers
from headgate_server.call import Call
from headgate_server.settlement import Settlement

HIT, MISS = routing_pb2.CACHE_STATUS_HIT, routing_pb2.CACHE_STATUS_MISS


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    def __init__(self, text: str = "", *, held: bool = False) -> None:
        self.clock = Clock()
        self.answers = Answers(config(text), self.clock)
        self.source = Source(held=held)
        self.record = Settlement("", "", streamed=False)

    async def complete(self, call: Call) -> chat_pb2.ChatResponse:
        self.record = record_of(call)
        return await self.answers.complete(call, self.record, self.source.complete)


def keyed(key: str = "k", **facts: Any) -> Call:
    return call_of(**{"idempotency_key": key} | facts)


async def test_a_repeated_call_gets_the_answer_of_the_first() -> None:
    bench = Bench()
    assert bench.answers.wanted(keyed(), streamed=False)
    first = await bench.complete(keyed())
    assert (first.served.repeated_answer, bench.record.repeated) == (False, False)
    assert (bench.record.attempts, bench.record.usage) == (1, reply().usage)
    for _ in range(2):
        again = await bench.complete(keyed())
        assert (again.served.repeated_answer, bench.record.repeated) == (True, True)
        assert (again.served.attempts, list(again.served.tried)) == (0, [])
        assert (bench.record.attempts, bench.record.tried, bench.record.usage) == (0, [], None)
        assert (bench.record.provider, bench.record.route) == ("p", "m")
        assert (again.served.cache, bench.record.cache) == (0, 0)
        assert (again.id, again.usage, again.choices[0]) == (
            first.id,
            first.usage,
            first.choices[0],
        )
        again.choices[0].message.parts[0].text = "changed"
    assert bench.source.begun == 1


async def test_whose_key_it_is_and_which() -> None:
    bench = Bench()
    for number, call in enumerate((keyed(), keyed(tenant="t"), keyed("other"), call_of()), start=1):
        await bench.complete(call)
        assert (bench.source.begun, bench.record.repeated) == (number, False)


@pytest.mark.parametrize(
    "other", [ask("Ho"), ask(user="u"), ask(metadata={"a": "b"}), ask(model="n")]
)
async def test_the_same_key_for_another_request(other: chat_pb2.ChatRequest) -> None:
    bench = Bench(held=True)
    words = "idempotency-key: was used for another request"
    first = asyncio.create_task(bench.complete(keyed()))
    await ticks(3)
    with pytest.raises(InvalidRequest, match=words) as caught:
        await bench.complete(keyed(request=other))  # while the first one runs
    assert [each.field for each in caught.value.violations] == ["idempotency-key"]
    bench.source.gate.set()
    await first
    with pytest.raises(InvalidRequest, match=words):
        await bench.complete(keyed(request=other))
    assert bench.source.begun == 1


async def test_duplicates_at_the_same_time_share_one_run() -> None:
    async with nothing_left():
        bench = Bench(held=True)
        records = [record_of(keyed()) for _ in range(100)]
        tasks = [
            asyncio.create_task(bench.answers.complete(keyed(), record, bench.source.complete))
            for record in records
        ]
        await ticks(4)
        bench.source.gate.set()
        found = await asyncio.gather(*tasks)
        assert bench.source.begun == 1
        assert [each.served.repeated_answer for each in found] == [False] + [True] * 99
        assert [record.repeated for record in records] == [False] + [True] * 99
        assert [record.attempts for record in records] == [1] + [0] * 99
        assert [record.usage is not None for record in records] == [True] + [False] * 99


async def test_failures_are_forgotten() -> None:
    bench = Bench()
    bench.source.error = RateLimited("too many")
    for _ in range(2):
        with pytest.raises(RateLimited):
            await bench.complete(keyed())
    bench.source.error = None
    # Not even what the key was used for.
    await bench.complete(keyed(request=ask("Ho")))
    assert (bench.source.begun, bench.record.repeated) == (3, False)


async def test_answers_that_were_cut_off_are_repeated_as_well() -> None:
    bench = Bench()
    bench.source.answer = reply(reason=chat_pb2.FINISH_REASON_LENGTH)
    await bench.complete(keyed())
    await bench.complete(keyed())
    assert bench.source.begun == 1


async def test_a_call_that_was_cancelled_is_forgotten() -> None:
    async with nothing_left():
        bench = Bench(held=True)
        first = asyncio.create_task(bench.complete(keyed()))
        await ticks(3)
        first.cancel()
        await asyncio.wait([first])
        assert bench.source.running == 0
        bench.source.gate.set()
        await bench.complete(keyed())
        assert (bench.source.begun, bench.record.repeated) == (2, False)


async def test_a_duplicate_outlives_the_first_callers_deadline() -> None:
    async with nothing_left():
        bench, other = Bench(held=True), Source()
        bench.source.deadline = asyncio.get_running_loop().time() + 0.02
        first = asyncio.create_task(bench.complete(keyed(seconds=0.02)))
        await ticks(3)
        record = record_of(keyed())
        second = asyncio.create_task(
            bench.answers.complete(keyed(seconds=30), record, other.complete)
        )
        with pytest.raises(DeadlineExceeded):
            await first
        answer = await second
        assert (answer.served.repeated_answer, record.repeated, record.attempts) == (
            False,
            False,
            1,
        )


async def test_for_how_long() -> None:
    bench = Bench("idempotency: {ttl: 10}")
    await bench.complete(keyed())
    bench.clock.now = 9.9
    await bench.complete(keyed())
    assert bench.source.begun == 1
    bench.clock.now = 10.0
    await bench.complete(keyed(request=ask("Ho")))
    assert bench.source.begun == 2


async def test_the_oldest_go_first() -> None:
    bench = Bench("idempotency: {max_bytes: 5000}")
    bench.source.answer = reply("x" * 1000)
    for key in ("a", "b", "c", "a", "d"):
        await bench.complete(keyed(key))
    for key in ("d", "c", "b"):
        await bench.complete(keyed(key))
        assert bench.record.repeated
    await bench.complete(keyed("a"))
    assert not bench.record.repeated


@pytest.mark.parametrize("key", ["", " ", "a\nb", "\x00", "\u200b", "x" * 256])
async def test_keys_that_are_none(key: str) -> None:
    bench = Bench()
    assert bench.answers.wanted(keyed(key), streamed=False)
    with pytest.raises(InvalidRequest, match="idempotency-key: must be 1 to 255 printable"):
        await bench.complete(keyed(key))
    assert bench.source.begun == 0
    await bench.complete(keyed("x" * 255))


async def test_streams_have_no_use_for_keys() -> None:
    bench = Bench()
    for key in ("k", "\n"):
        assert not bench.answers.wanted(keyed(key), streamed=True)
        for _ in range(2):
            call = keyed(key)
            batches = bench.answers.stream(call, record_of(call), bench.source.stream)
            async with aclosing(batches):
                assert [batch async for batch in batches]
    assert bench.source.begun == 4


async def test_together_with_the_cache() -> None:
    bench = Bench()
    first = await bench.complete(keyed(cache="on"))
    assert (first.served.cache, bench.record.cache, bench.record.attempts) == (MISS, MISS, 1)
    # Another key, the same question.
    second = await bench.complete(keyed("other", cache="on"))
    assert (second.served.cache, second.served.repeated_answer) == (HIT, False)
    assert (bench.record.cache, bench.record.repeated) == (HIT, False)
    assert (bench.record.attempts, bench.record.usage) == (0, None)
    # The same key: the cache is not even asked.
    for key in ("k", "other"):
        third = await bench.complete(keyed(key, cache="on"))
        assert (third.served.cache, third.served.repeated_answer) == (0, True)
        assert (bench.record.cache, bench.record.repeated) == (0, True)
    assert bench.source.begun == 1


async def test_used_keys_stay_used_when_the_configuration_changes() -> None:
    async with nothing_left():
        bench, newer = Bench(), Bench("idempotency: {max_bytes: 3000}")
        bench.source.answer = reply("x" * 1000)
        for key in ("a", "b", "c"):
            await bench.complete(keyed(key))
        bench.source.gate.clear()
        running = asyncio.create_task(bench.complete(keyed("d")))
        await ticks(3)
        newer.answers.adopt(bench.answers)
        duplicate = asyncio.create_task(newer.complete(keyed("d")))
        await ticks(3)
        await bench.answers.close()  # what it has given away is none of its business
        bench.source.gate.set()
        await asyncio.gather(running, duplicate)
        assert newer.source.begun == 0
        await newer.complete(keyed("d"))
        assert (newer.record.repeated, newer.source.begun) == (True, 0)
        await newer.complete(keyed("a"))  # for which there is no room any more
        assert newer.source.begun == 1
