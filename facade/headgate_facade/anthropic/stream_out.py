"""ChatEvents to Anthropic's server-sent events. Sans-I/O.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming. Blocks follow each other there,
index by index, while our parts may run side by side: what comes for a later part waits until the one
before it has ended. The usage is known at the end: it stands in `message_delta`, whose counts are
cumulative.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import raw_object
from headgate_facade.anthropic.blocks_out import (
    Json,
    Origin,
    add_extras,
    call_block,
    citations_of,
    citations_within,
    left_out,
    proof_of,
    reasoning_block,
    text_block,
    usage_json,
    vendor_block,
)
from headgate_facade.anthropic.errors import envelope
from headgate_facade.anthropic.messages_out import ending_json, message_json
from headgate_facade.http import EVENT_STREAM, one_line

_encode = msgspec.json.Encoder().encode

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_MEDIA = frozenset(("image", "audio", "file"))
# Members of a message that stand in the delta itself, not beside it.
_DELTA_MEMBERS = frozenset(("container", "stop_details"))
_MAX_WAITING_BYTES = 16 << 20
_DELTA_COST = 64  # of one that waits, beside its text


class MessageWriter:
    """Writes one streamed message."""

    headers = EVENT_STREAM
    ping = PING

    def __init__(self) -> None:
        self._origin = Origin(chat_pb2.Served())
        self._tier = ""
        self._blocks = 0
        self._open: _Part | None = None
        self._waiting: dict[int, _Part] = {}  # begun while another was open, in their order
        self._waiting_bytes = 0
        self._ending: chat_pb2.ChoiceFinished | None = None

    def write(self, events: Iterable[chat_pb2.ChatEvent]) -> bytes:
        """The bytes of these events. Raises `UpstreamProtocol` for parts that run too far ahead."""
        out: list[bytes] = []
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "part_delta":
                self._delta(event.part_delta, out)
            elif kind == "part_started":
                self._part_started(event.part_started, out)
            elif kind == "part_finished":
                self._part_finished(event.part_finished, out)
            elif kind == "started":
                self._started(event.started, out)
            elif kind == "choice_finished" and event.choice_finished.choice == 0:
                self._ending = event.choice_finished
            elif kind == "completed":
                self._completed(event.completed, out)
        return b"".join(out)

    def error(self, error: GatewayError) -> bytes:
        """The error as the stream's last event."""
        return b"event: error\ndata: " + envelope(error, error.request_id) + b"\n\n"

    def _started(self, started: chat_pb2.Started, out: list[bytes]) -> None:
        self._origin = Origin(started.served)
        self._tier = started.service_tier
        message = message_json(started.id, started.model)
        message |= {"stop_reason": None, "stop_sequence": None}
        message["usage"] = usage_json(None, self._tier, self._origin)
        out.append(_event("message_start", {"message": message}))
        out.append(PING)

    def _completed(self, completed: chat_pb2.Completed, out: list[bytes]) -> None:
        ending = self._ending or chat_pb2.ChoiceFinished()
        delta = ending_json(ending, self._origin)
        if completed.HasField("service_tier"):
            self._tier = completed.service_tier
        usage = completed.usage if completed.HasField("usage") else None
        body: Json = {"delta": delta, "usage": usage_json(usage, self._tier, self._origin)}
        if self._origin.own:
            for source, field in (
                (ending, "message_extra_json"), (ending, "extra_json"), (completed, "extra_json")
            ):  # fmt: skip
                for name, value in raw_object(getattr(source, field) or "{}").items():
                    (delta if name in _DELTA_MEMBERS else body).setdefault(name, value)
        out.append(_event("message_delta", body))
        out.append(_STOP)

    # Parts, one at a time.

    def _part_started(self, started: chat_pb2.PartStarted, out: list[bytes]) -> None:
        if started.choice != 0:
            return
        part = _Part(started.part, started.initial)
        if self._open is None:
            self._open = part
            self._begin(part, out)
        else:
            self._waiting[started.part] = part

    def _delta(self, delta: chat_pb2.PartDelta, out: list[bytes]) -> None:
        if delta.choice != 0:
            return
        part = self._open
        if part is not None and delta.part == part.number:
            self._continue(part, delta, out)
            return
        waiting = self._waiting.get(delta.part)
        if waiting is None:
            return
        waiting.deltas.append(delta)
        self._waiting_bytes += len(delta.text) + len(delta.data) + _DELTA_COST
        if self._waiting_bytes > _MAX_WAITING_BYTES:
            raise UpstreamProtocol(
                f"parallel parts of the upstream's answer run more than {_MAX_WAITING_BYTES} bytes"
                " ahead of each other; this API shows one after the other"
            )

    def _part_finished(self, finished: chat_pb2.PartFinished, out: list[bytes]) -> None:
        if finished.choice != 0:
            return
        part = self._open
        if part is None or finished.part != part.number:
            waiting = self._waiting.get(finished.part)
            if waiting is not None:
                waiting.rest = finished.rest
            return
        self._end(part, finished.rest, out)
        self._open = None
        while self._waiting:
            part = self._waiting.pop(next(iter(self._waiting)))
            self._begin(part, out)
            for delta in part.deltas:
                self._waiting_bytes -= len(delta.text) + len(delta.data) + _DELTA_COST
                self._continue(part, delta, out)
            part.deltas = []
            if part.rest is None:
                self._open = part
                return
            self._end(part, part.rest, out)

    # The blocks of parts. Text and thinking open theirs with their first words, because an empty text
    # block would be refused in the next request, and because only then it is clear what it is.

    def _begin(self, part: _Part, out: list[bytes]) -> None:
        initial = part.initial
        if part.kind == "tool_call":
            self._open_block(part, call_block(initial), out)
            self._say(part, initial.tool_call.arguments_json, out)
        elif part.kind == "text":
            self._say(part, initial.text, out)
            part.cited.extend(initial.annotations)
        elif part.kind == "refusal":
            self._say(part, initial.refusal, out)
        elif part.kind == "reasoning":
            self._say(part, initial.reasoning.text, out)
        elif part.kind in _MEDIA:
            media: content_pb2.Media = getattr(initial, part.kind)
            part.size = len(media.data)
            self._say(part, media.transcript, out)

    def _continue(self, part: _Part, delta: chat_pb2.PartDelta, out: list[bytes]) -> None:
        if delta.annotations:
            # Shown when the part ends: only then it is known whether they are all.
            part.cited.extend(delta.annotations)
        part.size += len(delta.data)
        self._say(part, delta.text, out)

    def _end(self, part: _Part, rest: content_pb2.Part, out: list[bytes]) -> None:
        if part.kind == "reasoning":
            self._end_reasoning(part, rest.reasoning, out)
        elif part.kind in _MEDIA and part.index < 0:
            media = content_pb2.Media()
            media.CopyFrom(getattr(part.initial, part.kind))
            if rest.HasField(part.kind):  # type: ignore[arg-type]
                media.MergeFrom(getattr(rest, part.kind))
            self._say(part, media.transcript or left_out(part.kind, media, part.size), out)
        elif part.kind == "text":
            self._end_text(part, rest, out)
        elif part.kind == "vendor_part":
            late = rest.HasField("vendor_part")
            whole = vendor_block((rest if late else part.initial).vendor_part)
            if whole is not None:
                self._open_block(part, whole, out)
        if part.index >= 0:
            out.append(
                b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
                % part.index
            )

    def _end_text(self, part: _Part, rest: content_pb2.Part, out: list[bytes]) -> None:
        if citations_within(part.initial, self._origin):
            return  # the block has begun with them
        annotations = [*part.cited, *rest.annotations]
        found = citations_within(rest, self._origin) or citations_of(annotations, self._origin)
        for citation in found:
            self._open_block(part, _TEXT, out)
            delta = {"type": "citations_delta", "citation": citation}
            out.append(_event("content_block_delta", {"index": part.index, "delta": delta}))

    def _end_reasoning(self, part: _Part, rest: content_pb2.Reasoning, out: list[bytes]) -> None:
        whole = content_pb2.Reasoning()
        whole.CopyFrom(part.initial.reasoning)
        whole.MergeFrom(rest)
        if part.index >= 0:
            proof = proof_of(whole, self._origin)
        else:
            block = reasoning_block(whole, self._origin)
            if block is None:
                return
            proof = block.get("signature", "")
            if proof:
                block["signature"] = ""
            self._open_block(part, block, out)
        if proof:
            delta = {"type": "signature_delta", "signature": proof}
            out.append(_event("content_block_delta", {"index": part.index, "delta": delta}))

    def _say(self, part: _Part, text: str, out: list[bytes]) -> None:
        """More text for a part, or more of a call's arguments."""
        if not text or part.kind not in _DELTAS:
            return
        if not part.head:
            if part.kind == "tool_call" and text.isspace():
                return  # in front of the arguments it means nothing, and SDKs stumble over it
            if part.kind != "tool_call":
                self._open_block(part, _THINKING if part.kind == "reasoning" else _TEXT, out)
            # All that a delta says before its text: then each costs one string to encode.
            part.head = (
                b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
                b'"delta":{"type":"%b","%b":' % (part.index, *_DELTAS[part.kind])
            )
        out += (part.head, _encode(text), b"}}\n\n")

    def _open_block(self, part: _Part, block: Json | msgspec.Raw, out: list[bytes]) -> None:
        """Begins the part's block unless it has begun."""
        if part.index >= 0:
            return
        part.index = self._blocks
        self._blocks += 1
        if isinstance(block, dict):
            block = dict(block)
            add_extras(block, part.initial, self._origin)
        out.append(_event("content_block_start", {"index": part.index, "content_block": block}))


