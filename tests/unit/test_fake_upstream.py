"""The fake upstream does what its steps say: seen by a raw socket and by a real HTTP client."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
import trustme

from fakes import upstream as fake
from fakes.upstream import FakeUpstream

PATH = "/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def run(test: Any) -> Any:
    """Run an async test to its end, and find tasks that it left behind."""

    def plain() -> None:
        async def whole() -> None:
            async with asyncio.timeout(20):
                await test()
            await asyncio.sleep(0)
            left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            assert not left, left

        asyncio.run(whole())

    plain.__name__ = test.__name__
    plain.__doc__ = test.__doc__
    return plain


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


async def dial(up: FakeUpstream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", up.port, limit=1 << 22)
    await send(writer)
    return reader, writer


async def send(writer: asyncio.StreamWriter) -> None:
    body = json.dumps(ASK).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Twice: a\r\nx-twice: b\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


async def everything(up: FakeUpstream) -> bytes:
    """All bytes of one answer, up to the end of the connection."""
    reader, writer = await dial(up)
    try:
        return await reader.read(-1)
    finally:
        await leave(writer)


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@run
async def test_script_then_default() -> None:
    async with FakeUpstream() as up, client() as http:
        up.script(fake.error(503), fake.rate_limited(7))
        statuses = []
        for _ in range(3):
            async with http.post(up.base_url + PATH, json=ASK) as got:
                await got.read()  # or the client would not use the connection again
                statuses.append((got.status, got.headers.get("retry-after")))
        assert statuses == [(503, None), (429, "7"), (200, None)]
        records = await up.wait_for_requests(3)
        assert [r.connection for r in records] == [0, 0, 0]  # kept alive
        assert records[0].json == ASK and records[0].finished
        assert records[0].headers["CONTENT-type"] == "application/json"


@run
async def test_repeated_request_headers_are_joined() -> None:
    async with FakeUpstream() as up:
        up.script(fake.disconnect())
        assert await everything(up) == b""
        assert up.requests[0].headers["x-twice"] == "a, b"


@run
async def test_echo_and_usage_follow_the_request() -> None:
    async with FakeUpstream() as up, client() as http:
        up.default(fake.echo())
        async with http.post(up.base_url + PATH, json=ASK) as got:
            said = (await got.json())["choices"][0]["message"]["content"]
        assert json.loads(said) == ASK
        ask = ASK | {"stream": True, "stream_options": {"include_usage": True}}
        async with http.post(up.base_url + PATH, json=ask) as got:
            lines = (await got.text()).split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
        deltas = [e["choices"][0]["delta"].get("content", "") for e in events if e["choices"]]
        assert json.loads("".join(deltas)) == ask
        assert events[-1]["usage"] == fake.USAGE and events[0]["usage"] is None


@run
async def test_tool_calls_survive_the_cut_into_chunks() -> None:
    call = fake.tool_call("get_weather", {"city": "Ålesund"}, id="call_9")
    events = fake.chunks([], tool_calls=[call])
    parts = [e["choices"][0]["delta"]["tool_calls"][0] for e in events[1:-1]]
    assert "".join(p["function"]["arguments"] for p in parts) == call["function"]["arguments"]
    assert parts[0]["id"] == "call_9" and "id" not in parts[1]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


@run
async def test_any_cut_gives_the_same_bytes() -> None:
    events = fake.chunks(["æ", "ø"], usage=True)
    async with FakeUpstream() as up:
        seen = set()
        for cut in (None, 1, 7, 4096):
            up.script(fake.close_after(fake.sse(events, cut=cut, cut_head=cut == 1)))
            seen.add(await everything(up))
        assert len(seen) == 1
        assert all(record.sent == len(next(iter(seen))) for record in up.requests)


@run
async def test_hangs_until_the_peer_leaves() -> None:
    stream = fake.sse(fake.chunks(["a", "b"]), stop_after=2, ending="hang")
    steps: list[tuple[fake.Step, bytes]] = [
        (fake.hang(), b""),
        (fake.hang_after_headers(), b"\r\n\r\n"),
        (stream, b'"content":"a"'),
    ]
    async with FakeUpstream() as up:
        for index, (step, last) in enumerate(steps):
            up.script(step)
            reader, writer = await dial(up)
            if last:
                await asyncio.wait_for(reader.readuntil(last), 2)
            record = (await up.wait_for_requests(index + 1))[index]
            with pytest.raises(TimeoutError):
                await record.wait_closed(0.05)
            left = time.monotonic()
            await leave(writer)
            assert -0.1 <= await record.wait_closed() - left < 1
            assert not record.finished and record.closed_at
        assert up.open_connections == 0


@run
async def test_reset_is_seen_as_a_reset() -> None:
    cut = fake.sse(fake.chunks(["a"]), stop_after=1, ending="rst")
    async with FakeUpstream() as up:
        up.script(fake.reset(), cut)
        with pytest.raises(ConnectionResetError):
            await everything(up)
        reader, writer = await dial(up)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        await leave(writer)
        assert up.requests[1].closed_at is None  # we closed it, not the peer


@run
async def test_bodies_that_end_too_early() -> None:
    whole = fake.answer(ending="fin")
    short = fake.Answer([b"0123", b"4567"], stop_after=1, ending="fin")
    stream = fake.sse(fake.chunks(), stop_after=3, ending="fin")
    async with FakeUpstream() as up, client() as http:
        up.script(short, stream, whole)
        for _ in range(2):
            async with http.post(up.base_url + PATH, json=ASK) as got:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await got.read()
        async with http.post(up.base_url + PATH, json=ASK) as got:  # only the connection ends
            assert await got.json() == fake.completion()


@run
async def test_nonsense_is_refused_by_a_real_client() -> None:
    async with FakeUpstream() as up, client() as http:
        for step in (fake.bad_status_line(), fake.huge_headers()):
            up.script(step)
            with pytest.raises(aiohttp.ClientError):
                await http.post(up.base_url + PATH, json=ASK)
        up.script(fake.bad_chunks())
        assert b"\r\nzz\r\n" in await everything(up)


@run
async def test_endless_line_stops_with_the_reader_gone_and_not_before() -> None:
    async with FakeUpstream() as up:
        up.script(fake.endless())
        reader, writer = await dial(up)
        await reader.readexactly(3 << 20)
        record, before = up.requests[0], -1
        while record.sent != before:  # the kernel's buffers fill up
            before = record.sent
            await asyncio.sleep(0.2)
        assert not record.finished  # held back by a reader that does not read
        await leave(writer)
        await up.requests[0].wait_closed()
        assert not up.requests[0].finished


@run
async def test_big_compressed_and_interim_answers() -> None:
    async with FakeUpstream() as up, client() as http:
        up.script(fake.big(3), fake.gzipped(), fake.bomb(8), fake.informed(fake.answer(), 103))
        async with http.post(up.base_url + PATH, json=ASK) as got:
            assert len((await got.json())["choices"][0]["message"]["content"]) == 3 << 20
        async with http.post(up.base_url + PATH, json=ASK) as got:
            assert await got.json() == fake.completion()
        async with http.post(up.base_url + PATH, json=ASK, auto_decompress=False) as got:
            raw = await got.read()
            assert len(raw) < 100_000 and len(gzip.decompress(raw)) == 8 << 20
        async with http.post(up.base_url + PATH, json=ASK, expect100=True) as got:
            assert await got.json() == fake.completion()


@run
async def test_redirect_html_and_pace() -> None:
    async with FakeUpstream() as up, client() as http:
        up.script(
            fake.redirect("http://127.0.0.1:9/", 302),
            fake.html(),
            fake.trickle(fake.answer(b"{}"), 0.03),
        )
        async with http.post(up.base_url + PATH, json=ASK, allow_redirects=False) as got:
            assert (got.status, got.headers["location"]) == (302, "http://127.0.0.1:9/")
        async with http.post(up.base_url + PATH, json=ASK) as got:
            assert (got.status, got.content_type) == (502, "text/html")
        begun = time.monotonic()
        async with http.post(up.base_url + PATH, json=ASK) as got:
            assert await got.read() == b"{}"
        assert time.monotonic() - begun >= 0.03


@run
async def test_stale_connection_is_closed_after_a_keep_alive_answer() -> None:
    async with FakeUpstream() as up:
        up.script(fake.close_after(fake.answer()))
        data = await everything(up)
        assert b"connection: close" not in data.lower() and data.endswith(b"}")
        assert up.requests[0].finished


@run
async def test_a_test_may_hold_a_stream_with_an_event() -> None:
    go = asyncio.Event()
    first, second, *rest = fake.chunks(["a"])
    async with FakeUpstream() as up:
        up.script(fake.sse([first, second, go, *rest]))
        reader, writer = await dial(up)
        await reader.readuntil(b'"content":"a"')
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readuntil(b"[DONE]"), 0.05)
        go.set()
        await reader.readuntil(b"[DONE]")
        await up.requests[0].wait_finished()
        await leave(writer)


@run
async def test_stop_refuses_and_start_listens_on_the_same_port() -> None:
    async with FakeUpstream() as up, client() as http:
        await up.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(up.base_url + "/models")
        await up.start()
        async with http.get(up.base_url + "/models") as got:
            assert (await got.json())["data"][0]["id"] == "m"


@run
async def test_failing_step_fails_the_test() -> None:
    async def wrong(exchange: fake.Exchange) -> None:
        raise ValueError("not what was expected")

    with pytest.raises(ExceptionGroup) as caught:
        async with FakeUpstream() as up:
            up.script(wrong)
            await everything(up)
    assert isinstance(caught.value.exceptions[0], ValueError)


@run
async def test_tls() -> None:
    authority = trustme.CA()
    server, trust = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trust)
    async with FakeUpstream(tls=server) as up, client() as http:
        up.script(fake.answer(), fake.hang())
        async with http.post(up.base_url + PATH, json=ASK, ssl=trust) as got:
            assert await got.json() == fake.completion()
        with pytest.raises(TimeoutError):
            short = aiohttp.ClientTimeout(0.1)
            await http.post(up.base_url + PATH, json=ASK, ssl=trust, timeout=short)
        await up.requests[1].wait_closed()
