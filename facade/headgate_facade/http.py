"""What every front door does with HTTP.

Headers to a CallContext, bodies within a limit, answers out, and noticing that the client has gone. Plain
ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html), because these lines run for every
request. Owns no dialect.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from headgate import metadata
from headgate.core import CallContext
from headgate.errors import PayloadTooLarge
from headgate.v1 import chat_pb2

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
_UNPRINTABLE = re.compile(r"[^ -~]")


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


def call_context(scope: Scope) -> CallContext:
    """Reads the request's headers."""
    request_id = bearer = traceparent = tracestate = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                bearer = key.strip().decode("latin-1")
        elif name == b"x-request-id":
            request_id = value.decode("latin-1")
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
        elif name == b"tracestate":
            tracestate = value.decode("latin-1")
    return CallContext(
        request_id=metadata.request_id_or_new(request_id),
        bearer=bearer,
        peer=_peer(scope),
        traceparent=traceparent,
        tracestate=tracestate,
    )


def _peer(scope: Scope) -> tuple[str, ...]:
    """The names of the client certificate, from the listener; see rest_server."""
    extensions = scope.get("extensions")
    return extensions["headgate.peer"]["names"] if extensions else ()


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


async def send_body(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def cancelled_when_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancels the block, quietly, when the client closes the connection.

    Must be entered after the body was read: the next message can only be the disconnect. A
    cancellation from elsewhere, such as the server's own end, passes through.
    """
    task = asyncio.current_task()
    if task is None:  # pragma: no cover - an ASGI server always runs us in one
        raise RuntimeError("not in a task")
    gone = False

    async def watch() -> None:
        nonlocal gone
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                gone = True
                task.cancel()
                return

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task.uncancel() > 0:
            raise
    finally:
        watcher.cancel()


def answer_headers(
    context: CallContext,
    served: chat_pb2.Served,
    warnings: Sequence[chat_pb2.Warning],
) -> Headers:
    """The headers that tell who answered."""
    headers = [
        (b"x-request-id", context.request_id.encode()),
        (b"x-headgate-provider", header_value(served.provider)),
        (b"x-headgate-model", header_value(served.model)),
        (b"x-headgate-attempts", b"%d" % served.attempts),
    ]
    if warnings:
        text = "; ".join(f"{warning.field}: {warning.message}" for warning in warnings)
        headers.append((b"x-headgate-warnings", header_value(text[:2000])))
    return headers


def header_value(text: str) -> bytes:
    """Printable ASCII: names come from upstreams and callers, and must not break the header."""
    return _UNPRINTABLE.sub("?", text).encode()
