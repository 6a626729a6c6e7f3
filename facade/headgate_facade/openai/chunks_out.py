"""ChatEvents to OpenAI's chat completion chunks. Sans-I/O.

Source: https://platform.openai.com/docs/api-reference/chat/streaming. Lists in deltas have an `index` in
each item, by which the SDKs put them together.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

import msgspec

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import merge_into
from headgate_facade.http import EVENT_STREAM, one_line
from headgate_facade.openai.chat_out import (
    Json,
    annotation_json,
    audio_facts,
    call_json,
    finish_reason,
    image_json,
    token_json,
    usage_json,
    vendor_part_json,
    with_extras,
)
from headgate_facade.openai.errors import envelope
from headgate_facade.openai.proofs import extra_content, has_proof, write_details

_encode = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"
_SILENT = "silent"  # the kind of a part that the caller's form of answer has no place for
_SHOWN_WHOLE = ("reasoning", "image", "vendor_part")  # of thinking, its proofs


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
        self._dialect = ""
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
        self._dialect = started.served.dialect
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
        out += (self._head, state.head, one_line(_encode(delta)), state.close, self._tail)

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
            call = call_json(part)
            if self._legacy:
                self._put(state, {"function_call": call.get("function")}, out)
            else:
                self._put(state, {"tool_calls": [{"index": index, **call}]}, out)
            state.custom[started.part] = part.tool_call.custom
        elif kind == "audio":
            known = audio_facts(part)
            if known:
                self._put(state, {"audio": known}, out)
        elif kind == "text":
            state.signature = part.thought_signature or state.signature
            if part.text:
                self._put(state, {"content": part.text}, out)
        elif kind in _SHOWN_WHOLE:
            state.open[started.part] = _OpenPart(part)
            if kind == "reasoning" and part.reasoning.text:
                self._put(state, {"reasoning_content": part.reasoning.text}, out)

    def _delta(self, delta: chat_pb2.PartDelta, out: list[bytes]) -> None:
        state = self._choice(delta.choice)
        kind = state.kinds.get(delta.part, "text")
        text = delta.text
        if kind == "text" and text and not delta.logprobs and not delta.annotations:
            out += (
                self._head, state.head, b'{"content":', _encode(delta.text), b"}", state.close,
                self._tail,
            )  # fmt: skip
            return
        if kind == _SILENT:
            return
        body: Json = {}
        if kind == "text":
            body["content"] = delta.text
            if delta.annotations:
                body["annotations"] = [annotation_json(a) for a in delta.annotations]
        elif kind == "reasoning":
            state.open[delta.part].text.append(delta.text)
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
        elif kind == "image":
            state.open[delta.part].data.append(delta.data)
            return
        if not (body or delta.logprobs):
            return
        if not delta.logprobs:
            self._put(state, body, out)
            return
        tokens = [token_json(token) for token in delta.logprobs]
        refused = kind == "refusal"
        logprobs = {"content": None if refused else tokens, "refusal": tokens if refused else None}
        choice = {
            "index": delta.choice, "delta": body, "logprobs": logprobs, "finish_reason": None
        }  # fmt: skip
        out += (self._head, one_line(_encode(choice)), self._tail)

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
        if kind == "text":
            state.signature = rest.thought_signature or state.signature
        elif kind == "tool_call":
            late = with_extras({"index": state.calls[finished.part]}, rest)
            if len(late) > 1 and not self._legacy:
                self._put(state, {"tool_calls": [late]}, out)
        elif kind == "audio":
            if known := audio_facts(rest):
                self._put(state, {"audio": known}, out)
        elif kind in _SHOWN_WHOLE:
            part = state.open.pop(finished.part).whole(rest)
            if kind == "reasoning":
                self._reasoning_finished(state, part, out)
            elif kind == "image":
                self._put(state, {"images": [image_json(part, state.images)]}, out)
                state.images += 1
            else:
                block = vendor_part_json(part.vendor_part, state.vendor_parts)
                self._put(state, {"vendor_parts": [block]}, out)
                state.vendor_parts += 1

    def _reasoning_finished(
        self, state: _ChoiceState, part: content_pb2.Part, out: list[bytes]
    ) -> None:
        """Tells the proofs; thinking without one only beside thinking with one, as in unary answers."""
        state.unproven.append(part)
        if not (state.details or has_proof(part.reasoning)):
            return
        details: list[Json] = []
        for each in state.unproven:
            details += write_details(each, self._dialect, state.details + len(details))
        state.unproven = []
        state.details += len(details)
        self._put(state, {"reasoning_details": details}, out)

    def _choice_finished(self, finished: chat_pb2.ChoiceFinished, out: list[bytes]) -> None:
        state = self._choice(finished.choice)
        self._role(state, False, out)
        delta: Json = {}
        if finished.HasField("message_extra_json"):
            merge_into(delta, finished.message_extra_json)
            if state.details:
                delta.pop("reasoning_details", None)
        if state.signature:
            delta.setdefault("extra_content", extra_content(state.signature))
        choice: Json = {
            "index": finished.choice,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason(finished.finish_reason, legacy_functions=self._legacy),
        }
        if finished.HasField("extra_json"):
            merge_into(choice, finished.extra_json)
        out += (self._head, one_line(_encode(choice)), self._tail)

    def _completed(self, completed: chat_pb2.Completed, out: list[bytes]) -> None:
        changed = self._set_head(completed)
        extra: Json = {}
        if completed.HasField("extra_json"):
            merge_into(extra, completed.extra_json)
        if self._include_usage:
            usage = usage_json(completed.usage) if completed.HasField("usage") else None
            last = {"usage": usage, **extra}
            out += (self._head, b"],", one_line(_encode(last))[1:], b"\n\n")
        elif extra or changed:
            # What was known only now. Not in a chunk without choices: only who asked for usage
            # expects one of those.
            idle = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":null}]'
            rest = b"," + one_line(_encode(extra))[1:] if extra else b"}"
            out += (self._head, idle, rest, b"\n\n")
        out.append(DONE)


class _OpenPart:
    """A part that is shown when it is whole, collected in pieces."""

    __slots__ = ("data", "initial", "text")

    def __init__(self, initial: content_pb2.Part) -> None:
        self.initial = initial
        self.text: list[str] = []
        self.data: list[bytes] = []

    def whole(self, rest: content_pb2.Part) -> content_pb2.Part:
        part = content_pb2.Part()
        part.CopyFrom(self.initial)
        if part.HasField("reasoning"):
            part.reasoning.text += "".join(self.text)
        elif self.data:
            part.image.data += b"".join(self.data)
        part.MergeFrom(rest)
        return part


class _ChoiceState:
    """What has been said of one choice."""

    __slots__ = (
        "calls", "close", "custom", "details", "has_role", "head", "images", "kinds", "open",
        "signature", "unproven", "vendor_parts",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.has_role = False
        self.kinds: dict[int, str] = {}
        self.calls: dict[int, int] = {}  # part -> index among the tool calls
        self.custom: dict[int, bool] = {}
        self.open: dict[int, _OpenPart] = {}
        self.unproven: list[content_pb2.Part] = []  # thinking that is not in the details yet
        self.details = self.images = self.vendor_parts = 0  # how many were told
        self.signature = ""  # of the text
        self.head = b'{"index":%d,"delta":' % index
        self.close = b',"logprobs":null,"finish_reason":null}'
