"""From HTTP to the core and back: the one path that every chat front door takes.

Owns the order of things: body, call, status line, events, errors early and late, pings, hang-ups. What
the bytes look like is the `Door`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from headgate.core import CallContext, ChatCore, EventStream
from headgate.errors import (
    GatewayError,
    InternalError,
    InvalidRequest,
    Overloaded,
    UpstreamProtocol,
)
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson
from headgate_facade.failures import Words, error_headers, in_words
from headgate_facade.http import (
    JSON,
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    call_context,
    cancelled_when_gone,
    read_body,
    send_body,
)
from headgate_facade.served import answer_headers
from headgate_facade.settings import FacadeSettings

_log = logging.getLogger(__name__)


class StreamWriter(Protocol):
    """Writes one streamed answer in a door's format. Sans-I/O."""

    headers: Headers
    """Of the stream, such as its content type."""
    ping: bytes
    """What keeps a quiet stream alive; empty if the format has nothing for it."""

    def write(self, events: Sequence[chat_pb2.ChatEvent]) -> bytes:
        """The bytes for events that arrived together; may be empty."""
        ...

    def error(self, error: GatewayError) -> bytes:
        """The last bytes of a stream that failed: the status line is out.

        The error has the words of the request's body already.
        """
        ...


class Asked(Protocol):
    """A request as its body asks for it."""

    @property
    def request(self) -> chat_pb2.ChatRequest:
        """The message for the core."""
        ...

    def words(self, path: str) -> str:
        """A field path of `request` as a path into the body, for errors."""
        ...


class Call(Asked, Protocol):
    """A request for an answer."""

    @property
    def stream(self) -> bool:
        """Whether to answer with a stream."""
        ...

    def answer(self, response: chat_pb2.ChatResponse) -> bytes:
        """The body of a whole answer."""
        ...

    def writer(self) -> StreamWriter:
        """A writer for a streamed answer."""
        ...


class Door(Protocol):
    """A REST dialect: pure translations between its bodies and the proto messages.

    Attributes:
        id_header: a further name under which answers carry the request's id; empty if there is none.
    """

    id_header: bytes = b""

    def read(self, scope: Scope, body: bytes) -> Call:
        """Reads a request. Raises `InvalidRequest` in the words of the body."""
        ...

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error, which has the words of the request's body already."""
        ...

    def error_headers(self, error: GatewayError, request_id: str) -> Headers:
        """The headers of an error."""
        return error_headers(error, request_id)


class CountingDoor(Door, Protocol):
    """A door that counts tokens, too.

    Attributes:
        count_name: the member of its answer that holds the number.
    """

    count_name: str

    def read_count(self, scope: Scope, body: bytes) -> Asked:
        """Reads a request to count. Raises `InvalidRequest` in the words of the body."""
        ...

    def counted(self, tokens: int) -> bytes:
        """The body of the answer."""
        ...


AnyAsked = TypeVar("AnyAsked", bound=Asked)
AnyDoor = TypeVar("AnyDoor", bound=Door)


class _Endpoint(ABC, Generic[AnyDoor, AnyAsked]):
    """A plain ASGI app: reads, answers, and says what went wrong."""

    def __init__(self, core: ChatCore, settings: FacadeSettings, door: AnyDoor) -> None:
        self._core = core
        self._settings = settings
        self._door = door

    @abstractmethod
    def _read(self, scope: Scope, body: bytes) -> AnyAsked: ...

    @abstractmethod
    async def _answer(self, asked: AnyAsked, context: CallContext, send: Send) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        context = call_context(scope)
        asked: AnyAsked | None = None
        error: GatewayError
        try:
            asked = self._read(scope, await read_body(scope, receive, self._settings.body_limit))
            async with cancelled_when_gone(scope, receive):
                await self._answer(asked, context, send)
            return
        except GatewayError as raised:
            error = raised
        except ClientGone:
            return
        except UNFIT as raised:
            error = unfit(raised, InvalidRequest if asked is None else UpstreamProtocol)
        except Exception:
            # The core's own defects arrive as InternalError; this one is the front door's.
            _log.exception("request %s failed", context.request_id)
            error = InternalError(f"internal error; the log has it under {context.request_id}")
        if asked is not None:
            error = in_words(error, asked.words)
        headers = self._door.error_headers(error, context.request_id)
        if self._door.id_header:
            headers.append((self._door.id_header, context.request_id.encode()))
        body = self._door.error(error, context.request_id)
        await send_body(send, error.http_status, headers, body)

    def _headers(
        self,
        context: CallContext,
        served: chat_pb2.Served | None,
        warnings: Sequence[chat_pb2.Warning],
    ) -> Headers:
        headers = answer_headers(context, served, warnings)
        if self._door.id_header:
            headers.append((self._door.id_header, context.request_id.encode()))
        return headers


