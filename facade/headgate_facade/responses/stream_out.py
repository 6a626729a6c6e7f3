"""ChatEvents to the events of a Responses stream. Sans-I/O.

Each event has a name and a number; each item is added, grows, and is done. They are done in their order,
each when the next one begins, because only then it is known to be whole and not cut: the last one waits
for the reason why the answer ended. The last event holds the whole response, as a unary answer would.

Source: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2, content_pb2
from headgate_facade.http import EVENT_STREAM, one_line
from headgate_facade.responses.errors import error_json, failure_json
from headgate_facade.responses.items_out import (
    Json,
    annotation_json,
    arguments_of,
    content_json,
    input_of,
    item_json,
    items_json,
    token_json,
)
from headgate_facade.responses.output import Content, Growing, Item, Output
from headgate_facade.responses.response_out import Head
from headgate_facade.responses.tools_in import Original

_encode = msgspec.json.Encoder().encode

# Those of which the first bytes are made once for each item, because there are many.
_DELTAS = {
    "text": "response.output_text.delta",
    "refusal": "response.refusal.delta",
    "reasoning": "response.reasoning_summary_text.delta",
    "function_call": "response.function_call_arguments.delta",
    "custom_tool_call": "response.custom_tool_call_input.delta",
}


class EventWriter:
    """Writes the server-sent events of one stream.

    Args:
        echo: members that responses repeat of the request.
        originals: what the caller calls its tools.
        clock: tells the time, in Unix seconds.
    """

    headers = EVENT_STREAM
    ping = b": ping\n\n"

    def __init__(
        self,
        echo: Json,
        originals: dict[str, Original],
        clock: Callable[[], float],
    ) -> None:
        self._head = Head(echo)
        self._originals = originals
        self._clock = clock
        self._output = Output("", "", originals)
        self._open: dict[int, _Open] = {}  # by part
        self._states: list[_State] = []  # by item
        self._done = 0  # items that are done
        self._number = 0
        self._out: list[bytes] = []

    def write(self, events: Iterable[chat_pb2.ChatEvent]) -> bytes:
        """The bytes of these events."""
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "part_delta":
                self._delta(event.part_delta)
            elif kind == "part_started":
                self._part_started(event.part_started)
            elif kind == "part_finished":
                self._part_finished(event.part_finished)
            elif kind == "choice_finished":
                self._choice_finished(event.choice_finished)
            elif kind == "started":
                self._started(event.started)
            elif kind == "completed":
                self._completed(event.completed)
        return self._taken()

    def error(self, error: GatewayError) -> bytes:
        """The last events of a stream that failed.

        Some clients raise what the first tells, others look for the second alone.
        """
        told = error_json(error)
        flat = {name: told[name] for name in ("code", "message", "param")}
        self._put("error", {**flat, "error": told})
        failed = self._head.body(items_json(self._output, "incomplete"), error=failure_json(error))
        self._put("response.failed", {"response": failed})
        return self._taken()

    def _taken(self) -> bytes:
        data = b"".join(self._out)
        self._out = []
        return data

    def _put(self, kind: str, members: Json) -> None:
        body = one_line(_encode({"type": kind, "sequence_number": self._number, **members}))
        self._number += 1
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), body))

    # The response.

    def _started(self, started: chat_pb2.Started) -> None:
        self._head.start(started)
        self._output = Output(self._head.id, started.served.dialect, self._originals)
        for kind in ("response.created", "response.in_progress"):
            self._put(kind, {"response": self._head.body([])})

    def _choice_finished(self, finished: chat_pb2.ChoiceFinished) -> None:
        if finished.choice:
            return
        self._output.close()
        words = finished.provider_finish_reason
        self._head.finish(finished.finish_reason, words, self._output)
        items = items_json(self._output, self._head.status)
        for item, told in zip(self._output.items[self._done :], items[self._done :], strict=True):
            if item.index == len(self._states):
                self._add(item)
            self._item_done(item, told)

    def _completed(self, completed: chat_pb2.Completed) -> None:
        self._head.tier(completed)
        whole = self._head.body(
            items_json(self._output, self._head.status),
            now=self._clock(),
            usage=completed.usage if completed.HasField("usage") else None,
            extra_json=completed.extra_json,
        )
        self._put(f"response.{self._head.status}", {"response": whole})

    # Parts.

    def _part_started(self, started: chat_pb2.PartStarted) -> None:
        if started.choice:
            return
        part = content_pb2.Part()
        part.CopyFrom(started.initial)
        growing = Growing(part, finished=False)
        place = self._output.add(growing)
        if place is None:
            return
        item, new = place
        if new:
            self._finish_items(before=item.index)
            self._add(item)
        begun = self._open[started.part] = _Open(growing, item, self._states[item.index])
        if item.kind == "message":
            begun.content = item.contents[-1]
            self._begin_content(begun)
        self._begun_with(begun)

    def _begun_with(self, begun: _Open) -> None:
        """Tells what a part held already when it began."""
        part = begun.growing.part
        if begun.item.kind == "message":
            self._grow(begun, getattr(part, begun.content.kind) if begun.content else "")
            self._annotations(begun)
        elif begun.item.kind == "reasoning":
            self._grow(begun, part.reasoning.text)
        elif part.HasField("tool_call"):
            self._grow(begun, part.tool_call.arguments_json)

    def _delta(self, delta: chat_pb2.PartDelta) -> None:
        if delta.choice:
            return
        if delta.logprobs:
            self._tokens(delta)
        begun = self._open.get(delta.part)
        if begun is None:
            return
        if delta.text:
            begun.growing.pieces.append(delta.text)
            if not delta.logprobs:
                self._grow(begun, delta.text)
        if delta.data:
            begun.growing.data.append(delta.data)
        if delta.annotations:
            begun.growing.part.annotations.extend(delta.annotations)
            self._annotations(begun)

    def _tokens(self, delta: chat_pb2.PartDelta) -> None:
        begun = self._open.get(delta.part)
        content = begun.content if begun is not None else None
        if content is not None and content.kind == "refusal":
            if begun is not None:
                self._grow(begun, delta.text)
            return
        self._output.tokens.extend(delta.logprobs)
        if begun is None:
            return
        if content is None:
            self._grow(begun, delta.text)
            return
        at = self._at_content(begun.item, content)
        tokens = [token_json(token) for token in delta.logprobs]
        self._put(_DELTAS["text"], {**at, "delta": delta.text, "logprobs": tokens})

    def _grow(self, begun: _Open, text: str) -> None:
        """Tells a piece of text. Nearly all events come through here."""
        if not text:
            return
        head = begun.delta_head
        if not head:
            if begun.item.kind == "reasoning":
                self._begin_summary(begun.item)
            head = begun.delta_head = self._delta_head(begun)
            if not head:
                return
        self._out.append(
            b"%b%d%b%b%b" % (head, self._number, begun.delta_place, _encode(text), begun.delta_tail)
        )
        self._number += 1

    def _delta_head(self, begun: _Open) -> bytes:
        """What the deltas of a part share; empty if there are none."""
        item = begun.item
        if begun.content is not None:
            kind = _DELTAS[begun.content.kind]
            at = self._at_content(item, begun.content)
            if begun.content.kind == "text":
                begun.delta_tail = b',"logprobs":[]}\n\n'
        elif item.kind == "reasoning":
            kind, at = _DELTAS[item.kind], {**_at(item), "summary_index": 0}
        elif item.kind == "function_call" or (
            item.kind == "custom_tool_call" and begun.growing.part.tool_call.custom
        ):
            kind, at = _DELTAS[item.kind], _at(item)
        else:
            return b""
        begun.delta_place = b',%b,"delta":' % _encode(at)[1:-1]
        name = kind.encode()
        return b'event: %b\ndata: {"type":"%b","sequence_number":' % (name, name)

    def _annotations(self, begun: _Open) -> None:
        content = begun.content
        if content is None:
            return
        state, growing = begun.state, begun.growing
        for annotation in growing.part.annotations[growing.told :]:
            growing.told += 1
            told = annotation_json(self._output, annotation, content)
            if told is not None:
                index = state.annotations
                state.annotations += 1
                at = self._at_content(begun.item, content)
                self._put(
                    "response.output_text.annotation.added",
                    {**at, "annotation_index": index, "annotation": told},
                )

    def _part_finished(self, finished: chat_pb2.PartFinished) -> None:
        begun = self._open.get(finished.part)
        if finished.choice or begun is None:
            return
        growing = begun.growing
        if finished.HasField("rest"):
            growing.part.MergeFrom(finished.rest)
            self._annotations(begun)
        growing.finished = True
        item = begun.item
        if item.kind == "function_call" and not begun.delta_head:
            self._grow(begun, arguments_of(item))
        del self._open[finished.part]
        self._finish_items(before=len(self._states) - 1)

    # Items.

    def _add(self, item: Item) -> None:
        self._states.append(_State())
        told = item_json(self._output, item, "in_progress")
        if item.kind != "vendor":
            _as_begun(told)
        self._put("response.output_item.added", {"output_index": item.index, "item": told})
        if item.kind == "image_generation_call":
            self._put("response.image_generation_call.in_progress", _at(item))

    def _finish_items(self, before: int) -> None:
        """Tells which items are done: in their order, so far as all before them are."""
        while self._done < before and self._output.items[self._done].finished:
            item = self._output.items[self._done]
            self._item_done(item, item_json(self._output, item, "completed"))

    def _item_done(self, item: Item, told: Json) -> None:
        self._done = item.index + 1
        state, at = self._states[item.index], _at(item)
        if item.kind == "message":
            self._end_content(item, state)
        elif item.kind == "reasoning":
            self._end_summary(item, told)
        elif item.kind == "function_call":
            self._put(
                "response.function_call_arguments.done", {**at, "arguments": arguments_of(item)}
            )
        elif item.kind == "custom_tool_call":
            text = input_of(item)
            if text and not item.part.part.tool_call.custom:
                self._put(_DELTAS[item.kind], {**at, "delta": text})
            self._put("response.custom_tool_call_input.done", {**at, "input": text})
        elif item.kind == "image_generation_call":
            self._put("response.image_generation_call.completed", at)
        self._put("response.output_item.done", {"output_index": item.index, "item": told})

    def _begin_content(self, begun: _Open) -> None:
        item, state = begun.item, begun.state
        if state.contents == len(item.contents):
            return  # it goes on with the text before
        self._end_content(item, state)
        state.contents, state.annotations = len(item.contents), 0
        place = state.contents - 1
        part = _as_begun(content_json(self._output, item.contents[place]))
        self._put(
            "response.content_part.added", {**_at(item), "content_index": place, "part": part}
        )

    def _end_content(self, item: Item, state: _State) -> None:
        """Ends the content part that is under way, if there is one."""
        if not state.contents:
            return
        place = state.contents - 1
        at: Json = {**_at(item), "content_index": place}
        part = content_json(self._output, item.contents[place])
        if part["type"] == "output_text":
            done = {"text": part["text"], "logprobs": part["logprobs"]}
            self._put("response.output_text.done", {**at, **done})
        else:
            self._put("response.refusal.done", {**at, "refusal": part["refusal"]})
        self._put("response.content_part.done", {**at, "part": part})

    def _begin_summary(self, item: Item) -> None:
        part = {"type": "summary_text", "text": ""}
        at = {**_at(item), "summary_index": 0}
        self._put("response.reasoning_summary_part.added", {**at, "part": part})

    def _end_summary(self, item: Item, told: Json) -> None:
        for part in told["summary"]:
            at = {**_at(item), "summary_index": 0}
            self._put("response.reasoning_summary_text.done", {**at, "text": part["text"]})
            self._put("response.reasoning_summary_part.done", {**at, "part": part})

    def _at_content(self, item: Item, content: Content) -> Json:
        return {**_at(item), "content_index": item.contents.index(content)}


class _State:
    """How much has been told of an item."""

    __slots__ = ("annotations", "contents")

    def __init__(self) -> None:
        self.contents = 0  # of a message: begun
        self.annotations = 0  # of the content under way


class _Open:
    """A part under way, and where it goes."""

    __slots__ = (
        "content", "delta_head", "delta_place", "delta_tail", "growing", "item", "state"
    )  # fmt: skip

    def __init__(self, growing: Growing, item: Item, state: _State) -> None:
        self.growing = growing
        self.item = item
        self.state = state
        self.content: Content | None = None  # of a message
        # What deltas have before their number, between that and their text, and behind it.
        self.delta_head = b""
        self.delta_place = b""
        self.delta_tail = b"}\n\n"


def _at(item: Item) -> Json:
    return {"item_id": item.id, "output_index": item.index}


def _as_begun(told: Json) -> Json:
    """An item or a content part as it is when nothing of it has come."""
    for name, nothing in (
        ("content", list), ("summary", list), ("annotations", list), ("logprobs", list),
        ("text", str), ("refusal", str), ("arguments", str), ("input", str),
    ):  # fmt: skip
        if name in told:
            told[name] = nothing()
    return told
