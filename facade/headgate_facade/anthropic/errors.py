"""GatewayErrors to Anthropic's error envelope. Pure.

Source: https://platform.claude.com/docs/en/api/errors. SDKs pick their exception class by HTTP status,
and show `type`; the status is this gateway's, the same for every front door.
"""

from __future__ import annotations

import msgspec

from headgate.errors import ContextTooLong, GatewayError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# The words by which clients know that they should make their conversation shorter.
_TOO_LONG = "prompt is too long"


def type_of(status: int) -> str:
    """Anthropic's type for a status."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def envelope(error: GatewayError, request_id: str | None) -> bytes:
    """The body ``{"type": "error", "error": {type, message}, "request_id"}``."""
    message = error.message
    if isinstance(error, ContextTooLong) and _TOO_LONG not in message.lower():
        message = f"{_TOO_LONG}: {message}"
    return plain_envelope(error.http_status, message, request_id)


def plain_envelope(status: int, message: str, request_id: str | None) -> bytes:
    """The same for what never reached the core, such as an unknown path."""
    error = {"type": type_of(status), "message": message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
