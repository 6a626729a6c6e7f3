"""Cohere's chat stream to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

Source: https://docs.cohere.com/docs/streaming and https://docs.cohere.com/reference/chat-stream. Blocks
of content begin and end; a tool plan does neither; a citation comes whole, behind the text that it is
about; `message-end` is the last event.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import json_text, raw_array, raw_text
from headgate_server.providers.citations import other_citation
from headgate_server.providers.cohere.answer import (
    call_arguments,
    call_start,
    cited_part,
    decode_logprob,
    decode_usage,
    finish_reason,
    mark_plan,
    message_extra,
)
from headgate_server.providers.cohere.errors import error_in_body
from headgate_server.providers.cohere.wire import (
    END,
    EVENT,
    ContentWire,
    DeltaMessageWire,
    EndDeltaWire,
    EndWire,
    EventWire,
    ToolCallWire,
)
from headgate_server.providers.decoder import SseDecoder
from headgate_server.providers.parts import ChoiceWriter, Events
from headgate_server.providers.shapes import keep

T = TypeVar("T")
_PART_KINDS = {"text": "text", "thinking": "reasoning", "plan": "reasoning"}


class CohereStreamDecoder(SseDecoder):
    """Decodes one stream."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self._writer = ChoiceWriter()
        self._id = ""
        self._running = ""  # the kind of content under way: "", "text", "thinking", "plan"
        self._index: int | None = None  # and its index
        self._calls: dict[int, _Call] = {}
        self._citations: list[msgspec.Raw] = []  # of parts that are whole already
        self._logprobs: list[msgspec.Raw] = []
        self._extra: dict[str, msgspec.Raw] = {}  # unknown members of the content under way
        self._unknown = False
        self._end = EndWire()
        self._last = EndDeltaWire()

    def _begin(self, started: chat_pb2.Started) -> None:
        started.id = self._id

    def _check_whole(self) -> None:
        if not self._last.finish_reason:
            raise UpstreamProtocol("the upstream's stream ended without a finish reason")

    def _complete(self, events: Events, completed: chat_pb2.Completed) -> None:
        last = self._last
        self._close_content(events)
        for index in list(self._calls):
            self._end_call(index, events)
        words = last.finish_reason or ""
        reason = finish_reason(words, None, calls=self._writer.calls)
        finished = self._writer.finish(reason, words, events)
        if self._logprobs:
            finished.extra_json = json_text({"logprobs": self._logprobs}) or ""
        if extra := message_extra(None, self._citations):
            finished.message_extra_json = extra
        if last.usage is not None:
            decode_usage(last.usage, completed.usage)
        keep(completed, self._end.extra, last.extra)
        if self._unknown:
            completed.warnings.add(
                field="choices[0].message.parts",
                message="left out: the upstream sent a content block of a kind that is not known",
            )

    def _event(self, data: bytes, events: Events) -> None:
        event = EVENT.decode(data)
        message = (event.delta.message if event.delta is not None else None) or DeltaMessageWire()
        kind = event.type
        if kind == "content-delta":
            self._content(_one(message.content), event, events)
        elif kind == "content-start":
            self._close_content(events)
            self._index = event.index
            self._content(_one(message.content), event, events)
        elif kind == "tool-plan-delta":
            if message.tool_plan:
                self._text("plan", message.tool_plan, events)
        elif kind in ("tool-call-start", "tool-call-delta"):
            self._call(_one(message.tool_calls), event, events, begins=kind == "tool-call-start")
        elif kind == "tool-call-end":
            self._end_call(event.index, events)
        elif kind == "citation-start":
            self._citation(message.citations, events)
        elif kind == "message-start":
            self._id = event.id or ""
        elif kind == "message-end":
            self._end = END.decode(data)
            self._last = last = self._end.delta or EndDeltaWire()
            finish_reason(last.finish_reason or "", last.error, calls=self._writer.calls)
            self.done = True
        elif kind is None and (found := error_in_body(data)):
            raise found
        # content-end and citation-end say nothing new; debug shows the prompt, to nobody.

    def _content(self, content: ContentWire | None, event: EventWire, events: Events) -> None:
        if content is None:
            content = ContentWire()
        elif content.type not in (None, "text", "thinking"):
            self._unknown = True
        delta: chat_pb2.PartDelta | None = None
        if content.thinking:
            delta = self._text("thinking", content.thinking, events)
        if content.text:
            delta = self._text("text", content.text, events)
        if content.extra:
            self._extra.update(content.extra)
        if raw_text(event.logprobs) is not None:
            self._logprobs.append(event.logprobs)
            delta = delta or self._text(self._running or "text", "", events)
            delta.logprobs.append(decode_logprob(event.logprobs))

    def _text(self, kind: str, text: str, events: Events) -> chat_pb2.PartDelta:
        if self._running != kind:
            self._close_content(events)
            self._running = kind
        return self._writer.text(_PART_KINDS[kind], text, events)

    def _close_content(self, events: Events) -> None:
        """Ends the content under way."""
        rest = content_pb2.Part()
        if self._running == "plan":
            mark_plan(rest)
        if self._running:
            keep(rest, self._extra)
            self._extra = {}
        self._writer.close_text(events, rest)
        self._running = ""

    def _call(
        self, wire: ToolCallWire | None, event: EventWire, events: Events, *, begins: bool
    ) -> None:
        if wire is None:
            return
        index = event.index or 0
        call = self._calls.get(index)
        if begins or call is None:
            self._close_content(events)
            call = self._calls[index] = _Call(self._writer.begin(call_start(wire), events))
        if text := call_arguments(wire):
            call.has_arguments = True
            self._writer.delta(call.part, text, events)

    def _end_call(self, index: int | None, events: Events) -> None:
        call = self._calls.pop(index or 0, None)
        if call is not None:
            if not call.has_arguments:
                self._writer.delta(call.part, "{}", events)
            self._writer.end(call.part, events)

    def _citation(self, raw: msgspec.Raw, events: Events) -> None:
        text = raw_text(raw)
        if text is None:
            return
        for citation in raw_array(text) if text.startswith("[") else [raw]:
            kind, index = cited_part(citation)
            if kind == self._running and index in (None, self._index):
                delta = self._text(kind, "", events)
                delta.annotations.append(other_citation(citation))
            else:
                self._citations.append(citation)


class _Call:
    """A tool call under way."""

    __slots__ = ("has_arguments", "part")

    def __init__(self, part: int) -> None:
        self.part = part
        self.has_arguments = False


def _one(value: T | list[T] | None) -> T | None:
    """The only item of what may be a list."""
    if isinstance(value, list):
        return value[0] if value else None
    return value
