"""Another gateway as a provider: the same messages go on, over gRPC. No translation, nothing lost.

Owns what one gateway owes the next: the request id, what is left of the deadline, cancellation, and a
count of the gateways that a call has passed; and what the next one's errors mean here. The channel is the
client's, which is handed in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from headgate.core import CallContext, ChatCore
from headgate.errors import (
    STATUS_DETAILS_KEY,
    DeadlineExceeded,
    GatewayError,
    InternalError,
    PermissionDenied,
    StoreUnavailable,
    Unauthenticated,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.v1 import chat_pb2
from headgate_server.faults import RejectedElsewhere, Unreachable
from headgate_server.keyring import Key, Keyring
from headgate_server.providers.base import Target, Timeouts
from headgate_server.providers.runtime import Batch
from headgate_server.providers.vendors import Vendor

# More gateways in a row than anybody has: they are configured in a circle.
_MAX_HOPS = 8
# Nobody tries again sooner: with retries at every one of them a circle would be a storm.
_CIRCLE_SECONDS = 60.0
_SLACK_SECONDS = 0.05
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteProvider:
    """See `headgate_server.providers.runtime.Provider`.

    Attributes:
        core: the other gateway, authenticated by the client that reaches it.
        patience: limits of a call whose target has none of its own.
    """

    name: str
    vendor: Vendor
    core: ChatCore
    patience: Timeouts
    secrets: tuple[str, ...] = ()
    kind: str = "headgate"
    api_version: str | None = None
    dialect_name: str = "headgate"
    keyring: Keyring | None = None

    async def complete(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> chat_pb2.ChatResponse:
        """One attempt at a whole answer."""
        limits = target.timeouts or self.patience
        onward = self._onward(context, limits)
        with self._translated(context, limits):
            return await self._within(
                limits.first_byte,
                "first_byte",
                self.core.chat_complete(_addressed(request, target), onward),
            )

    async def stream(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """One attempt at a streamed answer."""
        limits = target.timeouts or self.patience
        onward = self._onward(context, limits)
        # A gateway holds its answer's head back until there is content.
        first = min((limits.first_token, "first_token"), (limits.first_byte, "first_byte"))
        with self._translated(context, limits):
            async with self.core.chat_stream(_addressed(request, target), onward) as events:
                batch = await self._within(*first, events.next_batch())
                while batch:
                    yield batch
                    batch = await self._within(limits.idle, "idle", events.next_batch())

    async def count_tokens(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> chat_pb2.CountTokensResponse | None:
        """The tokens of the prompt; an estimate of the other gateway stays one."""
        limits = target.timeouts or self.patience
        onward = self._onward(context, limits)
        asked = chat_pb2.CountTokensRequest(request=_addressed(request, target))
        with self._translated(context, limits):
            return await self._within(
                limits.first_byte, "first_byte", self.core.count_tokens(asked, onward)
            )

    def _onward(self, context: CallContext, limits: Timeouts) -> CallContext:
        """The context of the next gateway's call: our credentials, not the caller's."""
        if context.hops >= _MAX_HOPS:
            raise UpstreamProtocol(
                f"the call has passed {context.hops} gateways; do they name each other as providers?",
                retry_after=_CIRCLE_SECONDS,
            )
        ends = time.monotonic() + limits.total
        return replace(
            context,
            bearer=None,
            peer=(),
            hops=context.hops + 1,
            # There, all of our callers are one tenant, and each attempt is a call: an answer that was
            # kept for one of them is not another's.
            idempotency_key=None,
            cache=None,
            headers=(),
            deadline=ends if context.deadline is None else min(context.deadline, ends),
        )

    async def _within(self, seconds: float, limit: str, work: Awaitable[T]) -> T:
        """What the other gateway says, if it says it in time."""
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError as error:
            raise self._late(limit, seconds) from error

    def _late(self, limit: str, seconds: float) -> UpstreamTimeout:
        return UpstreamTimeout(
            f"the gateway {self.name!r} took longer than timeouts.{limit} = {seconds:g} s"
        )

    @contextmanager
    def _translated(self, context: CallContext, limits: Timeouts) -> Iterator[None]:
        """Errors of the next gateway in the words of this one.

        What is not here means the same to our caller as it did to us: a fault of the request, a limit of
        rate or quota, an overload, a timeout, nonsense of its upstream.
        """
        try:
            yield
        except (Unauthenticated, PermissionDenied) as error:
            raise UpstreamRejectedUs(
                f"the gateway {self.name!r} does not accept this gateway's credentials"
            ) from error
        except UpstreamRejectedUs as error:
            # Its credentials somewhere else, so another key of ours for it would not help.
            raise RejectedElsewhere(
                error.message, retry_after=error.retry_after, metadata=error.metadata
            ) from error
        except (InternalError, StoreUnavailable) as error:
            raise UpstreamUnavailable(
                f"the gateway {self.name!r} failed: {error.message}",
                retry_after=error.retry_after,
                metadata=error.metadata,
            ) from error
        except UpstreamUnavailable as error:
            if type(error) is UpstreamUnavailable and not _is_told(error):
                # gRPC's own: nobody is there, or the connection broke.
                raise Unreachable(error.message, retry_after=error.retry_after) from error
            raise
        except DeadlineExceeded as error:
            ours = context.deadline is None or time.monotonic() < context.deadline - _SLACK_SECONDS
            if ours and type(error) is DeadlineExceeded:
                raise self._late("total", limits.total) from error
            raise


def _is_told(error: GatewayError) -> bool:
    """Whether a gateway has said so, and not gRPC for it: gateways send their errors' details."""
    read = getattr(error.__cause__, "trailing_metadata", None)
    return read is None or any(name == STATUS_DETAILS_KEY for name, _ in read() or ())


def _addressed(request: chat_pb2.ChatRequest, target: Target) -> chat_pb2.ChatRequest:
    """The request under the next gateway's name of the model."""
    if request.model == target.model:
        return request
    onward = chat_pb2.ChatRequest()
    onward.CopyFrom(request)
    onward.model = target.model
    return onward
