"""Folds the events of a stream into the answer that the unary call would have given.

The law of the API: ``fold(events) == ChatComplete(same request)``. Pure; no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2


def fold(events: Iterable[chat_pb2.ChatEvent]) -> chat_pb2.ChatResponse:
    """The whole answer.

    Raises:
        UpstreamProtocol: the events break the order, or Completed is missing.
    """
    folder = Folder()
    for event in events:
        folder.add(event)
    return folder.response()


class Folder:
    """Folds events one at a time, for callers that get them one at a time."""

    def __init__(self) -> None:
        self._response = chat_pb2.ChatResponse()
        self._choices: dict[int, _ChoiceBuffer] = {}
        self._started = False
        self._completed = False

    def add(self, event: chat_pb2.ChatEvent) -> None:
        """Takes the next event; raises UpstreamProtocol if it cannot stand here.

        An event of a kind that this version does not know changes nothing.
        """
        kind = event.WhichOneof("event")
        if self._completed:
            raise UpstreamProtocol(f"the stream goes on after Completed, with {kind}")
        if not self._started and kind != "started":
            raise UpstreamProtocol(f"the stream begins with {kind}, not with Started")
        if kind == "part_delta":
            delta = event.part_delta
            self._choice(delta.choice).delta(delta)
        elif kind == "part_started":
            started = event.part_started
            self._choice(started.choice).start(started)
        elif kind == "part_finished":
            finished = event.part_finished
            self._choice(finished.choice).finish_part(finished)
        elif kind == "choice_finished":
            self._choice(event.choice_finished.choice).finish(event.choice_finished)
        elif kind == "started":
            if self._started:
                raise UpstreamProtocol("the stream has two Started events")
            self._started = True
            self._start(event.started)
        elif kind == "completed":
            self._completed = True
            self._complete(event.completed)

    def response(self) -> chat_pb2.ChatResponse:
        """The answer, once Completed was added."""
        if not (self._started and self._completed):
            raise UpstreamProtocol("the stream ended before it was complete")
        for index in sorted(self._choices):
            self._choices[index].write(self._response.choices.add(index=index))
        self._choices = {}
        return self._response

    def _choice(self, index: int) -> _ChoiceBuffer:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _ChoiceBuffer()
        return choice

    def _start(self, started: chat_pb2.Started) -> None:
        response = self._response
        response.id = started.id
        response.model = started.model
        if started.HasField("create_time"):
            response.create_time.CopyFrom(started.create_time)
        if started.HasField("served"):
            response.served.CopyFrom(started.served)
        if started.HasField("system_fingerprint"):
            response.system_fingerprint = started.system_fingerprint
        if started.HasField("service_tier"):
            response.service_tier = started.service_tier
        response.warnings.extend(started.warnings)

    def _complete(self, completed: chat_pb2.Completed) -> None:
        response = self._response
        if completed.HasField("usage"):
            response.usage.CopyFrom(completed.usage)
        if completed.HasField("system_fingerprint"):
            response.system_fingerprint = completed.system_fingerprint
        if completed.HasField("service_tier"):
            response.service_tier = completed.service_tier
        if completed.HasField("extra_json"):
            response.extra_json = completed.extra_json
        response.warnings.extend(completed.warnings)


class _PartBuffer:
    """A part under way. Text is kept in pieces: appending to a message field copies it."""

    __slots__ = ("data", "part", "text")

    def __init__(self, initial: content_pb2.Part) -> None:
        self.part = content_pb2.Part()
        self.part.CopyFrom(initial)
        self.text: list[str] = []
        self.data: list[bytes] = []

    def build(self) -> content_pb2.Part:
        part, text = self.part, "".join(self.text)
        kind = part.WhichOneof("kind")
        if kind == "text":
            part.text += text
        elif kind == "tool_call":
            part.tool_call.arguments_json += text
        elif kind == "reasoning":
            part.reasoning.text += text
        elif kind == "refusal":
            part.refusal += text
        elif kind in ("image", "audio", "file"):
            media = getattr(part, kind)
            if self.data:
                media.data += b"".join(self.data)
            if text:
                media.transcript += text
        return part


class _ChoiceBuffer:
    __slots__ = ("content_logprobs", "finished", "parts", "refusal_logprobs")

    def __init__(self) -> None:
        self.parts: list[_PartBuffer] = []
        self.finished: chat_pb2.ChoiceFinished | None = None
        self.content_logprobs: list[chat_pb2.TokenLogprob] = []
        self.refusal_logprobs: list[chat_pb2.TokenLogprob] = []

    def start(self, started: chat_pb2.PartStarted) -> None:
        if self.finished is not None:
            raise UpstreamProtocol(f"part {started.part} began after its choice was finished")
        if started.part != len(self.parts):
            raise UpstreamProtocol(f"part {started.part} began where {len(self.parts)} was next")
        self.parts.append(_PartBuffer(started.initial))

    def _part(self, index: int) -> _PartBuffer:
        if not 0 <= index < len(self.parts):
            raise UpstreamProtocol(f"part {index} goes on, but never began")
        if self.finished is not None:
            raise UpstreamProtocol(f"part {index} goes on after its choice was finished")
        return self.parts[index]

    def delta(self, delta: chat_pb2.PartDelta) -> None:
        buffer = self._part(delta.part)
        if delta.text:
            buffer.text.append(delta.text)
        if delta.data:
            buffer.data.append(delta.data)
        if delta.annotations:
            buffer.part.annotations.extend(delta.annotations)
        if delta.logprobs:
            refusal = buffer.part.WhichOneof("kind") == "refusal"
            (self.refusal_logprobs if refusal else self.content_logprobs).extend(delta.logprobs)

    def finish_part(self, finished: chat_pb2.PartFinished) -> None:
        buffer = self._part(finished.part)
        if finished.HasField("rest"):
            buffer.part.MergeFrom(finished.rest)

    def finish(self, finished: chat_pb2.ChoiceFinished) -> None:
        if self.finished is not None:
            raise UpstreamProtocol(f"choice {finished.choice} finished twice")
        self.finished = finished

    def write(self, choice: chat_pb2.Choice) -> None:
        finished = self.finished
        if finished is None:
            raise UpstreamProtocol(f"choice {choice.index} never finished")
        choice.message.role = content_pb2.ROLE_ASSISTANT
        choice.message.parts.extend(buffer.build() for buffer in self.parts)
        choice.finish_reason = finished.finish_reason
        choice.provider_finish_reason = finished.provider_finish_reason
        if finished.HasField("stop_sequence"):
            choice.stop_sequence = finished.stop_sequence
        if finished.HasField("extra_json"):
            choice.extra_json = finished.extra_json
        if finished.HasField("message_extra_json"):
            choice.message.extra_json = finished.message_extra_json
        if self.content_logprobs or self.refusal_logprobs:
            choice.logprobs.content.extend(self.content_logprobs)
            choice.logprobs.refusal.extend(self.refusal_logprobs)
