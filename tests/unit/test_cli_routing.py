"""The commands that ask about routing: `explain` and `targets`."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from fakes.gateway import KEY, Gateway
from fakes.upstream import FakeUpstream, error
from headgate.admin.v1 import route_service_pb2 as pb
from headgate.cli import explain, targets
from headgate.cli.explain import Question
from headgate.errors import GatewayError
from headgate.v1 import content_pb2
from unit.test_cli import run

CONFIG = """
providers:
  up: {{kind: openai, base_url: "{url}", api_key: "upstream-secret-key"}}
models:
  m:
    strategy: priority
    aliases: [fast]
    targets: [{{provider: up, model: first}}, {{provider: up, model: second}}]
    fallbacks: [n]
  n: {{targets: [{{provider: up, model: third}}]}}
routes:
  - {{when: {{headers: {{x-team: red}}, tenant: acme}}, use: n}}
breaker: {{min_requests: 2, window: 60, open_for: 30}}
"""


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


async def test_explain_and_targets_of_a_running_gateway(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    body = {"messages": [{"role": "user", "content": "x" * 4000}], "temperature": 0.5}
    file = tmp_path / "request.json"
    file.write_text(json.dumps(body))
    async with Gateway(CONFIG.format(url=upstream.base_url)) as gateway:
        upstream.default(error(500))
        async with gateway.client() as client:
            for _ in range(3):
                with pytest.raises(GatewayError):
                    await client.chat_complete(explain._request(Question("up/first")))
        called = len(upstream.requests)
        at = ("--target", gateway.grpc_address)
        told, by_alias, ruled, plain, one = await asyncio.gather(
            run("explain", "m", *at),
            run("explain", "fast", "--request", str(file), "--json", *at),
            run("explain", "m", "--header", "X-Team=red", "--tenant", "acme", "--json", *at),
            run("targets", *at),
            run("targets", "--json", "--route", "m", *at),
        )
        assert len(upstream.requests) == called
    for outcome in (told, by_alias, ruled, plain, one):
        assert (outcome.code, outcome.err) == (0, "")
    lines = told.out.splitlines()
    assert lines[0].startswith("m   strategy priority")
    rows = [line.split() for line in lines]
    assert ["1", "up/second"] in [row[:2] for row in rows]
    (left,) = [line for line in lines if line.startswith("up/first")]
    assert "breaker open" in left
    assert ["n", "general", "-"] in rows
    aliased = json.loads(by_alias.out)
    assert (aliased["model"], aliased["route"]) == ("fast", "m")
    assert aliased["estimated_input_tokens"] > 400
    assert json.loads(ruled.out)["route"] == "n"
    cells = {line.split("\t")[0]: line.split("\t")[1:] for line in plain.out.splitlines()}
    assert list(cells) == ["up/first", "up/second", "up/third"]
    assert cells["up/first"][0] == "m"
    assert cells["up/first"][1].startswith("open, ")
    assert cells["up/first"][6].startswith("100% of ")
    assert cells["up/third"][1:4] == ["closed", "0", "0"]
    found = {state["model"]: state["breaker"] for state in json.loads(one.out)}
    assert found == {"first": "open", "second": "closed"}


async def test_who_may_not_ask_is_told_why() -> None:
    auth = f'auth: {{mode: keys, keys: [{{name: ci, key: "{KEY}"}}]}}'
    config = CONFIG.format(url="http://127.0.0.1:1")
    async with Gateway(f"{config}\n{auth}") as gateway:
        at = ("--target", gateway.grpc_address, "--key", KEY)
        refused, unknown = await asyncio.gather(
            run("targets", *at), run("explain", "m", "--header", "team=red", *at)
        )
    assert (refused.code, refused.out) == (1, "")
    assert "admin: true" in refused.err
    assert unknown.code == 1
    assert "x-NAME=VALUE" in unknown.err


async def test_targets_are_watched_until_somebody_has_seen_enough() -> None:
    async with Gateway(CONFIG.format(url="http://127.0.0.1:1")) as gateway:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headgate.cli", "targets", "--watch", "--json"),
            *("--target", gateway.grpc_address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(20):
            lines = [await process.stdout.readline() for _ in range(2)]
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
    assert [len(json.loads(line)) for line in lines] == [3, 3]
    assert (process.returncode, err) == (0, b"")


# -- requests out of files --------------------------------------------------------------------------


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_request_in_either_form(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, '{"model": "other", "messages": [{"role": "user", "content": "hi"}]}')
    openai = explain._request(Question("m", file="-"))
    stdin(monkeypatch, json_format.MessageToJson(openai))
    assert explain._request(Question("m", file="-")) == openai
    assert openai.model == "m"
    assert openai.messages[0].role == content_pb2.ROLE_USER
    assert openai.messages[0].parts[0].text == "hi"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no request"),
        ("[]", "expected a JSON object"),
        ("{", "is no request"),
        ("[" * 99999, "is no request"),
        ('{"messages": 7}', "messages"),
        ('{"messages": [{"parts": [{"txt": "hi"}]}]}', "txt"),
    ],
)
def test_what_is_no_request(monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    stdin(monkeypatch, text)
    with pytest.raises(SystemExit) as caught:
        explain._request(Question("m", file="-"))
    assert str(caught.value.code).startswith("error: stdin")
    assert told in str(caught.value.code)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot read"):
        explain._request(Question("m", file=str(tmp_path / "none")))
    with pytest.raises(SystemExit, match="do not go together"):
        explain._request(Question("m", text="hi", file="-"))


# -- what a terminal shows --------------------------------------------------------------------------


def test_a_target_in_trouble() -> None:
    state = pb.TargetState(
        provider="up",
        model="m\x1b[2J",
        routes=["a", "b"],
        breaker=pb.TargetState.BREAKER_HALF_OPEN,
        in_flight=3,
        limit=4,
        queued=2,
        error_rate=0.25,
        window_calls=8,
    )
    for name, seconds in (("ejected_for", 5.0), ("cooling_for", 0.25), ("total", 1.26)):
        getattr(state, name).FromMicroseconds(int(seconds * 1e6))
    key = state.benched_keys.add(name="eu", fault="CREDENTIAL")
    key.remaining.FromSeconds(60)
    assert [cell.plain for cell in targets._row(state)] == [
        "up/m[2J",
        "a,b",
        "half open",
        "3/4",
        "2",
        "-",
        "1.3 s",
        "25% of 8",
        "ejected 5.0 s; cooling 250 ms; key eu CREDENTIAL 60.0 s",
    ]


def test_an_explanation_with_nothing_left(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    found = pb.ExplainResponse(
        model="m",
        route="m",
        left_out=[pb.LeftOut(provider="up", model="x\x1b[2J", reason="all keys benched")],
        shadow="n",
        steps=["no rule matches"],
    )
    explain._show(found, Console(width=100))
    shown = capsys.readouterr().out
    assert "No target would be tried." in shown
    assert "no rule matches" in shown
    assert "a copy goes to n" in shown
    assert "\x1b[2J" not in shown


async def test_explain_and_targets_need_only_the_client() -> None:
    code = """
import sys
for name in ("headgate_server", "headgate_facade", "httpx", "pydantic", "yaml", "msgspec"):
    sys.modules[name] = None
import headgate.cli.commands, headgate.cli.explain, headgate.cli.targets
"""
    process: Any = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await asyncio.wait_for(process.wait(), 30) == 0
