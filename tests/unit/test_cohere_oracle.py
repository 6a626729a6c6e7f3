"""The Cohere dialect against the types of Cohere's own SDK."""

from __future__ import annotations

import inspect
import json
import typing
from pathlib import Path
from typing import Any

import pytest
from cohere.v2.client import V2Client
from cohere.v2.types.v2chat_response import V2ChatResponse
from cohere.v2.types.v2chat_stream_response import V2ChatStreamResponse
from pydantic import BaseModel, TypeAdapter

GOLDEN = Path(__file__).parents[1] / "golden" / "cohere"
# What this case is about is to pass on what Cohere does not know.
FOREIGN = {"unsupported_pass"}
REQUESTS = sorted(
    path.parent
    for path in GOLDEN.glob("*/upstream_request.json")
    if path.parent.name not in FOREIGN
)
# Answers that Cohere would not give, so that it is seen what becomes of them.
INVENTED = {
    *("content_as_string", "unknown_members", "unknown_members_streamed", "unknown_block"),
    *("unknown_block_streamed", "tool_calls_as_lists", "citations_of_thinking_and_plan"),
    *("usage_details", "error_stream_malformed", "error_with_status_200", "error_mid_stream_bare"),
}
ANSWERS = sorted(
    path.parent
    for path in GOLDEN.glob("*/upstream_response.json")
    if path.parent.name not in INVENTED
)
STREAMS = sorted(
    path.parent for path in GOLDEN.glob("*/upstream.sse") if path.parent.name not in INVENTED
)
PARAMETERS = typing.get_type_hints(V2Client.chat)


def name_of(folder: Path) -> str:
    return folder.name


def extras(value: object, path: str = "$") -> list[str]:
    """Members that the SDK's types do not name; the types themselves let them pass."""
    found: list[str] = []
    if isinstance(value, BaseModel):
        found += [f"{path}.{name}" for name in value.model_extra or {}]
        for name in type(value).model_fields:
            found += extras(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += extras(item, f"{path}[{index}]")
    return found


@pytest.mark.parametrize("folder", REQUESTS, ids=name_of)
def test_requests_are_valid(folder: Path) -> None:
    body = json.loads((folder / "upstream_request.json").read_text())["body"]
    assert body.pop("stream") is False
    signature = inspect.signature(V2Client.chat)
    required = {
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is inspect.Parameter.empty and name != "self"
    }
    assert required <= body.keys() <= signature.parameters.keys()
    for name, value in body.items():
        parsed = TypeAdapter(PARAMETERS[name]).validate_python(value)
        assert extras(parsed, name) == []


@pytest.mark.parametrize("folder", ANSWERS, ids=name_of)
def test_golden_answers_are_cohere_s(folder: Path) -> None:
    parsed = V2ChatResponse.model_validate_json((folder / "upstream_response.json").read_text())
    assert extras(parsed) == []


@pytest.mark.parametrize("folder", STREAMS, ids=name_of)
def test_golden_streams_are_cohere_s(folder: Path) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(V2ChatStreamResponse)
    for line in (folder / "upstream.sse").read_text().splitlines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        parsed = adapter.validate_json(line[6:])
        # The service begins with an empty message, of which the SDK's types know the role only.
        if parsed.type != "message-start":
            assert extras(parsed) == []
