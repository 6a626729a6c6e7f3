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
    RateLimited,
    UpstreamProtocol,
    UpstreamUnavailable,
)
from headgate.wire import Extra
from headgate_server.providers.faults import of_answer, of_status, patient, told
from headgate_server.providers.wordings import of_words

# Codes and types say what a status does not. Where no vendor stands beside them, they are OpenAI's;
# others borrow them. Four digits are Zhipu's (https://docs.bigmodel.cn/cn/api/api-code), which come with
# status 429 or 400 for all kinds of faults.
CONTEXT_CODES = {
    "context_length_exceeded",
    "exceed_context_size_error",  # llama.cpp
    "string_above_max_length",
    "tokens_too_long",  # Qianfan
    "1261",
}
FILTER_CODES = {
    "content_filter",  # Azure, Moonshot
    "content_policy_violation",
    "data_inspection_failed",  # DashScope, as the next
    "DataInspectionFailed",
    "invalid_prompt",  # the prompt was flagged
    "moderation_blocked",
    "ResponsibleAIPolicyViolation",  # Azure
    "unsafe_request",  # Qianfan
    "1301",
}
MODEL_CODES = {"model_not_found", "DeploymentNotFound", "1211"}
OVERLOAD_CODES = {
    "capacity_exceeded",  # Groq, with status 498
    "NoCapacity",  # Azure
    "engine_overloaded_error",  # Moonshot
    "overloaded_error",  # Anthropic's by way of others
    "queue_exceeded",  # Cerebras
    "server_is_overloaded",
    "slow_down",
    "3505",  # Mistral: the capacity of its tier, not ours
    "1305",
    "1312",
}
QUOTA_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "exceeded_current_quota_error",  # Moonshot
    "AllocationQuota.FreeTierOnly",  # DashScope, as the next three
    "Arrearage",
    "PostpaidBillOverdue",
    "PrepaidBillOverdue",
    "1113",
    "1304",
    "1308",
    "1309",
    "1310",
}
CREDENTIAL_CODES = {
    "invalid_api_key",
    "account_deactivated",
    "incorrect_api_key_error",  # Moonshot, as the next
    "invalid_authentication_error",
    "1110",
    "1111",
    "1112",
    "1121",
}
# More tokens than the account may send in a minute, which Groq tells with status 413.
RATE_CODES = {"rate_limit_exceeded"}
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
    return told(of_answer(_judge(status, details), status, headers), code=details.code)


def broken_off(reason: str | None, choice_extra: Extra) -> GatewayError | None:
    """The error behind the finish reason of a broken answer; None for other reasons.

    Args:
        reason: in the vendor's words.
        choice_extra: where OpenRouter has the upstream's own `error`.
    """
    kind = _BROKEN_OFF.get(reason or "")
    if kind is None:
        return None
    given = (choice_extra or {}).get("error")
    found = error_in_body(b'{"error":%b}' % bytes(given)) if given is not None else None
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
        by_name = _STATUS_OF_NAME.get(details.type) or _STATUS_OF_NAME.get(details.code, 500)
        status = 400 if blamed else by_name
    return told(patient(_judge(status, details)), code=details.code)


# What a type or a code means where there is no status.
_STATUS_OF_NAME = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "rate_limit_reached_error": 429,
    "too_many_requests_error": 429,
    "insufficient_quota": 429,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "overloaded_error": 529,
    "service_unavailable_error": 503,
    "unavailable_error": 503,
    "BadRequestError": 400,
    "exceed_context_size_error": 400,
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
        # xAI's code is a sentence of its own.
        return _Details(
            message=error, type=_text(value.get("type")), code=_text(value.get("code")), found=True
        )
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
    if kinds & CONTEXT_CODES and status in (400, 413, 422):
        return ContextTooLong(message, violations=violations)
    if kinds & CREDENTIAL_CODES:
        return of_status(401, message, explained=True)
    told_in_words = of_words(status, message, violations) if details.found else None
    if told_in_words is not None:
        return told_in_words
    if kinds & MODEL_CODES:
        return ModelNotFound(message)
    if kinds & OVERLOAD_CODES:
        return Overloaded(message)
    if kinds & RATE_CODES and status == 413:
        return RateLimited(message)
    if status in (400, 404) and _NO_SUCH_VERSION.match(message):
        return UpstreamProtocol(f"the upstream says {message!r}; is api_version right?")
    if status in (400, 422) and details.found:
        return InvalidRequest(message, violations=violations)
    explained = details.found and not (status == 404 and _NO_SUCH_PATH.match(message))
    return of_status(status, message, explained=explained)
