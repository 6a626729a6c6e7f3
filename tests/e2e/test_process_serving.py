"""`serve`, `core` and `facade` as real processes: what they answer, and why they refuse to start."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from e2e.process import Process, run
from fakes.gateway import KEY, config_for
from fakes.upstream import FakeUpstream
from headgate import Client
from headgate.errors import GatewayError, ModelNotFound, Unauthenticated
from headgate.v1 import chat_pb2, content_pb2

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANYWHERE = ("--grpc", "127.0.0.1:0", "--rest", "127.0.0.1:0")
REQUEST = chat_pb2.ChatRequest(
    model="m",
    messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="hi")])],
)


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


@pytest.fixture
def config(upstream: FakeUpstream, tmp_path: Path) -> str:
    return write(tmp_path, upstream)


def write(folder: Path, upstream: FakeUpstream, extra: str = "") -> str:
    path = folder / "headgate.yaml"
    path.write_text(config_for(upstream.base_url, extra=extra))
    return str(path)


async def answers(process: Process) -> None:
    """Whatever it listens at gives an answer."""
    if process.grpc:
        async with Client(process.grpc, timeout=20) as client:
            assert await client.ready()
            answer = await client.chat_complete(REQUEST)
            assert answer.choices[0].message.parts[0].text.startswith("Hello")
    if process.rest:
        path = process.rest.removeprefix("unix:") if process.rest.startswith("unix:") else None
        transport = httpx.AsyncHTTPTransport(uds=path) if path else None
        base = "http://localhost" if path else f"http://{process.rest}"
        async with httpx.AsyncClient(base_url=base, transport=transport, timeout=20) as client:
            assert (await client.get("/readyz")).status_code == 200
            response = await client.post("/v1/chat/completions", json=ASK)
            assert response.status_code == 200, response.text
            body = ASK | {"stream": True}
            response = await client.post("/v1/chat/completions", json=body)
            assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve(
    config: str, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Process("serve", "--config", config, *ANYWHERE) as process:
        await answers(process)
        process.send(number)
        assert await process.ended() == 0
        assert await process.stderr() == ""
    with capsys.disabled():
        print(f"\nserve: ready after {process.started_in:.2f} s", end="")
    assert process.banner[0] == "Headgate is ready."


async def test_core_and_facade(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    core = Process("core", "--config", config, "--grpc", "127.0.0.1:0", listens=["gRPC"])
    async with core:
        assert core.rest == ""
        facade = Process("facade", "--core", core.grpc, "--rest", "127.0.0.1:0", listens=["REST"])
        async with facade:
            await answers(core)
            await answers(facade)
            core.send(signal.SIGTERM)
            assert await core.ended() == 0
            async with httpx.AsyncClient(base_url=f"http://{facade.rest}", timeout=20) as client:
                assert (await client.get("/readyz")).status_code == 503
                response = await client.post("/v1/chat/completions", json=ASK)
                assert response.status_code == 503
            facade.send(signal.SIGTERM)
            assert await facade.ended() == 0
            assert await facade.stderr() == ""
    with capsys.disabled():
        print(
            f"\ncore: ready after {core.started_in:.2f} s, facade: {facade.started_in:.2f} s",
            end="",
        )


async def test_unix_sockets(config: str, tmp_path: Path) -> None:
    grpc, rest = f"unix:{tmp_path}/g.sock", f"unix:{tmp_path}/r.sock"
    async with Process("serve", "--config", config, "--grpc", grpc, "--rest", rest) as process:
        assert (process.grpc, process.rest) == (grpc, rest)
        await answers(process)
        facade = Process("facade", "--core", grpc, "--rest", "127.0.0.1:0", listens=["REST"])
        async with facade:
            await answers(facade)
    assert await process.ended() == 0
    assert not list(tmp_path.glob("*.sock"))


def leave_a_stale_file(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


async def test_stale_socket_files_are_replaced(config: str, tmp_path: Path) -> None:
    for name in ("g.sock", "r.sock"):
        leave_a_stale_file(f"{tmp_path}/{name}")
    grpc, rest = f"unix:{tmp_path}/g.sock", f"unix:{tmp_path}/r.sock"
    async with Process("serve", "--config", config, "--grpc", grpc, "--rest", rest) as process:
        await answers(process)


@pytest.mark.parametrize("taken", ["--grpc", "--rest"])
async def test_live_sockets_are_not_stolen(config: str, tmp_path: Path, taken: str) -> None:
    grpc, rest = f"unix:{tmp_path}/g.sock", f"unix:{tmp_path}/r.sock"
    async with Process("serve", "--config", config, "--grpc", grpc, "--rest", rest) as process:
        addresses = {"--grpc": "127.0.0.1:0", "--rest": "127.0.0.1:0"}
        addresses[taken] = {"--grpc": grpc, "--rest": rest}[taken]
        options = [word for pair in addresses.items() for word in pair]
        status, out, err = await run("serve", "--config", config, *options)
        assert status == 1
        assert out == ""
        assert err.strip() == f"cannot listen at {addresses[taken]}: somebody listens there already"
        await answers(process)


@pytest.mark.parametrize("option", ["--grpc", "--rest"])
async def test_a_file_that_is_no_socket_is_left_alone(
    config: str, tmp_path: Path, option: str
) -> None:
    path = tmp_path / "precious"
    path.write_text("words")
    addresses = {"--grpc": "127.0.0.1:0", "--rest": "127.0.0.1:0", option: f"unix:{path}"}
    status, _, err = await run(
        "serve", "--config", config, *(word for pair in addresses.items() for word in pair)
    )
    assert status == 1
    assert f"cannot listen at unix:{path}" in err
    assert path.read_text() == "words"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("option", ["--grpc", "--rest"])
async def test_a_taken_port(config: str, option: str, workers: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = f"127.0.0.1:{sock.getsockname()[1]}"
        addresses = {"--grpc": "127.0.0.1:0", "--rest": "127.0.0.1:0", option: taken}
        options = [word for pair in addresses.items() for word in pair]
        status, out, err = await run("serve", "--config", config, *options, "--workers", workers)
    assert status == 1
    assert out == ""
    assert err.strip() == f"cannot listen at {taken}: Address already in use"


async def test_a_port_that_workers_share_is_not_shared_with_strangers(config: str) -> None:
    async with Process("serve", "--config", config, *ANYWHERE, "--workers", "2") as process:
        options = ("--grpc", process.grpc, "--rest", "127.0.0.1:0", "--workers", "2")
        status, _, err = await run("serve", "--config", config, *options)
        assert status == 1
        assert err.strip() == f"cannot listen at {process.grpc}: Address already in use"


@pytest.mark.parametrize("command", ["serve", "core", "facade"])
async def test_a_wrong_configuration(tmp_path: Path, command: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("provider: {}\nmodels:\n  m: {targets: [{provider: nowhere}]}\n")
    status, out, err = await run(command, "--config", str(path))
    assert status == 1
    assert out == ""
    assert "wrong.yaml:1" in err
    assert "providers" in err  # did you mean
    assert "Traceback" not in err


async def test_no_configuration_file(tmp_path: Path) -> None:
    status, _, err = await run("serve", "--config", str(tmp_path / "none.yaml"))
    assert status == 1
    assert "none.yaml" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_tls_files_that_are_none(
    upstream: FakeUpstream, tmp_path: Path, workers: str
) -> None:
    (tmp_path / "bad.pem").write_text("nope")
    tls = f"listen: {{tls: {{cert_file: {tmp_path}/bad.pem, key_file: {tmp_path}/bad.pem}}}}"
    config = write(tmp_path, upstream, tls)
    status, out, err = await run("serve", "--config", config, *ANYWHERE, "--workers", workers)
    assert status == 1
    assert out == ""
    assert "TLS files are not usable" in err
    assert "Traceback" not in err


async def test_keys(upstream: FakeUpstream, tmp_path: Path) -> None:
    keys = f"""auth:
  mode: keys
  keys:
  - {{name: ci, key: "{KEY}", models: ["m"]}}
  - {{name: other, key: "{KEY}-2", models: ["other-*"]}}
