"""Vendors' answers with something wrong: a lawful answer or a GatewayError comes of it, and nothing else.

Pure: no sockets. The starting points are the golden answers, so whatever a dialect reads is hit. A seeded
sample of all variants, because there are half a million; what is drawn is the same on every run.
"""

from __future__ import annotations

import copy
import json
import random
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from fakes.eventstream import event_stream
from headgate.errors import GatewayError
from headgate.fold import fold
from headgate.v1 import chat_pb2
from robustness.hostile import frame
from robustness.junk import BROKEN, count_of, dumped, holder_of, variant
from robustness.law import check_order
from robustness.shown import DIALECTS, show_answer, show_events
from unit.test_provider_golden import CASES, Case

WIRES = sorted({path.parent.name for path in CASES})
WHOLE, STREAMED, BYTES = 1200, 1200, 400  # variants of each dialect
Result = tuple[list[chat_pb2.ChatEvent], GatewayError | None]


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that are made up are the same each time, so that events can be compared."""
    monkeypatch.setattr("secrets.token_hex", lambda size=16: "f" * 2 * size)


@cache
def cases(wire: str) -> list[Case]:
    return [Case(path) for path in CASES if path.parent.name == wire]


def drawn(wire: str, what: str) -> random.Random:
    return random.Random(zlib.crc32(f"{wire} {what}".encode()))


def read(case: Case, pieces: Sequence[bytes]) -> Result:
    """The events of a stream that comes in these pieces, and how it failed."""
    decoder = case.dialect.stream_decoder(case.request(), case.target)
    events: list[chat_pb2.ChatEvent] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
            if decoder.done:
                break
        events += decoder.finish()
    except GatewayError as error:
        return events, error
    return events, None


def check_stream(case: Case, data: bytes, rng: random.Random, note: str) -> None:
    """Everything that must hold whatever the bytes are."""
    try:
        events, error = read(case, [data])
        check_order(events, whole=error is None)
        if error is None:
            fold(events).SerializeToString()
        show_events(events, error, [rng.choice(DIALECTS)])
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(4))
        places = zip([0, *cuts], [*cuts, len(data)], strict=True)
        again, fault = read(case, [data[start:end] for start, end in places])
    except Exception as defect:
        raise AssertionError(f"{case.folder}: {note}: {defect!r}") from defect
    assert (type(error), str(error)) == (type(fault), str(fault)), f"{case.folder}: {note}: cut"
    if error is None:
        for each in (events[0].started, again[0].started):
            each.ClearField("create_time")  # made up where the vendor tells none
            each.ClearField("served")
        assert events == again, f"{case.folder}: {note}: cut"


def test_whole_answers(wire: str) -> None:
    rng = drawn(wire, "whole")
    bodies: list[tuple[Case, Any]] = []
    for case in cases(wire):
        try:
            bodies.append((case, json.loads(case.text("upstream_response.json") or "")))
        except ValueError:
            continue
    for _ in range(WHOLE):
        case, body = rng.choice(bodies)
        note, changed = variant(body, rng.randrange(count_of(body)))
        try:
            response = case.dialect.decode(dumped(changed), case.request(), case.target)
            response.SerializeToString()
            show_answer(response)
        except GatewayError:
            continue
        except Exception as defect:
            raise AssertionError(f"{case.folder}: {note}: {defect!r}") from defect


def test_failures(wire: str) -> None:
    """What explains a failure is as untrustworthy; whatever it is, an error comes of it."""
    rng = drawn(wire, "failures")
    told = [error for case in cases(wire) if (error := case.json("upstream_error.json"))]
    told = [error for error in told if isinstance(error.get("body"), dict | list)]
    dialect = cases(wire)[0].dialect
    for _ in range(WHOLE):
        error = rng.choice(told)
        note, changed = variant(error["body"], rng.randrange(count_of(error["body"])))
        try:
            found = dialect.decode_error(error["status"], error.get("headers", {}), dumped(changed))
            assert isinstance(found, GatewayError)
            assert isinstance(dialect.error_in_body(dumped(changed)), GatewayError | None)
        except Exception as defect:
            raise AssertionError(f"{error}: {note}: {defect!r}") from defect


# -- streams ------------------------------------------------------------------------------------------


class Events:
    """A golden stream, event by event, of which one can be exchanged."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.framing = ""
        self.events: list[tuple[str, Any]] = []  # (what goes before it, its JSON)
        if text := case.text("upstream.sse"):
            self.framing = "sse"
            for block in text.replace("\r\n", "\n").split("\n\n"):
                lines = block.split("\n")
                head = [line for line in lines if not line.startswith("data:")]
                data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
                self._add("\n".join(head), "\n".join(data))
        elif text := case.text("upstream.ndjson"):
            self.framing = "lines"
            for line in text.split("\n"):
                self._add("", line)
        elif text := case.text("upstream.eventstream.jsonl"):
            self.framing = "frames"
            for line in text.splitlines():
                told = json.loads(line)
                self.events.append((line, None) if isinstance(told, dict) else tuple(told))

    def _add(self, head: str, data: str) -> None:
        try:
            self.events.append((head, json.loads(data)))
        except ValueError:
            self.events.append((f"{head}\n{data}".strip(), None))

    def with_variant(self, rng: random.Random) -> tuple[str, bytes]:
        """The bytes of the stream with one event changed, or sent twice; and what was done."""
        place = rng.choice([i for i, (_, body) in enumerate(self.events) if body is not None])
        head, body = self.events[place]
        events = list(self.events)
        if not rng.randrange(20):
            events.insert(place, (head, body))
            return f"event {place} comes twice", b"".join(map(self.framed, events))
        note, changed = variant(body, rng.randrange(count_of(body)))
        events[place] = (head, changed)
        sent = [self.framed(event, force=i == place) for i, event in enumerate(events)]
        return f"event {place}: {note}", b"".join(sent)

    def framed(self, event: tuple[str, Any], *, force: bool = False) -> bytes:
        head, body = event
        if self.framing == "frames":
            if body is None and not force:
                return event_stream(head)
            return frame(head, dumped(body))
        if self.framing == "lines":
            return dumped(body) + b"\n" if body is not None or force else head.encode() + b"\n"
        if body is None and not force:
            text = "".join(f"{line}\n" for line in head.split("\n"))
            return (text if ":" in head else f"data: {text}").encode() + b"\n"
        return (f"{head}\n" if head else "").encode() + b"data: " + dumped(body) + b"\n\n"


