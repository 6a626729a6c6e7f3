"""From HTTP to the core and back: the one path that every chat front door takes.

Owns the order of things: body, call, status line, events, errors early and late, pings, hang-ups. What
the bytes look like is the `Door`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from headgate.core import CallContext, ChatCore, EventStream
from headgate.errors import GatewayError, InternalError, Overloaded
from headgate.v1 import chat_pb2
from headgate_facade.http import (
    JSON,
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    answer_headers,
    call_context,
    cancelled_when_gone,
    read_body,
    send_body,
)
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
        """The last bytes of a stream that failed: the status line is out."""
        ...


class Call(Protocol):
    """One request as the body asks for it."""

    @property
    def request(self) -> chat_pb2.ChatRequest:
        """The message for the core."""
        ...

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
    """A REST dialect: pure translations between its bodies and the proto messages."""

    def read(self, scope: Scope, body: bytes) -> Call:
        """Reads a request. Raises `InvalidRequest`."""
        ...

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        ...

    def error_headers(self, error: GatewayError, request_id: str) -> Headers:
        """The headers of an error."""
        ...


class ChatEndpoint:
    """One door's endpoint, a plain ASGI app."""

    def __init__(self, core: ChatCore, settings: FacadeSettings, door: Door) -> None:
        self._core = core
        self._settings = settings
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        context = call_context(scope)
        try:
            call = self._door.read(
                scope, await read_body(scope, receive, self._settings.body_limit)
            )
            async with cancelled_when_gone(scope, receive):
                if call.stream:
                    await self._stream(call, context, send)
                else:
                    await self._complete(call, context, send)
        except GatewayError as error:
            await self._send_error(send, error, context)
        except ClientGone:
            return
        except Exception:
            # The core's own defects arrive as InternalError; this one is the front door's.
            _log.exception("request %s failed", context.request_id)
            opaque = InternalError(f"internal error; the log has it under {context.request_id}")
            await self._send_error(send, opaque, context)

    async def _complete(self, call: Call, context: CallContext, send: Send) -> None:
        response = await self._core.chat_complete(call.request, context)
        body = call.answer(response)
        headers = answer_headers(context, response.served, response.warnings)
        await send_body(send, 200, [JSON, *headers], body)

    async def _stream(self, call: Call, context: CallContext, send: Send) -> None:
        """Awaits the first events before the status line, so that early errors keep their status."""
        writer = call.writer()
        events = self._core.chat_stream(call.request, context)
        pinger: _Pinger | None = None
        try:
            batch = await events.next_batch()
            started = batch[0].started
            headers = [*writer.headers, *answer_headers(context, started.served, started.warnings)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            pinger = _Pinger(send, self._settings.ping_interval, writer.ping)
            await self._pump(batch, events, writer, send, pinger)
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
    ) -> None:
        try:
            while batch:
                data = writer.write(batch)
                if data:
                    pinger.last = time.monotonic()
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                batch = await events.next_batch()
        except GatewayError as error:
            await _last(writer.error(error), send)
        except asyncio.CancelledError:
            # The listener's end cuts what outlasts its patience. (Or the client has gone, and this
            # goes nowhere.)
            await _last(writer.error(Overloaded("the gateway is stopping")), send)
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_error(self, send: Send, error: GatewayError, context: CallContext) -> None:
        """An error before the status line is out."""
        headers = self._door.error_headers(error, context.request_id)
        body = self._door.error(error, context.request_id)
        await send_body(send, error.http_status, headers, body)


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
