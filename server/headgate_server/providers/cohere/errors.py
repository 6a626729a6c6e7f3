"""Cohere's failures to GatewayErrors. Pure.

Source: https://docs.cohere.com/reference/errors, and for 498 ("a deny-listed token") and 499 the
responses of https://docs.cohere.com/reference/chat. A body is `{"message": ..., "id": ...}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from headgate.errors import (
    ContentFiltered,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    QuotaExhausted,
    UpstreamUnavailable,
)
from headgate_server.providers.faults import of_answer, of_status, patient
from headgate_server.providers.wordings import of_words

_NO_MODEL = re.compile(r"\bmodel\b.{0,120}(?:not found|was removed|does not exist)")
# "You are using a Trial key, which is limited to 1000 API calls / month", and of paid keys their bill.
_QUOTA = re.compile(r"/ ?month|per month|monthly|billing|payment")


class _Body(msgspec.Struct):
    message: str | None = None
    error: str | None = None  # of the proxies in front
    data: str | None = None


_BODY = msgspec.json.Decoder(_Body)


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """The error behind an answer whose status is not 200. Never raises."""
    return of_answer(_judge(status, _message(body)), status, headers)


def error_in_body(body: bytes) -> GatewayError | None:
    """The error in a body that came with status 200, or in a stream; None if there is none."""
    message = _message(body)
    return patient(_judge(500, message)) if message else None


def _message(body: bytes) -> str:
    try:
        found = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return found.message or found.error or found.data or ""


def _judge(status: int, found: str) -> GatewayError:
    message = found or f"the upstream answered with HTTP status {status}"
    words = found.lower()
    if (told_in_words := of_words(status, found)) is not None:
        return told_in_words
    if status in (400, 404, 422) and _NO_MODEL.search(words):
        return ModelNotFound(message)
    if status == 429 and _QUOTA.search(words):
        return QuotaExhausted(message)
    if status == 498:
        return ContentFiltered(message)
    if status == 499:
        return UpstreamUnavailable(message)
    if status == 501 and found:
        return InvalidRequest(message)  # a feature that the model lacks
    return of_status(status, message, explained=bool(found))
