"""GenerateContentResponses to ChatEvents: the chunks of a stream, or one whole answer. Sans-I/O.

A stream has no sign of its end but the end of the body, usage in each chunk, and a finish reason for each
candidate in its last one. A whole answer is a stream of one chunk, folded: so they cannot differ.
"""

from __future__ import annotations

import secrets

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol
from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson, json_text
from headgate_server.providers.gemini.answer import (
    blocked_prompt,
    candidate_index,
    counts,
    decode_usage,
    malformed,
    parse,
    present,
    service_tier,
    set_time,
)
from headgate_server.providers.gemini.candidate import Candidate
from headgate_server.providers.gemini.wire import UsageWire
from headgate_server.providers.parts import Events
from headgate_server.sse import SseEvent, SseParser


def decode_answer(body: bytes) -> chat_pb2.ChatResponse:
    """The whole answer.

    Raises:
        UpstreamProtocol: the body is no GenerateContentResponse, or one without an answer.
        ContentFiltered: the prompt was blocked.
        GatewayError: the body is an error object in spite of its status.
    """
    answer = Answer()
    events: Events = []
    try:
        answer.take(body, events)
        if not answer.candidates:
            raise UpstreamProtocol("the upstream's answer has no candidates")
        answer.finish(events)
    except MalformedJson as error:
        raise malformed(error) from error
    return fold(events)


class GeminiStreamDecoder:
    """Decodes one stream."""

    def __init__(self, max_event_bytes: int) -> None:
        self._parser = SseParser(max_event_bytes)
        self._answer = Answer()
        self._failure: GatewayError | None = None

    @property
    def done(self) -> bool:
        """Whether an error has ended it; whole streams end with their body."""
        return self._failure is not None

    def feed(self, data: bytes) -> Events:
        """Takes the next bytes."""
        return self._take(self._parser.feed(data))

    def finish(self) -> Events:
        """The end of the body: Completed, or `UpstreamProtocol` if a candidate is not whole."""
        events = self._take(self._parser.finish())
        if self._failure is not None:
            raise self._failure
        candidates = self._answer.candidates
        if not candidates or any(not each.reason for each in candidates.values()):
            raise UpstreamProtocol("the upstream's stream ended without a finish reason")
        try:
            self._answer.finish(events)
        except MalformedJson as error:
            raise malformed(error) from error
        return events

    def _take(self, sse_events: list[SseEvent]) -> Events:
        events: Events = []
        for sse in sse_events:
            if self._failure is not None or not sse.data:
                continue
            whole = len(events)
            try:
                self._answer.take(sse.data, events)
            except (GatewayError, MalformedJson) as error:
                failure = malformed(error) if isinstance(error, MalformedJson) else error
                del events[whole:]
                if not events:
                    raise failure from error
                # What came in the same read goes out first, as it would have in a read of its own.
                self._failure = failure
        return events


class Answer:
    """An answer as far as it has come.

    Attributes:
        candidates: by index.
    """

    def __init__(self) -> None:
        self.candidates: dict[int, Candidate] = {}
        self._id = ""
        self._model = ""
        self._time = ""
        self._started = False
        self._usage: UsageWire | None = None  # the last that counts
        self._members: dict[str, msgspec.Raw] = {}

    def take(self, data: bytes, events: Events) -> None:
        """Adds the events of one response object."""
        wire = parse(data)
        blocked = blocked_prompt(wire)
        if blocked is not None:
            raise blocked
        if not self._started:
            self._id = self._id or wire.response_id or ""
            self._model = self._model or wire.model_version or ""
            self._time = self._time or wire.create_time or ""
        usage = wire.usage_metadata
        if usage is not None and (self._usage is None or counts(usage)):
            self._usage = usage
        if present(wire.prompt_feedback):
            self._members["promptFeedback"] = wire.prompt_feedback
        if wire.extra:
            self._members.update(wire.extra)
        for position, each in enumerate(wire.candidates or ()):
            index = candidate_index(each, position)
            candidate = self.candidates.get(index)
            if candidate is None:
                candidate = self.candidates[index] = Candidate(index, self._answer_id())
            before = len(events)
            candidate.take(each, events)
            if not self._started and len(events) > before:
                self._start(events)

    def finish(self, events: Events) -> None:
        """Adds the last events."""
        for candidate in self.candidates.values():
            candidate.finish(events)
        self._start(events)
        event = chat_pb2.ChatEvent()
        completed = event.completed
        completed.SetInParent()
        if self._usage is not None:
            if counts(self._usage):
                decode_usage(self._usage, completed.usage)
            tier = service_tier(self._usage)
            if tier is not None:
                completed.service_tier = tier
        extra = json_text(self._members)
        if extra:
            completed.extra_json = extra
        events.append(event)

    def _answer_id(self) -> str:
        if not self._id:
            self._id = f"gemini-{secrets.token_hex(12)}"
        return self._id

    def _start(self, events: Events) -> None:
        """Puts Started in front of the first real event, so that an early error can stay an error."""
        if self._started:
            return
        self._started = True
        event = chat_pb2.ChatEvent()
        event.started.id, event.started.model = self._answer_id(), self._model
        set_time(event.started.create_time, self._time)
        events.insert(0, event)
