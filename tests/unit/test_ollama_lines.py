"""The parser for newline-delimited JSON."""

from __future__ import annotations

import pytest

from headgate.errors import UpstreamProtocol
from headgate_server.providers.ollama.lines import LineParser

TEXT = '{"a":"ä"}\n\r\n{"b":"\U0001f642"}\r\n \n{"c":3}'.encode()
LINES = ['{"a":"ä"}'.encode(), '{"b":"\U0001f642"}'.encode(), b'{"c":3}']


def lines_of(pieces: list[bytes], limit: int = 100) -> list[bytes]:
    parser = LineParser(limit)
    return [line for piece in pieces for line in parser.feed(piece)] + parser.finish()


def test_every_cut_gives_the_same_lines() -> None:
    assert lines_of([TEXT]) == LINES
    assert lines_of([TEXT[i : i + 1] for i in range(len(TEXT))]) == LINES
    for first in range(len(TEXT)):
        for second in range(first, len(TEXT)):
            pieces = [TEXT[:first], TEXT[first:second], b"", TEXT[second:]]
            assert lines_of(pieces) == LINES


def test_lines_come_with_their_end() -> None:
    parser = LineParser(100)
    assert parser.feed(b'{"a":') == []
    assert parser.feed(b"1}") == []
    assert parser.feed(b'\n{"b"') == [b'{"a":1}']
    assert parser.finish() == [b'{"b"']
    assert parser.finish() == []


def test_nothing_gives_nothing() -> None:
    assert lines_of([]) == lines_of([b"", b"\n", b"\r\n\n"]) == []


@pytest.mark.parametrize(
    "pieces",
    [[b"x" * 11], [b"x" * 6, b"x" * 5], [b"x" * 11 + b"\n"], [b"x" * 6, b"x" * 5 + b"\n"]],
    ids=["at once", "in pieces", "whole", "whole in pieces"],
)
def test_a_line_over_the_limit(pieces: list[bytes]) -> None:
    with pytest.raises(UpstreamProtocol, match="10 bytes"):
        lines_of(pieces, 10)


def test_lines_within_the_limit_have_no_sum() -> None:
    assert lines_of([b"x" * 10 + b"\n"] * 50, 10) == [b"x" * 10] * 50
    assert lines_of([b"x" * 5, b"x" * 5 + b"\n" + b"y" * 10], 10) == [b"x" * 10, b"y" * 10]
