"""A configured provider at work: its dialect, its address, its connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from headgate.errors import DeadlineExceeded, Overloaded
from headgate_server.providers.base import Dialect, Endpoint
from headgate_server.providers.vendors import Vendor
from headgate_server.upstream import Upstream


class Gate:
    """Lets so many calls through at a time, and so many more wait.

    For llama.cpp's server: it does not notice that a caller has gone who still stands in its queue.
    """

    def __init__(self, permits: int, max_waiting: int) -> None:
        self._permits = asyncio.Semaphore(permits)
        self._max_waiting = max_waiting
        self._waiting = 0

    @asynccontextmanager
    async def hold(self, deadline: float | None) -> AsyncGenerator[None, None]:
        """Waits for a place, at most until the deadline (`time.monotonic`)."""
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} calls wait for this model already", retry_after=1.0)
        self._waiting += 1
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        try:
            async with asyncio.timeout(left):
                await self._permits.acquire()
        except TimeoutError as error:
            raise DeadlineExceeded("the caller's deadline passed in the queue") from error
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._permits.release()


@dataclass(frozen=True, slots=True)
class Provider:
    """One entry of the section `providers`.

    Attributes:
        name: in the configuration.
        kind: its kind there.
        vendor: facts of that kind.
        dialect: its wire format.
        upstream: its connections.
        endpoint: where it is now; raises `Overloaded` while it is nowhere (a model that loads).
        always_stream: whole answers are asked for as streams, too, and folded; for servers that
            notice only on a stream that the caller has gone.
        gate: bounds the calls at the same time, where the server's own queue is a bad one.
        secrets: texts that must not reach a caller, whatever the upstream quotes.
    """

    name: str
    kind: str
    vendor: Vendor
    dialect: Dialect
    upstream: Upstream
    endpoint: Callable[[], Endpoint]
    always_stream: bool = False
    api_version: str | None = None
    gate: Gate | None = None
    secrets: tuple[str, ...] = ()

    def hold(self, deadline: float | None) -> AbstractAsyncContextManager[None]:
        """A place among the calls that may run at the same time."""
        return nullcontext() if self.gate is None else self.gate.hold(deadline)
