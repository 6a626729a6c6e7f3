"""The floor: the least that an ASGI server and an HTTP client cost in Python, with no gateway.

Owns a bare ASGI app for uvicorn that passes the bytes of a chat completion on with aiohttp and
back again, without looking at them. What a gateway costs above this is its own doing.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

UPSTREAM = os.environ.get("BENCH_UPSTREAM", "http://127.0.0.1:9100/v1") + "/chat/completions"
HEADERS = {"content-type": "application/json", "authorization": "Bearer x"}
sessions: list[aiohttp.ClientSession] = []


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one connection event of uvicorn."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["path"] == "/readyz":
        await _answer(send, 200, b"application/json", b"{}")
    else:
        await _forward(receive, send)


async def _forward(receive: Receive, send: Send) -> None:
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    async with sessions[0].post(UPSTREAM, data=body, headers=HEADERS) as answer:
        kind = answer.headers.get("content-type", "").encode()
        if answer.content_length is not None:
            await _answer(send, answer.status, kind, await answer.read())
            return
        await _start(send, answer.status, [(b"content-type", kind)])
        async for data in answer.content.iter_any():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    size = str(len(body)).encode()
    await _start(send, status, [(b"content-type", kind), (b"content-length", size)])
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        sessions.append(session)
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
