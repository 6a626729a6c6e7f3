"""The lines of a streamed answer to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

Source: https://docs.ollama.com/api/streaming.
"""

from __future__ import annotations

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate.wire import json_text
from headgate_server.providers.decoder import FrameDecoder
from headgate_server.providers.logprobs import decode_token
from headgate_server.providers.media import bytes_of
from headgate_server.providers.ollama.answer import (
    FINISH_REASONS,
    CallIds,
    call_arguments,
    call_start,
    decode_usage,
    image_part,
    read,
)
from headgate_server.providers.ollama.lines import LineParser
from headgate_server.providers.ollama.wire import AnswerWire, MessageWire
from headgate_server.providers.parts import ChoiceWriter, Events, reason_of
from headgate_server.providers.shapes import keep
from headgate_server.providers.times import set_rfc3339_time


class OllamaStreamDecoder(FrameDecoder[bytes]):
    """Decodes one stream."""

    def __init__(self, max_line_bytes: int, request: chat_pb2.ChatRequest) -> None:
        super().__init__(LineParser(max_line_bytes))
        self._writer = ChoiceWriter()
        self._ids = CallIds(request)
        self._head: AnswerWire | None = None
        self._last = AnswerWire()
        self._tokens: list[chat_pb2.TokenLogprob] = []  # of lines that said nothing else
        self._call = -1  # the last call's part, open in case that tokens are left over
        self._extra: dict[str, msgspec.Raw] = {}
        self._message_extra: dict[str, msgspec.Raw] = {}

    def _begin(self, started: chat_pb2.Started) -> None:
        if self._head is not None:
            started.model = self._head.model or ""
            set_rfc3339_time(started, self._head.created_at)

    def _check_whole(self) -> None:
        if not self._last.done:
            raise UpstreamProtocol("the upstream's stream ended before it was done")

    def _complete(self, events: Events, completed: chat_pb2.Completed) -> None:
        if self._tokens and self._call >= 0:
            self._carry(self._writer.delta(self._call, "", events))
        elif self._tokens:
            self._carry(self._writer.text(self._writer.running or "text", "", events))
        words = self._last.done_reason or ""
        reason = reason_of(FINISH_REASONS, words, calls=self._writer.calls)
        finished = self._writer.finish(reason, words, events)
        if extra := json_text(self._message_extra):
            finished.message_extra_json = extra
        decode_usage(self._last, completed)
        keep(completed, self._extra)

    def _frame(self, frame: bytes, events: Events) -> None:
        wire = read(frame)
        if self._head is None:
            self._head = wire
        if wire.extra:
            self._extra.update(wire.extra)
        if wire.logprobs:
            self._tokens.extend(map(decode_token, wire.logprobs))
        if wire.message is not None:
            self._message(wire.message, events)
        if wire.done:
            self._last, self.done = wire, True

    def _message(self, message: MessageWire, events: Events) -> None:
        if message.extra:
            self._message_extra.update(message.extra)
        if message.thinking or message.content or message.images:
            self._end_call(events)
        if message.thinking:
            self._carry(self._writer.text("reasoning", message.thinking, events))
        if message.content:
            self._carry(self._writer.text("text", message.content, events))
        for image in message.images or ():
            part = self._writer.begin(image_part(image), events)
            self._carry(self._writer.delta(part, "", events, data=bytes_of(image, "image")))
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
