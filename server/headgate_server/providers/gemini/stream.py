"""GenerateContentResponses to ChatEvents: the chunks of a stream, or one whole answer. Sans-I/O.

A stream has no sign of its end but the end of the body, usage in each chunk, and a finish reason for each
candidate in its last one. A whole answer is a stream of one chunk, folded: so they cannot differ.
"""

from __future__ import annotations

import secrets

from headgate.errors import UpstreamProtocol
from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate_server.providers.decoder import SseDecoder
from headgate_server.providers.faults import reading
from headgate_server.providers.gemini.answer import (
    blocked_prompt,
    candidate_index,
    counts,
    decode_usage,
    read,
    service_tier,
)
from headgate_server.providers.gemini.candidate import Candidate
from headgate_server.providers.gemini.wire import ResponseWire, UsageWire
from headgate_server.providers.parts import Events
from headgate_server.providers.shapes import Members, is_there, keep
from headgate_server.providers.times import set_rfc3339_time


def decode_answer(body: bytes) -> chat_pb2.ChatResponse:
    """The whole answer.

    Raises:
        UpstreamProtocol: the body is no GenerateContentResponse, or one without an answer.
        ContentFiltered: the prompt was blocked.
        GatewayError: the body is an error object in spite of its status.
    """
    return GeminiStreamDecoder(len(body)).whole(body)


class GeminiStreamDecoder(SseDecoder):
    """Decodes one stream."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self._candidates: dict[int, Candidate] = {}  # by index
        self._id = ""
        self._model = ""
        self._time = ""
        self._usage: UsageWire | None = None  # the last that counts
        self._members: Members = {}

    def whole(self, body: bytes) -> chat_pb2.ChatResponse:
        """The answer that is all in one chunk."""
        events: Events = []
        with reading:
            self._event(body, events)
        if not self._candidates:
            raise UpstreamProtocol("the upstream's answer has no candidates")
        return fold(self._close(events))

    def _begin(self, started: chat_pb2.Started) -> None:
        started.id, started.model = self._answer_id(), self._model
        set_rfc3339_time(started, self._time)

    def _check_whole(self) -> None:
        candidates = self._candidates
        if not candidates or any(not each.reason for each in candidates.values()):
            raise UpstreamProtocol("the upstream's stream ended without a finish reason")

    def _complete(self, events: Events, completed: chat_pb2.Completed) -> None:
        for candidate in self._candidates.values():
            candidate.finish(events)
        if self._usage is not None:
            if counts(self._usage):
                decode_usage(self._usage, completed.usage)
            tier = service_tier(self._usage)
            if tier is not None:
                completed.service_tier = tier
        keep(completed, self._members)

    def _event(self, data: bytes, events: Events) -> None:
        wire = read(data)
        if (blocked := blocked_prompt(wire)) is not None:
            raise blocked
        if not self._started:
            self._id = self._id or wire.response_id or ""
            self._model = self._model or wire.model_version or ""
            self._time = self._time or wire.create_time or ""
        usage = wire.usage_metadata
        if usage is not None and (self._usage is None or counts(usage)):
            self._usage = usage
        if is_there(wire.prompt_feedback):
            self._members["promptFeedback"] = wire.prompt_feedback
        if wire.extra:
            self._members.update(wire.extra)
        before = len(events)
        try:
            self._take_candidates(wire, events)
        except Exception:
            del events[before:]  # a chunk that breaks off is none
            raise

    def _take_candidates(self, wire: ResponseWire, events: Events) -> None:
        for position, each in enumerate(wire.candidates or ()):
            index = candidate_index(each, position)
            candidate = self._candidates.get(index)
            if candidate is None:
                candidate = self._candidates[index] = Candidate(index, self._answer_id())
            candidate.take(each, events)

    def _answer_id(self) -> str:
        if not self._id:
            self._id = f"gemini-{secrets.token_hex(12)}"
        return self._id
