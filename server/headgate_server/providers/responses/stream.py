"""The events of a streamed response to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

What is read: the deltas, each item once it is done, and the answer at its end. The many events between
(`*.done`, the progress of the API's own tools, partial images) say nothing that these do not, so a server
that sends fewer of them loses nothing.

Source: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate_server.providers.decoder import SseDecoder
from headgate_server.providers.parts import Events
from headgate_server.providers.responses.answer import (
    check_over,
    decode_usage,
    failure,
    finish_reason,
    read,
    told,
)
from headgate_server.providers.responses.errors import error_in_body
from headgate_server.providers.responses.output import OutputWriter
from headgate_server.providers.responses.wire import EVENT, AnswerWire, EventWire
from headgate_server.providers.shapes import keep, kind_of
from headgate_server.providers.times import set_unix_time


class ResponsesStreamDecoder(SseDecoder):
    """Decodes one stream."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self._output = OutputWriter()
        self._head: AnswerWire | None = None
        self._last: AnswerWire | None = None

    def _begin(self, started: chat_pb2.Started) -> None:
        head = self._head or self._last
        if head is not None:
            started.id, started.model = head.id or "", head.model or ""
            set_unix_time(started, head.created_at)
            if head.service_tier is not None:
                started.service_tier = head.service_tier

    def _check_whole(self) -> None:
        if self._last is None:
            raise UpstreamProtocol("the upstream's stream ended without a last event")

    def _complete(self, events: Events, completed: chat_pb2.Completed) -> None:
        last = self._last or AnswerWire()
        reason, words = finish_reason(last, calls=self._output.calls)
        self._output.finish(reason, words, events)
        if last.usage is not None:
            decode_usage(last.usage, completed.usage)
        if last.service_tier is not None:
            completed.service_tier = last.service_tier
        keep(completed, told(last.extra))

    def _event(self, data: bytes, events: Events) -> None:
        event = _parse(data)
        if (write := _OUTPUT.get(event.type)) is not None:
            write(self._output, event, events)
        elif event.type in _HEADS:
            if self._head is None:
                self._head = read(bytes(event.response))
        elif event.type in _ENDS:
            last = read(bytes(event.response))
            check_over(last)
            for index, raw in enumerate(last.output or ()):
                self._output.finish_item(index, raw, events)
            self._last, self.done = last, True
        elif event.type in _FAILURES:
            last = read(bytes(event.response))
            check_over(last)
            raise failure(bytes(last.error))
        elif event.type == "error":
            raise error_in_body(data) or UpstreamProtocol(
                "the upstream sent an error of unknown form"
            )
        elif not event.type and (found := error_in_body(data)):
            raise found  # an envelope as in answers that are no stream


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
_HEADS = frozenset(("response.created", "response.queued", "response.in_progress"))
_ENDS = frozenset(("response.completed", "response.incomplete"))
_FAILURES = frozenset(("response.failed", "response.cancelled"))
_KNOWN = frozenset((*_OUTPUT, *_HEADS, *_ENDS, *_FAILURES))
