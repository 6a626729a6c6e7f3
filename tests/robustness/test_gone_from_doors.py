"""Callers of every front door that hang up, or stop reading: the upstream hears of it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from contract.doors import MEBIBYTE, no_complaints, nothing_left, resident_bytes
from fakes.bodies import chunks
from fakes.gateway import Gateway, config_for
from fakes.upstream import (
    Answer,
    FakeUpstream,
    Record,
    Step,
    answer,
    hang,
    hang_after_headers,
    sse,
)
from robustness.fronts import FRONTS, Front, counting
from robustness.hostile import BY_KIND, provider

# The promise is 100 ms; shared machines get some slack.
WITHIN = 0.5
SETTLE = 0.03
# Wherever the text goes, these bytes are in the stream once a token has arrived.
TOKEN = "Hel"

MOMENTS: dict[str, tuple[bool, Callable[[], Step]]] = {
    "unary before headers": (False, hang),
    "unary within the body": (False, lambda: answer(framing="chunked", ending="hang")),
    "stream before headers": (True, hang),
    "stream before the first token": (True, lambda: hang_after_headers(stream=True)),
    "stream in the middle": (True, lambda: sse(chunks([TOKEN, "lo"]), stop_after=3, ending="hang")),
}


@pytest.fixture(params=FRONTS, ids=lambda front: front.name)
def front(request: pytest.FixtureRequest) -> Front:
    found: Front = request.param
    return found


class Caller:
    """A client that is nothing but a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def hang_up(self, how: str) -> None:
        if how == "reset":
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()


def head_of(path: str, content: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode()


@asynccontextmanager
async def calling(gateway: Gateway, path: str, body: object) -> AsyncIterator[Caller]:
    port = int(gateway.rest_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = json.dumps(body).encode()
    writer.write(head_of(path, content) + content)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()


async def hears_of_it(up: FakeUpstream, gateway: Gateway, caller: Caller, how: str) -> Record:
    record = up.requests[-1]
    await asyncio.sleep(SETTLE)
    assert record.closed_at is None
    assert not gateway.settlements
    left = time.monotonic()
    caller.hang_up(how)
    closed = await record.wait_closed(WITHIN)
    assert closed - left < WITHIN
    await gateway.settled(within=WITHIN)
    await asyncio.sleep(SETTLE)
    assert [each.outcome for each in gateway.settlements] == ["CANCELLED"]
    assert not record.finished
    gateway.settlements.clear()
    return record


@pytest.mark.parametrize("apart", [False, True], ids=["one process", "apart"])
async def test_the_upstream_hears_of_it(front: Front, apart: bool) -> None:
    with no_complaints():
        async with nothing_left():
            async with FakeUpstream() as up, Gateway(config_for(up.base_url), apart=apart) as gw:
                for number, moment in enumerate(MOMENTS):
                    stream, step = MOMENTS[moment]
                    up.script(step())
                    path, body = front.path("m", stream), front.body("m", stream)
                    if front.name == "completions" and moment.endswith("middle"):
                        up._steps.clear()
                        up.script(legacy())
                    async with calling(gw, path, body) as caller:
                        await up.wait_for_requests(number + 1)
                        if moment.endswith("middle"):
                            await asyncio.wait_for(caller.reader.readuntil(TOKEN.encode()), 5)
                        await hears_of_it(up, gw, caller, ("close", "reset")[number % 2])


def legacy() -> Answer:
    """A stream of the legacy completions, in the middle of which nothing comes any more."""
    choice = {"index": 0, "text": TOKEN, "logprobs": None, "finish_reason": None}
    chunk = {
        "id": "c",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    return sse([chunk, chunk], stop_after=1, ending="hang")


@pytest.mark.parametrize("name", ["messages", "gemini"])
async def test_the_upstream_hears_of_it_while_it_counts(name: str) -> None:
    (front,) = [front for front in FRONTS if front.name == name]
    vendor = BY_KIND["anthropic"]
    with no_complaints():
        async with nothing_left(), FakeUpstream() as up:
            lines = ["providers:", provider(vendor, up.origin)]
            lines.append(
                f"models: {{m: {{targets: [{{provider: anthropic, model: {vendor.model}}}]}}}}"
            )
            async with Gateway("\n".join(lines)) as gw:
                up.script(hang())
                path, body = counting(front, "m")
                async with calling(gw, path, body) as caller:
                    await up.wait_for_requests(1)
                    assert up.requests[0].path.endswith("count_tokens")
                    await hears_of_it(up, gw, caller, "close")


async def test_half_a_body_asks_nobody(front: Front) -> None:
    with no_complaints():
        async with nothing_left():
            async with FakeUpstream() as up, Gateway(config_for(up.base_url)) as gw:
                port = int(gw.rest_url.rpartition(":")[2])
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                path = front.path("m", True)
                head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n{{"
                writer.write(head.encode())
                await asyncio.sleep(SETTLE)
                writer.close()
                await asyncio.sleep(SETTLE)
                assert not up.requests
                assert not gw.settlements


# -- slow readers ---------------------------------------------------------------------------------------


def endless(front: Front) -> Answer:
    """A stream that never ends."""
    if front.name == "completions":
        choice = {"index": 0, "text": "x" * 1000, "logprobs": None, "finish_reason": None}
        bodies = [{"id": "c", "created": 1, "model": "m", "choices": [choice]}] * 2
    else:
        bodies = chunks(["x" * 1000])[:2]
    first, piece = (b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies)

    def pieces() -> Iterator[bytes]:
        yield first
        while True:
            yield piece * 16

    return Answer(pieces, content_type="text/event-stream", framing="chunked")


async def stalled(record: Record) -> int:
    """Waits until the upstream gets nothing more through; how much it did."""
    async with asyncio.timeout(20):
        last = -1
        while record.sent != last or not record.sent:
            last = record.sent
            await asyncio.sleep(0.2)
    return last


async def test_a_slow_reader_slows_the_upstream(front: Front) -> None:
    with no_complaints():
        async with nothing_left():
            async with FakeUpstream() as up, Gateway(config_for(up.base_url)) as gw:
                up.default(endless(front))
                before = resident_bytes()
                sock = socket.socket()
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                port = int(gw.rest_url.rpartition(":")[2])
                await loop.sock_connect(sock, ("127.0.0.1", port))
                content = json.dumps(front.body("m", True)).encode()
                await loop.sock_sendall(sock, head_of(front.path("m", True), content) + content)
                assert b"200 OK" in await loop.sock_recv(sock, 100)
                (record,) = await up.wait_for_requests()
                sent = await stalled(record)
                grown = resident_bytes() - before
                assert record.closed_at is None
                sock.close()
                await record.wait_closed(WITHIN)
                settled = await gw.settled(within=WITHIN)
                assert [each.outcome for each in settled] == ["CANCELLED"]
    assert sent < 48 * MEBIBYTE
    assert grown < 96 * MEBIBYTE
