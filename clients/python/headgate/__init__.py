"""Headgate's public library: the gRPC client, the errors, and the fold of a stream.

The generated messages are in `headgate.v1`.
"""

from headgate.client import Client, Tls
from headgate.core import CallContext, ChatCore, EventStream
from headgate.errors import (
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    FieldViolation,
    GatewayError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    StoreUnavailable,
    Unauthenticated,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.fold import fold

__all__ = [
    "CallContext",
    "ChatCore",
    "Client",
    "ContentFiltered",
    "ContextTooLong",
    "DeadlineExceeded",
    "EventStream",
    "FieldViolation",
    "GatewayError",
    "InternalError",
    "InvalidRequest",
    "ModelNotFound",
    "Overloaded",
    "PayloadTooLarge",
    "PermissionDenied",
    "QuotaExhausted",
    "RateLimited",
    "StoreUnavailable",
    "Tls",
    "Unauthenticated",
    "UpstreamProtocol",
    "UpstreamRejectedUs",
    "UpstreamTimeout",
    "UpstreamUnavailable",
    "fold",
]
__version__ = "0.1.0"
