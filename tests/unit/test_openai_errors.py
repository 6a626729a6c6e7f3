"""What upstreams say when they fail."""

from __future__ import annotations

import datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import (
    ContentFiltered,
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
from headgate_server.providers.faults import retry_after
from headgate_server.providers.openai.errors import decode_error, error_in_body


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, UpstreamProtocol),
        (400, InvalidRequest),
        (401, UpstreamRejectedUs),
        (402, QuotaExhausted),
        (403, UpstreamRejectedUs),
        (404, ModelNotFound),
        (405, UpstreamProtocol),
        (408, UpstreamTimeout),
        (409, UpstreamUnavailable),
        (413, PayloadTooLarge),
        (422, InvalidRequest),
        (425, UpstreamUnavailable),
        (429, RateLimited),
        (500, UpstreamUnavailable),
        (502, UpstreamUnavailable),
        (503, Overloaded),
        (504, UpstreamTimeout),
        (529, Overloaded),
        (599, UpstreamUnavailable),
    ],
)
def test_statuses(status: int, kind: type[GatewayError]) -> None:
    error = decode_error(status, {}, b'{"error":{"message":"m"}}')
    assert type(error) is kind
    assert error.metadata == {"upstream_status": str(status)}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error":{"code":"context_length_exceeded"}}', ContextTooLong),
        (400, b'{"error":{"message":"exceeds the context window of 8192"}}', ContextTooLong),
        (413, b'{"error":{"message":"Too many tokens"}}', ContextTooLong),
        (400, b'{"error":{"code":"content_filter"}}', ContentFiltered),
        (400, b'{"error":{"code":"data_inspection_failed"}}', ContentFiltered),
        (400, b'{"error":{"code":"model_not_found"}}', ModelNotFound),
        (429, b'{"error":{"code":"insufficient_quota"}}', QuotaExhausted),
        (429, b'{"error":{"type":"exceeded_current_quota_error"}}', QuotaExhausted),
        (400, b'{"error":{"code":"Arrearage"}}', QuotaExhausted),
        (404, b'{"detail":"Not Found"}', UpstreamProtocol),
        (404, b'{"error":{"message":"Invalid URL (POST /v1/v1/chat)"}}', UpstreamProtocol),
        (404, b'{"message":"The model does not exist"}', ModelNotFound),
        (404, b'{"error":{"message":"Not found the model k or Permission denied"}}', ModelNotFound),
        (404, b"404 page not found", UpstreamProtocol),
        (400, b"<html>", UpstreamProtocol),
        (400, b"", UpstreamProtocol),
        (400, b'{"message":"m"}', InvalidRequest),
        (400, b'{"error":"m"}', InvalidRequest),
        (500, b"\xff", UpstreamUnavailable),
        (404, b'{"error":{"code":"DeploymentNotFound"}}', ModelNotFound),
        (404, b'{"error":{"code":"404","message":"Resource not found"}}', UpstreamProtocol),
        (400, b'{"error":{"message":"API version not supported"}}', UpstreamProtocol),
        (400, b'{"error":{"innererror":{"code":"ResponsibleAIPolicyViolation"}}}', ContentFiltered),
        (429, b'{"error":{"code":"NoCapacity"}}', Overloaded),
        (429, b'{"error":{"type":"engine_overloaded_error"}}', Overloaded),
        (403, b'{"error":{"code":403,"metadata":{"flagged_input":"x"}}}', ContentFiltered),
        (403, b'{"error":{"code":403,"metadata":{}}}', UpstreamRejectedUs),
        (400, b'{"error":{"message":"m","metadata":1,"innererror":[]}}', InvalidRequest),
    ],
)
def test_bodies(status: int, body: bytes, kind: type[GatewayError]) -> None:
    assert type(decode_error(status, {}, body)) is kind


def test_a_key_in_the_upstreams_words_goes_no_further() -> None:
    body = b'{"error":{"message":"Incorrect API key provided: sk-12345"}}'
    for status in (401, 403):
        assert "sk-12345" not in decode_error(status, {}, body).message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":{"message":"m"}}', UpstreamUnavailable),
        (b'{"error":{"message":"m","code":429}}', RateLimited),
        (b'{"error":{"message":"m","code":"503"}}', Overloaded),
        (b'{"error":{"message":"m","type":"invalid_request_error"}}', InvalidRequest),
        (b'{"error":{"message":"m","type":"overloaded_error"}}', Overloaded),
        (b'{"error":"m"}', UpstreamUnavailable),
        (b'[{"error":{"message":"m","code":400}}]', InvalidRequest),
        (b'{"object":"error","message":"m","code":404}', ModelNotFound),
        (b'{"error":{"message":"m","code":"content_filter"}}', ContentFiltered),
        (b'{"error":{"message":"m","code":"content_filter","status":400}}', ContentFiltered),
        (b'{"error":{"message":"m","code":"x","status":429}}', RateLimited),
        (b'{"error":{"message":"m","code":"context_length_exceeded"}}', ContextTooLong),
    ],
)
def test_errors_with_status_200(body: bytes, kind: type[GatewayError]) -> None:
    error = error_in_body(body)
    assert type(error) is kind
    assert error is not None
    assert error.message == "m"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"1", b'{"choices":[]}', b"data: x", b"\xff"])
def test_no_error_where_there_is_none(body: bytes) -> None:
    assert error_in_body(body) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e9"}, 86400.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86400.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert retry_after({"retry-after": format_datetime(when, usegmt=True)}) == pytest.approx(
        30, abs=2
    )


@given(st.integers(100, 999), st.text(max_size=40), st.binary(max_size=80))
def test_nothing_makes_it_fail(status: int, header: str, body: bytes) -> None:
    error = decode_error(status, {"retry-after": header}, body)
    assert error.retry_after is None or error.retry_after >= 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"code":%s,"message":"m"}}' % (b"9" * 5000),
        b'{"error":' * 100_000,
        b'{"error":{"message":"%s"}}' % (b"x" * 100_000),
        b'{"error":{"message":{"a":[1,2]},"code":true,"type":[]}}',
    ],
)
def test_odd_bodies(body: bytes) -> None:
    assert len(decode_error(400, {}, body).message) <= 1024
