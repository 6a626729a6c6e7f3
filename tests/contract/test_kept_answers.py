"""The same request again, and at the same time, through every door: who is asked, who is told what."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from contract.doors import until
from fakes.bodies import chunks, completion
from fakes.steps import answer, chat, echo, error, slow, sse
from fakes.wire import Exchange
from headgate.core import CallContext
from headgate.fold import fold
from headgate.v1 import chat_pb2, content_pb2, routing_pb2
from robustness.callers import Callers, Told, asking

KEPT = "  m: {targets: [{provider: up}], cache: {}}\n  n: {targets: [{provider: up}], cache: {}}"
PLAIN = "  m: {targets: [{provider: up}]}"
TENANTS = """
auth:
  mode: keys
  keys:
    - {name: a, key: key-of-a-0123456789, tenant: one}
    - {name: b, key: key-of-b-0123456789, tenant: two}
    - {name: c, key: key-of-c-0123456789, tenant: one}
"""
CALLS = [(way, stream) for way in Callers.ways for stream in (False, True)]


class Post:
    """REST, with the headers that are not told elsewhere."""

    def __init__(self, found: Callers) -> None:
        self.found = found

    async def __call__(
        self,
        headers: Mapping[str, str] | None = None,
        *,
        stream: bool = False,
        apart: bool = False,
        **fields: Any,
    ) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and text."""
        asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
        url = self.found.urls["rest apart" if apart else "rest"]
        body = json.dumps(asked | {"stream": True} if stream else asked)
        async with self.found.http.post(url, data=body, headers=headers or {}) as response:
            return response.status, response.headers, await response.text()


def said(told: Told) -> str:
    assert told.whole and not told.error, told
    return told.text


# -- the exact cache -----------------------------------------------------------------------------------


@pytest.mark.parametrize("led_by", [False, True], ids=["unary", "stream"])
async def test_a_hundred_identical_requests_are_one_upstream_call(led_by: bool) -> None:
    async with asking(KEPT) as (found, up):
        gate = asyncio.Event()
        up.default(slow(gate, chat("Once and for all.")))
        first = asyncio.ensure_future(found.ask("direct", "m", "hi", stream=led_by))
        await up.wait_for_requests(1)
        others = [
            asyncio.ensure_future(found.ask(way, "m", "hi", stream=stream))
            for number in range(99)
            for way, stream in [CALLS[number % len(CALLS)]]
        ]
        await until(lambda: found.app.core.setup.running == 100, 20)
        gate.set()
        told = await asyncio.gather(first, *others)
        assert {said(each) for each in told} == {"Once and for all."}
        assert len(up.requests) == 1
        assert (await found.ask("grpc", "m", "hi", stream=True)).text == "Once and for all."
        assert len(up.requests) == 1
        await until(lambda: len(found.settled) == 101)
        paid = [each for each in found.settled if each.usage is not None]
        assert len(paid) == 1 and paid[0].attempts == 1
        assert Counter(each.cache for each in found.settled) == {
            routing_pb2.CACHE_STATUS_MISS: 1,
            routing_pb2.CACHE_STATUS_SHARED: 99,
            routing_pb2.CACHE_STATUS_HIT: 1,
        }


async def test_a_stream_is_shared_as_it_comes() -> None:
    async with asking(KEPT) as (found, up):
        gate = asyncio.Event()
        first, *rest = chunks(["Hel", "lo"])[1:]
        up.default(sse([chunks([])[0], first, gate, *rest]))
        streams = [
            found.app.core.chat_stream(request(), CallContext()),
            found.app.core.chat_stream(request(), CallContext()),
        ]
        for events in streams:
            batch = await events.next_batch()
            assert any(event.part_delta.text == "Hel" for event in batch)
        gate.set()
        for events in streams:
            text = ""
            async for event in events:
                text += event.part_delta.text
            assert text == "lo"
        assert len(up.requests) == 1