"""
    config = write(tmp_path, upstream, keys)
    async with Process("serve", "--config", config, *ANYWHERE) as process:
        assert await outcome(process, None) == (Unauthenticated, 401)
        assert await outcome(process, "wrong-key-0123456789") == (Unauthenticated, 401)
        assert await outcome(process, f"{KEY}-2") == (ModelNotFound, 404)
        assert await outcome(process, KEY) == (None, 200)
        async with httpx.AsyncClient(base_url=f"http://{process.rest}") as client:
            headers = {"authorization": f"Bearer {KEY}-2"}
            hidden = await client.get("/v1/models/m", headers=headers)
            unknown = await client.get("/v1/models/n", headers=headers)
            assert hidden.status_code == unknown.status_code == 404
            assert hidden.text.replace("`m`", "`n`").replace("'m'", "'n'") == unknown.text
            assert (await client.get("/v1/models", headers=headers)).json()["data"] == []
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200
        process.send(signal.SIGTERM)
        await process.ended()
        assert KEY not in await process.stderr()


async def outcome(process: Process, key: str | None) -> tuple[type[GatewayError] | None, int]:
    failed: type[GatewayError] | None = None
    async with Client(process.grpc, api_key=key, timeout=20) as client:
        try:
            await client.chat_complete(REQUEST)
        except GatewayError as error:
            failed = type(error)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=f"http://{process.rest}", timeout=20) as http:
        response = await http.post("/v1/chat/completions", json=ASK, headers=headers)
    return failed, response.status_code


async def test_the_log_is_one_line_for_each_call(upstream: FakeUpstream, tmp_path: Path) -> None:
    config = write(tmp_path, upstream)
    async with Process("serve", "--config", config, *ANYWHERE, "--log-level", "info") as process:
        forged = chat_pb2.ChatRequest()
        forged.CopyFrom(REQUEST)
        forged.model = "none\n12:00:00 INFO forged\x1b[31m"
        async with Client(process.grpc, timeout=20) as client:
            with pytest.raises(GatewayError):
                await client.chat_complete(forged)
            await client.chat_complete(REQUEST)
        process.send(signal.SIGTERM)
        await process.ended()
        lines = [line for line in (await process.stderr()).splitlines() if "model=" in line]
    assert len(lines) == 2
    assert "MODEL_NOT_FOUND model=none\\n12:00:00" in lines[0]
    assert "\x1b" not in lines[0]
    assert " OK model=m target=up/upstream-m attempts=1 " in lines[1]


async def test_several_at_once(config: str) -> None:
    async with Process("serve", "--config", config, *ANYWHERE) as process:
        await asyncio.gather(*(answers(process) for _ in range(8)))
