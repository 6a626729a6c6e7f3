# ruff: noqa: E501 - the tables read better with a case on a line
"""Whatever a vendor of whatever dialect does, the call fails as the table of errors says, once, and for good.

What holds for each call, whatever comes of it (settled once, nothing running, sockets left, no secret told),
is checked in `ground`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from fakes.upstream import (
    Answer,
    Step,
    disconnect,
    endless,
    hang,
    hang_after_headers,
    html,
    raw,
    redirect,
    reset,
)
from headgate.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.fold import fold
from robustness.ground import BODY_LIMIT, EVENT_LIMIT, TRANSPORTS, Ground, opened
from robustness.hostile import (
    BY_KIND,
    EXPENDABLE,
    KINDS,
    RICH,
    SECRET,
    TEXT,
    error_body,
    failed,
    failure_event,
    framed,
    pieces_of,
    streamed,
)
from square.vendors import Vendor, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

both = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Ground]:
    async with opened() as ground:
        yield ground


@pytest.fixture(params=KINDS)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    return BY_KIND[request.param]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def body_of(vendor: Vendor) -> bytes:
    """The bytes of a good unary answer."""
    (body,) = vendor.answer(TEXT).pieces  # type: ignore[misc]
    assert isinstance(body, bytes)
    return body


def halved(step: Answer, ending: Any) -> Answer:
    """Half of a body, and then the end of the connection."""
    (body,) = step.pieces  # type: ignore[misc]
    half = len(body) // 2  # type: ignore[arg-type]
    return replace(step, pieces=[body[:half], body[half:]], stop_after=1, ending=ending)  # type: ignore[index]


def spoilt(vendor: Vendor, old: bytes, new: bytes) -> Answer:
    """A good answer with some bytes replaced."""
    body = body_of(vendor)
    assert old in body
    return Answer([body.replace(old, new)])


Maker = Callable[[Vendor], Step]
UMBRELLA = b"\\u2602"
DEEP = b"[" * 200_000 + b"]" * 200_000

# Failures that look the same whether a stream was asked for or not: name -> (what the vendor does, kind).
ANYWHERE: dict[str, tuple[Maker, type[GatewayError]]] = {
    "resets at once": (lambda v: reset(), UpstreamUnavailable),
    "closes at once": (lambda v: disconnect(), UpstreamUnavailable),
    "closes within the head": (lambda v: raw(b"HTTP/1.1 200 OK\r\ncontent-le", ending="fin"), UpstreamUnavailable),
    "no HTTP": (lambda v: raw(b"SSH-2.0-OpenSSH_9.6\r\n", ending="fin"), UpstreamProtocol),
    "HTML with 200": (lambda v: html(200), UpstreamProtocol),
    "HTML with 404": (lambda v: html(404), UpstreamProtocol),
    "HTML with 400": (lambda v: html(400), UpstreamProtocol),
    "HTML with 502": (lambda v: html(502), UpstreamUnavailable),
    "an empty 204": (lambda v: Answer([], 204), UpstreamProtocol),
    "an empty 400": (lambda v: Answer([], 400), UpstreamProtocol),
    "an error with status 200": (lambda v: Answer([error_body(v)]), UpstreamUnavailable),
    "a redirect": (lambda v: redirect("http://127.0.0.1:1/", 307), UpstreamProtocol),
    "a redirect for good": (lambda v: redirect("/elsewhere", 301), UpstreamProtocol),
    "gzip that is none": (lambda v: Answer([b"garbage" * 99], headers={"content-encoding": "gzip"}), UpstreamProtocol),
    "an unknown encoding": (lambda v: Answer([b"garbage" * 99], headers={"content-encoding": "br"}), UpstreamProtocol),
    "401": (lambda v: failed(v, 401, f"key {SECRET} is wrong"), UpstreamRejectedUs),
    "403": (lambda v: failed(v, 403, f"key {SECRET} may not"), UpstreamRejectedUs),
    "400 that tells the key": (lambda v: failed(v, 400, f"key {SECRET} is odd"), InvalidRequest),
    "400 that tells half of the key": (lambda v: failed(v, 400, "x" * 1000 + f" {SECRET} is odd"), InvalidRequest),
    "500 that tells half of the key": (lambda v: failed(v, 500, "x" * 1003 + f" {SECRET} is odd"), UpstreamUnavailable),
    "408": (lambda v: failed(v, 408), UpstreamTimeout),
    "418": (lambda v: failed(v, 418), UpstreamProtocol),
    "429": (lambda v: failed(v, 429, headers={"retry-after": "7"}), RateLimited),
    "500": (lambda v: failed(v, 500), UpstreamUnavailable),
    "503": (lambda v: failed(v, 503, headers={"retry-after": "7"}), Overloaded),
    "504": (lambda v: failed(v, 504), UpstreamTimeout),
    "529": (lambda v: failed(v, 529), Overloaded),
    "a 500 that breaks off": (lambda v: halved(failed(v, 500), "rst"), UpstreamUnavailable),
}  # fmt: skip

UNARY: dict[str, tuple[Maker, type[GatewayError]]] = {
    "breaks off in the body": (lambda v: halved(whole(json.loads(body_of(v))), "rst"), UpstreamUnavailable),
    "closes in the body": (lambda v: halved(whole(json.loads(body_of(v))), "fin"), UpstreamUnavailable),
    "an empty body": (lambda v: Answer([]), UpstreamProtocol),
    "half of the JSON": (lambda v: Answer([body_of(v)[: len(body_of(v)) // 2]]), UpstreamProtocol),
    "JSON and more": (lambda v: Answer([body_of(v), b"}"]), UpstreamProtocol),
    "a JSON text": (lambda v: Answer([b'"hello"']), UpstreamProtocol),
    "a JSON number": (lambda v: Answer([b"42"]), UpstreamProtocol),
    "a JSON null": (lambda v: Answer([b"null"]), UpstreamProtocol),
    "a JSON array": (lambda v: Answer([b"[]"]), UpstreamProtocol),
    "an empty object": (lambda v: Answer([b"{}"]), UpstreamProtocol),
    "bytes that are no UTF-8": (lambda v: spoilt(v, UMBRELLA, b"\xff\xfe"), UpstreamProtocol),
    "JSON without a bottom": (lambda v: Answer([DEEP]), UpstreamProtocol),
    "a body beyond the limit": (lambda v: Answer([b" " * BODY_LIMIT, body_of(v)]), UpstreamProtocol),
}  # fmt: skip


def seen(error: GatewayError) -> type[GatewayError]:
    """The class that callers know: routing's finer ones look like those above them."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == GatewayError.__module__)


