"""What every front door does with HTTP.

Headers to a CallContext, bodies within a limit, bytes out, and noticing that the client has gone. Plain
ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html), because these lines run for every
request. Owns no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

from headgate import metadata
from headgate.core import CallContext
from headgate.errors import PayloadTooLarge
from headgate_facade.connection import client_connection

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would collect the events otherwise:
    # https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
    (b"x-accel-buffering", b"no"),
]


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


def call_context(scope: Scope) -> CallContext:
    """Reads the request's headers.

    The key travels as OpenAI's and newer Anthropic SDKs send it (`Authorization: Bearer`), or as Azure's,
    Anthropic's and Google's do; the first of that order wins. Google's clients may put it into the query.
    """
    found: dict[bytes, bytes] = {}
    callers = False
    for name, value in scope["headers"]:
        if name in _WANTED:
            found.setdefault(name, value)
        elif name not in _USUAL and name[:2] == b"x-":
            callers = True
    bearer: str | None = None
    scheme, _, key = found.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        bearer = key.strip().decode("latin-1")
    else:
        for header in _KEY_HEADERS:
            if header in found:
                bearer = found[header].strip().decode("latin-1")
                break
        else:
            if b"key=" in scope["query_string"]:
                keys = parse_qs(scope["query_string"].decode("latin-1")).get("key")
                bearer = keys[0] if keys else None
    connection = client_connection(scope)
    once, wish = found.get(b"idempotency-key"), found.get(b"x-headgate-cache")
    return CallContext(
        request_id=metadata.request_id_or_new(_text(found.get(b"x-request-id"))),
        bearer=bearer,
        peer=connection.names if connection is not None else (),
        traceparent=_text(found.get(b"traceparent")),
        tracestate=_text(found.get(b"tracestate")),
        headers=_callers(scope) if callers else (),
        idempotency_key=metadata.idempotency_key(_text(once)) if once else None,
        cache=metadata.cache_wish(_text(wish)) if wish else None,
    )


_KEY_HEADERS = (b"api-key", b"x-api-key", b"x-goog-api-key")
_WANTED = frozenset(
    (
        *(b"authorization", b"x-request-id", b"traceparent", b"tracestate", b"idempotency-key"),
        *(b"x-headgate-cache", *_KEY_HEADERS),
    )
)
# What clients send with every request: few shall pay for the search for other `x-` headers.
_USUAL = frozenset(
    (
        *(b"host", b"connection", b"accept", b"accept-encoding", b"user-agent", b"content-type"),
        *(b"content-length", b"x-goog-api-client", b"x-goog-user-project"),
        *(b"x-stainless-lang", b"x-stainless-package-version", b"x-stainless-os"),
        *(b"x-stainless-arch", b"x-stainless-runtime", b"x-stainless-runtime-version"),
        *(b"x-stainless-async", b"x-stainless-retry-count", b"x-stainless-read-timeout"),
        *(b"x-stainless-timeout", b"x-stainless-helper-method"),
    )
)


def _callers(scope: Scope) -> tuple[tuple[str, str], ...]:
    return metadata.callers_headers(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        PayloadTooLarge: it is, or says that it will be, larger than the limit.
        ClientGone: it never became whole.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise PayloadTooLarge(f"the body is larger than {limit} bytes")
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise PayloadTooLarge(f"the body is larger than {limit} bytes")
        pieces.append(piece)
        if not message.get("more_body"):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def one_line(body: bytes) -> bytes:
    """JSON for a `data:` line: JSON that goes through as it came may be written over several."""
    if b"\n" in body or b"\r" in body:
        return body.replace(b"\n", b" ").replace(b"\r", b" ")
    return body


async def send_body(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class cancelled_when_gone:
    """Cancels the block, quietly, when the client closes the connection.

    Must be entered after the body was read: the next message can only be the disconnect. A
    cancellation from elsewhere, such as the server's own end, passes through.
    """

    __slots__ = ("_connection", "_gone", "_receive", "_task", "_watcher")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._connection = client_connection(scope)
        self._receive = receive
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        if self._connection is not None:
            self._connection.on_lost = self._cancel
        else:
            self._watcher = asyncio.ensure_future(self._watch())

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._connection is not None:
            self._connection.on_lost = None
        if self._watcher is not None:
            self._watcher.cancel()
        if exc_type is None or not self._gone or self._task is None:
            return False
        return issubclass(exc_type, asyncio.CancelledError) and self._task.uncancel() == 0

    def _cancel(self) -> None:
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel()
