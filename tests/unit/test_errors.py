"""The error tree, its table, and the codec to and from gRPC statuses."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headgate import errors
from headgate.errors import (
    FieldViolation,
    GatewayError,
    InvalidRequest,
    from_rpc_error,
    from_status,
    reason_name,
    to_status,
    to_trailers,
)
from headgate.v1 import chat_pb2, errors_pb2, routing_pb2

Code = grpc.StatusCode
METADATA_LIMIT = 8192


def tree(cls: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    """All below it; not those that the server has for its own use."""
    own = [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]
    return [found for sub in own for found in (sub, *tree(sub))]


CLASSES = tree()
# The design's table: class, gRPC code, HTTP status. Other people script against it.
TABLE: dict[type[GatewayError], tuple[grpc.StatusCode, int]] = {
    errors.InvalidRequest: (Code.INVALID_ARGUMENT, 400),
    errors.ContextTooLong: (Code.INVALID_ARGUMENT, 400),
    errors.ContentFiltered: (Code.FAILED_PRECONDITION, 400),
    errors.Unauthenticated: (Code.UNAUTHENTICATED, 401),
    errors.PermissionDenied: (Code.PERMISSION_DENIED, 403),
    errors.ModelNotFound: (Code.NOT_FOUND, 404),
    errors.PayloadTooLarge: (Code.RESOURCE_EXHAUSTED, 413),
    errors.RateLimited: (Code.RESOURCE_EXHAUSTED, 429),
    errors.QuotaExhausted: (Code.RESOURCE_EXHAUSTED, 429),
    errors.UpstreamUnavailable: (Code.UNAVAILABLE, 503),
    errors.Overloaded: (Code.UNAVAILABLE, 503),
    errors.StoreUnavailable: (Code.UNAVAILABLE, 503),
    errors.DeadlineExceeded: (Code.DEADLINE_EXCEEDED, 504),
    errors.UpstreamTimeout: (Code.DEADLINE_EXCEEDED, 504),
    errors.UpstreamRejectedUs: (Code.INTERNAL, 502),
    errors.UpstreamProtocol: (Code.INTERNAL, 502),
    errors.InternalError: (Code.INTERNAL, 500),
}


def test_the_table() -> None:
    assert {cls: (cls.grpc_code, cls.http_status) for cls in CLASSES} == TABLE


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    rows = re.findall(r"[├└]── (\w+) +(\w+) +(\d+)", errors.__doc__ or "")
    assert {name: (code, int(status)) for name, code, status in rows} == {
        cls.__name__: (code.name, status) for cls, (code, status) in TABLE.items()
    }
    assert len(rows) == len(TABLE)


def test_each_class_has_a_reason_of_its_own() -> None:
    reasons = [cls.reason for cls in CLASSES]
    assert len(set(reasons)) == len(reasons)
    assert {*reasons, errors_pb2.ERROR_REASON_UNSPECIFIED} == set(errors_pb2.ErrorReason.values())


def test_the_proto_says_which_code_each_reason_has() -> None:
    proto = Path(__file__).parents[2] / "proto/headgate/v1/errors.proto"
    found = re.findall(r"((?: *//.*\n)+) *ERROR_REASON_(\w+) = [1-9]", proto.read_text())
    said = {reason: set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", text)) for text, reason in found}
    names = {code.name for code in grpc.StatusCode}
    assert {cls: said[reason_name(cls)] & names for cls in CLASSES} == {
        cls: {code.name} for cls, (code, _) in TABLE.items()
    }


# -- the codec ----------------------------------------------------------------------------------------


class Failed(grpc.RpcError):
    """A failed RPC, as the stubs raise it."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        self._values = (code, details, trailers)

    def code(self) -> grpc.StatusCode:
        return self._values[0]

    def details(self) -> str:
        return self._values[1]

    def trailing_metadata(self) -> Any:
        return self._values[2]


def facts(error: GatewayError) -> dict[str, Any]:
    return {
        "class": type(error),
        "message": error.message,
        "retry_after": error.retry_after,
        "metadata": error.metadata,
        "violations": error.violations if isinstance(error, InvalidRequest) else None,
        "served": error.served,
    }


def over_the_wire(error: GatewayError) -> GatewayError:
    trailers = to_trailers(error, "req_1")
    return from_rpc_error(Failed(error.grpc_code, error.message, trailers))


def size(error: GatewayError) -> int:
    """The metadata of the failed call, counted as HTTP/2 counts it, in its longest encoding."""
    request_id = "x" * 128
    ((key, details),) = to_trailers(error, request_id)
    quoted = sum(1 if 32 <= byte < 127 and byte != 37 else 3 for byte in error.message.encode())
    pairs = [
        (key, len(base64.b64encode(details))),
        ("grpc-message", quoted),
        ("grpc-status", 2),
        ("x-request-id", 128),
        ("content-type", len("application/grpc")),
        (":status", 3),
    ]
    return sum(len(name) + length + 32 for name, length in pairs)


