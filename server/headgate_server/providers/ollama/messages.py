"""Messages and tools in Ollama's form. Pure.

A message is one text and a list of images beside it. Parts of what a person or an application says are
parted by a blank line; those of the model, whose words other vendors cut at their citations, are put
together as they were. Images go out as bytes, so a URL must hold them.

Source: https://docs.ollama.com/api/chat.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers.encoding import Encoding, Json, schema_of
from headgate_server.providers.history import RESULTS, arguments_object, said
from headgate_server.providers.media import base64_of, split_data_url

# It knows no developers.
ROLES = {
    content_pb2.ROLE_DEVELOPER: "system",
    content_pb2.ROLE_SYSTEM: "system",
    content_pb2.ROLE_USER: "user",
    content_pb2.ROLE_ASSISTANT: "assistant",
    content_pb2.ROLE_TOOL: "tool",
    content_pb2.ROLE_FUNCTION: "tool",
}


def encode_messages(encoding: Encoding) -> list[Json]:
    """The conversation. Raises `InvalidRequest` for what cannot be expressed."""
    out: list[Json] = []
    names: dict[str, str] = {}  # of the tools that were called, by the call's id
    for index, message in enumerate(encoding.request.messages):
        path = f"messages[{index}]"
        is_result = message.role in RESULTS
        if message.HasField("name") and not is_result:
            encoding.warn(f"{path}.name", "left out: Ollama's messages have no names")
        if is_result:
            added = [
                _result(encoding, part, f"{path}.parts[{place}]", message.name, names)
                for place, part in enumerate(message.parts)
            ]
        elif message.role == content_pb2.ROLE_ASSISTANT:
            added = [_assistant(encoding, message, path, names)]
        else:
            added = [{"role": ROLES[message.role], **_content(encoding, message.parts, path)}]
        if message.HasField("extra_json"):
            for wire in added:
                encoding.part_extras(wire, message.extra_json, path)
        out.extend(added)
    return out


def _content(encoding: Encoding, parts: Sequence[content_pb2.Part], path: str) -> Json:
    """The members `content` and `images`, and the extras of the parts."""
    texts: list[str] = []
    images: list[str] = []
    wire: Json = {"content": ""}
    for where, part in said(parts, f"{path}.parts"):
        kind = part.WhichOneof("kind")
        if kind == "text":
            texts.append(part.text)
        elif kind == "image":
            images.append(_image(part.image, f"{where}.image"))
        else:
            raise _refused(part, where)
        encoding.part_extras(wire, part.extra_json, where)
    wire["content"] = "\n\n".join(texts)
    if images:
        wire["images"] = images
    return wire


def _assistant(
    encoding: Encoding, message: content_pb2.Message, path: str, names: dict[str, str]
) -> Json:
    wire: Json = {"role": "assistant", "content": ""}
    thinking: list[str] = []
    images: list[str] = []
    calls: list[Json] = []
    for place, part in enumerate(message.parts):
        where = f"{path}.parts[{place}]"
        kind = part.WhichOneof("kind")
        into = wire
        if kind == "text":
            wire["content"] += part.text
        elif kind == "refusal":
            wire["content"] += part.refusal  # words like others, to this API
        elif kind == "reasoning":
            # Any model's thinking may stand here: nothing proves whose it is.
            thinking.append(part.reasoning.text)
            if not part.reasoning.text:
                encoding.warn(f"{where}.reasoning", "left out: Ollama cannot read this thinking")
        elif kind == "image":
            images.append(_image(part.image, f"{where}.image"))
        elif kind == "tool_call":
            into = _call(part.tool_call, f"{where}.tool_call", len(calls))
            if part.tool_call.id:
                names[part.tool_call.id] = part.tool_call.name
            calls.append(into)
        else:
            raise _refused(part, where)
        encoding.part_extras(into, part.extra_json, where)
    if any(thinking):
        wire["thinking"] = "\n\n".join(text for text in thinking if text)
    if images:
        wire["images"] = images
    if calls:
        wire["tool_calls"] = calls
    return wire


def _call(call: content_pb2.ToolCall, path: str, index: int) -> Json:
    if call.custom:
        raise InvalidRequest.of(
            f"{path}.custom", "Ollama has no custom tools; make it a call of a function"
        )
    why = "must be a JSON object, because Ollama takes no text here"
    arguments = arguments_object(call, path, why)
    wire: Json = {"id": call.id} if call.id else {}
    wire["function"] = {"index": index, "name": call.name, "arguments": arguments}
    return wire


def _result(
    encoding: Encoding, part: content_pb2.Part, path: str, name: str, names: dict[str, str]
) -> Json:
    result = part.tool_result
    wire: Json = {"role": "tool", **_content(encoding, result.parts, f"{path}.tool_result")}
    # Older versions know the name only, newer ones the id, too.
    if name := result.name or name or names.get(result.tool_call_id, ""):
        wire["tool_name"] = name
    if result.tool_call_id:
        wire["tool_call_id"] = result.tool_call_id
    encoding.part_extras(wire, part.extra_json, path)
    return wire


def _refused(part: content_pb2.Part, path: str) -> InvalidRequest:
    kind = part.WhichOneof("kind")
    return InvalidRequest.of(f"{path}.{kind}", "Ollama takes text and images only; leave it out")


def _image(media: content_pb2.Media, path: str) -> str:
    source = media.WhichOneof("source")
    if source == "data":
        return base64_of(media.data)
    if source == "url" and media.url.startswith("data:"):
        return split_data_url(media.url, path, check=True)[1]
    found = "a file id" if source == "file_id" else "a URL to fetch"
    raise InvalidRequest.of(
        path, f"is {found}, but Ollama takes bytes only; send it as data or as a data: URL"
    )


def encode_tools(encoding: Encoding, tools: Iterable[chat_pb2.Tool]) -> None:
    """Puts the tools into the body, unless none may be called: the API has no word for that."""
    if encoding.request.tool_choice.mode == chat_pb2.ToolChoice.MODE_NONE:
        return
    encoding.body["tools"] = [
        _tool(encoding, tool, f"tools[{index}]") for index, tool in enumerate(tools)
    ]


def _tool(encoding: Encoding, tool: chat_pb2.Tool, path: str) -> Json | msgspec.Raw:
    if tool.HasField("provider_tool_json"):
        if encoding.speaks_extras:
            return msgspec.Raw(tool.provider_tool_json)
        raise InvalidRequest.of(
            f"{path}.provider_tool_json",
            f"is a tool of the {encoding.origin} API, but Ollama has functions only; make it one",
        )
    given = tool.function
    function: Json = {"name": given.name}
    if given.HasField("description"):
        function["description"] = given.description
    function["parameters"] = schema_of(given)
    if given.strict:
        encoding.leave_out(
            f"{path}.function.strict", "Ollama does not enforce schemas of arguments"
        )
    wire: Json = {"type": "function", "function": function}
    encoding.part_extras(wire, tool.extra_json, path)
    return wire
