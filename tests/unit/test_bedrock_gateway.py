"""A whole gateway in front of something that speaks Converse: signed calls, answers, failures."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from fakes.aws import given_signature, signature_of
from fakes.eventstream import event_stream
from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream, answer
from headgate.errors import RateLimited
from headgate.fold import fold
from headgate.v1 import chat_pb2, content_pb2

Json = dict[str, Any]
SECRET = "wJalrXUtnFEMI+bPxRfiCYEXAMPLEKEY"
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PATH = f"/model/{MODEL.replace(':', '%3A')}/converse"
ASK = {"model": "m", "messages": [{"role": "user", "content": "Is 91 prime?"}]}
USAGE = {
    "inputTokens": 10,
    "outputTokens": 5,
    "totalTokens": 20,
    "cacheReadInputTokens": 5,
    "cacheWriteInputTokens": 0,
}
THOUGHT = {"reasoningContent": {"reasoningText": {"text": "7 * 13", "signature": "S"}}}
WHOLE = {
    "output": {"message": {"role": "assistant", "content": [THOUGHT, {"text": "No."}]}},
    "stopReason": "end_turn",
    "usage": USAGE,
    "metrics": {"latencyMs": 5},
}


def delta(index: int, **delta: Any) -> list[Any]:
    return ["contentBlockDelta", {"contentBlockIndex": index, "delta": delta, "p": "abc"}]


def stop(index: int) -> list[Any]:
    return ["contentBlockStop", {"contentBlockIndex": index}]


PIECES = [
    ["messageStart", {"role": "assistant"}],
    delta(0, reasoningContent={"text": "7 *"}),
    delta(0, reasoningContent={"text": " 13"}),
    delta(0, reasoningContent={"signature": "S"}),
    stop(0),
    delta(1, text="No"),
    delta(1, text="."),
    stop(1),
    ["messageStop", {"stopReason": "end_turn"}],
    ["metadata", {"usage": USAGE, "metrics": {"latencyMs": 5}}],
]
SLOW_DOWN = {"exception": "throttlingException", "payload": {"message": "Slow down."}}


def streamed(*lines: object, **options: Any) -> Any:
    form = "application/vnd.amazon.eventstream"
    body = event_stream("\n".join(map(json.dumps, lines)))
    return answer(body, content_type=form, framing="chunked", **options)


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


@pytest.fixture
async def gateway(upstream: FakeUpstream) -> AsyncGenerator[Gateway, None]:
    config = f"""
providers:
  aws:
    kind: bedrock
    base_url: "{upstream.origin}"
    region: us-east-1
    access_key_id: AKIDEXAMPLE
    secret_access_key: "{SECRET}"
models:
  m: {{targets: [{{provider: aws, model: "{MODEL}"}}]}}
