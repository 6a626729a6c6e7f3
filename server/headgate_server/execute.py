"""Runs a request on its candidates, one after the other, until one answers.

Owns the order of attempts and the rule that nothing is tried again once an event has gone out. The
translation is the dialect's, the sockets are `upstream`'s, the bookkeeping is the core's.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from headgate.errors import (
    GatewayError,
    QuotaExhausted,
    RateLimited,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.fold import Folder
from headgate.v1 import chat_pb2
from headgate_server.providers.base import HttpCall, Target
from headgate_server.providers.runtime import Provider
from headgate_server.settlement import Settlement

_log = logging.getLogger(__name__)

# Faults of a target that say nothing about the next one. Whatever is wrong with the request itself
# would be wrong there, too.
_NEXT_TARGET = (
    UpstreamUnavailable,
    UpstreamTimeout,
    UpstreamRejectedUs,
    UpstreamProtocol,
    RateLimited,
    QuotaExhausted,
)
_NOT_A_STREAM = ("application/json", "application/problem+json", "text/html", "application/xhtml")

Batch = list[chat_pb2.ChatEvent]


class Executor:
    """Makes attempts. One for all calls."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    async def complete(
        self,
        request: chat_pb2.ChatRequest,
        candidates: Sequence[Target],
        deadline: float | None,
        record: Settlement,
    ) -> chat_pb2.ChatResponse:
        """The first whole answer. Raises the last candidate's error if none has one."""
        for target in candidates:
            _begin(record, target)
            try:
                response = await self._complete_once(request, target, deadline)
            except GatewayError as error:
                self._blame(error, target, record)
                if target is candidates[-1] or not isinstance(error, _NEXT_TARGET):
                    raise
                continue
            response.model = response.model or target.model
            _served(response.served, record)
            return response
        raise UpstreamUnavailable("the model has no target")

    async def stream(
        self,
        request: chat_pb2.ChatRequest,
        candidates: Sequence[Target],
        deadline: float | None,
        record: Settlement,
    ) -> AsyncGenerator[Batch, None]:
        """The events of the first candidate that begins to answer."""
        for target in candidates:
            _begin(record, target)
            begun = False
            try:
                async with aclosing(self._stream_once(request, target, deadline)) as batches:
                    async for batch in batches:
                        if not begun:
                            begun = True
                            started = batch[0].started
                            started.model = started.model or target.model
                            _served(started.served, record)
                        yield batch
            except GatewayError as error:
                self._blame(error, target, record)
                if begun or target is candidates[-1] or not isinstance(error, _NEXT_TARGET):
                    raise
                continue
            return

    async def _complete_once(
        self, request: chat_pb2.ChatRequest, target: Target, deadline: float | None
    ) -> chat_pb2.ChatResponse:
        provider = self._providers[target.provider]
        if provider.always_stream:
            folder = Folder()
            async with aclosing(self._stream_once(request, target, deadline)) as batches:
                async for batch in batches:
                    for event in batch:
                        folder.add(event)
            return folder.response()
        call = provider.dialect.encode(request, target, provider.endpoint(), stream=False)
        answer = await provider.upstream.complete(call, deadline)
        if answer.status != 200:
            raise provider.dialect.decode_error(answer.status, answer.headers, answer.body)
        response = provider.dialect.decode(answer.body)
        response.warnings.extend(call.warnings)
        return response

    async def _stream_once(
        self, request: chat_pb2.ChatRequest, target: Target, deadline: float | None
    ) -> AsyncGenerator[Batch, None]:
        provider = self._providers[target.provider]
        dialect = provider.dialect
        call: HttpCall = dialect.encode(request, target, provider.endpoint(), stream=True)
        decoder = dialect.stream_decoder(request, target)
        warned = not call.warnings
        async with (
            provider.hold(deadline),
            provider.upstream.stream(call, deadline) as answer,
        ):
            if answer.status != 200:
                body = await answer.read_error()
                raise dialect.decode_error(answer.status, answer.headers, body)
            form = answer.headers.get("content-type", "").lower()
            if form.startswith(_NOT_A_STREAM):
                found = dialect.error_in_body(await answer.read_error())
                raise found or UpstreamProtocol(
                    f"the upstream answered {form!r} to a stream request"
                )
            async for piece in answer:
                batch = decoder.feed(piece)
                if batch:
                    if not warned:
                        warned = True
                        batch[0].started.warnings.extend(call.warnings)
                    yield batch
                if decoder.done:
                    break
            batch = decoder.finish()
            if not warned:
                batch[0].started.warnings.extend(call.warnings)
            yield batch
            await answer.drain()

    def _blame(self, error: GatewayError, target: Target, record: Settlement) -> None:
        """Adds the target to the error, and takes our secrets out of its text."""
        error.with_metadata(provider=target.provider, model=target.model)
        for secret in self._providers[target.provider].secrets:
            if secret in error.message:
                error.message = error.message.replace(secret, "[redacted]")
                error.args = (error.message,)
        if isinstance(error, UpstreamRejectedUs):
            _log.error(
                "provider %s rejected the gateway's credentials (request %s)",
                target.provider,
                record.request_id,
            )


def _begin(record: Settlement, target: Target) -> None:
    record.attempts += 1
    record.provider, record.target_model = target.provider, target.model


def _served(served: chat_pb2.Served, record: Settlement) -> None:
    served.provider = record.provider
    served.model = record.target_model
    served.attempts = record.attempts
