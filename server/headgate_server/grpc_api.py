"""The gRPC servicers: messages in, messages or rich statuses out. Thin on purpose.

Owns what gRPC knows and the core must not: metadata, deadlines, certificates, status codes.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable
from typing import Any, NoReturn, TypeVar

import grpc.aio

from headgate import metadata
from headgate.admin.v1 import route_service_pb2, route_service_pb2_grpc
from headgate.core import CallContext, ChatCore, RouteCore
from headgate.errors import GatewayError, InternalError, to_trailers
from headgate.v1 import (
    chat_pb2,
    chat_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)

_log = logging.getLogger(__name__)

T = TypeVar("T")

# What may stand in a metadata value, and how much of it: names of models can be anything, and what
# gRPC refuses to send would fail the call.
_UNPRINTABLE = re.compile(r"[^ -~]")
_MAX_NAME_CHARACTERS = 256
# Peers accept 8 KiB of metadata by default, and bytes travel as base64.
_MAX_TRAILER_BYTES = 2048

# grpc.aio reports "no deadline" as one that is centuries away.
_NO_DEADLINE_SECONDS = 10 * 365 * 24 * 3600.0

# The aio context is generic over messages that we do not care about here.
Context = Any


class ChatServicer(chat_service_pb2_grpc.ChatServiceServicer):
    """`headgate.v1.ChatService` over a `ChatCore`."""

    def __init__(self, core: ChatCore) -> None:
        self._core = core

    async def ChatComplete(
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> chat_pb2.ChatResponse:
        """The whole completion."""
        call = call_context(context)
        try:
            response = await self._core.chat_complete(request, call)
            # Not as initial metadata, which here would be a batch of its own: 50 µs a call, for what
            # arrives in the same moment anyway.
            served = response.served
            context.set_trailing_metadata((*_answered_by(call, served), _trailer(served)))
        except Exception as error:
            await _abort(context, error, call)
        return response

    async def ChatStream(  # type: ignore[override]  # it writes its events and returns nothing
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> None:
        """The completion's events."""
        call = call_context(context)
        events = self._core.chat_stream(request, call)
        try:
            batch = await events.next_batch()
            served = batch[0].started.served if batch else chat_pb2.Served()
            context.set_trailing_metadata((_trailer(served),))
            await context.send_initial_metadata(_answered_by(call, served))
            while batch:
                for event in batch:
                    await context.write(event)
                batch = await events.next_batch()
        except Exception as error:
            await _abort(context, error, call)
        finally:
            await events.aclose()

    async def CountTokens(
        self, request: chat_pb2.CountTokensRequest, context: Context
    ) -> chat_pb2.CountTokensResponse:
        """The tokens of a prompt."""
        call = call_context(context)
        return await _answered(self._core.count_tokens(request, call), context, call)


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """`headgate.v1.ModelService` over a `ChatCore`."""

    def __init__(self, core: ChatCore) -> None:
        self._core = core

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        """One page of models."""
        call = call_context(context)
        return await _answered(self._core.list_models(request, call), context, call)

    async def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: Context
    ) -> model_service_pb2.Model:
        """One model."""
        call = call_context(context)
        return await _answered(self._core.get_model(request, call), context, call)


class RouteServicer(route_service_pb2_grpc.RouteServiceServicer):
    """`headgate.admin.v1.RouteService` over a `RouteCore`."""

    def __init__(self, core: RouteCore) -> None:
        self._core = core

    async def Explain(
        self, request: route_service_pb2.ExplainRequest, context: Context
    ) -> route_service_pb2.ExplainResponse:
        """Where a request would go and why."""
        call = call_context(context)
        return await _answered(self._core.explain(request, call), context, call)

    async def ListTargets(
        self, request: route_service_pb2.ListTargetsRequest, context: Context
    ) -> route_service_pb2.ListTargetsResponse:
        """The live state of every target."""
        call = call_context(context)
        return await _answered(self._core.list_targets(request, call), context, call)


