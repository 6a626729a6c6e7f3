"""The stock `@anthropic-ai/sdk` package for Node against a running gateway: node/anthropic.test.mjs."""

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

CALLS = [
    tool_call("get_weather", {"city": "Paris"}, id="call_a"),
    tool_call("get_weather", {"city": "Tokyo"}, id="call_b"),
]
BEGUN = chunks(["Hel", "lo"], finish_reason="")
FAILURE = {"error": {"message": "Busy.", "type": "server_error", "code": "overloaded"}}


def behaviour() -> Step:
    """What the upstream does, by the request's `user`."""
    times: Counter[str] = Counter()

    def choose(asked: dict[str, Any]) -> Step:
        user, stream = asked.get("user", ""), asked.get("stream")
        times[user] += 1
        match user:
            case "thinking" if stream:
                return sse(chunks(["42"], reasoning=["six ", "times seven"]))
            case "thinking":
                return answer(completion("42", message={"reasoning_content": "six times seven"}))
            case "tools once" if len(asked["messages"]) > 1:
                return chat()
            case "tools" | "tools once" if stream:
                return sse(chunks([], tool_calls=CALLS))
            case "tools" | "tools once":
                return answer(completion(None, tool_calls=CALLS))
            case "parse":
                return answer(completion('{"steps":["a","b"],"final":42}'))
            case "fails twice" if times[user] <= 2:
                return error(500)
            case "quota":
                return error(429, "Pay.", type="insufficient_quota", code="insufficient_quota")
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


async def test_anthropic_for_node(site: Site, node_project: Path) -> None:  # noqa: F811
    shutil.copy(SOURCE / "anthropic.test.mjs", node_project)
    await site.open(models="  a/b: {targets: [{provider: up}]}")
    site.up.default(behaviour())
    process = await asyncio.create_subprocess_exec(
        "node",
        "--test",
        "--test-concurrency=1",
        "--test-reporter=spec",
        "anthropic.test.mjs",
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
        seen.setdefault(record.json.get("user", ""), []).append(record)
    assert len(seen["fails twice"]) == 3
    assert len(seen["quota"]) == 1
    for record in [*seen["hangs"], *seen["begins"]]:
        assert await record.wait_closed() and not record.finished
    for record in seen["results"]:
        _, called, *results = record.json["messages"]
        assert [call["id"] for call in called["tool_calls"]] == ["call_a", "call_b"]
        assert [result["tool_call_id"] for result in results] == ["call_a", "call_b"]
    (parsed,) = seen["parsed"]
    assert parsed.json["messages"][1]["content"] == '{"steps":["a","b"],"final":42}'
