"""Chat completion chunks to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

Vendors' oddities that survive here: usage in a chunk with choices or in one of its own, empty choices,
null deltas, roles repeated in each chunk, tool calls without an index or always with index 0, ids only
in the first delta or in every one, arguments in one piece, comments, CRLF, `[DONE]` missing, a finish
reason in more chunks than the last. So a choice is finished only when the stream is.
"""

from __future__ import annotations

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra, MalformedJson, json_text, raw_array
from headgate_server.providers.openai.answer import (
    answer_id,
    audio_bytes,
    audio_rest,
    call_arguments,
    call_start,
    choice_index,
    decode_annotation,
    decode_logprobs,
    decode_usage,
    finish_reason,
    malformed,
    parse,
    set_time,
    texts,
    whole,
)
from headgate_server.providers.openai.wire import (
    AnswerWire,
    AudioWire,
    ChoiceWire,
    MessageWire,
    ToolCallWire,
)
from headgate_server.providers.vendors import Vendor
from headgate_server.sse import SseEvent, SseParser

Events = list[chat_pb2.ChatEvent]
Pieces = dict[str, msgspec.Raw | list[msgspec.Raw]]
_DONE = b"[DONE]"
_MAX_PARTS = 1024  # of a choice; more is an upstream gone mad


class OpenAIStreamDecoder:
    """Decodes one stream."""

    def __init__(self, max_event_bytes: int, vendor: Vendor) -> None:
        self._parser = SseParser(max_event_bytes)
        self._choices: dict[int, _Choice] = {}
        self._head: AnswerWire | None = None
        self._started = False
        self._done = False
        self._failure: GatewayError | None = None
        self._usage: chat_pb2.Usage | None = None
        self._usage_per_choice = vendor.usage_per_choice
        self._fingerprint: str | None = None
        self._tier: str | None = None
        self._extra: dict[str, msgspec.Raw] = {}

    @property
    def done(self) -> bool:
        """Whether `[DONE]` has come."""
        return self._done

    def feed(self, data: bytes) -> Events:
        """Takes the next bytes."""
        return self._take(self._parser.feed(data))

    def finish(self) -> Events:
        """The end of the body: Completed, or `UpstreamProtocol` if a choice is not whole."""
        events = self._take(self._parser.finish())
        if self._failure is not None:
            raise self._failure
        if not self._choices or any(not choice.reason for choice in self._choices.values()):
            raise UpstreamProtocol("the upstream's stream ended without a finish reason")
        try:
            for choice in self._choices.values():
                choice.finish(events)
            extra = json_text(self._extra)
        except MalformedJson as error:
            raise malformed(error) from error
        self._start(events)
        completed = chat_pb2.Completed()
        if self._usage is not None:
            completed.usage.CopyFrom(self._usage)
        if self._fingerprint is not None:
            completed.system_fingerprint = self._fingerprint
        if self._tier is not None:
            completed.service_tier = self._tier
        if extra is not None:
            completed.extra_json = extra
        events.append(chat_pb2.ChatEvent(completed=completed))
        return events

    def _take(self, sse_events: list[SseEvent]) -> Events:
        events: Events = []
        for sse in sse_events:
            if self._done or not sse.data:
                continue
            if sse.data == _DONE or sse.data.strip() == _DONE:
                self._done = True
                continue
            try:
                self._chunk(parse(sse.data), events)
            except (GatewayError, MalformedJson) as error:
                failure = malformed(error) if isinstance(error, MalformedJson) else error
                if not events:
                    raise failure from error
                # What came in the same read goes out first, as it would have in a read of its own.
                self._failure = failure
                self._done = True
        return events

    def _chunk(self, chunk: AnswerWire, events: Events) -> None:
        if self._head is None:
            self._head = chunk
        elif chunk.system_fingerprint != self._head.system_fingerprint:
            self._fingerprint = chunk.system_fingerprint or self._fingerprint
        if chunk.service_tier is not None and chunk.service_tier != self._head.service_tier:
            self._tier = chunk.service_tier
        if chunk.usage is not None:
            usage = decode_usage(chunk.usage, chat_pb2.Usage())
            if self._usage_per_choice and self._usage is not None:
                usage.output_tokens += self._usage.output_tokens
                usage.total_tokens = usage.input_tokens + usage.output_tokens
            self._usage = usage
        if chunk.extra:
            self._extra.update(chunk.extra)
        for wire in chunk.choices or ():
            index = choice_index(wire, 0)
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice(index)
            if wire.usage is not None and self._usage is None:
                self._usage = decode_usage(wire.usage, chat_pb2.Usage())
            before = len(events)
            choice.take(wire, events)
            if not self._started and len(events) > before:
                self._start(events)

    def _start(self, events: Events) -> None:
        """Puts Started in front of the first real event, so that an early error can stay an error."""
        head = self._head
        if self._started or head is None:
            return
        self._started = True
        started = chat_pb2.Started(id=answer_id(head), model=head.model or "")
        set_time(started.create_time, head.created)
        if head.system_fingerprint is not None:
            started.system_fingerprint = head.system_fingerprint
        if head.service_tier is not None:
            started.service_tier = head.service_tier
        events.insert(0, chat_pb2.ChatEvent(started=started))


