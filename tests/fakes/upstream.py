"""A scripted upstream of the OpenAI kind over real sockets, well behaved or not.

Owns the server and its script. Knows nothing of the gateway, starts no thread, leaves no task
behind, and ends every wait by itself. Steps come from steps.py, bodies from bodies.py; all are
names of this module too.

    async with FakeUpstream() as up:
        up.script(error(503), sse(chunks(["Hel", "lo"]), stop_after=1, ending="hang"))
        ...                                 # two requests to up.base_url + "/chat/completions"
        assert await up.requests[1].wait_closed() and not up.requests[1].finished
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from types import TracebackType
from typing import Self

from fakes.bodies import MODEL, USAGE, Json, chunks, completion, tool_call
from fakes.steps import (
    Answer,
    answer,
    bad_chunks,
    bad_status_line,
    big,
    bomb,
    chat,
    close_after,
    disconnect,
    echo,
    endless,
    error,
    gzipped,
    hang,
    hang_after_headers,
    html,
    huge_headers,
    informed,
    rate_limited,
    raw,
    redirect,
    reset,
    slow,
    sse,
    trickle,
)
from fakes.wire import Connection, Ending, Exchange, Headers, Piece, Record, Step

__all__ = [
    "MODEL",
    "USAGE",
    "Answer",
    "Ending",
    "Exchange",
    "FakeUpstream",
    "Headers",
    "Json",
    "Piece",
    "Record",
    "Step",
    "answer",
    "bad_chunks",
    "bad_status_line",
    "big",
    "bomb",
    "chat",
    "chunks",
    "close_after",
    "completion",
    "disconnect",
    "echo",
    "endless",
    "error",
    "gzipped",
    "hang",
    "hang_after_headers",
    "html",
    "huge_headers",
    "informed",
    "rate_limited",
    "raw",
    "redirect",
    "reset",
    "slow",
    "sse",
    "tool_call",
    "trickle",
]


class FakeUpstream:
    """An upstream on a free loopback port that does what its script says, one step per request."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.tls = tls
        self.host = host
        self.port = 0
        self.requests: list[Record] = []
        self.connections = 0  # accepted so far
        self.failures: list[Exception] = []
        self._steps: deque[Step] = deque()
        self._default: Step = chat()
        self._arrived = asyncio.Event()
        self._open: set[Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """What an SDK takes: scheme, address and `/v1`."""
        return f"{self.origin}/v1"

    @property
    def origin(self) -> str:
        """Scheme and address alone, for vendors whose SDK adds the whole path."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def script(self, *steps: Step) -> None:
        """Queue behaviours, one for each request to come."""
        self._steps.extend(steps)

    def default(self, step: Step) -> None:
        """Set the behaviour for requests beyond the script; `chat()` if never called."""
        self._default = step

    async def wait_for_requests(self, n: int = 1, within: float = 5.0) -> list[Record]:
        """Wait until n requests came in (whole, with their bodies)."""
        async with asyncio.timeout(within):
            while len(self.requests) < n:
                self._arrived.clear()
                await self._arrived.wait()
        return self.requests

    async def start(self) -> None:
        """Listen; after a `stop`, on the same port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), self.host, self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and drop the open ones."""
        if self._server is None:
            return
        self._server.close()
        await asyncio.sleep(0)  # connections accepted in this very turn show up
        open_now = list(self._open)
        for connection in open_now:
            connection.task.cancel()
            connection.transport.abort()
        await asyncio.gather(*(c.task for c in open_now), return_exceptions=True)
        await asyncio.gather(*(c.lost.wait() for c in open_now))
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.stop()
        if error is None and self.failures:
            raise ExceptionGroup("steps of the fake upstream failed", self.failures)

    def adopt(self, connection: Connection) -> int:
        """A new connection; its number."""
        self._open.add(connection)
        self.connections += 1
        return self.connections - 1

    def drop(self, connection: Connection) -> None:
        """A connection is lost."""
        self._open.discard(connection)

    def take(self, record: Record) -> Step:
        """A request came in; what to do with it."""
        self.requests.append(record)
        self._arrived.set()
        return self._steps.popleft() if self._steps else self._default
