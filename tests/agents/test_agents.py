"""Agents that people really run, each as it is: a prompt, a tool, an answer that has used the tool.

Behind the gateway is a scripted model that speaks OpenAI's chat completions only. Every agent runs in a
process and an environment of its own, with an empty home, and can reach nothing but the gateway.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents.environments import node_environment, python_environment
from agents.upstream import Model
from fakes.gateway import KEY, Gateway, config_for
from fakes.upstream import FakeUpstream

PROGRAMS = Path(__file__).parent / "programs"
NONCE = "4711-abc"
METER: dict[str, Any] = {"read_meter": {"name": "water"}}
pytestmark = pytest.mark.timeout(900)  # the first run installs


@dataclass
class Site:
    up: FakeUpstream
    gateway: Gateway
    home: Path

    def model(self, tools: Mapping[str, Any]) -> Model:
        model = Model(tools)
        self.up.default(model)
        return model

    async def run(
        self, *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> str:
        """Runs a program; returns what it printed. Fails with all that it said."""
        base = self.gateway.rest_url
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=cwd or self.home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "LANG": "C.UTF-8",
                "NONCE": NONCE,
                "OPENAI_BASE_URL": f"{base}/v1",
                "OPENAI_API_KEY": KEY,
                # A dead end for whatever does not go to the gateway.
                "HTTP_PROXY": "http://127.0.0.1:9",
                "HTTPS_PROXY": "http://127.0.0.1:9",
                "NO_PROXY": "127.0.0.1,localhost",
                **(env or {}),
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(120):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
        return out.decode()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    keys = f'auth: {{mode: keys, keys: [{{name: agent, key: "{KEY}"}}]}}'
    async with FakeUpstream() as up, Gateway(config_for(up.base_url, extra=keys)) as gateway:
        yield Site(up, gateway, tmp_path)


def check(model: Model, out: str, times: int) -> None:
    assert model.called == ["read_meter"] * times
    assert [NONCE in result for result in model.results] == [True]
    assert out.count(f"The tool said: water shows {NONCE}") == times, out


async def test_langchain(site: Site) -> None:
    python = python_environment("langchain", "langchain==1.4.7", "langchain-openai==1.7.3")
    model = site.model(METER)
    out = await site.run(python / "python", PROGRAMS / "langchain_agent.py")
    check(model, out, 2)


async def test_pydantic_ai(site: Site) -> None:
    python = python_environment("pydantic-ai", "pydantic-ai-slim[openai]==2.62.0")
    model = site.model(METER)
    check(model, await site.run(python / "python", PROGRAMS / "pydantic_ai_agent.py"), 4)


async def test_openai_agents(site: Site) -> None:
    python = python_environment("openai-agents", "openai-agents==0.24.0")
    model = site.model(METER)
    check(model, await site.run(python / "python", PROGRAMS / "openai_agents_agent.py"), 4)


async def test_ai_sdk(site: Site) -> None:
    home = node_environment("ai-sdk", "ai@7.0.173", "@ai-sdk/openai@4.0.118", "zod@4.6.7")
    program = home / "agent.mjs"  # Node looks for packages beside the file
    shutil.copy(PROGRAMS / "ai_sdk_agent.mjs", program)
    model = site.model(METER)
    check(model, await site.run("node", program), 4)


async def test_llm(site: Site) -> None:
    python = python_environment("llm", "llm==0.36")
    settings = f"""
- model_id: headgate
  model_name: m
  api_base: "{site.gateway.rest_url}/v1"
  api_key_name: headgate
  supports_tools: true
"""
    (site.home / "extra-openai-models.yaml").write_text(settings)
    (site.home / "tools.py").write_text(
        f"def read_meter(name: str) -> str:\n    return f'{{name}} shows {NONCE}'\n"
    )
    model = site.model(METER)
    for options in ([], ["--no-stream"]):
        out = await site.run(
            python / "llm", "-m", "headgate", "--key", KEY, "--functions", "tools.py", *options,
            "What does the water meter show?", env={"LLM_USER_PATH": str(site.home)},
        )  # fmt: skip
        assert f"The tool said: water shows {NONCE}" in out
    assert model.called == ["read_meter"] * 2


async def test_claude_code(site: Site) -> None:
    home = node_environment("claude-code", "@anthropic-ai/claude-code@2.1.197")
    model = site.model({"Bash": {"command": f"echo {NONCE}", "description": "Reads the meter"}})
    out = await site.run(
        home / "node_modules/.bin/claude", "--print", "--model", "m", "--allowedTools", "Bash",
        "--", "What does the water meter show?",
        env={
            "ANTHROPIC_BASE_URL": site.gateway.rest_url,
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
    )  # fmt: skip
    assert f"The tool said: {NONCE}" in out
    assert model.called == ["Bash"]


async def test_codex(site: Site) -> None:
    home = node_environment("codex", "@openai/codex@0.169.0")
    (site.home / "config.toml").write_text(f"""
model = "m"
model_provider = "headgate"
[model_providers.headgate]
name = "Headgate"
base_url = "{site.gateway.rest_url}/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
""")
    command = f"echo {NONCE}"
    model = site.model({
        "exec_command": {"cmd": command},
        "shell_command": {"command": command},
        "shell": {"command": ["bash", "-c", command]},
    })  # fmt: skip
    out = await site.run(
        home / "node_modules/.bin/codex", "exec", "--skip-git-repo-check",
        "--dangerously-bypass-approvals-and-sandbox", "What does the water meter show?",
        env={"CODEX_HOME": str(site.home)},
    )  # fmt: skip
    assert "The tool said:" in out
    assert NONCE in out
    assert len(model.called) == 1


@pytest.mark.skipif("HEADGATE_ALL_AGENTS" not in os.environ, reason="large: make agents-test")
async def test_aider(site: Site) -> None:
    """Aider's tool is its edit format: what the model says changes a file."""
    python = python_environment("aider", "aider-chat==0.86.2")
    (site.home / "meter.txt").write_text("water: unknown\n")
    edit = (
        "meter.txt\n```\n<<<<<<< SEARCH\nwater: unknown\n=======\n"
        f"water: {NONCE}\n>>>>>>> REPLACE\n```\n"
    )
    model = site.model({})
    model.says = edit
    for options in ([], ["--no-stream"]):
        (site.home / "meter.txt").write_text("water: unknown\n")
        await site.run(
            python / "aider", "--model", "openai/m", "--edit-format", "diff", "--no-git", "--yes",
            "--no-check-update", "--no-analytics", "--no-show-model-warnings", "--map-tokens", "0",
            *options, "--message", "Enter what the meter shows.", "meter.txt",
            env={"OPENAI_API_BASE": f"{site.gateway.rest_url}/v1"},
        )  # fmt: skip
        assert (site.home / "meter.txt").read_text() == f"water: {NONCE}\n"
