"""Event streams as the specification allows them and hardly anybody writes them, on both sides.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from fakes.eventstream import event_stream
from fakes.upstream import Answer
from headgate.fold import fold
from headgate.v1 import chat_pb2
from robustness.ground import Ground, opened
from robustness.hostile import BY_KIND, KINDS, RICH, SSE_KINDS, frame, pieces_of, streamed
from robustness.shown import DIALECTS, server_sent, show_events
from square.doors import DOORS, Door, Talk
from square.vendors import Vendor
from unit.test_provider_golden import CASES, Case

on_ground = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Ground]:
    async with opened() as ground:
        yield ground


def pretty(body: Any, line_end: str) -> bytes:
    """JSON over many lines."""
    return json.dumps(body, indent=1).replace("\n", line_end).encode()


def over_lines(pieces: list[bytes]) -> list[bytes]:
    """Each event's JSON over many `data:` lines."""
    found = []
    for piece in pieces:
        head, mark, data = piece.partition(b"data: ")
        try:
            lines = pretty(json.loads(data), "\n").split(b"\n")
        except ValueError:
            found.append(piece)
            continue
        found.append(head + b"".join(b"data: %b\n" % line for line in lines) + b"\n")
        assert mark
    return found


# name -> what becomes of the pieces, an event each, all of which use LF and a space behind the colon.
ODDITIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "as usual": lambda p: p,
    "CRLF": lambda p: [each.replace(b"\n", b"\r\n") for each in p],
    "CR": lambda p: [each.replace(b"\n", b"\r") for each in p],
    "all line ends": lambda p: [
        each.replace(b"\n", (b"\n", b"\r\n", b"\r")[i % 3]) for i, each in enumerate(p)
    ],
    "comments": lambda p: [b": ping\n\n:\n" + each for each in p],
    "comments within events": lambda p: [each.replace(b"data:", b": x\ndata:") for each in p],
    "no space": lambda p: [re.sub(rb"(?m)^(data|event): ", rb"\1:", each) for each in p],
    "many lines": over_lines,
    "a mark at the beginning": lambda p: [b"\xef\xbb\xbf", *p],
    "ids and retry times": lambda p: [b"id: 7\nretry: 10\nid\n" + each for each in p],
    "unknown fields": lambda p: [
        b"color: blue\nDATA: x\n data: x\nevents: x\n" + each for each in p
    ],
    "blank lines": lambda p: [b"\n\n\n" + each + b"\n\n" for each in p],
    "no blank line at the end": lambda p: [*p[:-1], p[-1].rstrip(b"\n")],
    "the name behind the data": lambda p: [
        re.sub(rb"(event: [^\n]*\n)(data: [^\n]*\n)", rb"\2\1", each) for each in p
    ],
    "other names": lambda p: [re.sub(rb"event: [^\n]*\n", b"event: x\n", each) for each in p],
    "no names": lambda p: [re.sub(rb"event: [^\n]*\n", b"", each) for each in p],
    "empty events": lambda p: [b"event: ping\n\ndata:\n\n" + each for each in p],
}


@on_ground
@pytest.mark.parametrize("name", ODDITIES)
@pytest.mark.parametrize("kind", SSE_KINDS)
async def test_oddities_make_no_difference(ground: Ground, kind: str, name: str) -> None:
    vendor = BY_KIND[kind]
    pieces = pieces_of(vendor, RICH)
    ground.play(streamed(vendor, pieces))
    plain, _, error = await ground.ask("direct", kind, stream=True)
    assert error is None
    odd = ODDITIES[name](pieces)
    for cut in (None, 1, 7):
        ground.play(streamed(vendor, odd, cut=cut))
        events, _, error = await ground.ask("direct", kind, stream=True)
        assert error is None, error
        assert fold(events).choices == fold(plain).choices
        assert fold(events).usage.total_tokens == fold(plain).usage.total_tokens


# -- JSON that goes through as it came ------------------------------------------------------------------


