"""The embedded model's dialect: OpenAI's, adapted to its server and to so small a model. Pure.

llama.cpp's server takes `tool_choice` without enforcing it, and a model of 135 million parameters never
calls a tool by itself. So a forced call is asked for as JSON by a schema, which the server does enforce,
and the JSON is handed on as a tool call. Without a system message this model falls into gibberish; it
gets one, but for bare texts to complete. Findings come from running xllamacpp 2026.10; the server's own
words are at https://github.com/ggml-org/llama.cpp/tree/master/tools/server.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import merge_objects
from headgate_server.providers.base import Dialect, Endpoint, HttpCall, StreamDecoder, Target

DEFAULT_SYSTEM = "You are a helpful AI assistant."
# So small a model is at its best when it does not gamble: asked 30 times for the capital of France,
# it was right 21 times at its server's default of 0.8, 28 times at 0.2, and always at 0. Several
# choices, though, should differ.
DEFAULT_TEMPERATURE, DEFAULT_TEMPERATURE_OF_SEVERAL = 0.0, 0.5
# Without a bound the model can talk until its context is full.
DEFAULT_MAX_TOKENS = 1024
# What OpenAI documents for its legacy text completions.
DEFAULT_TEXT_MAX_TOKENS = 16
_INSTRUCTIONS = frozenset((content_pb2.ROLE_SYSTEM, content_pb2.ROLE_DEVELOPER))
# An empty or absent schema would let the server invent arguments.
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
# Progress reports while a prompt is read: with them the server notices a caller who has gone, and
# without them only when the whole prompt has been read.
_SERVER_OPTIONS = '{"return_progress":true}'

Events = list[chat_pb2.ChatEvent]


class LocalDialect:
    """Wraps the OpenAI dialect, which it is given: dialects do not import each other."""

    name = "openai"

    def __init__(self, openai: Dialect) -> None:
        self._openai = openai

    def encode(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
    ) -> HttpCall:
        """The upstream request."""
        adapted = chat_pb2.ChatRequest()
        adapted.CopyFrom(request)
        text = request.HasField("text_completion")
        if not text and not any(message.role in _INSTRUCTIONS for message in request.messages):
            system = content_pb2.Message(
                role=content_pb2.ROLE_SYSTEM, parts=[content_pb2.Part(text=DEFAULT_SYSTEM)]
            )
            del adapted.messages[:]
            adapted.messages.append(system)
            adapted.messages.extend(request.messages)
        if not request.HasField("max_tokens") and not request.HasField("max_completion_tokens"):
            adapted.max_tokens = DEFAULT_TEXT_MAX_TOKENS if text else DEFAULT_MAX_TOKENS
        if not request.HasField("temperature"):
            several = request.n > 1
            adapted.temperature = DEFAULT_TEMPERATURE_OF_SEVERAL if several else DEFAULT_TEMPERATURE
        if request.logprobs and not request.top_logprobs:
            # 0 would mean no log probabilities at all; the decoder takes the surplus out again.
            adapted.top_logprobs = 1
        adapted.extra_body_json = (
            merge_objects(request.extra_body_json, _SERVER_OPTIONS) or _SERVER_OPTIONS
        )
        warnings = self._adapt_tools(request, adapted)
        call = self._openai.encode(adapted, target, endpoint, stream=stream)
        if warnings:
            call = HttpCall(call.url, call.headers, call.body, [*call.warnings, *warnings])
        return call

    def decode(
        self, body: bytes, request: chat_pb2.ChatRequest, target: Target
    ) -> chat_pb2.ChatResponse:
        """Whole answers are never asked for: see `HttpProvider.always_stream`."""
        return self._openai.decode(body, request, target)

    def stream_decoder(self, request: chat_pb2.ChatRequest, target: Target) -> StreamDecoder:
        """A decoder for one streamed answer."""
        decoder: StreamDecoder = _Cleaner(
            self._openai.stream_decoder(request, target),
            without_top=bool(request.logprobs and not request.top_logprobs),
            text=request.HasField("text_completion"),
        )
        return _ForcedCallDecoder(decoder) if _forced(request) else decoder

    def error_in_body(self, body: bytes) -> GatewayError | None:
        """The error in a body that came with status 200."""
        return self._openai.error_in_body(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """The error behind another status than 200."""
        return self._openai.decode_error(status, headers, body)

    def _adapt_tools(
        self, request: chat_pb2.ChatRequest, adapted: chat_pb2.ChatRequest
    ) -> list[chat_pb2.Warning]:
        if not request.tools:
            return []
        for field in ("tools", "tool_choice", "parallel_tool_calls"):
            adapted.ClearField(field)
        if _forced(request):
            # The model's template has no place for tools; without a word of them it guesses.
            adapted.messages.add(role=content_pb2.ROLE_SYSTEM).parts.add(text=_call_hint(request))
            schema = adapted.response_format.json_schema
            schema.name, schema.schema_json = "tool_call", _call_schema(request)
        elif request.tool_choice.mode != chat_pb2.ToolChoice.MODE_NONE:
            why = "the local model calls a tool only if tool_choice is required or names one"
            return [chat_pb2.Warning(field="tools", message=f"left out: {why}")]
        return []


def _forced(request: chat_pb2.ChatRequest) -> bool:
    choice = request.tool_choice
    return bool(request.tools) and (
        choice.mode == chat_pb2.ToolChoice.MODE_REQUIRED
        or choice.WhichOneof("kind") == "function_name"
    )


def _call_hint(request: chat_pb2.ChatRequest) -> str:
    """What the callable functions are, in words."""
    lines = ["Answer with a call of one of these functions, as JSON with name and arguments:"]
    for function in _callable(request):
        about = f": {function.description}" if function.description else ""
        lines.append(f"- {function.name}{about} {function.parameters_json or '{}'}")
    return "\n".join(lines)


def _callable(request: chat_pb2.ChatRequest) -> list[chat_pb2.FunctionTool]:
    wanted = request.tool_choice.function_name
    functions = [tool.function for tool in request.tools if tool.HasField("function")]
    return [function for function in functions if not wanted or function.name == wanted]


def _call_schema(request: chat_pb2.ChatRequest) -> str:
    """One alternative for each tool that may be called: its name, and its parameters' schema."""
    alternatives: list[dict[str, Any]] = []
    for function in _callable(request):
        place = f"#/anyOf/{len(alternatives)}/properties/arguments"
        parameters = msgspec.json.decode(function.parameters_json or "{}")
        alternatives.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": function.name},
                    "arguments": _moved(parameters, place) if parameters else _NO_ARGUMENTS,
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return msgspec.json.encode({"anyOf": alternatives}).decode()


