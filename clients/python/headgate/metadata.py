"""The names of gRPC metadata and REST headers, once, and what a request id may look like."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

AUTHORIZATION = "authorization"
REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
HOPS = "x-headgate-hops"
PROVIDER = "x-headgate-provider"
MODEL = "x-headgate-model"
ATTEMPTS = "x-headgate-attempts"
WARNINGS = "x-headgate-warnings"
# The public model that served, what was tried, and how long the call waited in between, in seconds.
ROUTE = "x-headgate-route"
TRIED = "x-headgate-tried"
WAITED = "x-headgate-waited"
# In a request: on, off or refresh. In an answer: hit, miss or shared.
CACHE = "x-headgate-cache"
# A serialized headgate.v1.Served, in the trailing metadata of both RPCs.
SERVED = "x-headgate-served-bin"
IDEMPOTENCY_KEY = "idempotency-key"
# "true" on the answer of an earlier call with the same idempotency key.
REPEATED = "x-headgate-repeated"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


# What routing rules may look at: headers of these beginnings, but for those with a meaning of their own.
_CALLERS = "x-"
_OWN = ("x-headgate-", "x-request-id", "x-api-key", "x-goog-", "x-stainless-", "x-forwarded-")
_MAX_CALLERS_HEADERS = 32
_MAX_CALLERS_VALUE = 512


def callers_headers(given: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The headers or metadata for routing rules: ``x-...``, in lower case, printable, a few.

    Args:
        given: names in lower case, and values.
    """
    found = [
        (name, value)
        for name, value in given
        if name.startswith(_CALLERS)
        and not name.startswith(_OWN)
        and not name.endswith("-bin")
        and len(value) <= _MAX_CALLERS_VALUE
        and value.isascii()
        and value.isprintable()
    ]
    return tuple(found[:_MAX_CALLERS_HEADERS])


def new_request_id() -> str:
    """A fresh id: ``req_`` and 128 random bits. A label, not a secret: no system call for it."""
    return f"req_{random.getrandbits(128):032x}"


def request_id_or_new(given: str | None) -> str:
    """The caller's request id if it is well-formed, else a fresh one.

    A malformed id is replaced rather than refused: it is a label for logs, and must not be a way to
    smuggle line breaks into them.
    """
    if given and _REQUEST_ID.fullmatch(given):
        return given
    return new_request_id()
