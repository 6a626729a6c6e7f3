"""Tools and the choice among them in the form of the Responses API. Pure.

A function without `strict` goes out with `strict: false`. Left open, this API would try to enforce the
schema, while everywhere else (Chat Completions included) it is a hint; only callers who speak this API's
own dialect get its default. Custom tools and the choices of Chat Completions differ in their nesting
alone, so they are translated; other tools of a foreign dialect are refused.

Source: https://platform.openai.com/docs/api-reference/responses/create and
https://platform.openai.com/docs/guides/migrate-to-responses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate_server.providers.encoding import Encoding, Json, place_of, schema_of

TOOL_CHOICE_MODES = {
    chat_pb2.ToolChoice.MODE_NONE: "none",
    chat_pb2.ToolChoice.MODE_AUTO: "auto",
    chat_pb2.ToolChoice.MODE_REQUIRED: "required",
}


def encode_tools(encoding: Encoding, tools: Iterable[chat_pb2.Tool]) -> None:
    """Puts the tools into the body."""
    encoding.body["tools"] = [
        _function(encoding, tool, f"tools[{index}]")
        if tool.HasField("function")
        else _provider_tool(encoding, tool.provider_tool_json, f"tools[{index}]")
        for index, tool in enumerate(tools)
    ]


def _function(encoding: Encoding, tool: chat_pb2.Tool, path: str) -> Json:
    function = tool.function
    wire: Json = {"type": "function", "name": function.name}
    if function.HasField("description"):
        wire["description"] = function.description
    wire["parameters"] = schema_of(function)
    if function.HasField("strict"):
        wire["strict"] = function.strict
    else:
        wire["strict"] = None if encoding.speaks_extras else False
    encoding.part_extras(wire, tool.extra_json, path)
    return wire


def _provider_tool(encoding: Encoding, json: str, path: str) -> Json | msgspec.Raw:
    if encoding.speaks_extras:
        return msgspec.Raw(json)
    tool: Json = msgspec.json.decode(json)
    if encoding.origin == "openai" and isinstance(custom := tool.get("custom"), dict):
        return _custom(tool, custom)
    raise InvalidRequest.of(
        f"{path}.provider_tool_json",
        f"is a tool of the {encoding.origin} API, found type {tool.get('type')!r:.40}; this target "
        "speaks openai_responses. Send it in that form with extra_dialect openai_responses, or as a "
        "function",
    )


def _custom(tool: Json, custom: Json) -> Json:
    """A custom tool of Chat Completions: the same members, one level deeper."""
    wire: Json = {"type": "custom", **custom, **_beside(tool, "custom")}
    form = wire.get("format")
    if isinstance(form, dict) and isinstance(grammar := form.get("grammar"), dict):
        wire["format"] = {"type": "grammar", **grammar}
    return wire


def _beside(value: Json, name: str) -> Json:
    return {key: inner for key, inner in value.items() if key not in ("type", name)}


def encode_web_search(encoding: Encoding, options: chat_pb2.WebSearchOptions) -> None:
    """Adds the tool that searches the web."""
    wire: Json = {"type": "web_search"}
    if options.HasField("search_context_size"):
        wire["search_context_size"] = options.search_context_size
    encoding.body.setdefault("tools", []).append({**wire, **place_of(options)})


def encode_tool_choice(encoding: Encoding, choice: chat_pb2.ToolChoice) -> None:
    """Puts the choice into the body."""
    kind = choice.WhichOneof("kind")
    if kind == "mode":
        encoding.body["tool_choice"] = TOOL_CHOICE_MODES[choice.mode]
    elif kind == "function_name":
        encoding.body["tool_choice"] = {"type": "function", "name": choice.function_name}
    elif kind == "provider_choice_json":
        wire = _provider_choice(encoding, choice.provider_choice_json)
        if wire is None:
            encoding.unsupported_extra("tool_choice")
        else:
            encoding.body["tool_choice"] = wire


def _provider_choice(encoding: Encoding, json: str) -> Json | msgspec.Raw | None:
    """A choice of the provider's own; None if it cannot be said here."""
    if encoding.speaks_extras:
        return msgspec.Raw(json)
    choice: Json = msgspec.json.decode(json)
    if encoding.origin != "openai":
        return None
    if isinstance(custom := choice.get("custom"), dict):
        return {"type": "custom", **custom}
    if isinstance(allowed := choice.get("allowed_tools"), dict):
        tools = [_named(tool) for tool in allowed.get("tools") or ()]
        return {"type": "allowed_tools", **allowed, "tools": tools}
    return None


def _named(tool: Any) -> Any:
    """A tool that a choice of Chat Completions names: its name is one level deeper."""
    if not isinstance(tool, dict):
        return tool
    kind = tool.get("type")
    inner = tool.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **inner} if isinstance(inner, dict) else tool
