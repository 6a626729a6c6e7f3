"""POST /v1/chat/completions, body to ChatRequest. Pure.

Owns the reading of OpenAI's request, its deprecated forms (`functions`) and this gateway's extensions
(`enable_thinking`, `llmgw_thinking`, `thinking`, `reasoning`, unknown members). Every problem is an
`InvalidRequest` that names the member. Messages are read in `messages_in`.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson, json_text, raw_object, raw_text
from headgate_facade.malformed import misshapen, unreadable
from headgate_facade.openai import wire
from headgate_facade.openai.messages_in import (
    nested,
    read_message,
    read_parts,
    with_foreign_parts,
)

TOOL_CHOICES = {
    b'"none"': chat_pb2.ToolChoice.MODE_NONE,
    b'"auto"': chat_pb2.ToolChoice.MODE_AUTO,
    b'"required"': chat_pb2.ToolChoice.MODE_REQUIRED,
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
        return _read(_decoded(body))
    except MalformedJson as error:
        raise unreadable(error, body, "model and messages") from error


def _decoded(body: bytes) -> wire.ChatBody:
    try:
        return wire.CHAT_BODY.decode(body)
    except MalformedJson as error:
        if not error.path.endswith("].type"):
            raise
        try:
            widened = with_foreign_parts(body)
        except MalformedJson:
            raise error from None
        return wire.CHAT_BODY.decode(widened)


def _read(body: wire.ChatBody) -> ChatCall:
    request = chat_pb2.ChatRequest(model=body.model)
    for index, message in enumerate(body.messages):
        # Filled in place: a message built apart is copied when it is put into another.
        read_message(message, index, request.messages.add())
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
    extra = body.extra
    if body.reasoning is not None and body.reasoning.extra:
        extra = nested(extra, "reasoning", body.reasoning.extra)
    if extra:
        request.extra_body_json = json_text(extra) or ""
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
    if body.reasoning is not None:
        _unified_reasoning(request, body.reasoning)


def _unified_reasoning(request: chat_pb2.ChatRequest, asked: wire.ReasoningOptions) -> None:
    """OpenRouter's object for all models; members of their own names above win."""
    out = request.reasoning
    if asked.effort is not None and not out.HasField("effort"):
        out.effort = asked.effort
    if asked.enabled is not None and not out.HasField("enabled"):
        out.enabled = asked.enabled
    if asked.max_tokens is not None:
        out.budget_tokens = asked.max_tokens
    if asked.summary is not None:
        out.summary = asked.summary
    if asked.exclude:
        out.summary = "none"


def _rarely_used(request: chat_pb2.ChatRequest, body: wire.ChatBody) -> None:
    if body.audio is not None:
        voice = raw_text(body.audio.voice) or ""
        if voice[:1] not in ('"', "{"):
            raise InvalidRequest.of("audio.voice", "must be a name or an object with an id")
        named = voice[0] == '"'
        request.audio.voice = msgspec.json.decode(voice, type=str) if named else voice
        request.audio.format = body.audio.format
    if body.prediction is not None:
        request.prediction.parts.extend(read_parts(body.prediction.content, "prediction.content"))
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
        raise misshapen(error, path) from error
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
        raise misshapen(error, "tool_choice") from error


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
