"""Every way a call can fail: one tree, one table, and the codec to and from gRPC statuses.

::

    GatewayError
     ├── InvalidRequest          INVALID_ARGUMENT     400
     │    └── ContextTooLong     INVALID_ARGUMENT     400
     ├── ContentFiltered         FAILED_PRECONDITION  400
     ├── Unauthenticated         UNAUTHENTICATED      401
     ├── PermissionDenied        PERMISSION_DENIED    403
     ├── ModelNotFound           NOT_FOUND            404
     ├── PayloadTooLarge         RESOURCE_EXHAUSTED   413
     ├── RateLimited             RESOURCE_EXHAUSTED   429   + RetryInfo
     ├── QuotaExhausted          RESOURCE_EXHAUSTED   429   + QuotaFailure
     ├── UpstreamUnavailable     UNAVAILABLE          503   + RetryInfo
     │    └── Overloaded         UNAVAILABLE          503   + RetryInfo
     ├── StoreUnavailable        UNAVAILABLE          503
     ├── DeadlineExceeded        DEADLINE_EXCEEDED    504
     │    └── UpstreamTimeout    DEADLINE_EXCEEDED    504
     ├── UpstreamRejectedUs      INTERNAL             502
     ├── UpstreamProtocol        INTERNAL             502
     └── InternalError           INTERNAL             500

The core raises these, the gRPC servicer encodes them with `to_trailers`, the client decodes them
with `from_rpc_error`, and a front door turns them into its dialect's envelope. Nothing else in the
project knows a status code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from headgate.v1 import chat_pb2, errors_pb2

DOMAIN = "headgate"
STATUS_DETAILS_KEY = "grpc-status-details-bin"

# gRPC peers accept 8 KiB of metadata by default, and a message travels in it twice: once
# percent-encoded (up to three bytes for one) and once inside the base64 of the details. What is
# clipped is clipped when the error is made, so that it is the same on both sides of a channel.
MAX_MESSAGE_BYTES = 1024
MAX_VIOLATIONS = 8
_MAX_VIOLATION_BYTES = 256
# Of all violations together, and of what was tried in the room that they leave: few errors have both.
_MAX_DETAIL_BYTES = 1024
_MAX_SERVED_BYTES = 768
_MAX_FACT_BYTES = 128
_MAX_FACTS = 6
_MAX_RETRY_SECONDS = 10 * 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: its path, such as ``messages[0].parts``, and what is wrong with it."""

    field: str
    description: str


class GatewayError(Exception):
    """The root. Subclasses say what happened; the attributes say what to do about it.

    Attributes:
        message: for the caller; never holds secrets. Clipped to 1 KiB.
        retry_after: seconds after which another try may succeed, if known.
        metadata: facts for the caller's log: ``provider``, ``model``, ``upstream_status``,
            ``upstream_code``. A few short ones.
        request_id: of the call that failed, once it has.
        served: what was tried; None if nothing was. Setting it keeps a copy: without the single attempts,
            or None, where it would not fit into a status.
    """

    reason: ClassVar[errors_pb2.ErrorReason.ValueType] = errors_pb2.ERROR_REASON_INTERNAL
    grpc_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    http_status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.message = _clip(message, MAX_MESSAGE_BYTES)
        self.retry_after = retry_after
        self.metadata: dict[str, str] = {}
        self.request_id: str | None = None
        self._room = _MAX_DETAIL_BYTES
        self._served: chat_pb2.Served | None = None
        super().__init__(self.message)
        if metadata:
            self.with_metadata(**metadata)

    def with_metadata(self, **facts: str) -> GatewayError:
        """Adds facts that were not known where the error was raised; keeps those that were."""
        for key, value in facts.items():
            if key not in self.metadata and len(self.metadata) < _MAX_FACTS:
                self.metadata[key] = _clip(value, _MAX_FACT_BYTES)
        return self

    @property
    def served(self) -> chat_pb2.Served | None:  # noqa: D102 - described above
        return self._served

    @served.setter
    def served(self, served: chat_pb2.Served | None) -> None:
        kept = None
        if served is not None:
            kept = chat_pb2.Served()
            kept.CopyFrom(served)
            room = min(self._room, _MAX_SERVED_BYTES)
            if kept.ByteSize() > room:
                kept.ClearField("tried")
            if kept.ByteSize() > room:
                kept = None
        self._served = kept


