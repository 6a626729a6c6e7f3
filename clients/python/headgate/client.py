"""The gRPC client: a `ChatCore`, and a `RouteCore`, whose other half runs somewhere else.

::

    async with headgate.Client("127.0.0.1:50051", api_key="...") as client:
        answer = await client.chat_complete(request, timeout=30)
        async with client.chat_stream(request) as events:
            async for event in events: ...

Owns one channel, made at first use and inside the running event loop (a channel must not cross a
fork, nor change loops). Knows nothing of REST.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, cast

import grpc
import grpc.aio

from headgate import metadata
from headgate.admin.v1 import route_service_pb2, route_service_pb2_grpc
from headgate.core import CallContext, EventStream, deadline_after
from headgate.errors import (
    DeadlineExceeded,
    GatewayError,
    UpstreamProtocol,
    UpstreamUnavailable,
    from_rpc_error,
)
from headgate.v1 import (
    chat_pb2,
    chat_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)

DEFAULT_TARGET = "127.0.0.1:50051"
_ON_THIS_MACHINE = re.compile(r"(unix:|(dns:/*|ipv[46]:)?(localhost|127\.[\d.]+|\[::1\]):\d+$)")
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# grpc.health.v1 in bytes, so that the base install needs no package for two of them: the request
# names no service, and field 1 of the answer is 1 for SERVING.
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
_READY_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards the core, all PEM. Default: the system's roots, no client certificate.

    Attributes:
        root_certificates: whom to trust.
        private_key, certificate_chain: who we are, for mTLS; both or neither.
        server_name: the name in the server's certificate, where it differs from the target's.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None
    server_name: str | None = None


class Client:
    """Calls a Headgate core over gRPC.

    Args:
        target: ``HOST:PORT``, ``unix:/path``, ``dns:///name:port``. Several addresses behind one
            name are used in turn.
        api_key: sent as ``authorization: Bearer``, unless the call's context has its own key.
        tls: TLS options; None means plaintext.
        timeout: the default deadline of a call in seconds; None means none.
        max_message_bytes: the largest message either way, 64 MiB like the server's default.
        keepalive_seconds: how often to ping a connection that has calls under way, so that a dead
            peer is noticed.
        options: further gRPC channel options.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        tls: Tls | None = None,
        timeout: float | None = None,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        keepalive_seconds: float = 30.0,
        options: Sequence[tuple[str, str | int]] = (),
    ) -> None:
        self._target = target
        self._api_key = api_key
        self._tls = tls
        self._timeout = timeout
        self._options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.keepalive_time_ms", int(keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.lb_policy_name", "round_robin"),
            *options,
        ]
        if _ON_THIS_MACHINE.match(target):
            # gRPC would send even loopback through the proxy that HTTP_PROXY names.
            self._options.append(("grpc.enable_http_proxy", 0))
        if tls and tls.server_name:
            self._options.append(("grpc.ssl_target_name_override", tls.server_name))
        self._channel: grpc.aio.Channel | None = None
        # The stubs are typed for both flavours of channel; ours is always the async one.
        self._chat: Any = None
        self._models: Any = None
        self._routes: Any = None

    def __repr__(self) -> str:
        return f"headgate.Client({self._target!r})"

    async def chat_complete(
        self,
        request: chat_pb2.ChatRequest,
        context: CallContext | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - becomes the RPC's deadline
    ) -> chat_pb2.ChatResponse:
        """Runs a completion and returns it whole. Raises `GatewayError`."""
        context = self._context(context, timeout)
        stub, sent, left = self._prepare(context)
        return cast(
            chat_pb2.ChatResponse,
            await _typed(stub.ChatComplete(request, metadata=sent, timeout=left), context),
        )

    def chat_stream(
        self,
        request: chat_pb2.ChatRequest,
        context: CallContext | None = None,
        *,
        timeout: float | None = None,
    ) -> EventStream:
        """Runs a completion and returns its events as they arrive. They raise `GatewayError`."""
        return EventStream(self._events(request, self._context(context, timeout)))

    async def count_tokens(
        self,
        request: chat_pb2.CountTokensRequest,
        context: CallContext | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - becomes the RPC's deadline
    ) -> chat_pb2.CountTokensResponse:
        """Counts the tokens of a prompt, or estimates them. Raises `GatewayError`."""
        context = self._context(context, timeout)
        stub, sent, left = self._prepare(context)
        call = stub.CountTokens(request, metadata=sent, timeout=left)
        return cast(chat_pb2.CountTokensResponse, await _typed(call, context))

    async def list_models(
        self,
        request: model_service_pb2.ListModelsRequest | None = None,
        context: CallContext | None = None,
    ) -> model_service_pb2.ListModelsResponse:
        """Lists the models that the caller may use, one page."""
        context = self._context(context, None)
        _, sent, left = self._prepare(context)
        call = self._models.ListModels(
            request or model_service_pb2.ListModelsRequest(), metadata=sent, timeout=left
        )
        return cast(model_service_pb2.ListModelsResponse, await _typed(call, context))

    async def get_model(
        self,
        request: model_service_pb2.GetModelRequest,
        context: CallContext | None = None,
    ) -> model_service_pb2.Model:
        """Returns one model."""
        context = self._context(context, None)
        _, sent, left = self._prepare(context)
        call = self._models.GetModel(request, metadata=sent, timeout=left)
        return cast(model_service_pb2.Model, await _typed(call, context))

    async def explain(
        self,
        request: route_service_pb2.ExplainRequest,
        context: CallContext | None = None,
    ) -> route_service_pb2.ExplainResponse:
        """Where a request would go and why. For administrators. Raises `GatewayError`."""
        context = self._context(context, None)
        _, sent, left = self._prepare(context)
        call = self._routes.Explain(request, metadata=sent, timeout=left)
        return cast(route_service_pb2.ExplainResponse, await _typed(call, context))

    async def list_targets(
        self,
        request: route_service_pb2.ListTargetsRequest | None = None,
        context: CallContext | None = None,
    ) -> route_service_pb2.ListTargetsResponse:
        """The live state of every target. For administrators. Raises `GatewayError`."""
        context = self._context(context, None)
        _, sent, left = self._prepare(context)
        call = self._routes.ListTargets(
            request or route_service_pb2.ListTargetsRequest(), metadata=sent, timeout=left
        )
        return cast(route_service_pb2.ListTargetsResponse, await _typed(call, context))

    async def ready(self) -> bool:
        """Whether the core says that it is serving (grpc.health.v1)."""
        check: Any = self._connect().unary_unary(_HEALTH_CHECK)
        try:
            answer = await check(b"", timeout=_READY_TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
        return bytes(answer) == _SERVING

    async def close(self) -> None:
        """Closes the channel; calls under way are cancelled."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            self._chat = self._models = self._routes = None
            await channel.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _events(
        self, request: chat_pb2.ChatRequest, context: CallContext
    ) -> AsyncGenerator[list[chat_pb2.ChatEvent], None]:
        stub, sent, left = self._prepare(context)
        call = stub.ChatStream(request, metadata=sent, timeout=left)
        completed = False
        try:
            async for event in call:
                completed = event.HasField("completed")
                yield [event]
        except grpc.RpcError as error:
            raise _decoded(error, context) from error
        except asyncio.CancelledError as error:
            raise _cut_off(error, context) from error
        finally:
            call.cancel()
        if not completed:
            incomplete = UpstreamProtocol("the core's stream ended before it was complete")
            incomplete.request_id = context.request_id
            raise incomplete

    def _context(self, context: CallContext | None, timeout: float | None) -> CallContext:
        """The call's context; an explicit timeout wins over its deadline, the default does not."""
        context = context or CallContext()
        seconds = timeout
        if seconds is None and context.deadline is None:
            seconds = self._timeout
        return context if seconds is None else replace(context, deadline=deadline_after(seconds))

    def _prepare(self, context: CallContext) -> tuple[Any, list[tuple[str, str]], float | None]:
        """The stub, the metadata to send, and the seconds left."""
        left = context.remaining()
        if left is not None and left <= 0:
            late = DeadlineExceeded("the caller's deadline passed before the call began")
            late.request_id = context.request_id
            raise late
        sent = [(metadata.REQUEST_ID, context.request_id)]
        key = context.bearer if context.bearer is not None else self._api_key
        if key:
            # No key has such characters, and no metadata may: the core shall say that it is wrong.
            sent.append((metadata.AUTHORIZATION, f"Bearer {key if _sendable(key) else '?'}"))
        if context.traceparent and _sendable(context.traceparent):
            sent.append((metadata.TRACEPARENT, context.traceparent))
        if context.tracestate and _sendable(context.tracestate):
            sent.append((metadata.TRACESTATE, context.tracestate))
        if context.hops:
            sent.append((metadata.HOPS, str(context.hops)))
        if context.idempotency_key:
            idempotency_key = metadata.idempotency_key(context.idempotency_key)
            if idempotency_key:
                sent.append((metadata.IDEMPOTENCY_KEY, idempotency_key))
        if context.cache:
            wish = metadata.cache_wish(context.cache)
            if wish:
                sent.append((metadata.CACHE, wish))
        if context.headers:
            sent.extend(metadata.callers_headers(context.headers))
        self._connect()
        return self._chat, sent, left

    def _connect(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self._tls is None:
                channel = grpc.aio.insecure_channel(self._target, options=self._options)
            else:
                credentials = grpc.ssl_channel_credentials(
                    self._tls.root_certificates,
                    self._tls.private_key,
                    self._tls.certificate_chain,
                )
                channel = grpc.aio.secure_channel(self._target, credentials, options=self._options)
            self._channel = channel
            self._chat = chat_service_pb2_grpc.ChatServiceStub(channel)
            self._models = model_service_pb2_grpc.ModelServiceStub(channel)
            self._routes = route_service_pb2_grpc.RouteServiceStub(channel)
        return self._channel


async def _typed(call: Any, context: CallContext) -> object:
    """Awaits a unary call and raises its failure as a GatewayError."""
    try:
        return await call
    except grpc.RpcError as error:
        raise _decoded(error, context) from error
    except asyncio.CancelledError as error:
        call.cancel()
        raise _cut_off(error, context) from error


def _sendable(text: str) -> bool:
    """Whether gRPC takes it as the value of metadata: printable ASCII."""
    return text.isascii() and text.isprintable()


def _cut_off(error: asyncio.CancelledError, context: CallContext) -> BaseException:
    """What a cancelled wait means: gRPC says so also when it was the channel that was closed."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return error
    closed = UpstreamUnavailable("the client was closed while the call ran")
    closed.request_id = context.request_id
    return closed


def _decoded(error: grpc.RpcError, context: CallContext) -> GatewayError:
    decoded = from_rpc_error(error)
    decoded.request_id = decoded.request_id or context.request_id
    return decoded
