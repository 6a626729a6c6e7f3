"""Runs a request on its candidates, one after the other, until one answers.

Owns the order of attempts and the rule that nothing is tried again once an event has gone out. One
attempt is the provider's business, the bookkeeping the core's.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from headgate.core import CallContext
from headgate.errors import (
    FieldViolation,
    GatewayError,
    InvalidRequest,
    QuotaExhausted,
    RateLimited,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Target
from headgate_server.providers.runtime import Batch, Provider
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
_REDACTED = "[redacted]"
# What is shorter, such as a header that is "1", is no secret, and its place could not be told anyway.
_SHORTEST_SECRET = 4
_SHORTEST_PIECE = 8


class Executor:
    """Makes attempts. One for all calls."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    async def complete(
        self,
        request: chat_pb2.ChatRequest,
        candidates: Sequence[Target],
        context: CallContext,
        record: Settlement,
    ) -> chat_pb2.ChatResponse:
        """The first whole answer. Raises the last candidate's error if none has one."""
        for target in candidates:
            _begin(record, target)
            try:
                provider = self._providers[target.provider]
                response = await provider.complete(request, target, context)
            except GatewayError as error:
                self._blame(error, target, record)
                if target is candidates[-1] or not isinstance(error, _NEXT_TARGET):
                    raise
                continue
            self._complement(response, target, record)
            return response
        raise UpstreamUnavailable("the model has no target")

    async def stream(
        self,
        request: chat_pb2.ChatRequest,
        candidates: Sequence[Target],
        context: CallContext,
        record: Settlement,
    ) -> AsyncGenerator[Batch, None]:
        """The events of the first candidate that begins to answer."""
        for target in candidates:
            _begin(record, target)
            begun = False
            try:
                provider = self._providers[target.provider]
                async with aclosing(provider.stream(request, target, context)) as batches:
                    async for batch in batches:
                        if not begun:
                            begun = True
                            self._complement(batch[0].started, target, record)
                        yield batch
            except GatewayError as error:
                self._blame(error, target, record)
                if begun or target is candidates[-1] or not isinstance(error, _NEXT_TARGET):
                    raise
                continue
            return

    async def count_tokens(
        self,
        request: chat_pb2.ChatRequest,
        candidates: Sequence[Target],
        context: CallContext,
        record: Settlement,
    ) -> chat_pb2.CountTokensResponse | None:
        """The number from the first target; None if its provider does not count.

        Only the first is asked: another target counts in another way.
        """
        target = candidates[0]
        try:
            counted = await self._providers[target.provider].count_tokens(request, target, context)
        except GatewayError as error:
            _begin(record, target)
            self._blame(error, target, record)
            raise
        if counted is not None:
            _begin(record, target)
            self._served(counted.served, record)
        return counted

    def _complement(
        self,
        answer: chat_pb2.ChatResponse | chat_pb2.Started,
        target: Target,
        record: Settlement,
    ) -> None:
        """What every answer says, also where the provider does not."""
        answer.model = answer.model or target.model
        if not answer.id:
            answer.id = f"chatcmpl-{secrets.token_hex(12)}"
        if not answer.create_time.seconds:
            answer.create_time.GetCurrentTime()
        self._served(answer.served, record)

    def _served(self, served: chat_pb2.Served, record: Settlement) -> None:
        served.provider = record.provider
        served.model = record.target_model
        served.attempts = record.attempts
        # Another gateway has said already whose extras these are.
        served.dialect = served.dialect or self._providers[record.provider].dialect_name

    def _blame(self, error: GatewayError, target: Target, record: Settlement) -> None:
        """Adds the target to the error, and takes our secrets out of its text."""
        error.with_metadata(provider=target.provider, model=target.model)
        for secret in self._providers[target.provider].secrets:
            _redact(error, secret)
        if isinstance(error, UpstreamRejectedUs):
            _log.error(
                "provider %s rejected the gateway's credentials (request %s)",
                target.provider,
                record.request_id,
            )


def _begin(record: Settlement, target: Target) -> None:
    record.attempts += 1
    record.provider, record.target_model = target.provider, target.model


def _redact(error: GatewayError, secret: str) -> None:
    """Takes a secret out of all that an error says."""
    error.message = _without(secret, error.message)
    error.args = (error.message,)
    error.metadata = {name: _without(secret, fact) for name, fact in error.metadata.items()}
    if isinstance(error, InvalidRequest):
        error.violations = [
            FieldViolation(_without(secret, each.field), _without(secret, each.description))
            for each in error.violations
        ]


def _without(secret: str, text: str) -> str:
    if len(secret) < _SHORTEST_SECRET:
        return text
    text = text.replace(secret, _REDACTED)
    # Long texts are clipped, perhaps in the middle of the secret.
    rest = text.removesuffix("…")
    for length in range(min(len(secret) - 1, len(rest)), _SHORTEST_PIECE - 1, -1):
        if rest.endswith(secret[:length]):
            return rest[:-length] + _REDACTED + text[len(rest) :]
    return text
