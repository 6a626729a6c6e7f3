"""Another gateway as a provider: the same messages go on, over gRPC. No translation, nothing lost.

Owns what one gateway owes the next: the request id, what is left of the deadline, cancellation, and a
count of the gateways that a call has passed. The channel is the client's, which is handed in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from headgate.core import CallContext, ChatCore
from headgate.errors import (
    DeadlineExceeded,
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
from headgate_server.keyring import Key, Keyring
from headgate_server.providers.base import Target
from headgate_server.providers.runtime import Batch
from headgate_server.providers.vendors import Vendor

# More gateways in a row than anybody has: they are configured in a circle.
_MAX_HOPS = 8
_SLACK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that another gateway gets: to its first event, between two, for everything."""

    first_byte: float
    idle: float
    total: float


@dataclass(frozen=True, slots=True)
class RemoteProvider:
    """See `headgate_server.providers.runtime.Provider`.

    Attributes:
        core: the other gateway, authenticated by the client that reaches it.
        patience: limits of a call.
    """

    name: str
    vendor: Vendor
    core: ChatCore
    patience: Patience
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
        onward = self._onward(context)
        with self._translated(context):
            async with asyncio.timeout(self.patience.first_byte):
                return await self.core.chat_complete(_addressed(request, target), onward)

    async def stream(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """One attempt at a streamed answer."""
        onward = self._onward(context)
        with self._translated(context):
            async with self.core.chat_stream(_addressed(request, target), onward) as events:
                async with asyncio.timeout(self.patience.first_byte):
                    batch = await events.next_batch()
                while batch:
                    yield batch
                    async with asyncio.timeout(self.patience.idle):
                        batch = await events.next_batch()

    async def count_tokens(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> chat_pb2.CountTokensResponse | None:
        """The tokens of the prompt; an estimate of the other gateway stays one."""
        onward = self._onward(context)
        with self._translated(context):
            async with asyncio.timeout(self.patience.first_byte):
                asked = chat_pb2.CountTokensRequest(request=_addressed(request, target))
                return await self.core.count_tokens(asked, onward)

    def _onward(self, context: CallContext) -> CallContext:
        """The context of the next gateway's call: our credentials, not the caller's."""
        if context.hops >= _MAX_HOPS:
            raise UpstreamProtocol(
                f"the call has passed {context.hops} gateways; do they name each other as providers?"
            )
        ends = time.monotonic() + self.patience.total
        return replace(
            context,
            bearer=None,
            peer=(),
            hops=context.hops + 1,
            deadline=ends if context.deadline is None else min(context.deadline, ends),
        )

    @contextmanager
    def _translated(self, context: CallContext) -> Iterator[None]:
        """Errors of the next gateway in the words of this one."""
        try:
            yield
        except TimeoutError as error:
            raise UpstreamTimeout(f"the gateway {self.name!r} did not answer in time") from error
        except (Unauthenticated, PermissionDenied) as error:
            raise UpstreamRejectedUs(
                f"the gateway {self.name!r} does not accept this gateway's credentials"
            ) from error
        except (InternalError, StoreUnavailable) as error:
            raise UpstreamUnavailable(
                f"the gateway {self.name!r} failed: {error.message}",
                retry_after=error.retry_after,
                metadata=error.metadata,
            ) from error
        except DeadlineExceeded as error:
            ours = context.deadline is None or time.monotonic() < context.deadline - _SLACK_SECONDS
            if ours and type(error) is DeadlineExceeded:
                raise UpstreamTimeout(
                    f"the gateway {self.name!r} took longer than timeouts.total"
                    f" = {self.patience.total:g} s"
                ) from error
            raise


def _addressed(request: chat_pb2.ChatRequest, target: Target) -> chat_pb2.ChatRequest:
    """The request under the next gateway's name of the model."""
    if request.model == target.model:
        return request
    onward = chat_pb2.ChatRequest()
    onward.CopyFrom(request)
    onward.model = target.model
    return onward
