"""POST /v1/completions: OpenAI's legacy door, for bare texts.

Source: https://platform.openai.com/docs/api-reference/completions. A completion is a choice whose text is
all there is; log probabilities in their legacy form come and go in the choice's extras, which a stream
tells at the end of the choice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.errors import GatewayError, InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson, json_text, merge_into, raw_text
from headgate_facade.endpoint import Door
from headgate_facade.http import EVENT_STREAM, Scope, one_line
from headgate_facade.malformed import unreadable
from headgate_facade.openai.chat_out import usage_json
from headgate_facade.openai.chunks_out import DONE
from headgate_facade.openai.completions_wire import COMPLETION_BODY, CompletionBody
from headgate_facade.openai.errors import envelope, rest_path

Json = dict[str, Any]

_encode = msgspec.json.Encoder().encode
# All that the legacy API says.
FINISH_REASONS = {
    chat_pb2.FINISH_REASON_LENGTH: "length",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
    chat_pb2.FINISH_REASON_REFUSAL: "content_filter",
}
_PLAIN_MEMBERS = (
    "n", "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty", "user",
)  # fmt: skip
_TEXT_MEMBERS = ("suffix", "echo", "best_of", "logprobs")


class CompletionsDoor(Door):
    """See `headgate_facade.endpoint.Door`."""

    def read(self, scope: Scope, body: bytes) -> CompletionCall:
        """Reads a request."""
        try:
            return _read(COMPLETION_BODY.decode(body))
        except MalformedJson as error:
            raise unreadable(error, body, "model and prompt") from error

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        return envelope(error)


class CompletionCall:
    """See `headgate_facade.endpoint.Call`.

    Args:
        request: the message for the core.
        stream: whether to answer with server-sent events.
        include_usage: whether the stream ends with a usage chunk.
    """

    __slots__ = ("_include_usage", "request", "stream")

    def __init__(self, request: chat_pb2.ChatRequest, stream: bool, include_usage: bool) -> None:
        self.request = request
        self.stream = stream
        self._include_usage = include_usage

    def words(self, path: str) -> str:
        """A field path as a path into the body."""
        return rest_path(path)

    def answer(self, response: chat_pb2.ChatResponse) -> bytes:
        """The body of a whole answer."""
        body = _head(response)
        body["choices"] = [_choice(choice) for choice in response.choices]
        if response.HasField("usage"):
            body["usage"] = usage_json(response.usage)
        if response.HasField("extra_json"):
            merge_into(body, response.extra_json)
        return _encode(body)

    def writer(self) -> CompletionWriter:
        """A writer for a streamed answer."""
        return CompletionWriter(include_usage=self._include_usage)


def _read(body: CompletionBody) -> CompletionCall:
    request = chat_pb2.ChatRequest(model=body.model)
    asked = request.text_completion
    prompt = raw_text(body.prompt) or ""
    if prompt[:1] not in ('"', "["):
        raise InvalidRequest.of("prompt", "must be a string, or an array of strings or token ids")
    asked.prompt_json = prompt
    for name in _TEXT_MEMBERS:
        if (value := getattr(body, name)) is not None:
            setattr(asked, name, value)
    for name in _PLAIN_MEMBERS:
        if (value := getattr(body, name)) is not None:
            setattr(request, name, value)
    extra = dict(body.extra or {})
    if body.max_tokens == 0:
        # With `echo` it asks for the prompt's log probabilities alone; the proto's bound is at least 1.
        extra["max_tokens"] = msgspec.Raw(b"0")
    elif body.max_tokens is not None:
        request.max_tokens = body.max_tokens
    if body.stop is not None:
        request.stop.extend([body.stop] if isinstance(body.stop, str) else body.stop)
    if body.logit_bias:
        request.logit_bias.update(body.logit_bias)
    if extra:
        request.extra_body_json = json_text(extra) or ""
    options = body.stream_options
    return CompletionCall(request, bool(body.stream), bool(options and options.include_usage))


def _head(source: chat_pb2.ChatResponse | chat_pb2.Started) -> Json:
    head: Json = {
        "id": source.id,
        "object": "text_completion",
        "created": source.create_time.seconds,
        "model": source.model,
    }
    if source.HasField("system_fingerprint"):
        head["system_fingerprint"] = source.system_fingerprint
    return head


def _choice(choice: chat_pb2.Choice) -> Json:
    texts = [part.text for part in choice.message.parts if part.HasField("text")]
    body: Json = {"text": "".join(texts), "index": choice.index}
    return _finished(body, choice)


def _finished(body: Json, choice: chat_pb2.Choice | chat_pb2.ChoiceFinished) -> Json:
    if choice.HasField("extra_json"):
        merge_into(body, choice.extra_json)
    body.setdefault("logprobs", None)
    body["finish_reason"] = FINISH_REASONS.get(choice.finish_reason, "stop")
    return body


class CompletionWriter:
    """Writes the server-sent events of one stream."""

    headers = EVENT_STREAM
    ping = b": ping\n\n"

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._members: Json = {}
        self._head = b""
        self._texts: set[tuple[int, int]] = set()

    def write(self, events: Iterable[chat_pb2.ChatEvent]) -> bytes:
        """The bytes of these events; `[DONE]` included when the last of them is Completed."""
        out: list[bytes] = []
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "part_delta":
                delta = event.part_delta
                if delta.text and (delta.choice, delta.part) in self._texts:
                    self._text(delta.choice, delta.text, out)
            elif kind == "part_started":
                started = event.part_started
                if started.initial.HasField("text"):
                    self._texts.add((started.choice, started.part))
                    if started.initial.text:
                        self._text(started.choice, started.initial.text, out)
            elif kind == "choice_finished":
                finished = event.choice_finished
                body = _finished({"text": "", "index": finished.choice}, finished)
                out += (self._head, one_line(_encode(body)), self._tail)
            elif kind == "started":
                self._members = _head(event.started)
                self._set_head()
            elif kind == "completed":
                self._completed(event.completed, out)
        return b"".join(out)

    def error(self, error: GatewayError) -> bytes:
        """The error as the stream's last event; no `[DONE]` follows."""
        return b"data: " + envelope(error) + b"\n\n"

    def _set_head(self) -> None:
        self._head = b"data: " + _encode(self._members)[:-1] + b',"choices":['

    def _text(self, index: int, text: str, out: list[bytes]) -> None:
        body = {"text": text, "index": index, "logprobs": None, "finish_reason": None}
        out += (self._head, _encode(body), self._tail)

    def _completed(self, completed: chat_pb2.Completed, out: list[bytes]) -> None:
        if completed.HasField("system_fingerprint"):
            self._members["system_fingerprint"] = completed.system_fingerprint
            self._set_head()
        extra: Json = {}
        if completed.HasField("extra_json"):
            merge_into(extra, completed.extra_json)
        if self._include_usage:
            usage = usage_json(completed.usage) if completed.HasField("usage") else None
            last = {"usage": usage, **extra}
            out += (self._head, b"],", one_line(_encode(last))[1:], b"\n\n")
        elif extra:
            # Not in a chunk without choices: only who asked for usage expects one of those.
            self._text(0, "", out)
            out[-1] = b"]," + one_line(_encode(extra))[1:] + b"\n\n"
        out.append(DONE)
