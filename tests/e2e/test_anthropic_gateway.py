"""A gateway whose provider speaks Anthropic's API, as callers over REST and gRPC see it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream, answer, slow
from fakes.upstream import sse as stream
from headgate import fold
from headgate.errors import DeadlineExceeded, Overloaded, UpstreamRejectedUs
from headgate.v1 import chat_pb2, content_pb2

GOLDEN = Path(__file__).parents[1] / "golden" / "anthropic"
KEY = "sk-ant-secret-0123456789"
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hello, Claude"}]}
REQUEST = chat_pb2.ChatRequest(
    model="m",
    messages=[
        content_pb2.Message(
            role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="Hello, Claude")]
        )
    ],
)
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def config(upstream: FakeUpstream, more: str = "") -> str:
    return f"""
providers:
  claude: {{kind: anthropic, base_url: "{upstream.origin}", api_key: "{KEY}"{more}}}
models:
  m: {{targets: [{{provider: claude, model: claude-sonnet-4-5}}]}}
"""


def body(case: str) -> Any:
    return json.loads((GOLDEN / case / "upstream_response.json").read_text())


def events(case: str) -> Any:
    return stream([(GOLDEN / case / "upstream.sse").read_bytes()], done=False)


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as running:
        yield running


async def test_a_whole_answer_over_rest(upstream: FakeUpstream) -> None:
    upstream.script(answer(body("tool_call")))
    async with Gateway(config(upstream)) as gateway, gateway.http() as http:
        response = await http.post("/v1/chat/completions", json=ASK)
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Okay, let's check the weather:"
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"location": "San Francisco, CA"}
    assert response.json()["usage"]["total_tokens"] == 561
    (sent,) = upstream.requests
    assert sent.path == "/v1/messages"
    assert sent.headers["x-api-key"] == KEY
    assert sent.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in sent.headers
    assert sent.json == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": "Hello, Claude"}],
    }


async def test_a_stream_over_rest(upstream: FakeUpstream) -> None:
    upstream.script(events("thinking_budget"))
    async with Gateway(config(upstream)) as gateway, gateway.http() as http:
        asked = ASK | {"stream": True, "stream_options": {"include_usage": True}}
        response = await http.post("/v1/chat/completions", json=asked)
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(d.get("content") or "" for d in deltas) == "It is **21**."
    assert "".join(d.get("reasoning_content") or "" for d in deltas).startswith("I need to find")
    reasons = [c["choices"][0].get("finish_reason") for c in chunks if c["choices"]]
    assert reasons[-1] == "stop"
    assert chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 101
    assert upstream.requests[0].json["stream"] is True


async def test_both_ways_over_grpc(upstream: FakeUpstream) -> None:
    upstream.script(answer(body("web_search")), events("web_search"))
    async with Gateway(config(upstream)) as gateway, gateway.client() as client:
        whole = await client.chat_complete(REQUEST)
        streamed = fold([event async for event in client.chat_stream(REQUEST)])
    for response in (whole, streamed):
        assert response.served.dialect == "anthropic"
        assert response.served.provider == "claude"
        response.ClearField("create_time")
    assert streamed.choices == whole.choices
    assert streamed.usage == whole.usage
    assert [call.headers["x-api-key"] for call in upstream.requests] == [KEY, KEY]


async def test_the_next_turn_brings_the_thinking_back_as_it_was(upstream: FakeUpstream) -> None:
    upstream.script(answer(body("thinking_redacted")), answer(body("plain")))
    async with Gateway(config(upstream)) as gateway, gateway.client() as client:
        first = await client.chat_complete(REQUEST)
        again = chat_pb2.ChatRequest()
        again.CopyFrom(REQUEST)
        again.messages.append(first.choices[0].message)
        again.messages.append(REQUEST.messages[0])
        second = await client.chat_complete(again)
    assert not second.warnings
    assert upstream.requests[1].json["messages"][1] == {
        "role": "assistant",
        "content": body("thinking_redacted")["content"],
    }


async def test_tokens_are_counted_by_the_vendor(upstream: FakeUpstream) -> None:
    upstream.script(answer({"input_tokens": 14}))
    async with Gateway(config(upstream)) as gateway, gateway.client() as client:
        counted = await client.count_tokens(chat_pb2.CountTokensRequest(request=REQUEST))
    assert counted.input_tokens == 14
    assert not counted.estimated
    assert upstream.requests[0].path == "/v1/messages/count_tokens"
    assert upstream.requests[0].headers["anthropic-version"] == "2023-06-01"


async def test_headers_of_the_configuration_reach_the_wire(upstream: FakeUpstream) -> None:
    upstream.script(answer(body("plain")))
    more = ', headers: {anthropic-version: "2026-10-21", anthropic-beta: fast-1}'
    async with Gateway(config(upstream, more)) as gateway, gateway.client() as client:
        request = chat_pb2.ChatRequest()
        request.CopyFrom(REQUEST)
        request.provider_options_json["anthropic"] = '{"anthropic_beta":["b-2"]}'
        await client.chat_complete(request)
    headers = upstream.requests[0].headers
    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["anthropic-beta"] == "fast-1,b-2"


async def test_errors_keep_their_meaning(upstream: FakeUpstream) -> None:
    denied = {"type": "error", "error": {"type": "authentication_error", "message": KEY}}
    upstream.script(
        answer(OVERLOADED, 529),
        answer(OVERLOADED),  # where a stream was due
        answer(denied, 401),
    )
    async with Gateway(config(upstream)) as gateway, gateway.client() as client:
        with pytest.raises(Overloaded):
            await client.chat_complete(REQUEST)
        with pytest.raises(Overloaded):
            [event async for event in client.chat_stream(REQUEST)]
        with pytest.raises(UpstreamRejectedUs) as caught:
            await client.chat_complete(REQUEST)
        assert KEY not in str(caught.value)


async def test_a_stream_that_fails_late_ends_with_an_error(upstream: FakeUpstream) -> None:
    upstream.script(events("error_mid_stream"))
    async with Gateway(config(upstream)) as gateway, gateway.http() as http:
        response = await http.post("/v1/chat/completions", json=ASK | {"stream": True})
    assert response.status_code == 200
    assert "Hel" in response.text
    assert "[DONE]" not in response.text
    assert '"error"' in response.text


async def test_a_caller_who_leaves_ends_the_call_upstream(upstream: FakeUpstream) -> None:
    upstream.script(slow(30, answer(body("plain"))))
    async with Gateway(config(upstream)) as gateway, gateway.client() as client:
        with pytest.raises(DeadlineExceeded):
            [event async for event in client.chat_stream(REQUEST, timeout=0.5)]
        await upstream.requests[0].wait_closed()
