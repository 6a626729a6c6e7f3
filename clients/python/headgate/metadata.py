"""The names of gRPC metadata and REST headers, once, and what a request id may look like."""

from __future__ import annotations

import random
import re

AUTHORIZATION = "authorization"
REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
HOPS = "x-headgate-hops"
PROVIDER = "x-headgate-provider"
MODEL = "x-headgate-model"
ATTEMPTS = "x-headgate-attempts"
WARNINGS = "x-headgate-warnings"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


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