class InvalidRequest(GatewayError):
    """A field of the request is wrong. `violations` names each one."""

    reason = errors_pb2.ERROR_REASON_INVALID_REQUEST
    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 400

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, metadata=metadata)
        self.violations: list[FieldViolation] = []
        for violation in violations[:MAX_VIOLATIONS]:
            clipped = FieldViolation(
                _clip(violation.field, _MAX_VIOLATION_BYTES),
                _clip(violation.description, _MAX_VIOLATION_BYTES),
            )
            size = len(clipped.field.encode()) + len(clipped.description.encode())
            if size > self._room:
                break
            self._room -= size
            self.violations.append(clipped)

    @classmethod
    def of(cls, field: str, description: str) -> InvalidRequest:
        """One wrong field."""
        return cls.of_all([FieldViolation(field, description)])

    @classmethod
    def of_all(cls, violations: Sequence[FieldViolation]) -> InvalidRequest:
        """Several wrong fields; the message names them all, as far as there is room."""
        text = "; ".join(f"{v.field}: {v.description}" for v in violations[:MAX_VIOLATIONS])
        more = len(violations) - MAX_VIOLATIONS
        return cls(text + (f"; and {more} more" if more > 0 else ""), violations=violations)


class ContextTooLong(InvalidRequest):
    """The prompt does not fit the model's context window."""

    reason = errors_pb2.ERROR_REASON_CONTEXT_TOO_LONG


class ContentFiltered(GatewayError):
    """The provider's content filter refused the prompt."""

    reason = errors_pb2.ERROR_REASON_CONTENT_FILTERED
    grpc_code = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 400


class Unauthenticated(GatewayError):
    """The caller gave no credentials, or unknown ones."""

    reason = errors_pb2.ERROR_REASON_UNAUTHENTICATED
    grpc_code = grpc.StatusCode.UNAUTHENTICATED
    http_status = 401


class PermissionDenied(GatewayError):
    """The caller's credentials do not allow this."""

    reason = errors_pb2.ERROR_REASON_PERMISSION_DENIED
    grpc_code = grpc.StatusCode.PERMISSION_DENIED
    http_status = 403


class ModelNotFound(GatewayError):
    """No such model, or none that this caller may use: the two look alike on purpose."""

    reason = errors_pb2.ERROR_REASON_MODEL_NOT_FOUND
    grpc_code = grpc.StatusCode.NOT_FOUND
    http_status = 404


class PayloadTooLarge(GatewayError):
    """The request is larger than a limit."""

    reason = errors_pb2.ERROR_REASON_PAYLOAD_TOO_LARGE
    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 413


class RateLimited(GatewayError):
    """Too many requests or tokens, by our limit or the upstream's."""

    reason = errors_pb2.ERROR_REASON_RATE_LIMITED
    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 429


class QuotaExhausted(GatewayError):
    """A budget or a prepaid quota is used up; waiting a little does not help."""

    reason = errors_pb2.ERROR_REASON_QUOTA_EXHAUSTED
    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 429


class UpstreamUnavailable(GatewayError):
    """The upstream could not be reached, broke off, or answered with a fault of its own."""

    reason = errors_pb2.ERROR_REASON_UPSTREAM_UNAVAILABLE
    grpc_code = grpc.StatusCode.UNAVAILABLE
    http_status = 503


class Overloaded(UpstreamUnavailable):
    """The upstream, or this gateway, has too much to do."""

    reason = errors_pb2.ERROR_REASON_OVERLOADED


class StoreUnavailable(GatewayError):
    """The gateway's own store does not answer."""

    reason = errors_pb2.ERROR_REASON_STORE_UNAVAILABLE
    grpc_code = grpc.StatusCode.UNAVAILABLE
    http_status = 503


class DeadlineExceeded(GatewayError):
    """The caller's deadline passed."""

    reason = errors_pb2.ERROR_REASON_DEADLINE_EXCEEDED
    grpc_code = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = 504


class UpstreamTimeout(DeadlineExceeded):
    """The upstream took longer than the operator allows."""

    reason = errors_pb2.ERROR_REASON_UPSTREAM_TIMEOUT


class UpstreamRejectedUs(GatewayError):
    """The upstream does not accept the gateway's own credentials. Never the caller's fault."""

    reason = errors_pb2.ERROR_REASON_UPSTREAM_REJECTED_US
    http_status = 502


class UpstreamProtocol(GatewayError):
    """The upstream's answer breaks its own protocol."""

    reason = errors_pb2.ERROR_REASON_UPSTREAM_PROTOCOL
    http_status = 502


class InternalError(GatewayError):
    """A defect of Headgate. The message is opaque; the request id finds it in the log."""


_BY_REASON: dict[str, type[GatewayError]] = {}


