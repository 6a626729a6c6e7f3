"""Ollama's failures to GatewayErrors. Pure.

The body is `{"error": "text"}`, with a status if nothing was sent before, and as a line of the stream if
something was. Its words are all there is beyond the status. Source: https://docs.ollama.com/api/errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headgate.errors import GatewayError, InvalidRequest, ModelNotFound, Overloaded
from headgate_server.providers.faults import json_of, of_answer, of_status, patient
from headgate_server.providers.wordings import of_words

_NO_SUCH_MODEL = re.compile(r"""model ['"`].*['"`] not found""")


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """The error behind an answer whose status is not 200. Never raises."""
    return of_answer(_judge(status, _message(body)), status, headers)


def error_in_body(body: bytes) -> GatewayError | None:
    """The error in a body that came with status 200, or in a line of a stream; None if none."""
    found = _message(body)
    return None if found is None else patient(_judge(500, found))


def _message(body: bytes) -> str | None:
    """What the body says; None if it is no error object."""
    value = json_of(body)
    error: Any = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):  # of a proxy in front of it
        error = error.get("message")
    return error if isinstance(error, str) and error else None


def _judge(status: int, found: str | None) -> GatewayError:
    message = found or f"the upstream answered with HTTP status {status}"
    words = message.lower()
    if status not in (401, 403):
        # Its statuses are not to be relied on; but a 429 is of its cloud.
        if found and (told_in_words := of_words(429 if status == 429 else 400, found)) is not None:
            return told_in_words
        if "does not support" in words:
            return InvalidRequest(message)
        if _NO_SUCH_MODEL.search(words):
            return ModelNotFound(message)
        if "server busy" in words:
            return Overloaded(message)
    return of_status(status, message, explained=found is not None)
