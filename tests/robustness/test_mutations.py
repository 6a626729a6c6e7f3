"""Malformed input never yields a 5xx: it gets 4xx with the field named, or a correct answer."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.gateway import Gateway, config_for
from fakes.upstream import FakeUpstream
from headgate.errors import InternalError, from_rpc_error
from headgate.v1 import chat_pb2, content_pb2

RICH: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "op"},
        {"role": "developer", "content": [{"type": "text", "text": "Really."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {
                    "type": "image_url",
                    "image_url": {"url": "https://x.test/a.png", "detail": "low"},
                },
                {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
                {"type": "file", "file": {"file_data": "aGk=", "filename": "a.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "assistant", "function_call": {"name": "g", "arguments": "{}"}},
        {"role": "function", "name": "g", "content": "43"},
        {"role": "user", "content": "Go on."},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
        {"type": "web_search"},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": True,
    "temperature": 0.5,
    "top_p": 1,
    "max_completion_tokens": 10,
    "n": 2,
    "stop": ["a", "b"],
    "seed": 7,
    "frequency_penalty": 0.1,
    "presence_penalty": -0.1,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 3,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
    },
    "reasoning_effort": "low",
    "enable_thinking": True,
    "thinking": {"type": "enabled"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "text"},
    "web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "X"}}},
    "service_tier": "auto",
    "metadata": {"a": "b"},
    "store": False,
    "user": "u",
    "stream_options": {"include_usage": True},
    "vendor_extra": {"deep": [1, {"x": None}]},
}

Path = tuple[str | int, ...]


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Every place in a JSON value."""
    if here:
        yield here
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*here, index))


PLACES = list(paths(RICH))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["", "\ud7ff", "\x00", "assistant", "text", "null", 2**63, -(2**63), 1e308, -1]
    )
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["replace", "remove", "add"]), JUNK),
    min_size=1,
    max_size=3,
)


def mutated(mutations: list[tuple[Path, str, Any]]) -> dict[str, Any]:
    """The rich body with these changes, as far as they still apply."""
    body = copy.deepcopy(RICH)
    for path, how, junk in mutations:
        holder: Any = body
        try:
            for step in path[:-1]:
                holder = holder[step]
            if how == "replace":
                holder[path[-1]] = junk
            elif how == "remove":
                del holder[path[-1]]
            elif isinstance(holder, dict):
                holder["surprise"] = junk
            else:
                holder.append(junk)
        except (KeyError, IndexError, TypeError, AttributeError):
            continue
    return body


class Running:
    """A gateway kept running between examples."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.runner.run(self._start())

    async def _start(self) -> None:
        self.up = await FakeUpstream().__aenter__()
        self.gateway = await Gateway(config_for(self.up.base_url)).__aenter__()
        self.http = self.gateway.http()

    def post(self, content: bytes) -> httpx.Response:
        return self.runner.run(self.http.post("/v1/chat/completions", content=content))

    def call(self, message: bytes) -> Exception | None:
        async def run() -> Exception | None:
            async with grpc.aio.insecure_channel(self.gateway.grpc_address) as channel:
                raw = channel.unary_unary("/headgate.v1.ChatService/ChatComplete")
                try:
                    await raw(message, timeout=10)
                except grpc.RpcError as error:
                    return from_rpc_error(error)
                return None

        return self.runner.run(run())

    def close(self) -> None:
        async def stop() -> None:
            await self.http.aclose()
            await self.gateway.__aexit__(None, None, None)
            await self.up.__aexit__(None, None, None)

        self.runner.run(stop())
        self.runner.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


MANY = settings(
    max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def check(response: httpx.Response) -> None:
    if response.status_code == 200:
        return
    assert response.status_code in (400, 404, 413), response.text
    error = response.json()["error"]
    assert error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.timeout(300)
@MANY
@given(mutations=MUTATIONS, stream=st.booleans())
def test_mutated_bodies(
    running: Running, mutations: list[tuple[Path, str, Any]], stream: bool
) -> None:
    body = mutated(mutations)
    body.setdefault("stream", stream)
    check(running.post(json.dumps(body).encode("utf-8", "surrogatepass")))


@pytest.mark.timeout(300)
@MANY
@given(data=st.data())
def test_mutated_bytes(running: Running, data: st.DataObject) -> None:
    text = bytearray(json.dumps(RICH).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if how == "flip":
            text[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del text[at:]
            text = text or bytearray(b"{")
        else:
            text[at:at] = data.draw(st.binary(max_size=8))
    check(running.post(bytes(text)))


@pytest.mark.parametrize(
    ("place", "junk", "param"),
    [
        (("messages", 0, "content"), 5, "messages[0].content"),
        (
            ("messages", 2, "content", 1, "image_url", "url"),
            5,
            "messages[2].content[1].image_url.url",
        ),
        (("messages", 2, "content", 0, "type"), 5, "messages[2].content[0].type"),
        (("messages", 0, "role"), "king", "messages[0].role"),
        (("messages",), [], "messages"),
        (("temperature",), "hot", "temperature"),
        (("temperature",), 3, "temperature"),
        (("n",), 0, "n"),
        (("max_completion_tokens",), -1, "max_completion_tokens"),
        (("tools", 0, "function", "name"), 7, "tools[0].function.name"),
        (("tools", 0, "function", "name"), "", "tools[0].function.name"),
        (("tools", 0, "function", "parameters"), [], "tools[0].function.parameters"),
        (("tool_choice",), "sometimes", "tool_choice"),
        (("tool_choice", "function", "name"), "unknown", "tool_choice"),
        (("response_format", "type"), "xml", "response_format.type"),
        (("logit_bias",), {"x": 1}, "logit_bias"),
        (("stream_options",), "yes", "stream_options"),
        (("metadata",), {"a": 1}, "metadata"),
        (("stop",), 5, "stop"),
        (("seed",), 1.5, "seed"),
        (("messages", 4, "tool_call_id"), None, "messages[4].tool_call_id"),
    ],
)
def test_the_field_is_named(running: Running, place: Path, junk: Any, param: str) -> None:
    response = running.post(json.dumps(mutated([(place, "replace", junk)])).encode())
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(param), response.text


REQUEST = chat_pb2.ChatRequest(
    model="m",
    messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="hi")])],
    tools=[chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f", parameters_json="{}"))],
    temperature=0.5,
    extra_body_json="{}",
    metadata={"a": "b"},
)


@pytest.mark.timeout(300)
@settings(MANY, max_examples=600)
@given(data=st.data())
def test_mutated_messages(running: Running, data: st.DataObject) -> None:
    text = bytearray(REQUEST.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        chat_pb2.ChatRequest.FromString(bytes(text))
    except Exception:
        return  # gRPC itself refuses it
    error = running.call(bytes(text))
    assert not isinstance(error, InternalError), error


@pytest.mark.timeout(300)
def test_schemathesis(running: Running) -> None:
    """The published schema, fuzzed: what it allows is answered, what it forbids is refused."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{running.gateway.rest_url}/openapi.json",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "60", "--seed", "7",
        "--checks", "not_a_server_error,content_type_conformance,response_schema_conformance",
        "--suppress-health-check", "all", "--no-color", "--request-timeout", "10",
    ]  # fmt: skip

    async def run() -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        out, _ = await asyncio.wait_for(process.communicate(), 250)
        return process.returncode or 0, out.decode()

    status, out = running.runner.run(run())
    assert status == 0, out[-6000:]
