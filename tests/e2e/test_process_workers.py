"""Several processes behind the same ports."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from e2e.process import Process
from e2e.test_process_ends import alive, until_refused
from e2e.test_process_serving import ANYWHERE, ASK, REQUEST, answers, write
from fakes.upstream import FakeUpstream, slow
from fakes.upstream import chat as behave
from headgate import Client
from headgate_server.local import find_weights


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def workers(process: Process) -> list[int]:
    return [pid for pid in children(process.pid) if "headgate.cli" in command(pid)]


def connections(pid: int) -> int:
    """Established TCP connections of a process."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "01":
                inodes.add(f"socket:[{words[9]}]")
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{name}") in inodes
        except OSError:
            continue
    return found


async def shares(process: Process, upstream: FakeUpstream, scheme: str) -> list[int]:
    """How many of many callers at once each worker has."""
    before = {pid: connections(pid) for pid in workers(process)}
    upstream.default(slow(0.8, behave()))
    start = len(upstream.requests)
    clients = [httpx.AsyncClient(timeout=20) for _ in range(16)]
    channels = [
        Client(process.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(16)
    ]
    if scheme == "rest":
        url = f"http://{process.rest}/v1/chat/completions"
        calls = [asyncio.ensure_future(client.post(url, json=ASK)) for client in clients]
    else:
        calls = [asyncio.ensure_future(one.chat_complete(REQUEST)) for one in channels]
    await upstream.wait_for_requests(start + 16, within=10)
    found = [connections(pid) - before.get(pid, 0) for pid in workers(process)]
    await asyncio.gather(*calls)
    for client in clients:
        await client.aclose()
    for channel in channels:
        await channel.close()
    upstream.default(behave())
    return found


async def until_workers(process: Process, gone: int) -> None:
    async with asyncio.timeout(15):
        while gone in workers(process) or len(workers(process)) < 2:
            await asyncio.sleep(0.05)


async def test_both_serve_and_the_dead_are_replaced(
    upstream: FakeUpstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(tmp_path, upstream)
    async with Process("serve", "--config", config, *ANYWHERE, "--workers", "2") as process:
        first = workers(process)
        assert len(first) == 2
        await answers(process)
        for scheme in ("rest", "grpc"):
            found = await shares(process, upstream, scheme)
            assert all(found), (scheme, found)

        os.kill(first[0], signal.SIGKILL)
        await until_workers(process, first[0])
        second = workers(process)
        assert first[1] in second
        async with asyncio.timeout(15):  # the new one has to start before it takes its share
            while not all(await shares(process, upstream, "rest")):
                await asyncio.sleep(0.2)
        await answers(process)

        process.send(signal.SIGTERM)
        assert await process.ended() == 0
        assert not any(alive(pid) for pid in {*first, *second})
        assert "a worker ended with status -9; starting another" in await process.stderr()
    await until_refused(process.grpc, process.rest)
    with capsys.disabled():
        print(f"\nserve --workers 2: ready after {process.started_in:.2f} s", end="")


async def test_workers_do_not_outlive_their_supervisor(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    config = write(tmp_path, upstream)
    async with Process("serve", "--config", config, *ANYWHERE, "--workers", "2") as process:
        found = workers(process)
        process.send(signal.SIGKILL)
        assert await process.ended() == -signal.SIGKILL
        async with asyncio.timeout(10):
            while any(alive(pid) for pid in found):
                await asyncio.sleep(0.05)
        await until_refused(process.grpc, process.rest)


async def test_core_and_facade_with_workers(upstream: FakeUpstream, tmp_path: Path) -> None:
    config = write(tmp_path, upstream)
    two = ("--workers", "2")
    grpc, rest = ("--grpc", "127.0.0.1:0"), ("--rest", "127.0.0.1:0")
    async with (
        Process("core", "--config", config, *grpc, *two, listens=["gRPC"]) as core,
        Process("facade", "--core", core.grpc, *rest, *two, listens=["REST"]) as facade,
    ):
        await answers(facade)
        for process in (facade, core):
            process.send(signal.SIGTERM)
            assert await process.ended() == 0


async def test_workers_and_paths_do_not_go_together(upstream: FakeUpstream, tmp_path: Path) -> None:
    from e2e.process import run

    config = write(tmp_path, upstream)
    path = f"unix:{tmp_path}/x.sock"
    status, _, err = await run(
        "serve", "--config", config, "--grpc", path, "--rest", "127.0.0.1:0", "--workers", "2"
    )
    assert status == 1
    assert "several workers cannot share" in err


@pytest.mark.timeout(180)
async def test_a_local_model_is_run_once_for_all(tmp_path: Path) -> None:
    if find_weights() is None:
        pytest.skip("the local model's weights are not here")
    path = tmp_path / "local.yaml"
    path.write_text(
        "providers: {local: {kind: local}}\nmodels: {tiny: {targets: [{provider: local}]}}\n"
    )
    options = ("--config", str(path), *ANYWHERE, "--workers", "2", "--offline")
    async with Process("serve", *options) as process:
        engines = [pid for pid in children(process.pid) if pid not in workers(process)]
        assert len(engines) == 1, [command(pid) for pid in children(process.pid)]
        assert not any(children(pid) for pid in workers(process))
        body = ASK | {"model": "tiny", "max_tokens": 4}
        async with httpx.AsyncClient(base_url=f"http://{process.rest}", timeout=60) as client:
            for _ in range(4):
                response = await client.post(
                    "/v1/chat/completions", json=body, headers={"connection": "close"}
                )
                assert response.status_code == 200, response.text
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
        assert not any(alive(pid) for pid in engines)
