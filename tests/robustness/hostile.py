"""What every vendor's answers and failures look like on the wire, in pieces that can be broken.

Independent of the dialects under test. Shapes that are answers come from square.vendors; the failures are
in the forms that the vendors' pages on errors show.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from fakes.eventstream import event_stream
from fakes.steps import Answer
from square.vendors import VENDORS, Call, Json, Reply, Vendor

BY_KIND = {vendor.kind: vendor for vendor in VENDORS}
KINDS = list(BY_KIND)
SSE_KINDS = [kind for kind in KINDS if kind not in ("bedrock", "ollama")]

SECRET = "upstream-secret-key"
WORDS = "Something went wrong."
PROOF = "cHJvb2YgLSBvcGFxdWU="

TEXT = Reply("It rains. ☂")
RICH = Reply(
    "Let me look. ☂",
    thinking="Two cities, so two calls.",
    proof=PROOF,
    calls=[
        Call("get_weather", {"city": "Paris"}, "call_a"),
        Call("get_weather", {"city": "Zürich", "days": 2}, "call_b"),
    ],
)


def provider(vendor: Vendor, origin: str, name: str = "") -> str:
    """The line of a provider in the configuration."""
    key = "" if vendor.kind == "bedrock" else f", api_key: {SECRET}"
    settings = vendor.settings.replace("not-a-secret-key", SECRET)
    address = f'base_url: "{origin}{vendor.path}"'
    return f"  {name or vendor.kind}: {{kind: {vendor.kind}, {address}{key}{settings}}}"


# -- streams ------------------------------------------------------------------------------------------


def pieces_of(vendor: Vendor, reply: Reply) -> list[bytes]:
    """A whole stream, an event a piece."""
    pieces = list(vendor.stream(reply).pieces)  # type: ignore[arg-type]
    if vendor.kind != "bedrock":
        return pieces  # type: ignore[return-value]
    (blob,) = pieces
    assert isinstance(blob, bytes)
    frames = []
    while blob:
        (length,) = struct.unpack_from("!I", blob)
        frames.append(blob[:length])
        blob = blob[length:]
    return frames


def streamed(vendor: Vendor, pieces: list[Any], **options: Any) -> Answer:
    """These pieces as the vendor's stream."""
    types = {"bedrock": "application/vnd.amazon.eventstream", "ollama": "application/x-ndjson"}
    kind = types.get(vendor.kind, "text/event-stream")
    return Answer(pieces, **{"content_type": kind, "framing": "chunked"} | options)


# How many of the last events may be missing from a stream that is a whole answer all the same: usage and
# marks that say nothing about the answer itself.
EXPENDABLE = {"openai": 2, "bedrock": 1}


def event_with(vendor: Vendor, body: Json, kind: str = "") -> bytes:
    """One event of the vendor's framing around any JSON."""
    text = json.dumps(body, ensure_ascii=False)
    return framed(vendor, text.encode(), kind or str(body.get("type", "")))


def framed(vendor: Vendor, data: bytes, kind: str = "") -> bytes:
    """One event of the vendor's framing around any bytes without line ends."""
    if vendor.kind == "bedrock":
        return frame(kind or "contentBlockDelta", data)
    if vendor.kind == "ollama":
        return data + b"\n"
    name = f"event: {kind}\n".encode() if kind else b""
    return name + b"data: " + data + b"\n\n"


def frame(kind: str, payload: bytes) -> bytes:
    """One message of AWS's event stream around any bytes."""
    import zlib

    headers = {":event-type": kind, ":message-type": "event", ":content-type": "application/json"}
    block = b"".join(
        struct.pack("!B", len(name)) + name.encode() + b"\x07"
        + struct.pack("!H", len(value)) + value.encode()
        for name, value in headers.items()
    )  # fmt: skip
    prelude = struct.pack("!II", 16 + len(block) + len(payload), len(block))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + block + payload
    return message + struct.pack("!I", zlib.crc32(message))


# -- failures -----------------------------------------------------------------------------------------


def failed(
    vendor: Vendor, status: int, message: str = WORDS, *, headers: dict[str, str] | None = None
) -> Answer:
    """An answer with this status and the vendor's own envelope."""
    body, own = _envelope(vendor.kind, status, message)
    return Answer([json.dumps(body).encode()], status, {**own, **(headers or {})})


def _envelope(kind: str, status: int, message: str) -> tuple[Json, dict[str, str]]:
    if kind == "openai" or kind == "openai_responses":
        types = {401: "authentication_error", 429: "rate_limit_error"}
        error = {"message": message, "type": types.get(status, "server_error"), "code": None}
        return {"error": error | {"param": "tools" if status == 400 else None}}, {}
    if kind == "anthropic":
        types = {
            401: "authentication_error", 403: "permission_error", 429: "rate_limit_error",
            529: "overloaded_error",
        }  # fmt: skip
        member = "tools: " if status == 400 else ""
        error = {"type": types.get(status, "api_error"), "message": member + message}
        return {"type": "error", "error": error, "request_id": "req_1"}, {}
    if kind == "gemini":
        names = {
            401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED",
            500: "INTERNAL", 503: "UNAVAILABLE",
        }  # fmt: skip
        name = names.get(status, "UNKNOWN")
        return {"error": {"code": status, "message": message, "status": name}}, {}
    if kind == "bedrock":
        names = {
            401: "UnrecognizedClientException", 403: "AccessDeniedException",
            429: "ThrottlingException", 500: "InternalServerException",
            503: "ServiceUnavailableException",
        }  # fmt: skip
        return {"message": message}, (
            {"x-amzn-errortype": names[status]} if status in names else {}
        )
    if kind == "cohere":
        return {"id": "e1", "message": message}, {}
    return {"error": message}, {}


def failure_event(vendor: Vendor, message: str = WORDS) -> bytes:
    """The event by which the vendor says, within a stream, that it is overloaded or has failed."""
    kind = vendor.kind
    if kind == "openai":
        error: Json = {"error": {"message": message, "type": "server_error", "code": None}}
    elif kind == "anthropic":
        error = {"type": "error", "error": {"type": "overloaded_error", "message": message}}
    elif kind == "gemini":
        error = {"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}}
    elif kind == "bedrock":
        told = {"exception": "serviceUnavailableException", "payload": {"message": message}}
        return event_stream(json.dumps(told))
    elif kind == "cohere":
        delta = {"finish_reason": "ERROR", "error": message}
        error = {"type": "message-end", "delta": delta}
    elif kind == "openai_responses":
        error = {"type": "error", "code": "server_error", "message": message, "param": None}
    else:
        error = {"error": message}
    return event_with(vendor, error)


def error_body(vendor: Vendor, message: str = WORDS) -> bytes:
    """The vendor's envelope of an internal error, for answers that say 200 all the same."""
    return json.dumps(_envelope(vendor.kind, 500, message)[0]).encode()
