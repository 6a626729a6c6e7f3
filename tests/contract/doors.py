"""Every way into one core, side by side: the core itself, gRPC, REST in front of either.

Whoever opens these doors must not be able to tell them apart. Owns the servers and the normal forms in
which their answers are compared; the core is the caller's, and so is its end.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from google.protobuf.message import Message

from headgate import Client, errors
from headgate.core import CallContext, ChatCore, EventStream, RouteCore
from headgate.errors import GatewayError, InvalidRequest
from headgate.v1 import chat_pb2, content_pb2, model_service_pb2
from headgate_facade.app import create_app
from headgate_facade.rest_server import RestServer
from headgate_facade.settings import FacadeSettings
from headgate_server.grpc_server import GrpcServer

MEBIBYTE = 1024 * 1024
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
HOUR = 3600.0
# As in `x-headgate-tried`.
_SECONDS = re.compile(r"(/\S+ (?:key=\S+ )?[A-Z_]+) \d+\.\d{3}s")


def request(text: str = "hi", **fields: Any) -> chat_pb2.ChatRequest:
    """The smallest request."""
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text=text)])
    return chat_pb2.ChatRequest(**{"model": "m", "messages": [message]} | fields)


class Doors:
    """The doors of one core.

    Attributes:
        cores: the core by the name of the transport, ``direct`` and ``grpc``.
        routes: what operators are told, likewise.
        rest: base URLs by the same names.
        grpc_address: of the servicer.

    Args:
        core: what to serve.
        facade: settings of the front doors.
        max_message_bytes: of the servicer.
        routes: what operators are told, if they are.
        scripted: whether the core says what the test said, to the microsecond.
    """

    def __init__(
        self,
        core: ChatCore,
        facade: FacadeSettings | None = None,
        *,
        max_message_bytes: int = 64 * MEBIBYTE,
        routes: RouteCore | None = None,
        scripted: bool = False,
    ) -> None:
        self._core = core
        self._told = routes
        self._normal = (lambda found: found) if scripted else timeless
        self._facade = facade
        self._limit = max_message_bytes
        self.rest: dict[str, str] = {}
        self.grpc_address = ""

    async def __aenter__(self) -> Doors:
        self._grpc = GrpcServer(
            self._core, "127.0.0.1:0", max_message_bytes=self._limit, routes=self._told
        )
        self.grpc_address = await self._grpc.start()
        self._client = Client(self.grpc_address, max_message_bytes=self._limit)
        self.cores: dict[str, ChatCore] = {"direct": self._core, "grpc": self._client}
        self.routes: dict[str, RouteCore] = (
            {} if self._told is None else {"direct": self._told, "grpc": self._client}
        )
        self._servers = {}
        for name, core in self.cores.items():
            app = create_app(core, self._facade, self.routes.get(name))
            server = RestServer(app, "127.0.0.1:0")
            self.rest[name] = "http://" + await server.start()
            self._servers[name] = server
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(server.stop(0.5) for server in self._servers.values()))
        await self._client.close()
        await self._grpc.stop(0.5)

    async def each(self, call: Callable[[ChatCore], Awaitable[Any]]) -> list[Any]:
        """The outcome of the call through each transport."""
        return [self._normal(await outcome(call(core))) for core in self.cores.values()]

    async def each_rest(self, method: str, path: str, **options: Any) -> list[Any]:
        """The answer to an HTTP request at each front door."""
        found = []
        for url in self.rest.values():
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                found.append(self._normal(answer(await client.request(method, path, **options))))
        return found


# -- normal forms ---------------------------------------------------------------------------------


async def outcome(call: Awaitable[Any]) -> Any:
    """What came of a call: its value, or all there is to know about its error."""
    try:
        return await call
    except GatewayError as error:
        return facts(error)


def facts(error: GatewayError) -> dict[str, Any]:
    """All that an error says, the cause apart."""
    return {
        # The server has finer ones for its own use, which no caller is to see.
        "class": next(c for c in type(error).__mro__ if c.__module__ == errors.__name__),
        "message": error.message,
        "text": str(error),
        "retry_after": error.retry_after,
        "metadata": error.metadata,
        "request_id": error.request_id,
        "violations": error.violations if isinstance(error, InvalidRequest) else None,
        "served": error.served,
    }


async def events_of(stream: EventStream) -> list[Any]:
    """The events of a stream, and then the facts of its error if it has one."""
    found: list[Any] = []
    try:
        async with stream:
            async for event in stream:
                found.append(event)
    except GatewayError as error:
        found.append(facts(error))
    return found


def timeless(found: Any) -> Any:
    """An outcome or an answer without the seconds that its attempts took, which no two calls share."""
    if isinstance(found, list):
        return [timeless(each) for each in found]
    if isinstance(found, dict):
        return {
            name: "?" if name == "x-headgate-waited" else timeless(value)
            for name, value in found.items()
        }
    if isinstance(found, Message):
        found = copy.deepcopy(found)
        started = found.started if isinstance(found, chat_pb2.ChatEvent) else found
        served = (
            started if isinstance(started, chat_pb2.Served) else getattr(started, "served", None)
        )
        for attempt in served.tried if served is not None else ():
            attempt.ClearField("elapsed")
            attempt.ClearField("waited")
    elif isinstance(found, str):
        found = _SECONDS.sub(r"\1 ?s", found)
    return found


def answer(response: httpx.Response) -> dict[str, Any]:
    """What an HTTP answer says, the date apart."""
    headers = {name: value for name, value in response.headers.items() if name != "date"}
    return {"status": response.status_code, "headers": headers, "body": response.text}


# -- a core that does as it is told -----------------------------------------------------------------


class ScriptedCore:
    """A `ChatCore` that gives the events and then the error that it was given."""

    def __init__(self) -> None:
        self.events: Sequence[chat_pb2.ChatEvent] = ()
        self.response = chat_pb2.ChatResponse()
        self.make_error: Callable[[], BaseException] | None = None
        self.contexts: list[CallContext] = []
        self.is_ready = True

    def _raise(self, context: CallContext) -> None:
        self.contexts.append(context)
        if self.make_error is not None:
            error = self.make_error()
            if isinstance(error, GatewayError):
                error.request_id = context.request_id
            raise error

    async def chat_complete(
        self, request: chat_pb2.ChatRequest, context: CallContext
    ) -> chat_pb2.ChatResponse:
        self._raise(context)
        return self.response

    def chat_stream(self, request: chat_pb2.ChatRequest, context: CallContext) -> EventStream:
        async def batches() -> AsyncGenerator[list[chat_pb2.ChatEvent], None]:
            if self.events:
                yield list(self.events)
            self._raise(context)

        return EventStream(batches())

    async def list_models(
        self, request: model_service_pb2.ListModelsRequest, context: CallContext
    ) -> model_service_pb2.ListModelsResponse:
        self._raise(context)
        return model_service_pb2.ListModelsResponse()

    async def get_model(
        self, request: model_service_pb2.GetModelRequest, context: CallContext
    ) -> model_service_pb2.Model:
        self._raise(context)
        return model_service_pb2.Model(id=request.id)

    async def ready(self) -> bool:
        return self.is_ready


# -- what must not be left behind -------------------------------------------------------------------


def open_sockets() -> int:
    """How many TCP sockets this process holds; gRPC keeps a pair of its own that is none."""
    tcp = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            tcp.add(f"socket:[{line.split()[9]}]")
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}") in tcp
        except OSError:
            continue
    return count


def resident_bytes() -> int:
    """The memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def running_tasks() -> set[asyncio.Task[Any]]:
    """Tasks beside the current one, and beside those in which gRPC waits for the next call."""
    return {
        task
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task()
        and "_request_" not in getattr(task.get_coro(), "__qualname__", "")
    }


