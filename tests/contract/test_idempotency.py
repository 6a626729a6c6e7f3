"""The same idempotency key again, through every door: what was asked for is run once, and billed once."""

from __future__ import annotations

import asyncio
import json

from contract.doors import until
from contract.test_kept_answers import KEPT, PLAIN, TENANTS, Post, said
from fakes.steps import chat, error, slow
from robustness.callers import Callers, asking

ONCE = {"idempotency-key": "k-1"}


async def test_a_repeated_request_is_run_once() -> None:
    async with asking(PLAIN) as (found, up):
        post = Post(found)
        up.script(chat("the first"), chat("the second"))
        status, headers, first = await post(ONCE)
        assert status == 200 and "x-headgate-repeated" not in headers
        for apart in (False, True):
            status, headers, text = await post(ONCE, apart=apart)
            assert (status, headers["x-headgate-repeated"]) == (200, "true")
            assert json.loads(text) == json.loads(first)
            assert headers["x-headgate-attempts"] == "0"
        for way in Callers.ways:
            assert said(await found.ask(way, "m", "hi", stream=False, headers=ONCE)) == "the first"
        assert len(up.requests) == 1
        await until(lambda: len(found.settled) == 7)
        assert [each.repeated for each in found.settled] == [False] + [True] * 6
        assert [each.usage is None for each in found.settled] == [False] + [True] * 6


async def test_two_at_the_same_time_are_run_once() -> None:
    async with asking(PLAIN) as (found, up):
        gate = asyncio.Event()
        up.default(slow(gate, chat()))
        calls = [
            asyncio.ensure_future(found.ask(way, "m", "hi", stream=False, headers=ONCE))
            for way in Callers.ways
            for _ in range(5)
        ]
        await until(lambda: found.app.core.setup.running == 20)
        gate.set()
        assert len({said(told) for told in await asyncio.gather(*calls)}) == 1
        assert len(up.requests) == 1
        await until(lambda: len(found.settled) == 20)
        assert sum(each.attempts for each in found.settled) == 1
        assert sum(each.usage is not None for each in found.settled) == 1


async def test_another_body_under_the_same_key_is_refused() -> None:
    async with asking(PLAIN) as (found, up):
        post = Post(found)
        await post(ONCE)
        for apart in (False, True):
            status, _, text = await post(ONCE, apart=apart, temperature=0.1)
            told = json.loads(text)["error"]
            assert (status, told["param"]) == (400, "idempotency-key")
            assert "another request" in told["message"]
        told = await found.ask("grpc", "m", "other", stream=False, headers=ONCE)
        assert told.error == "INVALID_REQUEST"
        assert len(up.requests) == 1
        # While the first one runs, too.
        gate = asyncio.Event()
        up.default(slow(gate, chat()))
        two = {"idempotency-key": "k-2"}
        running = asyncio.ensure_future(post(two))
        await up.wait_for_requests(2)
        assert (await post(two, temperature=0.1))[0] == 400
        gate.set()
        assert (await running)[0] == 200


async def test_another_key_another_run() -> None:
    async with asking(PLAIN) as (found, up):
        for number in range(3):
            headers = {"idempotency-key": f"k-{number}"}
            assert said(await found.ask("rest", "m", "hi", stream=False, headers=headers))
        assert len(up.requests) == 3


async def test_a_failure_is_forgotten() -> None:
    async with asking(PLAIN, "retries: {max: 0}") as (found, up):
        up.script(error(500))
        post = Post(found)
        assert (await post(ONCE))[0] == 503
        status, headers, _ = await post(ONCE, apart=True)
        assert status == 200 and "x-headgate-repeated" not in headers
        assert len(up.requests) == 2


async def test_a_tenants_key_is_its_own() -> None:
    async with asking(PLAIN, TENANTS) as (found, up):
        post = Post(found)
        repeated = []
        for letter in "abcab":
            _, headers, _ = await post(
                {**ONCE, "authorization": f"Bearer key-of-{letter}-0123456789"}
            )
            repeated.append("x-headgate-repeated" in headers)
        assert repeated == [False, False, True, True, True]
        assert len(up.requests) == 2


async def test_a_stream_is_not_held_to_it() -> None:
    async with asking(PLAIN) as (found, up):
        for way in Callers.ways:
            assert said(await found.ask(way, "m", "hi", stream=True, headers=ONCE))
        assert len(up.requests) == 4


async def test_a_repetition_without_the_cache_and_with_it() -> None:
    async with asking(KEPT) as (found, up):
        post = Post(found)
        assert (await post(ONCE))[1]["x-headgate-cache"] == "miss"
        _, headers, _ = await post(ONCE)
        assert headers["x-headgate-repeated"] == "true"
        _, headers, _ = await post({"idempotency-key": "k-2"})
        assert (headers["x-headgate-cache"], "x-headgate-repeated" in headers) == ("hit", False)
        assert len(up.requests) == 1


async def test_the_answer_survives_the_caller_who_lost_it() -> None:
    """The reason why there are such keys: the connection breaks, and the client asks again."""
    async with asking(PLAIN) as (found, up):
        gate = asyncio.Event()
        up.default(slow(gate, chat()))
        lost = asyncio.ensure_future(found.ask("rest", "m", "hi", stream=False, headers=ONCE))
        await up.wait_for_requests(1)
        again = asyncio.ensure_future(found.ask("grpc", "m", "hi", stream=False, headers=ONCE))
        await until(lambda: found.app.core.setup.running == 2)
        lost.cancel()
        await asyncio.wait({lost})
        gate.set()
        assert said(await again)
        assert len(up.requests) == 1
