"""Anthropic's failures to GatewayErrors. Pure.

Sources: https://platform.claude.com/docs/en/api/errors (types, statuses, the body),
https://platform.claude.com/docs/en/api/rate-limits (spend limits), and for errors inside a stream
https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from headgate.errors import (
    FieldViolation,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    QuotaExhausted,
)
from headgate_server.providers.faults import (
    json_of,
    of_answer,
    of_status,
    patient,
    text_of,
    told,
)
from headgate_server.providers.wordings import of_words

# The type of an error says what its status does; in a stream, where there is none, it has to.
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# A limit of spending comes with the type of another fault.
QUOTA_CODES = ("enforced_spend_limit_reached",)
# Messages begin with the path of the member that they are about.
_MEMBER = re.compile(r"([a-z_]+)(?:\.[\w.-]+)?: ")
_NO_SUCH_PATH = re.compile(
    r"(the requested resource could not be found|not found)\.?$", re.IGNORECASE
)


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """The error behind an answer whose status is not 200. Never raises."""
    details = _details(body)
    error = of_answer(_judge(status, details), status, headers)
    request_id = headers.get("request-id") or details.request_id
    return told(error, code=details.type, upstream_request_id=request_id)


def error_in_body(body: bytes) -> GatewayError | None:
    """The error in a body that came with status 200, or in a stream; None if there is none."""
    details = _details(body)
    if not details.found:
        return None
    error = patient(_judge(STATUS_OF_TYPE.get(details.type, 500), details))
    return told(error, code=details.type, upstream_request_id=details.request_id)


class _Details(msgspec.Struct):
    """What an error body says."""

    message: str = ""
    type: str = ""
    code: str = ""
    request_id: str = ""
    found: bool = False


def _details(body: bytes) -> _Details:
    value = json_of(body)
    if not isinstance(value, dict):
        return _Details()
    error = value.get("error")
    if isinstance(error, str):
        error = {"message": error}
    elif not isinstance(error, dict):
        if value.get("type") != "error" and not isinstance(value.get("message"), str):
            return _Details()
        error = value  # of a proxy in between, or without its wrapping
    nested = error.get("details")
    return _Details(
        message=text_of(error.get("message")),
        type=text_of(error.get("type")),
        code=text_of(nested.get("error_code")) if isinstance(nested, dict) else "",
        request_id=text_of(value.get("request_id")),
        found=True,
    )


def _judge(status: int, details: _Details) -> GatewayError:
    message = details.message or f"the upstream answered with HTTP status {status}"
    if details.found:
        if details.code in QUOTA_CODES:
            return QuotaExhausted(message)
        if (told_in_words := of_words(status, message)) is not None:
            return told_in_words
    if status in (400, 422) and details.found:
        member = _MEMBER.match(message)
        # Places in the vendor's lists are not those in the caller's, so the member's name must do.
        violations = [FieldViolation(member[1], message)] if member else []
        return InvalidRequest(message, violations=violations)
    if status == 404 and details.found:
        if _NO_SUCH_PATH.match(message):
            return of_status(status, message, explained=False)
        if "model" in message.lower():
            return ModelNotFound(message)
        return InvalidRequest(message)  # something that the request refers to, such as a file
    return of_status(status, message, explained=details.found)
