"""The Gemini golden cases against Google's own SDK: its types, its requests, its reading of answers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import types
from google.genai.errors import APIError
from google.oauth2.credentials import Credentials
from google.protobuf import json_format

from fakes.upstream import Answer, FakeUpstream
from headgate.v1 import chat_pb2

ROOT = Path(__file__).parents[1] / "golden" / "gemini"
CASES = sorted(path for path in ROOT.iterdir() if path.is_dir())
# Members that are not the API's, sent on purpose: the caller's own, and what a policy passes on.
MADE_UP = {"part_and_message_extras", "unsupported_pass"}
TOP_LEVEL = (
    "systemInstruction",
    "tools",
    "toolConfig",
    "safetySettings",
    "cachedContent",
    "labels",
    "serviceTier",
    "store",
)

Json = dict[str, Any]


def name_of(folder: Path) -> str:
    return folder.name


def having(*names: str) -> list[Path]:
    return [
        folder
        for folder in CASES
        if all((folder / name).exists() for name in names) and folder.name not in MADE_UP
    ]


def is_vertex(folder: Path) -> bool:
    path = folder / "target.json"
    return path.exists() and json.loads(path.read_text())["kind"] == "vertex"


@contextmanager
def client_of(origin: str, *, vertex: bool) -> Iterator[genai.Client]:
    if vertex:
        client = genai.Client(
            vertexai=True,
            project="acme",
            location="us-central1",
            credentials=Credentials(token="t"),
            http_options=types.HttpOptions(base_url=origin, api_version="v1"),
        )
    else:
        client = genai.Client(
            api_key="k", http_options=types.HttpOptions(base_url=origin, api_version="v1beta")
        )
    try:
        yield client
    finally:
        client.close()


# Else the SDK asks for more until there is none.
ONCE = types.GenerateContentConfig(automatic_continuation=False)


# Requests.


def contents_of(body: Json) -> list[types.Content]:
    # From JSON text: only so are bytes read as base64.
    return [types.Content.model_validate_json(json.dumps(each)) for each in body["contents"]]


def config_of(body: Json) -> types.GenerateContentConfig:
    config = body.get("generationConfig", {}) | {
        name: body[name] for name in TOP_LEVEL if name in body
    }
    return types.GenerateContentConfig.model_validate_json(json.dumps(config))


REQUESTS = having("upstream_request.json")


def body_of(folder: Path) -> Json:
    found: Json = json.loads((folder / "upstream_request.json").read_text())["body"]
    return found


@pytest.mark.parametrize("folder", REQUESTS, ids=name_of)
def test_every_member_is_one_of_the_sdk(folder: Path) -> None:
    body = body_of(folder)
    assert body.keys() <= {"contents", "generationConfig", *TOP_LEVEL}
    for content in contents_of(body):
        assert content.parts
        assert content.role in ("user", "model")
    config_of(body)  # its models forbid what they do not know


@pytest.mark.parametrize("folder", REQUESTS, ids=name_of)
async def test_the_sdk_would_send_the_same(folder: Path) -> None:
    """The same conversation and configuration through the SDK is the same body, in the same places."""
    body = body_of(folder)
    model = json.loads((folder / "upstream_request.json").read_text())["url"]
    async with FakeUpstream() as up:
        up.default(Answer([b"{}"]))
        with client_of(up.origin, vertex=is_vertex(folder)) as client:
            await asyncio.to_thread(
                client.models.generate_content,
                model=model.split("/models/")[-1].partition(":")[0],
                contents=contents_of(body),
                config=config_of(body),
            )
    (record,) = up.requests
    assert normal(record.json) == normal(body)


def normal(value: Any, name: str = "") -> Any:
    """What the SDK writes otherwise, though it means the same."""
    if isinstance(value, dict):
        found = {camel(key): normal(inner, camel(key)) for key, inner in value.items()}
        if name == "systemInstruction":
            found.pop("role", None)
        return {
            key: inner for key, inner in found.items() if inner not in ({}, None) or key in KEPT
        }
    if isinstance(value, list):
        found = [normal(inner, name) for inner in value]
        return sorted(found, key=json.dumps) if name == "tools" else found
    if name in ("data", "thoughtSignature") and isinstance(value, str):
        return base64.urlsafe_b64decode(value.replace("+", "-").replace("/", "_"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value.upper() if name in ("serviceTier", "language") else value
    return float(value)


KEPT = {"googleSearch", "urlContext", "codeExecution", "args", "response"}


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


# Answers.


def reading(folder: Path) -> chat_pb2.ChatResponse:
    text = (folder / "response.json").read_text()
    return json_format.Parse(text, chat_pb2.ChatResponse())


def said(response: types.GenerateContentResponse) -> list[Any]:
    """What the SDK makes of the candidates, in the terms of `ours`."""
    found: list[Any] = []
    for candidate in response.candidates or []:
        content = candidate.content
        for part in (content.parts if content is not None else None) or []:
            if part.function_call is not None:
                found.append(("call", part.function_call.name, part.function_call.args or {}))
            elif part.inline_data is not None and not part.thought:
                found.append(("data", part.inline_data.data))
            elif part.text and part.thought:
                found.append(("thought", part.text))
            elif part.text:
                found.append(("text", part.text))
    return joined(found)


def ours(response: chat_pb2.ChatResponse) -> list[Any]:
    found: list[Any] = []
    for choice in response.choices:
        for part in choice.message.parts:
            kind = part.WhichOneof("kind")
            if kind == "tool_call":
                arguments = json.loads(part.tool_call.arguments_json)
                found.append(("call", part.tool_call.name, arguments))
            elif kind in ("image", "audio"):
                found.append(("data", getattr(part, kind).data))
            elif kind == "reasoning":
                found.append(("thought", part.reasoning.text))
            elif kind == "text" and part.text:
                found.append(("text", part.text))
    return joined(found)


def joined(found: list[Any]) -> list[Any]:
    """Neighbours of one kind, of one part or of several, in one."""
    out: list[Any] = []
    for entry in found:
        if out and out[-1][0] == entry[0] != "call":
            out[-1] = (entry[0], out[-1][1] + entry[1])
        else:
            out.append(entry)
    return out


def check(folder: Path, response: types.GenerateContentResponse) -> None:
    mine = reading(folder)
    assert said(response) == ours(mine)
    usage = response.usage_metadata
    if mine.HasField("usage"):
        assert usage is not None
        assert mine.usage.total_tokens == usage.total_token_count
        assert mine.usage.reasoning_output_tokens == (usage.thoughts_token_count or 0)
        assert mine.usage.cached_input_tokens == (usage.cached_content_token_count or 0)
    assert mine.model == response.model_version
    assert mine.id == response.response_id
    for choice, candidate in zip(mine.choices, response.candidates or [], strict=True):
        reason = candidate.finish_reason
        assert choice.provider_finish_reason == (reason.value if reason else "")


@pytest.mark.parametrize("folder", having("upstream_response.json", "response.json"), ids=name_of)
async def test_the_sdk_reads_the_same_in_an_answer(folder: Path) -> None:
    async with FakeUpstream() as up:
        up.default(Answer([(folder / "upstream_response.json").read_bytes()]))
        with client_of(up.origin, vertex=is_vertex(folder)) as client:
            response = await asyncio.to_thread(
                client.models.generate_content, model="m", contents="?", config=ONCE
            )
    check(folder, response)


# Of arguments that come in pieces the SDK hands the pieces on.
STREAMS = [
    folder
    for folder in having("upstream.sse", "response.json")
    if folder.name != "vertex_streamed_arguments"
]


@pytest.mark.parametrize("folder", STREAMS, ids=name_of)
async def test_the_sdk_reads_the_same_in_a_stream(folder: Path) -> None:
    async with FakeUpstream() as up:
        body = (folder / "upstream.sse").read_bytes()
        up.default(Answer([body], content_type="text/event-stream"))
        with client_of(up.origin, vertex=is_vertex(folder)) as client:

            def read() -> list[Any]:
                stream = client.models.generate_content_stream(model="m", contents="?", config=ONCE)
                return [item for chunk in stream for item in said(chunk)]

            found = await asyncio.to_thread(read)
    mine = ours(reading(folder))
    if len(reading(folder).choices) == 1:  # else their texts alternate
        assert joined(found) == mine


@pytest.mark.parametrize("folder", having("upstream_error.json"), ids=name_of)
async def test_the_sdk_takes_the_errors_for_errors(folder: Path) -> None:
    given = json.loads((folder / "upstream_error.json").read_text())
    body = given["body"]
    raw = body if isinstance(body, str) else json.dumps(body)
    async with FakeUpstream() as up:
        up.default(Answer([raw.encode()], given["status"], given["headers"]))
        with client_of(up.origin, vertex=is_vertex(folder)) as client:
            with pytest.raises(APIError) as caught:
                await asyncio.to_thread(client.models.generate_content, model="m", contents="?")
    assert caught.value.code == given["status"]
    error = json.loads((folder / "error.json").read_text())
    if caught.value.status and not isinstance(body, str):
        assert error["metadata"]["upstream_code"] == caught.value.status
