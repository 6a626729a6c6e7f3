"""What is wrong with a body, in its own words. Pure.

Owns the two translations of a problem: from msgspec's words, for bodies that cannot be read, and from the
proto's field paths, for requests that the core or a provider refuses. The first kind of words are those
that Anthropic's users know, such as "max_tokens: Field required".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from headgate.errors import FieldViolation, GatewayError, InvalidRequest
from headgate.wire import MalformedJson

REQUIRED = "Field required"
# Where a message of the proto comes from: the index of the body's message, or SYSTEM; and the index of
# its first content block, or AS_TEXT if the content is a string.
Place = tuple[int, int]
SYSTEM = -1
AS_TEXT = -1

# What msgspec says.
_MEMBER = re.compile(r"object (?:(missing required)|contains unknown) field `([^`]*)`")
_ITEM = re.compile(r"\bmessages\[(\d+)\](?:\.parts(?:\[(\d+)\](?:\.text\b)?)?)?")
_WITHIN = (
    (re.compile(r"(?<=\])\.tool_result\.parts\b"), ".content"),
    (re.compile(r"(?<=\])\.tool_result\.tool_call_id\b"), ".tool_use_id"),
    (re.compile(r"(?<=\])\.tool_result\.is_error\b"), ".is_error"),
    (re.compile(r"(?<=\])\.tool_call\.(id|name)\b"), r".\1"),
    (re.compile(r"(?<=\])\.tool_call\.arguments_json\b"), ".input"),
    (re.compile(r"(?<=\])\.(image|file)\.\w+"), ".source"),
    (re.compile(r"(?<=\])\.(image|file|text|reasoning|tool_call|tool_result)\b"), ""),
    (re.compile(r"(?<=\])\.vendor_part(\.\w+)?"), ""),
    (re.compile(r"(?<=\])\.extra_json\b"), ""),
    (re.compile(r"\b(tools\[\d+\])\.provider_tool_json\b"), r"\1"),
    (re.compile(r"\b(tools\[\d+\])\.function\.parameters_json\b"), r"\1.input_schema"),
    (re.compile(r"\b(tools\[\d+\])\.function\b"), r"\1"),
    (re.compile(r"\btool_choice\.(mode|function_name|provider_choice_json)\b"), "tool_choice"),
    (re.compile(r"\bresponse_format\.json_schema\.schema_json\b"), "output_config.format.schema"),
    (re.compile(r"\bresponse_format(\.json_schema)?(\.\w+)?"), "output_config.format"),
    (re.compile(r"\breasoning\.effort\b"), "output_config.effort"),
    (re.compile(r"\breasoning\.budget_tokens\b"), "thinking.budget_tokens"),
    (re.compile(r"\breasoning\.enabled\b"), "thinking.type"),
    (re.compile(r"\breasoning\.summary\b"), "thinking.display"),
    (re.compile(r"\bparallel_tool_calls\b"), "tool_choice.disable_parallel_tool_use"),
)
# Names that are words of English, too: only as a whole path.
_WHOLE = {"stop": "stop_sequences", "user": "metadata.user_id"}


def unreadable(error: MalformedJson, body: bytes) -> InvalidRequest:
    """A body that is not the JSON of a request."""
    if error.is_json:
        return misshapen(error)
    if not body.strip():
        return InvalidRequest("the body is empty; it must be a JSON object with model and messages")
    problem = error.problem
    before, marker, offset = problem.rpartition("(byte ")
    if marker:
        head = body[: int(offset.rstrip(")"))]
        line = head.count(b"\n") + 1
        column = len(head) - (head.rfind(b"\n") + 1) + 1
        problem = f"{before}(line {line}, column {column})"
    return InvalidRequest(f"the body is not valid JSON: {problem}")


def misshapen(error: MalformedJson, within: str = "") -> InvalidRequest:
    """JSON of another shape than Anthropic's; names the member, the missing one included."""
    path = f"{within}.{error.path}" if within and error.path else within or error.path
    found = _MEMBER.fullmatch(error.problem)
    if found is not None:
        missing, name = found.groups()
        problem = REQUIRED if missing else "is not known here"
        return InvalidRequest.of(f"{path}.{name}" if path else name, problem)
    if not path:
        return InvalidRequest(f"the body must be a JSON object: {error.problem}")
    return InvalidRequest.of(path, error.problem)


def in_words_of_the_body(error: GatewayError, places: Sequence[Place]) -> GatewayError:
    """The error with the paths of the body; the same object if it names none.

    Args:
        error: as it came from the core.
        places: for each message of the request that was sent there, where it comes from.
    """
    if not isinstance(error, InvalidRequest) or not error.violations:
        return error
    told = type(error)(
        _path(error.message, places),
        violations=[
            FieldViolation(_path(v.field, places), v.description) for v in error.violations
        ],
        retry_after=error.retry_after,
        metadata=error.metadata,
    )
    told.request_id = error.request_id
    return told


def _path(text: str, places: Sequence[Place]) -> str:
    """Field paths of the proto, wherever they stand in the text, as paths into the body."""

    def item(found: re.Match[str]) -> str:
        index = int(found[1])
        if index >= len(places):
            return found[0]
        message, first = places[index]
        base = "system" if message == SYSTEM else f"messages[{message}]"
        if ".parts" not in found[0]:
            return base
        content = base if message == SYSTEM else f"{base}.content"
        if found[2] is None or first == AS_TEXT:
            return content
        return f"{content}[{first + int(found[2])}]"

    text = _ITEM.sub(item, text)
    for path, words in _WITHIN:
        text = path.sub(words, text)
    field, colon, rest = text.partition(":")
    return _WHOLE[field] + colon + rest if field in _WHOLE else text
