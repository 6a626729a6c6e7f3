"""The stock `@google/genai` package for Node against a running gateway: node/genai.test.mjs."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from conformance.conftest import Site
from conformance.test_openai_node import SOURCE, node_project  # noqa: F401 - a fixture
from fakes.upstream import (
    Exchange,
    Step,
    answer,
    chat,
    chunks,
    completion,
    error,
    hang,
    sse,
    tool_call,
)
from headgate_facade.settings import FacadeSettings

CALLS = [
    tool_call("get_weather", {"city": "Paris"}, id="call_a"),
    tool_call("get_weather", {"city": "Tokyo"}, id="call_b"),
]
BEGUN = chunks(["Hel", "lo"], finish_reason="")
FAILURE = {"error": {"message": "Boom.", "type": "server_error", "code": None}}


def first_words(asked: dict[str, Any]) -> str:
    """The text of the first message of the user."""
    (content, *_) = [m["content"] for m in asked["messages"] if m["role"] == "user"]
    return content if isinstance(content, str) else content[0]["text"]


def behaviour() -> Step:
    """What the upstream does, by the first words of the conversation."""
    times: Counter[str] = Counter()

    def choose(asked: dict[str, Any]) -> Step:
        words, stream = first_words(asked), asked.get("stream")
        times[words] += 1
        match words:
            case "slowly":
                return sse(chunks(["a", "b", "c"]), delay=0.12)
            case "thinking" if stream:
                return sse(chunks(["42"], reasoning=["six ", "times seven"]))
            case "thinking":
                return answer(completion("42", message={"reasoning_content": "six times seven"}))
            case "tools once" if len(asked["messages"]) > 1:
                return chat()
            case "tools" | "tools once" if stream:
                return sse(chunks([], tool_calls=CALLS))
            case "tools":
                return answer(completion(None, tool_calls=CALLS))
            case "quota":
                return error(429, "Pay.", type="insufficient_quota", code="insufficient_quota")
            case "filter":
                return error(400, "No.", type="invalid_request_error", code="content_filter")
            case "rejects":
                return error(401)
            case "fails twice" if times[words] <= 2:
                return error(500)
            case "breaks":
                return sse([*BEGUN, FAILURE], done=False)
            case "hangs":
                return hang()
            case "begins":
                return sse(BEGUN, ending="hang", done=False)
            case _:
                return chat()

    async def play(exchange: Exchange) -> None:
        await choose(exchange.record.json)(exchange)

    return play


async def test_google_genai_for_node(site: Site, node_project: Path) -> None:  # noqa: F811
    shutil.copy(SOURCE / "genai.test.mjs", node_project)
    await site.open(
        models="  a/b: {targets: [{provider: up}]}", facade=FacadeSettings(ping_interval=0.03)
    )
    site.up.default(behaviour())
    process = await asyncio.create_subprocess_exec(
        "node",
        "--test",
        "--test-concurrency=1",
        "--test-reporter=spec",
        "genai.test.mjs",
        cwd=node_project,
        env=os.environ | {"GATEWAY_URL": site.gateway.rest_url, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 90)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode()
    assert process.returncode == 0, text
    assert "fail 0" in text and "skipped 0" in text and "pass 0" not in text, text

    seen: dict[str, list[Any]] = {}
    for record in site.up.requests:
        seen.setdefault(first_words(record.json), []).append(record)
    assert len(seen["fails twice"]) == 3
    for record in [*seen["hangs"], *seen["begins"]]:
        assert await record.wait_closed() and not record.finished
    (asked,) = [record.json for record in seen["config"]]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["temperature"], asked["stop"]) == (0.5, ["END"])
    schema = asked["response_format"]["json_schema"]["schema"]
    assert schema == {"type": "array", "items": {"type": ["string", "null"]}}
    assert all(record.json["tool_choice"] == "required" for record in seen["tools"])
    (image,) = [record.json["messages"][0]["content"][1] for record in seen["image"]]
    assert image["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    # A chat's history: the chunks of an answer are one turn again, its calls answered by their ids.
    _, second, third = [record.json["messages"] for record in seen["tools once"]]
    assert [call["id"] for call in second[1]["tool_calls"]] == ["call_a", "call_b"]
    assert [m["tool_call_id"] for m in second[2:]] == ["call_a", "call_b"]
    assert [m["role"] for m in third[-2:]] == ["assistant", "user"]
    assert third[-2]["content"] == "Hello! How can I help you today?"
