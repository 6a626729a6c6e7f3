"""Messages, parts and tools to their OpenAI form. Pure.

Source: the `messages` and `tools` members of https://platform.openai.com/docs/api-reference/chat/create.
Where the proofs of thinking go is in `proofs`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.openai.proofs import extra_content, reasoning_details
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
_THINK_TAGS = ("<think>", "</think>")
Unanswered = list[tuple[str, str]]
"""(name, id) of calls that came without an id and wait for their results."""


def encode_messages(encoding: Encoding, messages: Iterable[content_pb2.Message]) -> None:
    """Puts the conversation into the body. Raises `InvalidRequest` for what cannot be expressed."""
    vendor = encoding.target.vendor
    out: list[Json] = []
    unanswered: Unanswered = []
    for index, message in enumerate(messages):
        role = message.role
        if role in (content_pb2.ROLE_TOOL, content_pb2.ROLE_FUNCTION):
            out.extend(_tool_results(encoding, message, f"messages[{index}]", unanswered))
            continue
        name = ROLES[role]
        if name == "developer" and not vendor.developer_role:
            name = "system"
        content: str | list[object] | None = _plain_text(message.parts, vendor)
        if content is None and role == content_pb2.ROLE_ASSISTANT:
            wire = _assistant(encoding, message, index, unanswered)
        else:
            if content is None:
                content = encode_content(encoding, message.parts, f"messages[{index}].parts")
            wire = {"role": name, "content": content}
        if message.HasField("name"):
            wire["name"] = message.name
        if message.HasField("extra_json"):
            encoding.part_extras(wire, message.extra_json, f"messages[{index}]")
        out.append(wire)
    encoding.body["messages"] = out


def _assistant(
    encoding: Encoding, message: content_pb2.Message, index: int, unanswered: Unanswered
) -> Json:
    vendor = encoding.target.vendor
    texts: list[content_pb2.Part] = []
    paths: list[str] = []
    calls: list[Json] = []
    images: list[Json] = []
    wire: Json = {"role": "assistant", "content": None}
    for place, part in enumerate(message.parts):
        kind = part.WhichOneof("kind")
        path = f"messages[{index}].parts[{place}]"
        if kind in ("text", "refusal", "vendor_part"):
            texts.append(part)
            paths.append(path)
        elif kind == "tool_call":
            call_id = part.tool_call.id or f"call_{index}_{place}"
            if not part.tool_call.id:
                unanswered.append((part.tool_call.name, call_id))
            calls.append(_tool_call(encoding, part, call_id, path))
        elif kind == "reasoning":
            continue
        elif kind == "audio" and part.audio.HasField("id"):
            wire["audio"] = {"id": part.audio.id}
        elif kind == "image" and vendor.assistant_images:
            images.append(_generated_image(encoding, part, path))
        else:
            raise InvalidRequest.of(
                path,
                f"provider {encoding.target.provider!r} takes no {kind} in assistant messages; "
                "leave it out or say it in text",
            )
    if len(texts) == 1 and texts[0].WhichOneof("kind") == "refusal":
        wire["refusal"] = texts[0].refusal
    elif texts:
        wire["content"] = _content(encoding, texts, paths)
    if images:
        wire["images"] = images
    if calls:
        wire["tool_calls"] = calls
    _thinking(encoding, message, index, wire)
    if vendor.thought_signatures:
        signed = [part.thought_signature for part in texts if part.thought_signature]
        if signed:
            wire["extra_content"] = extra_content(signed[-1])
    return wire


def _thinking(encoding: Encoding, message: content_pb2.Message, index: int, wire: Json) -> None:
    """Puts earlier thinking where the vendor looks for it."""
    vendor = encoding.target.vendor
    text = "".join(part.reasoning.text for part in message.parts if part.HasField("reasoning"))
    if vendor.reasoning_details and (details := reasoning_details(message.parts)):
        wire["reasoning_details"] = details
    if not text:
        return
    field = vendor.reasoning_field
    if field == "none":
        encoding.warn(
            f"messages[{index}].reasoning",
            f"left out: provider {encoding.target.provider!r} takes no earlier thinking back",
        )
    elif field == "think_tags":
        opening, closing = encoding.target.family.think_tags or _THINK_TAGS
        thought, content = f"{opening}\n{text}\n{closing}\n\n", wire["content"]
        if isinstance(content, list):
            content.insert(0, {"type": "text", "text": thought})
        else:
            wire["content"] = thought + (content or "")
    else:
        wire[field] = text


def _tool_call(encoding: Encoding, part: content_pb2.Part, call_id: str, path: str) -> Json:
    call = part.tool_call
    wire: Json
    if call.custom:
        custom = {"name": call.name, "input": call.arguments_json}
        wire = {"id": call_id, "type": "custom", "custom": custom}
    else:
        function = {"name": call.name, "arguments": call.arguments_json}
        wire = {"id": call_id, "type": "function", "function": function}
    _add_extras(encoding, part, wire, path)
    return wire


def _generated_image(encoding: Encoding, part: content_pb2.Part, path: str) -> Json:
    wire: Json = {"type": "image_url", "image_url": {"url": _media_url(part.image, path)}}
    _add_extras(encoding, part, wire, path)
    return wire


def _add_extras(encoding: Encoding, part: content_pb2.Part, wire: Json, path: str) -> None:
    """Unknown members, and Gemini's proof where the vendor knows it."""
    if part.HasField("extra_json"):
        encoding.part_extras(wire, part.extra_json, path)
    if part.thought_signature and encoding.target.vendor.thought_signatures:
        wire.setdefault("extra_content", extra_content(part.thought_signature))


