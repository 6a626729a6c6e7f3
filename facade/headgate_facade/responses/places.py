"""Field paths of the proto in the words of a Responses body, for errors. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MESSAGE = re.compile(r"\bmessages\[(\d+)\](?:\.parts\[(\d+)\])?")
_TOOL = re.compile(r"\btools\[(\d+)\]")
# What is left of a path into the proto, in the words of the body.
_PATHS = (
    (re.compile(r"\.tool_result\.parts\b"), ".output"),
    (re.compile(r"\.tool_result\.tool_call_id\b"), ".call_id"),
    (re.compile(r"\.tool_call\.arguments_json\b"), ".arguments"),
    (re.compile(r"\.tool_call\.id\b"), ".call_id"),
    (re.compile(r"\.(tool_result|tool_call)\.(?=\w)"), "."),
    (re.compile(r"(?<=\])\.(text|image|audio|file|tool_call|tool_result|reasoning|refusal|vendor_part"
                r"|provider_tool_json|extra_json)(\.(url|data|media_type|json|dialect))?\b"), ""),
    (re.compile(r"(?<=\])\.function\.(?=\w)"), "."),
    (re.compile(r"(?<=\])\.(function|parts|role)\b"), ""),
    (re.compile(r"\bparameters_json\b"), "parameters"),
    (re.compile(r"\bmax_(?:completion_)?tokens\b"), "max_output_tokens"),
    (re.compile(r"\bresponse_format\.json_schema\.schema_json\b"), "text.format.schema"),
    (re.compile(r"\bresponse_format\.json_schema\b"), "text.format"),
    (re.compile(r"\bresponse_format\b(\.(text|json_object))?"), "text.format"),
    (re.compile(r"(?:^|(?<=; ))verbosity(?=:|$)"), "text.verbosity"),
    (re.compile(r"\btool_choice\.(mode|function_name|provider_choice_json)\b"), "tool_choice"),
    (re.compile(r"\bweb_search_options(\.\w+)*"), "tools"),
    (re.compile(r"(?:^|(?<=; ))messages(?=:|$)"), "input"),
)  # fmt: skip


def body_path(
    path: str, messages: Sequence[tuple[str, Sequence[str]]], tools: Sequence[str]
) -> str:
    """A field path of the proto as a path into the body; items and messages do not match one to one.

    Args:
        path: into the request.
        messages: for each message where it came from, and where its parts came from.
        tools: for each tool where it came from.
    """

    def message(found: re.Match[str]) -> str:
        index = int(found[1])
        if index >= len(messages):
            return found[0]
        whole, parts = messages[index]
        if found[2] is None:
            return whole
        return parts[int(found[2])] if int(found[2]) < len(parts) else whole

    def tool(found: re.Match[str]) -> str:
        index = int(found[1])
        return tools[index] if index < len(tools) else found[0]

    path = _TOOL.sub(tool, _MESSAGE.sub(message, path))
    for pattern, words in _PATHS:
        path = pattern.sub(words, path)
    return path
