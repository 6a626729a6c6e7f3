"""Anthropic's golden cases against the vendor's own SDK: what we send, and what we think it sends.

The SDK describes the API version after the one that we speak; what that version took away is named here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta.message_create_params import (
    MessageCreateParamsNonStreaming as BetaParams,
)
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from google.protobuf import json_format
from pydantic import BaseModel, TypeAdapter, ValidationError

from headgate.fold import fold
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers import vendor_of
from headgate_server.providers.anthropic import AnthropicDialect
from headgate_server.providers.base import Endpoint, Target
from headgate_server.providers.vendors import family_of

ROOT = Path(__file__).parents[1] / "golden" / "anthropic"
REMOVED = ("temperature", "top_p", "top_k")  # of API version 2023-06-01
# Cases about members, events and kinds that the API does not have (yet).
BEYOND = {"unsupported_pass", "unknown_things", "compaction", "unknown_stop_reason", "no_usage"}
NEEDS_BETA = {"extra_body"}
PARAMS: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
BETA_PARAMS: TypeAdapter[Any] = TypeAdapter(BetaParams)
COUNT_PARAMS: TypeAdapter[Any] = TypeAdapter(MessageCountTokensParams)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def cases(name: str) -> list[Path]:
    found = sorted(path.parent for path in ROOT.glob(f"*/{name}"))
    assert len(found) > 15
    return [folder for folder in found if folder.name not in BEYOND]


def check(adapter: TypeAdapter[Any], body: dict[str, Any]) -> None:
    """Valid, and without a member that the types do not have: those do not survive the trip."""
    assert taken(adapter.validate_python(body)) == body


def taken(value: Any) -> Any:
    """What was validated. The SDK says Iterable for lists, which pydantic validates one by one."""
    if isinstance(value, dict):
        return {name: taken(inner) for name, inner in value.items()}
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)  # an answer's block may go back as it came
    if isinstance(value, str | int | float | None):
        return value
    return [taken(inner) for inner in value]


@pytest.mark.parametrize("folder", cases("upstream_request.json"), ids=lambda folder: folder.name)
def test_requests_are_what_the_sdk_would_send(folder: Path) -> None:
    body = json.loads((folder / "upstream_request.json").read_text())["body"]
    for name in REMOVED:
        body.pop(name, None)
    check(BETA_PARAMS if folder.name in NEEDS_BETA else PARAMS, body)


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": "many"},
        {"tempo": 1},
        {"messages": [{"role": "narrator", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "txt": "x"}]}]},
        {"thinking": {"type": "enabled"}},
    ],
    ids=str,
)
def test_the_oracle_refuses_nonsense(change: dict[str, Any]) -> None:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    check(PARAMS, body)
    with pytest.raises((ValidationError, AssertionError)):
        check(PARAMS, body | change)


@pytest.mark.parametrize("folder", cases("request.json"), ids=lambda folder: folder.name)
def test_counting_requests_are_what_the_sdk_would_send(folder: Path) -> None:
    if not (folder / "upstream_request.json").exists() or folder.name in NEEDS_BETA:
        return
    request = json_format.Parse((folder / "request.json").read_text(), chat_pb2.ChatRequest())
    given = json.loads((ROOT / "target.json").read_text())
    if (folder / "target.json").exists():
        given |= json.loads((folder / "target.json").read_text())
    target = Target(
        provider="p",
        kind=given["kind"],
        model=given["model"],
        vendor=vendor_of(given["kind"], None),
        family=family_of(given["model"]),
        policy=given.get("policy", "drop"),
    )
    call = AnthropicDialect(1 << 20).encode_count(
        request, target, Endpoint("https://a.example", {})
    )
    assert call.url == "https://a.example/v1/messages/count_tokens"
    check(COUNT_PARAMS, json.loads(call.body))


@pytest.mark.parametrize("folder", cases("upstream_response.json"), ids=lambda folder: folder.name)
def test_answers_are_in_the_vendors_shape(folder: Path) -> None:
    body = json.loads((folder / "upstream_response.json").read_text())
    if folder.name.startswith("error_"):
        with pytest.raises(ValidationError):
            Message.model_validate(body)
    else:
        Message.model_validate(body)


def sse_data(folder: Path) -> Iterator[dict[str, Any]]:
    for line in (folder / "upstream.sse").read_bytes().splitlines():
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


@pytest.mark.parametrize("folder", cases("upstream.sse"), ids=lambda folder: folder.name)
def test_streams_are_in_the_vendors_shape(folder: Path) -> None:
    if folder.name.startswith("error_"):
        return
    for event in sse_data(folder):
        if event["type"] != "ping":
            EVENT.validate_python(event)


def through_the_sdk(folder: Path) -> Message:
    """The message that the SDK makes of a stream's events."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in sse_data(folder):
        if event["type"] != "ping":
            snapshot = accumulate_event(
                event=EVENT.validate_python(event),
                current_snapshot=snapshot,
                json_bufs=buffers,
            )
    assert isinstance(snapshot, Message)
    return snapshot


@pytest.mark.parametrize("folder", cases("upstream.sse"), ids=lambda folder: folder.name)
def test_the_fold_is_what_the_sdk_accumulates(folder: Path) -> None:
    if folder.name.startswith("error_") or folder.name == "tool_input_cut":
        return
    theirs = through_the_sdk(folder)
    lines = (folder / "events.jsonl").read_text().splitlines()
    ours = fold(json_format.Parse(line, chat_pb2.ChatEvent()) for line in lines)
    (choice,) = ours.choices
    assert [seen(part) for part in choice.message.parts] == [
        block.model_dump(include=set(seen(part)))
        for block, part in zip(theirs.content, choice.message.parts, strict=True)
    ]
    assert choice.provider_finish_reason == theirs.stop_reason
    assert (choice.stop_sequence or None) == theirs.stop_sequence
    assert ours.usage.output_tokens == theirs.usage.output_tokens
    assert ours.usage.input_tokens == theirs.usage.input_tokens + (
        theirs.usage.cache_read_input_tokens or 0
    ) + (theirs.usage.cache_creation_input_tokens or 0)


def seen(part: content_pb2.Part) -> dict[str, Any]:
    """What the block of a part must hold."""
    kind = part.WhichOneof("kind")
    if kind == "text":
        return {"type": "text", "text": part.text}
    if kind == "tool_call":
        call = part.tool_call
        given = json.loads(call.arguments_json)
        return {"type": "tool_use", "id": call.id, "name": call.name, "input": given}
    if kind == "vendor_part":
        block: dict[str, Any] = json.loads(part.vendor_part.json)
        return block
    if part.reasoning.HasField("encrypted"):
        return {"type": "redacted_thinking", "data": part.reasoning.encrypted}
    thought = part.reasoning
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}
