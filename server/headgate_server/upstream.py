"""The data plane's one seam: sends a call to a provider, returns status, headers and bytes.

Owns a provider's connections, the limits of a call, and the rule that a kept connection which was closed
meanwhile is replaced once, unseen. Nothing else in the server opens a socket to a provider. Cancelling a
call, or leaving a stream, closes its connection. Redirects are never followed: the prompt and the key
would go along.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from urllib.parse import urlsplit

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol, UpstreamTimeout
from headgate_server.clock import Clock
from headgate_server.http1 import Connection, Origin, Stale, connect, request_head
from headgate_server.providers.base import HttpCall, Timeouts

_KEEP_SECONDS = 55.0  # usual load balancers close after 60
_MAX_KEPT = 1024
_DRAIN_SECONDS = 0.25
_MAX_HEADS = 256
_OWN_HEADERS = {"user-agent": "headgate", "accept-encoding": "identity"}


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A whole answer; of one whose status is not 200 perhaps only the beginning of its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StreamedAnswer:
    """An answer whose body is read piece by piece: iterate it for bytes as they arrive.

    The reader calls `progressed` whenever there was content in them: that alone is what keeps the limits
    `first_token` and `idle` from passing.
    """

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    def __aiter__(self) -> StreamedAnswer:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._connection.read()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def drain(self) -> None:
        """Takes what little follows an answer that is over, so that its connection can be kept."""
        with contextlib.suppress(GatewayError, TimeoutError):
            await self._connection.end(_DRAIN_SECONDS)

    async def read_error(self) -> bytes:
        """The beginning of the body, for an answer that is not a stream at all. Waits 2 s at most."""
        return await self._connection.reason()

    def progressed(self) -> None:
        """There was content in what has been read last."""
        self._connection.progress = True


class Upstream:
    """The connections to one provider.

    Args:
        provider: the provider's name, for error messages.
        timeouts: limits of each call that brings none of its own.
        max_body_bytes: the largest whole answer.
        tls: TLS settings; None means the system's roots.
    """

    def __init__(
        self,
        provider: str,
        timeouts: Timeouts,
        *,
        max_body_bytes: int = 64 * 1024 * 1024,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._provider = provider
        self._timeouts = timeouts
        self._max_body_bytes = max_body_bytes
        self._tls = tls
        self._kept: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        # By URL and headers: the headers are kept, so that no other object can have their identity.
        self._heads: dict[tuple[str, int], tuple[Mapping[str, str], Origin, bytes]] = {}

    async def complete(
        self, call: HttpCall, deadline: float | None, limits: Timeouts | None = None
    ) -> Answer:
        """Sends a call and returns the whole answer.

        Args:
            call: what to send.
            deadline: the caller's, on the clock of `time.monotonic`.
            limits: of this call; the upstream's own if None.

        Raises:
            UpstreamUnavailable: no connection, or a broken one.
            UpstreamTimeout, DeadlineExceeded: our limit or the caller's passed.
            UpstreamProtocol: not HTTP, or a body over the limit.
        """
        origin, head = self._prepare(call)
        clock = self._clock(deadline, limits, streamed=False)
        fresh = False
        while True:
            connection = await self._connection(origin, clock, fresh=fresh)
            try:
                connection.send(head, call.body, clock)
                body = await connection.whole(self._max_body_bytes)
                return Answer(connection.status, connection.headers, body)
            except Stale:
                fresh = True
            finally:
                self._release(origin, connection)

    @contextlib.asynccontextmanager
    async def stream(
        self, call: HttpCall, deadline: float | None, limits: Timeouts | None = None
    ) -> AsyncGenerator[StreamedAnswer, None]:
        """Sends a call; the body is read by the caller. Leaving early closes the connection.

        Raises as `complete` does, here and while reading.
        """
        origin, head = self._prepare(call)
        clock = self._clock(deadline, limits, streamed=True)
        fresh = False
        while True:
            connection = await self._connection(origin, clock, fresh=fresh)
            try:
                connection.send(head, call.body, clock)
                try:
                    await connection.head()
                except Stale:
                    fresh = True
                    continue
                yield StreamedAnswer(connection)
                return
            finally:
                self._release(origin, connection)

    async def close(self) -> None:
        """Closes all connections."""
        for connection in list(self._open):
            connection.abort()

    def _prepare(self, call: HttpCall) -> tuple[Origin, bytes]:
        """Where to, and the request's head. Kept, since one provider has few URLs and few keys."""
        place = (call.url, id(call.headers))
        known = self._heads.get(place)
        if known is None:
            parts = urlsplit(call.url)
            if not parts.hostname:
                raise UpstreamProtocol(f"provider {self._provider!r} has no usable base_url")
            secure = parts.scheme == "https"
            if secure and self._tls is None:
                self._tls = ssl.create_default_context()
            origin = Origin(
                parts.hostname,
                parts.port or (443 if secure else 80),
                self._tls if secure else None,
            )
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            host = parts.netloc.rpartition("@")[2]
            head = request_head("POST", path, host, {**_OWN_HEADERS, **call.headers})
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            known = self._heads[place] = (call.headers, origin, head)
        return known[1], known[2] + b"%d\r\n\r\n" % len(call.body)

    async def _connection(self, origin: Origin, clock: Clock, *, fresh: bool) -> Connection:
        """A kept connection, or a new one. After a stale one only that: a request is repeated once."""
        kept = None if fresh else self._kept.get(origin)
        while kept:
            connection = kept.pop()
            if connection.usable and connection.idle_until > time.monotonic():
                return connection
            connection.abort()
        left = clock.ends - time.monotonic()
        limit = clock.limits.connect
        if left <= 0:
            raise clock.late("total")
        try:
            connection = await connect(origin, min(limit, left), self._lost)
        except UpstreamTimeout as error:
            if left < limit:
                raise clock.late("total") from error
            raise
        self._open.add(connection)
        return connection

    def _release(self, origin: Origin, connection: Connection) -> None:
        if not connection.finish():
            return
        kept = self._kept.setdefault(origin, [])
        seconds = _advertised_keep_alive(connection.headers.get("keep-alive"))
        if len(kept) >= _MAX_KEPT or seconds <= 0:
            connection.abort()
            return
        connection.idle_until = time.monotonic() + seconds
        kept.append(connection)

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)

    def _clock(self, deadline: float | None, limits: Timeouts | None, *, streamed: bool) -> Clock:
        limits = limits or self._timeouts
        ends = time.monotonic() + limits.total
        callers = deadline is not None and deadline < ends
        if deadline is not None and callers:
            ends = deadline
        return Clock(self._provider, limits, streamed, ends, callers)


def _advertised_keep_alive(value: str | None) -> float:
    """How long to keep a connection: a second less than the server says, if it says."""
    if value:
        for parameter in value.split(","):
            name, _, seconds = parameter.strip().partition("=")
            if name.lower() == "timeout" and seconds.isdigit():
                return min(int(seconds) - 1.0, _KEEP_SECONDS)
    return _KEEP_SECONDS
