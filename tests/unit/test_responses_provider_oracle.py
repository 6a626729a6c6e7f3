"""The golden cases of the Responses API against OpenAI's own SDK: what we send, and what it sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import TypeAdapter, ValidationError

from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate_server.providers import vendor_of
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.responses import ResponsesDialect
from headgate_server.providers.vendors import family_of

ROOT = Path(__file__).parents[1] / "golden" / "openai_responses"
PARAMS: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsNonStreaming)
STREAM_PARAMS: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsStreaming)
COUNT_PARAMS: TypeAdapter[Any] = TypeAdapter(InputTokenCountParams)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
# Cases about members that the API does not have (yet), or that the SDK's types do not allow there.
BEYOND = {
    "unsupported_pass": "parameters of other APIs",
    "extra_body": "an unknown member, and one of answers only",
    "unknown_members": "unknown events, items and contents",
    "reasoning_text": "a null where OpenAI has nothing",
    "vendor_parts_in_history": "an approval without a request: the SDK wants input contents typed",
}
OF_NO_SHAPE = {"error_early_bare", "error_mid_stream_without_type", "stream_of_nonsense"}
# What every answer has beside what the cases are about.
USUAL = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}


def cases(name: str) -> list[Path]:
    found = sorted(path.parent for path in ROOT.glob(f"*/{name}"))
    assert len(found) > 15
    return found


def check(adapter: TypeAdapter[Any], body: dict[str, Any]) -> None:
    """Valid, and without a member that the types do not have: those do not survive the trip."""
    assert taken(adapter.validate_python(body)) == body


def taken(value: Any) -> Any:
    """What was validated. The SDK says Iterable for lists, which pydantic validates one by one."""
    if isinstance(value, dict):
        return {name: taken(inner) for name, inner in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return [taken(inner) for inner in value]


def call_of(folder: Path, how: str) -> HttpCall:
    request = json_format.Parse((folder / "request.json").read_text(), chat_pb2.ChatRequest())
    given = json.loads((ROOT / "target.json").read_text())
    if (folder / "target.json").exists():
        given |= json.loads((folder / "target.json").read_text())
    target = Target(
        provider=given.get("provider", "p"),
        kind=given["kind"],
        model=given["model"],
        vendor=vendor_of(given["kind"], None),
        family=family_of(given["model"]),
        policy=given.get("policy", "drop"),
    )
    dialect, endpoint = ResponsesDialect(1 << 20), Endpoint("https://a.example/v1", {})
    if how == "count":
        return dialect.encode_count(request, target, endpoint)
    return dialect.encode(request, target, endpoint, stream=how == "stream")


SENT = [folder for folder in cases("upstream_request.json") if folder.name not in BEYOND]


@pytest.mark.parametrize("folder", SENT, ids=lambda folder: folder.name)
def test_requests_are_what_the_sdk_would_send(folder: Path) -> None:
    body = json.loads((folder / "upstream_request.json").read_text())["body"]
    check(PARAMS, body)
    streamed = json.loads(call_of(folder, "stream").body)
    check(STREAM_PARAMS, streamed)
    assert streamed == body | {"stream": True}


@pytest.mark.parametrize("folder", SENT, ids=lambda folder: folder.name)
def test_counting_requests_are_what_the_sdk_would_send(folder: Path) -> None:
    call = call_of(folder, "count")
    assert call.url == "https://a.example/v1/responses/input_tokens"
    body = json.loads(call.body)
    check(COUNT_PARAMS, body)
    whole = json.loads((folder / "upstream_request.json").read_text())["body"]
    assert body["input"] == whole["input"]
    assert body.get("tools") == whole.get("tools")


@pytest.mark.parametrize(
    "change",
    [
        {"max_output_tokens": "many"},
        {"max_tokens": 1},
        {"input": [{"role": "narrator", "content": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "txt": "x"}]}]},
        {"input": [{"type": "function_call", "call_id": "c", "name": "f"}]},
        {"input": [{"type": "message", "role": "assistant", "content": [{"type": "output_text"}]}]},
        {"include": ["everything"]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"text": {"format": {"type": "json_schema", "json_schema": {}}}},
    ],
    ids=str,
)
def test_the_oracle_refuses_nonsense(change: dict[str, Any]) -> None:
    body = {"model": "m", "input": [{"role": "user", "content": "x"}]}
    check(PARAMS, body)
    with pytest.raises((ValidationError, AssertionError)):
        check(PARAMS, body | change)


@pytest.mark.parametrize("folder", cases("upstream_response.json"), ids=lambda folder: folder.name)
def test_answers_are_in_the_vendors_shape(folder: Path) -> None:
    body = json.loads((folder / "upstream_response.json").read_text())
    if folder.name.startswith("error_"):
        with pytest.raises(ValidationError):
            Response.model_validate(USUAL | body)
        return
    if folder.name in BEYOND:
        return
    response = Response.model_validate(USUAL | body)
    if (folder / "response.json").exists():
        text = (folder / "response.json").read_text()
        ours = json_format.Parse(text, chat_pb2.ChatResponse())
        parts = ours.choices[0].message.parts
        assert response.output_text == "".join(part.text for part in parts)
        calls = [item.call_id for item in response.output if item.type == "function_call"]
        given = [part.tool_call for part in parts if part.HasField("tool_call")]
        assert calls == [call.id for call in given if not call.custom]


@pytest.mark.parametrize("folder", cases("upstream.sse"), ids=lambda folder: folder.name)
def test_events_are_in_the_vendors_shape(folder: Path) -> None:
    """But for numbers and the SDK's `logprobs` of each text, which the cases leave out mostly."""
    if folder.name in BEYOND or folder.name in OF_NO_SHAPE:
        return
    last: dict[str, Any] = {}
    for line in (folder / "upstream.sse").read_text().splitlines():
        if not line.startswith("data: {"):
            continue
        event = {"sequence_number": 0, "item_id": "i", **json.loads(line[6:])}
        if event["type"].startswith("response.output_text."):
            event = {"logprobs": [], **event}
        if "response" in event:
            last = event["response"] = USUAL | event["response"]
        if "error" in event:  # not in the documentation, but seen
            event |= event.pop("error") | {"type": "error"}
        EVENT.validate_python(event)
    if (folder / "events.jsonl").exists() and not (folder / "error.json").exists():
        lines = (folder / "events.jsonl").read_text().splitlines()
        ours = fold(json_format.Parse(line, chat_pb2.ChatEvent()) for line in lines)
        theirs = Response.model_validate(last)
        assert theirs.output_text == "".join(part.text for part in ours.choices[0].message.parts)
        assert ours.id == ("" if folder.name == "no_created_event" else theirs.id)
