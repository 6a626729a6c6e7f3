# ruff: noqa: E501 - the tables read better with a case on a line
"""Whatever an upstream does, the caller gets the error of the table: no hang, no crash, no leak."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from typing import Any

import httpx
import pytest
import trustme

from fakes.gateway import Gateway, config_for
from fakes.upstream import (
    FakeUpstream,
    answer,
    bad_chunks,
    bad_status_line,
    big,
    bomb,
    chat,
    chunks,
    close_after,
    completion,
    disconnect,
    endless,
    error,
    gzipped,
    hang,
    hang_after_headers,
    html,
    huge_headers,
    informed,
    raw,
    redirect,
    reset,
    slow,
    sse,
    trickle,
)

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
QUICK = "timeouts: {first_byte: 500ms, idle: 500ms, total: 20s}"
PIECES = ["one ", "two ", "three ", "four ", "five "]

# name -> (behaviour, HTTP status of a unary call, `code` of its error)
UNARY: dict[str, tuple[Any, int, str | None]] = {
    "invalid JSON": (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{nope"), 502, "upstream_protocol"),
    "JSON of another shape": (answer({"hello": "world"}), 502, "upstream_protocol"),
    "choices of another type": (answer({"choices": "abc"}), 502, "upstream_protocol"),
    "no choices": (answer(completion("x") | {"choices": []}), 502, "upstream_protocol"),
    "HTML with 200": (html(200), 502, "upstream_protocol"),
    "HTML with 502": (html(502), 503, "upstream_unavailable"),
    "HTML with 404": (html(404), 502, "upstream_protocol"),
    "closes at once": (disconnect(), 503, "upstream_unavailable"),
    "resets at once": (reset(), 503, "upstream_unavailable"),
    "a bad status line": (bad_status_line(b"HTTP/9.9 banana\r\n\r\n"), 502, "upstream_protocol"),
    "a bad chunk size": (bad_chunks(), 502, "upstream_protocol"),
    "huge headers": (huge_headers(500_000), 502, "upstream_protocol"),
    "a body of 100 MB": (big(100), 502, "upstream_protocol"),
    "a compression bomb": (bomb(200), 502, "upstream_protocol"),
    "a cut body": (answer(completion("x"), stop_after=0, ending="fin"), 503, "upstream_unavailable"),
    "a body that breaks off": (answer(completion("x"), stop_after=0, ending="rst"), 503, "upstream_unavailable"),
    "a redirect": (redirect("http://127.0.0.1:1/", 307), 502, "upstream_protocol"),
    "silence": (hang(), 504, "upstream_timeout"),
    "silence after the head": (hang_after_headers(), 504, "upstream_timeout"),
    "an endless body": (endless(b"data: "), 502, "upstream_protocol"),
    "our key refused": (error(401, "Incorrect API key provided: upstream-secret-key"), 502, "upstream_rejected_us"),
    "500": (error(500, "boom"), 503, "upstream_unavailable"),
    "529": (error(529, "overloaded"), 503, "overloaded"),
    "an error with status 200": (answer({"error": {"message": "boom", "code": 500}}), 503, "upstream_unavailable"),
    "an unknown content encoding": (answer(completion("x"), headers={"content-encoding": "br"}), 502, "upstream_protocol"),
}  # fmt: skip

# name -> (behaviour, status of the stream or of the refusal, `code`); 200: the error comes as the
# last event.
STREAMED: dict[str, tuple[Any, int, str]] = {
    "HTML with 200": (html(200), 502, "upstream_protocol"),
    "JSON for a stream": (answer(completion("x")), 502, "upstream_protocol"),
    "closes at once": (disconnect(), 503, "upstream_unavailable"),
    "silence": (hang(), 504, "upstream_timeout"),
    "silence after the head": (hang_after_headers(stream=True), 504, "upstream_timeout"),
    "no finish reason": (sse(chunks(PIECES, finish_reason="")), 200, "upstream_protocol"),
    "an empty stream": (sse([]), 502, "upstream_protocol"),
    "cut in the middle": (sse(chunks(PIECES), stop_after=3, ending="fin"), 200, "upstream_unavailable"),
    "broken in the middle": (sse(chunks(PIECES), stop_after=3, ending="rst"), 200, "upstream_unavailable"),
    "silence in the middle": (sse(chunks(PIECES), stop_after=3, ending="hang"), 200, "upstream_timeout"),
    "bad JSON in the middle": (sse([*chunks(PIECES)[:3], b"data: {nope\n\n"]), 200, "upstream_protocol"),
    "an error in the middle": (sse([*chunks(PIECES)[:3], {"error": {"message": "x", "code": "server_error"}}]), 200, "upstream_unavailable"),
    "an error at once": (sse([{"error": {"message": "slow down", "code": 429}}]), 429, "rate_limit_exceeded"),
    "an endless line": (endless(b"data: "), 502, "upstream_protocol"),
    "429 before the stream": (error(429, "slow"), 429, "rate_limit_exceeded"),
}  # fmt: skip


@pytest.fixture(params=[False, True], ids=["one process", "apart"])
def apart(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("name", UNARY)
async def test_unary(name: str, apart: bool) -> None:
    step, status, code = UNARY[name]
    async with (
        FakeUpstream() as up,
        Gateway(config_for(up.base_url, extra=QUICK), apart=apart) as gw,
        gw.http() as http,
    ):
        up.script(step)
        began = time.monotonic()
        response = await http.post("/v1/chat/completions", json=BODY)
        assert time.monotonic() - began < 10
        assert response.status_code == status, response.text
        assert response.json()["error"]["code"] == code
        assert "upstream-secret-key" not in response.text
        (settled,) = await gw.settled()
        assert settled.outcome not in ("OK", "INTERNAL")
        await serves_still(http)


@pytest.mark.parametrize("name", STREAMED)
async def test_streamed(name: str, apart: bool) -> None:
    step, status, code = STREAMED[name]
    async with (
        FakeUpstream() as up,
        Gateway(config_for(up.base_url, extra=QUICK), apart=apart) as gw,
        gw.http() as http,
    ):
        up.script(step)
        began = time.monotonic()
        response = await http.post("/v1/chat/completions", json=BODY | {"stream": True})
        assert time.monotonic() - began < 10
        assert response.status_code == status, response.text
        if status == 200:
            events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
            assert "[DONE]" not in events
            assert json.loads(events[-1])["error"]["code"] == code
            assert all("error" not in json.loads(event) for event in events[:-1])
        else:
            assert response.json()["error"]["code"] == code
        await gw.settled()
        await serves_still(http)


@pytest.mark.parametrize(
    "step",
    [
        gzipped(completion("Hello!")),
        informed(chat("Hello!"), 100),
        trickle(answer(completion("Hello!")), 0.0002),
        answer(completion("Hello!"), framing="chunked"),
        answer(completion("Hello!"), framing="close"),
        answer(completion("Hello!"), cut=1),
        answer(completion("Hello!"), content_type="text/plain"),
    ],
    ids=[
        "gzip",
        "100-continue",
        "trickled",
        "chunked",
        "until close",
        "cut in bytes",
        "text/plain",
    ],
)
async def test_odd_but_right(step: Any) -> None:
    async with FakeUpstream() as up, Gateway(config_for(up.base_url)) as gw, gw.http() as http:
        up.script(step)
        response = await http.post("/v1/chat/completions", json=BODY)
        assert response.json()["choices"][0]["message"]["content"] == "Hello!"
        await serves_still(http)


async def test_a_kept_connection_that_was_closed_is_replaced_unseen() -> None:
    async with FakeUpstream() as up, Gateway(config_for(up.base_url)) as gw, gw.http() as http:
        up.default(close_after(chat("Hello!"), 0.02))
        for _ in range(20):
            response = await http.post("/v1/chat/completions", json=BODY)
            assert response.status_code == 200
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
async def test_a_request_is_repeated_once_at_most(stream: bool) -> None:
    """However many connections are kept: a request that kills its server must not go through them all."""
    async with FakeUpstream() as up, Gateway(config_for(up.base_url)) as gw, gw.http() as http:
        up.default(slow(0.05, chat()))
        await asyncio.gather(*[http.post("/v1/chat/completions", json=BODY) for _ in range(8)])
        assert up.connections == 8
        up.requests.clear()
        up.default(reset())
        response = await http.post("/v1/chat/completions", json=BODY | {"stream": stream})
        assert response.status_code == 503
        assert len(up.requests) == 2


async def test_connections_are_kept() -> None:
    async with FakeUpstream() as up, Gateway(config_for(up.base_url)) as gw, gw.http() as http:
        for stream in (False, True, False):
            for _ in range(5):
                await http.post("/v1/chat/completions", json=BODY | {"stream": stream})
        assert up.connections == 1


async def test_nobody_listens() -> None:
    async with FakeUpstream() as up, Gateway(config_for(up.base_url)) as gw, gw.http() as http:
        await up.stop()
        response = await http.post("/v1/chat/completions", json=BODY)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "upstream_unavailable"
        await up.start()
        await serves_still(http)


async def test_an_untrusted_certificate() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with FakeUpstream(tls=context) as up:
        url = up.base_url.replace("http://", "https://")
        async with Gateway(config_for(url)) as gw, gw.http() as http:
            response = await http.post("/v1/chat/completions", json=BODY)
            assert response.status_code == 503
            assert "certificate" in response.json()["error"]["message"]


async def test_tls_towards_a_plaintext_port() -> None:
    async with FakeUpstream() as up:
        url = up.base_url.replace("http://", "https://")
        config = config_for(url, extra="timeouts: {connect: 300ms}")
        async with Gateway(config) as gw, gw.http() as http:
            response = await http.post("/v1/chat/completions", json=BODY)
            assert response.status_code == 504  # it waits for a request that never comes
            assert response.json()["error"]["code"] == "upstream_timeout"


async def serves_still(http: httpx.AsyncClient) -> None:
    """The fake upstream behaves again, and so must the gateway."""
    response = await http.post("/v1/chat/completions", json=BODY)
    assert response.status_code == 200, response.text