@both
@pytest.mark.parametrize("name", ANYWHERE)
async def test_before_the_answer(
    ground: Ground, vendor: Vendor, transport: str, name: str, stream: bool
) -> None:
    make, kind = ANYWHERE[name]
    ground.play(make(vendor))
    events, _, error = await ground.ask(transport, vendor.kind, stream=stream)
    assert seen(error) is kind, error
    assert not events
    assert error.metadata["provider"] == vendor.kind
    if "retry-after" in getattr(make(vendor), "headers", {}):
        assert error.retry_after == 7
    assert ground.up.requests[-1].path != "/elsewhere"
    await ground.serves_still(transport, vendor)


@pytest.mark.parametrize("name", UNARY)
async def test_in_a_whole_answer(ground: Ground, vendor: Vendor, transport: str, name: str) -> None:
    make, kind = UNARY[name]
    ground.play(make(vendor))
    _, _, error = await ground.ask(transport, vendor.kind, stream=False)
    assert seen(error) is kind, error
    await ground.serves_still(transport, vendor)


@both
async def test_nobody_listens(ground: Ground, vendor: Vendor, transport: str, stream: bool) -> None:
    events, _, error = await ground.ask(transport, f"gone-{vendor.kind}", stream=stream)
    assert seen(error) is UpstreamUnavailable
    assert not events


@both
async def test_the_callers_deadline(
    ground: Ground, vendor: Vendor, transport: str, stream: bool
) -> None:
    # Enough for the call to arrive, also on a busy machine.
    seconds = 0.06 if transport == "direct" else 0.2
    for step in (hang(), hang_after_headers(True)) if stream else (hang(),):
        ground.play(step)
        events, _, error = await ground.ask(transport, vendor.kind, stream=stream, seconds=seconds)
        assert type(error) is DeadlineExceeded
        assert not events
    if stream:
        ground.play(streamed(vendor, [*pieces_of(vendor, RICH)[:-2], 9.0]))
        events, _, error = await ground.ask(transport, vendor.kind, stream=True, seconds=seconds)
        assert type(error) is DeadlineExceeded
        assert events


