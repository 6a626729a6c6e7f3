"""Field paths of the proto in the words of an Anthropic body, for errors. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Where a message of the proto comes from: the index of the body's message, or SYSTEM; and the index of
# its first content block, or AS_TEXT if the content is a string.
Place = tuple[int, int]
SYSTEM = -1
AS_TEXT = -1
# Anthropic's words for a member that is missing.
REQUIRED = "Field required"

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
    (re.compile(r"(?<=\])\.annotations(\[\d+\])(\.other_json)?"), r".citations\1"),
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


def body_path(path: str, places: Sequence[Place]) -> str:
    """A field path of the proto as a path into the body.

    Args:
        path: into the request.
        places: for each message of the request, where it comes from.
    """

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

    path = _ITEM.sub(item, path)
    for pattern, words in _WITHIN:
        path = pattern.sub(words, path)
    return _WHOLE.get(path, path)