def _moved(schema: Any, place: str) -> Any:
    """The schema with its own references pointing to where it is put."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, place)
        for key, value in schema.items()
    }


class _Cleaner:
    """Takes out what the server says about itself, and alternatives that nobody asked for."""

    def __init__(self, inner: StreamDecoder, *, without_top: bool, text: bool) -> None:
        self._inner = inner
        self._without_top = without_top
        self._text = text

    @property
    def done(self) -> bool:
        """Whether the answer has said that it is over."""
        return self._inner.done

    def feed(self, data: bytes) -> Events:
        """Takes the next bytes."""
        return self._clean(self._inner.feed(data))

    def finish(self) -> Events:
        """The end of the body."""
        return self._clean(self._inner.finish())

    def _clean(self, events: Events) -> Events:
        for event in events:
            if event.HasField("completed"):
                event.completed.ClearField("extra_json")
            elif event.HasField("choice_finished"):
                if not self._text:  # there it is the log probabilities
                    event.choice_finished.ClearField("extra_json")
            elif self._without_top and event.HasField("part_delta"):
                for token in event.part_delta.logprobs:
                    del token.top[:]
        return events


class _Call(msgspec.Struct):
    """The JSON that the schema makes the model write."""

    name: str
    arguments: msgspec.Raw


class _ForcedCallDecoder:
    """Turns the text of each choice, which is JSON by schema, into a tool call."""

    def __init__(self, inner: StreamDecoder) -> None:
        self._inner = inner
        self._texts: dict[int, list[str]] = {}

    @property
    def done(self) -> bool:
        """Whether the answer has said that it is over."""
        return self._inner.done

    def feed(self, data: bytes) -> Events:
        """Takes the next bytes."""
        return self._adapt(self._inner.feed(data))

    def finish(self) -> Events:
        """The end of the body."""
        return self._adapt(self._inner.finish())

    def _adapt(self, events: Events) -> Events:
        adapted: Events = []
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "part_delta":
                self._texts.setdefault(event.part_delta.choice, []).append(event.part_delta.text)
            elif kind == "choice_finished":
                adapted.extend(self._call(event.choice_finished))
            elif kind in ("started", "completed"):
                adapted.append(event)
        return adapted

    def _call(self, finished: chat_pb2.ChoiceFinished) -> Events:
        choice = finished.choice
        text = "".join(self._texts.pop(choice, ()))
        try:
            call = msgspec.json.decode(text, type=_Call)
        except msgspec.DecodeError:
            # Cut short by the token bound: what there is, as text, says so itself.
            initial, content = content_pb2.Part(text=""), text
        else:
            initial = content_pb2.Part(
                tool_call=content_pb2.ToolCall(id=f"call_{secrets.token_hex(12)}", name=call.name)
            )
            # The model's own white space is of no use to anybody.
            content = msgspec.json.format(bytes(call.arguments), indent=-1).decode()
            finished.finish_reason = chat_pb2.FINISH_REASON_TOOL_CALLS
        return [
            chat_pb2.ChatEvent(
                part_started=chat_pb2.PartStarted(choice=choice, part=0, initial=initial)
            ),
            chat_pb2.ChatEvent(part_delta=chat_pb2.PartDelta(choice=choice, part=0, text=content)),
            chat_pb2.ChatEvent(part_finished=chat_pb2.PartFinished(choice=choice, part=0)),
            chat_pb2.ChatEvent(choice_finished=finished),
        ]
