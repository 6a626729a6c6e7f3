"""What all HTTP APIs' failures have in common: statuses, Retry-After, bodies of another form. Pure.

A dialect's error module first looks for what its own vendor says in the body by codes, then for the
phrases in `wordings`, and falls back to `of_status`. Which fault of routing an error is, is said in
`headgate_server.faults`.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import msgspec

from headgate.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    QuotaExhausted,
    RateLimited,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.wire import MalformedJson, ShapeDecoder
from headgate_server.providers.wordings import is_of_long_period, wait_in

T = TypeVar("T")
_MAX_RETRY_AFTER_SECONDS = 24 * 3600.0
_OVERLOAD_STATUSES = (503, 529)


def of_status(status: int, message: str, *, explained: bool) -> GatewayError:
    """The error that a status means when the body says nothing more exact.

    Args:
        status: of HTTP, not 200.
        message: the vendor's words, or our own.
        explained: whether the body was an error object of the vendor's.
    """
    if status == 402:
        return QuotaExhausted(message)
    if status in (400, 422):
        if explained:
            return InvalidRequest(message)
        return UpstreamProtocol(f"the upstream answered with HTTP status {status} and no reason")
    if status in (401, 403):
        # The upstream's words may quote our key, so they stay here.
        return UpstreamRejectedUs(
            f"the upstream does not accept the gateway's credentials (HTTP status {status})"
        )
    if status == 404:
        if explained:
            return ModelNotFound(message)
        return UpstreamProtocol(
            "the upstream knows no such path (HTTP status 404); is base_url right?"
        )
    if status in (408, 504):
        return UpstreamTimeout(message)
    if status == 413:
        return PayloadTooLarge(message)
    if status == 429:
        return RateLimited(message)
    if status in _OVERLOAD_STATUSES:
        return Overloaded(message)
    if status >= 500 or status in (409, 425):
        return UpstreamUnavailable(message)
    if 300 <= status < 400:
        return UpstreamProtocol(
            f"the upstream answered with a redirect (HTTP status {status}), which is never followed"
        )
    return UpstreamProtocol(f"the upstream answered with HTTP status {status}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3)."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                when = parsedate_to_datetime(value)
            except ValueError:
                continue
            if when.tzinfo is None:
                when = when.replace(tzinfo=datetime.UTC)
            seconds = (when - datetime.datetime.now(datetime.UTC)).total_seconds()
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)
    return None


def told(error: GatewayError, *, code: str = "", **facts: str) -> GatewayError:
    """The error with the upstream's own word for it and other facts, as far as it told them."""
    named = {"upstream_code": code, **facts}
    return error.with_metadata(**{name: fact[:64] for name, fact in named.items() if fact})


def of_answer(error: GatewayError, status: int, headers: Mapping[str, str]) -> GatewayError:
    """The error with what every answer tells: its status, and how long to wait."""
    if error.retry_after is None:
        error.retry_after = retry_after(headers)
    return patient(error.with_metadata(upstream_status=str(status)))


def patient(error: GatewayError) -> GatewayError:
    """A rate limit with the pause that its words ask for; if they tell of days instead, a quota."""
    if type(error) is RateLimited and error.retry_after is None:
        error.retry_after = wait_in(error.message)
        if error.retry_after is None and is_of_long_period(error.message):
            return QuotaExhausted(error.message, metadata=error.metadata)
    return error


# Bodies.


def malformed(error: Exception) -> UpstreamProtocol:
    """One wording for whatever is wrong with an answer's text."""
    return UpstreamProtocol(f"the upstream's answer is malformed: {error}")


class _Reading:
    """Where an answer is read: turns what is wrong with its text into `UpstreamProtocol`."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, MalformedJson):
            raise malformed(error) from error


reading = _Reading()


def parse(
    shape: ShapeDecoder[T], body: bytes, error_in_body: Callable[[bytes], GatewayError | None]
) -> T:
    """A body of the expected shape. Raises `GatewayError`: the one in the body, if it holds one."""
    try:
        return shape.decode(body)
    except MalformedJson as error:
        raise (error_in_body(body) if error.is_json else None) or malformed(error) from error


def json_of(body: bytes) -> Any:
    """A body of any form as JSON; None if it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def text_of(value: object) -> str:
    """A member of an error body that should be a text; anything else is empty."""
    return value if isinstance(value, str) else ""


def word_of(value: object) -> str:
    """The same, for members that may be numbers, too, such as codes."""
    return str(value) if isinstance(value, int) else text_of(value)