UNFIT = (RecursionError, UnicodeDecodeError, MalformedJson)
"""What JSON raises that passed its first reader, and not the next."""


def unfit(found: Exception, kind: type[InvalidRequest] | type[UpstreamProtocol]) -> GatewayError:
    """Whose JSON it is, and what is wrong with it.

    What goes through as it came is looked at where it is needed, and by readers who stand higher on the
    stack than the first one.
    """
    whose = "the body" if kind is InvalidRequest else "the upstream's answer"
    if isinstance(found, RecursionError):
        return kind(f"{whose} holds JSON that is nested too deeply")
    if isinstance(found, UnicodeDecodeError):
        return kind(f"{whose} is not valid UTF-8")
    return kind(f"{whose} holds JSON that cannot be read: {found}")


class CountEndpoint(_Endpoint[CountingDoor, Asked]):
    """Counts the tokens of a prompt."""

    def _read(self, scope: Scope, body: bytes) -> Asked:
        return self._door.read_count(scope, body)

    async def _answer(self, asked: Asked, context: CallContext, send: Send) -> None:
        request = chat_pb2.CountTokensRequest(request=asked.request)
        counted = await self._core.count_tokens(request, context)
        warnings = list(counted.warnings)
        if counted.estimated:
            why = "estimated, because the provider does not count"
            warnings.insert(0, chat_pb2.Warning(field=self._door.count_name, message=why))
        served = counted.served if counted.HasField("served") else None  # nobody serves an estimate
        headers = self._headers(context, served, warnings)
        await send_body(send, 200, [JSON, *headers], self._door.counted(counted.input_tokens))


class ChatEndpoint(_Endpoint[Door, Call]):
    """Answers, whole or as a stream."""

    def _read(self, scope: Scope, body: bytes) -> Call:
        return self._door.read(scope, body)

    async def _answer(self, asked: Call, context: CallContext, send: Send) -> None:
        if asked.stream:
            await self._stream(asked, context, send)
        else:
            await self._complete(asked, context, send)

    async def _complete(self, call: Call, context: CallContext, send: Send) -> None:
        response = await self._core.chat_complete(call.request, context)
        body = call.answer(response)
        headers = self._headers(context, response.served, response.warnings)
        await send_body(send, 200, [JSON, *headers], body)

    async def _stream(self, call: Call, context: CallContext, send: Send) -> None:
        """Awaits the first events before the status line, so that early errors keep their status."""
        writer = call.writer()
        events = self._core.chat_stream(call.request, context)
        pinger: _Pinger | None = None
        try:
            batch = await events.next_batch()
            started = batch[0].started
            headers = self._headers(context, started.served, started.warnings)
            headers = [*writer.headers, *headers]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            pinger = _Pinger(send, self._settings.ping_interval, writer.ping)
            await self._pump(batch, events, writer, send, pinger, call.words, context.request_id)
        finally:
            if pinger is not None:
                pinger.stop()
            await events.aclose()

    async def _pump(
        self,
        batch: list[chat_pb2.ChatEvent],
        events: EventStream,
        writer: StreamWriter,
        send: Send,
        pinger: _Pinger,
        words: Words,
        request_id: str,
    ) -> None:
        try:
            while batch:
                data = writer.write(batch)
                if data:
                    pinger.last = time.monotonic()
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                batch = await events.next_batch()
        except GatewayError as error:
            error.request_id = error.request_id or request_id
            await _last(writer.error(in_words(error, words)), send)
        except Exception:
            # The front door's own defect; without an error the stream might pass for a whole one.
            _log.exception("request %s failed", request_id)
            opaque = InternalError(f"internal error; the log has it under {request_id}")
            opaque.request_id = request_id
            await _last(writer.error(opaque), send)
        except asyncio.CancelledError:
            # The listener's end cuts what outlasts its patience. (Or the client has gone, and this
            # goes nowhere.)
            await _last(writer.error(Overloaded("the gateway is stopping")), send)
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _last(data: bytes, send: Send) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


class _Pinger:
    """Sends something without meaning when a stream has been quiet, so that proxies do not cut it.

    One timer for the whole stream, re-armed when it fires; a task only when a ping is really due.
    """

    def __init__(self, send: Send, interval: float, ping: bytes) -> None:
        self.last = time.monotonic()
        self._send = send
        self._interval = interval
        self._message = {"type": "http.response.body", "body": ping, "more_body": True}
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(interval, self._look) if ping else None

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _look(self) -> None:
        quiet = time.monotonic() - self.last
        if quiet >= self._interval and (self._task is None or self._task.done()):
            self.last = time.monotonic()
            self._task = self._loop.create_task(self._ping())
        self._timer = self._loop.call_later(max(self._interval - quiet, 0.01), self._look)

    async def _ping(self) -> None:
        await self._send(self._message)
