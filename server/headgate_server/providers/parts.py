"""Events of one choice on their way: numbers the parts, opens and closes them. Sans-I/O.

For stream decoders. Text-like parts (text, reasoning, refusal) follow each other: the next one closes the
one before. Calls and media stay open until they are ended, because parallel ones may interleave.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2

Events = list[chat_pb2.ChatEvent]
_MAX_PARTS = 1024  # of a choice; more is an upstream gone mad


def reason_of(
    reasons: Mapping[str, chat_pb2.FinishReason.ValueType], words: str, *, calls: bool
) -> chat_pb2.FinishReason.ValueType:
    """Our reason for the vendor's words. Behind a call the turn goes on, whatever else is said of it."""
    reason = reasons.get(words, chat_pb2.FINISH_REASON_OTHER)
    if calls and reason == chat_pb2.FINISH_REASON_STOP:
        return chat_pb2.FINISH_REASON_TOOL_CALLS
    return reason


class ChoiceWriter:
    """Writes the events of one choice.

    Args:
        index: the choice's.

    Attributes:
        calls: whether a tool call was begun.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.calls = False
        self._parts = 0
        self._running = ""  # the kind of the text-like part that is open
        self._running_part = -1
        self._open: list[int] = []

    def text(self, kind: str, text: str, events: Events) -> chat_pb2.PartDelta:
        """Appends to the running part of a kind ("text", "reasoning", "refusal"), or begins one.

        Returns:
            The delta, for annotations and log probabilities.
        """
        if self._running != kind:
            self.close_text(events)
            initial = content_pb2.Part()
            if kind == "reasoning":
                initial.reasoning.SetInParent()
            else:
                setattr(initial, kind, "")
            self._running_part = self.begin(initial, events)
            self._running = kind
        return self.delta(self._running_part, text, events)

    def close_text(self, events: Events, rest: content_pb2.Part | None = None) -> None:
        """Ends the running part, if there is one; `rest` is what is known of it only now."""
        if self._running:
            self._running = ""
            self.end(self._running_part, events, rest)

    @property
    def running(self) -> str:
        """The kind of the running part; empty if there is none."""
        return self._running

    def begin(self, initial: content_pb2.Part, events: Events) -> int:
        """Begins a part of any kind; ends the running one. Returns its index."""
        self.close_text(events)
        if self._parts >= _MAX_PARTS:
            raise UpstreamProtocol(f"the upstream's answer has more than {_MAX_PARTS} parts")
        part = self._parts
        self._parts += 1
        self._open.append(part)
        self.calls = self.calls or initial.HasField("tool_call")
        # Set member by member: building it from messages would copy each of them.
        event = chat_pb2.ChatEvent()
        started = event.part_started
        started.choice, started.part = self.index, part
        started.initial.CopyFrom(initial)
        events.append(event)
        return part

    def delta(
        self, part: int, text: str, events: Events, *, data: bytes = b""
    ) -> chat_pb2.PartDelta:
        """Appends text, or bytes, to an open part."""
        event = chat_pb2.ChatEvent()
        delta = event.part_delta
        delta.choice, delta.part, delta.text = self.index, part, text
        if data:
            delta.data = data
        events.append(event)
        return delta

    def end(self, part: int, events: Events, rest: content_pb2.Part | None = None) -> None:
        """Ends an open part; ended ones stay as they are."""
        if part not in self._open:
            return
        self._open.remove(part)
        if part == self._running_part:
            self._running = ""
        event = chat_pb2.ChatEvent()
        event.part_finished.choice, event.part_finished.part = self.index, part
        if rest is not None and rest.ByteSize():
            event.part_finished.rest.CopyFrom(rest)
        events.append(event)

    def finish(
        self,
        reason: chat_pb2.FinishReason.ValueType,
        provider_reason: str,
        events: Events,
    ) -> chat_pb2.ChoiceFinished:
        """Ends every open part and the choice. Returns the last event's body, for its extras."""
        self.close_text(events)
        for part in list(self._open):
            self.end(part, events)
        event = chat_pb2.ChatEvent()
        finished = event.choice_finished
        finished.choice = self.index
        finished.finish_reason, finished.provider_finish_reason = reason, provider_reason
        events.append(event)
        return finished
