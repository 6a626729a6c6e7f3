"""One gateway with a provider of every dialect at one fake upstream, kept between tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from contract.doors import no_complaints, nothing_left, running_tasks, until
from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream, Record, Step
from headgate.core import CallContext, ChatCore
from headgate.errors import GatewayError, reason_name
from headgate.v1 import chat_pb2, content_pb2
from robustness.hostile import BY_KIND, RICH, SECRET, TEXT, provider
from robustness.law import check_order
from square.vendors import Vendor

NOWHERE = "http://127.0.0.1:1"
EVENT_LIMIT = 64 * 1024
BODY_LIMIT = 1024 * 1024
TRANSPORTS = ["direct", "grpc"]
# What the executor says in the log, as it should, when a key is refused.
_ALLOWED = "rejected the gateway's credentials"
# Tasks of the fake upstream's connections, and what the REST listener waits for, second by second.
_LASTING = ("Connection.serve", "Event.wait")


def config(origin: str) -> str:
    """Provider and model have the name of the kind; `gone-KIND` is at an address where nobody listens."""
    lines = ["providers:"]
    for vendor in BY_KIND.values():
        lines.append(provider(vendor, origin))
        lines.append(provider(vendor, NOWHERE, f"gone-{vendor.kind}"))
    lines.append("models:")
    for vendor in BY_KIND.values():
        for name in (vendor.kind, f"gone-{vendor.kind}"):
            target = f'{{provider: {name}, model: "{vendor.model}"}}'
            lines.append(f"  {name}: {{targets: [{target}]}}")
    lines.append(
        f"limits: {{sse_line_bytes: {EVENT_LIMIT}, upstream_response_bytes: {BODY_LIMIT}}}"
    )
    lines.append("timeouts: {connect: 5s, first_byte: 20s, idle: 20s, total: 30s}")
    return "\n".join(lines)


def asked(model: str) -> chat_pb2.ChatRequest:
    """A request that any dialect can tell."""
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="hi")])
    tool = chat_pb2.Tool(function=chat_pb2.FunctionTool(name="get_weather", parameters_json="{}"))
    return chat_pb2.ChatRequest(model=model, messages=[message], tools=[tool], max_tokens=100)


class Ground:
    """See the module.

    Attributes:
        cores: by the name of the transport.
    """

    def __init__(self, up: FakeUpstream, gateway: Gateway, http: httpx.AsyncClient) -> None:
        self.up = up
        self.gateway = gateway
        self.http = http
        self.cores: dict[str, ChatCore] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def play(self, step: Step) -> None:
        """What the upstream does from now on, also when a kept connection has to be replaced."""
        self.up.default(step)

    async def ask(
        self, transport: str, model: str, *, stream: bool, seconds: float | None = None
    ) -> tuple[list[chat_pb2.ChatEvent], chat_pb2.ChatResponse | None, GatewayError | None]:
        """Events, answer and error of one call; checks all that must hold whatever comes of it."""
        core = self.cores[transport]
        context = CallContext() if seconds is None else CallContext.with_timeout(seconds)
        events: list[chat_pb2.ChatEvent] = []
        response: chat_pb2.ChatResponse | None = None

        async def call() -> None:
            nonlocal response
            if not stream:
                response = await core.chat_complete(asked(model), context)
                return
            async with core.chat_stream(asked(model), context) as found:
                async for event in found:
                    events.append(event)

        error = await self._outcome(call(), context)
        check_order(events, whole=stream and error is None)
        return events, response, error

    async def count(
        self, transport: str, model: str
    ) -> tuple[chat_pb2.CountTokensResponse | None, GatewayError | None]:
        """Number and error of one call that counts tokens; with the same checks."""
        context = CallContext()
        request = chat_pb2.CountTokensRequest(request=asked(model))
        found: chat_pb2.CountTokensResponse | None = None

        async def call() -> None:
            nonlocal found
            found = await self.cores[transport].count_tokens(request, context)

        error = await self._outcome(call(), context)
        return found, error

    async def _outcome(
        self, call: Coroutine[Any, Any, None], context: CallContext
    ) -> GatewayError | None:
        self.gateway.settlements.clear()
        asked_before = len(self.up.requests)
        error: GatewayError | None = None
        try:
            await call
        except GatewayError as caught:
            error = caught
        settled = await self.gateway.settled()
        await asyncio.sleep(0)
        assert [each.outcome for each in settled] == [reason_name(error) if error else "OK"]
        assert settled[0].attempts == 1
        if error is not None:
            told = f"{error} {error!r} {error.message} {error.metadata} {error.__cause__!r}"
            told += str(getattr(error, "violations", ""))
            assert SECRET[:12] not in told
            assert error.request_id == context.request_id
        for record in self.up.requests[asked_before:]:
            await self.left(record)
        try:
            await until(lambda: not self.running(), 1)
        except TimeoutError:
            raise AssertionError(f"left running: {self.running()}") from None
        return error

    async def left(self, record: Record) -> None:
        """Waits until the gateway has left the connection of a request whose answer never ended."""
        if not record.finished:
            await until(lambda: record.connection not in self.connections(), 1)

    def connections(self) -> set[int]:
        """The numbers of the connections that are open at the upstream."""
        return {connection.number for connection in self.up._open}

    def running(self) -> set[asyncio.Task[Any]]:
        """Tasks that belong neither to the listeners nor to the fake upstream."""
        return {
            task
            for task in running_tasks() - self._tasks
            if getattr(task.get_coro(), "__qualname__", "") not in _LASTING
        }

    async def serves_still(self, transport: str, vendor: Vendor) -> None:
        """The upstream behaves again, and so must the gateway, streamed or not."""
        for stream in (False, True):
            self.play(vendor.stream(RICH) if stream else vendor.answer(TEXT))
            _, _, error = await self.ask(transport, vendor.kind, stream=stream)
            assert error is None, error


@asynccontextmanager
async def opened() -> AsyncIterator[Ground]:
    """The ground; when it is left nothing may be left of it, and nothing may have been complained of."""
    with no_complaints(_ALLOWED):
        async with nothing_left(), AsyncExitStack() as stack:
            up = await stack.enter_async_context(FakeUpstream())
            gateway = await stack.enter_async_context(Gateway(config(up.origin)))
            http = await stack.enter_async_context(gateway.http())
            ground = Ground(up, gateway, http)
            client = await stack.enter_async_context(gateway.client())
            ground.cores = {"direct": gateway.app.core, "grpc": client}
            for transport in TRANSPORTS:
                ground.play(BY_KIND["openai"].answer(TEXT))
                await ground.cores[transport].chat_complete(asked("openai"), CallContext())
            ground._tasks = running_tasks()
            yield ground
