"""What another gateway's failures mean for the one in front of it: over a real gRPC connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from headgate import Client
from headgate.core import CallContext, EventStream
from headgate.errors import (
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    GatewayError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    StoreUnavailable,
    Unauthenticated,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.v1 import chat_pb2, chat_service_pb2_grpc, model_service_pb2
from headgate_server.faults import VERDICTS, Fault, fault_of
from headgate_server.grpc_server import GrpcServer
from headgate_server.providers import vendor_of
from headgate_server.providers.base import Target, Timeouts
from headgate_server.providers.remote import RemoteProvider
from headgate_server.providers.vendors import family_of

VENDOR = vendor_of("headgate", "http://behind")
TARGET = Target("behind", "headgate", "m", VENDOR, family_of("m"))
REQUEST = chat_pb2.ChatRequest(model="m")
STARTED = chat_pb2.ChatEvent(started=chat_pb2.Started(model="m"))

# What the gateway behind raises, the fault in front, the class that the caller sees, and the pause.
TABLE: list[tuple[GatewayError, Fault, type[GatewayError], float | None]] = [
    (InvalidRequest("no"), Fault.CALLER, InvalidRequest, None),
    (ContextTooLong("too long"), Fault.CALLER, ContextTooLong, None),
    (ModelNotFound("none such"), Fault.CALLER, ModelNotFound, None),
    (PayloadTooLarge("too large"), Fault.CALLER, PayloadTooLarge, None),
    (ContentFiltered("filtered"), Fault.POLICY, ContentFiltered, None),
    # Our key for that gateway; and that gateway's key for somebody else.
    (Unauthenticated("who?"), Fault.CREDENTIAL, UpstreamRejectedUs, None),
    (PermissionDenied("not you"), Fault.CREDENTIAL, UpstreamRejectedUs, None),
    (UpstreamRejectedUs("its key", retry_after=60.0), Fault.PROVIDER, UpstreamRejectedUs, 60.0),
    (QuotaExhausted("used up"), Fault.QUOTA, QuotaExhausted, None),
    (RateLimited("slow down", retry_after=7.5), Fault.RATE_LIMIT, RateLimited, 7.5),
    (Overloaded("busy", retry_after=1.0), Fault.OVERLOAD, Overloaded, 1.0),
    (UpstreamUnavailable("its upstream is away"), Fault.PROVIDER, UpstreamUnavailable, None),
    (UpstreamProtocol("nonsense"), Fault.PROVIDER, UpstreamProtocol, None),
    (InternalError("a defect"), Fault.PROVIDER, UpstreamUnavailable, None),
    (StoreUnavailable("no store"), Fault.PROVIDER, UpstreamUnavailable, None),
    (UpstreamTimeout("its upstream is slow"), Fault.TIMEOUT, UpstreamTimeout, None),
    # The caller has no deadline, so it was the one that we had set.
    (DeadlineExceeded("late"), Fault.TIMEOUT, UpstreamTimeout, None),
]


class Behind:
    """A core that fails as told, or takes its time. `ChatCore`, as far as chats go."""

    def __init__(self) -> None:
        self.error: GatewayError | None = None
        self.before: list[float] = []  # seconds before each event

    async def chat_complete(
        self, request: chat_pb2.ChatRequest, context: CallContext
    ) -> chat_pb2.ChatResponse:
        self._fail()
        await asyncio.sleep(sum(self.before))
        return chat_pb2.ChatResponse(model="m")

    def chat_stream(self, request: chat_pb2.ChatRequest, context: CallContext) -> EventStream:
        async def events() -> AsyncGenerator[list[chat_pb2.ChatEvent], None]:
            self._fail()
            for seconds in self.before:
                await asyncio.sleep(seconds)
                yield [STARTED]
            yield [chat_pb2.ChatEvent(completed=chat_pb2.Completed())]

        return EventStream(events())

    async def count_tokens(
        self, request: chat_pb2.CountTokensRequest, context: CallContext
    ) -> chat_pb2.CountTokensResponse:
        self._fail()
        return chat_pb2.CountTokensResponse(input_tokens=3)

    async def list_models(self, request: Any, context: CallContext) -> Any:
        return model_service_pb2.ListModelsResponse()

    async def get_model(self, request: Any, context: CallContext) -> Any:
        return model_service_pb2.Model()

    async def ready(self) -> bool:
        return True

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
async def behind() -> AsyncIterator[Behind]:
    core = Behind()
    server = GrpcServer(core, "127.0.0.1:0", max_message_bytes=1 << 20)
    core.address = await server.start()  # type: ignore[attr-defined]
    yield core
    await server.stop(0)


@asynccontextmanager
async def provider(address: str, limits: Timeouts | None = None) -> AsyncIterator[RemoteProvider]:
    async with Client(address) as client:
        yield RemoteProvider("behind", VENDOR, client, limits or Timeouts())


async def failures(
    asked: RemoteProvider, target: Target = TARGET, context: CallContext | None = None
) -> list[GatewayError]:
    """How the three kinds of attempts fail."""
    context = context or CallContext()

    async def stream() -> None:
        async for _ in asked.stream(REQUEST, target, context):
            pass

    found = []
    for work in (
        asked.complete(REQUEST, target, context),
        stream(),
        asked.count_tokens(REQUEST, target, context),
    ):
        with pytest.raises(GatewayError) as caught:
            await work
        found.append(caught.value)
    return found


async def test_what_each_error_means(behind: Any) -> None:
    async with provider(behind.address) as asked:
        for error, fault, kind, retry_after in TABLE:
            behind.error = error.with_metadata(provider="up", upstream_code="x")
            for found in await failures(asked):
                assert fault_of(found) is fault, repr(error)
                assert found.reason == kind.reason, repr(error)
                assert found.retry_after == retry_after, repr(error)
                if fault is not Fault.CREDENTIAL and fault is not Fault.TIMEOUT:
                    assert found.metadata["upstream_code"] == "x"
                    assert error.message in found.message


def test_the_table_is_whole() -> None:
    listed = {type(error) for error, *_ in TABLE}
    assert listed >= {kind for kind in _all(GatewayError) if kind.__module__ == "headgate.errors"}


def _all(kind: type[GatewayError]) -> set[type[GatewayError]]:
    found = set()
    for each in kind.__subclasses__():
        found |= {each, *_all(each)}
    return found


async def test_the_callers_own_deadline_is_nobodys_fault(behind: Any) -> None:
    behind.before = [5.0]
    async with provider(behind.address) as asked:
        with pytest.raises(DeadlineExceeded) as caught:
            await asked.complete(REQUEST, TARGET, CallContext.with_timeout(0.2))
        assert fault_of(caught.value) is Fault.CANCELLED


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with provider(address) as asked:
        for found in await failures(asked):
            assert fault_of(found) is Fault.TRANSPORT
            assert found.reason == UpstreamUnavailable.reason


async def test_a_connection_that_breaks() -> None:
    """In the middle of a call: what listens there speaks no gRPC, and hangs up."""
    hung_up = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hung_up
        hung_up += 1
        await reader.read(64)
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with provider(f"127.0.0.1:{port}") as asked:
            for found in await failures(asked, context=CallContext.with_timeout(5)):
                assert fault_of(found) is Fault.TRANSPORT
    assert hung_up


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (grpc.StatusCode.UNAVAILABLE, Fault.TRANSPORT),
        (grpc.StatusCode.CANCELLED, Fault.TRANSPORT),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Fault.RATE_LIMIT),
        (grpc.StatusCode.UNAUTHENTICATED, Fault.CREDENTIAL),
        (grpc.StatusCode.PERMISSION_DENIED, Fault.CREDENTIAL),
        (grpc.StatusCode.INVALID_ARGUMENT, Fault.CALLER),
        (grpc.StatusCode.INTERNAL, Fault.PROVIDER),
        (grpc.StatusCode.UNKNOWN, Fault.PROVIDER),
        (grpc.StatusCode.UNIMPLEMENTED, Fault.PROVIDER),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Fault.TIMEOUT),
    ],
)
async def test_a_proxy_in_between(code: grpc.StatusCode, fault: Fault) -> None:
    """A status without a gateway's details is of something that stands before it."""

    class Proxy(chat_service_pb2_grpc.ChatServiceServicer):
        async def ChatComplete(self, request: Any, context: Any) -> Any:
            await context.abort(code, "no healthy upstream")

    server = grpc.aio.server()
    chat_service_pb2_grpc.add_ChatServiceServicer_to_server(Proxy(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with provider(f"127.0.0.1:{port}") as asked:
            with pytest.raises(GatewayError) as caught:
                await asked.complete(REQUEST, TARGET, CallContext())
            assert fault_of(caught.value) is fault
    finally:
        await server.stop(0)


# name -> (seconds before each event, limits, the one that passes in a stream; None: none)
LIMITS: dict[str, tuple[list[float], dict[str, float], str | None]] = {
    "no first event": ([5.0], {"first_token": 0.2}, "first_token"),
    "no first byte": ([5.0], {"first_byte": 0.2}, "first_byte"),
    "silence": ([0.0, 5.0], {"idle": 0.2, "first_token": 2.0}, "idle"),
    "too long": ([0.1] * 20, {"idle": 2.0, "total": 0.3}, "total"),
    "all in time": ([0.05, 0.05], {"idle": 2.0, "first_token": 2.0, "first_byte": 2.0}, None),
}


@pytest.mark.parametrize("targets", [False, True], ids=["the provider's", "the target's"])
@pytest.mark.parametrize("name", LIMITS)
async def test_limits(behind: Any, name: str, targets: bool) -> None:
    behind.before, limits, passes = LIMITS[name]
    given = replace(Timeouts(), **limits)
    target = replace(TARGET, timeouts=given) if targets else TARGET
    async with provider(behind.address, None if targets else given) as asked:
        events = asked.stream(REQUEST, target, CallContext())
        if passes is None:
            assert [batch async for batch in events][-1][0].HasField("completed")
            return
        with pytest.raises(UpstreamTimeout, match=rf"timeouts\.{passes} = 0\.\d s"):
            async for _ in events:
                pass


async def test_a_whole_answer_has_no_first_token(behind: Any) -> None:
    behind.before = [0.3]
    async with provider(behind.address, replace(Timeouts(), first_token=0.1)) as asked:
        assert (await asked.complete(REQUEST, TARGET, CallContext())).model == "m"
    async with provider(behind.address, replace(Timeouts(), first_byte=0.1)) as asked:
        with pytest.raises(UpstreamTimeout, match=r"timeouts\.first_byte = 0\.1 s"):
            await asked.complete(REQUEST, TARGET, CallContext())


async def test_a_circle_is_not_tried_again_at_once(behind: Any) -> None:
    async with provider(behind.address) as asked:
        with pytest.raises(UpstreamProtocol) as caught:
            await asked.complete(REQUEST, TARGET, CallContext(hops=8))
    # Other targets may do better, but nobody waits that long for this one.
    assert VERDICTS[fault_of(caught.value)].onward
    assert caught.value.retry_after == 60.0
