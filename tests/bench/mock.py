"""The upstream of the benchmark: chat completions with canned bytes, as cheap as Python gets.

Owns one uvloop process that answers without parsing JSON. Never what is measured, save as the
target `direct`. `python -m bench.mock --port 9100`, then:

    POST .../chat/completions     about 1 KB of JSON, or SSE if the body says `"stream": true`
    GET  /_mock/set?chunks=64&delay_ms=0&batch=1     how to stream from now on
    GET  /_mock/stats             requests, streams, events so far, and streams that are open

`x-mock-chunks` and `x-mock-delay-ms` on a request win over what is set. Without a delay the open
streams take turns, `batch` events each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from typing import Any, cast
from urllib.parse import parse_qsl

import httptools
import uvloop

ID = "chatcmpl-bench0123456789abcdefghij"
WORDS = 64
STREAM = re.compile(rb'"stream"\s*:\s*true')
USAGE = re.compile(rb'"include_usage"\s*:\s*true')


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _http(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _event(choices: list[dict[str, Any]], **extra: Any) -> bytes:
    chunk = {"id": ID, "object": "chat.completion.chunk", "created": 1700000000, "model": "m"}
    data = b"data: " + _dump(chunk | {"choices": choices} | extra) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _delta(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])


TOKENS = {"prompt_tokens": 120, "completion_tokens": 64, "total_tokens": 184}
TEXT = " ".join(f"word{i:02}" for i in range(90))
UNARY = _http(
    _dump(
        {
            "id": ID,
            "object": "chat.completion",
            "created": 1700000000,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": TEXT, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": TOKENS,
            "system_fingerprint": "fp_bench",
        }
    )
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
ROLE_EVENT = _delta({"role": "assistant", "content": "", "refusal": None})
CONTENT = [_delta({"content": f" word{i:02}"}) for i in range(WORDS)]
FINISH = _delta({}, "stop")
USAGE_EVENT = _event([], usage=TOKENS)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
MODELS = _http(_dump({"object": "list", "data": [{"id": "m", "object": "model"}]}))
READY = _http(b"{}")
MISSING = _http(b"{}", "404 Not Found")


class Mock:
    """Settings and counts of the whole process."""

    def __init__(self) -> None:
        self.settings = {"chunks": 64, "delay_ms": 0, "batch": 1}
        self.requests = self.streams = self.events = self.open = 0

    def control(self, path: bytes, query: bytes) -> bytes:
        """Answer whatever is not a chat completion."""
        if path == b"/_mock/set":
            self.settings.update((k, int(v)) for k, v in parse_qsl(query.decode()))
            return _http(_dump(self.settings))
        if path == b"/_mock/stats":
            names = ("requests", "streams", "events", "open")
            return _http(_dump({name: getattr(self, name) for name in names}))
        if path.endswith(b"/models"):
            return MODELS
        return READY if path == b"/readyz" else MISSING


class Connection(asyncio.Protocol):
    """One keep-alive connection; callbacks of httptools come in the order of their names below."""

    def __init__(self, mock: Mock) -> None:
        self.mock = mock
        self.parser = httptools.HttpRequestParser(self)
        self.timer: asyncio.Handle | None = None
        self.left = 0
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.left:
            self.left = 0
            self.mock.open -= 1
        if self.timer:
            self.timer.cancel()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.left and self.timer is None:
            self.tick()

    # -- httptools ------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.parts: list[bytes] = []
        self.knobs: dict[str, int] = {}

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name[:7].lower() == b"x-mock-":
            self.knobs[name[7:].decode().lower().replace("-", "_")] = int(value)

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        if not self.url.endswith(b"/chat/completions"):
            path, _, query = self.url.partition(b"?")
            self.transport.write(self.mock.control(path, query))
            return
        self.mock.requests += 1
        body = b"".join(self.parts)
        if b'"stream"' not in body or not STREAM.search(body):  # `in` is the cheap half
            self.transport.write(UNARY)
            return
        settings = self.mock.settings | self.knobs
        self.usage = USAGE.search(body) is not None
        self.delay = settings["delay_ms"] / 1000
        self.batch = settings["batch"] if not self.delay else 1
        self.left = max(1, settings["chunks"])
        self.mock.streams += 1
        self.mock.open += 1
        self.transport.write(STREAM_HEAD + ROLE_EVENT)
        self.mock.events += 1
        self.tick()

    def tick(self) -> None:
        """Write the next events; the last of them ends the stream."""
        self.timer = None
        if self.paused:
            return
        count = min(self.batch, self.left)
        at = -self.left % WORDS
        out = CONTENT[at] if count == 1 else b"".join((CONTENT * 2)[at : at + count])
        self.left -= count
        self.mock.events += count
        if self.left:
            self.transport.write(out)
            if self.delay:
                self.timer = self.loop.call_later(self.delay, self.tick)
            else:
                self.timer = self.loop.call_soon(self.tick)
            return
        self.mock.events += 2 + self.usage
        self.mock.open -= 1
        self.transport.write(out + FINISH + (USAGE_EVENT if self.usage else b"") + DONE)


async def serve(host: str, port: int) -> None:
    """Serve until the process is ended."""
    mock = Mock()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(mock), host, port)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="The upstream of the benchmark.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100)
    args = parser.parse_args()
    uvloop.run(serve(args.host, args.port))


if __name__ == "__main__":
    main()
