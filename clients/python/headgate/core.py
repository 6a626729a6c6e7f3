"""The one interface between front doors and the core, whatever lies between the two.

`headgate.Client` satisfies `ChatCore` over a gRPC channel, the server's `Core` satisfies it
directly. A front door takes a `ChatCore` and cannot tell which one it has.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from headgate import metadata
from headgate.admin.v1 import route_service_pb2
from headgate.v1 import chat_pb2, model_service_pb2


@dataclass(frozen=True, slots=True)
class CallContext:
    """What belongs to a call besides its message.

    Attributes:
        request_id: goes into logs, error details and the answer's metadata.
        deadline: on the clock of `time.monotonic`, in seconds; None means no deadline.
        bearer: the caller's key, without ``Bearer``; never shown in a repr.
        peer: names out of the caller's verified client certificate (common name, DNS and URI
            alternative names); empty without mTLS.
        traceparent, tracestate: W3C trace context, passed on as they are.
        hops: how many gateways the call has passed already.
        headers: the caller's ``x-...`` headers or metadata, by lower-case name, for routing rules; never
            shown in a repr, since some name their secrets so.
        idempotency_key: repeated unary calls with the same one run once.
        cache: what the caller wants of the exact cache: ``on``, ``off`` or ``refresh``; None leaves it to
            the configuration.
    """

    request_id: str = field(default_factory=metadata.new_request_id)
    deadline: float | None = None
    bearer: str | None = field(default=None, repr=False)
    peer: tuple[str, ...] = ()
    traceparent: str | None = None
    tracestate: str | None = None
    hops: int = 0
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    idempotency_key: str | None = None
    cache: str | None = None

    @classmethod
    def with_timeout(cls, seconds: float, *, bearer: str | None = None) -> CallContext:
        """A context whose deadline is so many seconds from now."""
        return cls(deadline=deadline_after(seconds), bearer=bearer)

    def remaining(self) -> float | None:
        """Seconds until the deadline, 0 if it has passed, None without one."""
        if self.deadline is None:
            return None
        return max(self.deadline - time.monotonic(), 0.0)


def deadline_after(seconds: float) -> float:
    """The deadline that is so many seconds from now."""
    return time.monotonic() + seconds


class EventStream:
    """The events of one answer. Iterate it, or take what has arrived with `next_batch`.

    Close it (`aclose`, or ``async with``) when leaving early: that cancels the upstream call.
    Nothing runs before the first event is asked for. Errors are raised where the next event would
    have been; after one, or after Completed, the stream is over.
    """

    __slots__ = ("_batches", "_pending")

    def __init__(self, batches: AsyncGenerator[list[chat_pb2.ChatEvent], None]) -> None:
        self._batches = batches
        self._pending: list[chat_pb2.ChatEvent] = []

    async def next_batch(self) -> list[chat_pb2.ChatEvent]:
        """The events that arrived together, at least one; an empty list at the end."""
        if self._pending:
            batch, self._pending = self._pending, []
            return batch
        try:
            return await self._batches.__anext__()
        except StopAsyncIteration:
            return []

    async def aclose(self) -> None:
        """Ends the call if it still runs. Safe to call twice, but not while another task reads."""
        self._pending = []
        await self._batches.aclose()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> chat_pb2.ChatEvent:
        batch = await self.next_batch()
        if not batch:
            raise StopAsyncIteration
        self._pending = batch[1:]
        return batch[0]

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class ChatCore(Protocol):
    """What the gateway can do. All methods raise `headgate.errors.GatewayError`.

    Cancelling the task that awaits a call, or closing an event stream, closes the upstream call.
    """

    async def chat_complete(
        self, request: chat_pb2.ChatRequest, context: CallContext
    ) -> chat_pb2.ChatResponse:
        """Runs a completion and returns it whole."""
        ...

    def chat_stream(self, request: chat_pb2.ChatRequest, context: CallContext) -> EventStream:
        """Runs a completion and returns its events as they arrive."""
        ...

    async def count_tokens(
        self, request: chat_pb2.CountTokensRequest, context: CallContext
    ) -> chat_pb2.CountTokensResponse:
        """Counts the tokens of a prompt, or estimates them."""
        ...

    async def list_models(
        self, request: model_service_pb2.ListModelsRequest, context: CallContext
    ) -> model_service_pb2.ListModelsResponse:
        """Lists the models that the caller may use, page by page."""
        ...

    async def get_model(
        self, request: model_service_pb2.GetModelRequest, context: CallContext
    ) -> model_service_pb2.Model:
        """Returns one model."""
        ...

    async def ready(self) -> bool:
        """Whether calls can be taken now: false while starting, draining or unreachable."""
        ...


class RouteCore(Protocol):
    """What operators are told about routing. Both methods raise `headgate.errors.GatewayError`.

    `headgate.Client` satisfies it over a gRPC channel, the server's `Admin` directly.
    """

    async def explain(
        self, request: route_service_pb2.ExplainRequest, context: CallContext
    ) -> route_service_pb2.ExplainResponse:
        """Where a request would go and why; calls no provider."""
        ...

    async def list_targets(
        self, request: route_service_pb2.ListTargetsRequest, context: CallContext
    ) -> route_service_pb2.ListTargetsResponse:
        """The live state of every target."""
        ...
