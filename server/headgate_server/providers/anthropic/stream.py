"""The events of a streamed message to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

A block that only this vendor has is held back until it is whole, because a vendor part cannot grow.
Events and deltas of kinds that we do not know change nothing, or grow the block that they belong to.
Source: https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, json_text, raw_array, raw_object, raw_text
from headgate_server.providers.anthropic.answer import (
    FINISH_REASONS,
    KNOWN_BLOCKS,
    begin_part,
    decode_usage,
    message_members,
    rest_of_text,
    sign,
    vendor_part,
)
from headgate_server.providers.anthropic.errors import error_in_body
from headgate_server.providers.anthropic.wire import (
    BLOCK,
    EVENT,
    BlockWire,
    DeltaWire,
    EventWire,
    MessageWire,
    UsageWire,
)
from headgate_server.providers.counts import count
from headgate_server.providers.decoder import SseDecoder
from headgate_server.providers.parts import ChoiceWriter, Events
from headgate_server.providers.shapes import (
    ABSENT,
    Members,
    as_raw,
    is_there,
    keep,
    kind_of,
    there,
)

_KNOWN_EVENTS = frozenset(
    (
        "message_start", "content_block_start", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop", "error",
    )
)  # fmt: skip


class AnthropicStreamDecoder(SseDecoder):
    """Decodes one stream."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self._writer = ChoiceWriter()
        self._blocks: dict[int, _Block] = {}
        self._head = MessageWire()
        self._tier: str | None = None  # as told at the start
        self._usage: UsageWire | None = None
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self._stop_details = ABSENT
        self._members: Members = {}
        self._offset = 0  # characters of text so far

    def _begin(self, started: chat_pb2.Started) -> None:
        head = self._head
        started.id, started.model = head.id or "", head.model or ""
        self._tier = head.usage.service_tier if head.usage is not None else None
        if self._tier is not None:
            started.service_tier = self._tier

    def _check_whole(self) -> None:
        if not self.done:
            raise UpstreamProtocol(
                "the upstream's stream ended without a finish reason: message_stop never came"
            )

    def _complete(self, events: Events, completed: chat_pb2.Completed) -> None:
        for index in list(self._blocks):
            self._end_block(index, events)
        words = self._stop_reason or ""
        reason = FINISH_REASONS.get(words, chat_pb2.FINISH_REASON_OTHER)
        finished = self._writer.finish(reason, words, events)
        if self._stop_sequence is not None:
            finished.stop_sequence = self._stop_sequence
        keep(finished, there({"stop_details": self._stop_details}))
        if self._usage is not None:
            decode_usage(self._usage, completed.usage)
            tier = self._usage.service_tier
            if tier is not None and tier != self._tier:
                completed.service_tier = tier
        keep(completed, self._members)

    def _event(self, data: bytes, events: Events) -> None:
        try:
            wire = EVENT.decode(data)
        except MalformedJson as error:
            if error.is_json and kind_of(data) not in _KNOWN_EVENTS:
                return
            raise
        kind = wire.type
        if kind == "content_block_delta":
            self._block_delta(wire, events)
        elif kind == "content_block_start":
            self._begin_block(count(wire.index), wire.content_block, events)
        elif kind == "content_block_stop":
            self._end_block(count(wire.index), events)
        elif kind == "message_start":
            if wire.message is not None:
                self._head, self._usage = wire.message, wire.message.usage
                self._members = message_members(wire.message)
        elif kind == "message_delta":
            self._message_delta(wire)
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or is_there(wire.error):
            raise error_in_body(data) or UpstreamProtocol("the upstream sent an unknown error")

    # Blocks.

    def _begin_block(self, index: int, raw: msgspec.Raw, events: Events) -> None:
        if index in self._blocks:
            raise UpstreamProtocol(f"the upstream's content block {index} began twice")
        self._flush(events)
        kind = kind_of(raw)
        block = self._blocks[index] = _Block(kind, raw)
        if kind not in KNOWN_BLOCKS:
            return
        block.wire = BLOCK.decode(bytes(raw))
        initial = content_pb2.Part()
        begin_part(block.wire, initial)
        block.part = self._writer.begin(initial, events)
        text = block.wire.text if kind == "text" else block.wire.thinking
        if text:
            self._write(block, text, events)
        if block.wire.citations:
            block.citations.extend(block.wire.citations)
        block.signature = block.wire.signature or ""

    def _flush(self, events: Events) -> None:
        """Begins what was held back: parts are numbered in the order of their blocks."""
        for block in self._blocks.values():
            if block.part < 0:
                initial = content_pb2.Part()
                vendor_part(block.raw, initial)
                block.part = self._writer.begin(initial, events)

    def _block_delta(self, wire: EventWire, events: Events) -> None:
        block, delta = self._blocks.get(count(wire.index)), wire.delta
        if block is None:
            raise UpstreamProtocol(f"the upstream's content block {wire.index} never began")
        if delta is None:
            return
        kind = delta.type
        if kind == "text_delta" and block.kind == "text":
            self._write(block, delta.text, events)
        elif kind == "thinking_delta" and block.kind == "thinking":
            self._write(block, delta.thinking, events)
        elif kind == "input_json_delta" and block.kind == "tool_use":
            self._write(block, delta.partial_json, events)
        elif kind == "signature_delta" and block.kind == "thinking":
            block.signature = delta.signature or block.signature
        elif kind == "citations_delta" and block.kind == "text":
            if is_there(delta.citation):
                block.citations.append(delta.citation)
        else:
            block.absorb(delta)

    def _write(self, block: _Block, text: str | None, events: Events) -> None:
        if text:
            block.length += len(text)
            self._writer.delta(block.part, text, events)

    def _end_block(self, index: int, events: Events) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        wire = block.wire
        if wire is None:
            self._end_vendor_block(block, events)
            return
        rest = content_pb2.Part()
        extra = {**(wire.extra or {}), **block.grown()}
        if block.late:
            rest.extra_json = json_text(extra) or ""
        if block.kind == "text":
            start, self._offset = self._offset, self._offset + block.length
            rest_of_text(block.citations, start, self._offset, extra, rest)
            if rest.annotations:
                delta = self._writer.delta(block.part, "", events)
                delta.annotations.extend(rest.annotations)
                del rest.annotations[:]
        elif block.kind == "thinking":
            sign(rest.reasoning, block.signature)
        elif block.kind == "tool_use" and not block.length:
            self._write(block, raw_text(wire.input), events)  # no input, or the whole at once
        self._writer.end(block.part, events, rest)

    def _end_vendor_block(self, block: _Block, events: Events) -> None:
        whole = content_pb2.Part()
        vendor_part(block.whole(), whole)
        if block.part < 0:
            block.part = self._writer.begin(whole, events)
            self._writer.end(block.part, events)
        else:
            self._writer.end(block.part, events, whole)

    # The message.

    def _message_delta(self, wire: EventWire) -> None:
        delta = wire.delta or DeltaWire()
        self._stop_reason = delta.stop_reason or self._stop_reason
        if delta.stop_sequence is not None:
            self._stop_sequence = delta.stop_sequence
        if is_there(delta.stop_details):
            self._stop_details = delta.stop_details
        named = {"container": delta.container, "context_management": wire.context_management}
        for members in (there(named), delta.extra, wire.extra):
            self._members.update(members or {})
        if wire.usage is not None:
            self._usage = _later(self._usage, wire.usage)


