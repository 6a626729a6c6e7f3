"""Kept and shared answers through the whole gateway, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from fakes.gateway import Gateway, config_for
from fakes.runs import ask
from fakes.steps import chat, hang_after_headers, slow
from fakes.upstream import FakeUpstream
from headgate import fold
from headgate.core import CallContext
from headgate.v1 import routing_pb2
from headgate_server.settlement import Settlement

PATH = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
MISS, SHARED = routing_pb2.CACHE_STATUS_MISS, routing_pb2.CACHE_STATUS_SHARED
HIT = routing_pb2.CACHE_STATUS_HIT


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as upstream:
        yield upstream


def cached(upstream: FakeUpstream) -> str:
    return config_for(upstream.base_url, model_extra=", cache: {}")


def paid(settlements: list[Settlement]) -> int:
    """How many pay, each with its usage."""
    assert all((each.usage is not None) == (each.attempts > 0) for each in settlements)
    return sum(each.attempts for each in settlements)


async def test_a_hundred_callers_of_every_kind_make_one_upstream_call(
    upstream: FakeUpstream,
) -> None:
    answered = asyncio.Event()
    upstream.default(slow(answered, chat("Hello")))
    async with Gateway(cached(upstream)) as gateway:
        async with gateway.http() as http, gateway.client() as client:

            async def whole() -> str:
                found = (await http.post(PATH, json=BODY)).json()
                return found["choices"][0]["message"]["content"]

            async def streamed() -> str:
                found = await http.post(PATH, json=BODY | {"stream": True})
                assert found.text.endswith("data: [DONE]\n\n")
                chunks = [json.loads(line[6:]) for line in found.text.split("\n\n")[:-2]]
                deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
                return "".join(delta.get("content") or "" for delta in deltas)

            async def over_grpc() -> str:
                found = await client.chat_complete(ask(), CallContext())
                return found.choices[0].message.parts[0].text

            async def streamed_over_grpc() -> str:
                async with client.chat_stream(ask(), CallContext()) as events:
                    return fold([event async for event in events]).choices[0].message.parts[0].text

            ways = (whole, streamed, over_grpc, streamed_over_grpc)
            tasks = [asyncio.create_task(ways[number % 4]()) for number in range(100)]
            async with asyncio.timeout(20):
                while gateway.app.core.setup.running < 100:
                    await asyncio.sleep(0.005)
            answered.set()
            assert set(await asyncio.gather(*tasks)) == {"Hello"}
            settled = await gateway.settled(100)
            assert len(upstream.requests) == 1
            assert sorted(each.cache for each in settled) == [MISS] + [SHARED] * 99
            assert paid(settled) == 1
            late = await http.post(PATH, json=BODY)
            assert late.headers["x-headgate-cache"] == "hit"
            assert len(upstream.requests) == 1
            assert (await gateway.settled(101))[-1].usage is None


@pytest.mark.parametrize("stream", [False, True])
async def test_the_last_to_hang_up_closes_the_upstream_call(
    upstream: FakeUpstream, stream: bool
) -> None:
    upstream.default(hang_after_headers(stream=stream))
    async with Gateway(cached(upstream)) as gateway, gateway.http() as http:
        tasks = [
            asyncio.create_task(http.post(PATH, json=BODY | {"stream": stream})) for _ in range(3)
        ]
        await upstream.wait_for_requests(1)
        async with asyncio.timeout(5):
            while gateway.app.core.setup.running < 3:
                await asyncio.sleep(0.005)
        for number, task in enumerate(tasks, start=1):
            assert upstream.open_connections == 1
            task.cancel()
            await gateway.settled(number)
        async with asyncio.timeout(5):
            while upstream.open_connections:
                await asyncio.sleep(0.005)
        assert len(upstream.requests) == 1
        assert [each.outcome for each in gateway.settlements] == ["CANCELLED"] * 3
        assert [each.attempts for each in gateway.settlements] == [0, 0, 1]
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_repeated_key(upstream: FakeUpstream) -> None:
    upstream.default(chat("Hello"))
    async with Gateway(config_for(upstream.base_url)) as gateway, gateway.http() as http:

        async def post(text: str) -> httpx.Response:
            said = {"messages": [{"role": "user", "content": text}]}
            return await http.post(PATH, json=BODY | said, headers={"idempotency-key": "k"})

        first, again, other = await post("Hi"), await post("Hi"), await post("Ho")
        assert first.json() == again.json()
        assert "x-headgate-repeated" not in first.headers
        assert again.headers["x-headgate-repeated"] == "true"
        assert other.status_code == 400
        assert "idempotency-key" in other.json()["error"]["message"]
        assert len(upstream.requests) == 1
        settled = await gateway.settled(3)
        assert paid(settled) == 1
        assert [each.repeated for each in settled] == [False, True, False]
