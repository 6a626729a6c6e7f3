"""Bodies that cannot be read, as `InvalidRequest`s that name the member. Pure."""

from __future__ import annotations

import re

from headgate.errors import InvalidRequest
from headgate.wire import MalformedJson

# What msgspec says.
_MEMBER = re.compile(r"object (?:(missing required)|contains unknown) field `([^`]*)`")
_TAG = re.compile(r"invalid value '(.*)'")


def unreadable(error: MalformedJson, body: bytes) -> InvalidRequest:
    """For the whole body: not JSON at all, or of another shape."""
    if error.is_json:
        return misshapen(error)
    if not body.strip():
        return InvalidRequest("the body is empty; it must be a JSON object with model and input")
    problem = error.problem
    before, marker, offset = problem.rpartition("(byte ")
    if marker:
        head = body[: int(offset.rstrip(")"))]
        line, column = head.count(b"\n") + 1, len(head) - (head.rfind(b"\n") + 1) + 1
        problem = f"{before}(line {line}, column {column})"
    return InvalidRequest(f"the body is not valid JSON: {problem}")


def misshapen(error: MalformedJson, within: str = "") -> InvalidRequest:
    """JSON of another shape than OpenAI's; names the member, the missing one included."""
    path = f"{within}.{error.path}" if within and error.path else within or error.path
    found = _MEMBER.fullmatch(error.problem)
    if found is not None:
        missing, name = found.groups()
        problem = "is required" if missing else "is not known here"
        return InvalidRequest.of(f"{path}.{name}" if path else name, problem)
    if not path:
        return InvalidRequest(f"the body must be a JSON object: {error.problem}")
    tag = _TAG.fullmatch(error.problem)
    if tag is not None and path.endswith("].type"):
        return InvalidRequest.of(
            path,
            f"{tag[1]!r} is not known here; it must be input_text, input_image, input_file,"
            " input_audio, or in messages of the model output_text or refusal",
        )
    return InvalidRequest.of(path, error.problem)
