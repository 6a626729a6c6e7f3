"""How many tokens a prompt has, about. Pure.

For providers that do not count. Tokenizers differ by model and are not published for many, so this is a
rule of thumb, and whoever shows the number says that it is an estimate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from headgate.v1 import chat_pb2, content_pb2

# A token is about four characters of English:
# https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them
# Other scripts take about one token for each character.
_CHARACTERS_PER_TOKEN = 4.0
_DENSE = re.compile(r"[\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_TOOL = 12
# An image of 1024 x 1024: 765 (https://platform.openai.com/docs/guides/images-vision) to 1,400
# (https://docs.claude.com/en/docs/build-with-claude/vision).
_TOKENS_PER_IMAGE = 1000
_BYTES_PER_FILE_TOKEN = 50


def estimate_tokens(request: chat_pb2.ChatRequest) -> int:
    """Tokens of the prompt: messages, tools, the schema of the answer. At least 1."""
    total = 0
    for message in request.messages:
        total += _TOKENS_PER_MESSAGE + _parts(message.parts)
    for tool in request.tools:
        function = tool.function
        total += _TOKENS_PER_TOOL + _text(function.name) + _text(function.description)
        total += _text(function.parameters_json) + _text(tool.provider_tool_json)
    if request.HasField("response_format"):
        total += _text(request.response_format.json_schema.schema_json)
    if request.HasField("text_completion"):
        total += _text(request.text_completion.prompt_json)
    return max(total, 1)


def _parts(parts: Iterable[content_pb2.Part]) -> int:
    total = 0
    for part in parts:
        kind = part.WhichOneof("kind")
        if kind == "text":
            total += _text(part.text)
        elif kind == "reasoning":
            total += _text(part.reasoning.text)
        elif kind == "refusal":
            total += _text(part.refusal)
        elif kind == "tool_call":
            total += _text(part.tool_call.name) + _text(part.tool_call.arguments_json)
        elif kind == "tool_result":
            total += _parts(part.tool_result.parts)
        elif kind == "image":
            total += _TOKENS_PER_IMAGE
        elif kind in ("file", "audio"):
            total += max(len(getattr(part, kind).data) // _BYTES_PER_FILE_TOKEN, 1)
        elif kind == "vendor_part":
            total += _text(part.vendor_part.json)
    return total


def _text(text: str) -> int:
    if not text:
        return 0
    dense = 0 if text.isascii() else len(_DENSE.findall(text))
    return dense + round((len(text) - dense) / _CHARACTERS_PER_TOKEN + 0.5)