class _Choice:
    """The state of one choice: which parts are open, and what is known of them."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.reason = ""
        self._parts = 0
        self._open = ""  # the kind of the text-like part that is open: "", text, reasoning, refusal
        self._open_part = -1
        self._audio_part = -1
        self._audio_rest = content_pb2.Part()
        self._calls: dict[int, _Call] = {}  # by the upstream's index
        self._last_call: _Call | None = None
        self._call_parts: list[_Call] = []
        self._message_extra: Pieces = {}
        self._choice_extra: dict[str, msgspec.Raw] = {}

    def take(self, wire: ChoiceWire, events: Events) -> None:
        """Adds the events of one chunk's choice."""
        delta = wire.delta or wire.message
        if delta is not None:
            self._delta(delta, wire, events)
        if wire.extra:
            self._choice_extra.update(wire.extra)
        # Of several reasons "stop" says least: some vendors have it in each chunk, or behind another.
        if wire.finish_reason and (not self.reason or wire.finish_reason != "stop"):
            self.reason = wire.finish_reason

    def _delta(self, delta: MessageWire, wire: ChoiceWire, events: Events) -> None:
        first = len(events)
        thinking, text = texts(delta)
        if thinking:
            self._text("reasoning", thinking, events)
        if text:
            self._text("text", text, events)
        if delta.refusal:
            self._text("refusal", delta.refusal, events)
        if delta.annotations:
            added = self._text("text", "", events)
            added.annotations.extend(decode_annotation(raw) for raw in delta.annotations)
        if delta.audio is not None:
            self._audio(delta.audio, events)
        for call in delta.tool_calls or ():
            self._call(call, events)
        if delta.function_call is not None:
            self._call(ToolCallWire(index=0, function=delta.function_call), events)
        if delta.extra:
            _absorb(self._message_extra, delta.extra)
        logprobs = decode_logprobs(wire.logprobs)
        if logprobs is not None:
            if logprobs.content:
                self._carrier("text", events, first).logprobs.extend(logprobs.content)
            if logprobs.refusal:
                self._carrier("refusal", events, first).logprobs.extend(logprobs.refusal)

    def _carrier(self, kind: str, events: Events, first: int) -> chat_pb2.PartDelta:
        """The delta that tokens belong to: vendors tell those of thinking and of calls, too."""
        for event in reversed(events[first:]):
            if event.HasField("part_delta"):
                refusal = self._open == "refusal" and event.part_delta.part == self._open_part
                if refusal is (kind == "refusal"):
                    return event.part_delta
        return self._text(kind, "", events)

    def _text(self, kind: str, text: str, events: Events) -> chat_pb2.PartDelta:
        if self._open != kind:
            self._close_text(events)
            initial = content_pb2.Part()
            if kind == "text":
                initial.text = ""
            elif kind == "reasoning":
                initial.reasoning.SetInParent()
            else:
                initial.refusal = ""
            self._open, self._open_part = kind, self._begin(initial, events)
        return self._put_delta(self._open_part, text, events)

    def _put_delta(self, part: int, text: str, events: Events) -> chat_pb2.PartDelta:
        # Set member by member: building it from messages would copy each of them.
        event = chat_pb2.ChatEvent()
        delta = event.part_delta
        delta.choice = self.index
        delta.part = part
        delta.text = text
        events.append(event)
        return delta

    def _close_text(self, events: Events) -> None:
        if self._open:
            self._end(self._open_part, None, events)
            self._open = ""

    def _audio(self, audio: AudioWire, events: Events) -> None:
        if self._audio_part < 0:
            self._close_text(events)
            self._audio_part = self._begin(audio_rest(audio), events)
        else:
            self._audio_rest.MergeFrom(audio_rest(audio))
        data, words = audio_bytes(audio), audio.transcript or ""
        if data or words:
            delta = chat_pb2.PartDelta(
                choice=self.index, part=self._audio_part, text=words, data=data
            )
            events.append(chat_pb2.ChatEvent(part_delta=delta))

    def _call(self, wire: ToolCallWire, events: Events) -> None:
        call = self._find_call(wire)
        if call is None:
            self._close_text(events)
            start = call_start(wire)
            call = _Call(self._begin(start, events), wire.id, start.tool_call.name)
            self._calls[len(self._calls) if wire.index is None else whole(wire.index)] = call
            self._call_parts.append(call)
        elif wire.extra:
            call.has_late_extra = True
        if wire.extra:
            _absorb(call.extra, wire.extra)
        self._last_call = call
        arguments = call_arguments(wire)
        if arguments:
            call.has_arguments = True
            self._put_delta(call.part, arguments, events)

    def _find_call(self, wire: ToolCallWire) -> _Call | None:
        """The open call that a delta continues; None if it begins a new one."""
        call = self._last_call if wire.index is None else self._calls.get(whole(wire.index))
        if call is None:
            return None
        if wire.id and wire.id != call.id:
            # Another id under the same index, or without one: another call, perhaps an earlier one.
            return next((c for c in self._call_parts if c.id == wire.id), None)
        name = wire.function.name if wire.function is not None else None
        if not wire.id and name and call.has_arguments and (not call.id or name != call.name):
            return None  # a whole call in each delta, all under index 0 and without ids
        return call

    def _begin(self, initial: content_pb2.Part, events: Events) -> int:
        part = self._parts
        if part >= _MAX_PARTS:
            raise UpstreamProtocol(f"the upstream's answer has more than {_MAX_PARTS} parts")
        self._parts += 1
        started = chat_pb2.PartStarted(choice=self.index, part=part, initial=initial)
        events.append(chat_pb2.ChatEvent(part_started=started))
        return part

    def _end(self, part: int, rest: content_pb2.Part | None, events: Events) -> None:
        finished = chat_pb2.PartFinished(choice=self.index, part=part, rest=rest)
        events.append(chat_pb2.ChatEvent(part_finished=finished))

    def finish(self, events: Events) -> None:
        """Adds the last events: the stream is over."""
        self._close_text(events)
        if self._audio_part >= 0:
            rest = self._audio_rest if self._audio_rest.ByteSize() else None
            self._end(self._audio_part, rest, events)
        for call in self._call_parts:
            late = json_text(call.extra) if call.has_late_extra else None
            self._end(call.part, content_pb2.Part(extra_json=late) if late else None, events)
        ours, theirs = finish_reason(self.reason, calls=bool(self._call_parts))
        finished = chat_pb2.ChoiceFinished(
            choice=self.index, finish_reason=ours, provider_finish_reason=theirs
        )
        if extra := json_text(self._choice_extra):
            finished.extra_json = extra
        if extra := json_text(self._message_extra):
            finished.message_extra_json = extra
        events.append(chat_pb2.ChatEvent(choice_finished=finished))


class _Call:
    """A tool call under way."""

    __slots__ = ("extra", "has_arguments", "has_late_extra", "id", "name", "part")

    def __init__(self, part: int, call_id: str | int | None, name: str) -> None:
        self.part = part
        self.id = call_id
        self.name = name
        self.has_arguments = False
        self.has_late_extra = False
        self.extra: Pieces = {}


def _absorb(into: Pieces, extra: Extra) -> None:
    """Takes a delta's unknown members: later ones win, but arrays come in pieces and grow."""
    for key, value in (extra or {}).items():
        if bytes(value)[:1] == b"[":
            present = into.get(key)
            if isinstance(present, list):
                present.extend(raw_array(value))
            else:
                into[key] = raw_array(value)
        else:
            into[key] = value
