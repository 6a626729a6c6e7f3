"""Tools and the choice among them to `tools` and `toolConfig`. Pure.

Sources: https://ai.google.dev/gemini-api/docs/function-calling (declarations, modes) and
https://ai.google.dev/gemini-api/docs/tool-combination (functions beside the provider's own tools).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import raw_object
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.gemini.address import is_vertex
from headgate_server.providers.gemini.traits import is_gemini_3, is_gemma

_MODES = {
    chat_pb2.ToolChoice.MODE_NONE: "NONE",
    chat_pb2.ToolChoice.MODE_AUTO: "AUTO",
    chat_pb2.ToolChoice.MODE_REQUIRED: "ANY",
}
_TOOL_CONFIG = ("functionCallingConfig", "retrievalConfig", "includeServerSideToolInvocations")


def encode_tools(encoding: Encoding, tools: Iterable[chat_pb2.Tool]) -> None:
    """Puts the tools into the body: one entry for all functions, one for each other tool."""
    declarations: list[Json] = []
    others: list[object] = []
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.WhichOneof("kind") == "provider_tool_json":
            if not encoding.speaks_extras:
                raise InvalidRequest.of(
                    f"{path}.provider_tool_json",
                    f"it is a tool of the {encoding.origin} API, and this target speaks gemini; send a "
                    "function, or Gemini's own tool with extra_dialect gemini",
                )
            others.append(msgspec.Raw(tool.provider_tool_json))
        else:
            declarations.append(_declaration(encoding, tool, path))
    listed = _tools(encoding)
    if declarations:
        listed.append({"functionDeclarations": declarations})
    listed.extend(others)


def encode_web_search(encoding: Encoding, options: chat_pb2.WebSearchOptions) -> None:
    """Google's search; it takes neither a place nor a measure."""
    _tools(encoding).append({"googleSearch": {}})
    for descriptor, _ in options.ListFields():
        encoding.leave_out(
            f"web_search_options.{descriptor.name}", "Google Search has no such parameter"
        )


def encode_tool_choice(encoding: Encoding, choice: chat_pb2.ToolChoice) -> None:
    """Which of the functions may or must be called."""
    kind = choice.WhichOneof("kind")
    calling: Json
    if kind == "mode":
        calling = {"mode": _MODES[choice.mode]}
    elif kind == "function_name":
        calling = {"mode": "ANY", "allowedFunctionNames": [choice.function_name]}
    elif kind == "provider_choice_json":
        if not encoding.speaks_extras:
            encoding.unsupported_extra("tool_choice.provider_choice_json")
            return
        given: Json = dict(raw_object(choice.provider_choice_json))
        # A whole toolConfig, or the one member of it that is about functions.
        whole = not given.keys().isdisjoint(_TOOL_CONFIG)
        encoding.body["toolConfig"] = given if whole else {"functionCallingConfig": given}
        return
    elif kind is None:
        return
    else:
        assert_never(kind)
    encoding.body.setdefault("toolConfig", {})["functionCallingConfig"] = calling


def finish_tool_config(encoding: Encoding) -> None:
    """What follows from all tools together: strictness, and functions beside Google's own tools.

    Strictness is a mode of the whole request, and the only one beside Google's tools. Where those are
    mixed with functions, the Gemini API wants its tools' calls to be part of the conversation.
    """
    functions = [tool.function for tool in encoding.request.tools if tool.HasField("function")]
    if not functions:
        return
    modern = is_gemini_3(encoding.target.family)
    mixed = len(functions) < len(encoding.request.tools) or encoding.request.HasField(
        "web_search_options"
    )
    circulate = mixed and modern and not is_vertex(encoding.target)
    if circulate:
        encoding.body.setdefault("toolConfig", {})["includeServerSideToolInvocations"] = True
    if any(function.strict for function in functions) or circulate:
        _validate_arguments(encoding, by_wish=not circulate)


def _validate_arguments(encoding: Encoding, *, by_wish: bool) -> None:
    family = encoding.target.family
    if family.name == "gemini-2.0" or is_gemma(family):
        if by_wish:
            encoding.leave_out(
                "tools.function.strict",
                f"{encoding.target.model!r} has no mode in which arguments must match their schema",
            )
        return
    config = encoding.body.setdefault("toolConfig", {})
    calling = config.setdefault("functionCallingConfig", {})
    # ANY means validated arguments anyway; a provider's own choice stays as it is.
    if isinstance(calling, dict) and calling.get("mode", "AUTO") == "AUTO":
        calling["mode"] = "VALIDATED"


def _tools(encoding: Encoding) -> list[object]:
    listed: list[object] = encoding.body.setdefault("tools", [])
    return listed


def _declaration(encoding: Encoding, tool: chat_pb2.Tool, path: str) -> Json:
    function = tool.function
    wire: Json = {"name": function.name}
    if function.HasField("description"):
        wire["description"] = function.description
    if function.parameters_json:
        wire["parametersJsonSchema"] = msgspec.Raw(function.parameters_json)
    if tool.HasField("extra_json"):
        encoding.part_extras(wire, tool.extra_json, path)
    return wire
