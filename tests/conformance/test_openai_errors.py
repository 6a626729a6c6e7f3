"""What the stock `openai` SDK makes of failures: its exception classes, its retries, aborts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import openai
import pytest

from conformance.conftest import HELLO, Sdk, Site
from fakes.gateway import KEY
from fakes.upstream import (
    answer,
    chunks,
    disconnect,
    error,
    hang,
    hang_after_headers,
    html,
    rate_limited,
    sse,
)
from headgate.core import EventStream
from headgate.errors import PermissionDenied
from headgate_server.core import Core

KEYS = f"auth: {{mode: keys, keys: [{{name: a, key: {KEY}, models: [m]}}]}}"


async def failed(kind: type[openai.APIError], sdk: Sdk, stream: bool = False, **params: Any) -> Any:
    """The exception of a call; the same early error whether streamed or not."""
    with pytest.raises(kind) as caught:
        await (sdk.chunks if stream else sdk.create)(**params)
    assert type(caught.value) is kind
    return caught.value


both = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


BAD_REQUESTS: list[Any] = [
    ({"temperature": 3}, "temperature"),
    ({"extra_body": {"temperature": "hot"}}, "temperature"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"messages": [{"role": "oracle", "content": "x"}]}, "messages[0].role"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    ({"extra_body": {"messages": []}}, "messages"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    ({"metadata": {"k": "v" * 513}}, "metadata['k']"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
]


@both
@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_bad_request(site: Site, sdk: Sdk, stream: bool, subtests: pytest.Subtests) -> None:
    for params, param in BAD_REQUESTS:
        with subtests.test(param=param):
            caught = await failed(openai.BadRequestError, sdk, stream, **params)
            assert caught.param == param
            assert caught.type == "invalid_request_error"
            assert caught.body["message"].startswith(param)
            assert caught.request_id.startswith("req_")
            assert not site.up.requests


@both
async def test_bad_request_of_the_upstream(site: Site, sdk: Sdk, stream: bool) -> None:
    site.up.script(
        error(400, "Bad seed.", type="invalid_request_error", param="seed"),
        error(400, "Too long.", type="invalid_request_error", code="context_length_exceeded"),
        error(400, "Filtered.", type="invalid_request_error", code="content_filter"),
    )
    caught = await failed(openai.BadRequestError, sdk, stream)
    assert (caught.param, caught.code) == ("seed", None) and "Bad seed." in caught.message
    caught = await failed(openai.BadRequestError, sdk, stream)
    assert (caught.code, caught.type) == ("context_length_exceeded", "invalid_request_error")
    caught = await failed(openai.BadRequestError, sdk, stream)
    assert caught.code == "content_filter"


@both
async def test_keys(site: Site, sdk: Sdk, stream: bool) -> None:
    await site.open(extra=KEYS)
    assert await sdk.create()
    caught = await failed(openai.NotFoundError, sdk, stream, model="up/other")
    assert (caught.code, caught.param) == ("model_not_found", "model")
    asked = {"model": "m", "messages": HELLO, "stream": stream}
    with pytest.raises(openai.AuthenticationError) as found:
        await sdk.run(lambda c: c.chat.completions.create(**asked), api_key="wrong-key")
    assert found.value.code == "invalid_api_key"
    assert found.value.type == "invalid_request_error"
    assert "wrong-key" not in str(found.value)
    with pytest.raises(openai.AuthenticationError):
        await sdk.run(lambda c: c.models.list(), api_key="wrong-key")
    assert len(site.up.requests) == 1


@both
async def test_unknown_model(site: Site, sdk: Sdk, stream: bool) -> None:
    caught = await failed(openai.NotFoundError, sdk, stream, model="gpt-17")
    assert (caught.code, caught.param) == ("model_not_found", "model")
    assert caught.type == "invalid_request_error" and "gpt-17" in caught.message


class RefusingCore(Core):
    """Only certificates and rights of administration are refused so; the mapping counts here."""

    async def chat_complete(self, *_: Any) -> Any:
        raise PermissionDenied("no rule lets the client in")

    def chat_stream(self, *_: Any) -> EventStream:
        async def events() -> AsyncGenerator[Any, None]:
            raise PermissionDenied("no rule lets the client in")
            yield

        return EventStream(events())


@both
async def test_permission_denied(site: Site, sdk: Sdk, stream: bool) -> None:
    site.gateway.app.core.__class__ = RefusingCore
    caught = await failed(openai.PermissionDeniedError, sdk, stream)
    assert (caught.code, caught.status_code) == ("permission_denied", 403)
    assert "no rule" in caught.message


@both
async def test_rate_limit(site: Site, sdk: Sdk, stream: bool) -> None:
    site.up.script(rate_limited(7))
    caught = await failed(openai.RateLimitError, sdk, stream)
    assert caught.code == "rate_limit_exceeded"
    assert caught.response.headers["retry-after"] == "7"


@both
async def test_rate_limit_is_waited_for(site: Site, sdk: Sdk, stream: bool) -> None:
    headers = {"retry-after-ms": "300"}
    site.up.script(rate_limited(headers=headers))
    asked = {"model": "m", "messages": HELLO}
    await sdk.run(lambda c: c.chat.completions.create(**asked), max_retries=1)
    first, second = site.up.requests
    waited = second.received_at - first.received_at
    assert 0.28 <= waited < 0.75, "neither at once nor by the SDK's own backoff of 0.5 s and more"


async def test_a_used_up_quota_is_not_retried(site: Site, sdk: Sdk) -> None:
    site.up.default(error(429, "Pay.", type="insufficient_quota", code="insufficient_quota"))
    asked = {"model": "m", "messages": HELLO}
    with pytest.raises(openai.RateLimitError) as caught:
        await sdk.run(lambda c: c.chat.completions.create(**asked), max_retries=2)
    assert caught.value.code == "insufficient_quota"
    assert len(site.up.requests) == 1


async def test_server_errors_are_retried(site: Site, sdk: Sdk) -> None:
    site.up.script(error(500), disconnect())
    asked = {"model": "m", "messages": HELLO}
    got = await sdk.run(lambda c: c.chat.completions.create(**asked), max_retries=2)
    assert got.choices[0].message.content
    assert len(site.up.requests) == 3


SERVER_ERRORS: list[Any] = [
    # First: a connection that was used before and dies at once is tried again by the gateway itself.
    (disconnect(), 503, "upstream_unavailable"),
    (error(500, "oops"), 503, "upstream_unavailable"),
    (error(503, "busy"), 503, "overloaded"),
    (html(502), 503, "upstream_unavailable"),
    (error(401, "Incorrect API key: upstream-secret-key"), 502, "upstream_rejected_us"),
    (answer(b"<html>", content_type="text/html"), 502, "upstream_protocol"),
]


@both
@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_server_errors(site: Site, sdk: Sdk, stream: bool, subtests: pytest.Subtests) -> None:
    for step, status, code in SERVER_ERRORS:
        with subtests.test(code=code):
            site.up.script(step)
            caught = await failed(openai.InternalServerError, sdk, stream)
            assert (caught.status_code, caught.code, caught.type) == (status, code, "server_error")
            assert "upstream-secret-key" not in caught.response.text


async def test_a_rejected_key_of_the_gateway_is_not_retried(site: Site, sdk: Sdk) -> None:
    site.up.default(error(401, "Incorrect API key."))
    asked = {"model": "m", "messages": HELLO}
    with pytest.raises(openai.InternalServerError):
        await sdk.run(lambda c: c.chat.completions.create(**asked), max_retries=2)
    assert len(site.up.requests) == 1


@pytest.mark.parametrize("how", ["error event", "fin", "rst", "no finish reason"])
async def test_error_in_mid_stream(site: Site, sdk: Sdk, how: str) -> None:
    begun = chunks(["Hel", "lo"], finish_reason="")
    if how == "error event":
        failure = {"error": {"message": "Boom.", "type": "server_error", "code": None}}
        site.up.script(sse([*begun, failure], done=False))
    elif how == "no finish reason":
        site.up.script(sse(begun, done=False))
    else:
        site.up.script(sse([*begun, 0.05], ending=how, done=False))
    seen: list[str] = []
    asked = {"model": "m", "messages": HELLO, "stream": True}

    def sync(client: Any) -> None:
        with client.chat.completions.create(**asked) as stream:
            for chunk in stream:
                seen.append(chunk.choices[0].delta.content)

    async def concurrent(client: Any) -> None:
        async with await client.chat.completions.create(**asked) as stream:
            async for chunk in stream:
                seen.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError) as caught:
        await sdk.run(sync if sdk.flavour == "sync" else concurrent)
    assert "".join(seen) == "Hello", "what came before the error was delivered"
    assert caught.value.type == "server_error"
    assert caught.value.code in ("upstream_unavailable", "upstream_protocol")
    async with site.gateway.http() as http:
        site.up.script(sse(begun, done=False))
        body = (await http.post("/v1/chat/completions", json=asked)).text
    last = body.strip().split("\n\n")[-1]
    assert set(json.loads(last.removeprefix("data: "))) == {"error"}
    assert "[DONE]" not in body


@pytest.mark.parametrize("step", [hang(), hang_after_headers()], ids=["silent", "headers"])
async def test_the_clients_timeout_closes_the_upstream(site: Site, sdk: Sdk, step: Any) -> None:
    site.up.script(step)
    asked = {"model": "m", "messages": HELLO}
    with pytest.raises(openai.APITimeoutError):
        await sdk.run(lambda c: c.chat.completions.create(**asked), timeout=0.3)
    gave_up = time.monotonic()
    assert await site.up.requests[0].wait_closed() - gave_up < 0.1
    (settlement,) = await site.gateway.settled()
    assert settlement.outcome == "CANCELLED"


@pytest.mark.parametrize("when", ["unary", "before the first event", "in the stream"])
@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_abort_closes_the_upstream(site: Site, sdk: Sdk, when: str) -> None:
    begun = chunks(["Hel"], finish_reason="")
    site.up.script(sse(begun, ending="hang", done=False) if when == "in the stream" else hang())
    started = asyncio.Event()

    async def work(client: Any) -> None:
        stream = when != "unary"
        got = await client.chat.completions.create(model="m", messages=HELLO, stream=stream)
        async for chunk in got:
            if chunk.choices[0].delta.content:
                started.set()

    task = asyncio.create_task(sdk.run(work))
    (record,) = await site.up.wait_for_requests()
    if when == "in the stream":
        await asyncio.wait_for(started.wait(), 5)
    else:
        await asyncio.sleep(0.05)
    assert record.closed_at is None
    aborted = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await record.wait_closed() - aborted < 0.1
    (settlement,) = await site.gateway.settled()
    assert settlement.outcome == "CANCELLED"


async def test_leaving_a_stream_closes_the_upstream(site: Site, sdk: Sdk) -> None:
    site.up.script(sse([*chunks(["Hel"], finish_reason="")], ending="hang", done=False))
    asked = {"model": "m", "messages": HELLO, "stream": True}

    def sync(client: Any) -> float:
        with client.chat.completions.create(**asked) as stream:
            next(iter(stream))
        return time.monotonic()

    async def concurrent(client: Any) -> float:
        async with await client.chat.completions.create(**asked) as stream:
            async for _ in stream:
                break
        return time.monotonic()

    left = await sdk.run(sync if sdk.flavour == "sync" else concurrent)
    assert await site.up.requests[0].wait_closed() - left < 0.1


# Beside the chat.


async def test_models(site: Site, sdk: Sdk) -> None:
    await site.open(models="  a/b/c: {targets: [{provider: up}]}")

    async def everything(client: Any) -> list[Any]:
        return [model async for model in client.models.list()]

    listed = await sdk.run(
        (lambda client: list(client.models.list())) if sdk.flavour == "sync" else everything
    )
    assert [model.id for model in listed] == ["a/b/c", "m"]
    assert all(model.object == "model" and model.owned_by == "up" for model in listed)
    assert all(abs(model.created - time.time()) < 600 for model in listed)
    for name in ("m", "a/b/c"):
        assert (await sdk.run(lambda client, name=name: client.models.retrieve(name))).id == name
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.run(lambda client: client.models.retrieve("nope"))
    assert caught.value.code == "model_not_found"


async def test_headers(site: Site, sdk: Sdk) -> None:
    asked = {"model": "m", "messages": HELLO}
    for more in ({}, {"stream": True, "extra_headers": {"x-request-id": "mine-1"}}):
        raw = await sdk.run(
            lambda c, more=more: c.chat.completions.with_raw_response.create(**asked, **more)
        )
        assert raw.headers["x-headgate-provider"] == "up"
        assert raw.headers["x-headgate-model"] == "upstream-m"
        assert raw.headers["x-headgate-attempts"] == "1"
        assert raw.request_id.startswith("mine-1" if more else "req_")
        kind = "text/event-stream; charset=utf-8" if more else "application/json"
        assert raw.headers["content-type"] == kind
        close = raw.http_response.close if sdk.flavour == "sync" else raw.http_response.aclose
        result = await asyncio.to_thread(close) if sdk.flavour == "sync" else await close()
        assert result is None
    got = await sdk.create()
    assert got._request_id.startswith("req_")
