"""GatewayErrors to OpenAI's error envelope. Pure.

Source: https://platform.openai.com/docs/guides/error-codes. SDKs pick their exception class by HTTP
status, and show `type`, `code` and `param`.
"""

from __future__ import annotations

import re

import msgspec

from headgate.errors import (
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    PayloadTooLarge,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    StoreUnavailable,
    Unauthenticated,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamUnavailable,
    reason_name,
)

# (type, code), the most specific class first.
_KINDS: tuple[tuple[type[GatewayError], str, str | None], ...] = (
    (ContextTooLong, "invalid_request_error", "context_length_exceeded"),
    (InvalidRequest, "invalid_request_error", None),
    (ContentFiltered, "invalid_request_error", "content_filter"),
    (Unauthenticated, "invalid_request_error", "invalid_api_key"),
    (PermissionDenied, "invalid_request_error", "permission_denied"),
    (ModelNotFound, "invalid_request_error", "model_not_found"),
    (PayloadTooLarge, "invalid_request_error", "payload_too_large"),
    (QuotaExhausted, "insufficient_quota", "insufficient_quota"),
    (RateLimited, "rate_limit_error", "rate_limit_exceeded"),
    (StoreUnavailable, "server_error", "store_unavailable"),
    (UpstreamUnavailable, "server_error", None),
    (DeadlineExceeded, "server_error", None),
    (UpstreamRejectedUs, "server_error", None),
    (UpstreamProtocol, "server_error", None),
)
# A path into the proto is a path into the body, but for these.
_PATHS = (
    (re.compile(r"\.parts\[\d+\]\.tool_result\.parts\b"), ".content"),
    (re.compile(r"\.parts\[\d+\]\.tool_result\.(?=tool_call_id|name)"), "."),
    (re.compile(r"\.parts\[(\d+)\]((?!\.parts)\.\w+)*"), r".content[\1]"),
    (re.compile(r"\.parts\b"), ".content"),
    (re.compile(r"\b(parameters|schema)_json\b"), r"\1"),
    (re.compile(r"\breasoning\.native_json\b"), "thinking"),
    (re.compile(r"\breasoning\.budget_tokens\b"), "reasoning.max_tokens"),
    (re.compile(r"\btext_completion\.prompt_json\b"), "prompt"),
    (re.compile(r"\btext_completion\."), ""),
    (re.compile(r"\btext_completion\b"), "prompt"),
    (re.compile(r"\breasoning\.enabled\b"), "enable_thinking"),
    (re.compile(r"\breasoning\.effort\b"), "reasoning_effort"),
    (re.compile(r"\btool_choice\.(mode|provider_choice_json)\b"), "tool_choice"),
)


def envelope(error: GatewayError) -> bytes:
    """The body ``{"error": {message, type, param, code}}``."""
    kind, code = "server_error", reason_name(error).lower()
    for cls, its_kind, its_code in _KINDS:
        if isinstance(error, cls):
            kind = its_kind
            code = its_code or (code if not isinstance(error, InvalidRequest) else "")
            break
    param = None
    if isinstance(error, InvalidRequest) and error.violations:
        param = error.violations[0].field
    elif isinstance(error, ModelNotFound):
        param = "model"
    body = {
        "message": error.message,
        "type": kind,
        "param": param,
        "code": code or None,
    }
    return msgspec.json.encode({"error": body})


def rest_path(path: str) -> str:
    """A field path of the proto in the words of the body."""
    for pattern, words in _PATHS:
        path = pattern.sub(words, path)
    return path


def plain_envelope(message: str, kind: str, code: str | None) -> bytes:
    """The same envelope for what never reached the core, such as an unknown path."""
    body = {"message": message, "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"error": body})
