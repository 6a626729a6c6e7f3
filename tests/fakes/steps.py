"""What the fake upstream can be told to do with a request: behave, or make some kind of trouble.

Owns answers as bytes on the wire; a step is any `async def step(exchange)`, so tests may write
their own beside these. Knows nothing of sockets but what `Exchange` offers.
"""

from __future__ import annotations

import asyncio
import gzip
import http
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fakes.bodies import MODEL, USAGE, Json, chunks, completion
from fakes.wire import Ending, Exchange, Piece, Step

FILLER = b"a" * 65536

Framing = Literal["length", "chunked", "close"]


# -- steps: the general ones --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; the other steps are spellings of it. `dataclasses.replace` varies any.

    A `stop_after` with the ending "complete" is a well-formed but shorter body. With "hang", "fin"
    and "rst" the framing promises the whole body: a Content-Length larger than what is sent, or
    chunks without a terminator.
    """

    pieces: Sequence[Piece] | Callable[[], Iterable[Piece]]  # a callable makes them as they go out
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)  # win over those made here
    content_type: str | None = "application/json"
    framing: Framing = "length"
    length: int | None = None  # Content-Length; needed with a callable and the framing "length"
    delay: float = 0.0  # seconds between writes
    cut: int | None = None  # bytes per write, across pieces; else one write a piece
    cut_head: bool = False  # whether `cut` and `delay` hold for status line and headers too
    stop_after: int | None = None  # byte pieces to send
    ending: Ending = "complete"

    async def __call__(self, exchange: Exchange) -> None:
        if not self.cut_head:
            await exchange.write(self._head())
        first = True
        for piece in _cut(self._wire(), self.cut):
            if self.delay and not first and isinstance(piece, bytes):
                await asyncio.sleep(self.delay)
            await exchange.put(piece)
            first = False
        await exchange.end(self.ending)
        if self.framing == "close":
            exchange.close()

    def _head(self) -> bytes:
        fields = {"content-type": self.content_type} if self.content_type else {}
        if self.framing == "chunked":
            fields["transfer-encoding"] = "chunked"
        elif self.framing == "close":
            fields["connection"] = "close"
        elif (length := self.length) is not None:
            fields["content-length"] = str(length)
        else:
            pieces = self._sent() if self.ending == "complete" else self._pieces()
            fields["content-length"] = str(sum(len(p) for p in pieces if isinstance(p, bytes)))
        fields |= {name.lower(): value for name, value in self.headers.items()}
        try:
            reason = http.HTTPStatus(self.status).phrase
        except ValueError:
            reason = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {reason}", *(f"{k}: {v}" for k, v in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _pieces(self) -> Iterable[Piece]:
        return self.pieces() if callable(self.pieces) else self.pieces

    def _sent(self) -> Iterator[Piece]:
        count = 0
        for piece in self._pieces():
            if isinstance(piece, bytes):
                if count == self.stop_after:
                    return
                count += 1
            yield piece

    def _wire(self) -> Iterator[Piece]:
        if self.cut_head:
            yield self._head()
        for piece in self._sent():
            if not isinstance(piece, bytes) or self.framing != "chunked":
                yield piece
            elif piece:  # an empty chunk would end the body
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
        if self.framing == "chunked" and self.ending == "complete":
            yield b"0\r\n\r\n"


def _cut(pieces: Iterable[Piece], size: int | None) -> Iterator[Piece]:
    held = bytearray()
    for piece in pieces:
        if size is None or not isinstance(piece, bytes):
            if held:
                yield bytes(held)
                held.clear()
            yield piece
            continue
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def answer(body: Any = None, status: int = 200, **options: Any) -> Answer:
    """Answer with JSON; `bytes` go out as they are. Options are fields of `Answer`."""
    body = completion() if body is None else body
    return Answer([body if isinstance(body, bytes) else _dump(body)], status, **options)


def sse(events: Iterable[Json | Piece], *, done: bool = True, **options: Any) -> Answer:
    """Stream events: objects become `data:` lines, bytes and pauses go as they are."""
    pieces = [b"data: %b\n\n" % _dump(e) if isinstance(e, dict) else e for e in events]
    if done:
        pieces.append(b"data: [DONE]\n\n")
    options = {"content_type": "text/event-stream; charset=utf-8", "framing": "chunked"} | options
    return Answer(pieces, **options)


def raw(*pieces: Piece, cut: int | None = None, ending: Ending = "fin") -> Step:
    """Write bytes to the wire without any HTTP made here, then end."""

    async def play(exchange: Exchange) -> None:
        for piece in _cut(pieces, cut):
            await exchange.put(piece)
        await exchange.end(ending)

    return play


def chat(text: str = "Hello! How can I help you today?", **options: Any) -> Step:
    """Behave: JSON or a stream as the request asks, usage as it asks, a list for GET /models."""

    async def play(exchange: Exchange) -> None:
        record = exchange.record
        if record.method == "GET":
            await answer({"object": "list", "data": [MODEL]}, **options)(exchange)
            return
        asked = record.json
        model = asked.get("model", "m")
        if not asked.get("stream"):
            await answer(completion(text, model=model), **options)(exchange)
            return
        usage = USAGE if (asked.get("stream_options") or {}).get("include_usage") else None
        words = [text[i : i + 8] for i in range(0, len(text), 8)]
        await sse(chunks(words, model=model, usage=usage), **options)(exchange)

    return play


def echo(**options: Any) -> Step:
    """Like `chat`, with the request's JSON as the text."""

    async def play(exchange: Exchange) -> None:
        await chat(json.dumps(exchange.record.json, ensure_ascii=False), **options)(exchange)

    return play