"""
    async with Gateway(config) as found:
        yield found


def asked(**fields: Any) -> chat_pb2.ChatRequest:
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="Hi")])
    return chat_pb2.ChatRequest(model="m", messages=[message], **fields)


async def test_a_whole_answer(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.default(answer(WHOLE))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ASK)
    body = found.json()
    assert found.status_code == 200
    assert body["choices"][0]["message"]["content"] == "No."
    assert body["choices"][0]["message"]["reasoning_content"] == "7 * 13"
    assert body["id"].startswith("chatcmpl-")
    assert body["created"] > 1_700_000_000
    assert body["model"] == MODEL
    assert body["usage"]["prompt_tokens"] == 15
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 5
    (record,) = upstream.requests
    assert record.path == PATH
    # The signature holds for the bytes that arrived.
    headers = {name.lower(): value for name, value in record.headers.items()}
    assert headers["content-type"] == "application/json"
    url = upstream.origin + record.path
    assert given_signature(headers) == signature_of(headers, url, record.body, SECRET)


async def test_a_streamed_answer(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.default(streamed(*PIECES, cut=7))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    lines = [line[6:] for line in found.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    assert "".join(each.get("reasoning_content", "") for each in deltas) == "7 * 13"
    assert "".join(each.get("content") or "" for each in deltas) == "No."
    assert {json.loads(line)["id"][:9] for line in lines} == {"chatcmpl-"}
    (record,) = upstream.requests
    assert record.path == f"{PATH}-stream"
    headers = {name.lower(): value for name, value in record.headers.items()}
    url = upstream.origin + record.path
    assert given_signature(headers) == signature_of(headers, url, record.body, SECRET)
    (settlement,) = await gateway.settled()
    assert settlement.usage is not None
    assert settlement.usage.input_tokens == 15


async def test_the_fold_of_the_stream_is_the_whole_answer(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    async with gateway.client() as client:
        upstream.script(answer(WHOLE), streamed(*PIECES))
        whole = await client.chat_complete(asked())
        events = [event async for event in client.chat_stream(asked())]
    found = fold(events)
    for response in (whole, found):
        assert response.id
        assert response.served.dialect == "bedrock"
        for field in ("id", "create_time", "served"):
            response.ClearField(field)  # type: ignore[arg-type]
    assert found == whole
    assert whole.choices[0].message.parts[0].reasoning.dialect == "anthropic"


async def test_connections_are_kept_behind_a_stream(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    upstream.default(streamed(*PIECES))
    async with gateway.client() as client:
        for _ in range(3):
            _ = [event async for event in client.chat_stream(asked())]
    assert upstream.connections == 1


async def test_an_error_before_the_first_event_keeps_its_status(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    upstream.default(streamed(PIECES[0], SLOW_DOWN))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert found.status_code == 429
    assert found.json()["error"]["message"] == "Slow down."


async def test_an_error_in_the_middle_ends_the_stream(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    upstream.default(streamed(*PIECES[:6], SLOW_DOWN))
    async with gateway.client() as client:
        events = client.chat_stream(asked())
        seen = []
        with pytest.raises(RateLimited, match="Slow down"):
            async for event in events:
                seen.append(event.WhichOneof("event"))
    assert seen[0] == "started"
    assert "completed" not in seen


@pytest.mark.parametrize(
    ("status", "kind", "ours", "code"),
    [
        (403, "AccessDeniedException", 502, "upstream_rejected_us"),
        (403, "InvalidSignatureException", 502, "upstream_rejected_us"),
        (429, "ThrottlingException", 429, "rate_limit_exceeded"),
        (400, "ServiceQuotaExceededException", 429, "insufficient_quota"),
        (404, "ResourceNotFoundException", 404, "model_not_found"),
        (408, "ModelTimeoutException", 504, "upstream_timeout"),
        (424, "ModelErrorException", 503, "upstream_unavailable"),
        (503, "ServiceUnavailableException", 503, "overloaded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_the_service(
    gateway: Gateway,
    upstream: FakeUpstream,
    status: int,
    kind: str,
    ours: int,
    code: str,
    stream: bool,
) -> None:
    headers = {"x-amzn-errortype": f"{kind}:http://internal.amazon.com/"}
    upstream.default(answer({"message": f"no: {SECRET}"}, status, headers=headers))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json={**ASK, "stream": stream})
    assert found.status_code == ours
    assert found.json()["error"]["code"] == code
    assert SECRET not in found.text


@pytest.mark.parametrize(
    "step",
    [
        answer(b"<html>proxy</html>", content_type="text/html"),
        streamed(PIECES[0]),
        answer(b"\x00" * 50, content_type="application/vnd.amazon.eventstream"),
        answer(b"", content_type="application/vnd.amazon.eventstream"),
    ],
)
async def test_a_stream_that_is_none(gateway: Gateway, upstream: FakeUpstream, step: Any) -> None:
    upstream.default(step)
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert found.status_code == 502
    assert found.json()["error"]["code"] == "upstream_protocol"


async def test_tokens_are_counted_by_the_service(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.default(answer({"inputTokens": 17}))
    async with gateway.client() as client:
        counted = await client.count_tokens(chat_pb2.CountTokensRequest(request=asked(n=2)))
    assert counted.input_tokens == 17
    assert not counted.estimated
    assert [warning.field for warning in counted.warnings] == ["n"]
    (record,) = upstream.requests
    assert record.path == f"/model/{MODEL[3:].replace(':', '%3A')}/count-tokens"
    assert record.json == {
        "input": {"converse": {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}}
    }
    headers = {name.lower(): value for name, value in record.headers.items()}
    url = upstream.origin + record.path
    assert given_signature(headers) == signature_of(headers, url, record.body, SECRET)


async def test_tokens_of_other_models_are_estimated(upstream: FakeUpstream) -> None:
    config = f"""
providers:
  aws: {{kind: bedrock, base_url: "{upstream.origin}", api_key: "bedrock-api-key-secret"}}
models:
  m: {{targets: [{{provider: aws, model: "us.amazon.nova-2-lite-v1:0"}}]}}
"""
    async with Gateway(config) as gateway, gateway.client() as client:
        counted = await client.count_tokens(chat_pb2.CountTokensRequest(request=asked()))
    assert counted.estimated
    assert counted.input_tokens > 0
    assert upstream.requests == []


async def test_a_key_for_bedrock_goes_as_bearer(upstream: FakeUpstream) -> None:
    upstream.default(answer(WHOLE))
    config = f"""
providers:
  aws: {{kind: bedrock, base_url: "{upstream.origin}", api_key: "bedrock-api-key-secret"}}
models:
  m: {{targets: [{{provider: aws, model: "{MODEL}"}}]}}
"""
    async with Gateway(config) as gateway, gateway.client() as client:
        await client.chat_complete(asked())
    assert upstream.requests[0].headers["authorization"] == "Bearer bedrock-api-key-secret"


async def test_tools_there_and_back(gateway: Gateway, upstream: FakeUpstream) -> None:
    """What a client gets, it can send back: the call, and the thinking with its proof."""
    call = {"toolUse": {"toolUseId": "tooluse_1", "name": "f", "input": {"a": 1}}}
    first = {
        **WHOLE,
        "output": {"message": {"role": "assistant", "content": [THOUGHT, call]}},
        "stopReason": "tool_use",
    }
    upstream.script(answer(first), answer(WHOLE))
    tools = [chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"))]
    async with gateway.client() as client:
        question = asked(tools=tools)
        response = await client.chat_complete(question)
        question.messages.append(response.choices[0].message)
        result = question.messages.add(role=content_pb2.ROLE_TOOL).parts.add().tool_result
        result.tool_call_id = "tooluse_1"
        result.parts.add(text="42")
        await client.chat_complete(question)
    sent = upstream.requests[1].json["messages"]
    assert sent[1]["content"] == [THOUGHT, call]
    assert sent[2]["content"] == [
        {"toolResult": {"toolUseId": "tooluse_1", "content": [{"text": "42"}]}}
    ]
