"""The parser of AWS's event streams: framing, checksums, bounds; the same for every cut."""

from __future__ import annotations

import json
import random
import struct
import zlib

import pytest

from fakes.eventstream import event_stream, frame
from headgate.errors import UpstreamProtocol
from headgate_server.providers.bedrock.eventstream import EventStreamParser, Message

LINES = [
    ["messageStart", {"role": "assistant"}],
    ["contentBlockDelta", {"delta": {"text": "Grüße"}, "contentBlockIndex": 0}],
    {"exception": "throttlingException", "payload": {"message": "slow"}},
    ["big", {"x": "y" * 5000}],
]
STREAM = event_stream("\n".join(map(json.dumps, LINES)))


def parse(*pieces: bytes, limit: int = 1 << 20) -> list[Message]:
    parser = EventStreamParser(limit)
    return [message for piece in pieces for message in parser.feed(piece)]


def test_messages_are_read() -> None:
    found = parse(STREAM)
    assert [message.headers.get(":event-type") for message in found] == [
        "messageStart",
        "contentBlockDelta",
        None,
        "big",
    ]
    assert found[2].headers[":exception-type"] == "throttlingException"
    assert found[2].headers[":message-type"] == "exception"
    assert json.loads(found[1].payload)["delta"] == {"text": "Grüße"}


def test_every_cut_gives_the_same_messages() -> None:
    expected = parse(STREAM)
    assert parse(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == expected
    for place in range(0, len(STREAM), 7):
        assert parse(STREAM[:place], b"", STREAM[place:]) == expected
    dice = random.Random(1)
    for _ in range(50):
        places = sorted(dice.sample(range(len(STREAM)), 12))
        pieces = [STREAM[a:b] for a, b in zip([0, *places], [*places, len(STREAM)], strict=True)]
        assert parse(*pieces) == expected


def test_the_end_is_where_a_message_ends() -> None:
    parser = EventStreamParser(1 << 20)
    assert parser.finish() == ()
    list(parser.feed(STREAM[:-1]))
    with pytest.raises(UpstreamProtocol, match="in the middle"):
        parser.finish()
    list(parser.feed(STREAM[-1:]))
    assert parser.finish() == ()


def test_headers_of_all_types() -> None:
    def header(name: str, kind: int, value: bytes) -> bytes:
        return struct.pack("!B", len(name)) + name.encode() + bytes([kind]) + value

    values = [
        (0, b""),
        (1, b""),
        (2, b"\x01"),
        (3, b"\x00\x01"),
        (4, b"\x00" * 4),
        (5, b"\x00" * 8),
        (6, b"\x00\x03abc"),
        (8, b"\x00" * 8),
        (9, b"\x00" * 16),
        (7, b"\x00\x02hi"),
    ]
    block = b"".join(header(f"h{kind}", kind, value) for kind, value in values)
    (found,) = parse(frame(block, b"payload"))
    assert found == Message({"h7": "hi"}, b"payload")


@pytest.mark.parametrize(
    "block",
    [
        b"\x05ab",  # a name that is longer than the block
        b"\x01a\x07\x00\x09short",
        b"\x01a\x63",  # an unknown type
        b"\x01a",
        b"\x01a\x07\x00",
        b"\x01\xff\x07\x00\x01a",
        b"\x01a\x07\x00\x01\xff",
    ],
)
def test_malformed_headers(block: bytes) -> None:
    with pytest.raises(UpstreamProtocol, match="header"):
        parse(frame(block))


def test_a_flipped_bit_is_found_wherever_it_is() -> None:
    stream = event_stream(json.dumps(LINES[0]))
    for place in range(len(stream)):
        broken = bytearray(stream)
        broken[place] ^= 0x10
        with pytest.raises(UpstreamProtocol, match="checksum"):
            parse(bytes(broken))


def test_what_came_before_damage_is_given_out() -> None:
    parser = EventStreamParser(1 << 20)
    damaged = STREAM + b"\x00" * 12
    found = []
    with pytest.raises(UpstreamProtocol, match="checksum"):
        for message in parser.feed(damaged):
            found.append(message)
    assert found == parse(STREAM)


def prelude(length: int, headers: int) -> bytes:
    start = struct.pack("!II", length, headers)
    return start + struct.pack("!I", zlib.crc32(start))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (prelude(0, 0), "impossible length"),
        (prelude(15, 0), "impossible length"),
        (prelude(30, 20), "impossible length"),
        (prelude(2**32 - 1, 2**32 - 1), "impossible length"),
        (prelude(200_000, 150_000), "impossible length"),
        (prelude(2**31, 0), "more than 1048576 bytes"),
        (prelude(1 << 21, 10), "more than 1048576 bytes"),
    ],
)
def test_lengths_are_bounded_before_anything_is_kept(start: bytes, said: str) -> None:
    with pytest.raises(UpstreamProtocol, match=said):
        parse(start)


def test_a_text_stream_is_none() -> None:
    with pytest.raises(UpstreamProtocol, match="checksum"):
        parse(b'data: {"error": "this is SSE"}\n\n')
