"""ChatEvents to Gemini's stream: server-sent events (`alt=sse`), or one JSON array. Sans-I/O.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent. Every chunk is a
GenerateContentResponse with a non-empty content, because the SDKs' chats forget a turn in which one is
missing. Calls, images and files go out whole, when they are; why the candidates ended, and the usage,
come in the last chunk. The array is closed properly behind an error, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import merge_into
from headgate_facade.gemini.content_out import (
    Json,
    View,
    finish_json,
    grounding_json,
    identity,
    logprobs_json,
    proof_text,
    usage_json,
    write_part,
)
from headgate_facade.gemini.errors import JSON_UTF8, envelope
from headgate_facade.http import EVENT_STREAM, Headers, one_line

_encode = msgspec.json.Encoder().encode

_ARRAY: Headers = [JSON_UTF8, *EVENT_STREAM[1:]]
_LARGEST_HELD = 64 * 1024 * 1024  # bytes of parts that wait to be whole
_TEXTS = ("text", "refusal", "reasoning")
_BLOCKED = (chat_pb2.FINISH_REASON_CONTENT_FILTER, chat_pb2.FINISH_REASON_REFUSAL)


class ChunkWriter:
    """Writes one stream.

    Args:
        view: of the caller.
        sse: whether as server-sent events.

    Attributes:
        headers: of the stream.
        ping: a blank line, or a blank: Google's SDK for Python takes a comment for an answer.
    """

    def __init__(self, view: View, *, sse: bool) -> None:
        self.headers: Headers = EVENT_STREAM if sse else _ARRAY
        self.ping = b"\r\n" if sse else b"\n"
        self._view = view
        self._sse = sse
        self._opened = False
        self._separator = b""
        self._identity: Json = {}
        self._tail = b"}"
        self._choices: dict[int, _Choice] = {}
        self._held = 0

    def write(self, events: Iterable[chat_pb2.ChatEvent]) -> bytes:
        """The bytes of these events; the array's end included when the last of them is Completed."""
        out: list[bytes] = []
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "part_delta":
                self._delta(event.part_delta, out)
            elif kind == "part_started":
                self._part_started(event.part_started, out)
            elif kind == "part_finished":
                self._part_finished(event.part_finished, out)
            elif kind == "choice_finished":
                choice = self._choice(event.choice_finished.choice)
                choice.finished = event.choice_finished
            elif kind == "started":
                self._started(event.started, out)
            elif kind == "completed":
                self._completed(event.completed, out)
        return b"".join(out)

    def error(self, error: GatewayError) -> bytes:
        """The error as the stream's last piece."""
        body = envelope(error, error.request_id or "")
        if self._sse:
            return b"data: " + body + b"\r\n\r\n"
        before = self._separator if self._opened else b"["
        return before + body + b"\n]\n"

    def _started(self, started: chat_pb2.Started, out: list[bytes]) -> None:
        self._view.dialect = started.served.dialect
        self._identity = identity(started)
        self._tail = b"," + _encode(self._identity)[1:]
        if not self._sse:
            # At once: nothing, not even a ping, may come before it.
            self._opened = True
            out.append(b"[")

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index)
        return choice

    def _put(self, candidates: bytes, tail: bytes, out: list[bytes]) -> None:
        if self._sse:
            candidates, tail = one_line(candidates), one_line(tail)
            out += (b'data: {"candidates":[', candidates, b"]", tail, b"\r\n\r\n")
        else:
            out += (self._separator, b'{"candidates":[', candidates, b"]", tail)
            self._separator = b"\n,\r\n"

    def _put_part(self, choice: _Choice, part: Json, out: list[bytes]) -> None:
        self._put(choice.head + _encode(part) + choice.end, self._tail, out)

    def _text(self, choice: _Choice, part: _Part, text: str, out: list[bytes]) -> None:
        if part.kind == "reasoning":
            if self._view.include_thoughts:
                self._put_part(choice, {"text": text, "thought": True}, out)
            else:
                self._hold(part, text=text)
            return
        if part.kind == "text":
            choice.texts.append(text)
            if self._view.one_word:
                self._hold(part, text=text)
                return
        self._put(choice.head + b'{"text":' + _encode(text) + b"}" + choice.end, self._tail, out)

    def _hold(self, part: _Part, *, text: str = "", data: bytes = b"") -> None:
        self._held += len(text) + len(data)
        if self._held > _LARGEST_HELD:
            raise UpstreamProtocol(
                f"the parts that wait to be whole have more than {_LARGEST_HELD} bytes"
            )
        if text:
            part.text.append(text)
        if data:
            part.data.append(data)

    def _part_started(self, started: chat_pb2.PartStarted, out: list[bytes]) -> None:
        choice = self._choice(started.choice)
        initial = started.initial
        choice.open[started.part] = part = _Part(initial)
        if part.kind == "audio":
            self._audio(choice, part, initial.audio, out)
        elif part.kind in _TEXTS:
            text = initial.reasoning.text or initial.text or initial.refusal
            if text:
                self._text(choice, part, text, out)

    def _delta(self, delta: chat_pb2.PartDelta, out: list[bytes]) -> None:
        choice = self._choice(delta.choice)
        part = choice.open.get(delta.part)
        if part is None:
            return
        if delta.annotations:
            choice.annotations.extend(delta.annotations)
        if delta.logprobs:
            self._with_logprobs(choice, part, delta, out)
            return
        if part.kind in _TEXTS:
            if delta.text:
                self._text(choice, part, delta.text, out)
        elif part.kind == "audio":
            heard = content_pb2.Media(media_type=part.initial.audio.media_type)
            heard.data, heard.transcript = delta.data, delta.text
            self._audio(choice, part, heard, out)
        else:
            self._hold(part, text=delta.text, data=delta.data)

    def _with_logprobs(
        self, choice: _Choice, part: _Part, delta: chat_pb2.PartDelta, out: list[bytes]
    ) -> None:
        """With its own text, if that goes out now; else with an empty one."""
        text = delta.text
        if part.kind == "text" and not self._view.one_word:
            choice.texts.append(text)
        elif part.kind != "refusal":
            text = ""
            rest = chat_pb2.PartDelta()
            rest.CopyFrom(delta)
            del rest.annotations[:]
            del rest.logprobs[:]
            self._delta(rest, out)
        body: Json = {"content": {"parts": [{"text": text}], "role": "model"}}
        body |= {"index": choice.index, "logprobsResult": logprobs_json(delta.logprobs)}
        self._put(_encode(body), self._tail, out)

    def _audio(
        self, choice: _Choice, part: _Part, heard: content_pb2.Media, out: list[bytes]
    ) -> None:
        """Sound is heard as it comes."""
        if heard.data or heard.transcript:
            piece = content_pb2.Part()
            if not part.heard:
                piece.CopyFrom(part.initial)  # what is said of the part, once
                part.heard = True
            piece.audio.CopyFrom(heard)
            written = write_part(piece, self._view)
            for body in written if isinstance(written, list) else ():
                self._put_part(choice, body, out)

    def _part_finished(self, finished: chat_pb2.PartFinished, out: list[bytes]) -> None:
        choice = self._choice(finished.choice)
        part = choice.open.pop(finished.part, None)
        if part is None:
            return
        self._held -= sum(map(len, part.text)) + sum(map(len, part.data))
        whole = part.whole(finished.rest)
        choice.annotations.extend(whole.annotations)
        if part.kind == "audio":
            self._audio(choice, part, finished.rest.audio, out)
        elif part.kind not in _TEXTS or (part.kind == "text" and self._view.one_word):
            written = write_part(whole, self._view)
            if isinstance(written, str):
                choice.malformed = choice.malformed or written
            else:
                for body in written:
                    self._put_part(choice, body, out)
        else:
            self._rest(choice, part, whole, out)

    def _rest(
        self, choice: _Choice, part: _Part, whole: content_pb2.Part, out: list[bytes]
    ) -> None:
        """What belongs to a text that is out already comes behind it, as Gemini's own proofs do."""
        rest: Json = {}
        if part.kind == "reasoning":
            rest["thought"] = True
        said = len(rest)
        proof = proof_text(whole.reasoning, self._view) or whole.thought_signature
        if proof:
            rest["thoughtSignature"] = proof
        if self._view.own and whole.HasField("extra_json"):
            merge_into(rest, whole.extra_json)
        if len(rest) > said:
            self._put_part(choice, {"text": "", **rest}, out)

    def _completed(self, completed: chat_pb2.Completed, out: list[bytes]) -> None:
        candidates = [self._last(choice) for _, choice in sorted(self._choices.items())]
        body: Json = {}
        if completed.HasField("usage"):
            body["usageMetadata"] = usage_json(completed.usage, self._view)
        body |= self._identity
        if self._view.own and completed.HasField("extra_json"):
            merge_into(body, completed.extra_json)
        tail = b"," + _encode(body)[1:]
        self._put(b",".join(_encode(candidate) for candidate in candidates), tail, out)
        if not self._sse:
            out.append(b"\n]\n")

    def _last(self, choice: _Choice) -> Json:
        finished = choice.finished or chat_pb2.ChoiceFinished(choice=choice.index)
        body: Json = {}
        if finished.finish_reason not in _BLOCKED:
            body["content"] = {"parts": [{"text": ""}], "role": "model"}
            if self._view.own and finished.HasField("message_extra_json"):
                merge_into(body["content"], finished.message_extra_json)
        body |= finish_json(finished, self._view, choice.malformed)
        grounding = grounding_json("".join(choice.texts), choice.annotations)
        if grounding is not None:
            body.setdefault("groundingMetadata", grounding)
        return body


