"""The embedded model behind the whole gateway, also while its process is dead."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fakes.gateway import Gateway
from headgate_server.local import LocalModelOptions, fetch_weights

CONFIG = """
providers: {local: {kind: local}}
models: {small: {targets: [{provider: local, model: smollm2-135m-instruct}]}}
"""
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    options = LocalModelOptions(weights=await fetch_weights(), load_timeout_s=60)
    async with Gateway(CONFIG, local_options={"local": options}) as gateway:
        yield gateway


async def ask(gateway: Gateway, **body: Any) -> httpx.Response:
    async with gateway.http() as http:
        members = {"model": "small", "messages": FRANCE, **body}
        return await http.post("/v1/chat/completions", json=members)


async def test_it_answers(gateway: Gateway) -> None:
    answer = (await ask(gateway)).json()
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0
    streamed = (await ask(gateway, stream=True, stream_options={"include_usage": True})).text
    assert "Paris" in streamed
    assert streamed.endswith("data: [DONE]\n\n")


async def test_it_calls_a_tool_when_it_must(gateway: Gateway) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    named = {"type": "function", "function": {"name": "get_weather"}}
    answer = (await ask(gateway, tools=tools, tool_choice=named)).json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert isinstance(json.loads(call["function"]["arguments"])["city"], str)


async def test_it_keeps_to_a_schema(gateway: Gateway) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = (await ask(gateway, response_format=form, max_tokens=60)).json()
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["n"], int)


async def test_several_choices_and_logprobs(gateway: Gateway) -> None:
    answer = (await ask(gateway, n=2, max_tokens=4, logprobs=True, top_logprobs=2)).json()
    assert len(answer["choices"]) == 2
    assert answer["usage"]["completion_tokens"] == 8
    assert len(answer["choices"][1]["logprobs"]["content"][0]["top_logprobs"]) == 2


async def test_images_and_long_prompts_are_refused(gateway: Gateway) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    refused = await ask(gateway, messages=[{"role": "user", "content": [image]}])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "messages[0].content[0]"
    long = await ask(gateway, messages=[{"role": "user", "content": "word " * 6000}])
    assert long.json()["error"]["code"] == "context_length_exceeded"


async def test_more_callers_than_slots(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(ask(gateway, max_tokens=8) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}


async def test_its_death_is_a_503_until_it_is_back(gateway: Gateway) -> None:
    model = gateway.app.local_models["local"]
    assert model.pid is not None
    os.kill(model.pid, signal.SIGKILL)
    statuses = set()
    async with asyncio.timeout(30):
        while True:
            answer = await ask(gateway, max_tokens=4)
            statuses.add(answer.status_code)
            if answer.status_code == 200 and model.restarts:
                break
            if answer.status_code == 503 and answer.json()["error"]["code"] == "overloaded":
                assert int(answer.headers["retry-after"]) >= 1
            await asyncio.sleep(0.02)
    assert statuses == {200, 503}
