"""`client.responses` of the stock `openai` package for Node: node/responses.test.mjs."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from conformance.conftest import Site
from conformance.test_openai_node import SOURCE, node_project  # noqa: F401 - a fixture
from fakes.upstream import Exchange, Step, answer, chat, chunks, completion, error, sse, tool_call

CALLS = [
    tool_call("get_weather", {"city": "Paris"}, id="call_a"),
    tool_call("get_weather", {"city": "Tokyo"}, id="call_b"),
]
PARSED = '{"steps":["a","b"],"final":42}'
BEGUN = chunks(["Hel", "lo"], finish_reason="")
FAILURE = {"error": {"message": "Boom.", "type": "server_error", "code": None}}


def behaviour() -> Step:
    """What the upstream does, by the request's `user`."""
    times: Counter[str] = Counter()

    def choose(asked: dict[str, Any]) -> Step:
        user, stream = asked.get("user", ""), asked.get("stream")
        times[user] += 1
        match user:
            case "reasoning" if stream:
                return sse(chunks(["42"], reasoning=["six ", "times seven"]))
            case "reasoning":
                return answer(completion("42", message={"reasoning_content": "six times seven"}))
            case "tools once" if len(asked["messages"]) > 1:
                return chat()
            case "tools once" if stream:
                return sse(chunks([], tool_calls=CALLS))
            case "tools once":
                return answer(completion(None, tool_calls=CALLS))
            case "parse" if stream:
                return sse(chunks([PARSED[:9], PARSED[9:]]))
            case "parse":
                return answer(completion(PARSED))
            case "quota":
                return error(429, "Pay.", type="insufficient_quota", code="insufficient_quota")
            case "breaks":
                return sse([*BEGUN, FAILURE], done=False)
            case "begins":
                return sse(BEGUN, ending="hang", done=False)
            case _:
                return chat()

    async def play(exchange: Exchange) -> None:
        await choose(exchange.record.json)(exchange)

    return play


async def test_responses_of_openai_for_node(
    site: Site,
    node_project: Path,  # noqa: F811
) -> None:
    shutil.copy(SOURCE / "responses.test.mjs", node_project)
    site.up.default(behaviour())
    process = await asyncio.create_subprocess_exec(
        "node",
        "--test",
        "--test-concurrency=1",
        "--test-reporter=spec",
        "responses.test.mjs",
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
    assert len(seen["quota"]) == 1
    (begun,) = seen["begins"]
    assert await begun.wait_closed() and not begun.finished
    assert seen["parse"][0].json["response_format"]["json_schema"]["strict"] is True
    turns = [r.json["messages"] for r in seen["tools once"] if len(r.json["messages"]) > 1]
    assert len(turns) == 2
    for _, said, *outcomes in turns:
        assert [call["id"] for call in said["tool_calls"]] == ["call_a", "call_b"]
        assert [outcome["content"] for outcome in outcomes] == ["mild", "mild"]