@cache
def streams(wire: str) -> list[Events]:
    found = [Events(case) for case in cases(wire)]
    return [each for each in found if any(body is not None for _, body in each.events)]


def test_events(wire: str) -> None:
    rng = drawn(wire, "events")
    for _ in range(STREAMED):
        events = rng.choice(streams(wire))
        note, data = events.with_variant(rng)
        check_stream(events.case, data, rng, note)


# What once went wrong: (wire, golden case, event, path in it, what stands there; None: nothing does).
FOUND: list[tuple[str, str, int, tuple[str | int, ...], Any]] = [
    ("openai", "annotations", 0, ("created",), 2**64),
    ("openai_responses", "content_filter", 0, ("response", "created_at"), -1),
    ("ollama", "crlf_and_blank_lines", 0, ("created_at",), "yesterday"),
    ("anthropic", "citations", 6, ("delta", "citation"), None),
    ("anthropic", "compaction", 2, ("delta", "content"), BROKEN),
    ("anthropic", "compaction", 1, ("content_block", "content"), BROKEN),
    (
        "openai",
        "openrouter_reasoning",
        1,
        ("choices", 0, "delta", "reasoning_details", 0, "text"),
        7,
    ),
    ("openai_responses", "content_filter", -1, ("response", "usage"), {"type": BROKEN}),
    ("ollama", "unknown_members", 0, ("surprise",), BROKEN),
]


@pytest.mark.parametrize("found", FOUND, ids=lambda found: f"{found[0]}-{found[1]}-{found[3][-1]}")
def test_what_once_went_wrong(found: tuple[Any, ...]) -> None:
    wire, name, place, path, junk = found
    (events,) = [each for each in streams(wire) if each.case.folder.name == name]
    told = [index for index, (_, body) in enumerate(events.events) if body is not None]
    index = told[place]
    head, body = events.events[index]
    body = copy.deepcopy(body)
    if junk is None:
        del holder_of(body, path)[path[-1]]
    else:
        holder_of(body, path)[path[-1]] = junk
    changed = [*events.events[:index], (head, body), *events.events[index + 1 :]]
    data = b"".join(map(events.framed, changed))
    check_stream(events.case, data, random.Random(0), str(path))


SPLINTERS = [
    b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"-", b"null", b"\n", b"\r", b"\n\n",
    b"\r\n\r\n", b"\xff", b"\x00", b"data:", b"data: [DONE]\n\n", b"1e999", b"\\ud800",
]  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few of them flipped, missing, doubled or added."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        how = rng.choice(["flip", "add", "cut", "remove", "double"])
        if how == "flip" and at < len(found):
            found[at] = rng.randrange(256)
        elif how == "add":
            found[at:at] = rng.choice(SPLINTERS)
        elif how == "cut":
            del found[at:]
        elif how == "remove":
            del found[at : at + rng.randrange(60)]
        elif how == "double":
            found[at:at] = found[at : at + rng.randrange(200)]
    return bytes(found)


def test_bytes_of_streams(wire: str) -> None:
    rng = drawn(wire, "bytes")
    found = [(case, data) for case in cases(wire) if (data := case.stream())]
    for _ in range(BYTES):
        case, data = rng.choice(found)
        data = damaged(data, rng)
        check_stream(case, data, rng, repr(data[-200:]))


def test_a_beginning_never_passes_for_the_whole(wire: str) -> None:
    """Whatever the byte at which a stream ends: an error, or all of the answer is there."""
    rng = drawn(wire, "beginnings")
    for case in cases(wire):
        data = case.stream()
        # What Azure's filter says of the text may come behind the end of the text.
        if not data or case.folder.name == "content_filter":
            continue
        events, error = read(case, [data])
        choices = None if error is not None else list(fold(events).choices)
        for end in rng.sample(range(len(data)), min(len(data), 12)):
            events, error = read(case, [data[:end]])
            check_order(events, whole=error is None)
            assert error is not None or list(fold(events).choices) == choices, (case.folder, end)


def test_what_follows_the_end_makes_no_difference(wire: str) -> None:
    """It comes in the same read as the end, or later, or is never read: the answer is the same."""
    for case in cases(wire):
        data = case.stream()
        if not data or read(case, [data])[1] is not None:
            continue
        for rest in (b"\x00" * 40, b"\xff", b"{nope\n\n", data):
            outcomes = []
            for pieces in ([data + rest], [data, rest], [data[:-1], data[-1:] + rest]):
                events, error = read(case, pieces)
                outcomes.append((len(events) if error is None else 0, str(error)))
            assert len(set(outcomes)) == 1, (case.folder, rest[:9], outcomes)
