"""What went wrong with an attempt, as far as routing is concerned, and what follows from it. Pure.

Owns the closed taxonomy. It stands apart from the error that a caller is shown: a dialect's error module
turns an upstream's answer into a `GatewayError`, whose class has its fault here, and the fault alone
decides what happens next.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from headgate.errors import (
    ContentFiltered,
    DeadlineExceeded,
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


class Fault(enum.IntEnum):
    """`headgate.v1.Fault`, number by number; NONE is an attempt that answered."""

    NONE = 0
    CALLER = 1
    POLICY = 2
    CREDENTIAL = 3
    QUOTA = 4
    RATE_LIMIT = 5
    OVERLOAD = 6
    PROVIDER = 7
    TRANSPORT = 8
    TIMEOUT = 9
    CANCELLED = 10
    INTERNAL = 11


class Verdict(NamedTuple):
    """What follows from a fault.

    Attributes:
        again: the same target may do better a little later.
        rotate: another key of the same provider may do better at once.
        onward: another target may do better.
        counts: it speaks against the target: its breaker, its rate of errors.
    """

    again: bool
    rotate: bool
    onward: bool
    counts: bool


_STOP = Verdict(again=False, rotate=False, onward=False, counts=False)
_TARGET = Verdict(again=True, rotate=False, onward=True, counts=True)
_KEY = Verdict(again=False, rotate=True, onward=True, counts=False)

VERDICTS: dict[Fault, Verdict] = {
    Fault.NONE: _STOP,
    Fault.CALLER: _STOP,
    Fault.POLICY: _STOP,
    Fault.CREDENTIAL: _KEY,
    Fault.QUOTA: _KEY,
    Fault.RATE_LIMIT: _KEY._replace(again=True),
    Fault.OVERLOAD: _TARGET,
    Fault.PROVIDER: _TARGET,
    Fault.TRANSPORT: _TARGET,
    # Whoever has just waited that long does not want to do it again.
    Fault.TIMEOUT: _TARGET._replace(again=False),
    Fault.CANCELLED: _STOP,
    Fault.INTERNAL: _STOP,
}


class Unreachable(UpstreamUnavailable):
    """No connection to the upstream, or a broken one. Callers see the class above."""


class RejectedElsewhere(UpstreamRejectedUs):
    """Credentials of another gateway were refused, by its upstream. Callers see the class above."""


# The most exact class first.
_BY_CLASS: dict[type[GatewayError], Fault] = {
    InvalidRequest: Fault.CALLER,
    ModelNotFound: Fault.CALLER,
    PayloadTooLarge: Fault.CALLER,
    Unauthenticated: Fault.CALLER,
    PermissionDenied: Fault.CALLER,
    ContentFiltered: Fault.POLICY,
    RejectedElsewhere: Fault.PROVIDER,
    UpstreamRejectedUs: Fault.CREDENTIAL,
    QuotaExhausted: Fault.QUOTA,
    RateLimited: Fault.RATE_LIMIT,
    Unreachable: Fault.TRANSPORT,
    Overloaded: Fault.OVERLOAD,
    UpstreamUnavailable: Fault.PROVIDER,
    UpstreamProtocol: Fault.PROVIDER,
    UpstreamTimeout: Fault.TIMEOUT,
    DeadlineExceeded: Fault.CANCELLED,
    StoreUnavailable: Fault.INTERNAL,
    InternalError: Fault.INTERNAL,
}


def fault_of(error: GatewayError) -> Fault:
    """The fault behind an error: that of its class, or of the nearest class above."""
    for kind in type(error).__mro__:
        fault = _BY_CLASS.get(kind)
        if fault is not None:
            return fault
    return Fault.INTERNAL