# Text as it comes out of JSON: control characters and lone surrogates included.
texts = st.text(st.characters(exclude_categories=[]), max_size=60)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def served(names: list[str], times: int) -> chat_pb2.Served:
    """What was tried: each name as a provider and a model, over and over."""
    tried = [
        routing_pb2.Attempt(provider=name, model=name, fault=routing_pb2.FAULT_OVERLOAD)
        for name in names * times
    ]
    return chat_pb2.Served(route="".join(names), attempts=len(tried), tried=tried)


huge = st.builds(lambda text, times: text * times, texts, st.sampled_from([1, 1, 50, 5000]))


@settings(deadline=None, max_examples=300)
@given(
    cls=st.sampled_from(CLASSES),
    message=huge,
    retry_after=st.none() | st.floats(0, 1e6),
    metadata=st.dictionaries(
        st.sampled_from(["provider", "model", "upstream_status", "upstream_code"]), huge
    ),
    violations=st.lists(st.builds(FieldViolation, huge, huge), max_size=12),
    tried=st.none() | st.builds(served, st.lists(names, max_size=4), st.sampled_from([1, 9, 999])),
)
@example(errors.QuotaExhausted, "é" * 9999, 1.5, {"model": "é" * 999}, [], served(["x" * 30], 15))
@example(
    errors.QuotaExhausted,
    "é" * 9999,
    1.5,
    dict.fromkeys(("provider", "model", "upstream_status", "upstream_code", "a", "b"), "é" * 999),
    [],
    served(["x" * 1000], 1),
)
@example(
    errors.ContextTooLong,
    "\x00" * 9999,
    1e6,
    dict.fromkeys(("provider", "model", "upstream_status", "upstream_code"), "�" * 999),
    [FieldViolation("é" * 999, "\n" * 999)] * 12,
    served(["x" * 10], 20),
)
def test_any_error_survives_the_wire_and_fits(
    cls: type[GatewayError],
    message: str,
    retry_after: float | None,
    metadata: dict[str, str],
    violations: list[FieldViolation],
    tried: chat_pb2.Served | None,
) -> None:
    error: GatewayError
    if issubclass(cls, InvalidRequest):
        error = cls(message, violations=violations, retry_after=retry_after, metadata=metadata)
    else:
        error = cls(message, retry_after=retry_after, metadata=metadata)
    error.served = tried
    assert size(error) <= METADATA_LIMIT
    found = over_the_wire(error)
    expected = facts(error)
    if retry_after is not None:
        assert found.retry_after == pytest.approx(retry_after, abs=1e-9)
        expected["retry_after"] = found.retry_after
    assert facts(found) == expected
    assert found.request_id == "req_1"


def test_what_fits_is_not_clipped() -> None:
    error = InvalidRequest.of_all([FieldViolation(f"messages[{n}].role", "bad") for n in range(8)])
    assert len(error.violations) == 8
    assert error.message.count("bad") == 8
    longer = InvalidRequest.of_all([FieldViolation("a", "b")] * 11)
    assert longer.message.endswith("; and 3 more")
    message = "x" * errors.MAX_MESSAGE_BYTES
    assert GatewayError(message).message == message
    clipped = GatewayError(message + "x").message
    assert clipped.endswith("…")
    assert len(clipped.encode()) <= errors.MAX_MESSAGE_BYTES


def test_what_was_tried_is_kept_as_far_as_it_fits() -> None:
    error = errors.Overloaded("x")
    few, many, long = served(["a", "b"], 2), served(["a", "b"], 200), served(["a" * 2000], 1)
    error.served = few
    assert error.served == few
    assert error.served is not few
    error.served = many
    assert error.served == chat_pb2.Served(route="ab", attempts=400)
    error.served = long
    assert error.served is None
    # Violations come first.
    crowded = InvalidRequest("x", violations=[FieldViolation("a" * 256, "b" * 256)] * 2)
    assert len(crowded.violations) == 2
    crowded.served = few
    assert crowded.served is None


def test_clipping_keeps_characters_whole() -> None:
    for shift in range(4):
        clipped = GatewayError("x" * shift + "🙂" * 1000).message
        assert "\ufffd" not in clipped
        assert set(clipped.removesuffix("…").lstrip("x")) == {"🙂"}


@pytest.mark.parametrize("seconds", [math.inf, math.nan, -1.0, 1e300, 0.0, 1e-12])
def test_odd_waits_do_no_harm(seconds: float) -> None:
    found = over_the_wire(errors.RateLimited("x", retry_after=seconds))
    if math.isfinite(seconds):
        assert found.retry_after is not None
        assert 0 <= found.retry_after <= 10 * 365 * 24 * 3600
    else:
        assert found.retry_after is None


