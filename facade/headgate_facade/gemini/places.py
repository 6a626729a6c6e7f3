"""Field paths of the proto in the words of a Gemini body, for errors. Pure."""

from __future__ import annotations

import re

_CONFIG = "generationConfig."
# Fields of ChatRequest, and where they stand in the body.
_FIELDS = {
    "temperature": f"{_CONFIG}temperature",
    "top_p": f"{_CONFIG}topP",
    "top_k": f"{_CONFIG}topK",
    "n": f"{_CONFIG}candidateCount",
    "max_completion_tokens": f"{_CONFIG}maxOutputTokens",
    "stop": f"{_CONFIG}stopSequences",
    "seed": f"{_CONFIG}seed",
    "presence_penalty": f"{_CONFIG}presencePenalty",
    "frequency_penalty": f"{_CONFIG}frequencyPenalty",
    "logprobs": f"{_CONFIG}responseLogprobs",
    "top_logprobs": f"{_CONFIG}logprobs",
    "modalities": f"{_CONFIG}responseModalities",
    "audio": f"{_CONFIG}speechConfig",
    "response_format": f"{_CONFIG}responseSchema",
    "reasoning.budget_tokens": f"{_CONFIG}thinkingConfig.thinkingBudget",
    "reasoning.effort": f"{_CONFIG}thinkingConfig.thinkingLevel",
    "reasoning.summary": f"{_CONFIG}thinkingConfig.includeThoughts",
    "reasoning": f"{_CONFIG}thinkingConfig",
    "tool_choice": "toolConfig.functionCallingConfig",
    "web_search_options": "tools",
    "messages": "contents",
    "page_size": "pageSize",
    "page_token": "pageToken",
}
_MESSAGE = re.compile(r"messages\[(\d+)\](?:\.parts\[(\d+)\])?")
_TOOL = re.compile(r"tools\[(\d+)\]")


class Places:
    """Where the parts of the messages, and the tools, stand in one body."""

    __slots__ = ("messages", "tools")

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str]]] = []
        self.tools: list[str] = []


def rest_path(path: str, places: Places) -> str:
    """A field path of the proto in the words of the body."""
    found = _MESSAGE.match(path)
    if found is not None and int(found[1]) < len(places.messages):
        return _place(places.messages[int(found[1])], found[2], path[found.end() :])
    found = _TOOL.match(path)
    if found is not None and int(found[1]) < len(places.tools):
        rest = path[found.end() :].removeprefix(".function").removesuffix("_json")
        return places.tools[int(found[1])] + ("" if rest == ".provider_tool" else rest)
    for field in (path, path.split(".", 1)[0]):
        if field in _FIELDS:
            return _FIELDS[field]
    return path


def _place(message: tuple[str, list[str]], part: str | None, rest: str) -> str:
    where, parts = message
    if part is None:
        return where + rest
    # Below the part the names are the proto's, and say no more than the part does.
    return parts[int(part)] if int(part) < len(parts) else where
