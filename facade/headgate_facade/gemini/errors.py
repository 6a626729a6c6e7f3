"""GatewayErrors to Google's error envelope. Pure.

Source: https://google.aip.dev/193 and https://ai.google.dev/gemini-api/docs/troubleshooting. SDKs pick
their exception class by `code`, and show `status` and `message`; `details` are google.rpc messages.

A blocked prompt is an error like any other (400 FAILED_PRECONDITION), as at every door here, where Google
answers 200 with a `promptFeedback` and no candidates.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from headgate.errors import DOMAIN, GatewayError, InvalidRequest, QuotaExhausted, reason_name

JSON_UTF8 = (b"content-type", b"application/json; charset=UTF-8")
_TYPE = "type.googleapis.com/google.rpc."


def envelope(error: GatewayError, request_id: str) -> bytes:
    """The body ``{"error": {code, message, status, details}}``."""
    details = _details(error, request_id)
    if isinstance(error, InvalidRequest) and error.violations:
        violations = [{"field": v.field, "description": v.description} for v in error.violations]
        details.append({"@type": f"{_TYPE}BadRequest", "fieldViolations": violations})
    return plain_envelope(error.http_status, error.message, error.grpc_code.name, details)


def plain_envelope(
    code: int, message: str, status: str, details: list[dict[str, Any]] | None = None
) -> bytes:
    """The same envelope for what never reached the core, such as an unknown path."""
    body: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        body["details"] = details
    return msgspec.json.encode({"error": body})


def _details(error: GatewayError, request_id: str) -> list[dict[str, Any]]:
    info = {"@type": f"{_TYPE}ErrorInfo", "reason": reason_name(error), "domain": DOMAIN}
    details: list[dict[str, Any]] = [
        info | ({"metadata": error.metadata} if error.metadata else {})
    ]
    if isinstance(error, QuotaExhausted):
        subject = error.metadata.get("subject", error.metadata.get("provider", DOMAIN))
        quota = {"subject": subject, "description": error.message}
        details.append({"@type": f"{_TYPE}QuotaFailure", "violations": [quota]})
    if error.retry_after is not None and math.isfinite(error.retry_after):
        delay = f"{max(error.retry_after, 0.0):.9f}".rstrip("0").rstrip(".") + "s"
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": delay})
    if request_id:
        details.append({"@type": f"{_TYPE}RequestInfo", "requestId": request_id})
    return details
