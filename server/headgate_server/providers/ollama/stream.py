"""The lines of a streamed answer to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

Source: https://docs.ollama.com/api/streaming.
"""

from __future__ import annotations

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson, json_text
from headgate_server.providers.ollama.answer import (
    CallIds,
    call_arguments,
    call_start,
    decode_token,
    decode_usage,
    finish_reason,
    image_bytes,
    image_part,
    malformed,
    parse,
    set_time,
)
from headgate_server.providers.ollama.lines import LineParser
from headgate_server.providers.ollama.wire import AnswerWire, MessageWire
from headgate_server.providers.parts import ChoiceWriter, Events


class OllamaStreamDecoder:
    """Decodes one stream."""

    def __init__(self, max_line_bytes: int, request: chat_pb2.ChatRequest) -> None:
        self._parser = LineParser(max_line_bytes)
        self._writer = ChoiceWriter()
        self._ids = CallIds(request)
        self._head: AnswerWire | None = None
        self._last: AnswerWire | None = None
        self._started = False
        self._failure: GatewayError | None = None
        self._tokens: list[chat_pb2.TokenLogprob] = []  # of lines that said nothing else
        self._call = -1  # the last call's part, open in case that tokens are left over
        self._extra: dict[str, msgspec.Raw] = {}
        self._message_extra: dict[str, msgspec.Raw] = {}

    @property
    def done(self) -> bool:
        """Whether the last line has come."""
        return self._last is not None or self._failure is not None

    def feed(self, data: bytes) -> Events:
        """Takes the next bytes."""
        return self._take(self._parser.feed(data))

    def finish(self) -> Events:
        """The end of the body: Completed, or `UpstreamProtocol` if the last line is missing."""
        events = self._take(self._parser.finish())
        if self._failure is not None:
            raise self._failure
        last = self._last
        if last is None:
            raise UpstreamProtocol("the upstream's stream ended before it was done")
        if self._tokens and self._call >= 0:
            self._carry(self._writer.delta(self._call, "", events))
        elif self._tokens:
            self._carry(self._writer.text(self._writer.running or "text", "", events))
        reason, words = finish_reason(last, calls=self._writer.calls)
        finished = self._writer.finish(reason, words, events)
        if extra := json_text(self._message_extra):
            finished.message_extra_json = extra
        self._start(events)
        event = chat_pb2.ChatEvent()
        event.completed.SetInParent()
        decode_usage(last, event.completed)
        if extra := json_text(self._extra):
            event.completed.extra_json = extra
        events.append(event)
        return events

    def _take(self, lines: list[bytes]) -> Events:
        events: Events = []
        for line in lines:
            if self.done:
                break
            try:
                self._line(parse(line), events)
                if events:
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
        if self._started or self._head is None:
            return
        self._started = True
        event = chat_pb2.ChatEvent()
        event.started.model = self._head.model or ""
        set_time(event.started, self._head.created_at)
        events.insert(0, event)

    def _line(self, wire: AnswerWire, events: Events) -> None:
        if self._head is None:
            self._head = wire
        self._extra.update(wire.extra or {})
        if wire.logprobs:
            self._tokens.extend(map(decode_token, wire.logprobs))
        if wire.message is not None:
            self._message(wire.message, events)
        if wire.done:
            self._last = wire

    def _message(self, message: MessageWire, events: Events) -> None:
        self._message_extra.update(message.extra or {})
        if message.thinking or message.content or message.images:
            self._end_call(events)
        if message.thinking:
            self._carry(self._writer.text("reasoning", message.thinking, events))
        if message.content:
            self._carry(self._writer.text("text", message.content, events))
        for image in message.images or ():
            part = self._writer.begin(image_part(image), events)
            self._carry(self._writer.delta(part, "", events, data=image_bytes(image)))
            self._writer.end(part, events)
        for call in message.tool_calls or ():
            self._end_call(events)
            self._call = self._writer.begin(call_start(call, self._ids), events)
            self._carry(self._writer.delta(self._call, call_arguments(call), events))

    def _end_call(self, events: Events) -> None:
        if self._call >= 0:
            self._writer.end(self._call, events)
            self._call = -1

    def _carry(self, delta: chat_pb2.PartDelta) -> None:
        """Gives the log probabilities that wait to a delta; of which part makes no difference."""
        if self._tokens:
            delta.logprobs.extend(self._tokens)
            self._tokens.clear()
