"""POST /v1/messages and /v1/messages/count_tokens, body to ChatRequest. Pure.

Owns the reading of Anthropic's request but for the content blocks. Every problem is an `InvalidRequest`
that names the member.

What only Anthropic has travels in `extra_body_json` and the like, in the dialect "anthropic": its own
providers merge it back, others leave it out with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra, MalformedJson, json_text, raw_text
from headgate_facade.anthropic import wire
from headgate_facade.anthropic.blocks_in import (
    DIALECT,
    AnyBlock,
    cache,
    fill,
    put,
    read_blocks,
    without_nulls,
)
from headgate_facade.anthropic.places import AS_TEXT, REQUIRED, SYSTEM, Place
from headgate_facade.malformed import misshapen, unreadable

TOOL_CHOICES = {
    "auto": chat_pb2.ToolChoice.MODE_AUTO,
    "any": chat_pb2.ToolChoice.MODE_REQUIRED,
    "none": chat_pb2.ToolChoice.MODE_NONE,
}
THINKING = {"enabled": True, "adaptive": True, "disabled": False}
DISPLAYS = {"summarized": "auto", "omitted": "none"}
# Anthropic's schemas have no name, and other providers want one.
SCHEMA_NAME = "response"
_PLAIN_MEMBERS = ("max_tokens", "temperature", "top_p", "top_k")
_ROLES = {"assistant": content_pb2.ROLE_ASSISTANT, "system": content_pb2.ROLE_SYSTEM}
_ABSENT = (b"", b"null")
_ONLY_THE_MODEL_SAYS = wire.ToolUseBlock | wire.ThinkingBlock | wire.RedactedThinkingBlock


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What a body asks for.

    Attributes:
        request: the message for the core.
        stream: whether to answer with server-sent events.
        places: for each message of the request, where in the body it comes from.
    """

    request: chat_pb2.ChatRequest
    stream: bool
    places: list[Place]


def read_messages(body: bytes, betas: Iterable[str] = (), *, counting: bool = False) -> Asked:
    """Reads a body. Raises `InvalidRequest`.

    Args:
        body: the JSON.
        betas: the names in the header `anthropic-beta`.
        counting: whether the prompt is only to be counted; then `max_tokens` may be left out.
    """
    try:
        return _read(wire.BODY.decode(body), list(betas), counting)
    except MalformedJson as error:
        raise unreadable(error, body, "model and messages", required=REQUIRED) from error


def _read(body: wire.Body, betas: list[str], counting: bool) -> Asked:
    request = chat_pb2.ChatRequest(model=body.model, extra_dialect=DIALECT)
    places: list[Place] = []
    if body.system:
        _system(body.system, request.messages.add(), places)
    for index, message in enumerate(body.messages):
        _message(message, index, request, places)
    if body.max_tokens is None and not counting:
        raise InvalidRequest.of("max_tokens", REQUIRED)
    for name in _PLAIN_MEMBERS:
        value = getattr(body, name)
        if value is not None:
            setattr(request, name, value)
    if body.stop_sequences:
        request.stop.extend(body.stop_sequences)
    for index, raw in enumerate(body.tools or ()):
        _tool(raw, request.tools.add(), f"tools[{index}]")
    extra: dict[str, msgspec.Raw] = {}
    if body.tool_choice is not None:
        _tool_choice(body.tool_choice, request, extra)
    if body.thinking is not None:
        _thinking(body.thinking, request.reasoning, extra)
    if body.output_format is not None:
        _keep("output_format", _format(body.output_format, request, "output_format"), extra)
    if body.output_config is not None:
        _output_config(body.output_config, request, extra)
    if body.metadata is not None:
        if body.metadata.user_id is not None:
            request.user = body.metadata.user_id
        _keep("metadata", body.metadata.extra, extra)
    for name in wire.OPAQUE_MEMBERS:
        value = getattr(body, name)
        if bytes(value) not in _ABSENT:
            extra[name] = value
    extra.update(body.extra or {})
    request.extra_body_json = json_text(extra) or ""
    if not extra:
        request.ClearField("extra_body_json")
    if betas:
        # Providers of Anthropic's dialect send it on in its header; for others it means nothing.
        request.provider_options_json[DIALECT] = msgspec.json.encode(
            {"anthropic_beta": betas}
        ).decode()
    return Asked(request, bool(body.stream), places)