async def test_hits_are_marked_at_every_door() -> None:
    async with asking(KEPT) as (found, up):
        post = Post(found)
        status, headers, first = await post()
        assert (status, headers["x-headgate-cache"]) == (200, "miss")
        assert headers["x-headgate-attempts"] == "1"
        for apart in (False, True):
            for stream in (False, True):
                status, headers, text = await post(stream=stream, apart=apart)
                assert (status, headers["x-headgate-cache"]) == (200, "hit")
                assert headers["x-headgate-attempts"] == "0"
                assert "x-headgate-tried" not in headers
                assert headers["x-headgate-provider"] == "up"
                if stream:
                    assert text.endswith("data: [DONE]\n\n")
                else:
                    assert json.loads(text) == json.loads(first)
        assert len(up.requests) == 1
        for _, stream in CALLS:
            served = await served_of(found, stream)
            assert served.cache == routing_pb2.CACHE_STATUS_HIT
            assert (served.provider, served.attempts, len(served.tried)) == ("up", 0, 0)


def request(text: str = "hi") -> chat_pb2.ChatRequest:
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text=text)])
    return chat_pb2.ChatRequest(model="m", messages=[message])


async def served_of(found: Callers, stream: bool) -> chat_pb2.Served:
    core = found.app.core
    if not stream:
        return (await core.chat_complete(request(), CallContext())).served
    async with core.chat_stream(request(), CallContext()) as events:
        return fold([event async for event in events]).served


WISHES: list[tuple[str, str, list[str]]] = [
    # The model's setting, the wishes one after the other, and what is told (- is nothing).
    (PLAIN, "- -", ["-", "-"]),
    (PLAIN, "on on", ["miss", "hit"]),
    (PLAIN, "on -", ["miss", "-"]),
    (PLAIN, "on off", ["miss", "-"]),
    (PLAIN, "refresh on refresh on", ["miss", "hit", "miss", "hit"]),
    (KEPT, "- -", ["miss", "hit"]),
    (KEPT, "off -", ["-", "miss"]),
    (KEPT, "- off -", ["miss", "-", "hit"]),
    (KEPT, "- refresh -", ["miss", "miss", "hit"]),
    (KEPT, "ON Refresh", ["miss", "miss"]),
]


@pytest.mark.parametrize(("models", "wishes", "told"), WISHES)
async def test_what_callers_may_wish(models: str, wishes: str, told: list[str]) -> None:
    async with asking(models) as (found, up):
        up.default(echo())
        post = Post(found)
        found_words = []
        for number, wish in enumerate(wishes.split()):
            given = {} if wish == "-" else {"x-headgate-cache": wish}
            _, headers, _ = await post(given, apart=number % 2 == 1, stream=number % 3 == 2)
            found_words.append(headers.get("x-headgate-cache", "-"))
        assert found_words == told
        assert len(up.requests) == len(told) - told.count("hit")


async def test_a_fresh_answer_takes_the_place_of_the_old_one() -> None:
    async with asking(KEPT) as (found, up):
        up.script(chat("old"), chat("new"))
        assert said(await found.ask("rest", "m", "hi", stream=False)) == "old"
        refresh = {"x-headgate-cache": "refresh"}
        assert said(await found.ask("grpc", "m", "hi", stream=True, headers=refresh)) == "new"
        for way, stream in CALLS:
            assert said(await found.ask(way, "m", "hi", stream=stream)) == "new"


async def test_wishes_that_operators_do_not_grant() -> None:
    async with asking(PLAIN, "cache: {on_request: false}") as (found, up):
        for _ in range(2):
            _, headers, _ = await Post(found)({"x-headgate-cache": "on"})
            assert "x-headgate-cache" not in headers
        assert len(up.requests) == 2


async def test_a_wish_that_is_none_is_refused() -> None:
    async with asking(KEPT) as (found, up):
        for apart in (False, True):
            status, _, text = await Post(found)({"x-headgate-cache": "perhaps"}, apart=apart)
            assert status == 400
            assert "x-headgate-cache" in json.loads(text)["error"]["message"]
        assert not up.requests


async def test_tenants_share_nothing() -> None:
    """However alike their requests are, also at the same time."""
    async with asking(KEPT, TENANTS) as (found, up):
        gate = asyncio.Event()
        up.default(slow(gate, chat()))

        async def each(letter: str, way: str, stream: bool) -> Told:
            headers = {"authorization": f"Bearer key-of-{letter}-0123456789"}
            return await found.ask(way, "m", "hi", stream=stream, headers=headers)

        calls = [
            asyncio.ensure_future(each(letter, way, stream))
            for letter in "abc"
            for way, stream in CALLS
        ]
        await until(lambda: found.app.core.setup.running == len(calls))
        gate.set()
        assert all(said(told) for told in await asyncio.gather(*calls))
        assert len(up.requests) == 2
        for letter in "abc":
            await each(letter, "rest", False)
        assert len(up.requests) == 2
        told = Counter((each.caller, each.cache) for each in found.settled[-3:])
        assert {cache for _, cache in told} == {routing_pb2.CACHE_STATUS_HIT}


