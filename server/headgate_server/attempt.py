"""One attempt, unary or streamed: what its target's health and the account of the call get to know.

Owns the holding back of a stream until its first content. Does not know what comes next.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeVar

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate_server.account import complement
from headgate_server.call import Call
from headgate_server.course import Step
from headgate_server.faults import Fault, fault_of
from headgate_server.providers.runtime import Batch
from headgate_server.settlement import Settlement, Tried

# Events that are held back while a stream has no content; more than that is no stream at all.
_MAX_HELD_EVENTS = 1024
# A deadline ends a call twice: on our clock, and by a cancellation from the caller.
_SLACK_SECONDS = 0.05
_BEFORE_CONTENT = ("started", "part_started")

T = TypeVar("T")


class Attempt:
    """One attempt under way: what its target's health and the account of the call get to know."""

    __slots__ = ("_clock", "_ended", "_late", "_silent", "_tried", "began", "fault", "step")

    def __init__(self, step: Step, tried: Tried, clock: Callable[[], float]) -> None:
        self.step = step
        self.fault = Fault.CANCELLED
        self._tried = tried
        self._clock = clock
        self._ended = False
        self._silent = True
        self._late = False
        self.began = tried.began = now = clock()
        step.candidate.health.begin(now)

    def first(self) -> None:
        """The first content is here, or the whole answer."""
        now = self._clock()
        seconds = now - self.began
        self._silent = False
        self._tried.seconds = seconds
        self._tried.fault = Fault.NONE
        self.step.candidate.health.first(seconds, now)

    def failed(self, error: GatewayError) -> None:
        """It failed."""
        self.fault = self._tried.fault = fault_of(error)
        self._late = self.fault is Fault.CANCELLED  # errors are not raised when callers leave
        status = error.metadata.get("upstream_status", "")
        self._tried.status = int(status) if status.isdecimal() else 0

    def left(self, deadline: float | None, *, overtaken: bool) -> None:
        """It was cancelled: another was quicker, or the caller left; near its deadline that is why."""
        self._late = overtaken or (
            deadline is not None and self._clock() >= deadline - _SLACK_SECONDS
        )

    def end(self) -> None:
        """It is over, whatever its ending. Only the first time counts."""
        if self._ended:
            return
        self._ended = True
        now = self._clock()
        seconds = now - self.began
        if self.fault is not Fault.NONE:
            self._tried.seconds = self._tried.seconds or seconds
        self.step.candidate.health.end(
            self.fault, seconds, now, silent=self._silent, late=self._late
        )


class Begun(msgspec.Struct, gc=False):
    """A stream whose first content has come.

    Attributes:
        held: the events up to it.
        batches: what follows.
        attempt: to be ended with the stream.
    """

    held: Batch
    batches: AsyncGenerator[Batch, None]
    attempt: Attempt


class Kind(Protocol[T]):
    """Unary or stream.

    Attributes:
        deadline: the caller's.
    """

    deadline: float | None

    async def run(self, step: Step, attempt: Attempt) -> T:
        """Makes the attempt. Raises `GatewayError`."""
        ...

    def succeeded(self, result: T, by: tuple[Settlement, Step]) -> None:
        """Completes the answer."""
        ...

    def told(self, result: T) -> chat_pb2.Served:
        """Who answered, as the answer says."""
        ...

    async def discard(self, result: T) -> None:
        """Throws a result away that came too late."""
        ...


class Whole:
    """Whole answers."""

    __slots__ = ("_call", "deadline")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.deadline = call.context.deadline

    async def run(self, step: Step, attempt: Attempt) -> chat_pb2.ChatResponse:
        """The whole answer."""
        candidate, call = step.candidate, self._call
        response = await candidate.provider.complete(
            call.request, candidate.target, call.context, step.key
        )
        attempt.first()
        attempt.fault = Fault.NONE
        attempt.end()
        return response

    def succeeded(self, result: chat_pb2.ChatResponse, by: tuple[Settlement, Step]) -> None:
        """Says who answered."""
        record, step = by
        complement(result, step.candidate.target, step.candidate.provider, record)

    def told(self, result: chat_pb2.ChatResponse) -> chat_pb2.Served:
        """Who answered."""
        return result.served

    async def discard(self, result: chat_pb2.ChatResponse) -> None:
        """Nothing is left of it."""


class Opened:
    """Streams, up to their first content."""

    __slots__ = ("_call", "deadline")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.deadline = call.context.deadline

    async def run(self, step: Step, attempt: Attempt) -> Begun:
        """The stream, when its first content is here."""
        candidate, call = step.candidate, self._call
        batches = candidate.provider.stream(call.request, candidate.target, call.context, step.key)
        held: Batch = []
        try:
            async for batch in batches:
                held = held + batch if held else batch
                if _has_content(batch):
                    attempt.first()
                    return Begun(held, batches, attempt)
                if len(held) > _MAX_HELD_EVENTS:
                    raise UpstreamProtocol("the stream has events without end and no content")
            raise UpstreamProtocol("the stream ended before it began")
        except BaseException:
            # Not by the garbage collector, some time later: until then its socket would stay open.
            await batches.aclose()
            raise

    def succeeded(self, result: Begun, by: tuple[Settlement, Step]) -> None:
        """Says who answers."""
        record, step = by
        started = result.held[0].started
        complement(started, step.candidate.target, step.candidate.provider, record)

    def told(self, result: Begun) -> chat_pb2.Served:
        """Who answers."""
        return result.held[0].started.served

    async def discard(self, result: Begun) -> None:
        """Closes it."""
        result.attempt.end()
        await result.batches.aclose()


def _has_content(batch: Batch) -> bool:
    """Whether there is something that a caller would see, or the answer's end."""
    return any(event.WhichOneof("event") not in _BEFORE_CONTENT for event in batch)
