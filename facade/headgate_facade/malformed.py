"""Bodies that cannot be read, as `InvalidRequest`s that name the member. Pure."""

from __future__ import annotations

import re

from headgate.errors import InvalidRequest
from headgate.wire import MalformedJson

# What msgspec says.
_MEMBER = re.compile(r"object (?:(missing required)|contains unknown) field `([^`]*)`")


def unreadable(
    error: MalformedJson, body: bytes, needed: str, *, required: str = "is required"
) -> InvalidRequest:
    """What is wrong with a whole body: not JSON at all, or of another shape.

    Args:
        error: what the decoder found.
        body: what it read.
        needed: the members that it must have.
        required: the door's words for a member that is missing.
    """
    if error.is_json:
        return misshapen(error, required=required)
    if not body.strip():
        return InvalidRequest(f"the body is empty; it must be a JSON object with {needed}")
    problem = error.problem
    before, marker, offset = problem.rpartition("(byte ")
    if marker:
        head = body[: int(offset.rstrip(")"))]
        line = head.count(b"\n") + 1
        column = len(head) - (head.rfind(b"\n") + 1) + 1
        problem = f"{before}(line {line}, column {column})"
    return InvalidRequest(f"the body is not valid JSON: {problem}")


def misshapen(
    error: MalformedJson, within: str = "", *, required: str = "is required"
) -> InvalidRequest:
    """JSON of another shape than the door's; names the member, the missing one included."""
    path = f"{within}.{error.path}" if within and error.path else within or error.path
    found = _MEMBER.fullmatch(error.problem)
    if found is not None:
        missing, name = found.groups()
        problem = required if missing else "is not known here"
        return InvalidRequest.of(f"{path}.{name}" if path else name, problem)
    if not path:
        return InvalidRequest(f"the body must be a JSON object: {error.problem}")
    return InvalidRequest.of(path, error.problem)