def test_the_details_of_each_kind() -> None:
    def kinds(error: GatewayError) -> list[str]:
        return [
            detail.TypeName().removeprefix("google.rpc.") for detail in to_status(error).details
        ]

    assert kinds(errors.InternalError("x")) == ["ErrorInfo"]
    assert kinds(InvalidRequest.of("a", "b")) == ["ErrorInfo", "BadRequest"]
    assert kinds(errors.QuotaExhausted("x")) == ["ErrorInfo", "QuotaFailure"]
    assert kinds(errors.Overloaded("x", retry_after=1)) == ["ErrorInfo", "RetryInfo"]
    status = to_status(errors.RateLimited("x"), "req_1")
    assert status.details[-1].TypeName() == "google.rpc.RequestInfo"
    overloaded = errors.Overloaded("x")
    overloaded.served = served(["a"], 1)
    assert kinds(overloaded) == ["ErrorInfo", "headgate.v1.Served"]


def test_facts_that_are_known_are_kept() -> None:
    error = GatewayError("x", metadata={"provider": "a"})
    assert error.with_metadata(provider="b", model="m") is error
    assert error.metadata == {"provider": "a", "model": "m"}


def test_an_error_is_its_message() -> None:
    assert str(errors.RateLimited("slow down")) == "slow down"


# -- statuses that are not ours -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (Code.INVALID_ARGUMENT, "x", errors.InvalidRequest),
        (Code.OUT_OF_RANGE, "x", errors.InvalidRequest),
        (Code.FAILED_PRECONDITION, "x", errors.ContentFiltered),
        (Code.UNAUTHENTICATED, "x", errors.Unauthenticated),
        (Code.PERMISSION_DENIED, "x", errors.PermissionDenied),
        (Code.NOT_FOUND, "x", errors.ModelNotFound),
        (Code.UNAVAILABLE, "failed to connect", errors.UpstreamUnavailable),
        (Code.CANCELLED, "x", errors.UpstreamUnavailable),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.DeadlineExceeded),
        (Code.RESOURCE_EXHAUSTED, "x", errors.RateLimited),
        (
            Code.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (5 vs. 4)",
            errors.PayloadTooLarge,
        ),
        (
            Code.RESOURCE_EXHAUSTED,
            "received metadata size exceeds hard limit (17000 vs. 16384)",
            errors.PayloadTooLarge,
        ),
        (Code.INTERNAL, "x", errors.InternalError),
        (Code.UNKNOWN, "x", errors.InternalError),
        (Code.UNIMPLEMENTED, "x", errors.InternalError),
        (Code.ABORTED, "x", errors.InternalError),
        (Code.ALREADY_EXISTS, "x", errors.InternalError),
        (Code.DATA_LOSS, "x", errors.InternalError),
    ],
)
def test_a_status_without_details(
    code: grpc.StatusCode, message: str, expected: type[GatewayError]
) -> None:
    found = from_rpc_error(Failed(code, message, None))
    assert type(found) is expected
    assert found.message == message
    assert found.retry_after is None


def test_a_status_without_a_message() -> None:
    assert from_rpc_error(Failed(Code.UNAVAILABLE, "")).message == "UNAVAILABLE"


def attach(status: status_pb2.Status, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def test_details_of_others_are_not_ours() -> None:
    status = status_pb2.Status(code=Code.UNAVAILABLE.value[0], message="x")
    attach(status, error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="example.com"))
    assert type(from_status(status)) is errors.UpstreamUnavailable


def test_a_reason_that_is_newer_than_we_are() -> None:
    status = status_pb2.Status(code=Code.NOT_FOUND.value[0], message="x")
    attach(
        status,
        error_details_pb2.ErrorInfo(
            reason="VOICE_NOT_FOUND", domain="headgate", metadata={"a": "b"}
        ),
    )
    found = from_status(status)
    assert type(found) is errors.ModelNotFound
    assert found.metadata == {"a": "b"}


@given(junk=st.binary(max_size=40))
def test_damaged_details_do_no_harm(junk: bytes) -> None:
    trailers = ((errors.STATUS_DETAILS_KEY, junk),)
    found = from_rpc_error(Failed(Code.UNAVAILABLE, "text", trailers))
    assert isinstance(found, GatewayError)
    assert found.grpc_code is Code.UNAVAILABLE
    status = status_pb2.Status(code=Code.UNAVAILABLE.value[0], message="text")
    for name in ("ErrorInfo", "BadRequest", "RetryInfo", "RequestInfo", "Unknown"):
        status.details.add(type_url=f"type.googleapis.com/google.rpc.{name}", value=junk)
    assert isinstance(from_status(status), GatewayError)


def test_details_that_contradict_the_status_are_not_believed() -> None:
    trailers = to_trailers(errors.Unauthenticated("x"))
    found = from_rpc_error(Failed(Code.UNAVAILABLE, "proxy", trailers))
    assert type(found) is errors.UpstreamUnavailable
    assert found.message == "proxy"


def test_every_code_has_some_class() -> None:
    for code in grpc.StatusCode:
        found = from_status(status_pb2.Status(code=cast(int, code.value[0]), message="x"))
        assert isinstance(found, GatewayError)
    assert type(from_status(status_pb2.Status(code=99))) is errors.InternalError
