"""POST /v1/chat/completions, body to ChatRequest. Pure.

Owns the reading of OpenAI's request, its deprecated forms (`functions`) and this gateway's extensions
(`enable_thinking`, `llmgw_thinking`, `thinking`, unknown members). Every problem is an `InvalidRequest`
that names the member.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, assert_never

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra, MalformedJson, json_text, raw_object, raw_text
from headgate_facade.openai import wire

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_MEDIA_TYPES = mimetypes.MimeTypes()  # without the machine's own files
AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}
TOOL_CHOICES = {
    b'"none"': chat_pb2.ToolChoice.MODE_NONE,
    b'"auto"': chat_pb2.ToolChoice.MODE_AUTO,
    b'"required"': chat_pb2.ToolChoice.MODE_REQUIRED,
}
ROLES = {
    wire.UserMessage: content_pb2.ROLE_USER,
    wire.SystemMessage: content_pb2.ROLE_SYSTEM,
    wire.DeveloperMessage: content_pb2.ROLE_DEVELOPER,
}
# Members that go into the message under their own name and as they are.
PLAIN_MEMBERS = (
    "parallel_tool_calls", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens",
    "n", "seed", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs", "service_tier",
    "store", "user", "safety_identifier", "prompt_cache_key", "verbosity",
)  # fmt: skip


class ChatCall(msgspec.Struct, frozen=True, gc=False):
    """What the body asks for.

    Attributes:
        request: the message for the core.
        stream: whether to answer with server-sent events.
        include_usage: whether the stream ends with a usage chunk.
        legacy_functions: whether the caller used `functions`, and so wants `function_call` back.
    """

    request: chat_pb2.ChatRequest
    stream: bool
    include_usage: bool
    legacy_functions: bool


def read_chat(body: bytes) -> ChatCall:
    """Reads a body. Raises `InvalidRequest`."""
    try:
        return _read(wire.CHAT_BODY.decode(body))
    except MalformedJson as error:
        raise _refusal(error, body) from error


def _refusal(error: MalformedJson, body: bytes) -> InvalidRequest:
    if error.is_json:
        return _misshapen(error)
    if not body.strip():
        return InvalidRequest("the body is empty; it must be a JSON object with model and messages")
    problem = error.problem
    before, marker, offset = problem.rpartition("(byte ")
    if marker:
        head = body[: int(offset.rstrip(")"))]
        line = head.count(b"\n") + 1
        column = len(head) - (head.rfind(b"\n") + 1) + 1
        problem = f"{before}(line {line}, column {column})"
    return InvalidRequest(f"the body is not valid JSON: {problem}")


def _misshapen(error: MalformedJson, within: str = "") -> InvalidRequest:
    """JSON of another shape than OpenAI's; names the member, the missing one included."""
    path = f"{within}.{error.path}" if within and error.path else within or error.path
    found = _MEMBER.fullmatch(error.problem)
    if found is not None:
        missing, name = found.groups()
        problem = "is required" if missing else "is not known here"
        return InvalidRequest.of(f"{path}.{name}" if path else name, problem)
    if not path:
        return InvalidRequest(f"the body must be a JSON object: {error.problem}")
    return InvalidRequest.of(path, error.problem)


# What msgspec says.
_MEMBER = re.compile(r"object (?:(missing required)|contains unknown) field `([^`]*)`")


