"""A whole gateway in front of something that speaks Cohere's chat."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream, answer, sse
from headgate.errors import UpstreamUnavailable
from headgate.fold import fold
from headgate.v1 import chat_pb2, content_pb2

KEY = "cohere-secret-key"
USAGE = {
    "billed_units": {"input_tokens": 5, "output_tokens": 2},
    "tokens": {"input_tokens": 71.0, "output_tokens": 14.0},
    "cached_tokens": 64.0,
}
ASK = {"model": "m", "messages": [{"role": "user", "content": "Weather in Madrid?"}]}
CALL = {"id": "w_1", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}}
WHOLE = {
    "id": "c14c80c3",
    "message": {"role": "assistant", "tool_plan": "I look it up.", "tool_calls": [CALL]},
    "finish_reason": "TOOL_CALL",
    "usage": USAGE,
}


def event(kind: str, index: int | None = None, **message: Any) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {"type": kind, **place, "delta": {"message": message}}


PIECES: list[dict[str, Any]] = [
    {**event("message-start", role="assistant", content=[]), "id": "c14c80c3"},
    event("tool-plan-delta", tool_plan="I look"),
    event("tool-plan-delta", tool_plan=" it up."),
    event("tool-call-start", 0, tool_calls={**CALL, "function": {"name": "weather"}}),
    event("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"a"'}}),
    event("tool-call-delta", 0, tool_calls={"function": {"arguments": ":1}"}}),
    {"type": "tool-call-end", "index": 0},
    {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL", "usage": USAGE}},
]


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


@pytest.fixture
async def gateway(upstream: FakeUpstream) -> AsyncGenerator[Gateway, None]:
    config = f"""
providers:
  co: {{kind: cohere, base_url: "{upstream.origin}", api_key: "{KEY}"}}
models:
  m: {{targets: [{{provider: co, model: command-a-03-2025}}]}}
"""
    async with Gateway(config) as found:
        yield found


def asked(**fields: Any) -> chat_pb2.ChatRequest:
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="Hi")])
    tool = chat_pb2.Tool(function=chat_pb2.FunctionTool(name="weather"))
    return chat_pb2.ChatRequest(model="m", messages=[message], tools=[tool], **fields)


async def test_a_whole_answer(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.default(answer(WHOLE))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ASK)
    body = found.json()
    assert found.status_code == 200
    message = body["choices"][0]["message"]
    assert message["reasoning_content"] == "I look it up."
    assert message["tool_calls"] == [CALL]
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert body["id"] == "c14c80c3"
    assert body["usage"]["prompt_tokens"] == 71
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 64
    (record,) = upstream.requests
    assert record.path == "/v2/chat"
    assert record.headers["authorization"] == f"Bearer {KEY}"


async def test_a_streamed_answer(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.default(sse(PIECES, done=False, cut=5))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    lines = [line[6:] for line in found.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    assert "".join(each.get("reasoning_content", "") for each in deltas) == "I look it up."
    arguments = [
        call["function"].get("arguments", "")
        for each in deltas
        for call in each.get("tool_calls", ())
    ]
    assert "".join(arguments) == '{"a":1}'
    assert upstream.requests[0].json["stream"] is True


async def test_the_fold_of_the_stream_is_the_whole_answer(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    async with gateway.client() as client:
        upstream.script(answer(WHOLE), sse(PIECES, done=False))
        whole = await client.chat_complete(asked())
        events = [event async for event in client.chat_stream(asked())]
    found = fold(events)
    for response in (whole, found):
        assert response.served.dialect == "cohere"
        response.served.ClearField("tried")  # how long each took
        response.ClearField("create_time")
    assert found == whole


async def test_an_error_in_the_middle_ends_the_stream(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    end = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "broke off"}}
    upstream.default(sse([*PIECES[:3], end], done=False))
    async with gateway.client() as client:
        seen = []
        with pytest.raises(UpstreamUnavailable, match="broke off"):
            async for found in client.chat_stream(asked()):
                seen.append(found.WhichOneof("event"))
    assert seen[0] == "started"
    assert "completed" not in seen


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (400, 400, None),
        (401, 502, "upstream_rejected_us"),
        (404, 404, "model_not_found"),
        (429, 429, "rate_limit_exceeded"),
        (498, 400, "content_filter"),
        (499, 503, "upstream_unavailable"),
        (503, 503, "overloaded"),
        (504, 504, "upstream_timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_the_service(
    gateway: Gateway, upstream: FakeUpstream, status: int, ours: int, code: str, stream: bool
) -> None:
    words = "invalid request" if status == 400 else "model not found"
    upstream.default(answer({"message": f"{words}: {KEY}", "id": "x"}, status))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json={**ASK, "stream": stream})
    assert found.status_code == ours
    assert found.json()["error"]["code"] == code
    assert KEY not in found.text


async def test_tools_there_and_back(gateway: Gateway, upstream: FakeUpstream) -> None:
    """What a client gets, it can send back: the call, and the plan behind it."""
    upstream.script(answer(WHOLE), answer(WHOLE))
    async with gateway.client() as client:
        question = asked()
        response = await client.chat_complete(question)
        question.messages.append(response.choices[0].message)
        result = question.messages.add(role=content_pb2.ROLE_TOOL).parts.add().tool_result
        result.tool_call_id = "w_1"
        result.parts.add(text="24")
        await client.chat_complete(question)
    sent = upstream.requests[1].json["messages"]
    assert sent[1] == {"role": "assistant", "tool_plan": "I look it up.", "tool_calls": [CALL]}
    assert sent[2] == {"role": "tool", "tool_call_id": "w_1", "content": "24"}