class _Block:
    """A content block under way."""

    __slots__ = ("_grown", "citations", "kind", "length", "part", "raw", "signature", "wire")

    def __init__(self, kind: str, raw: msgspec.Raw) -> None:
        self.kind = kind
        self.raw = raw
        self.wire: BlockWire | None = None  # of known kinds
        self.part = -1  # while it is held back
        self.length = 0  # characters written
        self.signature = ""
        self.citations: list[msgspec.Raw] = []
        self._grown: dict[str, str | list[msgspec.Raw] | msgspec.Raw] = {}

    @property
    def late(self) -> bool:
        """Whether there are members that its start did not have."""
        return bool(self._grown)

    def absorb(self, delta: DeltaWire) -> None:
        """Takes the members of a delta of a kind that we do not know: texts and arrays grow."""
        for name in ("text", "thinking", "signature", "partial_json"):
            piece = getattr(delta, name)
            if piece is not None:
                self._grow(name, piece)
        if is_there(delta.citation):
            self._grow("citations", [delta.citation])
        for name, raw in (delta.extra or {}).items():
            first = bytes(raw)[:1]
            if first == b'"':
                self._grow(name, _string(raw))
            elif first == b"[":
                self._grow(name, raw_array(raw))
            else:
                self._grown[name] = raw

    def _grow(self, name: str, piece: str | list[msgspec.Raw]) -> None:
        present = self._grown.get(name)
        if isinstance(present, str) and isinstance(piece, str):
            self._grown[name] = present + piece
        elif isinstance(present, list) and isinstance(piece, list):
            present.extend(piece)
        else:
            self._grown[name] = piece

    def grown(self) -> Members:
        """What the deltas brought."""
        return {name: as_raw(value) for name, value in self._grown.items()}

    def whole(self) -> bytes | msgspec.Raw:
        """The block as JSON, with what the deltas brought; as it came if they brought nothing."""
        if not self._grown:
            return self.raw
        members = raw_object(bytes(self.raw))
        for name, value in self._grown.items():
            first = bytes(members.get(name, ABSENT))[:1]
            if name == "partial_json" and isinstance(value, str):
                if value:
                    members["input"] = _json_or_text(value)
            elif isinstance(value, str) and first == b'"':
                members[name] = as_raw(_string(members[name]) + value)
            elif isinstance(value, list) and first == b"[":
                members[name] = as_raw([*raw_array(members[name]), *value])
            else:
                members[name] = as_raw(value)
        return msgspec.json.encode(members)


def _string(raw: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except UnicodeDecodeError as error:
        raise MalformedJson("the JSON is not valid UTF-8") from error


def _json_or_text(text: str) -> msgspec.Raw:
    """A tool's input; one that was cut off is no JSON, and stays a text."""
    try:
        raw_object(text)
    except MalformedJson:
        return as_raw(text)
    return msgspec.Raw(text)


def _later(earlier: UsageWire | None, later: UsageWire) -> UsageWire:
    """Usage as far as it is known now: the counts are cumulative, and left out where nothing changed."""
    if earlier is None:
        return later
    merged = msgspec.structs.replace(earlier)
    for name in UsageWire.__struct_fields__:
        value = getattr(later, name)
        if isinstance(value, msgspec.Raw):
            if is_there(value):
                setattr(merged, name, value)
        elif value is not None:
            setattr(merged, name, value)
    if earlier.extra and later.extra:
        merged.extra = {**earlier.extra, **later.extra}
    return merged