def _read(body: wire.ChatBody) -> ChatCall:
    request = chat_pb2.ChatRequest(model=body.model)
    for index, message in enumerate(body.messages):
        # Filled in place: a message built apart is copied when it is put into another.
        _message(message, index, request.messages.add())
    for name in PLAIN_MEMBERS:
        value = getattr(body, name)
        if value is not None:
            setattr(request, name, value)
    if body.stop is not None:
        request.stop.extend([body.stop] if isinstance(body.stop, str) else body.stop)
    if body.logit_bias:
        request.logit_bias.update(body.logit_bias)
    if body.metadata:
        request.metadata.update(body.metadata)
    if body.modalities:
        request.modalities.extend(body.modalities)
    if body.tools:
        request.tools.extend(_tool(raw, index) for index, raw in enumerate(body.tools))
    _tool_choice(request, body.tool_choice)
    if body.response_format is not None:
        _response_format(request, body.response_format)
    _reasoning(request, body)
    _rarely_used(request, body)
    if body.functions:
        request.tools.extend(chat_pb2.Tool(function=_function(f)) for f in body.functions)
        request.parallel_tool_calls = False
    _function_choice(request, body.function_call)
    extra = json_text(body.extra)
    if extra is not None:
        request.extra_body_json = extra
    options = body.stream_options
    return ChatCall(
        request=request,
        stream=bool(body.stream),
        include_usage=bool(options and options.include_usage),
        legacy_functions=bool(body.functions),
    )


def _reasoning(request: chat_pb2.ChatRequest, body: wire.ChatBody) -> None:
    # The gateway's own switch wins over the vendor's.
    enabled = body.enable_thinking if body.llmgw_thinking is None else body.llmgw_thinking
    if enabled is not None:
        request.reasoning.enabled = enabled
    if body.reasoning_effort is not None:
        request.reasoning.effort = body.reasoning_effort
    thinking = raw_text(body.thinking)
    if thinking is not None:
        request.reasoning.native_json = thinking


def _rarely_used(request: chat_pb2.ChatRequest, body: wire.ChatBody) -> None:
    if body.audio is not None:
        voice = raw_text(body.audio.voice) or ""
        if voice[:1] not in ('"', "{"):
            raise InvalidRequest.of("audio.voice", "must be a name or an object with an id")
        named = voice[0] == '"'
        request.audio.voice = msgspec.json.decode(voice, type=str) if named else voice
        request.audio.format = body.audio.format
    if body.prediction is not None:
        request.prediction.parts.extend(_parts(body.prediction.content, "prediction.content"))
    if body.web_search_options is not None:
        options = request.web_search_options
        options.SetInParent()
        if body.web_search_options.search_context_size is not None:
            options.search_context_size = body.web_search_options.search_context_size
        if body.web_search_options.user_location is not None:
            place = body.web_search_options.user_location.approximate
            options.user_location.SetInParent()
            for name in ("city", "country", "region", "timezone"):
                value = getattr(place, name)
                if value is not None:
                    setattr(options.user_location, name, value)


# Messages.


def _message(message: wire.AnyMessage, index: int, out: content_pb2.Message) -> None:
    if isinstance(message, wire.ToolMessage):
        out.role = content_pb2.ROLE_TOOL
        result = out.parts.add().tool_result
        result.tool_call_id = message.tool_call_id
        if message.name is not None:
            result.name = message.name
        _fill(result.parts, message.content, index)
    elif isinstance(message, wire.FunctionMessage):
        out.role = content_pb2.ROLE_FUNCTION
        result = out.parts.add().tool_result
        result.name = message.name
        _fill(result.parts, message.content or "", index)
    elif isinstance(message, wire.AssistantMessage):
        out.role = content_pb2.ROLE_ASSISTANT
        if isinstance(message.content, str) and not _more_than_content(message):
            out.parts.add().text = message.content
        else:
            out.parts.extend(_assistant_parts(message, index))
        if message.name is not None:
            out.name = message.name
    else:
        out.role = ROLES[type(message)]
        _fill(out.parts, message.content, index)
        if message.name is not None:
            out.name = message.name
    if message.extra:
        out.extra_json = json_text(message.extra) or ""


def _more_than_content(message: wire.AssistantMessage) -> bool:
    return bool(
        message.tool_calls
        or message.reasoning_content
        or message.reasoning
        or message.refusal is not None
        or message.audio
        or message.function_call
    )


def _fill(
    parts: RepeatedCompositeFieldContainer[content_pb2.Part],
    content: str | Iterable[wire.UserPart | wire.ToolPart],
    index: int,
) -> None:
    if isinstance(content, str):
        parts.add().text = content
    else:
        parts.extend(_parts(content, f"messages[{index}].content"))


