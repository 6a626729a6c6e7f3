"""The Gemini API and Vertex AI behind a whole gateway: what is on the wire on both of its sides."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream, answer, sse
from headgate import fold
from headgate.errors import ContentFiltered, RateLimited
from headgate.v1 import chat_pb2, content_pb2

CONFIG = """
providers:
  up: {{kind: gemini, base_url: "{origin}", api_key: "gemini-secret-key"}}
  cloud: {{kind: vertex, base_url: "{origin}", region: global, project: acme,
          bearer_token: "cloud-secret"}}
models:
  m: {{targets: [{{provider: up, model: gemini-3-flash-preview}}]}}
"""
SIGNATURE = "EpwICpkIAXLI2nxlU6gsWZaZ"
CALL = {
    "functionCall": {"name": "get_weather", "args": {"city": "Paris"}, "id": "k3v8"},
    "thoughtSignature": SIGNATURE,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
USAGE = {
    "promptTokenCount": 4,
    "candidatesTokenCount": 2,
    "thoughtsTokenCount": 30,
    "totalTokenCount": 36,
}


def chunk(*parts: Any, finish: str | None = None, **members: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": USAGE,
        "modelVersion": "gemini-3-flash-preview",
        "responseId": "r1",
        **members,
    }


STREAM = [
    chunk({"text": "I add.", "thought": True}),
    chunk({"text": "It is "}),
    chunk({"text": "2."}),
    chunk({"text": "", "thoughtSignature": SIGNATURE}, finish="STOP"),
]
WHOLE = chunk(
    {"text": "I add.", "thought": True},
    {"text": "It is 2.", "thoughtSignature": SIGNATURE},
    finish="STOP",
)


@pytest.fixture
async def up() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
async def gateway(up: FakeUpstream) -> AsyncGenerator[Gateway, None]:
    async with Gateway(CONFIG.format(origin=up.origin)) as running:
        yield running


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "1+1?"}]} | fields


def request(model: str = "m") -> chat_pb2.ChatRequest:
    said = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="1+1?")])
    return chat_pb2.ChatRequest(model=model, messages=[said])


async def test_a_chat_completion(up: FakeUpstream, gateway: Gateway) -> None:
    up.default(answer(WHOLE))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ask(reasoning_effort="low"))
    assert found.status_code == 200, found.text
    body = found.json()
    assert body["choices"][0]["message"]["content"] == "It is 2."
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == 32
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 30
    assert body["id"] == "r1"
    (record,) = up.requests
    assert record.method == "POST"
    assert record.path == "/v1beta/models/gemini-3-flash-preview:generateContent"
    assert record.headers["x-goog-api-key"] == "gemini-secret-key"
    assert "authorization" not in record.headers
    assert "key=" not in record.path
    assert record.json["contents"] == [{"role": "user", "parts": [{"text": "1+1?"}]}]
    thinking = {"thinkingLevel": "LOW", "includeThoughts": True}
    assert record.json["generationConfig"] == {"thinkingConfig": thinking}


async def test_a_streamed_chat_completion(up: FakeUpstream, gateway: Gateway) -> None:
    up.default(sse(STREAM, done=False))
    asked = ask(stream=True, stream_options={"include_usage": True})
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=asked)
    assert found.status_code == 200, found.text
    lines = [line[6:] for line in found.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "It is 2."
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "I add."
    assert chunks[-1]["usage"]["total_tokens"] == 36
    (record,) = up.requests
    assert record.path == "/v1beta/models/gemini-3-flash-preview:streamGenerateContent?alt=sse"


async def test_grpc_whole_and_streamed(up: FakeUpstream, gateway: Gateway) -> None:
    up.script(answer(WHOLE), sse(STREAM, done=False))
    async with gateway.client() as client:
        whole = await client.chat_complete(request())
        async with client.chat_stream(request()) as stream:
            events = [event async for event in stream]
    streamed = fold(events)
    for found in (whole, streamed):
        assert found.served.dialect == "gemini"
        assert found.create_time.seconds
        found.ClearField("create_time")
    assert whole == streamed
    thinking, text = whole.choices[0].message.parts
    assert thinking.reasoning.text == "I add."
    assert text.text == "It is 2."
    assert text.thought_signature == SIGNATURE
    assert whole.model == "gemini-3-flash-preview"


async def test_a_tool_loop(up: FakeUpstream, gateway: Gateway) -> None:
    up.script(answer(chunk(CALL, finish="STOP")), answer(WHOLE))
    async with gateway.client() as client:
        first = request()
        function = chat_pb2.FunctionTool(name="get_weather")
        first.tools.add(function=function)
        found = await client.chat_complete(first)
        (choice,) = found.choices
        assert choice.finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS
        first.messages.append(choice.message)
        result = content_pb2.ToolResult(tool_call_id="k3v8", parts=[content_pb2.Part(text="sunny")])
        first.messages.add(role=content_pb2.ROLE_TOOL, parts=[content_pb2.Part(tool_result=result)])
        await client.chat_complete(first)
    second = up.requests[1].json["contents"]
    assert second[1:] == [
        {"role": "model", "parts": [CALL]},
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "id": "k3v8",
                        "name": "get_weather",
                        "response": {"result": "sunny"},
                    }
                }
            ],
        },
    ]


async def test_a_tool_loop_over_rest_without_signatures(up: FakeUpstream, gateway: Gateway) -> None:
    """A client that keeps nothing but what OpenAI's API names can go on all the same."""
    up.script(answer(chunk(CALL, finish="STOP")), answer(WHOLE))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ask(tools=[TOOL]))
        (call,) = found.json()["choices"][0]["message"]["tool_calls"]
        plain = {key: call[key] for key in ("id", "type", "function")}
        history = [
            *ask()["messages"],
            {"role": "assistant", "content": None, "tool_calls": [plain]},
            {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
        ]
        found = await http.post("/v1/chat/completions", json=ask(messages=history, tools=[TOOL]))
    assert found.status_code == 200, found.text
    (part,) = up.requests[1].json["contents"][1]["parts"]
    assert part["functionCall"]["args"] == {"city": "Paris"}
    assert part["thoughtSignature"] == "skip_thought_signature_validator"


async def test_tokens_are_counted_by_the_provider(up: FakeUpstream, gateway: Gateway) -> None:
    up.default(answer({"totalTokens": 31}))
    async with gateway.client() as client:
        counted = await client.count_tokens(chat_pb2.CountTokensRequest(request=request()))
    assert (counted.input_tokens, counted.estimated) == (31, False)
    (record,) = up.requests
    assert record.path == "/v1beta/models/gemini-3-flash-preview:countTokens"
    assert record.json["generateContentRequest"]["model"] == "models/gemini-3-flash-preview"


async def test_vertex_with_a_token_of_the_operators(up: FakeUpstream, gateway: Gateway) -> None:
    up.script(answer(WHOLE), sse(STREAM, done=False))
    async with gateway.client() as client:
        model = "cloud/gemini-2.5-flash"
        await client.chat_complete(request(model))
        async with client.chat_stream(request(model)) as stream:
            assert [event async for event in stream][-1].HasField("completed")
    path = "/v1/projects/acme/locations/global/publishers/google/models/gemini-2.5-flash"
    assert [record.path for record in up.requests] == [
        f"{path}:generateContent",
        f"{path}:streamGenerateContent?alt=sse",
    ]
    for record in up.requests:
        assert record.headers["authorization"] == "Bearer cloud-secret"
        assert "x-goog-api-key" not in record.headers


async def test_errors_keep_their_meaning_and_no_secret(up: FakeUpstream, gateway: Gateway) -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
    limited = {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED"}
    blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    quoting = {"code": 400, "message": "Bad key gemini-secret-key.", "status": "INVALID_ARGUMENT"}
    async with gateway.client() as client, gateway.http() as http:
        up.default(answer({"error": limited | {"details": [retry]}}, 429))
        with pytest.raises(RateLimited) as caught:
            await client.chat_complete(request())
        assert caught.value.retry_after == 7
        found = await http.post("/v1/chat/completions", json=ask())
        assert (found.status_code, found.headers["retry-after"]) == (429, "7")
        for step in (answer(blocked), sse([blocked], done=False)):
            up.default(step)
            with pytest.raises(ContentFiltered, match="PROHIBITED_CONTENT"):
                if step.content_type == "application/json":
                    await client.chat_complete(request())
                else:
                    async with client.chat_stream(request()) as stream:
                        async for _ in stream:
                            pass
        up.default(answer({"error": quoting}, 400))
        found = await http.post("/v1/chat/completions", json=ask())
        assert found.status_code == 400
        assert "gemini-secret-key" not in found.text


async def test_an_error_in_place_of_a_stream(up: FakeUpstream, gateway: Gateway) -> None:
    error = {"error": {"code": 400, "message": "No such thing.", "status": "INVALID_ARGUMENT"}}
    up.default(answer([error]))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ask(stream=True))
    assert found.status_code == 400
    assert found.json()["error"]["message"] == "No such thing."