def _keep(name: str, inner: Extra, extra: dict[str, msgspec.Raw]) -> None:
    """Unknown members of an object inside the body."""
    if inner:
        extra[name] = msgspec.Raw(msgspec.json.encode(inner))


# Messages.


def _system(
    system: str | list[msgspec.Raw], message: content_pb2.Message, places: list[Place]
) -> None:
    message.role = content_pb2.ROLE_SYSTEM
    if isinstance(system, str):
        places.append((SYSTEM, AS_TEXT))
        message.parts.add().text = system
    else:
        places.append((SYSTEM, 0))
        blocks = read_blocks(system, "system")
        _refuse_unsaid(blocks, "system", "system")
        fill(message.parts, blocks, "system")


def _message(
    message: wire.Message, index: int, request: chat_pb2.ChatRequest, places: list[Place]
) -> None:
    content = message.content
    if isinstance(content, str):
        # Filled in place: a message built apart is copied when it is put into another.
        out = _begin(request, _ROLES.get(message.role, content_pb2.ROLE_USER), message)
        places.append((index, AS_TEXT))
        out.parts.add().text = content
        return
    path = f"messages[{index}].content"
    blocks = read_blocks(content, path)
    if message.role == "assistant":
        out = _begin(request, content_pb2.ROLE_ASSISTANT, message)
        places.append((index, 0))
        for place, block in enumerate(blocks):
            if isinstance(block, wire.ToolResultBlock):
                raise InvalidRequest.of(
                    f"{path}[{place}]", "tool_result blocks can only stand in user messages"
                )
        fill(out.parts, blocks, path)
        return
    _refuse_unsaid(blocks, path, message.role)
    _split(message, blocks, index, request, places)


def _split(
    message: wire.Message,
    blocks: list[AnyBlock],
    index: int,
    request: chat_pb2.ChatRequest,
    places: list[Place],
) -> None:
    """A turn of the user: runs of tool results, and runs of what is said, each as a message."""
    usual = _ROLES.get(message.role, content_pb2.ROLE_USER)
    out: content_pb2.Message | None = None
    for place, block in enumerate(blocks):
        role = content_pb2.ROLE_TOOL if isinstance(block, wire.ToolResultBlock) else usual
        if out is None or out.role != role:
            out = _begin(request, role, message if out is None else None)
            places.append((index, place))
        put(block, out.parts.add(), f"messages[{index}].content[{place}]")
    if out is None:
        _begin(request, usual, message)
        places.append((index, 0))


def _begin(
    request: chat_pb2.ChatRequest,
    role: content_pb2.Role.ValueType,
    source: wire.Message | None,
) -> content_pb2.Message:
    out = request.messages.add()
    out.role = role
    if source is not None and (known := without_nulls(source.extra)):
        out.extra_json = json_text(known) or ""
    return out


def _refuse_unsaid(blocks: list[AnyBlock], path: str, role: str) -> None:
    for place, block in enumerate(blocks):
        if isinstance(block, _ONLY_THE_MODEL_SAYS):
            kind = type(block).__struct_config__.tag
            raise InvalidRequest.of(
                f"{path}[{place}]", f"{kind} blocks can only stand in assistant messages"
            )
        if role == "system" and isinstance(block, wire.ToolResultBlock):
            raise InvalidRequest.of(
                f"{path}[{place}]", "tool_result blocks can only stand in user messages"
            )


# Tools.