# Oddities that are no failures.
ODD: dict[str, Callable[[Vendor], Answer]] = {
    "text/plain": lambda v: replace(v.answer(TEXT), content_type="text/plain"),
    "no content type": lambda v: replace(v.answer(TEXT), content_type=None),
    "gzip": lambda v: Answer([gzip.compress(body_of(v))], headers={"content-encoding": "gzip"}),
    "byte by byte": lambda v: replace(v.answer(TEXT), cut=1),
    "until the end of the connection": lambda v: replace(v.answer(TEXT), framing="close"),
    "pretty-printed": lambda v: Answer([json.dumps(json.loads(body_of(v)), indent=2).encode()]),
    "members that nobody knows": lambda v: whole({"surprise": {"a": [1, None]}, **json.loads(body_of(v))}),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
async def test_odd_but_right(ground: Ground, vendor: Vendor, name: str) -> None:
    ground.play(ODD[name](vendor))
    _, response, error = await ground.ask("direct", vendor.kind, stream=False)
    assert error is None, error
    assert response is not None
    assert [part.text for part in response.choices[0].message.parts] == [TEXT.text]


# -- streams ------------------------------------------------------------------------------------------


async def good_events(ground: Ground, vendor: Vendor, transport: str) -> Any:
    ground.play(streamed(vendor, pieces_of(vendor, RICH)))
    events, _, error = await ground.ask(transport, vendor.kind, stream=True)
    assert error is None
    return fold(events).choices[0]


@pytest.mark.parametrize("ending", ["complete", "fin", "rst"])
async def test_a_stream_cut_at_every_event(
    ground: Ground, vendor: Vendor, transport: str, ending: Any
) -> None:
    """It never passes for a whole answer, unless nothing of the answer is missing."""
    whole_choice = await good_events(ground, vendor, transport)
    pieces = pieces_of(vendor, RICH)
    enough = len(pieces) - EXPENDABLE.get(vendor.kind, 0)
    for count in range(len(pieces) + 1):
        ground.play(streamed(vendor, pieces, stop_after=count, ending=ending))
        events, _, error = await ground.ask(transport, vendor.kind, stream=True)
        if error is None:
            assert count >= enough, f"cut after {count} of {len(pieces)} events"
            assert fold(events).choices[0] == whole_choice
        else:
            broken = UpstreamProtocol if ending == "complete" else UpstreamUnavailable
            assert seen(error) is broken, (count, error)
            assert ending != "complete" or count < enough


async def test_an_error_in_the_stream_at_every_event(
    ground: Ground, vendor: Vendor, transport: str
) -> None:
    pieces = pieces_of(vendor, RICH)
    seen = 0
    for count in range(len(pieces) - EXPENDABLE.get(vendor.kind, 0)):
        for together in (False, True):
            sent = [*pieces[:count], failure_event(vendor, f"broken, says {SECRET}")]
            ground.play(streamed(vendor, [b"".join(sent)] if together else sent))
            events, _, error = await ground.ask(transport, vendor.kind, stream=True)
            assert isinstance(error, UpstreamUnavailable), (count, error)
            assert "broken, says [redacted]" in error.message
            seen = max(seen, len(events))
    assert seen > 4  # what came before the error was passed on


# name -> the event in the middle of the stream, as bytes without framing; all are UpstreamProtocol.
NONSENSE: dict[str, bytes] = {
    "bad JSON": b"{nope",
    "half of an object": b'{"a":',
    "JSON without a bottom": b"[" * 30_000,
    "a bottom that comes late": b'{"surprise":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "a JSON text": b'"hello"',
    "a JSON number": b"42",
    "a JSON array": b"[1]",
    "HTML": b"<html><body>Bad Gateway</body></html>",
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_in_a_stream(
    ground: Ground, vendor: Vendor, transport: str, name: str
) -> None:
    pieces = pieces_of(vendor, RICH)
    for count in (0, 3):
        sent = [*pieces[:count], framed(vendor, NONSENSE[name]), *pieces[count:]]
        ground.play(streamed(vendor, sent))
        _, _, error = await ground.ask(transport, vendor.kind, stream=True)
        assert type(error) is UpstreamProtocol, error
    await ground.serves_still(transport, vendor)


async def test_bytes_that_are_no_utf8(ground: Ground, vendor: Vendor, transport: str) -> None:
    pieces = pieces_of(vendor, RICH)
    if vendor.kind == "bedrock":
        spoiled = b'{"contentBlockIndex":1,"delta":{"text":"\xff\xfe"}}'
        pieces[4:4] = [framed(vendor, spoiled)]
    else:
        pieces = [piece.replace(UMBRELLA, b"\xff\xfe") for piece in pieces]
    ground.play(streamed(vendor, pieces))
    _, _, error = await ground.ask(transport, vendor.kind, stream=True)
    assert type(error) is UpstreamProtocol, error


async def test_events_beyond_the_limit(ground: Ground, vendor: Vendor, transport: str) -> None:
    pieces = pieces_of(vendor, RICH)
    huge = framed(vendor, b'{"surprise":"' + b"x" * EVENT_LIMIT + b'"}')
    for sent in ([huge], [*pieces[:3], huge], [*pieces[:3], huge[:100], huge[100:]]):
        ground.play(streamed(vendor, [*sent, *pieces[3:]]))
        _, _, error = await ground.ask(transport, vendor.kind, stream=True)
        assert type(error) is UpstreamProtocol, error
        assert str(EVENT_LIMIT) in error.message
    start = b"\x00\x7f\xff\xff" if vendor.kind == "bedrock" else b"data: "
    ground.play(endless(start, content_type=streamed(vendor, []).content_type))
    _, _, error = await ground.ask(transport, vendor.kind, stream=True)
    assert type(error) is UpstreamProtocol, error
    assert ground.up.requests[-1].sent < 32 * EVENT_LIMIT + 8 * 2**20


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("bedrock", "ollama")])
async def test_many_small_lines_are_an_event_too(ground: Ground, kind: str) -> None:
    vendor = BY_KIND[kind]
    ground.play(streamed(vendor, [b"data: x\ndata:\n" * 64] * (EVENT_LIMIT // 128)))
    _, _, error = await ground.ask("direct", kind, stream=True)
    assert type(error) is UpstreamProtocol
    assert str(EVENT_LIMIT) in error.message


WHOLE_FOR_A_STREAM: dict[str, tuple[Maker, type[GatewayError]]] = {
    "a whole answer": (lambda v: Answer([body_of(v)]), UpstreamProtocol),
    "an empty stream": (lambda v: streamed(v, []), UpstreamProtocol),
    "an error in a stream's dress": (lambda v: streamed(v, [failure_event(v)]), UpstreamUnavailable),
    "gzip that is none": (lambda v: streamed(v, [b"garbage" * 99], headers={"content-encoding": "gzip"}), UpstreamProtocol),
    "a bad chunk size": (lambda v: raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), UpstreamProtocol),
    "JSON by its type": (lambda v: streamed(v, pieces_of(v, TEXT), content_type="application/json"), UpstreamProtocol),
    "an error that breaks off": (lambda v: Answer([error_body(v), b" " * 9999], stop_after=1, ending="rst"), UpstreamUnavailable),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE_FOR_A_STREAM)
async def test_no_stream_at_all(ground: Ground, vendor: Vendor, transport: str, name: str) -> None:
    make, kind = WHOLE_FOR_A_STREAM[name]
    ground.play(make(vendor))
    events, _, error = await ground.ask(transport, vendor.kind, stream=True)
    assert isinstance(error, kind), error
    assert not events
    await ground.serves_still(transport, vendor)


# -- counting -------------------------------------------------------------------------------------------

COUNTERS = [
    kind for kind in KINDS if kind in ("anthropic", "gemini", "bedrock", "openai_responses")
]


def counted(number: bytes) -> Answer:
    """An answer to a request to count, in the words of all vendors at once."""
    names = (b"input_tokens", b"inputTokens", b"totalTokens")
    return Answer([b"{" + b",".join(b'"%b":%b' % (name, number) for name in names) + b"}"])


NO_NUMBERS = [
    b"-1", b"99999999999999999999", b"9223372036854775808", b"1e30", b'"7"', b"null", b"{}", DEEP, b"",
]  # fmt: skip


@pytest.mark.parametrize("kind", COUNTERS)
async def test_counting(ground: Ground, kind: str, transport: str) -> None:
    vendor = BY_KIND[kind]
    ground.play(counted(b"7"))
    found, error = await ground.count(transport, kind)
    assert found is not None and (found.input_tokens, found.estimated) == (7, False), error
    for name, (make, expected) in ANYWHERE.items():
        ground.play(make(vendor))
        _, error = await ground.count(transport, kind)
        assert seen(error) is expected, (name, error)
    for number in NO_NUMBERS:
        ground.play(counted(number))
        _, error = await ground.count(transport, kind)
        assert type(error) is UpstreamProtocol, (number[:20], error)
