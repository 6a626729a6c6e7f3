"""POST /v1/chat/completions: the one path from HTTP to the core and back."""

from __future__ import annotations

import asyncio
import logging
import time

from headgate.core import CallContext, ChatCore, EventStream
from headgate.errors import GatewayError, InternalError, Overloaded
from headgate.v1 import chat_pb2
from headgate_facade.http import (
    EVENT_STREAM,
    JSON,
    ClientGone,
    Receive,
    Scope,
    Send,
    answer_headers,
    call_context,
    cancelled_when_gone,
    read_body,
    send_body,
)
from headgate_facade.openai.chat_in import ChatCall, read_chat
from headgate_facade.openai.chat_out import ChunkWriter, write_response
from headgate_facade.openai.errors import envelope, error_headers
from headgate_facade.settings import FacadeSettings

_log = logging.getLogger(__name__)
_PING = b": ping\n\n"


class ChatCompletions:
    """The endpoint, a plain ASGI app."""

    def __init__(self, core: ChatCore, settings: FacadeSettings) -> None:
        self._core = core
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        context = call_context(scope)
        try:
            call = read_chat(await read_body(scope, receive, self._settings.body_limit))
            async with cancelled_when_gone(scope, receive):
                if call.stream:
                    await self._stream(call, context, send)
                else:
                    await self._complete(call, context, send)
        except GatewayError as error:
            await send_error(send, error, context)
        except ClientGone:
            return
        except Exception:
            # The core's own defects arrive as InternalError; this one is the front door's.
            _log.exception("request %s failed", context.request_id)
            opaque = InternalError(f"internal error; the log has it under {context.request_id}")
            await send_error(send, opaque, context)

    async def _complete(self, call: ChatCall, context: CallContext, send: Send) -> None:
        response = await self._core.chat_complete(call.request, context)
        body = write_response(
            response,
            legacy_functions=call.legacy_functions,
            with_reasoning=self._settings.reasoning_in_unary,
        )
        headers = answer_headers(context, response.served, response.warnings)
        await send_body(send, 200, [JSON, *headers], body)

    async def _stream(self, call: ChatCall, context: CallContext, send: Send) -> None:
        """Awaits the first events before the status line, so that early errors keep their status."""
        writer = ChunkWriter(
            include_usage=call.include_usage,
            legacy_functions=call.legacy_functions,
        )
        events = self._core.chat_stream(call.request, context)
        pinger: _Pinger | None = None
        try:
            batch = await events.next_batch()
            started = batch[0].started
            headers = [*EVENT_STREAM, *answer_headers(context, started.served, started.warnings)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            pinger = _Pinger(send, self._settings.ping_interval)
            await self._pump(batch, events, writer, send, pinger)
        finally:
            if pinger is not None:
                pinger.stop()
            await events.aclose()

    async def _pump(
        self,
        batch: list[chat_pb2.ChatEvent],
        events: EventStream,
        writer: ChunkWriter,
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
            await self._last_event(error, send)
        except asyncio.CancelledError:
            # The listener's end cuts what outlasts its patience. (Or the client has gone, and this
            # goes nowhere.)
            await self._last_event(Overloaded("the gateway is stopping"), send)
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _last_event(self, error: GatewayError, send: Send) -> None:
        """The status line is out: the error is the stream's last event, and no [DONE] follows."""
        data = b"data: " + envelope(error) + b"\n\n"
        await send({"type": "http.response.body", "body": data, "more_body": True})


class _Pinger:
    """Sends a comment when a stream has been quiet, so that proxies do not take it for dead.

    One timer for the whole stream, re-armed when it fires; a task only when a ping is really due.
    """

    def __init__(self, send: Send, interval: float) -> None:
        self.last = time.monotonic()
        self._send = send
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(interval, self._look)

    def stop(self) -> None:
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
        await self._send({"type": "http.response.body", "body": _PING, "more_body": True})


async def send_error(send: Send, error: GatewayError, context: CallContext) -> None:
    """An error before the status line is out."""
    headers = error_headers(error, context.request_id)
    await send_body(send, error.http_status, headers, envelope(error))
