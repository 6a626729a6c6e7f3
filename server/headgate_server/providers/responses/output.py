"""The output items of a streamed response on their way to parts. Sans-I/O.

Deltas go out as they come. An item that is done is the whole truth: whatever of it the deltas did not
bring goes out then. Log probabilities always wait for it, because only there they have the tokens' bytes.
"""

from __future__ import annotations

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra
from headgate_server.providers.logprobs import decode_token
from headgate_server.providers.media import bytes_of
from headgate_server.providers.parts import ChoiceWriter, Events
from headgate_server.providers.responses.answer import (
    CALLS,
    call_arguments,
    call_start,
    decode_annotation,
    image_start,
    message_extra,
    other_content,
    reasoning_rest,
    reasoning_start,
    set_extra,
    thoughts,
    vendor_part,
)
from headgate_server.providers.responses.wire import (
    CALL,
    IMAGE,
    MESSAGE,
    REASONING,
    REFUSAL,
    TEXT,
    TOKENS,
    EventWire,
    TextWire,
)
from headgate_server.providers.shapes import Members, kind_of

_NONE = (b"", b"null", b"[]")


class OutputWriter:
    """Writes the events of the one choice."""

    def __init__(self) -> None:
        self._writer = ChoiceWriter()
        self._items: dict[int, _Item] = {}  # by output_index
        self._written = 0  # characters of text so far

    @property
    def calls(self) -> bool:
        """Whether a tool call was begun."""
        return self._writer.calls

    def finish(self, reason: chat_pb2.FinishReason.ValueType, words: str, events: Events) -> None:
        """Ends every open part and the choice."""
        self._writer.finish(reason, words, events)

    # Items.

    def begin_item(self, event: EventWire, events: Events) -> None:
        """A new item: begins its part, but for a message, whose parts begin with their deltas."""
        kind, raw = kind_of(event.item), event.item
        item = self._items[event.output_index] = _Item(kind)
        if kind == "message":
            item.extra = message_extra(MESSAGE.decode(bytes(raw)))
        elif kind == "reasoning":
            item.part = self._writer.begin(reasoning_start(REASONING.decode(bytes(raw))), events)
        elif kind in CALLS:
            item.part = self._writer.begin(call_start(CALL.decode(bytes(raw))), events)
        elif kind != "image_generation_call":  # which may yet become a vendor part
            item.part = self._writer.begin(vendor_part(raw), events)

    def finish_item(self, index: int, raw: msgspec.Raw, events: Events) -> None:
        """Adds what the item has beyond its deltas, and ends its parts. Once for each item."""
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _Item(kind_of(raw))
        if item.done or item.kind != kind_of(raw):
            return
        item.done = True
        if item.kind == "message":
            self._finish_message(item, raw, events)
        elif item.kind == "reasoning":
            self._finish_reasoning(item, raw, events)
        elif item.kind in CALLS:
            self._finish_call(item, raw, events)
        else:
            self._finish_other(item, raw, events)

    def _finish_message(self, item: _Item, raw: msgspec.Raw, events: Events) -> None:
        wire = MESSAGE.decode(bytes(raw))
        head = message_extra(wire)
        for place, content in enumerate(wire.content or ()):
            kind = kind_of(content)
            if kind == "output_text":
                text = TEXT.decode(bytes(content))
                if text.text or text.annotations or text.logprobs or place in item.contents:
                    found = self._content(item, place, "text", events, head)
                    self._finish_text(found, text, events)
                    self._end(found, head, text.extra, events)
            elif kind == "refusal":
                refusal = REFUSAL.decode(bytes(content))
                found = self._content(item, place, "refusal", events, head)
                if not found.seen:
                    self._writer.delta(found.part, refusal.refusal, events)
                self._end(found, head, refusal.extra, events)
            else:
                self._writer.end(self._writer.begin(other_content(content, head), events), events)

    def _finish_text(self, found: _Content, text: TextWire, events: Events) -> None:
        rest = "" if found.seen else text.text
        annotations = (text.annotations or [])[found.annotations :]
        tokens = text.logprobs or [
            token for raw in found.tokens for token in TOKENS.decode(bytes(raw))
        ]
        if rest or annotations or tokens:
            delta = self._writer.delta(found.part, rest, events)
            delta.annotations.extend(decode_annotation(a, found.before) for a in annotations)
            delta.logprobs.extend(map(decode_token, tokens))
            self._written += len(rest)

    def _end(self, found: _Content, head: Members, own: Extra, events: Events) -> None:
        rest = content_pb2.Part()
        set_extra(rest, head, own)
        changed = rest.extra_json != found.extra_json
        self._writer.end(found.part, events, rest if changed else None)

    def _finish_reasoning(self, item: _Item, raw: msgspec.Raw, events: Events) -> None:
        wire = REASONING.decode(bytes(raw))
        if item.part < 0:
            item.part = self._writer.begin(reasoning_start(wire), events)
        for piece, text in thoughts(wire):
            if text and piece not in item.pieces:
                self._think(item, piece, text, events)
        self._writer.end(item.part, events, reasoning_rest(wire))

    def _finish_call(self, item: _Item, raw: msgspec.Raw, events: Events) -> None:
        wire = CALL.decode(bytes(raw))
        if item.part < 0:
            item.part = self._writer.begin(call_start(wire), events)
        arguments = call_arguments(wire)
        if arguments and not item.seen:
            self._writer.delta(item.part, arguments, events)
        rest = content_pb2.Part()
        set_extra(rest, {}, wire.extra)
        self._writer.end(item.part, events, rest)

    def _finish_other(self, item: _Item, raw: msgspec.Raw, events: Events) -> None:
        if item.kind == "image_generation_call":
            wire = IMAGE.decode(bytes(raw))
            if wire.result:
                part = self._writer.begin(image_start(wire), events)
                self._writer.delta(part, "", events, data=bytes_of(wire.result, "image"))
                self._writer.end(part, events)
                return
        whole = vendor_part(raw)
        if item.part < 0:
            item.part = self._writer.begin(whole, events)
            self._writer.end(item.part, events)
        else:
            self._writer.end(item.part, events, whole)

    # Deltas.

    def text(self, event: EventWire, events: Events) -> None:
        """A piece of a message's text."""
        found = self._content_of(event, "text", events)
        if event.delta and isinstance(event.delta, str):
            found.seen = True
            self._written += len(event.delta)
            self._writer.delta(found.part, event.delta, events)
        if bytes(event.logprobs) not in _NONE:
            found.tokens.append(event.logprobs)

    def refusal(self, event: EventWire, events: Events) -> None:
        """A piece of a refusal."""
        found = self._content_of(event, "refusal", events)
        if event.delta and isinstance(event.delta, str):
            found.seen = True
            self._writer.delta(found.part, event.delta, events)

    def annotation(self, event: EventWire, events: Events) -> None:
        """A citation of a message's text."""
        found = self._content_of(event, "text", events)
        found.annotations += 1
        delta = self._writer.delta(found.part, "", events)
        delta.annotations.append(decode_annotation(event.annotation, found.before))

    def arguments(self, event: EventWire, events: Events) -> None:
        """A piece of a call's arguments, or of a custom tool's input."""
        item = self._open_item(event, CALLS)
        if event.delta and isinstance(event.delta, str):
            item.seen = True
            self._writer.delta(item.part, event.delta, events)

    def thought(self, event: EventWire, events: Events) -> None:
        """A piece of the thinking, or of its summary."""
        item = self._open_item(event, ("reasoning",))
        summary = event.type == "response.reasoning_summary_text.delta"
        piece = ("summary", event.summary_index) if summary else ("text", event.content_index)
        if event.delta and isinstance(event.delta, str):
            self._think(item, piece, event.delta, events)

    def _think(self, item: _Item, piece: tuple[str, int], text: str, events: Events) -> None:
        """Appends to the thinking; a blank line parts its pieces."""
        if piece not in item.pieces:
            text = f"\n\n{text}" if item.pieces else text
            item.pieces.add(piece)
        self._writer.delta(item.part, text, events)

    def _open_item(self, event: EventWire, kinds: frozenset[str] | tuple[str, ...]) -> _Item:
        item = self._items.get(event.output_index)
        if item is None or item.done or item.kind not in kinds:
            raise UpstreamProtocol(
                f"the upstream sent a {event.type!r:.80} that belongs to no open item"
            )
        return item

    def _content_of(self, event: EventWire, kind: str, events: Events) -> _Content:
        item = self._items.get(event.output_index)
        if item is None:
            item = self._items[event.output_index] = _Item("message")
        elif item.done or item.kind != "message":
            self._open_item(event, ("message",))
        return self._content(item, event.content_index, kind, events, item.extra)

    def _content(
        self, item: _Item, place: int, kind: str, events: Events, head: Members
    ) -> _Content:
        """A content part, begun if this is the first that is heard of it."""
        found = item.contents.get(place)
        if found is None:
            initial = content_pb2.Part()
            setattr(initial, kind, "")
            set_extra(initial, head, None)
            part = self._writer.begin(initial, events)
            found = item.contents[place] = _Content(part, self._written, initial.extra_json)
        return found


class _Item:
    """An output item under way."""

    __slots__ = ("contents", "done", "extra", "kind", "part", "pieces", "seen")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.part = -1  # of items that are one part
        self.seen = False  # whether deltas of its arguments came
        self.done = False
        self.extra: Members = {}
        self.contents: dict[int, _Content] = {}  # of a message
        self.pieces: set[tuple[str, int]] = set()  # of reasoning: those that were sent


class _Content:
    """A content part of a message under way."""

    __slots__ = ("annotations", "before", "extra_json", "part", "seen", "tokens")

    def __init__(self, part: int, before: int, extra_json: str) -> None:
        self.part = part
        self.before = before  # characters of the texts before this one
        self.extra_json = extra_json
        self.seen = False  # whether deltas came
        self.annotations = 0
        self.tokens: list[msgspec.Raw] = []  # of the deltas, for servers that tell them only there