def _assistant_parts(message: wire.AssistantMessage, index: int) -> Iterable[content_pb2.Part]:
    path = f"messages[{index}]"
    thinking = message.reasoning_content or message.reasoning
    if thinking:
        yield content_pb2.Part(reasoning=content_pb2.Reasoning(text=thinking))
    if message.content is not None:
        yield from _parts(message.content, f"{path}.content")
    if message.refusal is not None:
        yield content_pb2.Part(refusal=message.refusal)
    if message.audio is not None:
        yield content_pb2.Part(audio=content_pb2.Media(id=message.audio.id))
    for place, call in enumerate(message.tool_calls or ()):
        yield _tool_call(call, f"{path}.tool_calls[{place}]")
    if message.function_call is not None:
        legacy = message.function_call
        yield content_pb2.Part(
            tool_call=content_pb2.ToolCall(name=legacy.name, arguments_json=legacy.arguments or "")
        )


def _tool_call(call: wire.ToolCall, path: str) -> content_pb2.Part:
    out = content_pb2.ToolCall(id=call.id)
    if call.type == "custom":
        if call.custom is None:
            raise InvalidRequest.of(f"{path}.custom", "is required for a call of type custom")
        out.custom = True
        out.name, out.arguments_json = call.custom.name, call.custom.input or ""
    else:
        if call.function is None:
            raise InvalidRequest.of(f"{path}.function", "is required for a call of type function")
        out.name, out.arguments_json = call.function.name, call.function.arguments or ""
    part = content_pb2.Part(tool_call=out)
    extra = call.extra
    if call.function is not None and call.function.extra:
        extra = _nested(extra, "function", call.function.extra)
    if extra:
        part.extra_json = json_text(extra) or ""
    return part


def _nested(extra: Extra, name: str, inner: Extra) -> Extra:
    """Unknown members of an object inside; on the way out they are merged into it again."""
    return {**(extra or {}), name: msgspec.Raw(msgspec.json.encode(inner))}


def _parts(
    content: str | Iterable[wire.UserPart | wire.AssistantPart | wire.ToolPart], path: str
) -> list[content_pb2.Part]:
    if isinstance(content, str):
        return [content_pb2.Part(text=content)]
    return [_part(part, f"{path}[{place}]") for place, part in enumerate(content)]


def _part(part: wire.UserPart | wire.AssistantPart | wire.ToolPart, path: str) -> content_pb2.Part:
    extra = part.extra
    if isinstance(part, wire.TextPart):
        out = content_pb2.Part(text=part.text)
    elif isinstance(part, wire.ImagePart):
        if not part.image_url.url.startswith(("https://", "http://", "data:")):
            raise InvalidRequest.of(
                f"{path}.image_url.url", "must be an https: URL or a data: URL with base64"
            )
        image = content_pb2.Media(url=part.image_url.url)
        if part.image_url.detail is not None:
            image.detail = part.image_url.detail
        out = content_pb2.Part(image=image)
        if part.image_url.extra:
            extra = _nested(extra, "image_url", part.image_url.extra)
    elif isinstance(part, wire.AudioPart):
        form = part.input_audio.format
        audio = content_pb2.Media(
            data=_base64(part.input_audio.data, f"{path}.input_audio.data"),
            media_type=AUDIO_TYPES.get(form, f"audio/{form}"),
        )
        out = content_pb2.Part(audio=audio)
    elif isinstance(part, wire.FilePart):
        out = content_pb2.Part(file=_file(part.file, path))
    elif isinstance(part, wire.RefusalPart):
        out = content_pb2.Part(refusal=part.refusal)
    else:
        assert_never(part)
    if extra:
        out.extra_json = json_text(extra) or ""
    return out