# -- steps: kinds of trouble --------------------------------------------------------------------


def error(
    status: int,
    message: str = "Something went wrong.",
    *,
    type: str = "server_error",
    code: str | None = None,
    param: str | None = None,
    **options: Any,
) -> Answer:
    """Answer with OpenAI's error envelope."""
    body = {"error": {"message": message, "type": type, "param": param, "code": code}}
    return answer(body, status, **options)


def rate_limited(retry_after: str | float = 1, **options: Any) -> Answer:
    """429 with Retry-After: seconds, or an HTTP date as text."""
    options = {"headers": {"retry-after": str(retry_after)}} | options
    text = "Rate limit reached for requests."
    return error(429, text, type="requests", code="rate_limit_exceeded", **options)


def html(status: int = 502, text: str = "Bad Gateway", **options: Any) -> Answer:
    """The page of a proxy in between."""
    page = f"<html><head><title>{status} {text}</title></head><body><h1>{text}</h1></body></html>"
    return Answer([page.encode()], status, **{"content_type": "text/html"} | options)


def redirect(url: str, status: int = 307) -> Answer:
    """Send the caller elsewhere."""
    return Answer([], status, {"location": url}, content_type=None)


def hang() -> Step:
    """Say nothing at all."""
    return raw(ending="hang")


def hang_after_headers(stream: bool = False) -> Answer:
    """Status and headers, then silence."""
    whole = sse(chunks()) if stream else answer()
    return replace(whole, stop_after=0, ending="hang")


def disconnect() -> Step:
    """Close before any byte of an answer."""
    return raw(ending="fin")


def reset() -> Step:
    """Reset the connection before any byte of an answer."""
    return raw(ending="rst")


def slow(seconds: float | asyncio.Event, step: Step) -> Step:
    """Wait, then do the step."""

    async def play(exchange: Exchange) -> None:
        await exchange.put(seconds)
        await step(exchange)

    return play


def trickle(step: Answer, delay: float = 0.01, *, cut_head: bool = False) -> Answer:
    """The answer byte by byte."""
    return replace(step, cut=1, delay=delay, cut_head=cut_head)


def endless(start: bytes = b"data: ", limit: int = 1 << 30, **options: Any) -> Answer:
    """A line that goes on until the peer closes (or `limit` bytes are through)."""
    options = {"content_type": "text/event-stream", "framing": "chunked"} | options
    return Answer(lambda: _filled(start, limit, b""), **options)


def big(megabytes: int, *, valid: bool = True, **options: Any) -> Answer:
    """A completion whose text has so many megabytes, made as it goes out; else plain junk."""
    size = megabytes << 20
    head, tail = _dump(completion("\0")).split(b"\\u0000") if valid else (b"", b"")
    length = len(head) + size + len(tail)
    return Answer(lambda: _filled(head, size, tail), **{"length": length} | options)


def bad_status_line(line: bytes = b"HTP/banana 200 OK") -> Step:
    """Not HTTP, though close."""
    return raw(line + b"\r\ncontent-length: 0\r\n\r\n")


def bad_chunks(size_line: bytes = b"zz") -> Step:
    """Headers and one good chunk of a stream, then a chunk size that is no number."""
    good = b"data: %b\n\n" % _dump(chunks(["Hi"])[0])
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return raw(head, b"%x\r\n%b\r\n" % (len(good), good), size_line + b"\r\ndata: x\r\n")


def huge_headers(size: int = 1 << 20, body: Any = None) -> Answer:
    """A header field of so many bytes."""
    return answer(body, headers={"x-huge": "h" * size})


def gzipped(body: Any = None, status: int = 200, **options: Any) -> Answer:
    """The answer compressed, whether asked for or not."""
    plain = body if isinstance(body, bytes) else _dump(completion() if body is None else body)
    headers = {"content-encoding": "gzip", **options.pop("headers", {})}
    return Answer([gzip.compress(plain)], status, headers, **options)


def bomb(megabytes: int = 256, **options: Any) -> Answer:
    """A small compressed body that becomes so many megabytes."""
    member = gzip.compress(bytes(1 << 20), 9)  # members may follow each other (RFC 1952, 2.2)
    return Answer([member] * megabytes, headers={"content-encoding": "gzip"}, **options)


def informed(step: Step, status: int = 100) -> Step:
    """An interim answer before the real one, unasked (a request's Expect is always honoured)."""

    async def play(exchange: Exchange) -> None:
        await exchange.write(f"HTTP/1.1 {status} Interim\r\n\r\n".encode())
        await step(exchange)

    return play


def close_after(step: Step, delay: float = 0.0) -> Step:
    """Keep-alive by the headers, yet closed after the answer: the next request meets a corpse."""

    async def play(exchange: Exchange) -> None:
        await step(exchange)
        await asyncio.sleep(delay)
        exchange.close()

    return play


def _filled(head: bytes, size: int, tail: bytes) -> Iterator[bytes]:
    yield head
    for _ in range(size // len(FILLER)):
        yield FILLER
    yield FILLER[: size % len(FILLER)]
    yield tail


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