def _tool_results(
    encoding: Encoding, message: content_pb2.Message, path: str, unanswered: Unanswered
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
        inner = f"{path}.parts[{place}].tool_result.parts"
        content = encode_content(encoding, result.parts, inner)
        wire: Json = {"role": "tool", "tool_call_id": call_id, "content": content}
        name = message.name or result.name
        if name and message.role == content_pb2.ROLE_TOOL:
            wire["name"] = name
        if part.HasField("extra_json"):
            encoding.part_extras(wire, part.extra_json, f"{path}.parts[{place}]")
        if message.HasField("extra_json"):
            encoding.part_extras(wire, message.extra_json, path)
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
        or (vendor.thought_signatures and only.HasField("thought_signature"))
    ):
        return None
    return only.text


def encode_content(
    encoding: Encoding, parts: Sequence[content_pb2.Part], path: str
) -> str | list[object]:
    """A string for one plain text (every vendor takes that), else an array of content parts."""
    return _content(encoding, parts, (f"{path}[{place}]" for place in range(len(parts))))


def _content(
    encoding: Encoding, parts: Sequence[content_pb2.Part], paths: Iterable[str]
) -> str | list[object]:
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].HasField("text"):
        wire = _part(encoding, parts[0], next(iter(paths)))
        if isinstance(wire, dict) and wire.keys() == {"type", "text"}:
            return parts[0].text
        return [wire]
    return [_part(encoding, part, path) for part, path in zip(parts, paths, strict=True)]


def _part(encoding: Encoding, part: content_pb2.Part, path: str) -> object:
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
    elif kind == "vendor_part":
        return _vendor_part(encoding, part.vendor_part, path)
    else:
        raise InvalidRequest.of(path, f"a {kind or 'part without a kind'} cannot stand here")
    if encoding.target.vendor.cache_control and part.HasField("cache_control"):
        wire["cache_control"] = _cache_control(part.cache_control)
    if part.HasField("extra_json"):
        encoding.part_extras(wire, part.extra_json, path)
    return wire


def _vendor_part(encoding: Encoding, block: content_pb2.VendorPart, path: str) -> msgspec.Raw:
    if block.dialect != encoding.dialect:
        raise InvalidRequest.of(
            path,
            f"a block of the {block.dialect} API; provider {encoding.target.provider!r} speaks "
            f"{encoding.dialect}: leave it out, or choose a target of that API",
        )
    return msgspec.Raw(block.json)


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
    encoding.body["tools"] = [
        _tool(encoding, tool, f"tools[{index}]") for index, tool in enumerate(tools)
    ]


def _tool(encoding: Encoding, tool: chat_pb2.Tool, path: str) -> object:
    if tool.HasField("provider_tool_json"):
        if not encoding.speaks_extras:
            origin = encoding.request.extra_dialect
            raise InvalidRequest.of(
                path,
                f"a tool of the {origin} API; provider {encoding.target.provider!r} speaks "
                f"{encoding.dialect}: describe it as a function, or choose a target of that API",
            )
        return msgspec.Raw(tool.provider_tool_json)
    function: Json = {"name": tool.function.name}
    if tool.function.HasField("description"):
        function["description"] = tool.function.description
    if tool.function.parameters_json:
        function["parameters"] = msgspec.Raw(tool.function.parameters_json)
    if tool.function.HasField("strict"):
        function["strict"] = tool.function.strict
    wire: Json = {"type": "function", "function": function}
    if encoding.target.vendor.cache_control and tool.HasField("cache_control"):
        wire["cache_control"] = _cache_control(tool.cache_control)
    if tool.HasField("extra_json"):
        encoding.part_extras(wire, tool.extra_json, path)
    return wire
