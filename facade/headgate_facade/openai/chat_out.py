"""ChatResponse and ChatEvents to OpenAI's chat completion objects and chunks. Pure.

Source: https://platform.openai.com/docs/api-reference/chat/object and .../chat/streaming: which members
there are, their order, and which are null rather than absent.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import merge_into
from headgate_facade.http import EVENT_STREAM
from headgate_facade.openai.errors import envelope

Json = dict[str, Any]

_encode = msgspec.json.Encoder().encode

FINISH_REASONS = {
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_LENGTH: "length",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
    chat_pb2.FINISH_REASON_REFUSAL: "content_filter",
    chat_pb2.FINISH_REASON_PAUSE: "stop",
    chat_pb2.FINISH_REASON_OTHER: "stop",
}
DONE = b"data: [DONE]\n\n"
_SILENT = "silent"  # the kind of a part that the caller's form of answer has no place for


def write_response(
    response: chat_pb2.ChatResponse, *, legacy_functions: bool, with_reasoning: bool
) -> bytes:
    """The body of a unary answer."""
    body: Json = {
        "id": response.id,
        "object": "chat.completion",
        "created": response.create_time.seconds,
        "model": response.model,
        "choices": [
            _choice(choice, legacy_functions, with_reasoning) for choice in response.choices
        ],
    }
    if response.HasField("usage"):
        body["usage"] = usage_json(response.usage)
    if response.HasField("service_tier"):
        body["service_tier"] = response.service_tier
    if response.HasField("system_fingerprint"):
        body["system_fingerprint"] = response.system_fingerprint
    if response.HasField("extra_json"):
        merge_into(body, response.extra_json)
    return _encode(body)


def _choice(choice: chat_pb2.Choice, legacy_functions: bool, with_reasoning: bool) -> Json:
    message: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    texts: list[str] = []
    thinking: list[str] = []
    calls: list[Json] = []
    for part in choice.message.parts:
        kind = part.WhichOneof("kind")
        if kind == "text":
            texts.append(part.text)
            message["annotations"].extend(_annotation(a) for a in part.annotations)
        elif kind == "reasoning":
            thinking.append(part.reasoning.text)
        elif kind == "tool_call":
            call = _call(part.tool_call, part.tool_call.arguments_json)
            if part.HasField("extra_json"):
                merge_into(call, part.extra_json)
            calls.append(call)
        elif kind == "refusal":
            message["refusal"] = (message["refusal"] or "") + part.refusal
        elif kind == "audio":
            message["audio"] = _audio(part)
    if texts or not (calls or message["refusal"] or "audio" in message):
        message["content"] = "".join(texts)
    if thinking and with_reasoning:
        message["reasoning_content"] = "".join(thinking)
    if calls and legacy_functions:
        message["function_call"] = calls[0].get("function")
    elif calls:
        message["tool_calls"] = calls
    if choice.message.HasField("extra_json"):
        merge_into(message, choice.message.extra_json)
    body: Json = {
        "index": choice.index,
        "message": message,
        "logprobs": None,
        "finish_reason": _finish_reason(choice.finish_reason, legacy_functions),
    }
    if choice.HasField("logprobs"):
        body["logprobs"] = {
            "content": [_token(t) for t in choice.logprobs.content] or None,
            "refusal": [_token(t) for t in choice.logprobs.refusal] or None,
        }
    if choice.HasField("extra_json"):
        merge_into(body, choice.extra_json)
    return body


def _finish_reason(reason: chat_pb2.FinishReason.ValueType, legacy_functions: bool) -> str:
    if legacy_functions and reason == chat_pb2.FINISH_REASON_TOOL_CALLS:
        return "function_call"
    return FINISH_REASONS.get(reason, "stop")


def _call(call: content_pb2.ToolCall, arguments: str) -> Json:
    if call.custom:
        custom = {"name": call.name, "input": arguments}
        return {"id": call.id, "type": "custom", "custom": custom}
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _audio(part: content_pb2.Part) -> Json:
    data = base64.b64encode(part.audio.data).decode()
    return {**_audio_facts(part), "data": data, "transcript": part.audio.transcript}


def _audio_facts(part: content_pb2.Part) -> Json:
    """What is known of audio beside its bytes and words."""
    body: Json = {}
    if part.audio.HasField("id"):
        body["id"] = part.audio.id
    if part.audio.HasField("expire_time"):
        body["expires_at"] = part.audio.expire_time.seconds
    if part.HasField("extra_json"):
        merge_into(body, part.extra_json)
    return body


def _annotation(annotation: content_pb2.Annotation) -> object:
    if annotation.HasField("other_json"):
        return msgspec.Raw(annotation.other_json)
    cited = annotation.url_citation
    citation = {
        "url": cited.url,
        "title": cited.title,
        "start_index": cited.start_index,
        "end_index": cited.end_index,
    }
    return {"type": "url_citation", "url_citation": citation}


def _token(token: chat_pb2.TokenLogprob) -> Json:
    return {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": list(token.bytes) if token.HasField("bytes") else None,
        "top_logprobs": [
            {
                "token": top.token,
                "logprob": top.logprob,
                "bytes": list(top.bytes) if top.HasField("bytes") else None,
            }
            for top in token.top
        ],
    }


def usage_json(usage: chat_pb2.Usage) -> Json:
    """The usage object. Details appear only if the provider told one of them."""
    body: Json = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    for field, count in usage.ListFields():
        place = _USAGE_DETAILS.get(field.name)
        if place is not None:
            body.setdefault(place[0], {})[place[1]] = count
    if usage.HasField("extra_json"):
        merge_into(body, usage.extra_json)
    return body


_USAGE_DETAILS = {
    "cached_input_tokens": ("prompt_tokens_details", "cached_tokens"),
    "audio_input_tokens": ("prompt_tokens_details", "audio_tokens"),
    "cache_write_input_tokens": ("prompt_tokens_details", "cache_write_tokens"),
    "reasoning_output_tokens": ("completion_tokens_details", "reasoning_tokens"),
    "audio_output_tokens": ("completion_tokens_details", "audio_tokens"),
    "accepted_prediction_tokens": ("completion_tokens_details", "accepted_prediction_tokens"),
    "rejected_prediction_tokens": ("completion_tokens_details", "rejected_prediction_tokens"),
}


class ChunkWriter:
    """Writes the server-sent events of one stream.

    What all chunks share is encoded once; a text delta then costs one string to encode.
    """

    headers = EVENT_STREAM
    ping = b": ping\n\n"

    def __init__(self, *, include_usage: bool, legacy_functions: bool) -> None:
        self._include_usage = include_usage
        self._legacy = legacy_functions
        self._members: Json = {}
        self._head = b""
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._choices: dict[int, _ChoiceState] = {}

    def write(self, events: Iterable[chat_pb2.ChatEvent]) -> bytes:
        """The bytes of these events; `[DONE]` included when the last of them is Completed."""
        out: list[bytes] = []
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "part_delta":
                self._delta(event.part_delta, out)
            elif kind == "part_started":
                self._part_started(event.part_started, out)
            elif kind == "choice_finished":
                self._choice_finished(event.choice_finished, out)
            elif kind == "part_finished":
                self._part_finished(event.part_finished, out)
            elif kind == "started":
                self._started(event.started)
            elif kind == "completed":
                self._completed(event.completed, out)
        return b"".join(out)

    def error(self, error: GatewayError) -> bytes:
        """The error as the stream's last event; no `[DONE]` follows."""
        return b"data: " + envelope(error) + b"\n\n"

    def _started(self, started: chat_pb2.Started) -> None:
        self._members = {
            "id": started.id,
            "object": "chat.completion.chunk",
            "created": started.create_time.seconds,
            "model": started.model,
        }
        self._set_head(started)

    def _set_head(self, source: chat_pb2.Started | chat_pb2.Completed) -> bool:
        """Encodes what all chunks share; whether the source tells something new."""
        before = self._head
        if source.HasField("service_tier"):
            self._members["service_tier"] = source.service_tier
        if source.HasField("system_fingerprint"):
            self._members["system_fingerprint"] = source.system_fingerprint
        self._head = b"data: " + _encode(self._members)[:-1] + b',"choices":['
        return self._head != before

    def _choice(self, index: int) -> _ChoiceState:
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _ChoiceState(index)
        return state

    def _put(self, state: _ChoiceState, delta: Json, out: list[bytes]) -> None:
        out += (self._head, state.open, _encode(delta), state.close, self._tail)

    def _role(self, state: _ChoiceState, calls: bool, out: list[bytes]) -> None:
        if state.has_role:
            return
        state.has_role = True
        content = None if calls else ""
        self._put(state, {"role": "assistant", "content": content, "refusal": None}, out)

    def _part_started(self, started: chat_pb2.PartStarted, out: list[bytes]) -> None:
        state = self._choice(started.choice)
        part = started.initial
        kind: str = part.WhichOneof("kind") or ""
        if kind == "tool_call" and self._legacy and state.calls:
            kind = _SILENT  # `function_call` holds one call, as in the unary answer
        state.kinds[started.part] = kind
        self._role(state, kind == "tool_call", out)
        if kind == "tool_call":
            index = state.calls[started.part] = len(state.calls)
            call = _call(part.tool_call, part.tool_call.arguments_json)
            if part.HasField("extra_json"):
                merge_into(call, part.extra_json)
            if self._legacy:
                self._put(state, {"function_call": call.get("function")}, out)
            else:
                self._put(state, {"tool_calls": [{"index": index, **call}]}, out)
            state.custom[started.part] = part.tool_call.custom
        elif kind == "audio":
            known = _audio_facts(part)
            if known:
                self._put(state, {"audio": known}, out)
        elif kind == "text" and part.text:
            self._put(state, {"content": part.text}, out)

    def _delta(self, delta: chat_pb2.PartDelta, out: list[bytes]) -> None:
        state = self._choice(delta.choice)
        kind = state.kinds.get(delta.part, "text")
        text = delta.text
        if kind == "text" and text and not delta.logprobs and not delta.annotations:
            out += (
                self._head, state.open, b'{"content":', _encode(delta.text), b"}", state.close,
                self._tail,
            )  # fmt: skip
            return
        if kind == _SILENT:
            return
        body: Json = {}
        if kind == "text":
            body["content"] = delta.text
            if delta.annotations:
                body["annotations"] = [_annotation(a) for a in delta.annotations]
        elif kind == "reasoning":
            body["reasoning_content"] = delta.text
        elif kind == "refusal":
            body["refusal"] = delta.text
        elif kind == "tool_call":
            body = self._call_delta(state, delta)
        elif kind == "audio":
            audio: Json = {}
            if delta.data:
                audio["data"] = base64.b64encode(delta.data).decode()
            if delta.text:
                audio["transcript"] = delta.text
            body["audio"] = audio
        if not delta.logprobs:
            self._put(state, body, out)
            return
        tokens = [_token(token) for token in delta.logprobs]
        refused = kind == "refusal"
        logprobs = {"content": None if refused else tokens, "refusal": tokens if refused else None}
        choice = {
            "index": delta.choice, "delta": body, "logprobs": logprobs, "finish_reason": None
        }  # fmt: skip
        out += (self._head, _encode(choice), self._tail)

    def _call_delta(self, state: _ChoiceState, delta: chat_pb2.PartDelta) -> Json:
        if self._legacy:
            return {"function_call": {"arguments": delta.text}}
        inner = (
            {"custom": {"input": delta.text}}
            if state.custom.get(delta.part)
            else {"function": {"arguments": delta.text}}
        )
        return {"tool_calls": [{"index": state.calls[delta.part], **inner}]}

    def _part_finished(self, finished: chat_pb2.PartFinished, out: list[bytes]) -> None:
        state = self._choice(finished.choice)
        kind = state.kinds.get(finished.part)
        rest = finished.rest
        if kind == "tool_call" and rest.HasField("extra_json") and not self._legacy:
            call: Json = {"index": state.calls[finished.part]}
            merge_into(call, rest.extra_json)
            self._put(state, {"tool_calls": [call]}, out)
        elif kind == "audio" and (known := _audio_facts(rest)):
            self._put(state, {"audio": known}, out)

    def _choice_finished(self, finished: chat_pb2.ChoiceFinished, out: list[bytes]) -> None:
        state = self._choice(finished.choice)
        self._role(state, False, out)
        delta: Json = {}
        if finished.HasField("message_extra_json"):
            merge_into(delta, finished.message_extra_json)
        choice: Json = {
            "index": finished.choice,
            "delta": delta,
            "logprobs": None,
            "finish_reason": _finish_reason(finished.finish_reason, self._legacy),
        }
        if finished.HasField("extra_json"):
            merge_into(choice, finished.extra_json)
        out += (self._head, _encode(choice), self._tail)

    def _completed(self, completed: chat_pb2.Completed, out: list[bytes]) -> None:
        changed = self._set_head(completed)
        extra: Json = {}
        if completed.HasField("extra_json"):
            merge_into(extra, completed.extra_json)
        if self._include_usage:
            usage = usage_json(completed.usage) if completed.HasField("usage") else None
            last = {"usage": usage, **extra}
            out += (self._head, b"],", _encode(last)[1:], b"\n\n")
        elif extra or changed:
            # What was known only now. Not in a chunk without choices: only who asked for usage
            # expects one of those.
            idle = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":null}]'
            rest = b"," + _encode(extra)[1:] if extra else b"}"
            out += (self._head, idle, rest, b"\n\n")
        out.append(DONE)


class _ChoiceState:
    """What has been said of one choice."""

    __slots__ = ("calls", "close", "custom", "has_role", "kinds", "open")

    def __init__(self, index: int) -> None:
        self.has_role = False
        self.kinds: dict[int, str] = {}
        self.calls: dict[int, int] = {}  # part -> index among the tool calls
        self.custom: dict[int, bool] = {}
        self.open = b'{"index":%d,"delta":' % index
        self.close = b',"logprobs":null,"finish_reason":null}'
