"""Chat completion chunks to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

Vendors' oddities that survive here: usage in a chunk with choices or in one of its own, empty choices,
null deltas, roles repeated in each chunk, a first chunk without id and model, comments, CRLF, `[DONE]`
missing, a finish reason in more chunks than the last. So a choice is finished only when the stream is.
Those of tool calls are in `calls`. Chunks of the legacy text completions come in their chat form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, json_text, raw_object
from headgate_server.providers.openai.answer import (
    answer_id,
    audio_bytes,
    audio_rest,
    choice_index,
    decode_annotation,
    decode_image,
    finish_reason,
    malformed,
    parse,
    set_time,
    texts,
)
from headgate_server.providers.openai.calls import CallTracker, Members, absorb
from headgate_server.providers.openai.counts import decode_logprobs, decode_usage
from headgate_server.providers.openai.errors import broken_off
from headgate_server.providers.openai.proofs import joined_details, take_signature
from headgate_server.providers.openai.wire import (
    AnswerWire,
    AudioWire,
    ChoiceWire,
    MessageWire,
    ToolCallWire,
)
from headgate_server.providers.parts import ChoiceWriter, Events
from headgate_server.providers.think_tags import ThinkSplitter, ThinkTags
from headgate_server.providers.vendors import Vendor
from headgate_server.sse import SseEvent, SseParser

_DONE = b"[DONE]"
_NULL = b"null"  # how llama.cpp's server begins a stream for several prompts


class OpenAIStreamDecoder:
    """Decodes one stream.

    Args:
        max_event_bytes: the largest event.
        vendor: facts of the target's kind.
        tags: what the model may put around its thinking, in the text.
        parse_chunk: reads one chunk.
        several_prompts: whether each choice answers a prompt of its own.
    """

    def __init__(
        self,
        max_event_bytes: int,
        vendor: Vendor,
        tags: ThinkTags | None = None,
        parse_chunk: Callable[[bytes], AnswerWire] = parse,
        *,
        several_prompts: bool = False,
    ) -> None:
        self._parser = SseParser(max_event_bytes)
        self._parse = parse_chunk
        self._tags = tags
        self._choices: dict[int, _Choice] = {}
        self._head: AnswerWire | None = None
        self._started = False
        self._done = False
        self._failure: GatewayError | None = None
        self._usage: chat_pb2.Usage | None = None
        self._usage_per_choice = vendor.usage_per_choice
        self._several_prompts = several_prompts
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
            if self._done or not sse.data or sse.data == _NULL:
                continue
            if sse.data == _DONE or sse.data.strip() == _DONE:
                self._done = True
                continue
            try:
                self._chunk(self._parse(sse.data), events)
            except (GatewayError, MalformedJson) as error:
                failure = malformed(error) if isinstance(error, MalformedJson) else error
                if not self._started or not events:
                    raise failure from error
                # What came in the same read goes out first, as it would have in a read of its own.
                self._failure = failure
                self._done = True
        return events

    def _chunk(self, chunk: AnswerWire, events: Events) -> None:
        if self._head is None or not (self._started or self._head.id):
            # Azure's first chunk tells of its filters only, and has neither id nor model.
            self._head = chunk
        elif chunk.system_fingerprint != self._head.system_fingerprint:
            self._fingerprint = chunk.system_fingerprint or self._fingerprint
        if chunk.service_tier is not None and chunk.service_tier != self._head.service_tier:
            self._tier = chunk.service_tier
        if chunk.usage is not None:
            usage = decode_usage(chunk.usage, chat_pb2.Usage())
            if self._usage_per_choice and self._usage is not None:
                usage.output_tokens += self._usage.output_tokens
                if self._several_prompts:
                    usage.input_tokens += self._usage.input_tokens
                usage.total_tokens = usage.input_tokens + usage.output_tokens
            self._usage = usage
        if chunk.extra:
            self._extra.update(chunk.extra)
        for wire in chunk.choices or ():
            index = choice_index(wire, 0)
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice(index, self._tags)
            if wire.usage is not None and self._usage is None:
                self._usage = decode_usage(wire.usage, chat_pb2.Usage())
            before = len(events)
            choice.take(wire, events)
            if not self._started and len(events) > before:
                self._start(events)
            if wire.finish_reason and (failure := broken_off(wire.finish_reason, wire.extra)):
                raise failure

    def _start(self, events: Events) -> None:
        """Puts Started in front of the first real event, so that an early error can stay an error."""
        head = self._head
        if self._started or head is None:
            return
        started = chat_pb2.Started(id=answer_id(head), model=head.model or "")
        set_time(started.create_time, head.created)
        self._started = True
        if head.system_fingerprint is not None:
            started.system_fingerprint = head.system_fingerprint
        if head.service_tier is not None:
            started.service_tier = head.service_tier
        events.insert(0, chat_pb2.ChatEvent(started=started))


class _Choice:
    """The state of one choice: which parts are open, and what is known of them."""

    def __init__(self, index: int, tags: ThinkTags | None) -> None:
        self.reason = ""
        self._writer = ChoiceWriter(index)
        self._calls = CallTracker(self._writer)
        self._splitter = None if tags is None else ThinkSplitter(tags)
        self._text_part = -1  # the text-like part that was written last
        self._signature = ""  # of the text, not told yet
        self._tokens: list[chat_pb2.TokenLogprob] = []  # of text that the splitter holds back
        self._audio_part = -1
        self._audio_rest = content_pb2.Part()
        self._message_extra: Members = {}
        self._choice_extra: dict[str, msgspec.Raw] = {}
        self._text_logprobs: Members = {}

    def take(self, wire: ChoiceWire, events: Events) -> None:
        """Adds the events of one chunk's choice."""
        delta = wire.delta or wire.message
        if delta is not None:
            self._delta(delta, wire, events)
        if wire.extra:
            # Those of text completions; a chat's are no unknown member.
            logprobs = wire.extra.pop("logprobs", None)
            if logprobs is not None:
                absorb(self._text_logprobs, raw_object(bytes(logprobs)))
            self._choice_extra.update(wire.extra)
        # Of several reasons "stop" says least: some vendors have it in each chunk, or behind another.
        if wire.finish_reason and (not self.reason or wire.finish_reason != "stop"):
            self.reason = wire.finish_reason

    def _delta(self, delta: MessageWire, wire: ChoiceWire, events: Events) -> None:
        first = len(events)
        thinking, text = texts(delta)
        if delta.extra:
            self._signature = take_signature(delta.extra) or self._signature
            absorb(self._message_extra, delta.extra)
        if thinking:
            self._splitter = None  # the vendor takes it out itself
            self._text("reasoning", thinking, events)
        if text:
            if self._splitter is None:
                self._text("text", text, events)
            else:
                for kind, piece in self._splitter.feed(text):
                    self._text(kind, piece, events)
        if delta.refusal:
            self._text("refusal", delta.refusal, events)
        if delta.annotations:
            added = self._text("text", "", events)
            added.annotations.extend(decode_annotation(raw) for raw in delta.annotations)
        for raw in delta.images or ():
            self._image(decode_image(raw), events)
        if delta.audio is not None:
            self._audio(delta.audio, events)
        if self._signature and (delta.tool_calls or delta.function_call is not None):
            self._close_text(events)
        for call in delta.tool_calls or ():
            self._calls.take(call, events)
        if delta.function_call is not None:
            self._calls.take(ToolCallWire(index=0, function=delta.function_call), events)
        logprobs = decode_logprobs(wire.logprobs)
        if logprobs is not None:
            if logprobs.content:
                self._put_tokens(logprobs.content, events, first)
            if logprobs.refusal:
                self._carrier("refusal", events, first).logprobs.extend(logprobs.refusal)

    def _put_tokens(
        self, tokens: Sequence[chat_pb2.TokenLogprob], events: Events, first: int
    ) -> None:
        if self._splitter is not None and len(events) == first:
            self._tokens.extend(tokens)
            return
        carrier = self._carrier("text", events, first)
        carrier.logprobs.extend(self._tokens)
        carrier.logprobs.extend(tokens)
        self._tokens = []

    def _carrier(self, kind: str, events: Events, first: int) -> chat_pb2.PartDelta:
        """The delta that tokens belong to: vendors tell those of thinking and of calls, too."""
        for event in reversed(events[first:]):
            if event.HasField("part_delta"):
                refusal = (
                    self._writer.running == "refusal" and event.part_delta.part == self._text_part
                )
                if refusal is (kind == "refusal"):
                    return event.part_delta
        return self._text(kind, "", events)

    def _text(self, kind: str, text: str, events: Events) -> chat_pb2.PartDelta:
        if self._signature and self._writer.running != kind:
            self._close_text(events)
        delta = self._writer.text(kind, text, events)
        self._text_part = delta.part
        return delta

    def _close_text(self, events: Events) -> None:
        """Ends the running part; a text takes its signature along."""
        if self._signature and self._writer.running == "text":
            rest = content_pb2.Part(thought_signature=self._signature)
            self._signature = ""
            self._writer.close_text(events, rest)
        else:
            self._writer.close_text(events)

    def _image(self, image: content_pb2.Part, events: Events) -> None:
        self._close_text(events)
        data = image.image.data
        if data:
            image.image.ClearField("data")
        part = self._writer.begin(image, events)
        if data:
            self._writer.delta(part, "", events, data=data)
        self._writer.end(part, events)

    def _audio(self, audio: AudioWire, events: Events) -> None:
        if self._audio_part < 0:
            self._close_text(events)
            self._audio_part = self._writer.begin(audio_rest(audio), events)
        else:
            self._audio_rest.MergeFrom(audio_rest(audio))
        data, words = audio_bytes(audio), audio.transcript or ""
        if data or words:
            self._writer.delta(self._audio_part, words, events, data=data)

    def finish(self, events: Events) -> None:
        """Adds the last events: the stream is over."""
        first = len(events)
        if self._splitter is not None:
            for kind, piece in self._splitter.finish():
                self._text(kind, piece, events)
        if self._tokens:
            self._carrier("text", events, first).logprobs.extend(self._tokens)
        if self._signature and self._writer.running != "text":
            self._writer.text("text", "", events)  # as Gemini has it: a signed text without words
        self._close_text(events)
        if self._audio_part >= 0:
            self._writer.end(self._audio_part, events, self._audio_rest)
        self._calls.finish(events)
        ours, theirs = finish_reason(self.reason, calls=self._writer.calls)
        finished = self._writer.finish(ours, theirs, events)
        if logprobs := json_text(self._text_logprobs):
            self._choice_extra["logprobs"] = msgspec.Raw(logprobs.encode())
        if extra := json_text(self._choice_extra):
            finished.extra_json = extra
        details = self._message_extra.get("reasoning_details")
        if isinstance(details, list):
            self._message_extra["reasoning_details"] = joined_details(details)
        if extra := json_text(self._message_extra):
            finished.message_extra_json = extra