async def until(condition: Callable[[], bool], within: float = 5.0) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def nothing_left() -> AsyncGenerator[None, None]:
    """Fails if the block leaves tasks or sockets behind."""
    tasks, sockets = running_tasks(), open_sockets()
    yield
    try:
        await until(lambda: _gone(tasks, sockets))
    except TimeoutError:
        left = running_tasks() - tasks
        raise AssertionError(f"left: {left}, {open_sockets() - sockets} sockets") from None


def _gone(tasks: set[asyncio.Task[Any]], sockets: int) -> bool:
    if not running_tasks() - tasks and open_sockets() <= sockets:
        return True
    gc.collect()  # gRPC keeps a connection until the last object of its calls is gone
    return not running_tasks() - tasks and open_sockets() <= sockets


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR or "never" in text or "destroyed" in text:
            self.texts.append(f"{record.name}: {text}\n{record.exc_text or record.exc_info}")


@contextmanager
def no_complaints(*allowed: str) -> Iterator[None]:
    """Fails if asyncio, gRPC or uvicorn log errors, such as exceptions that nobody retrieved."""
    handler = _Complaints()
    loggers = [logging.getLogger(name) for name in ("asyncio", "grpc", "uvicorn", "headgate")]
    loggers += [logging.getLogger("headgate_server"), logging.getLogger("headgate_facade")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
        gc.collect()
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    texts = [text for text in handler.texts if not any(word in text for word in allowed)]
    assert not texts, "\n".join(texts)
