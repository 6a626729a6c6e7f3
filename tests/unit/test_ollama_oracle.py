"""Ollama's golden cases against its own SDK: what we send, and what both read in what it sends."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from ollama import AsyncClient, ResponseError
from ollama._types import ChatRequest, ChatResponse, Image, Message, Options, Tool
from pydantic import ValidationError

from fakes.steps import Answer
from fakes.upstream import FakeUpstream, answer
from headgate.fold import fold
from headgate.v1 import chat_pb2

ROOT = Path(__file__).parents[1] / "golden" / "ollama"
# Of the server's API, but not in the SDK's types: https://github.com/ollama/ollama/blob/main/api/types.go
SERVER_ONLY = {"tool_call_id"}
BEYOND = {
    "extra_body": "unknown members",
    "unsupported_pass": "parameters of other APIs",
    "provider_options": "truncate, which the SDK does not know",
    "unknown_members": "unknown members",
    "tool_call_arguments_as_text_or_nothing": "of proxies, not of Ollama",
    "error_mid_stream_of_unknown_form": "the SDK breaks on it",
    "image_output": "documented, but the SDK cannot read it",
}


def cases(name: str) -> list[Path]:
    found = sorted(path.parent for path in ROOT.glob(f"*/{name}"))
    assert len(found) > 12
    return [folder for folder in found if folder.name not in BEYOND]


def check(body: dict[str, Any]) -> None:
    """Valid, and without a member that the types do not have."""
    for message in body["messages"]:
        if "images" in message:
            message["images"] = [Image(value=image) for image in message["images"]]
            assert all(image.model_dump() == image.value for image in message["images"])
    ChatRequest.model_validate(body)
    assert set(body) <= set(ChatRequest.model_fields)
    assert set(body.get("options", {})) <= set(Options.model_fields)
    for message in body["messages"]:
        Message.model_validate(message)
        assert set(message) <= set(Message.model_fields) | SERVER_ONLY
        for call in message.get("tool_calls", ()):
            assert set(call) <= {"id", "function"}
            assert set(call["function"]) == {"index", "name", "arguments"}
    for tool in body.get("tools", ()):
        assert set(tool) <= set(Tool.model_fields)
        assert set(tool["function"]) <= set(Tool.Function.model_fields)


@pytest.mark.parametrize("folder", cases("upstream_request.json"), ids=lambda folder: folder.name)
def test_requests_are_what_the_sdk_would_send(folder: Path) -> None:
    check(json.loads((folder / "upstream_request.json").read_text())["body"])


@pytest.mark.parametrize(
    "change",
    [
        {"model": ""},
        {"temperature": 1},
        {"think": [1]},
        {"format": "xml"},
        {"options": {"max_tokens": 5}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
        {"tools": [{"type": "function", "name": "f"}]},
    ],
    ids=str,
)
def test_the_oracle_refuses_nonsense(change: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    check(body)
    with pytest.raises((ValidationError, AssertionError, KeyError)):
        check(body | change)


@pytest.fixture
async def up() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as upstream:
        yield upstream


ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def assert_same(ours: chat_pb2.ChatResponse, theirs: list[ChatResponse]) -> None:
    """What the SDK read, piece by piece, is what we read."""
    parts = ours.choices[0].message.parts
    messages = [each.message for each in theirs]
    assert "".join(part.text for part in parts) == "".join(m.content or "" for m in messages)
    thought = "".join(part.reasoning.text for part in parts)
    assert thought == "".join(m.thinking or "" for m in messages)
    calls = [call.function for m in messages for call in m.tool_calls or ()]
    given = [part.tool_call for part in parts if part.HasField("tool_call")]
    assert [call.name for call in given] == [call.name for call in calls]
    assert [json.loads(call.arguments_json) for call in given] == [c.arguments for c in calls]
    tokens = [token.token for token in ours.choices[0].logprobs.content]
    assert tokens == [token.token for each in theirs for token in each.logprobs or ()]
    last = theirs[-1]
    assert ours.usage.input_tokens == (last.prompt_eval_count or 0)
    assert ours.usage.output_tokens == (last.eval_count or 0)
    assert ours.choices[0].provider_finish_reason == (last.done_reason or "")


@pytest.mark.parametrize("folder", cases("response.json"), ids=lambda folder: folder.name)
async def test_the_sdk_reads_the_same_in_whole_answers(folder: Path, up: FakeUpstream) -> None:
    up.script(answer((folder / "upstream_response.json").read_bytes()))
    async with AsyncClient(host=up.origin) as client:
        theirs = await client.chat(**ASK)
    text = (folder / "response.json").read_text()
    assert_same(json_format.Parse(text, chat_pb2.ChatResponse()), [theirs])
    assert up.requests[0].path == "/api/chat"


@pytest.mark.parametrize("folder", cases("upstream.ndjson"), ids=lambda folder: folder.name)
async def test_the_sdk_reads_the_same_in_streams(folder: Path, up: FakeUpstream) -> None:
    stream = (folder / "upstream.ndjson").read_bytes()
    if not stream.endswith(b"\n") or b"\n\r" in stream or b"\nevent" in stream:
        return  # our own leniency, and nonsense
    up.script(Answer([stream], content_type="application/x-ndjson", framing="chunked"))
    theirs: list[ChatResponse] = []
    failed = False
    try:
        async with AsyncClient(host=up.origin) as client:
            async for each in await client.chat(**ASK, stream=True):
                theirs.append(each)
    except ResponseError:
        failed = True
    whole = bool(theirs) and bool(theirs[-1].done) and not failed
    assert whole == (not (folder / "error.json").exists())
    if whole:
        lines = (folder / "events.jsonl").read_text().splitlines()
        ours = fold(json_format.Parse(line, chat_pb2.ChatEvent()) for line in lines)
        assert_same(ours, theirs)