def told_over_lines(vendor: Vendor, pieces: list[bytes]) -> list[bytes]:
    """The same stream with every JSON over many lines, and something in it that nobody knows."""
    found: list[bytes] = []
    for piece in pieces:
        if vendor.kind == "bedrock":
            kind, payload = unframed(piece)
            found.append(frame(kind, pretty(payload, "\r\n")))
        elif vendor.kind == "ollama":
            # Within a line of its own, and yet not a line for whoever reads server-sent events.
            found.append(pretty(surprised(json.loads(piece)), "\r") + b"\n")
        elif b"[DONE]" in piece:
            found.append(piece)
        else:
            head, _, data = piece.partition(b"data: ")
            changed = json.dumps(surprised(json.loads(data))).encode()
            found += over_lines([head + b"data: " + changed + b"\n\n"])
    return found


def surprised(body: Any) -> Any:
    return {**body, "surprise": {"a": [1, {"b": None}]}}


def unframed(message: bytes) -> tuple[str, Any]:
    size = int.from_bytes(message[4:8], "big")
    found = re.search(rb":event-type\x07\x00.([a-zA-Z]+)", message[12 : 12 + size], re.DOTALL)
    assert found is not None
    return found[1].decode(), surprised(json.loads(message[12 + size : -4]))


@on_ground
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@pytest.mark.parametrize("kind", KINDS)
async def test_json_over_many_lines_stays_on_one(ground: Ground, kind: str, door: Door) -> None:
    vendor = BY_KIND[kind]
    talk = Talk("Be brief.", "How is the weather?", tools=True, thinks=True)
    pieces = pieces_of(vendor, RICH)
    told = []
    for sent in (pieces, told_over_lines(vendor, pieces)):
        ground.play(streamed(vendor, sent))
        path = door.path(kind, True)
        response = await ground.http.post(path, json=door.ask(kind, talk, True))
        assert response.status_code == 200, response.text
        assert server_sent(response.content)
        told.append(door.told_by_stream(response.text))
    plain, odd = told
    assert (plain.text, plain.thinking, plain.finish) == (odd.text, odd.thinking, odd.finish)
    assert [(call.name, call.arguments) for call in plain.calls] == [
        (call.name, call.arguments) for call in odd.calls
    ]
    (body,) = vendor.answer(RICH).pieces  # type: ignore[misc]
    for line_end in ("\n", "\r\n", "\r"):
        ground.play(Answer([pretty(surprised(json.loads(body)), line_end)]))  # type: ignore[arg-type]
        response = await ground.http.post(door.path(kind, False), json=door.ask(kind, talk, False))
        assert door.told(response.json()).text == plain.text


STREAMS = [path for path in CASES if any(path.glob("upstream.*"))]


@pytest.mark.parametrize("wire", sorted({path.parent.name for path in STREAMS}))
def test_every_golden_stream_over_many_lines_can_be_shown(wire: str) -> None:
    """At every front door, so that whatever a dialect keeps as JSON has been there."""
    for number, path in enumerate(each for each in STREAMS if each.parent.name == wire):
        case = Case(path)
        events = decoded(case, golden_over_lines(case))
        show_events(
            events, None, DIALECTS if wire == "openai" else [DIALECTS[number % 5], own(wire)]
        )


def own(wire: str) -> str:
    return wire if wire in DIALECTS else "openai"


def decoded(case: Case, data: bytes) -> list[chat_pb2.ChatEvent]:
    return case.decode_stream([data])[0]


def golden_over_lines(case: Case) -> bytes:
    found: list[bytes] = []
    if text := case.text("upstream.sse"):
        for block in text.replace("\r\n", "\n").split("\n\n"):
            data = "\n".join(
                line[5:].removeprefix(" ") for line in block.split("\n") if line[:5] == "data:"
            )
            name = re.search(r"(?m)^event:.*\n", block)
            head = (name[0] if name else "").encode()
            found += over_lines([head + b"data: " + data.encode() + b"\n\n"])
    elif text := case.text("upstream.ndjson"):
        for line in text.split("\n"):
            try:
                found.append(pretty(json.loads(line), "\r") + b"\n")
            except ValueError:
                found.append(line.encode() + b"\n")
    else:
        for line in (case.text("upstream.eventstream.jsonl") or "").splitlines():
            told = json.loads(line)
            found.append(
                event_stream(line)
                if isinstance(told, dict)
                else frame(told[0], pretty(told[1], "\r\n"))
            )
    return b"".join(found)
