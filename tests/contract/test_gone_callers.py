"""Callers that go away, properly or not, and callers that stop reading.

Every case runs over real sockets, and ends the same way: the upstream's socket is closed at once, the
call is settled once, and nothing is left.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest

from contract.doors import (
    ASK,
    MEBIBYTE,
    no_complaints,
    nothing_left,
    request,
    resident_bytes,
)
from fakes.bodies import chunks
from fakes.gateway import Gateway, config_for
from fakes.upstream import (
    Answer,
    FakeUpstream,
    Record,
    Step,
    answer,
    chat,
    hang,
    hang_after_headers,
    sse,
)
from headgate import Client
from headgate.core import CallContext
from headgate.errors import DeadlineExceeded
from headgate.v1 import chat_service_pb2_grpc

# The promise is 100 ms; shared machines get some slack.
WITHIN = 0.5
SETTLE = 0.05


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


# -- callers: each starts a call, says when something has arrived, and leaves in its own way -----------


class Wire:
    """A relay in front of the gateway whose cable can be pulled: what a dead client looks like."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and not writer.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, up_writer]
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            self._tasks.append(asyncio.ensure_future(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            sink.close()
        except (OSError, asyncio.CancelledError):
            pass


Leave = Callable[[], Awaitable[None]]


@asynccontextmanager
async def rest_cancelled(gw: Gateway, stream: bool, first: asyncio.Event) -> Any:
    """An HTTP client whose task is cancelled."""
    async with gw.http() as client:

        async def call() -> None:
            body = ASK | {"stream": stream}
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                async for _ in response.aiter_bytes():
                    first.set()

        task = asyncio.ensure_future(call())

        async def leave() -> None:
            task.cancel()
            await asyncio.wait({task})

        yield leave


def rest_socket(how: str) -> Any:
    @asynccontextmanager
    async def caller(gw: Gateway, stream: bool, first: asyncio.Event) -> Any:
        port = int(gw.rest_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(ASK | {"stream": stream}).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            % len(body)
        )
        writer.write(body)

        async def watch() -> None:
            try:
                await reader.readuntil(b"Hel")
                first.set()
            except (OSError, asyncio.IncompleteReadError):
                pass

        task = asyncio.ensure_future(watch())

        async def leave() -> None:
            if how == "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()

        try:
            yield leave
        finally:
            writer.close()
            await asyncio.wait({task})

    return caller


@asynccontextmanager
async def grpc_cancelled(gw: Gateway, stream: bool, first: asyncio.Event) -> Any:
    """Our client, whose task is cancelled."""
    async with gw.client() as client:
        task = asyncio.ensure_future(grpc_call(client, stream, first))

        async def leave() -> None:
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()

        yield leave


@asynccontextmanager
async def grpc_closed(gw: Gateway, stream: bool, first: asyncio.Event) -> Any:
    """Our client, closed while the call runs."""
    client = gw.client()
    task = asyncio.ensure_future(grpc_call(client, stream, first))

    async def leave() -> None:
        await client.close()

    yield leave
    await asyncio.wait({task})
    assert isinstance(task.exception(), Exception)


@asynccontextmanager
async def grpc_cut(gw: Gateway, stream: bool, first: asyncio.Event) -> Any:
    """Our client, whose machine dies."""
    async with (
        Wire(int(gw.grpc_address.rpartition(":")[2])) as wire,
        Client(wire.address) as client,
    ):
        task = asyncio.ensure_future(grpc_call(client, stream, first))

        async def leave() -> None:
            wire.cut()

        yield leave
        await asyncio.wait({task})
        assert task.exception() is not None


async def grpc_call(client: Client, stream: bool, first: asyncio.Event) -> None:
    if not stream:
        await client.chat_complete(request())
        return
    async with client.chat_stream(request()) as events:
        async for event in events:
            if event.HasField("part_delta"):
                first.set()


@asynccontextmanager
async def direct(gw: Gateway, stream: bool, first: asyncio.Event) -> Any:
    """The core's own method, whose task is cancelled."""

    async def call() -> None:
        if not stream:
            await gw.app.core.chat_complete(request(), CallContext())
            return
        async with gw.app.core.chat_stream(request(), CallContext()) as events:
            async for event in events:
                if event.HasField("part_delta"):
                    first.set()

    task = asyncio.ensure_future(call())

    async def leave() -> None:
        task.cancel()
        await asyncio.wait({task})

    yield leave


CALLERS: dict[str, tuple[Any, bool]] = {
    "rest cancelled": (rest_cancelled, False),
    "rest closed": (rest_socket("close"), False),
    "rest reset": (rest_socket("reset"), False),
    "rest apart cancelled": (rest_cancelled, True),
    "rest apart closed": (rest_socket("close"), True),
    "rest apart reset": (rest_socket("reset"), True),
    "grpc cancelled": (grpc_cancelled, False),
    "grpc closed": (grpc_closed, False),
    "grpc cut": (grpc_cut, False),
    "direct": (direct, False),
}
MOMENTS: dict[str, tuple[bool, Callable[[], Step]]] = {
    "unary before headers": (False, hang),
    "unary after headers": (False, hang_after_headers),
    "unary within the body": (False, lambda: answer(framing="chunked", ending="hang")),
    "stream before headers": (True, hang),
    "stream before the first token": (True, lambda: hang_after_headers(stream=True)),
    "stream in the middle": (True, lambda: sse(chunks(["Hel", "lo"]), stop_after=3, ending="hang")),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("caller", CALLERS)
async def test_the_upstream_hears_of_it(
    upstream: FakeUpstream,
    caller: str,
    moment: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start, apart = CALLERS[caller]
    stream, step = MOMENTS[moment]
    asyncio.get_running_loop().set_debug(True)
    with no_complaints():
        async with nothing_left(), Gateway(config_for(upstream.base_url), apart=apart) as gw:
            upstream.script(step())
            first = asyncio.Event()
            async with start(gw, stream, first) as leave:
                record = (await upstream.wait_for_requests())[0]
                if moment == "stream in the middle":
                    await asyncio.wait_for(first.wait(), 5)
                await asyncio.sleep(SETTLE)
                assert record.closed_at is None
                assert not gw.settlements
                left = time.monotonic()
                await leave()
                closed = await record.wait_closed(WITHIN)
                await gw.settled(within=WITHIN)
            await asyncio.sleep(SETTLE)
            assert [each.outcome for each in gw.settlements] == ["CANCELLED"]
            assert gw.settlements[0].attempts == 1
            assert not record.finished
    with capsys.disabled():
        print(f"\n{caller}, {moment}: {(closed - left) * 1000:.1f} ms", end="")


# -- deadlines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("transport", ["direct", "grpc"])
async def test_a_deadline_does_the_same(
    upstream: FakeUpstream, transport: str, moment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, step = MOMENTS[moment]
    seconds = 0.4
    with no_complaints():
        async with nothing_left(), Gateway(config_for(upstream.base_url)) as gw:
            async with gw.client() as client:
                core = client if transport == "grpc" else gw.app.core
                await core.chat_complete(request(), CallContext())  # connects
                gw.settlements.clear()
                upstream.script(step())
                began = time.monotonic()
                context = CallContext.with_timeout(seconds)
                with pytest.raises(DeadlineExceeded) as caught:
                    if stream:
                        async with core.chat_stream(request(), context) as events:
                            async for _ in events:
                                pass
                    else:
                        await core.chat_complete(request(), context)
                took = time.monotonic() - began
                assert caught.value.request_id == context.request_id
                assert seconds - 0.02 < took < seconds + 0.3, took
                record = upstream.requests[1]
                closed = await record.wait_closed(WITHIN)
                await gw.settled(within=WITHIN)
                await asyncio.sleep(SETTLE)
                assert [each.outcome for each in gw.settlements] == ["DEADLINE_EXCEEDED"]
    late = (closed - began - seconds) * 1000
    with capsys.disabled():
        print(f"\ndeadline {transport}, {moment}: {late:+.1f} ms", end="")


async def test_a_deadline_that_has_passed_asks_nobody(upstream: FakeUpstream) -> None:
    async with Gateway(config_for(upstream.base_url)) as gw, gw.client() as client:
        for core in (gw.app.core, client):
            with pytest.raises(DeadlineExceeded):
                await core.chat_complete(request(), CallContext.with_timeout(-1))
            with pytest.raises(DeadlineExceeded):
                await core.chat_stream(request(), CallContext.with_timeout(0)).next_batch()
        assert not upstream.requests


async def test_a_deadline_bounds_all_attempts_together(upstream: FakeUpstream) -> None:
    config = f"""
providers:
  up: {{kind: openai, base_url: "{upstream.base_url}"}}
models:
  m: {{targets: [{{provider: up, model: a}}, {{provider: up, model: b}}]}}
"""
    from fakes.upstream import error, slow

    upstream.script(slow(0.3, error(503)), hang())
    async with Gateway(config) as gw, gw.client() as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await client.chat_complete(request(), timeout=0.5)
        assert 0.45 < time.monotonic() - began < 0.8
        settled = await gw.settled()
        assert settled[0].attempts == 2
        await upstream.requests[1].wait_closed(WITHIN)


# -- streams that are left without a word -------------------------------------------------------------


@pytest.mark.parametrize("transport", ["direct", "grpc"])
async def test_a_stream_that_nobody_reads_asks_nobody(
    upstream: FakeUpstream, transport: str
) -> None:
    with no_complaints():
        async with nothing_left(), Gateway(config_for(upstream.base_url)) as gw:
            async with gw.client() as client:
                core = client if transport == "grpc" else gw.app.core
                events = core.chat_stream(request(), CallContext())
                await events.aclose()
                assert await events.next_batch() == []
                core.chat_stream(request(), CallContext())
                gc.collect()
                await asyncio.sleep(SETTLE)
        assert not upstream.requests
        assert not gw.settlements


@pytest.mark.parametrize("transport", ["direct", "grpc"])
async def test_a_stream_that_is_dropped(upstream: FakeUpstream, transport: str) -> None:
    upstream.default(sse(chunks(["Hel", "lo"]), stop_after=3, ending="hang"))
    with no_complaints():
        async with nothing_left(), Gateway(config_for(upstream.base_url)) as gw:
            async with gw.client() as client:
                core = client if transport == "grpc" else gw.app.core
                events = core.chat_stream(request(), CallContext())
                assert (await events.__anext__()).HasField("started")
                del events
                gc.collect()
                await upstream.requests[0].wait_closed(WITHIN)
                await gw.settled(within=WITHIN)
                await asyncio.sleep(SETTLE)
                assert [each.outcome for each in gw.settlements] == ["CANCELLED"]


@pytest.mark.parametrize("transport", ["direct", "grpc"])
async def test_leaving_after_the_end_is_no_cancellation(
    upstream: FakeUpstream, transport: str
) -> None:
    async with Gateway(config_for(upstream.base_url)) as gw, gw.client() as client:
        core = client if transport == "grpc" else gw.app.core
        async with core.chat_stream(request(), CallContext()) as events:
            async for event in events:
                if event.HasField("completed"):
                    break
        await events.aclose()
        settled = await gw.settled()
        assert [each.outcome for each in settled] == ["OK"]
        assert settled[0].usage is not None


async def test_a_connection_survives_a_cancelled_neighbour(upstream: FakeUpstream) -> None:
    """Calls share a channel; one that is cancelled must not take the others along."""
    async with Gateway(config_for(upstream.base_url), apart=True) as gw, gw.http() as client:
        upstream.script(hang())
        lost = asyncio.ensure_future(client.post("/v1/chat/completions", json=ASK))
        await upstream.wait_for_requests(1)
        gate = asyncio.Event()
        upstream.script(sse([*chunks(["Hel"])[:2], gate, *chunks(["lo"])[1:]]))
        kept = asyncio.ensure_future(
            client.post("/v1/chat/completions", json=ASK | {"stream": True})
        )
        await upstream.wait_for_requests(2)
        lost.cancel()
        await upstream.requests[0].wait_closed(WITHIN)
        gate.set()
        assert (await kept).text.endswith("data: [DONE]\n\n")
        outcomes = sorted(each.outcome for each in await gw.settled(2))
        assert outcomes == ["CANCELLED", "OK"]


async def test_a_storm_of_cancellations_leaves_nothing(upstream: FakeUpstream) -> None:
    """Left at any moment: while connecting, sending, waiting, reading, ending."""
    upstream.default(chat("Hello " * 50, delay=0.001))
    with no_complaints():
        async with nothing_left(), Gateway(config_for(upstream.base_url), apart=True) as gw:
            async with gw.client() as grpc_client, gw.http() as http:

                async def one(number: int) -> None:
                    seconds = 0.002 * (number % 40)
                    try:
                        async with asyncio.timeout(seconds):
                            if number % 3 == 0:
                                await grpc_call(grpc_client, True, asyncio.Event())
                            elif number % 3 == 1:
                                body = ASK | {"stream": bool(number % 2)}
                                await http.post("/v1/chat/completions", json=body)
                            else:
                                await grpc_call(grpc_client, False, asyncio.Event())
                    except TimeoutError:
                        pass

                await asyncio.gather(*(one(number) for number in range(240)))
                await asyncio.sleep(0.3)
                count = len(gw.settlements)
                outcomes = {each.outcome for each in gw.settlements}
                assert count >= len(upstream.requests)
                assert outcomes <= {"OK", "CANCELLED"}
                ids = [each.request_id for each in gw.settlements]
                assert len(set(ids)) == len(ids)


# -- slow readers -------------------------------------------------------------------------------------


def endless_stream() -> Answer:
    first, *_ = chunks([""])
    piece = b"data: " + json.dumps(chunks(["x" * 1000])[1]).encode() + b"\n\n"

    def pieces() -> Iterator[bytes]:
        yield b"data: " + json.dumps(first).encode() + b"\n\n"
        while True:
            yield piece * 16

    return Answer(pieces, content_type="text/event-stream", framing="chunked")


async def stalls(record: Record) -> int:
    """Waits until the upstream gets nothing more through; how much it did."""
    async with asyncio.timeout(20):
        last = -1
        while record.sent != last or not record.sent:
            last = record.sent
            await asyncio.sleep(0.4)
    return last


@asynccontextmanager
async def lazy_rest(gw: Gateway) -> Any:
    port = int(gw.rest_url.rpartition(":")[2])
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    body = json.dumps(ASK | {"stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    await loop.sock_sendall(sock, head % len(body) + body)
    assert b"200 OK" in await loop.sock_recv(sock, 100)
    try:
        yield
    finally:
        sock.close()


@asynccontextmanager
async def lazy_grpc(gw: Gateway) -> Any:
    async with grpc.aio.insecure_channel(gw.grpc_address) as channel:
        stub: Any = chat_service_pb2_grpc.ChatServiceStub(channel)
        call = stub.ChatStream(request())
        assert (await call.read()).HasField("started")
        yield
        call.cancel()


@asynccontextmanager
async def lazy_client(gw: Gateway) -> Any:
    async with gw.client() as client, client.chat_stream(request()) as events:
        assert (await events.__anext__()).HasField("started")
        yield


@pytest.mark.parametrize("door", ["rest", "rest apart", "grpc", "our client"])
async def test_a_slow_reader_slows_the_upstream(
    upstream: FakeUpstream, door: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lazy = {"grpc": lazy_grpc, "our client": lazy_client}.get(door, lazy_rest)
    upstream.default(endless_stream())
    with no_complaints():
        async with nothing_left():
            async with Gateway(config_for(upstream.base_url), apart="apart" in door) as gw:
                before = resident_bytes()
                async with lazy(gw):
                    record = (await upstream.wait_for_requests())[0]
                    sent = await stalls(record)
                    grown = resident_bytes() - before
                    assert record.closed_at is None
                    left = time.monotonic()
                closed = await record.wait_closed(WITHIN)
                settled = await gw.settled(within=WITHIN)
                assert [each.outcome for each in settled] == ["CANCELLED"]
    with capsys.disabled():
        print(
            f"\nslow reader, {door}: upstream stalled after {sent / MEBIBYTE:.1f} MiB,"
            f" memory +{grown / MEBIBYTE:.0f} MiB, closed in {(closed - left) * 1000:.1f} ms",
            end="",
        )
    assert sent < 48 * MEBIBYTE
    assert grown < 96 * MEBIBYTE


async def test_a_slow_reader_still_gets_everything(upstream: FakeUpstream) -> None:
    pieces = [f"{number}," for number in range(20_000)]
    upstream.default(sse(chunks(pieces)))
    async with Gateway(config_for(upstream.base_url), apart=True) as gw:
        text = ""
        async with httpx.AsyncClient(timeout=30) as client:
            url = gw.rest_url + "/v1/chat/completions"
            async with client.stream("POST", url, json=ASK | {"stream": True}) as response:
                lines = response.aiter_lines()
                await asyncio.sleep(1)
                async for line in lines:
                    if line.startswith("data: {"):
                        delta = json.loads(line[6:])["choices"][0]["delta"]
                        text += delta.get("content") or ""
        assert text == "".join(pieces)
        assert [each.outcome for each in await gw.settled()] == ["OK"]