def _file(file: wire.FileRef, path: str) -> content_pb2.Media:
    media = content_pb2.Media()
    if file.file_id is not None:
        media.file_id = file.file_id
    elif file.file_data is None:
        raise InvalidRequest.of(f"{path}.file", "must have file_data or file_id")
    elif file.file_data.startswith("data:"):
        media.url = file.file_data
    else:
        media.data = _base64(file.file_data, f"{path}.file.file_data")
        guessed, _ = _MEDIA_TYPES.guess_type(file.filename or "")
        media.media_type = guessed or "application/octet-stream"
    if file.filename is not None:
        media.filename = file.filename
    return media


def _base64(text: str, path: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest.of(path, "is not valid base64") from error


# Tools.


def _tool(raw: msgspec.Raw, index: int) -> chat_pb2.Tool:
    path = f"tools[{index}]"
    try:
        members = raw_object(bytes(raw))
        kind = bytes(members.get("type", msgspec.Raw(b"")))
        if kind not in (b'"function"', b""):
            if kind[:1] != b'"':
                raise InvalidRequest.of(f"{path}.type", "must be a string")
            # A kind of the vendor's own, such as "custom" or "web_search": it decides.
            return chat_pb2.Tool(provider_tool_json=raw_text(raw) or "")
        tool = wire.FUNCTION_TOOL.decode(bytes(raw))
    except MalformedJson as error:
        raise _misshapen(error, path) from error
    out = chat_pb2.Tool(function=_function(tool.function))
    extra = json_text(tool.extra)
    if extra is not None:
        out.extra_json = extra
    return out


def _function(function: wire.Function) -> chat_pb2.FunctionTool:
    out = chat_pb2.FunctionTool(
        name=function.name, parameters_json=raw_text(function.parameters) or ""
    )
    if function.description is not None:
        out.description = function.description
    if function.strict is not None:
        out.strict = function.strict
    return out


def _tool_choice(request: chat_pb2.ChatRequest, raw: msgspec.Raw) -> None:
    text = bytes(raw)
    if text in (b"", b"null"):
        return
    if text in TOOL_CHOICES:
        request.tool_choice.mode = TOOL_CHOICES[text]
        return
    if text[:1] != b"{":
        raise InvalidRequest.of(
            "tool_choice", 'must be "none", "auto", "required" or an object that names a function'
        )
    members = raw_object(text)
    if bytes(members.get("type", msgspec.Raw(b""))) != b'"function"':
        request.tool_choice.provider_choice_json = raw_text(raw) or ""
        return
    try:
        request.tool_choice.function_name = wire.NAMED_CHOICE.decode(text).function.name
    except MalformedJson as error:
        raise _misshapen(error, "tool_choice") from error


def _function_choice(request: chat_pb2.ChatRequest, raw: msgspec.Raw) -> None:
    """The deprecated `function_call`: "none", "auto" or {"name": ...}."""
    text = bytes(raw)
    if text in (b"", b"null"):
        return
    if text in TOOL_CHOICES and text != b'"required"':
        request.tool_choice.mode = TOOL_CHOICES[text]
        return
    try:
        request.tool_choice.function_name = wire.NAMED_FUNCTION.decode(text).name
    except MalformedJson as error:
        raise InvalidRequest.of(
            "function_call", 'must be "none", "auto" or an object with a name'
        ) from error


def _response_format(
    request: chat_pb2.ChatRequest,
    form: wire.TextFormat | wire.JsonObjectFormat | wire.JsonSchemaFormat,
) -> None:
    out = request.response_format
    if isinstance(form, wire.TextFormat):
        out.text.SetInParent()
    elif isinstance(form, wire.JsonObjectFormat):
        out.json_object.SetInParent()
    elif isinstance(form, wire.JsonSchemaFormat):
        schema = form.json_schema
        out.json_schema.name = schema.name
        out.json_schema.schema_json = raw_text(schema.schema) or ""
        if schema.description is not None:
            out.json_schema.description = schema.description
        if schema.strict is not None:
            out.json_schema.strict = schema.strict
    else:
        assert_never(form)
