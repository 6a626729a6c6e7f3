"""The stock `openai` package for Node against a running gateway: node/openai.test.mjs.

The package is installed once, into the cache folder; that needs npm and its registry.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conformance.conftest import Site
from fakes.upstream import (
    Exchange,
    Step,
    answer,
    chat,
    chunks,
    completion,
    error,
    hang,
    rate_limited,
    sse,
    tool_call,
)

SOURCE = Path(__file__).parent / "node"
CACHE = Path(__file__).parents[2] / ".cache" / "node-conformance"
INSTALL = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]


@pytest.fixture(scope="session")
def node_project() -> Path:
    """A folder with the package installed and our script in it."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    wanted = (SOURCE / "package.json").read_bytes()
    stamp = CACHE / "installed"
    digest = hashlib.sha256(wanted).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(CACHE, ignore_errors=True)
        CACHE.mkdir(parents=True)
        (CACHE / "package.json").write_bytes(wanted)
        done = subprocess.run(INSTALL, cwd=CACHE, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"npm cannot install the openai package: {done.stderr.strip()[-300:]}")
        stamp.write_text(digest)
    shutil.copy(SOURCE / "openai.test.mjs", CACHE)
    return CACHE


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
            case "tools" | "tools once" if stream:
                return sse(chunks([], tool_calls=CALLS))
            case "tools":
                return answer(completion(None, tool_calls=CALLS))
            case "parse" if stream:
                return sse(chunks([PARSED[:9], PARSED[9:]]))
            case "parse":
                return answer(completion(PARSED))
            case "fails twice" if times[user] <= 2:
                return error(500)
            case "limited once" if times[user] == 1:
                return rate_limited(headers={"retry-after-ms": "300"})
            case "quota":
                return error(429, "Pay.", type="insufficient_quota", code="insufficient_quota")
            case "breaks":
                return sse([*BEGUN, FAILURE], done=False)
            case "hangs":
                return hang()
            case "begins":
                return sse(BEGUN, ending="hang", done=False)
            case "late":
                blank = {key: BEGUN[0][key] for key in ("id", "object", "created", "model")}
                return sse([*chunks(["Hi"]), blank | {"choices": [], "citations": ["u"]}])
            case _:
                return chat()

    async def play(exchange: Exchange) -> None:
        await choose(exchange.record.json)(exchange)

    return play


async def test_openai_for_node(site: Site, node_project: Path) -> None:
    await site.open(models="  a/b: {targets: [{provider: up}]}")
    site.up.default(behaviour())
    process = await asyncio.create_subprocess_exec(
        "node",
        "--test",
        "--test-concurrency=1",
        "--test-reporter=spec",
        "openai.test.mjs",
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
    assert len(seen["limited once"]) == 2
    assert len(seen["quota"]) == 1
    for record in [*seen["hangs"], *seen["begins"]]:
        assert await record.wait_closed() and not record.finished
    form = seen["parse"][0].json["response_format"]
    assert form["json_schema"]["strict"] is True
    # Messages went back as the SDK sends them, without what its helpers had added.
    turns = [r.json["messages"][1] for r in seen[""] if len(r.json["messages"]) == 4]
    assert [turn["tool_calls"] for turn in turns] == [CALLS, CALLS]
    assert all(turn["role"] == "assistant" and turn["content"] is None for turn in turns)
    (parsed,) = [r.json["messages"][1] for r in seen[""] if len(r.json["messages"]) == 3]
    assert parsed == {"role": "assistant", "content": PARSED}
