"""OpenAI-shaped failures to GatewayErrors. Pure.

Sources: https://platform.openai.com/docs/guides/error-codes, and the vendors' pages in vendors.toml for
bodies that differ: `{"error": "text"}`, `{"message", "code"}`, `{"detail": ...}`, HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headgate.errors import (
    ContentFiltered,
    ContextTooLong,
    FieldViolation,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    QuotaExhausted,
)
from headgate_server.providers.faults import of_status, retry_after

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
    if status in (400, 422) and details.found:
        return InvalidRequest(message, violations=violations)
    explained = details.found and not (status == 404 and _NO_SUCH_PATH.match(message))
    return of_status(status, message, explained=explained)
