"""Cohere's chat stream to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

Source: https://docs.cohere.com/docs/streaming and https://docs.cohere.com/reference/chat-stream. Blocks
of content begin and end; a tool plan does neither; a citation comes whole, behind the text that it is
about; `message-end` is the last event.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, json_text, raw_array, raw_text
from headgate_server.providers.cohere.answer import (
    call_arguments,
    call_start,
    cited_part,
    decode_logprob,
    decode_usage,
    finish_reason,
    malformed,
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
from headgate_server.providers.parts import ChoiceWriter, Events
from headgate_server.sse import SseEvent, SseParser

T = TypeVar("T")
_PART_KINDS = {"text": "text", "thinking": "reasoning", "plan": "reasoning"}


class CohereStreamDecoder:
    """Decodes one stream."""

    def __init__(self, max_event_bytes: int) -> None:
        self._parser = SseParser(max_event_bytes)
        self._writer = ChoiceWriter()
        self._id = ""
        self._running = ""  # the kind of content under way: "", "text", "thinking", "plan"
        self._index: int | None = None  # and its index
        self._calls: dict[int, _Call] = {}
        self._citations: list[msgspec.Raw] = []  # of parts that are whole already
        self._logprobs: list[msgspec.Raw] = []
        self._extra: dict[str, msgspec.Raw] = {}  # unknown members of the content under way
        self._unknown = False
        self._end: EndWire | None = None
        self._started = False
        self._failure: GatewayError | None = None

    @property
    def done(self) -> bool:
        """Whether `message-end` has come."""
        return self._end is not None or self._failure is not None

    def feed(self, data: bytes) -> Events:
        """Takes the next bytes."""
        return self._take(self._parser.feed(data))

    def finish(self) -> Events:
        """The end of the body: Completed, or `UpstreamProtocol` if the answer is not whole."""
        events = self._take(self._parser.finish())
        if self._failure is not None:
            raise self._failure
        end = (self._end.delta if self._end is not None else None) or EndDeltaWire()
        if self._end is None or not end.finish_reason:
            raise UpstreamProtocol("the upstream's stream ended without a finish reason")
        completed = chat_pb2.Completed()
        try:
            self._close(events)
            for index in list(self._calls):
                self._end_call(index, events)
            reason = finish_reason(end.finish_reason, None, calls=self._writer.calls)
            finished = self._writer.finish(reason, end.finish_reason, events)
            if self._logprobs:
                finished.extra_json = json_text({"logprobs": self._logprobs}) or ""
            if extra := message_extra(None, self._citations):
                finished.message_extra_json = extra
            if end.usage is not None:
                decode_usage(end.usage, completed.usage)
            if extra := json_text({**(self._end.extra or {}), **(end.extra or {})}):
                completed.extra_json = extra
        except MalformedJson as error:
            raise malformed(error) from error
        if self._unknown:
            completed.warnings.add(
                field="choices[0].message.parts",
                message="left out: the upstream sent a content block of a kind that is not known",
            )
        self._start(events)
        events.append(chat_pb2.ChatEvent(completed=completed))
        return events

    def _start(self, events: Events) -> None:
        """Puts Started in front of the first real event, so that an early error can stay an error."""
        if events and not self._started:
            self._started = True
            started = chat_pb2.Started(id=self._id)
            events.insert(0, chat_pb2.ChatEvent(started=started))

    def _take(self, sse_events: list[SseEvent]) -> Events:
        events: Events = []
        for sse in sse_events:
            if self.done or not sse.data or sse.data.strip() == b"[DONE]":
                continue
            try:
                self._event(EVENT.decode(sse.data), sse.data, events)
            except (GatewayError, MalformedJson) as error:
                failure = malformed(error) if isinstance(error, MalformedJson) else error
                if not events:
                    raise failure from error
                # What came in the same read goes out first, as it would have in a read of its own.
                self._failure = failure
        self._start(events)
        return events

    def _event(self, event: EventWire, data: bytes, events: Events) -> None:
        message = (event.delta.message if event.delta is not None else None) or DeltaMessageWire()
        kind = event.type
        if kind == "content-delta":
            self._content(_one(message.content), event, events)
        elif kind == "content-start":
            self._close(events)
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
            end = END.decode(data)
            finish_reason(
                (end.delta.finish_reason if end.delta else None) or "",
                end.delta.error if end.delta else None,
                calls=self._writer.calls,
            )
            self._end = end
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
            self._close(events)
            self._running = kind
        return self._writer.text(_PART_KINDS[kind], text, events)

    def _close(self, events: Events) -> None:
        """Ends the content under way."""
        rest = content_pb2.Part()
        if self._running == "plan":
            mark_plan(rest)
        if self._running and (extra := json_text(self._extra)):
            rest.extra_json = extra
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
            self._close(events)
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
                delta.annotations.add(other_json=raw_text(citation) or "{}")
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
