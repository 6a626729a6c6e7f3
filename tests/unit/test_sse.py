"""Server-sent events: framing, for every cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import UpstreamProtocol
from headgate_server.sse import SseEvent, SseParser


def parse(*pieces: bytes, limit: int = 1 << 20) -> list[SseEvent]:
    parser = SseParser(limit)
    return [event for piece in pieces for event in parser.feed(piece)] + parser.finish()


def data(*pieces: bytes) -> list[bytes]:
    return [event.data for event in parse(*pieces)]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", []),
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data\n\n", [b""]),
        (b"data:\n\n", [b""]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\ndata\n\n", [b"\n"]),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        (b": ping\n\ndata: a\n\n: ping\n\n", [b"a"]),
        (b"id: 1\nretry: 2\nother: 3\ndatax: 4\n\n", []),
        (b"data: a\nid: 1\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: a", [b"a"]),
        (b"data: a\n", [b"a"]),
        (b"data: a\r", [b"a"]),
        (b"data: a\rdata: b", [b"a\nb"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\n\r\ndata: b\r\n\n", [b"a", b"b"]),
        (b"data: a\r\ndata: b\n\n", [b"a\nb"]),
        (b"data: \xff\x00\n\n", [b"\xff\x00"]),
        (b" data: a\n\n", []),
        (b"DATA: a\n\n", []),
    ],
)
def test_framing_at_all_pairs_of_cuts(raw: bytes, expected: list[bytes]) -> None:
    assert data(raw) == expected
    for first in range(len(raw) + 1):
        for second in range(first, len(raw) + 1):
            assert data(raw[:first], raw[first:second], raw[second:]) == expected
    assert data(*[raw[i : i + 1] for i in range(len(raw))]) == expected


def test_event_types() -> None:
    raw = b"event: a\ndata: 1\n\ndata: 2\n\nevent:b\n\nevent: c\nevent: d\ndata: 3\n\n"
    assert parse(raw) == [SseEvent(b"a", b"1"), SseEvent(b"", b"2"), SseEvent(b"d", b"3")]


@given(st.lists(st.sampled_from([b"\r", b"\n", b"data", b":", b" ", b"x", b"\xef\xbb\xbf", b""])))
def test_pieces_do_not_matter(pieces: list[bytes]) -> None:
    assert parse(*pieces) == parse(b"".join(pieces))


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_an_event_comes_out_with_the_byte_that_ends_it(end: bytes) -> None:
    parser = SseParser()
    assert parser.feed(b"data: a" + end[:-1]) in ([], [SseEvent(b"", b"a")])
    parser = SseParser()
    assert parser.feed(b"data: a" + end) == [SseEvent(b"", b"a")]


@pytest.mark.parametrize(
    "raw",
    [
        b"data: " + b"x" * 101,
        b"data: " + b"x" * 101 + b"\n\n",
        b"data: 0123456789\n" * 11,
        b"data:\n" * 200,
        b"data\n" * 200,
        b": " + b"x" * 200,
    ],
)
def test_limits(raw: bytes) -> None:
    with pytest.raises(UpstreamProtocol, match="100 bytes"):
        parse(*[raw[i : i + 1] for i in range(len(raw))], limit=100)
    if not raw.startswith(b":"):
        with pytest.raises(UpstreamProtocol, match="100 bytes"):
            parse(raw, limit=100)


def test_the_limit_is_of_one_event() -> None:
    event = b"data: " + b"x" * 80 + b"\n\n"
    assert len(parse(event * 50, limit=100)) == 50
    assert len(parse(*[event] * 50, limit=100)) == 50


class Counting(bytes):
    """Bytes that count how often they are looked through."""

    looks = 0

    def __contains__(self, key: object) -> bool:
        Counting.looks += len(self)
        return super().__contains__(key)  # type: ignore[operator]


def test_a_long_line_in_small_pieces_is_looked_at_once() -> None:
    """Per byte: two looks for line ends, one join. Joining at each piece would make 10**12."""
    parser = SseParser(2 << 20)
    size = 1 << 20
    Counting.looks = 0
    parser.feed(b"data: ")
    piece = Counting(b"x")
    for _ in range(size):
        assert parser.feed(piece) == []
    assert Counting.looks <= 2 * size
    assert len(parser._pieces) <= size + 1
    (event,) = parser.feed(b"\n\n")
    assert event.data == b"x" * size
    assert parser._pieces == []
