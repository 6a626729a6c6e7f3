"""The events of a streamed response to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

What is read: the deltas, each item once it is done, and the answer at its end. The many events between
(`*.done`, the progress of the API's own tools, partial images) say nothing that these do not, so a server
that sends fewer of them loses nothing.

Source: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson, json_text
from headgate_server.providers.parts import Events
from headgate_server.providers.responses.answer import (
    check_over,
    decode_usage,
    failure,
    finish_reason,
    kind_of,
    malformed,
    parse,
    set_time,
    told,
)
from headgate_server.providers.responses.errors import error_in_body
from headgate_server.providers.responses.output import OutputWriter
from headgate_server.providers.responses.wire import EVENT, AnswerWire, EventWire
from headgate_server.sse import SseEvent, SseParser

_DONE = b"[DONE]"  # not OpenAI's, but some servers' end of any stream


class ResponsesStreamDecoder:
    """Decodes one stream."""

    def __init__(self, max_event_bytes: int) -> None:
        self._parser = SseParser(max_event_bytes)
        self._output = OutputWriter()
        self._head: AnswerWire | None = None
        self._last: AnswerWire | None = None
        self._started = False
        self._failure: GatewayError | None = None

    @property
    def done(self) -> bool:
        """Whether the last event has come."""
        return self._last is not None or self._failure is not None

    def feed(self, data: bytes) -> Events:
        """Takes the next bytes."""
        return self._take(self._parser.feed(data))

    def finish(self) -> Events:
        """The end of the body: Completed, or `UpstreamProtocol` if the last event is missing."""
        events = self._take(self._parser.finish())
        if self._failure is not None:
            raise self._failure
        last = self._last
        if last is None:
            raise UpstreamProtocol("the upstream's stream ended without a last event")
        reason, words = finish_reason(last, calls=self._output.calls)
        self._output.finish(reason, words, events)
        self._start(events)
        event = chat_pb2.ChatEvent()
        event.completed.SetInParent()
        if last.usage is not None:
            decode_usage(last.usage, event.completed.usage)
        if last.service_tier is not None:
            event.completed.service_tier = last.service_tier
        if extra := json_text(told(last.extra)):
            event.completed.extra_json = extra
        events.append(event)
        return events

    def _take(self, sse_events: list[SseEvent]) -> Events:
        events: Events = []
        for sse in sse_events:
            if self.done or not sse.data or sse.data == _DONE:
                continue
            try:
                self._event(sse.data, events)
                if events and not self._started:
                    self._start(events)
            except (GatewayError, MalformedJson) as error:
                failure = malformed(error) if isinstance(error, MalformedJson) else error
                if not events:
                    raise failure from error
                # What came in the same read goes out first, as it would have in a read of its own.
                self._start(events)
                self._failure = failure
        return events

    def _start(self, events: Events) -> None:
        """Puts Started in front of the first real event, so that an early error can stay an error."""
        if self._started:
            return
        self._started = True
        event = chat_pb2.ChatEvent()
        started = event.started
        started.SetInParent()
        head = self._head or self._last
        if head is not None:
            started.id, started.model = head.id or "", head.model or ""
            set_time(started, head.created_at)
            if head.service_tier is not None:
                started.service_tier = head.service_tier
        events.insert(0, event)

    def _event(self, data: bytes, events: Events) -> None:
        event = _parse(data)
        if (write := _OUTPUT.get(event.type)) is not None:
            write(self._output, event, events)
        elif (read := _ANSWER.get(event.type)) is not None:
            read(self, event, events)
        elif event.type == "error":
            raise error_in_body(data) or UpstreamProtocol(
                "the upstream sent an error of unknown form"
            )
        elif not event.type and (found := error_in_body(data)):
            raise found  # an envelope as in answers that are no stream

    def _on_answer(self, event: EventWire, events: Events) -> None:
        if self._head is None:
            self._head = parse(bytes(event.response))

    def _on_end(self, event: EventWire, events: Events) -> None:
        last = parse(bytes(event.response))
        check_over(last)
        for index, raw in enumerate(last.output or ()):
            self._output.finish_item(index, raw, events)
        self._last = last

    def _on_failure(self, event: EventWire, events: Events) -> None:
        last = parse(bytes(event.response))
        check_over(last)
        raise failure(bytes(last.error))


def _parse(data: bytes) -> EventWire:
    try:
        return EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Members of events that we do not read may be anything.
        if isinstance(error, msgspec.ValidationError) and (kind := kind_of(data)) not in _KNOWN:
            return EventWire(type=kind)
        raise UpstreamProtocol(f"the upstream sent a malformed event: {error}") from error


_OUTPUT: dict[str, Callable[[OutputWriter, EventWire, Events], None]] = {
    "response.output_text.delta": OutputWriter.text,
    "response.reasoning_summary_text.delta": OutputWriter.thought,
    "response.reasoning_text.delta": OutputWriter.thought,
    "response.function_call_arguments.delta": OutputWriter.arguments,
    "response.custom_tool_call_input.delta": OutputWriter.arguments,
    "response.refusal.delta": OutputWriter.refusal,
    "response.output_text.annotation.added": OutputWriter.annotation,
    "response.output_item.added": OutputWriter.begin_item,
    "response.output_item.done": lambda output, event, events: output.finish_item(
        event.output_index, event.item, events
    ),
}
_ANSWER: dict[str, Callable[[ResponsesStreamDecoder, EventWire, Events], None]] = {
    "response.created": ResponsesStreamDecoder._on_answer,
    "response.queued": ResponsesStreamDecoder._on_answer,
    "response.in_progress": ResponsesStreamDecoder._on_answer,
    "response.completed": ResponsesStreamDecoder._on_end,
    "response.incomplete": ResponsesStreamDecoder._on_end,
    "response.failed": ResponsesStreamDecoder._on_failure,
    "response.cancelled": ResponsesStreamDecoder._on_failure,
}
_KNOWN = frozenset((*_OUTPUT, *_ANSWER))
