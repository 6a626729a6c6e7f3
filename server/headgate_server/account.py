"""What answers and errors say about who served them and what was tried.

Owns the `Served` message, and that no secret of ours is in an error's text.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable

from headgate.errors import (
    FieldViolation,
    GatewayError,
    InvalidRequest,
    QuotaExhausted,
    UpstreamRejectedUs,
)
from headgate.v1 import chat_pb2
from headgate_server.faults import fault_of
from headgate_server.providers.base import Target
from headgate_server.providers.runtime import Provider
from headgate_server.settlement import Settlement, Tried

_log = logging.getLogger(__name__)

_REDACTED = "[redacted]"
# What is shorter, such as a header that is "1", is no secret, and its place could not be told anyway.
_SHORTEST_SECRET = 4
_SHORTEST_PIECE = 8


def complement(
    answer: chat_pb2.ChatResponse | chat_pb2.Started,
    target: Target,
    provider: Provider,
    record: Settlement,
) -> None:
    """What every answer says, also where the provider does not."""
    answer.model = answer.model or target.model
    if not answer.id:
        answer.id = f"chatcmpl-{secrets.token_hex(12)}"
    if not answer.create_time.seconds:
        answer.create_time.GetCurrentTime()
    served(answer.served, record, provider)


def served(message: chat_pb2.Served, record: Settlement, provider: Provider) -> None:
    """Fills in who served, and what was tried before."""
    message.provider = record.provider
    message.model = record.target_model
    message.attempts = record.attempts
    # Another gateway has said already whose extras these are.
    message.dialect = message.dialect or provider.dialect_name
    message.route = record.route
    del message.tried[:]  # another gateway's; its attempts are one of ours
    tried = record.tried
    # A lone attempt that answered has been told already. With its time, `fold(events)` of a stream would
    # never equal the unary answer.
    if len(tried) > 1 or tried[0].waited:
        _add(message, tried)


def error_account(record: Settlement) -> chat_pb2.Served:
    """What was tried before an error."""
    message = chat_pb2.Served(
        provider=record.provider,
        model=record.target_model,
        attempts=record.attempts,
        route=record.route,
    )
    _add(message, record.tried)
    return message


def _add(message: chat_pb2.Served, tried: Iterable[Tried]) -> None:
    for each in tried:
        attempt = message.tried.add()
        attempt.provider = each.provider
        attempt.model = each.model
        if each.key:
            attempt.key = each.key
        if each.fault:
            attempt.fault = int(each.fault)  # type: ignore[assignment]  # the same numbers
        if each.status:
            attempt.upstream_status = each.status
        attempt.elapsed.nanos = int(each.seconds % 1 * 1e9)
        attempt.elapsed.seconds = int(each.seconds)
        if each.waited:
            attempt.waited.nanos = int(each.waited % 1 * 1e9)
            attempt.waited.seconds = int(each.waited)
        if each.hedge:
            attempt.hedge = True


def blame(
    error: GatewayError, provider: Provider, target: Target, key: str, record: Settlement
) -> None:
    """Adds the target to the error, and takes our secrets out of its text.

    A key that is refused or used up is reported in the log, since no caller may ever hear of it.

    Args:
        error: of an attempt.
        provider, target: who failed.
        key: the name of the provider's key; empty if it has none.
        record: of the call.
    """
    error.with_metadata(provider=target.provider, model=target.model)
    for secret in provider.secrets:
        _redact(error, secret)
    if isinstance(error, UpstreamRejectedUs | QuotaExhausted):
        _log.error(
            "provider %s rejected the gateway's credentials (%s, key %s, request %s)",
            target.provider,
            fault_of(error).name,
            key or "-",
            record.request_id,
        )


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