DIFFERENT: dict[str, dict[str, Any]] = {
    "the text": {"messages": [{"role": "user", "content": "hi "}]},
    "the model": {"model": "n"},
    "a number": {"temperature": 0.5},
    "a tool": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "a bound": {"max_tokens": 17},
    "a seed": {"seed": 1},
    "a member that nobody knows": {"frobnicate": True},
}
SAME: dict[str, dict[str, Any]] = {
    "the user": {"user": "u2"},
    "a label": {"metadata": {"team": "blue"}},
}


@pytest.mark.parametrize("field", DIFFERENT)
async def test_everything_that_may_change_the_answer_counts(field: str) -> None:
    async with asking(KEPT) as (found, up):
        post = Post(found)
        for fields in ({}, DIFFERENT[field], {}, DIFFERENT[field]):
            assert (await post(**fields))[0] == 200
        assert len(up.requests) == 2


@pytest.mark.parametrize("field", SAME)
async def test_values_of_labels_do_not(field: str) -> None:
    async with asking(KEPT) as (found, up):
        post = Post(found)
        name = next(iter(SAME[field]))
        other = {"user": "u1", "metadata": {"team": "red"}}[name]
        for fields in (SAME[field], {name: other}):
            assert (await post(**fields))[0] == 200
        assert len(up.requests) == 1


FAILURES: dict[str, Any] = {
    "truncated": lambda: chat_finished("length"),
    "filtered": lambda: chat_finished("content_filter"),
    "an error": lambda: error(500),
    "a broken stream": lambda: broken,
}


def chat_finished(reason: str) -> Any:
    async def play(exchange: Exchange) -> None:
        if exchange.record.json.get("stream"):
            await sse(chunks(["Hel"], finish_reason=reason))(exchange)
        else:
            await answer(completion("Hel", finish_reason=reason))(exchange)

    return play


async def broken(exchange: Exchange) -> None:
    if exchange.record.json.get("stream"):
        await sse(chunks(["Hel", "lo"]), stop_after=2, ending="fin")(exchange)
    else:
        await error(503)(exchange)


@pytest.mark.parametrize("how", FAILURES)
async def test_what_is_not_whole_is_not_kept(how: str) -> None:
    async with asking(KEPT, "retries: {max: 0}\nbreaker: {enabled: false}") as (found, up):
        up.default(FAILURES[how]())
        for way, stream in CALLS:
            await found.ask(way, "m", "hi", stream=stream)
        assert len(up.requests) == len(CALLS)
        up.default(chat())
        assert said(await found.ask("rest", "m", "hi", stream=True))
        assert said(await found.ask("rest", "m", "hi", stream=False))
        assert len(up.requests) == len(CALLS) + 1


async def test_a_shared_failure_is_everybodys() -> None:
    async with asking(KEPT, "retries: {max: 0}") as (found, up):
        gate = asyncio.Event()
        up.default(slow(gate, error(529)))
        calls = [
            asyncio.ensure_future(found.ask(way, "m", "hi", stream=stream)) for way, stream in CALLS
        ]
        await until(lambda: found.app.core.setup.running == len(CALLS))
        gate.set()
        told = await asyncio.gather(*calls)
        # A stream that began as a failure has the same status as a whole answer.
        assert {each.error for each in told} == {"OVERLOADED", "overloaded"}, told
        assert len(up.requests) == 1


async def test_an_answer_is_kept_for_so_long() -> None:
    async with asking("  m: {targets: [{provider: up}], cache: {ttl: 200ms}}") as (found, up):
        for _ in range(2):
            await found.ask("rest", "m", "hi", stream=False)
        assert len(up.requests) == 1
        await asyncio.sleep(0.25)
        await found.ask("rest", "m", "hi", stream=False)
        assert len(up.requests) == 2
