"""GatewayErrors in OpenAI's envelope and in the events of a stream. Pure.

Source: https://platform.openai.com/docs/guides/error-codes; for streams the events `error` and
`response.failed` of https://platform.openai.com/docs/api-reference/responses-streaming. SDKs pick their
exception class by HTTP status and show `type`, `code` and `param`.
"""

from __future__ import annotations

import math
import re
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
    UpstreamRejectedUs,
    reason_name,
)
from headgate_facade.http import JSON, Headers

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
# Faults that another try cannot cure, though SDKs retry their status. `x-should-retry` overrules it:
# https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py
_FINAL = (QuotaExhausted, UpstreamRejectedUs)

_MESSAGE = re.compile(r"\bmessages\[(\d+)\](?:\.parts\[(\d+)\])?")
_TOOL = re.compile(r"\btools\[(\d+)\]")
# What is left of a path into the proto, in the words of the body.
_PATHS = (
    (re.compile(r"\.tool_result\.parts\b"), ".output"),
    (re.compile(r"\.tool_result\.tool_call_id\b"), ".call_id"),
    (re.compile(r"\.tool_call\.arguments_json\b"), ".arguments"),
    (re.compile(r"\.tool_call\.id\b"), ".call_id"),
    (re.compile(r"\.(tool_result|tool_call)\.(?=\w)"), "."),
    (re.compile(r"(?<=\])\.(text|image|audio|file|tool_call|tool_result|reasoning|refusal|vendor_part"
                r"|provider_tool_json|extra_json)(\.(url|data|media_type|json|dialect))?\b"), ""),
    (re.compile(r"(?<=\])\.function\.(?=\w)"), "."),
    (re.compile(r"(?<=\])\.(function|parts|role)\b"), ""),
    (re.compile(r"\bparameters_json\b"), "parameters"),
    (re.compile(r"\bmax_(?:completion_)?tokens\b"), "max_output_tokens"),
    (re.compile(r"\bresponse_format\.json_schema\.schema_json\b"), "text.format.schema"),
    (re.compile(r"\bresponse_format\.json_schema\b"), "text.format"),
    (re.compile(r"\bresponse_format\b(\.(text|json_object))?"), "text.format"),
    (re.compile(r"(?:^|(?<=; ))verbosity(?=:|$)"), "text.verbosity"),
    (re.compile(r"\btool_choice\.(mode|function_name|provider_choice_json)\b"), "tool_choice"),
    (re.compile(r"\bweb_search_options(\.\w+)*"), "tools"),
    (re.compile(r"(?:^|(?<=; ))messages(?=:|$)"), "input"),
)  # fmt: skip


class Paths:
    """Turns paths into the proto into those of the body that it was made from.

    Args:
        messages: for each message where it came from, and where its parts came from.
        tools: for each tool where it came from.
    """

    def __init__(self, messages: list[tuple[str, list[str]]], tools: list[str]) -> None:
        self._messages = messages
        self._tools = tools

    def words(self, text: str) -> str:
        """A text with all the paths in it."""
        text = _TOOL.sub(self._tool, _MESSAGE.sub(self._message, text))
        for path, words in _PATHS:
            text = path.sub(words, text)
        return text

    def _message(self, found: re.Match[str]) -> str:
        index = int(found[1])
        if index >= len(self._messages):
            return found[0]
        whole, parts = self._messages[index]
        if found[2] is None:
            return whole
        return parts[int(found[2])] if int(found[2]) < len(parts) else whole

    def _tool(self, found: re.Match[str]) -> str:
        index = int(found[1])
        return self._tools[index] if index < len(self._tools) else found[0]


def error_json(error: GatewayError, paths: Paths | None) -> Json:
    """The object ``{message, type, param, code}``; without paths the error has the body's words."""
    kind, code = "server_error", reason_name(error).lower()
    for cls, its_kind, its_code, _ in _KINDS:
        if isinstance(error, cls):
            kind = its_kind
            code = its_code or (code if not isinstance(error, InvalidRequest) else "")
            break
    param = None
    if isinstance(error, InvalidRequest) and error.violations:
        param = _words(error.violations[0].field, paths)
    elif isinstance(error, ModelNotFound):
        param = "model"
    return {
        "message": _words(error.message, paths),
        "type": kind,
        "param": param,
        "code": code or None,
    }


def _words(text: str, paths: Paths | None) -> str:
    return text if paths is None else paths.words(text)


def envelope(error: GatewayError, paths: Paths | None) -> bytes:
    """The body ``{"error": {...}}``."""
    return msgspec.json.encode({"error": error_json(error, paths)})


def failure_json(error: GatewayError, paths: Paths) -> Json:
    """The `error` of a response that failed."""
    code = next((code for cls, _, _, code in _KINDS if isinstance(error, cls)), "server_error")
    return {"code": code, "message": paths.words(error.message)}


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


def plain_envelope(message: str, code: str) -> bytes:
    """The same envelope for what never reached the core."""
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return msgspec.json.encode({"error": body})