def call_context(context: Context) -> CallContext:
    """The core's view of an RPC: its credentials, deadline, ids, and what routing rules look at."""
    given: dict[str, str] = {}
    callers: list[tuple[str, str]] = []
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            given.setdefault(key, value)
            if key.startswith(metadata.CALLERS):
                callers.append((key, value))
    scheme, _, bearer = given.get(metadata.AUTHORIZATION, "").partition(" ")
    once, wish = given.get(metadata.IDEMPOTENCY_KEY), given.get(metadata.CACHE)
    left = context.time_remaining()
    return CallContext(
        request_id=metadata.request_id_or_new(given.get(metadata.REQUEST_ID)),
        deadline=(
            time.monotonic() + left if left is not None and left < _NO_DEADLINE_SECONDS else None
        ),
        bearer=bearer.strip() if scheme.lower() == "bearer" else None,
        peer=_certificate_names(context),
        traceparent=given.get(metadata.TRACEPARENT),
        tracestate=given.get(metadata.TRACESTATE),
        hops=_count(given.get(metadata.HOPS, "")),
        headers=metadata.callers_headers(callers) if callers else (),
        idempotency_key=metadata.idempotency_key(once) if once else None,
        cache=metadata.cache_wish(wish) if wish else None,
    )


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 0


def _certificate_names(context: Context) -> tuple[str, ...]:
    """Common name, DNS and URI names of the client's certificate; gRPC has verified it."""
    properties = context.auth_context()
    if not properties:
        return ()
    names = [
        *properties.get("x509_common_name", ()),
        *properties.get("peer_dns", ()),
        *properties.get("peer_uri", ()),
    ]
    return tuple(dict.fromkeys(name.decode("utf-8", "replace") for name in names if name))


async def _answered(result: Awaitable[T], context: Context, call: CallContext) -> T:
    try:
        return await result
    except Exception as error:
        await _abort(context, error, call)


def _answered_by(call: CallContext, served: chat_pb2.Served) -> tuple[tuple[str, str], ...]:
    """The metadata that says who answered."""
    return (
        (metadata.REQUEST_ID, call.request_id),
        (metadata.PROVIDER, _printable(served.provider)),
        (metadata.MODEL, _printable(served.model)),
        (metadata.ATTEMPTS, str(served.attempts)),
        (metadata.ROUTE, _printable(served.route)),
    )


def _trailer(served: chat_pb2.Served) -> tuple[str, bytes]:
    """How the call was routed, as a message; without the single attempts if they are too many."""
    packed = served.SerializeToString()
    if len(packed) > _MAX_TRAILER_BYTES:
        kept = chat_pb2.Served()
        kept.CopyFrom(served)
        for field in ("tried", "model", "route"):
            kept.ClearField(field)
            packed = kept.SerializeToString()
            if len(packed) <= _MAX_TRAILER_BYTES:
                break
    return (metadata.SERVED, packed)


async def _abort(context: Context, error: Exception, call: CallContext) -> NoReturn:
    """Ends the call with the error's status."""
    if isinstance(error, grpc.aio.InternalError):
        # gRPC could not write: the caller has gone, and the cancellation is on its way.
        raise asyncio.CancelledError from error
    if not isinstance(error, GatewayError):  # a core says this itself; this is for the rest of us
        _log.error("call %s failed", call.request_id, exc_info=error)
        error = InternalError(f"internal error; the log has it under {call.request_id}")
    trailers = ((metadata.REQUEST_ID, call.request_id), *to_trailers(error, call.request_id))
    try:
        await context.abort(error.grpc_code, error.message, trailers)
    except grpc.aio.InternalError as gone:
        # The caller's deadline passed there, too, before our status could be written.
        raise asyncio.CancelledError from gone
    raise AssertionError("abort returned")  # it always raises


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text[:_MAX_NAME_CHARACTERS])
