"""GatewayErrors in OpenAI's envelope and in the events of a stream. Pure.

Source: https://platform.openai.com/docs/guides/error-codes; for streams the events `error` and
`response.failed` of https://platform.openai.com/docs/api-reference/responses-streaming. SDKs pick their
exception class by HTTP status and show `type`, `code` and `param`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.errors import (
    ContentFiltered,
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    PayloadTooLarge,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    StoreUnavailable,
    Unauthenticated,
    reason_name,
)

Json = dict[str, Any]

# (type, code, code of a failed response), the most specific class first. A failed response has codes
# of its own; beside those of its schema agents know these.
_KINDS: tuple[tuple[type[GatewayError], str, str | None, str], ...] = (
    (ContextTooLong, "invalid_request_error", "context_length_exceeded", "context_length_exceeded"),
    (InvalidRequest, "invalid_request_error", None, "invalid_prompt"),
    (ContentFiltered, "invalid_request_error", "content_filter", "invalid_prompt"),
    (Unauthenticated, "invalid_request_error", "invalid_api_key", "server_error"),
    (PermissionDenied, "invalid_request_error", "permission_denied", "server_error"),
    (ModelNotFound, "invalid_request_error", "model_not_found", "server_error"),
    (PayloadTooLarge, "invalid_request_error", "payload_too_large", "invalid_prompt"),
    (QuotaExhausted, "insufficient_quota", "insufficient_quota", "insufficient_quota"),
    (RateLimited, "rate_limit_error", "rate_limit_exceeded", "rate_limit_exceeded"),
    (StoreUnavailable, "server_error", "store_unavailable", "server_error"),
)


def error_json(error: GatewayError) -> Json:
    """The object ``{message, type, param, code}``."""
    kind, code = "server_error", reason_name(error).lower()
    for cls, its_kind, its_code, _ in _KINDS:
        if isinstance(error, cls):
            kind = its_kind
            code = its_code or (code if not isinstance(error, InvalidRequest) else "")
            break
    param = None
    if isinstance(error, InvalidRequest) and error.violations:
        param = error.violations[0].field
    elif isinstance(error, ModelNotFound):
        param = "model"
    return {
        "message": error.message,
        "type": kind,
        "param": param,
        "code": code or None,
    }


def envelope(error: GatewayError) -> bytes:
    """The body ``{"error": {...}}``."""
    return msgspec.json.encode({"error": error_json(error)})


def failure_json(error: GatewayError) -> Json:
    """The `error` of a response that failed."""
    code = next((code for cls, _, _, code in _KINDS if isinstance(error, cls)), "server_error")
    return {"code": code, "message": error.message}


def plain_envelope(message: str, code: str) -> bytes:
    """The same envelope for what never reached the core."""
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return msgspec.json.encode({"error": body})
