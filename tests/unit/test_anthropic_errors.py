"""Anthropic's failures: the same meaning whether a status tells them or a stream."""

from __future__ import annotations

import json

import pytest

from headgate.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    QuotaExhausted,
    RateLimited,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate_server.providers.anthropic.errors import (
    STATUS_OF_TYPE,
    decode_error,
    error_in_body,
)

TABLE: list[tuple[str, str, type[GatewayError]]] = [
    ("invalid_request_error", "max_tokens: must be greater than 0", InvalidRequest),
    ("invalid_request_error", "prompt is too long: 3 tokens > 2 maximum", ContextTooLong),
    ("invalid_request_error", "Your credit balance is too low to access the API", QuotaExhausted),
    ("authentication_error", "invalid x-api-key", UpstreamRejectedUs),
    ("billing_error", "Check your payment details.", QuotaExhausted),
    ("permission_error", "Your API key may not do this.", UpstreamRejectedUs),
    ("not_found_error", "model: claude-sonet", ModelNotFound),
    ("not_found_error", "File not found: file_1", InvalidRequest),
    ("not_found_error", "The requested resource could not be found.", UpstreamProtocol),
    ("conflict_error", "Conflict", UpstreamUnavailable),
    ("request_too_large", "Too large", PayloadTooLarge),
    ("rate_limit_error", "Too fast", RateLimited),
    ("api_error", "Internal server error", UpstreamUnavailable),
    ("timeout_error", "Too slow", UpstreamTimeout),
    ("overloaded_error", "Overloaded", Overloaded),
]


def body(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


def test_the_table_is_whole() -> None:
    assert {kind for kind, _, _ in TABLE} == set(STATUS_OF_TYPE)


@pytest.mark.parametrize(("kind", "message", "expected"), TABLE)
def test_a_status_and_a_stream_say_the_same(
    kind: str, message: str, expected: type[GatewayError]
) -> None:
    by_status = decode_error(STATUS_OF_TYPE[kind], {}, body(kind, message))
    in_a_stream = error_in_body(body(kind, message))
    assert type(by_status) is type(in_a_stream) is expected
    assert by_status.message == in_a_stream.message
    if issubclass(expected, InvalidRequest):
        assert by_status.message == message


@pytest.mark.parametrize("kind", ["", "brand_new_error"])
def test_an_unknown_type_is_judged_by_its_status(kind: str) -> None:
    assert type(decode_error(429, {}, body(kind, "x"))) is RateLimited
    assert type(error_in_body(body(kind, "x"))) is UpstreamUnavailable


def test_a_message_is_no_error() -> None:
    assert error_in_body(b'{"type":"message","content":[]}') is None
    assert error_in_body(b"<html>") is None
    assert error_in_body(b"") is None


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 413, 418, 429, 500, 529, 999])
@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"error":null}',
        b'{"error":[]}',
        b'{"error":{}}',
        b'{"error":{"type":7,"message":{"a":1},"details":[]},"request_id":{}}',
        b'{"type":"error"}',
        b'{"message":7}',
    ],
    ids=lambda given: repr(given[:12]),
)
def test_decoding_an_error_never_fails(status: int, given: bytes) -> None:
    headers = {"retry-after": "soon", "request-id": "r" * 1000}
    error = decode_error(status, headers, given)
    assert error.metadata["upstream_status"] == str(status)
    assert error.retry_after is None


def test_credentials_that_the_vendor_quotes_stay_here() -> None:
    for status in (401, 403):
        kind = "authentication_error"
        error = decode_error(status, {}, body(kind, "invalid x-api-key sk-ant-secret"))
        assert "sk-ant" not in error.message