class _Choice:
    """What has been said of one choice."""

    __slots__ = ("annotations", "end", "finished", "head", "index", "malformed", "open", "texts")

    def __init__(self, index: int) -> None:
        self.index = index
        self.open: dict[int, _Part] = {}
        self.texts: list[str] = []
        self.annotations: list[content_pb2.Annotation] = []
        self.malformed = ""
        self.finished: chat_pb2.ChoiceFinished | None = None
        self.head = b'{"content":{"parts":['
        self.end = b'],"role":"model"},"index":%d}' % index


class _Part:
    """A part on its way."""

    __slots__ = ("data", "heard", "initial", "kind", "text")

    def __init__(self, initial: content_pb2.Part) -> None:
        self.initial = initial
        self.kind: str = initial.WhichOneof("kind") or ""
        self.text: list[str] = []
        self.data: list[bytes] = []
        self.heard = False

    def whole(self, rest: content_pb2.Part) -> content_pb2.Part:
        """The part as the unary answer has it, as far as it was held back."""
        part = content_pb2.Part()
        part.CopyFrom(self.initial)
        text = "".join(self.text)
        if self.kind == "tool_call":
            part.tool_call.arguments_json += text
        elif self.kind == "reasoning":
            part.reasoning.text += text
        elif self.kind == "text":
            part.text += text
        elif self.kind in ("image", "file"):
            media: Any = getattr(part, self.kind)
            if self.data:
                media.data += b"".join(self.data)
        part.MergeFrom(rest)
        return part
