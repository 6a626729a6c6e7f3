"""POST /v1/responses, body to ChatRequest. Pure.

Owns the members beside `input` and `tools`, the promise that this gateway keeps no answers, and what an
answer repeats of its request. Every problem is an `InvalidRequest` that names the member.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import Extra, MalformedJson, raw_text
from headgate_facade.malformed import unreadable
from headgate_facade.responses import wire
from headgate_facade.responses.items_in import KEPT_NOTHING, InputReader
from headgate_facade.responses.naming import DIALECT
from headgate_facade.responses.tools_in import Original, ToolTable, extra_text

Json = dict[str, Any]

# Members that go into the message under their own name and as they are.
_PLAIN_MEMBERS = (
    "parallel_tool_calls", "temperature", "top_p", "store", "service_tier", "user",
    "safety_identifier", "prompt_cache_key",
)  # fmt: skip
_LOGPROBS = "message.output_text.logprobs"
# What every answer has anyway, if the provider has it.
_INCLUDED = {_LOGPROBS, "reasoning.encrypted_content"}
_STATE = ("previous_response_id", "conversation", "prompt", "background")


class ResponsesCall(msgspec.Struct, frozen=True, gc=False):
    """What the body asks for.

    Attributes:
        request: the message for the core.
        stream: whether to answer with server-sent events.
        echo: members that the answer repeats.
        originals: what the caller calls its tools, by the names that the provider knows.
        message_paths, tool_paths: where in the body the request's messages and tools came from.
    """

    request: chat_pb2.ChatRequest
    stream: bool
    echo: Json
    originals: dict[str, Original]
    message_paths: list[tuple[str, list[str]]]
    tool_paths: list[str]


def read_responses(body: bytes) -> ResponsesCall:
    """Reads a body. Raises `InvalidRequest`."""
    try:
        return _read(wire.BODY.decode(body))
    except MalformedJson as error:
        raise unreadable(error, body, "model and input") from error


def _read(body: wire.ResponsesBody) -> ResponsesCall:
    _refuse_state(body)
    request = chat_pb2.ChatRequest(model=body.model, extra_dialect=DIALECT)
    for name in _PLAIN_MEMBERS:
        value = getattr(body, name)
        if value is not None:
            setattr(request, name, value)
    if body.max_output_tokens is not None:
        request.max_completion_tokens = body.max_output_tokens
    if body.metadata:
        request.metadata.update(body.metadata)
    tools = ToolTable(request)
    items = InputReader(request, tools)
    if body.instructions is not None:
        items.instruct(body.instructions)
    if body.tools:
        tools.read(body.tools, "tools")
    items.read(body.input)
    chosen_otherwise = tools.choose(body.tool_choice)
    # What providers of this door's own dialect get as it came, in place of what every provider gets.
    own: Json = {}
    extra: dict[str, msgspec.Raw] = dict(body.extra or {})
    if tools.changed:
        own["tools"] = body.tools or []
    if tools.unavailable:
        extra["tools"] = _raw(tools.unavailable)
    if chosen_otherwise:
        own["tool_choice"] = body.tool_choice
        if not request.HasField("tool_choice"):
            extra["tool_choice"] = body.tool_choice
    if items.changed:
        own["input"], own["instructions"] = items.verbatim(), body.instructions
    _logprobs(request, body)
    rest = [name for name in body.include or () if name not in _INCLUDED]
    if rest:
        extra["include"] = _raw(rest)
    _reasoning(request, body, extra)
    _text(request, body, extra)
    if body.max_tool_calls is not None:
        extra["max_tool_calls"] = _raw(body.max_tool_calls)
    if body.truncation not in (None, "disabled"):  # its default
        extra["truncation"] = _raw(body.truncation)
    said = extra_text(extra)
    if said is not None:
        request.extra_body_json = said
    if own:
        request.provider_options_json[DIALECT] = msgspec.json.encode(own).decode()
    return ResponsesCall(
        request=request,
        stream=bool(body.stream),
        echo=_echo(body),
        originals=tools.originals,
        message_paths=items.paths,
        tool_paths=tools.paths,
    )


def _refuse_state(body: wire.ResponsesBody) -> None:
    for name in _STATE:
        value = getattr(body, name)
        if isinstance(value, msgspec.Raw):
            value = raw_text(value)
        if not value:
            continue
        if name == "background":
            why = "cannot be true: this gateway keeps no answers to fetch later; leave it out or stream"
        elif name == "prompt":
            why = "cannot be used: prompt templates are kept elsewhere; send `instructions` and `input`"
        else:
            why = f"cannot be used: {KEPT_NOTHING}"
        raise InvalidRequest.of(name, why)


def _logprobs(request: chat_pb2.ChatRequest, body: wire.ResponsesBody) -> None:
    if _LOGPROBS in (body.include or ()) or body.top_logprobs:
        request.logprobs = True
        if body.top_logprobs is not None:
            request.top_logprobs = body.top_logprobs


def _reasoning(
    request: chat_pb2.ChatRequest, body: wire.ResponsesBody, extra: dict[str, msgspec.Raw]
) -> None:
    asked = body.reasoning
    if asked is None:
        return
    if asked.effort is not None:
        request.reasoning.effort = asked.effort
    summary = asked.summary or asked.generate_summary
    if summary is not None:
        request.reasoning.summary = summary
    _members_inside("reasoning", asked.extra, extra)


def _text(
    request: chat_pb2.ChatRequest, body: wire.ResponsesBody, extra: dict[str, msgspec.Raw]
) -> None:
    asked = body.text
    if asked is None:
        return
    if asked.verbosity is not None:
        request.verbosity = asked.verbosity
    form = asked.format
    if isinstance(form, wire.TextFormat):
        request.response_format.text.SetInParent()
    elif isinstance(form, wire.JsonObjectFormat):
        request.response_format.json_object.SetInParent()
    elif isinstance(form, wire.JsonSchemaFormat):
        schema = request.response_format.json_schema
        schema.name, schema.schema_json = form.name, raw_text(form.schema) or ""
        if form.description is not None:
            schema.description = form.description
        if form.strict is not None:
            schema.strict = form.strict
    _members_inside("text", asked.extra, extra)


def _members_inside(name: str, unknown: Extra, extra: dict[str, msgspec.Raw]) -> None:
    """Unknown members of an object that is known otherwise."""
    inside = extra_text(unknown)
    if inside is not None:
        extra[name] = msgspec.Raw(inside.encode())


# What the answer repeats.


def _echo(body: wire.ResponsesBody) -> Json:
    """The members in the order of OpenAI's response object; null where the caller said nothing.

    Values that OpenAI would fill in with its own defaults are those defaults only where SDKs insist.
    """
    return {
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": None, "summary": None,
            **(_options(body.reasoning) | (body.reasoning.extra or {}) if body.reasoning else {}),
        },
        "safety_identifier": body.safety_identifier,
        # Whatever was asked: there is nothing to be fetched later.
        "store": False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {
            "format": {"type": "text"},
            **(_text_options(body.text) | (body.text.extra or {}) if body.text else {}),
        },
        "tool_choice": _given(body.tool_choice, "auto"),
        "tools": body.tools or [],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": body.truncation or "disabled",
        "user": body.user,
        "metadata": body.metadata or {},
    }  # fmt: skip


def _options(asked: wire.ReasoningOptions) -> Json:
    members = {"effort": asked.effort, "summary": asked.summary or asked.generate_summary}
    return {name: value for name, value in members.items() if value is not None}


def _text_options(asked: wire.TextOptions) -> Json:
    members: Json = {}
    if isinstance(asked.format, wire.JsonSchemaFormat):
        form = asked.format
        schema: Json = {"type": "json_schema", "name": form.name}
        if form.description is not None:
            schema["description"] = form.description
        schema["schema"] = _given(form.schema, {})
        schema["strict"] = bool(form.strict)
        members["format"] = schema
    elif asked.format is not None:
        members["format"] = asked.format
    if asked.verbosity is not None:
        members["verbosity"] = asked.verbosity
    return members


def _given(raw: msgspec.Raw, default: object) -> object:
    return default if raw_text(raw) is None else raw


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
