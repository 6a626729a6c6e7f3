"""What all dialects do with the conversation so far, whatever they turn it into. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate.wire import MalformedJson, raw_object

INSTRUCTIONS = (content_pb2.ROLE_SYSTEM, content_pb2.ROLE_DEVELOPER)
RESULTS = (content_pb2.ROLE_TOOL, content_pb2.ROLE_FUNCTION)
_NUMBER = re.compile("[0-9]+")


def said(parts: Sequence[content_pb2.Part], path: str) -> Iterator[tuple[str, content_pb2.Part]]:
    """The parts with their paths, but for empty texts beside others; of nothing but these, one.

    Clients have them beside calls and at the end of streams, and some APIs refuse them.
    """
    idle = len(parts) > 1 and all(map(_says_nothing, parts))
    for place, part in enumerate(parts):
        if idle or len(parts) == 1 or not _says_nothing(part):
            yield f"{path}[{place}]", part
            idle = False


def _says_nothing(part: content_pb2.Part) -> bool:
    return (
        part.WhichOneof("kind") in ("text", "refusal")
        and not (part.text or part.refusal or part.annotations)
        and not (part.extra_json or part.thought_signature)
    )


class OpenCalls:
    """The calls that came without an id, as OpenAI's deprecated functions do, and wait for results."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, str]] = []  # (name, made-up id)

    def id_of(self, call: content_pb2.ToolCall, path: str) -> str:
        """The call's id; one made of its place if it has none, such as `call_1_0`."""
        if call.id:
            return call.id
        made_up = "_".join(("call", *_NUMBER.findall(path)))
        self._waiting.append((call.name, made_up))
        return made_up

    def answered_by(self, result: content_pb2.ToolResult, path: str) -> str:
        """The id of the call that a result is for: if it names none, the oldest open one of its name.

        Raises:
            InvalidRequest: no such call is open.
        """
        if result.tool_call_id:
            return result.tool_call_id
        match = next((call for call in self._waiting if call[0] == result.name), None)
        if match is None:
            raise InvalidRequest.of(path, f"no earlier call of {result.name!r} waits for this")
        self._waiting.remove(match)
        return match[1]


def arguments_object(call: content_pb2.ToolCall, path: str, why: str) -> msgspec.Raw:
    """The arguments of a call as they are, for APIs that take an object and not its text.

    Args:
        call: of a function.
        path: of the call, for errors.
        why: what the arguments must be, and for whom.

    Raises:
        InvalidRequest: they are something else.
    """
    text = call.arguments_json.strip()
    if text in ("", "null"):
        text = "{}"
    try:
        raw_object(text)
    except MalformedJson as error:
        raise InvalidRequest.of(f"{path}.arguments_json", f"{why}: {error.problem}") from error
    return msgspec.Raw(text)
