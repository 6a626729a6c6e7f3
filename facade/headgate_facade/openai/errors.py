"""GatewayErrors to OpenAI's error envelope. Pure.

Source: https://platform.openai.com/docs/guides/error-codes. SDKs pick their exception class by HTTP
status, and show `type`, `code` and `param`.
"""

from __future__ import annotations

import math
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
from headgate_facade.http import JSON, Headers

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
# Faults that another try cannot cure, though SDKs retry their status. `x-should-retry` overrules it:
# https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py
_FINAL = (QuotaExhausted, UpstreamRejectedUs)
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
        param = rest_path(error.violations[0].field)
    elif isinstance(error, ModelNotFound):
        param = "model"
    body = {
        "message": rest_path(error.message),
        "type": kind,
        "param": param,
        "code": code or None,
    }
    return msgspec.json.encode({"error": body})


def error_headers(error: GatewayError, request_id: str) -> Headers:
    """The headers that go with the envelope."""
    headers = [JSON, (b"x-request-id", request_id.encode())]
    if error.retry_after is not None:
        # Whole seconds, rounded up, and never 0, which SDKs take for "not given".
        headers.append((b"retry-after", b"%d" % max(math.ceil(error.retry_after), 1)))
        headers.append((b"retry-after-ms", b"%d" % max(int(error.retry_after * 1000), 1)))
    if isinstance(error, _FINAL):
        headers.append((b"x-should-retry", b"false"))
    return headers


def rest_path(text: str) -> str:
    """Field paths of the proto in the words of the body."""
    for path, words in _PATHS:
        text = path.sub(words, text)
    return text


def plain_envelope(message: str, kind: str, code: str | None) -> bytes:
    """The same envelope for what never reached the core, such as an unknown path."""
    body = {"message": message, "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"error": body})
