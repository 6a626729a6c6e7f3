"""Failures of the Gemini API and of Vertex AI to GatewayErrors. Pure.

Both speak google.rpc.Status (https://cloud.google.com/apis/design/errors). Sources of the cases:
https://ai.google.dev/gemini-api/docs/troubleshooting, https://ai.google.dev/gemini-api/docs/rate-limits,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/api-errors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headgate.errors import (
    GatewayError,
    InvalidRequest,
    PayloadTooLarge,
    QuotaExhausted,
    RateLimited,
    UpstreamRejectedUs,
    UpstreamUnavailable,
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

# The HTTP status of each canonical code, for errors that come inside of a stream.
_HTTP = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "DATA_LOSS": 500,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_BAD_KEY = ("API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "ACCESS_TOKEN_EXPIRED")
_PAYLOAD = re.compile(
    r"payload size exceeds|request (size|entity).*(exceeds|too large)", re.IGNORECASE
)
# The account's place or plan, not the request, is what is wrong.
_ACCOUNT = re.compile(r"location is not supported|free tier is not|enable billing|billing account")
# What the caller refers to does not exist, or belongs to somebody else; the API does not tell which.
_CALLERS_FILE = re.compile(r"\b(File|CachedContent)\b.*\b(not exist|not found|denied)", re.DOTALL)
_MAX_RETRY_SECONDS = 24 * 3600.0


class _Details(msgspec.Struct):
    """What an error body says."""

    found: bool = False
    code: int = 0
    status: str = ""
    message: str = ""
    reasons: list[str] = []
    retry_after: float | None = None
    used_up: bool = False


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """The error behind an answer whose status is not 200. Never raises."""
    details = _details(body)
    return of_answer(_explain(_judge(status, details), details), status, headers)


def error_in_body(body: bytes) -> GatewayError | None:
    """The error in a body that came with status 200, or in a stream; None if there is none."""
    details = _details(body)
    if not details.found:
        return None
    status = details.code if 400 <= details.code < 600 else _HTTP.get(details.status, 500)
    return patient(_explain(_judge(status, details), details))


def _explain(error: GatewayError, details: _Details) -> GatewayError:
    if not isinstance(error, QuotaExhausted):
        error.retry_after = details.retry_after
    return told(error, code=details.status)


def _judge(status: int, details: _Details) -> GatewayError:
    message = details.message or f"the upstream answered with HTTP status {status}"
    if details.found and status == 400:
        return _bad_request(message, details)
    if details.found and (told_in_words := of_words(status, message)) is not None:
        return told_in_words
    if details.found and status in (403, 404) and _CALLERS_FILE.search(message):
        return InvalidRequest(message)
    if status == 429:
        return QuotaExhausted(message) if details.used_up else RateLimited(message)
    if status == 499:
        return UpstreamUnavailable(message)
    if status == 501 and details.found:
        return InvalidRequest(message)
    return of_status(status, message, explained=details.found)


def _bad_request(message: str, details: _Details) -> GatewayError:
    if any(reason in _BAD_KEY for reason in details.reasons) or message.startswith("API key not"):
        return UpstreamRejectedUs("the upstream does not accept the gateway's API key")
    if details.status == "FAILED_PRECONDITION" and _ACCOUNT.search(message):
        return UpstreamRejectedUs(f"the upstream does not serve the gateway's account: {message}")
    if (told_in_words := of_words(400, message)) is not None:
        return told_in_words
    if _PAYLOAD.search(message):
        return PayloadTooLarge(message)
    return InvalidRequest(message)


# The body.


def _details(body: bytes) -> _Details:
    value = json_of(body)
    if isinstance(value, list) and value:
        value = value[0]  # what a stream that is no SSE would have had
    error: Any = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return _Details()
    code = error.get("code")
    found = _Details(
        found=True,
        code=code if isinstance(code, int) else 0,
        status=text_of(error.get("status")),
        message=text_of(error.get("message")),
    )
    for detail in _items(error, "details"):
        _add_detail(found, detail)
    return found


def _add_detail(found: _Details, detail: dict[str, Any]) -> None:
    kind = text_of(detail.get("@type")).rpartition(".")[2]
    if reason := text_of(detail.get("reason")):
        found.reasons.append(reason)
    if kind == "RetryInfo":
        found.retry_after = _seconds(text_of(detail.get("retryDelay")))
    elif kind == "QuotaFailure":
        for violation in _items(detail, "violations"):
            # A quota of a day, or none at all: no pause of seconds helps.
            name = f"{text_of(violation.get('quotaId'))} {text_of(violation.get('quotaMetric'))}".lower()
            daily = "perday" in name or "per_day" in name
            found.used_up = found.used_up or daily or text_of(violation.get("quotaValue")) == "0"
    elif kind == "BadRequest":
        for violation in _items(detail, "fieldViolations"):
            told = text_of(violation.get("description"))
            if told and told not in found.message:
                place = text_of(violation.get("field"))
                found.message += f"; {place}: {told}" if place else f"; {told}"


def _seconds(duration: str) -> float | None:
    """A google.protobuf.Duration, such as "3.5s"."""
    try:
        seconds = float(duration.removesuffix("s"))
    except ValueError:
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_SECONDS) if math.isfinite(seconds) else None


def _items(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    listed = value.get(name)
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
