"""AWS's binary framing of streamed events: https://smithy.io/2.0/aws/amazon-eventstream.html."""

from __future__ import annotations

import json
import struct
import zlib


def event_stream(text: str) -> bytes:
    """The events in these lines: `[type, payload]` each, or `{"exception": type, "payload": ...}`."""
    out = b""
    for line in text.splitlines():
        given = json.loads(line)
        if isinstance(given, dict):
            kind, payload = given["exception"], given["payload"]
            headers = {":exception-type": kind, ":message-type": "exception"}
        else:
            kind, payload = given
            headers = {":event-type": kind, ":message-type": "event"}
        headers[":content-type"] = "application/json"
        block = b"".join(
            struct.pack("!B", len(name)) + name.encode() + b"\x07"
            + struct.pack("!H", len(value)) + value.encode()
            for name, value in headers.items()
        )  # fmt: skip
        out += frame(block, json.dumps(payload, separators=(",", ":")).encode())
    return out


def frame(headers: bytes, payload: bytes = b"{}") -> bytes:
    """A message with a block of headers, however odd, and the right lengths and checksums."""
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack("!I", zlib.crc32(message))
