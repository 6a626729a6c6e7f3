"""What every door's errors have in common: their headers, and field paths in the words of a body. Pure.

The envelope is each door's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from headgate.errors import (
    FieldViolation,
    GatewayError,
    InvalidRequest,
    QuotaExhausted,
    UpstreamRejectedUs,
)
from headgate_facade.http import JSON, Headers
from headgate_facade.served import served_headers

Words = Callable[[str], str]
"""Turns a field path of the proto, such as ``messages[0].parts[1].image``, into one of a body."""

# Faults that another try cannot cure, though SDKs retry their status. `x-should-retry` overrules it:
# https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py, and Anthropic's likewise.
_FINAL = (QuotaExhausted, UpstreamRejectedUs)


def error_headers(
    error: GatewayError, request_id: str, content_type: tuple[bytes, bytes] = JSON
) -> Headers:
    """The headers that go with an envelope."""
    headers = [content_type, (b"x-request-id", request_id.encode())]
    if error.retry_after is not None:
        # Whole seconds, rounded up, and never 0, which SDKs take for "not given".
        headers.append((b"retry-after", b"%d" % max(math.ceil(error.retry_after), 1)))
        headers.append((b"retry-after-ms", b"%d" % max(int(error.retry_after * 1000), 1)))
    if isinstance(error, _FINAL):
        headers.append((b"x-should-retry", b"false"))
    if error.served is not None:
        headers += served_headers(error.served)
    return headers


def in_words(error: GatewayError, words: Words) -> GatewayError:
    """The core's error with the paths of a body; the same object if it names none."""
    if not isinstance(error, InvalidRequest) or not error.violations:
        return error
    message = error.message
    violations = []
    for violation in error.violations:
        field = words(violation.field)
        message = message.replace(f"{violation.field}: ", f"{field}: ", 1)
        violations.append(FieldViolation(field, violation.description))
    told = type(error)(
        message, violations=violations, retry_after=error.retry_after, metadata=error.metadata
    )
    told.request_id = error.request_id
    told.served = error.served
    return told
