"""The limits of an attempt over real sockets: each passes when it says, and names itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fakes.upstream import (
    FakeUpstream,
    Piece,
    answer,
    chunks,
    completion,
    error,
    hang,
    slow,
    sse,
)
from headgate.core import CallContext
from headgate.errors import (
    DeadlineExceeded,
    GatewayError,
    Overloaded,
    RateLimited,
    UpstreamProtocol,
    UpstreamTimeout,
)
from headgate.fold import fold
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.faults import Fault, fault_of
from headgate_server.providers import dialect_of, vendor_of
from headgate_server.providers.base import Endpoint, Target, Timeouts
from headgate_server.providers.runtime import HttpProvider
from headgate_server.providers.vendors import family_of
from headgate_server.upstream import Upstream

REQUEST = chat_pb2.ChatRequest(
    model="m",
    messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="Hi")])],
)
VENDOR = vendor_of("openai", "http://elsewhere")
TARGET = Target("up", "openai", "m", VENDOR, family_of("m"))
PATIENT = Timeouts(first_byte=20, first_token=20, idle=20, total=20)
WORDS = ["one ", "two ", "three "]
PING = b": ping\n\n"


@pytest.fixture
async def up() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as running:
        yield running


class Attempts:
    """Attempts at a provider whose target has the limits given; the provider's own never pass."""

    def __init__(self, up: FakeUpstream, limits: Timeouts | None, own: Timeouts = PATIENT) -> None:
        endpoint = Endpoint(up.base_url, {"content-type": "application/json"})
        self.upstream = Upstream("up", own)
        dialect = dialect_of("openai", VENDOR, 1 << 20)
        self.provider = HttpProvider(
            "up", "openai", VENDOR, dialect, self.upstream, lambda: endpoint
        )
        self.target = replace(TARGET, timeouts=limits)

    async def unary(self, context: CallContext | None = None) -> chat_pb2.ChatResponse:
        return await self.provider.complete(REQUEST, self.target, context or CallContext())

    async def stream(self, pause: float = 0.0) -> list[chat_pb2.ChatEvent]:
        events = []
        async for batch in self.provider.stream(REQUEST, self.target, CallContext()):
            events += batch
            await asyncio.sleep(pause)
        return events

    async def failure(self, work: Any) -> tuple[GatewayError, float]:
        """The error, and the seconds until it came."""
        began = time.monotonic()
        with pytest.raises(GatewayError) as caught:
            await work
        return caught.value, time.monotonic() - began


def limited(**limits: float) -> Timeouts:
    return replace(PATIENT, **limits)


def pings(count: int, every: float = 0.03) -> list[Piece]:
    return [piece for _ in range(count) for piece in (every, PING)]


def said(*pieces: Piece) -> Any:
    """A stream of whatever."""
    return sse(pieces, done=False, ending="hang")


FIRST = list(chunks(WORDS))[:2]

