"""Messages, parts and tools to their OpenAI form. Pure.

Source: the `messages` and `tools` members of https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import merge_into
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.vendors import Vendor

ROLES = {
    content_pb2.ROLE_DEVELOPER: "developer",
    content_pb2.ROLE_SYSTEM: "system",
    content_pb2.ROLE_USER: "user",
    content_pb2.ROLE_ASSISTANT: "assistant",
    content_pb2.ROLE_TOOL: "tool",
    content_pb2.ROLE_FUNCTION: "tool",
}
# "input_audio" names formats where the proto has media types.
AUDIO_FORMATS = {"audio/mpeg": "mp3", "audio/x-wav": "wav", "audio/wave": "wav"}


def encode_messages(encoding: Encoding, messages: Iterable[content_pb2.Message]) -> None:
    """Puts the conversation into the body. Raises `InvalidRequest` for what cannot be expressed."""
    vendor = encoding.target.vendor
    out: list[Json] = []
    unanswered: list[tuple[str, str]] = []  # (name, id) of calls that came without an id
    for index, message in enumerate(messages):
        role = message.role
        if role in (content_pb2.ROLE_TOOL, content_pb2.ROLE_FUNCTION):
            out.extend(_tool_results(message, f"messages[{index}]", unanswered, vendor))
            continue
        name = ROLES[role]
        if name == "developer" and not vendor.developer_role:
            name = "system"
        content: str | list[Json] | None = _plain_text(message.parts, vendor)
        if content is None and role == content_pb2.ROLE_ASSISTANT:
            wire = _assistant(encoding, message, index, unanswered)
        else:
            if content is None:
                content = encode_content(message.parts, f"messages[{index}].parts", vendor)
            wire = {"role": name, "content": content}
        if message.HasField("name"):
            wire["name"] = message.name
        if message.HasField("extra_json"):
            merge_into(wire, message.extra_json)
        out.append(wire)
    encoding.body["messages"] = out


def _assistant(
    encoding: Encoding,
    message: content_pb2.Message,
    index: int,
    unanswered: list[tuple[str, str]],
) -> Json:
    texts: list[content_pb2.Part] = []
    calls: list[Json] = []
    reasoning: list[str] = []
    wire: Json = {"role": "assistant", "content": None}
    for place, part in enumerate(message.parts):
        kind = part.WhichOneof("kind")
        if kind in ("text", "refusal"):
            texts.append(part)
        elif kind == "tool_call":
            call_id = part.tool_call.id or f"call_{index}_{place}"
            if not part.tool_call.id:
                unanswered.append((part.tool_call.name, call_id))
            calls.append(_tool_call(part, call_id))
        elif kind == "reasoning":
            if part.reasoning.text:
                reasoning.append(part.reasoning.text)
        elif kind == "audio" and part.audio.HasField("id"):
            wire["audio"] = {"id": part.audio.id}
        else:
            raise InvalidRequest.of(
                f"messages[{index}].parts[{place}]",
                f"provider {encoding.target.provider!r} takes no {kind} in assistant messages",
            )
    if len(texts) == 1 and texts[0].WhichOneof("kind") == "refusal":
        wire["refusal"] = texts[0].refusal
    elif texts:
        vendor = encoding.target.vendor
        wire["content"] = encode_content(texts, f"messages[{index}].parts", vendor)
    if calls:
        wire["tool_calls"] = calls
    if reasoning:
        field = encoding.target.vendor.reasoning_field
        if field == "none":
            encoding.warn(
                f"messages[{index}].reasoning",
                f"left out: provider {encoding.target.provider!r} takes no earlier thinking back",
            )
        else:
            wire[field] = "".join(reasoning)
    return wire


def _tool_call(part: content_pb2.Part, call_id: str) -> Json:
    call = part.tool_call
    wire: Json
    if call.custom:
        custom = {"name": call.name, "input": call.arguments_json}
        wire = {"id": call_id, "type": "custom", "custom": custom}
    else:
        function = {"name": call.name, "arguments": call.arguments_json}
        wire = {"id": call_id, "type": "function", "function": function}
    if part.HasField("extra_json"):
        merge_into(wire, part.extra_json)
    return wire


def _tool_results(
    message: content_pb2.Message, path: str, unanswered: list[tuple[str, str]], vendor: Vendor
) -> Iterable[Json]:
    for place, part in enumerate(message.parts):
        result = part.tool_result
        call_id = result.tool_call_id
        if not call_id:
            # OpenAI's deprecated functions have no ids: the oldest open call of that name is meant.
            match = next((c for c in unanswered if c[0] == result.name), None)
            if match is None:
                raise InvalidRequest.of(
                    f"{path}.parts[{place}]", f"no earlier call of {result.name!r} waits for this"
                )
            unanswered.remove(match)
            call_id = match[1]
        content = encode_content(result.parts, f"{path}.parts[{place}].tool_result.parts", vendor)
        wire: Json = {"role": "tool", "tool_call_id": call_id, "content": content}
        name = message.name or result.name
        if name and message.role == content_pb2.ROLE_TOOL:
            wire["name"] = name
        if part.HasField("extra_json"):
            merge_into(wire, part.extra_json)
        if message.HasField("extra_json"):
            merge_into(wire, message.extra_json)
        yield wire


# Parts.


def _plain_text(parts: Sequence[content_pb2.Part], vendor: Vendor) -> str | None:
    """The text, if there is one plain text and nothing else."""
    if len(parts) != 1:
        return None
    only = parts[0]
    if (
        only.WhichOneof("kind") != "text"
        or only.HasField("extra_json")
        or (vendor.cache_control and only.HasField("cache_control"))
    ):
        return None
    return only.text


def encode_content(
    parts: Iterable[content_pb2.Part], path: str, vendor: Vendor
) -> str | list[Json]:
    """A string for one plain text (every vendor takes that), else an array of content parts."""
    listed = list(parts)
    if not listed:
        return ""
    text = _plain_text(listed, vendor)
    if text is not None:
        return text
    return [_part(part, f"{path}[{place}]", vendor) for place, part in enumerate(listed)]


def _part(part: content_pb2.Part, path: str, vendor: Vendor) -> Json:
    kind = part.WhichOneof("kind")
    wire: Json
    if kind == "text":
        wire = {"type": "text", "text": part.text}
    elif kind == "refusal":
        wire = {"type": "refusal", "refusal": part.refusal}
    elif kind == "image":
        image: Json = {"url": _media_url(part.image, path)}
        if part.image.HasField("detail"):
            image["detail"] = part.image.detail
        wire = {"type": "image_url", "image_url": image}
    elif kind == "audio":
        wire = {"type": "input_audio", "input_audio": _input_audio(part.audio, path)}
    elif kind == "file":
        wire = {"type": "file", "file": _file(part.file)}
    else:
        raise InvalidRequest.of(path, f"a {kind or 'part without a kind'} cannot stand here")
    if vendor.cache_control and part.HasField("cache_control"):
        wire["cache_control"] = _cache_control(part.cache_control)
    if part.HasField("extra_json"):
        merge_into(wire, part.extra_json)
    return wire


def _cache_control(control: content_pb2.CacheControl) -> Json:
    return {"type": "ephemeral", **({"ttl": control.ttl} if control.ttl else {})}


def _media_url(media: content_pb2.Media, path: str) -> str:
    source = media.WhichOneof("source")
    if source == "url":
        return media.url
    if source == "data":
        return f"data:{media.media_type};base64,{base64.b64encode(media.data).decode()}"
    raise InvalidRequest.of(path, "this provider takes images as data or URL, not as a file id")


def _input_audio(media: content_pb2.Media, path: str) -> Json:
    if media.WhichOneof("source") != "data":
        raise InvalidRequest.of(path, "this provider takes audio as data only")
    form = AUDIO_FORMATS.get(media.media_type) or media.media_type.removeprefix("audio/")
    return {"data": base64.b64encode(media.data).decode(), "format": form}


def _file(media: content_pb2.Media) -> Json:
    wire: Json = {}
    source = media.WhichOneof("source")
    if source == "file_id":
        wire["file_id"] = media.file_id
    elif source == "url":
        wire["file_data"] = media.url
    else:
        data = base64.b64encode(media.data).decode()
        typed = media.media_type
        wire["file_data"] = f"data:{typed};base64,{data}" if typed else data
    if media.HasField("filename"):
        wire["filename"] = media.filename
    return wire


# Tools.


def encode_tools(encoding: Encoding, tools: Iterable[chat_pb2.Tool]) -> None:
    """Puts the tools into the body."""
    vendor = encoding.target.vendor
    encoding.body["tools"] = [_tool(tool, vendor) for tool in tools]


def _tool(tool: chat_pb2.Tool, vendor: Vendor) -> object:
    if tool.HasField("provider_tool_json"):
        return msgspec.Raw(tool.provider_tool_json)
    function: Json = {"name": tool.function.name}
    if tool.function.HasField("description"):
        function["description"] = tool.function.description
    if tool.function.parameters_json:
        function["parameters"] = msgspec.Raw(tool.function.parameters_json)
    if tool.function.HasField("strict"):
        function["strict"] = tool.function.strict
    wire: Json = {"type": "function", "function": function}
    if vendor.cache_control and tool.HasField("cache_control"):
        wire["cache_control"] = _cache_control(tool.cache_control)
    if tool.HasField("extra_json"):
        merge_into(wire, tool.extra_json)
    return wire
