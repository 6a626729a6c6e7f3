"""Tools and the choice among them. Pure.

Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools, and for web search
https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson, raw_object
from headgate_server.providers.anthropic.blocks import cache_control
from headgate_server.providers.encoding import NO_ARGUMENTS, Encoding, Json, place_of

# Called directly: filtering of what it finds by code is only for some models and platforms.
WEB_SEARCH = {
    "type": "web_search_20260318",
    "name": "web_search",
    "allowed_callers": ["direct"],
}
_MODES = {
    chat_pb2.ToolChoice.MODE_NONE: "none",
    chat_pb2.ToolChoice.MODE_AUTO: "auto",
    chat_pb2.ToolChoice.MODE_REQUIRED: "any",
}

_NONE = msgspec.Raw(b'"none"')


def encode_tools(encoding: Encoding, tools: Iterable[chat_pb2.Tool]) -> None:
    """Puts the tools into the body. Raises `InvalidRequest` for another API's."""
    encoding.body["tools"] = [
        _tool(encoding, tool, f"tools[{index}]") for index, tool in enumerate(tools)
    ]


def _tool(encoding: Encoding, tool: chat_pb2.Tool, path: str) -> Json | msgspec.Raw:
    if tool.HasField("provider_tool_json"):
        return _provider_tool(encoding, tool, path)
    function = tool.function
    wire: Json = {"name": function.name}
    if function.HasField("description"):
        wire["description"] = function.description
    wire["input_schema"] = _schema(function.parameters_json, path)
    if function.HasField("strict"):
        wire["strict"] = function.strict
    if tool.HasField("cache_control"):
        wire["cache_control"] = cache_control(tool.cache_control)
    encoding.part_extras(wire, tool.extra_json, path)
    return wire


def _provider_tool(encoding: Encoding, tool: chat_pb2.Tool, path: str) -> Json | msgspec.Raw:
    if not encoding.speaks_extras:
        raise InvalidRequest.of(
            f"{path}.provider_tool_json",
            f"is a tool of the {encoding.origin!r} API, which this provider ({encoding.dialect!r}) does "
            "not have; use a function, or one of this API's own tools with its extra_dialect",
        )
    if not tool.HasField("cache_control") and not tool.extra_json:
        return msgspec.Raw(tool.provider_tool_json)
    wire: Json = dict(raw_object(tool.provider_tool_json))
    if tool.HasField("cache_control"):
        wire.setdefault("cache_control", cache_control(tool.cache_control))
    encoding.part_extras(wire, tool.extra_json, path)
    return wire


def _schema(text: str, path: str) -> Json | msgspec.Raw:
    """The schema as it is; but the API insists on its being one of objects."""
    if not text:
        return NO_ARGUMENTS
    try:
        members = raw_object(text)
    except MalformedJson as error:
        raise InvalidRequest.of(
            f"{path}.function.parameters_json", f"must be a JSON object: {error.problem}"
        ) from error
    return msgspec.Raw(text) if "type" in members else {"type": "object", **members}


def encode_web_search(encoding: Encoding, options: chat_pb2.WebSearchOptions) -> None:
    """Adds the API's own search to the tools."""
    if options.HasField("search_context_size"):
        encoding.leave_out(
            "web_search_options.search_context_size",
            "the API decides itself how much context a search gathers",
        )
    encoding.body.setdefault("tools", []).append({**WEB_SEARCH, **place_of(options)})


def encode_tool_choice(encoding: Encoding) -> None:
    """The choice, and whether several calls may come in one answer; call it behind all tools."""
    request = encoding.request
    if "tools" not in encoding.body:
        return  # nothing to choose among; the API refuses a choice then
    choice = request.tool_choice
    kind = choice.WhichOneof("kind")
    value: Json = {}
    if kind == "provider_choice_json":
        if encoding.speaks_extras:
            value = dict(raw_object(choice.provider_choice_json))
        else:
            encoding.unsupported_extra("tool_choice.provider_choice_json")
    elif kind == "function_name":
        value = {"type": "tool", "name": choice.function_name}
    elif kind == "mode":
        value = {"type": _MODES[choice.mode]}
    if request.HasField("parallel_tool_calls") and not request.parallel_tool_calls:
        value = value or {"type": "auto"}
        if value.get("type") not in ("none", _NONE):
            value.setdefault("disable_parallel_tool_use", True)
    if value:
        encoding.body["tool_choice"] = value
