"""The load drivers: one process, a number of connections, requests until the time is up.

Owns clients that look at an answer only as far as needed to know that it is right and where it
ends. Started by run.py as `python -m bench.load OPTIONS-AS-JSON`; prints one JSON object. Every
request that was started is finished before the process ends: what was counted is what was done.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from array import array
from collections.abc import Awaitable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

import uvloop

MARK = b"word00"  # in every right answer of the mock
EVENT = b"data: {"
HEAD, CHUNKED = -1, -2
GRACE = 60.0  # for what is open when the time is up


@dataclass(frozen=True)
class Load:
    """What to send, where to, and for how long."""

    protocol: Literal["rest", "grpc"]
    address: str
    key: str = ""
    stream: bool = False
    large: bool = False
    connections: int = 1
    seconds: float = 1.0
    requests: int = 1_000_000  # at most
    stagger: float = 0.0  # seconds over which the connections begin

    def body(self) -> dict[str, Any]:
        """The chat completion request: about 550 bytes, or 200 KB."""
        rule = "You are a careful assistant. Answer briefly, and say so when you do not know. "
        ask = "Compare both proposals and list the three differences that matter most to us. "
        messages = [
            {"role": "system", "content": rule * 2},
            {"role": "user", "content": ask * 2},
        ]
        if self.large:
            roles = ("user", "assistant")
            messages = [{"role": roles[i % 2], "content": (ask * 13)[:960]} for i in range(201)]
        body: dict[str, Any] = {"model": "m", "messages": messages, "temperature": 0.2}
        body |= {"max_tokens": 256, "user": "bench"}
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


@dataclass
class Totals:
    """What came of it."""

    load: Load
    deadline: float
    started: int = 0
    events: int = 0
    reads: int = 0
    errors: int = 0
    samples: list[str] = field(default_factory=list)
    latency: array[float] = field(default_factory=lambda: array("d"))
    first: array[float] = field(default_factory=lambda: array("d"))

    def go_on(self) -> bool:
        """Whether to start one more request; counts it."""
        if self.started >= self.load.requests or time.perf_counter() >= self.deadline:
            return False
        self.started += 1
        return True

    def fail(self, why: str) -> None:
        """Note an error, and the text of the first few."""
        self.errors += 1
        if len(self.samples) < 3:
            self.samples.append(why[:300])


class RestClient(asyncio.Protocol):
    """One keep-alive connection that sends the same request again and again."""

    def __init__(self, request: bytes, totals: Totals) -> None:
        self.request = request
        self.totals = totals
        self.mark = EVENT if totals.load.stream else MARK
        self.done = asyncio.get_running_loop().create_future()
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.send()

    def send(self) -> None:
        if not self.totals.go_on():
            self.transport.close()
            return
        self.busy, self.seen, self.tail = True, 0, b""
        self.need = HEAD  # bytes still to come, or one of the two
        self.first = 0.0
        self.begun = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, new: bytes) -> None:
        self.totals.reads += 1
        data = self.tail + new
        if self.need == HEAD and not self.head(data):
            return
        self.seen += data.count(self.mark)
        if self.seen and not self.first:
            self.first = time.perf_counter()
        if self.need == CHUNKED:
            ended = data.endswith(b"0\r\n\r\n")
        else:
            self.need -= len(new)
            ended = self.need <= 0
        self.tail = data[1 - len(self.mark) :]  # may begin a mark, but never holds a counted one
        if ended:
            self.finish()

    def head(self, data: bytes) -> bool:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.tail = data
            return False
        if not data.startswith(b"HTTP/1.1 200"):
            self.abort(data.decode("latin-1"))
            return False
        head = data[:end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            self.need = CHUNKED
        else:  # what of it was read before does not come again
            self.need = int(head[at + 15 :].split(b"\r", 1)[0]) + end + 4 - len(self.tail)
        return True

    def finish(self) -> None:
        totals, now = self.totals, time.perf_counter()
        self.busy = False
        if not self.seen:
            totals.fail("an answer without the expected text")
        else:
            totals.latency.append(now - self.begun)
            totals.first.append((self.first or now) - self.begun)
            totals.events += self.seen
        self.send()

    def abort(self, why: str) -> None:
        self.totals.fail(why)
        self.busy = False
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self.totals.fail(f"connection lost: {exc}")
        if not self.done.done():
            self.done.set_result(None)


async def rest(load: Load, totals: Totals, after: float) -> None:
    """Drive one REST connection, anew when it is lost."""
    await asyncio.sleep(after)
    host, _, port = load.address.rpartition(":")
    body = json.dumps(load.body()).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {load.address}\r\n"
        f"content-type: application/json\r\nauthorization: Bearer {load.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    loop = asyncio.get_running_loop()
    while totals.errors < 100 and time.perf_counter() < totals.deadline:
        try:
            _, client = await loop.create_connection(
                lambda: RestClient(request, totals), host, int(port)
            )
        except OSError as error:
            totals.fail(f"connect: {error}")
            return
        await client.done
        if totals.started >= load.requests:
            return


async def grpc_calls(load: Load, totals: Totals, after: float, channel: Any) -> None:
    """Drive one call at a time on a shared channel; messages stay bytes, but for the first."""
    await asyncio.sleep(after)
    from headgate.v1 import chat_pb2, content_pb2

    asked = load.body()
    roles = content_pb2.Role
    request = chat_pb2.ChatRequest(
        model=asked["model"], temperature=0.2, max_tokens=256, user="bench"
    )
    for message in asked["messages"]:
        role = roles.Value(f"ROLE_{message['role'].upper()}")
        part = content_pb2.Part(text=message["content"])
        request.messages.append(content_pb2.Message(role=role, parts=[part]))
    data = request.SerializeToString()
    metadata = (("authorization", f"Bearer {load.key}"),)
    method = "/headgate.v1.ChatService/" + ("ChatStream" if load.stream else "ChatComplete")
    make = channel.unary_stream if load.stream else channel.unary_unary
    call = make(method)
    while totals.errors < 100 and totals.go_on():
        begun = time.perf_counter()
        first, events, right = 0.0, 0, False
        try:
            if load.stream:
                async for event in call(data, metadata=metadata, wait_for_ready=True):
                    first = first or time.perf_counter()
                    events += 1
                    right = right or MARK in event
            else:
                right = MARK in await call(data, metadata=metadata, wait_for_ready=True)
                events = 1
        except Exception as error:  # grpc.aio.AioRpcError; grpc is imported only where it is used
            totals.fail(str(error))
            continue
        now = time.perf_counter()
        if not right:
            totals.fail("an answer without the expected text")
            continue
        totals.latency.append(now - begun)
        totals.first.append((first or now) - begun)
        totals.events += events


def percentile_ms(values: array[float], q: float) -> float:
    """A percentile in milliseconds; 0 of nothing."""
    ordered = sorted(values)
    return 1e3 * ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


async def drive(load: Load) -> dict[str, Any]:
    """Run the load and sum up."""
    begun = time.perf_counter()
    totals = Totals(load, begun + load.seconds)
    offsets = [i * load.stagger / load.connections for i in range(load.connections)]
    work: list[Awaitable[None]]
    channel: Any = None
    if load.protocol == "grpc":
        import grpc.aio

        channel = grpc.aio.insecure_channel(load.address)
        work = [grpc_calls(load, totals, after, channel) for after in offsets]
    else:
        work = [rest(load, totals, after) for after in offsets]
    try:
        async with asyncio.timeout(load.seconds + GRACE):
            await asyncio.gather(*work)
    except TimeoutError:
        totals.fail(f"still not done {GRACE:g} s after the time was up")
    seconds = time.perf_counter() - begun
    if channel is not None:
        await channel.close()
    own = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "requests": len(totals.latency),
        "events": totals.events,
        "reads": totals.reads,
        "errors": totals.errors,
        "error_samples": totals.samples,
        "p50_ms": percentile_ms(totals.latency, 0.50),
        "p99_ms": percentile_ms(totals.latency, 0.99),
        "first_p50_ms": percentile_ms(totals.first, 0.50),
        "first_p99_ms": percentile_ms(totals.first, 0.99),
        "driver_cpu_s": own.ru_utime + own.ru_stime,
        "load": {**asdict(load), "key": "..."},
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(drive(Load(**json.loads(sys.argv[1]))))))