# name -> (what the upstream does, the limits, the one that passes, the seconds until then)
STREAMS: dict[str, tuple[Any, dict[str, float], str, float]] = {
    "nothing": (hang(), {"first_byte": 0.2}, "first_byte", 0.2),
    "nothing, and little patience for tokens": (hang(), {"first_token": 0.2}, "first_token", 0.2),
    "a head": (said(), {"idle": 0.2}, "idle", 0.2),
    "a head, and little patience for tokens": (said(), {"first_token": 0.2}, "first_token", 0.2),
    "pings before any content": (
        said(*pings(60)),
        {"first_token": 0.3, "idle": 0.15},
        "first_token",
        0.3,
    ),
    "content, then silence": (said(*FIRST), {"idle": 0.2}, "idle", 0.2),
    "content, then pings": (said(*FIRST, *pings(60)), {"idle": 0.2}, "idle", 0.2),
    "content, then roles without content": (
        said(*FIRST, *[piece for _ in range(60) for piece in (0.03, chunks([])[0])]),
        {"idle": 0.2},
        "idle",
        0.2,
    ),
    "content without end": (
        said(*[piece for _ in range(60) for piece in (0.03, FIRST[-1])]),
        {"idle": 0.2, "first_token": 0.2, "total": 0.5},
        "total",
        0.5,
    ),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream(up: FakeUpstream, name: str) -> None:
    step, limits, passes, seconds = STREAMS[name]
    up.script(step)
    attempts = Attempts(up, limited(**limits))
    found, took = await attempts.failure(attempts.stream())
    assert isinstance(found, UpstreamTimeout)
    assert fault_of(found) is Fault.TIMEOUT
    assert f"timeouts.{passes} = {seconds:g} s" in found.message
    assert seconds - 0.02 < took < seconds + 0.6
    assert await up.requests[0].wait_closed()


UNARY: dict[str, tuple[Any, dict[str, float], str, float]] = {
    "nothing": (hang(), {"first_byte": 0.2, "first_token": 0.1}, "first_byte", 0.2),
    "a head": (answer(completion(), stop_after=0, ending="hang"), {"idle": 0.2}, "idle", 0.2),
    "never enough": (answer(completion(), cut=1, delay=0.03), {"idle": 0.2, "total": 0.4}, "total", 0.4),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
async def test_a_whole_answer(up: FakeUpstream, name: str) -> None:
    step, limits, passes, seconds = UNARY[name]
    up.script(step)
    attempts = Attempts(up, limited(**limits))
    found, took = await attempts.failure(attempts.unary())
    assert isinstance(found, UpstreamTimeout)
    assert f"timeouts.{passes} = {seconds:g} s" in found.message
    assert seconds - 0.02 < took < seconds + 0.6


async def test_a_whole_answer_has_no_first_token(up: FakeUpstream) -> None:
    up.script(slow(0.3, answer(completion("late"))))
    attempts = Attempts(up, limited(first_token=0.1, idle=0.1))
    assert (await attempts.unary()).choices


@pytest.mark.parametrize("between", [[], pings(4, 0.0)], ids=["content", "pings between"])
async def test_a_slow_caller_is_not_the_upstreams_silence(
    up: FakeUpstream, between: Sequence[Piece]
) -> None:
    pieces = [piece for chunk in chunks(WORDS) for piece in (0.02, chunk, *between)]
    up.script(sse(pieces))
    attempts = Attempts(up, limited(idle=0.15, first_token=0.15, first_byte=5.0))
    events = await attempts.stream(pause=0.25)
    assert fold(events).choices[0].message.parts[0].text == "".join(WORDS)


async def test_slow_content_is_no_silence(up: FakeUpstream) -> None:
    up.script(sse([piece for chunk in chunks(WORDS) for piece in (0.1, chunk)]))
    attempts = Attempts(up, limited(idle=0.25, first_token=0.5))
    assert (await attempts.stream())[-1].HasField("completed")


async def test_the_targets_limits_win(up: FakeUpstream) -> None:
    up.default(slow(0.3, answer(completion("late"))))
    strict = Attempts(up, limited(first_byte=0.1))
    assert isinstance((await strict.failure(strict.unary()))[0], UpstreamTimeout)
    loose = Attempts(up, PATIENT, own=limited(first_byte=0.1))
    assert (await loose.unary()).choices
    own = Attempts(up, None, own=limited(first_byte=0.1))
    assert isinstance((await own.failure(own.unary()))[0], UpstreamTimeout)


async def test_the_callers_deadline_is_the_callers(up: FakeUpstream) -> None:
    up.script(hang())
    attempts = Attempts(up, PATIENT)
    found, took = await attempts.failure(attempts.unary(CallContext.with_timeout(0.2)))
    assert type(found) is DeadlineExceeded
    assert took < 0.8


STALLED = error(429, "slow down", headers={"retry-after": "7"}, stop_after=0, ending="hang")


async def test_an_error_that_stalls_is_told_by_its_status(up: FakeUpstream) -> None:
    """Failing over must not wait for what an error has to say beyond its status."""
    up.default(STALLED)
    attempts = Attempts(up, PATIENT)
    for found, took in await asyncio.gather(
        attempts.failure(attempts.unary()), attempts.failure(attempts.stream())
    ):
        assert type(found) is RateLimited
        assert found.retry_after == 7.0
        assert took < 2.5
    for request in up.requests:
        assert await request.wait_closed()


@pytest.mark.parametrize("ending", ["fin", "rst"])
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
async def test_an_error_that_breaks_off_is_told_by_its_status(
    up: FakeUpstream, ending: Any, streamed: bool
) -> None:
    up.script(replace(error(529), stop_after=0, ending=ending))
    attempts = Attempts(up, PATIENT)
    found, _ = await attempts.failure(attempts.stream() if streamed else attempts.unary())
    assert type(found) is Overloaded


async def test_an_error_that_comes_in_pieces_is_read(up: FakeUpstream) -> None:
    up.default(error(400, "no such thing", cut=16, delay=0.01))
    attempts = Attempts(up, PATIENT)
    for work in (attempts.unary(), attempts.stream()):
        found, took = await attempts.failure(work)
        assert found.message == "no such thing"
        assert took < 1.5
    up.default(error(500, "A" * 200_000))
    assert (await attempts.failure(attempts.stream()))[0].metadata["upstream_status"] == "500"


async def test_what_is_no_stream_is_not_waited_for(up: FakeUpstream) -> None:
    up.script(answer(completion(), stop_after=0, ending="hang"))
    attempts = Attempts(up, PATIENT)
    found, took = await attempts.failure(attempts.stream())
    assert type(found) is UpstreamProtocol
    assert took < 2.5


async def test_no_timer_for_a_piece_of_a_stream(up: FakeUpstream) -> None:
    attempts = Attempts(up, PATIENT)
    await attempts.unary()  # connects
    up.script(sse([piece for chunk in chunks(["x "] * 100) for piece in (0.001, chunk)]))
    loop = asyncio.get_running_loop()
    ours = 0
    plain = loop.call_later

    def counted(delay: float, callback: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal ours
        ours += callback.__module__.startswith("headgate_server")
        return plain(delay, callback, *args, **options)

    loop.call_later = counted  # type: ignore[method-assign]
    try:
        batches = [
            batch
            async for batch in attempts.provider.stream(REQUEST, attempts.target, CallContext())
        ]
    finally:
        loop.call_later = plain  # type: ignore[method-assign]
    assert len(batches) > 50
    assert ours == 1


async def test_every_key_goes_with_its_own_call(up: FakeUpstream) -> None:
    """Request heads are kept by the headers' identity, which a later object must not inherit."""
    attempts = Attempts(up, PATIENT)
    dialect = attempts.provider.dialect
    for number in range(300):
        endpoint = Endpoint(up.base_url, {"authorization": f"Bearer key-{number}"})
        call = dialect.encode(REQUEST, TARGET, endpoint, stream=False)
        await attempts.upstream.complete(call, None)
    sent = [request.headers["authorization"] for request in up.requests]
    assert sent == [f"Bearer key-{number}" for number in range(300)]
    assert up.connections == 1
