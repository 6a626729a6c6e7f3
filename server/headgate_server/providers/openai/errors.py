"""OpenAI-shaped failures to GatewayErrors. Pure.

Sources: https://platform.openai.com/docs/guides/error-codes, and the vendors' pages in vendors.toml for
bodies that differ: `{"error": "text"}`, `{"message", "code"}`, `{"detail": ...}`, HTML.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from headgate.errors import (
    ContentFiltered,
    ContextTooLong,
    FieldViolation,
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

# Codes and types say what a status does not. The words are OpenAI's; other vendors borrow them.
CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
CONTEXT_WORDS = ("maximum context length", "context window", "context length", "too many tokens")
FILTER_CODES = {"content_filter", "content_policy_violation", "data_inspection_failed"}
# OpenAI's three, Moonshot's, DashScope's.
QUOTA_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "exceeded_current_quota_error",
    "Arrearage",
}
# How servers say that they know no such path, when they say it in JSON.
_NO_SUCH_PATH = re.compile(r"not found\.?$|invalid url\b", re.IGNORECASE)
OVERLOAD_STATUSES = {503, 529}
_MAX_RETRY_AFTER_SECONDS = 24 * 3600.0


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """The error behind an answer whose status is not 200. Never raises."""
    details = _details(body)
    metadata = {"upstream_status": str(status)}
    if details.code:
        metadata["upstream_code"] = details.code[:64]
    error = _judge(status, details)
    error.retry_after = retry_after(headers)
    error.with_metadata(**metadata)
    return error


def error_in_body(body: bytes) -> GatewayError | None:
    """The error in a body that came with status 200, or in a stream; None if there is none."""
    details = _details(body)
    if not details.found:
        return None
    # Some vendors repeat the HTTP status as the error's code.
    status = int(details.code) if details.code.isdecimal() and len(details.code) == 3 else 0
    if status == 0:
        status = _STATUS_OF_TYPE.get(details.type, 500)
    error = _judge(status, details)
    if details.code:
        error.with_metadata(upstream_code=details.code[:64])
    return error


_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "insufficient_quota": 429,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "overloaded_error": 529,
    "BadRequestError": 400,
}


class _Details(msgspec.Struct):
    """What an error body says, whatever its form."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str = ""
    found: bool = False


def _details(body: bytes) -> _Details:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Details()
    if isinstance(value, list) and value:
        value = value[0]  # Gemini's OpenAI-compatible endpoint wraps errors in a list
    if not isinstance(value, dict):
        return _Details()
    error: Any = value.get("error")
    if isinstance(error, str):
        return _Details(message=error, type=_text(value.get("type")), found=True)
    if not isinstance(error, dict):
        if value.get("object") != "error" and "message" not in value and "detail" not in value:
            return _Details()
        error = value
    message = error.get("message") or error.get("detail") or error.get("msg") or ""
    return _Details(
        message=message if isinstance(message, str) else msgspec.json.encode(message).decode(),
        type=_text(error.get("type")),
        code=_text(error.get("code")),
        param=_text(error.get("param")),
        found=True,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _judge(status: int, details: _Details) -> GatewayError:
    message = details.message or f"the upstream answered with HTTP status {status}"
    kinds = {details.code, details.type}
    violations = [FieldViolation(details.param, message)] if details.param else []
    if kinds & QUOTA_CODES or status == 402:
        return QuotaExhausted(message)
    if kinds & FILTER_CODES and status < 500:
        return ContentFiltered(message)
    if status in (400, 413, 422) and (
        kinds & CONTEXT_CODES or any(words in message.lower() for words in CONTEXT_WORDS)
    ):
        return ContextTooLong(message, violations=violations)
    if "model_not_found" in kinds:
        return ModelNotFound(message)
    if status in (400, 422):
        if not details.found:
            return UpstreamProtocol(
                f"the upstream answered with HTTP status {status} and no reason"
            )
        return InvalidRequest(message, violations=violations)
    if status in (401, 403):
        # The upstream's words may quote our key, so they stay here.
        return UpstreamRejectedUs(
            f"the upstream does not accept the gateway's credentials (HTTP status {status})"
        )
    if status == 404:
        if details.found and not _NO_SUCH_PATH.match(message):
            return ModelNotFound(message)
        return UpstreamProtocol(
            "the upstream knows no such path (HTTP status 404); is base_url right?"
        )
    if status == 408 or status == 504:
        return UpstreamTimeout(message)
    if status == 413:
        return PayloadTooLarge(message)
    if status == 429:
        return RateLimited(message)
    if status in OVERLOAD_STATUSES:
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
