"""OpenAI-shaped failures to GatewayErrors. Pure.

Sources: https://platform.openai.com/docs/guides/error-codes,
https://learn.microsoft.com/en-us/azure/ai-foundry/openai/concepts/content-filter (Azure's `innererror`),
https://openrouter.ai/docs/api/reference/errors (`metadata`), and the vendors' pages in vendors.toml for
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
    Overloaded,
    QuotaExhausted,
    UpstreamProtocol,
    UpstreamUnavailable,
)
from headgate.wire import Extra
from headgate_server.providers.faults import of_status, retry_after

# Codes and types say what a status does not. The words are OpenAI's; other vendors borrow them.
CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
CONTEXT_WORDS = ("maximum context length", "context window", "context length", "too many tokens")
FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "data_inspection_failed",
    "ResponsibleAIPolicyViolation",
}
MODEL_CODES = {"model_not_found", "DeploymentNotFound"}
# Azure's, Moonshot's, Anthropic's by way of others.
OVERLOAD_CODES = {"NoCapacity", "engine_overloaded_error", "overloaded_error"}
# OpenAI's three, Moonshot's, DashScope's.
QUOTA_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "exceeded_current_quota_error",
    "Arrearage",
}
# How servers say that they know no such path, when they say it in JSON.
_NO_SUCH_PATH = re.compile(r"(resource )?not found\.?$|invalid url\b", re.IGNORECASE)
_NO_SUCH_VERSION = re.compile(r"api version not supported", re.IGNORECASE)
# Finish reasons of answers that broke off by the vendor's fault, by their documentation: DeepSeek's
# ("the request is interrupted due to insufficient resource of the inference system"), Zhipu's
# ("network_error"), Mistral's, vLLM's and OpenRouter's "error", vLLM's and SGLang's "abort". As an error
# such an answer may be had from another target; as a "stop" half of it would pass for the whole.
_BROKEN_OFF: dict[str, type[UpstreamUnavailable]] = {
    "insufficient_system_resource": Overloaded,
    "network_error": UpstreamUnavailable,
    "error": UpstreamUnavailable,
    "abort": UpstreamUnavailable,
}


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


def broken_off(reason: str | None, choice_extra: Extra) -> GatewayError | None:
    """The error behind the finish reason of a broken answer; None for other reasons.

    Args:
        reason: in the vendor's words.
        choice_extra: where OpenRouter has the upstream's own `error`.
    """
    kind = _BROKEN_OFF.get(reason or "")
    if kind is None:
        return None
    told = (choice_extra or {}).get("error")
    found = error_in_body(b'{"error":%b}' % bytes(told)) if told is not None else None
    if found is not None:
        return found
    error = kind(f"the upstream broke the answer off with finish reason {reason!r}")
    return error.with_metadata(upstream_code=reason or "")


def error_in_body(body: bytes) -> GatewayError | None:
    """The error in a body that came with status 200, or in a stream; None if there is none."""
    details = _details(body)
    if not details.found:
        return None
    # Some vendors repeat the HTTP status as the error's code, Azure beside it.
    for number in (details.status, details.code):
        if number.isdecimal() and len(number) == 3:
            status = int(number)
            break
    else:
        blamed = {details.code, details.inner} & (FILTER_CODES | CONTEXT_CODES)
        status = 400 if blamed else _STATUS_OF_TYPE.get(details.type, 500)
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
    status: str = ""
    inner: str = ""
    flagged: bool = False
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
    if not isinstance(message, str):
        message = msgspec.json.encode(message).decode()
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        # OpenRouter's own words are "Provider returned error"; these are that provider's.
        message = f"{message}: {metadata['raw']}"
    inner = error.get("innererror")
    return _Details(
        message=message,
        type=_text(error.get("type")),
        code=_text(error.get("code")),
        param=_text(error.get("param")),
        status=_text(error.get("status")),
        inner=_text(inner.get("code")) if isinstance(inner, dict) else "",
        flagged=isinstance(metadata, dict) and "flagged_input" in metadata,
        found=True,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _judge(status: int, details: _Details) -> GatewayError:
    message = details.message or f"the upstream answered with HTTP status {status}"
    kinds = {details.code, details.type, details.inner}
    violations = [FieldViolation(details.param, message)] if details.param else []
    if kinds & QUOTA_CODES or status == 402:
        return QuotaExhausted(message)
    if (kinds & FILTER_CODES and status < 500) or details.flagged:
        return ContentFiltered(message)
    if status in (400, 413, 422) and (
        kinds & CONTEXT_CODES or any(words in message.lower() for words in CONTEXT_WORDS)
    ):
        return ContextTooLong(message, violations=violations)
    if kinds & MODEL_CODES:
        return ModelNotFound(message)
    if kinds & OVERLOAD_CODES:
        return Overloaded(message)
    if status in (400, 404) and _NO_SUCH_VERSION.match(message):
        return UpstreamProtocol(f"the upstream says {message!r}; is api_version right?")
    if status in (400, 422) and details.found:
        return InvalidRequest(message, violations=violations)
    explained = details.found and not (status == 404 and _NO_SUCH_PATH.match(message))
    return of_status(status, message, explained=explained)
