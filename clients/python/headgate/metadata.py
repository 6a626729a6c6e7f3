"""The names of gRPC metadata and REST headers, once, and what a request id may look like."""

from __future__ import annotations

import hashlib
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
CALLERS = "x-"
_OWN = ("x-headgate-", "x-request-id", "x-api-key", "x-goog-", "x-stainless-", "x-forwarded-")
# Names that gRPC takes, too; it refuses the whole call for any other. "-bin" means bytes to it.
_CALLERS_NAME = re.compile(r"x-[a-z0-9_.-]{0,126}(?<!-bin)")
_PRINTABLE = re.compile(r"[ -~]*")
_MAX_CALLERS_HEADERS = 32
_MAX_CALLERS_VALUE = 512
# gRPC peers accept 8 KiB of metadata by default, and a key may be half of it.
_MAX_CALLERS_BYTES = 2048
_MAX_IDEMPOTENCY_KEY = 255
_MAX_CACHE_WISH = 32


def callers_headers(given: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The headers or metadata for routing rules: ``x-...``, printable, a few, 2 KiB at most, by name.

    What does not fit is left out. Applied to its own result it changes nothing, so that rules see the
    same wherever it is applied first.

    Args:
        given: names in lower case, and values.
    """
    found: list[tuple[str, str]] = []
    room = _MAX_CALLERS_BYTES
    for name, value in given:
        if not name.startswith(CALLERS) or name.startswith(_OWN):
            continue
        value = value.strip(" \t")
        if (
            len(value) > _MAX_CALLERS_VALUE
            or not _CALLERS_NAME.fullmatch(name)
            or not _PRINTABLE.fullmatch(value)
        ):
            continue
        size = len(name) + len(value)
        if size > room or len(found) == _MAX_CALLERS_HEADERS:
            break
        room -= size
        found.append((name, value))
    # HTTP/2 does not keep the order of different names.
    return tuple(sorted(found, key=_name))


def _name(header: tuple[str, str]) -> str:
    return header[0]


def idempotency_key(given: str | None) -> str | None:
    """The caller's idempotency key in a form that can travel; None if there is none.

    A key that is too long or not printable is as good as any other, and becomes its digest. To leave it
    out would run the call twice.
    """
    if not given or not (given := given.strip(" \t")):
        return None
    if len(given) <= _MAX_IDEMPOTENCY_KEY and _PRINTABLE.fullmatch(given):
        return given
    return f"sha256:{hashlib.sha256(given.encode('utf-8', 'surrogatepass')).hexdigest()}"


def cache_wish(given: str | None) -> str | None:
    """What the caller wants of the cache, in lower case; None for nothing, and for what is no word."""
    wish = given.strip().lower() if given else ""
    return wish if wish.isascii() and wish.isalpha() and len(wish) <= _MAX_CACHE_WISH else None


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
