"""Tools and the choice among them to Converse's toolConfig. Pure.

Source: ToolConfiguration of
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolConfiguration.html. Converse has
no choice "none", and refuses conversations with calls or results where no tool is declared. So tools that
must not be called are left out if the conversation can do without them, and stay, with a warning, if not.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headgate.v1 import chat_pb2
from headgate_server.providers.bedrock.messages import cache_point, has_tool_blocks, tool_names
from headgate_server.providers.bedrock.models import caches, is_claude
from headgate_server.providers.encoding import Encoding, Json, schema_of

# https://docs.aws.amazon.com/nova/latest/nova2-userguide/web-grounding.html
_WEB_SEARCH: Json = {"systemTool": {"name": "nova_grounding"}}


def encode_tools(encoding: Encoding, tools: Sequence[chat_pb2.Tool]) -> None:
    """Puts the tools into the body."""
    listed: list[Json | msgspec.Raw] = []
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.HasField("provider_tool_json"):
            listed.append(encoding.own_tool(tool, path))
        else:
            spec = _spec(tool.function)
            encoding.part_extras(spec, tool.extra_json, path)
            listed.append({"toolSpec": spec})
        if tool.HasField("cache_control") and caches(encoding.target):
            listed.append(cache_point(tool.cache_control))
    encoding.body["toolConfig"] = {"tools": listed}


def _spec(function: chat_pb2.FunctionTool) -> Json:
    spec: Json = {"name": function.name}
    if function.description:
        spec["description"] = function.description
    spec["inputSchema"] = {"json": schema_of(function)}
    if function.HasField("strict"):
        spec["strict"] = function.strict
    return spec


def encode_web_search(encoding: Encoding, options: chat_pb2.WebSearchOptions) -> None:
    """Adds the model's own search to the tools."""
    if encoding.target.family.name != "nova-2":
        encoding.leave_out(
            "web_search_options", f"{encoding.target.model!r} cannot search the web on Bedrock"
        )
        return
    for field, _ in options.ListFields():
        encoding.leave_out(f"web_search_options.{field.name}", "Nova's search has no such option")
    encoding.body.setdefault("toolConfig", {"tools": []})["tools"].append(_WEB_SEARCH)


def settle_tools(encoding: Encoding) -> None:
    """Applies the tool choice, and declares tools where Converse insists; call it behind the rest."""
    request, body = encoding.request, encoding.body
    has_blocks = has_tool_blocks(body["messages"])
    if has_blocks and not request.tools:
        _declare_called_tools(encoding)
        return
    if not request.tools:
        return
    choice = _choice(encoding)
    if choice == "none":
        if not has_blocks:
            _forget_functions(body)
            return
        encoding.leave_out(
            "tool_choice",
            "the bedrock API cannot forbid tools that the conversation has called; leave the tools out",
        )
        choice = None
    if request.HasField("parallel_tool_calls") and not request.parallel_tool_calls:
        choice = _one_at_a_time(encoding, choice)
    if choice is not None:
        body["toolConfig"]["toolChoice"] = choice


def _forget_functions(body: Json) -> None:
    left = [tool for tool in body["toolConfig"]["tools"] if tool == _WEB_SEARCH]
    if left:
        body["toolConfig"] = {"tools": left}
    else:
        del body["toolConfig"]


def _choice(encoding: Encoding) -> Json | msgspec.Raw | str | None:
    """Converse's toolChoice; "none", for which it has no word; or None for its default, auto.

    The default is left out because many models refuse the member: only its absence holds for all.
    """
    request = encoding.request
    if not request.HasField("tool_choice"):
        return None
    kind = request.tool_choice.WhichOneof("kind")
    if kind == "function_name":
        return {"tool": {"name": request.tool_choice.function_name}}
    if kind == "provider_choice_json":
        if encoding.speaks_extras:
            return msgspec.Raw(request.tool_choice.provider_choice_json)
        encoding.unsupported_extra("tool_choice")
        return None
    mode = request.tool_choice.mode
    if mode == chat_pb2.ToolChoice.MODE_NONE:
        return "none"
    return {"any": {}} if mode == chat_pb2.ToolChoice.MODE_REQUIRED else None


def _one_at_a_time(
    encoding: Encoding, choice: Json | msgspec.Raw | str | None
) -> Json | msgspec.Raw | str | None:
    """Forbids parallel calls, which only Claude's own tool_choice can; then it says everything."""
    if not is_claude(encoding.target) or isinstance(choice, msgspec.Raw):
        encoding.leave_out("parallel_tool_calls", "the bedrock API has no such parameter")
        return choice
    native: Json = {"type": "auto"}
    if isinstance(choice, dict):
        name = choice.get("tool", {}).get("name")
        native = {"type": "tool", "name": name} if name else {"type": "any"}
    native["disable_parallel_tool_use"] = True
    encoding.put("additionalModelRequestFields.tool_choice", native)
    return None


def _declare_called_tools(encoding: Encoding) -> None:
    """Declares the tools that the conversation has called, though none may be called now."""
    names = tool_names(encoding.body["messages"]) or ["tool"]
    encoding.body.setdefault("toolConfig", {"tools": []})["tools"] += [
        {"toolSpec": _spec(chat_pb2.FunctionTool(name=name))} for name in names
    ]
    encoding.warn(
        "tools",
        "declared as the conversation has called them: the bedrock API takes no calls without tools",
    )