def _register(cls: type[GatewayError]) -> None:
    for sub in cls.__subclasses__():
        _BY_REASON[reason_name(sub)] = sub
        _register(sub)


def reason_name(error: GatewayError | type[GatewayError]) -> str:
    """The reason as it appears in ErrorInfo, such as ``RATE_LIMITED``."""
    return errors_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


_register(GatewayError)

# What a status means that carries no details of ours: it comes from gRPC itself, or from a proxy.
_BY_CODE: dict[grpc.StatusCode, type[GatewayError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: ContentFiltered,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.UNAVAILABLE: UpstreamUnavailable,
    grpc.StatusCode.CANCELLED: UpstreamUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def to_status(error: GatewayError, request_id: str = "") -> status_pb2.Status:
    """The error as google.rpc.Status: ErrorInfo, the details that its kind has, what was tried."""
    status = status_pb2.Status(code=error.grpc_code.value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(
        reason=reason_name(error), domain=DOMAIN, metadata=error.metadata
    )
    _attach(status, info)
    if isinstance(error, InvalidRequest) and error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        _attach(status, bad)
    if isinstance(error, QuotaExhausted):
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(
            subject=error.metadata.get("subject", error.metadata.get("provider", DOMAIN)),
            description=_clip(error.message, _MAX_VIOLATION_BYTES),
        )
        _attach(status, quota)
    if error.retry_after is not None and math.isfinite(error.retry_after):
        retry = error_details_pb2.RetryInfo()
        seconds = min(max(error.retry_after, 0.0), _MAX_RETRY_SECONDS)
        retry.retry_delay.FromNanoseconds(round(seconds * 1e9))
        _attach(status, retry)
    if request_id:
        _attach(status, error_details_pb2.RequestInfo(request_id=request_id))
    if error.served is not None:
        _attach(status, error.served)
    return status


def to_trailers(error: GatewayError, request_id: str = "") -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries the error's details."""
    return ((STATUS_DETAILS_KEY, to_status(error, request_id).SerializeToString()),)


def from_status(status: status_pb2.Status) -> GatewayError:
    """The inverse of `to_status`. A status without our ErrorInfo is judged by its code alone."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    found: type[GatewayError] | None = None
    metadata: dict[str, str] = {}
    retry_after: float | None = None
    request_id: str | None = None
    tried: chat_pb2.Served | None = None
    violations: list[FieldViolation] = []
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        request = error_details_pb2.RequestInfo()
        served = chat_pb2.Served()
        try:
            if detail.Unpack(info) and info.domain == DOMAIN:
                found = _BY_REASON.get(info.reason)
                metadata = dict(info.metadata)
            elif detail.Unpack(bad):
                violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
            elif detail.Unpack(retry):
                retry_after = max(retry.retry_delay.ToNanoseconds() / 1e9, 0.0)
            elif detail.Unpack(request):
                request_id = request.request_id
            elif detail.Unpack(served):
                tried = served
        except DecodeError:
            continue  # not of our making: a proxy's, or damaged on the way
    cls = found or _judge(code, status.message)
    error: GatewayError
    if issubclass(cls, InvalidRequest):
        error = cls(
            status.message, violations=violations, retry_after=retry_after, metadata=metadata
        )
    else:
        error = cls(status.message, retry_after=retry_after, metadata=metadata)
    error.request_id = request_id
    error.served = tried
    return error


def from_rpc_error(error: Any) -> GatewayError:
    """The error behind a failed RPC of the generated stubs: a `grpc.RpcError`, sync or async."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or code.name
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY:
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except DecodeError:
                break
            if status.code == code.value[0]:
                return from_status(status)
    return from_status(status_pb2.Status(code=code.value[0], message=message))


def _judge(code: grpc.StatusCode, message: str) -> type[GatewayError]:
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC's own words for messages and metadata over the limit, on either side.
        over = "larger than max" in message or "metadata size exceeds" in message
        return PayloadTooLarge if over else RateLimited
    return _BY_CODE.get(code, InternalError)


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def _attach(
    status: status_pb2.Status,
    detail: error_details_pb2.ErrorInfo
    | error_details_pb2.BadRequest
    | error_details_pb2.QuotaFailure
    | error_details_pb2.RetryInfo
    | error_details_pb2.RequestInfo
    | chat_pb2.Served,
) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _clip(text: str, limit: int) -> str:
    # Lone surrogates (possible in text decoded from JSON) cannot be encoded for the wire.
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - 3].decode("utf-8", "ignore") + "…"
