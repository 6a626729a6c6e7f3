"""Real processes whose configuration file changes under them."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from e2e.process import END_SECONDS, START_SECONDS, Process, spawn
from e2e.test_process_ends import gated
from e2e.test_process_serving import ANYWHERE, ASK, REQUEST
from e2e.test_process_workers import until_workers, workers
from fakes.gateway import config_for
from fakes.upstream import FakeUpstream, chat
from headgate import Client

CHAT = "/v1/chat/completions"
IN_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
async def old() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        up.default(chat("Hello from the old"))
        yield up


@pytest.fixture
async def new() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        up.default(chat("Hello from the new"))
        yield up


class File:
    """The configuration file of a test."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "headgate.yaml"

    def __str__(self) -> str:
        return str(self.path)

    def points_at(self, upstream: FakeUpstream, extra: str = "", *, model: str = "m") -> None:
        self.path.write_text(
            config_for(upstream.base_url, extra=extra).replace("  m:", f"  {model}:")
        )


@pytest.fixture
def file(tmp_path: Path, old: FakeUpstream) -> File:
    found = File(tmp_path)
    found.points_at(old)
    return found


async def said(process: Process, model: str = "m") -> str:
    """What the gateway answers, over a connection of its own; "404" and the like if it does not."""
    async with httpx.AsyncClient(base_url=f"http://{process.rest}", timeout=20) as http:
        response = await http.post(CHAT, json=ASK | {"model": model})
    if response.status_code != 200:
        return str(response.status_code)
    return str(response.json()["choices"][0]["message"]["content"]).rpartition(" ")[2]


async def test_a_changed_file_takes_effect_and_streams_go_on(
    file: File, old: FakeUpstream, new: FakeUpstream
) -> None:
    gate, step = gated()
    old.script(step, step)
    async with Process("serve", "--config", str(file), *ANYWHERE) as process:
        async with (
            httpx.AsyncClient(base_url=f"http://{process.rest}", timeout=20) as http,
            Client(process.grpc, timeout=20) as client,
        ):
            stream = asyncio.create_task(http.post(CHAT, json=ASK | {"stream": True}))
            events = client.chat_stream(REQUEST)
            await events.__anext__()
            await old.wait_for_requests(2)
            assert await said(process, "n") == "404"
            file.points_at(new, model="n")
            await process.says("configuration reloaded: ")
            assert await said(process, "n") == "new"
            assert await said(process, "m") == "404"
            gate.set()
            assert (await stream).text.endswith("data: [DONE]\n\n")
            assert [event async for event in events][-1].HasField("completed")
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
        (line,) = (await process.stderr()).splitlines()
        assert line.endswith(
            f"configuration reloaded: {file}: providers: up changed; models: n added, m removed"
        )
    assert len(old.requests) == 2


async def test_a_bad_file_leaves_the_old_one_and_says_where(
    file: File, old: FakeUpstream, new: FakeUpstream
) -> None:
    async with Process("serve", "--config", str(file), *ANYWHERE) as process:
        file.points_at(new, "modles: {}\nlistn: {}")
        written = await process.says("NOT reloaded", 2)
        stays = "configuration NOT reloaded, the old one stays: "
        assert f"{stays}{file}:6:1: modles: " in written
        assert 'did you mean "models"?' in written
        assert f"{stays}{file}:7:1: listn: " in written
        assert await said(process) == "old"
        beside = file.path.with_suffix(".tmp")  # and mended, as most editors write
        beside.write_text(config_for(new.base_url, extra="limits: {message_bytes: 1MiB}"))
        beside.rename(file.path)
        await process.says("configuration reloaded: ")
        written = await process.says("restart")
        assert f"{file}:6:25: limits.message_bytes: takes effect at a" in written
        assert await said(process) == "new"


async def test_core_reloads_when_it_is_told_to(
    file: File, old: FakeUpstream, new: FakeUpstream
) -> None:
    file.points_at(old, "reload: false")
    options = ("--config", str(file), "--grpc", "127.0.0.1:0")
    async with (
        Process("core", *options, listens=["gRPC"]) as core,
        Process("facade", "--core", core.grpc, "--rest", "127.0.0.1:0", listens=["REST"]) as facade,
    ):
        file.points_at(new, "reload: false")
        await asyncio.sleep(1)
        assert await said(facade) == "old"
        core.send(signal.SIGHUP)
        await core.says(f"configuration reloaded: {file}: providers: up changed")
        assert await said(facade) == "new"

        facade.send(signal.SIGHUP)
        await facade.says(
            "SIGHUP changes nothing here: what `headgate facade` is set to is decided"
        )
        assert await said(facade) == "new"


async def test_without_a_file_there_is_nothing_to_reload() -> None:
    async with Process("serve", *ANYWHERE, "--offline") as process:
        process.send(signal.SIGHUP)
        await process.says("SIGHUP changes nothing here: the process was started without a conf")
        async with httpx.AsyncClient(base_url=f"http://{process.rest}") as http:
            assert (await http.get("/readyz")).status_code == 200


async def test_workers_reload_together_and_a_new_one_joins_them(
    file: File, old: FakeUpstream, new: FakeUpstream
) -> None:
    async def all_say(word: str) -> None:
        """Each connection is of either worker; of so many, of both."""
        assert {await said(process) for _ in range(12)} == {word}

    file.points_at(old, "reload: false")
    two = ("--workers", "2")
    async with Process("serve", "--config", str(file), *ANYWHERE, *two) as process:
        file.points_at(new, "reload: true")
        process.send(signal.SIGHUP)
        await process.says("configuration reloaded: ", 2)
        await all_say("new")

        file.points_at(old, "facade: {body_limit: 1}")  # and by themselves
        await process.says("facade: takes effect at a restart", 2)
        await all_say("old")

        # One that begins while the file is broken has the newest that was not; and what needs a
        # restart of all of them is as with the others.
        file.path.write_text("nonsense: {")
        await process.says("NOT reloaded", 2)
        (first, _) = workers(process)
        os.kill(first, signal.SIGKILL)
        await until_workers(process, first)
        await process.says("NOT reloaded", 3)
        await all_say("old")

        file.points_at(new)
        await process.says("configuration reloaded: ", 7)
        await all_say("new")
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
        assert "Traceback" not in await process.stderr()


@pytest.mark.parametrize("count", ["1", "2"])
async def test_the_end_of_its_terminal_is_the_end(file: File, count: str) -> None:
    ours, theirs = pty.openpty()
    command = ("-m", "headgate.cli", "serve", "--config", str(file), *ANYWHERE, "--workers", count)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", IN_A_TERMINAL, *command),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    async with asyncio.timeout(END_SECONDS):
        while not written.rstrip().endswith(b"}]}'"):  # the banner's last words
            written += await asyncio.to_thread(os.read, ours, 4096)
        await asyncio.sleep(0.2)  # it comes back from writing that
        os.close(ours)
        assert await process.wait() == 0


async def test_a_signal_that_comes_too_early_does_no_harm(file: File) -> None:
    process = await spawn("serve", "--config", str(file), *ANYWHERE)
    try:
        async with asyncio.timeout(START_SECONDS):
            while not ignores(process.pid, signal.SIGHUP):  # from then on, python had to begin
                await asyncio.sleep(0.001)
            assert process.stdout is not None
            line = asyncio.ensure_future(process.stdout.readline())
            while not line.done():
                process.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.01)
        assert await line == b"Headgate is ready.\n"
    finally:
        process.terminate()
        async with asyncio.timeout(END_SECONDS):
            _, err = await process.communicate()
    assert b"Traceback" not in err


def ignores(pid: int, number: signal.Signals) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False
