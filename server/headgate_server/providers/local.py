"""The embedded model's dialect: OpenAI's, adapted to what its server and so small a model can do. Pure.

llama.cpp's server takes `tool_choice` without enforcing it, and a model of 135 million parameters never
calls a tool by itself. So a forced call is asked for as JSON by a schema, which the server does enforce,
and the JSON is handed on as a tool call. Without a system message this model falls into gibberish; it
gets one. See https://github.com/ggml-org/llama.cpp/tree/master/tools/server.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from headgate.errors import GatewayError
from headgate.v1 import chat_pb2, content_pb2

from headgate_server.providers.base import Dialect, Endpoint, HttpCall, StreamDecoder, Target

DEFAULT_SYSTEM = "You are a helpful AI assistant."
_INSTRUCTIONS = frozenset((content_pb2.ROLE_SYSTEM, content_pb2.ROLE_DEVELOPER))
_ANY_OBJECT = msgspec.Raw(b'{"type":"object"}')


class LocalDialect:
    """Wraps the OpenAI dialect, which it is given: dialects do not import each other."""

    def __init__(self, openai: Dialect) -> None:
        self._openai = openai

    def encode(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
    ) -> HttpCall:
        """The upstream request."""
        adapted = chat_pb2.ChatRequest()
        adapted.CopyFrom(request)
        if not any(message.role in _INSTRUCTIONS for message in request.messages):
            system = content_pb2.Message(
                role=content_pb2.ROLE_SYSTEM, parts=[content_pb2.Part(text=DEFAULT_SYSTEM)]
            )
            del adapted.messages[:]
            adapted.messages.append(system)
            adapted.messages.extend(request.messages)
        warnings: list[chat_pb2.Warning] = []
        if request.tools:
            for field in ("tools", "tool_choice", "parallel_tool_calls"):
                adapted.ClearField(field)
            if _forced(request):
                schema = adapted.response_format.json_schema
                schema.name, schema.schema_json = "tool_call", _call_schema(request)
            elif not _forbidden(request):
                warnings.append(
                    chat_pb2.Warning(
                        field="tools",
                        message="left out: the local model calls a tool only if tool_choice "
                        "is required or names one",
                    )
                )
        call = self._openai.encode(adapted, target, endpoint, stream=stream)
        if warnings:
            call = HttpCall(call.url, call.headers, call.body, [*call.warnings, *warnings])
        return call

    def decode(self, body: bytes) -> chat_pb2.ChatResponse:
        """Whole answers are never asked for: see `Provider.always_stream`."""
        return self._openai.decode(body)

    def stream_decoder(self, request: chat_pb2.ChatRequest) -> StreamDecoder:
        """A decoder for one streamed answer."""
        decoder = self._openai.stream_decoder(request)
        return _ForcedCallDecoder(decoder) if _forced(request) else decoder

    def error_in_body(self, body: bytes) -> GatewayError | None:
        """The error in a body that came with status 200."""
        return self._openai.error_in_body(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """The error behind another status than 200."""
        return self._openai.decode_error(status, headers, body)


def _forced(request: chat_pb2.ChatRequest) -> bool:
    choice = request.tool_choice
    return bool(request.tools) and (
        choice.mode == chat_pb2.ToolChoice.MODE_REQUIRED
        or choice.WhichOneof("kind") == "function_name"
    )


def _forbidden(request: chat_pb2.ChatRequest) -> bool:
    return request.tool_choice.mode == chat_pb2.ToolChoice.MODE_NONE


def _call_schema(request: chat_pb2.ChatRequest) -> str:
    """One alternative for each tool that may be called: its name, and its parameters' schema."""
    wanted = request.tool_choice.function_name
    alternatives: list[dict[str, Any]] = []
    for tool in request.tools:
        function = tool.function
        if not function.name or (wanted and function.name != wanted):
            continue
        parameters = (
            msgspec.Raw(function.parameters_json) if function.parameters_json else _ANY_OBJECT
        )
        alternatives.append(
            {
                "type": "object",
                "properties": {"name": {"const": function.name}, "arguments": parameters},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema = alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
    return msgspec.json.encode(schema).decode()


class _Call(msgspec.Struct):
    """The JSON that the schema makes the model write."""

    name: str
    arguments: msgspec.Raw


class _ForcedCallDecoder:
    """Turns the text of each choice, which is JSON by schema, into a tool call."""

    def __init__(self, inner: StreamDecoder) -> None:
        self._inner = inner
        self._texts: dict[int, list[str]] = {}

    def feed(self, data: bytes) -> list[chat_pb2.ChatEvent]:
        """Takes the next bytes."""
        return self._adapt(self._inner.feed(data))

    def finish(self) -> list[chat_pb2.ChatEvent]:
        """The end of the body."""
        return self._adapt(self._inner.finish())

    def _adapt(self, events: list[chat_pb2.ChatEvent]) -> list[chat_pb2.ChatEvent]:
        adapted: list[chat_pb2.ChatEvent] = []
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "part_delta":
                self._texts.setdefault(event.part_delta.choice, []).append(event.part_delta.text)
            elif kind == "choice_finished":
                adapted.extend(self._call(event.choice_finished))
            elif kind in ("started", "completed"):
                adapted.append(event)
        return adapted

    def _call(self, finished: chat_pb2.ChoiceFinished) -> list[chat_pb2.ChatEvent]:
        choice = finished.choice
        text = "".join(self._texts.pop(choice, ()))
        try:
            call = msgspec.json.decode(text, type=_Call)
        except msgspec.DecodeError:
            # Cut short by the token bound: what there is, as text, says so itself.
            initial, content = content_pb2.Part(text=""), text
        else:
            initial = content_pb2.Part(
                tool_call=content_pb2.ToolCall(id=_call_id(), name=call.name)
            )
            content = bytes(call.arguments).decode()
            finished.finish_reason = chat_pb2.FINISH_REASON_TOOL_CALLS
        return [
            chat_pb2.ChatEvent(
                part_started=chat_pb2.PartStarted(choice=choice, part=0, initial=initial)
            ),
            chat_pb2.ChatEvent(part_delta=chat_pb2.PartDelta(choice=choice, part=0, text=content)),
            chat_pb2.ChatEvent(part_finished=chat_pb2.PartFinished(choice=choice, part=0)),
            chat_pb2.ChatEvent(choice_finished=finished),
        ]


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
