"""Pieces of tool calls, as they come in a stream, to the calls that they belong to. Sans-I/O.

Vendors' oddities that survive here: calls without an index or always with index 0, ids only in the first
delta, in every one or nowhere, arguments in one piece or as an object, whole calls side by side.
"""

from __future__ import annotations

import msgspec

from headgate.v1 import content_pb2
from headgate.wire import Extra, json_text, raw_array
from headgate_server.providers.openai.answer import call_arguments, call_start
from headgate_server.providers.openai.counts import whole
from headgate_server.providers.openai.proofs import take_signature
from headgate_server.providers.openai.wire import ToolCallWire
from headgate_server.providers.parts import ChoiceWriter, Events

Members = dict[str, msgspec.Raw | list[msgspec.Raw]]
"""Unknown members, collected from many deltas; arrays as lists, because they grow."""


class CallTracker:
    """The tool calls of one choice.

    Args:
        writer: writes the choice's events.
    """

    def __init__(self, writer: ChoiceWriter) -> None:
        self._writer = writer
        self._by_index: dict[int, _Call] = {}  # the upstream's index
        self._last: _Call | None = None
        self._all: list[_Call] = []

    def take(self, wire: ToolCallWire, events: Events) -> None:
        """Adds the events of one piece."""
        call = self._find(wire)
        if call is None:
            start = call_start(wire)
            call = _Call(self._writer.begin(start, events), wire.id, start.tool_call.name)
            index = len(self._by_index) if wire.index is None else whole(wire.index)
            self._by_index[index] = call
            self._all.append(call)
        elif wire.extra:
            call.has_late_extra = True
        if wire.extra:
            absorb(call.extra, wire.extra)
        self._last = call
        arguments = call_arguments(wire)
        if arguments:
            call.has_arguments = True
            self._writer.delta(call.part, arguments, events)

    def finish(self, events: Events) -> None:
        """Ends all calls."""
        for call in self._all:
            rest: content_pb2.Part | None = None
            if call.has_late_extra:
                known = {k: v for k, v in call.extra.items() if isinstance(v, msgspec.Raw)}
                rest = content_pb2.Part(thought_signature=take_signature(known))
                if "extra_content" not in known:
                    call.extra.pop("extra_content", None)
                if extra := json_text(call.extra):
                    rest.extra_json = extra
            self._writer.end(call.part, events, rest)

    def _find(self, wire: ToolCallWire) -> _Call | None:
        """The open call that a piece continues; None if it begins a new one."""
        call = self._last if wire.index is None else self._by_index.get(whole(wire.index))
        if call is None:
            return None
        if wire.id and wire.id != call.id:
            # Another id under the same index, or without one: another call, perhaps an earlier one.
            return next((c for c in self._all if c.id == wire.id), None)
        name = wire.function.name if wire.function is not None else None
        if not wire.id and name and call.has_arguments and (not call.id or name != call.name):
            return None  # a whole call in each delta, all under index 0 and without ids
        return call


class _Call:
    """A tool call under way."""

    __slots__ = ("extra", "has_arguments", "has_late_extra", "id", "name", "part")

    def __init__(self, part: int, call_id: str | int | None, name: str) -> None:
        self.part = part
        self.id = call_id
        self.name = name
        self.has_arguments = False
        self.has_late_extra = False
        self.extra: Members = {}


def absorb(into: Members, extra: Extra) -> None:
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