_TEXT = text_block("")
_THINKING = {"type": "thinking", "thinking": "", "signature": ""}
# The type of a delta, and its member, by the part's kind.
_DELTAS = {
    "text": (b"text_delta", b"text"),
    "refusal": (b"text_delta", b"text"),
    "reasoning": (b"thinking_delta", b"thinking"),
    "tool_call": (b"input_json_delta", b"partial_json"),
    "image": (b"text_delta", b"text"),
    "audio": (b"text_delta", b"text"),
    "file": (b"text_delta", b"text"),
}


def _event(name: str, body: dict[str, Any]) -> bytes:
    line = one_line(_encode({"type": name, **body}))
    return b"event: %b\ndata: %b\n\n" % (name.encode(), line)


class _Part:
    """A part on its way, and its block."""

    __slots__ = ("cited", "deltas", "head", "index", "initial", "kind", "number", "rest", "size")

    def __init__(self, number: int, initial: content_pb2.Part) -> None:
        self.number = number
        self.initial = initial
        self.kind: str = initial.WhichOneof("kind") or ""
        self.index = -1  # of its block; -1 while it has none
        self.head = b""
        self.size = 0  # of media
        self.cited: list[content_pb2.Annotation] = []
        self.deltas: list[chat_pb2.PartDelta] = []
        self.rest: content_pb2.Part | None = None  # set once it has ended, while it waits
