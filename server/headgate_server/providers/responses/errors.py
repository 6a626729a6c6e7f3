"""The Responses API's failures (statuses, failed answers, `error` events) to GatewayErrors. Pure.

Source: https://platform.openai.com/docs/guides/error-codes and the `error` member of
https://platform.openai.com/docs/api-reference/responses/object.
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
    RateLimited,
)
from headgate_server.providers.faults import (
    json_of,
    of_answer,
    of_status,
    patient,
    told,
    word_of,
)
from headgate_server.providers.wordings import of_words

_CONTEXT_CODES = {"context_length_exceeded", "string_above_max_length"}
_FILTER_CODES = {
    "bio_policy",
    "content_filter",
    "content_policy_violation",
    "image_content_policy_violation",
    "invalid_prompt",  # the prompt was flagged
    "misalignment_policy_violation",
    "moderation_blocked",
}
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_CREDENTIAL_CODES = {"invalid_api_key", "account_deactivated"}
# What a code or a type means where there is no status: in a stream, and in a failed response.
_STATUSES = {
    "authentication_error": 401,
    "context_length_exceeded": 400,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "model_not_found": 404,
    "not_found_error": 404,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "server_error": 500,
    "tokens": 429,
    "vector_store_timeout": 504,
    "overloaded_error": 503,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "string_above_max_length": 400,
}
# Every other code of a failed response is about an image, or about where data may go.
_INPUT_CODES = re.compile(r"invalid_|image_|.*_image|unsupported_image|data_residency_")
_NO_SUCH_PATH = re.compile(r"not found\.?$|invalid url\b", re.IGNORECASE)


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """The error behind an answer whose status is not 200. Never raises."""
    details = _details(body)
    return told(of_answer(_judge(status, details), status, headers), code=details.code)


def error_in_body(body: bytes) -> GatewayError | None:
    """The error in an answer with status 200 or in an event; None if there is none.

    Takes an envelope around an error object as well as the object itself.
    """
    details = _details(body)
    if not details.found:
        return None
    status = _STATUSES.get(details.code) or _STATUSES.get(details.type)
    if status is None:
        status = 400 if _INPUT_CODES.match(details.code) else 500
    return told(patient(_judge(status, details)), code=details.code)


class _Details(msgspec.Struct):
    """What an error object says."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str = ""
    found: bool = False


def _details(body: bytes) -> _Details:
    value = json_of(body)
    if not isinstance(value, dict):
        return _Details()
    error: Any = value.get("error")
    if isinstance(error, str):
        return _Details(message=error, found=True)
    if not isinstance(error, dict):
        if "message" not in value:
            return _Details()
        error = value
    return _Details(
        message=word_of(error.get("message")),
        type=word_of(error.get("type")),
        code=word_of(error.get("code")),
        param=word_of(error.get("param")),
        found=True,
    )


def _judge(status: int, details: _Details) -> GatewayError:
    message = details.message or f"the upstream answered with HTTP status {status}"
    kinds = {details.code, details.type}
    violations = [FieldViolation(details.param, message)] if details.param else []
    if kinds & _QUOTA_CODES or status == 402:
        return QuotaExhausted(message)
    if kinds & _FILTER_CODES and status != 401:
        return ContentFiltered(message)
    if kinds & _CONTEXT_CODES and status in (400, 413, 422):
        return ContextTooLong(message, violations=violations)
    told_in_words = of_words(status, message, violations) if details.found else None
    if told_in_words is not None:
        return told_in_words
    if kinds & _CREDENTIAL_CODES:
        return of_status(401, message, explained=True)
    if "model_not_found" in kinds:
        return ModelNotFound(message)
    # A 404 that names a member is about an item or a file, which the caller referred to.
    missing = status == 404 and details.param not in ("", "model")
    if status == 413 and "rate_limit_exceeded" in kinds:
        return RateLimited(message)  # more than the account may send in a minute
    if details.found and (status in (400, 422) or missing):
        return InvalidRequest(message, violations=violations)
    explained = details.found and not (status == 404 and _NO_SUCH_PATH.match(message))
    return of_status(status, message, explained=explained)