def _tool(raw: msgspec.Raw, out: chat_pb2.Tool, path: str) -> None:
    try:
        tool = wire.TOOL.decode(bytes(raw))
    except MalformedJson as error:
        raise misshapen(error, path, required=REQUIRED) from error
    if tool.type not in (None, "custom"):
        # A tool of the vendor's own, such as "web_search_20250305": it decides.
        out.provider_tool_json = raw_text(raw) or ""
        return
    if tool.name is None:
        raise InvalidRequest.of(f"{path}.name", REQUIRED)
    schema = raw_text(tool.input_schema)
    if schema is None:
        raise InvalidRequest.of(f"{path}.input_schema", REQUIRED)
    if not schema.startswith("{"):
        raise InvalidRequest.of(f"{path}.input_schema", "must be an object, a JSON Schema")
    out.function.name = tool.name
    out.function.parameters_json = schema
    if tool.description is not None:
        out.function.description = tool.description
    if tool.strict is not None:
        out.function.strict = tool.strict
    cache(tool.cache_control, out)
    if known := without_nulls(tool.extra):
        out.extra_json = json_text(known) or ""


def _tool_choice(
    choice: wire.ToolChoice, request: chat_pb2.ChatRequest, extra: dict[str, msgspec.Raw]
) -> None:
    if choice.disable_parallel_tool_use is not None:
        request.parallel_tool_calls = not choice.disable_parallel_tool_use
    out = request.tool_choice
    if choice.type in TOOL_CHOICES:
        out.mode = TOOL_CHOICES[choice.type]
        _keep("tool_choice", choice.extra, extra)
    elif choice.type == "tool" and choice.name is None:
        raise InvalidRequest.of("tool_choice.name", REQUIRED)
    elif choice.type == "tool" and any(
        tool.function.name == choice.name for tool in request.tools if tool.HasField("function")
    ):
        out.function_name = choice.name or ""
        _keep("tool_choice", choice.extra, extra)
    else:
        # A tool of the vendor's own, or a rule that is not known here.
        out.provider_choice_json = _object(
            type=choice.type,
            name=choice.name,
            disable_parallel_tool_use=choice.disable_parallel_tool_use,
            **(choice.extra or {}),
        )


# Options.


def _thinking(
    thinking: wire.Thinking, out: chat_pb2.ReasoningOptions, extra: dict[str, msgspec.Raw]
) -> None:
    shown = None if thinking.display is None else DISPLAYS.get(thinking.display)
    if thinking.type not in THINKING or (thinking.display is not None and shown is None):
        # Not `native_json`: whoever calls that member `thinking`, too, would be sent it.
        extra["thinking"] = msgspec.Raw(
            _object(
                type=thinking.type,
                budget_tokens=thinking.budget_tokens,
                display=thinking.display,
                **(thinking.extra or {}),
            )
        )
        return
    out.enabled = THINKING[thinking.type]
    if thinking.budget_tokens is not None:
        out.budget_tokens = thinking.budget_tokens
    if shown is not None:
        out.summary = shown
    _keep("thinking", thinking.extra, extra)


def _output_config(
    config: wire.OutputConfig, request: chat_pb2.ChatRequest, extra: dict[str, msgspec.Raw]
) -> None:
    left = dict(config.extra or {})
    if config.effort is not None:
        request.reasoning.effort = config.effort
    if config.format is not None:
        _keep("format", _format(config.format, request, "output_config.format"), left)
    _keep("output_config", left, extra)


def _format(form: wire.OutputFormat, request: chat_pb2.ChatRequest, path: str) -> Extra:
    """The form of the answer. Returns the members that the message has no place for."""
    schema = raw_text(form.schema)
    if form.type != "json_schema":
        kind = msgspec.Raw(msgspec.json.encode(form.type))
        return {"type": kind, **({"schema": form.schema} if schema else {}), **(form.extra or {})}
    if schema is None:
        raise InvalidRequest.of(f"{path}.schema", REQUIRED)
    if not schema.startswith("{"):
        raise InvalidRequest.of(f"{path}.schema", "must be an object, a JSON Schema")
    out = request.response_format.json_schema
    out.name = SCHEMA_NAME
    out.schema_json = schema
    out.strict = True  # Anthropic's answers always match
    return form.extra


def _object(**members: object) -> str:
    """A JSON object of the members that are set."""
    present = {name: value for name, value in members.items() if value is not None}
    return msgspec.json.encode(present).decode()
