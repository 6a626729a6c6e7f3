"""How processes end: calls under way are let through, nothing new is taken, nothing waits for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from e2e.process import Process
from e2e.test_process_serving import ANYWHERE, ASK, REQUEST, write
from fakes.bodies import chunks
from fakes.upstream import FakeUpstream, hang, sse
from headgate import Client, fold
from headgate.errors import GatewayError

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


def gated() -> tuple[asyncio.Event, Any]:
    gate = asyncio.Event()
    first, *rest = chunks(["Hel", "lo"])
    return gate, sse([first, rest[0], gate, *rest[1:]])


def refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) != 0


async def until_refused(*addresses: str) -> float:
    began = time.monotonic()
    async with asyncio.timeout(3):
        while not all(refused(address) for address in addresses):
            await asyncio.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_calls_under_way_are_let_through(
    upstream: FakeUpstream,
    tmp_path: Path,
    number: signal.Signals,
    workers: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write(tmp_path, upstream, "drain: 20")
    gate, step = gated()
    upstream.default(step)
    options = ("--config", config, *ANYWHERE, "--workers", workers)
    async with Process("serve", *options) as process:
        url = f"http://{process.rest}"
        async with (
            httpx.AsyncClient(base_url=url, timeout=20) as http,
            httpx.AsyncClient(base_url=url, timeout=20) as prober,
            Client(process.grpc, timeout=20) as client,
            grpc.aio.insecure_channel(process.grpc) as channel,
        ):
            heard: list[tuple[int, float]] = []

            async def watch() -> None:
                health: Any = health_pb2_grpc.HealthStub(channel)
                try:
                    async for answer in health.Watch(health_pb2.HealthCheckRequest()):
                        heard.append((answer.status, time.monotonic()))
                except grpc.aio.AioRpcError:
                    pass

            async def stream() -> str:
                body = ASK | {"stream": True}
                return (await http.post("/v1/chat/completions", json=body)).text

            async def events() -> Any:
                return fold([event async for event in client.chat_stream(REQUEST)])

            watcher = asyncio.create_task(watch())
            assert (await prober.get("/readyz")).status_code == 200  # and is kept alive
            calls = [asyncio.create_task(stream()), asyncio.create_task(events())]
            await upstream.wait_for_requests(2)
            await asyncio.sleep(0.1)

            signalled = time.monotonic()
            process.send(number)
            took = await until_refused(process.grpc, process.rest)
            try:
                assert (await prober.get("/readyz")).status_code == 503
            except httpx.TransportError:
                pass  # the kept connection was closed, which says the same
            await asyncio.wait_for(watcher, 2)
            assert [status for status, _ in heard] == [SERVING, NOT_SERVING]
            assert heard[1][1] - signalled < 1
            with pytest.raises(GatewayError):
                await client.chat_complete(REQUEST, timeout=3)
            assert process.running
            assert not any(call.done() for call in calls)

            gate.set()
            text, answer = await asyncio.gather(*calls)
            opened = time.monotonic()
            assert text.endswith("data: [DONE]\n\n")
            assert "lo" in text
            assert answer.choices[0].message.parts[0].text == "Hello"
            assert await process.ended() == 0
            ended = time.monotonic() - opened
        assert await process.stderr() == ""
    assert len(upstream.requests) == 2
    with capsys.disabled():
        print(
            f"\n{number.name}, {workers} worker(s): refused after {took:.2f} s, "
            f"ended {ended:.2f} s after the last call",
            end="",
        )
    assert ended < 3


async def test_the_facade_alone(upstream: FakeUpstream, tmp_path: Path) -> None:
    config = write(tmp_path, upstream, "drain: 20")
    gate, step = gated()
    upstream.default(step)
    async with (
        Process("core", "--config", config, "--grpc", "127.0.0.1:0", listens=["gRPC"]) as core,
        Process("facade", "--core", core.grpc, "--rest", "127.0.0.1:0", listens=["REST"]) as facade,
        httpx.AsyncClient(base_url=f"http://{facade.rest}", timeout=20) as http,
    ):
        body = ASK | {"stream": True}
        call = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        await upstream.wait_for_requests()
        facade.send(signal.SIGTERM)
        core.send(signal.SIGTERM)
        await until_refused(facade.rest, core.grpc)
        assert facade.running
        assert core.running
        gate.set()
        assert (await call).text.endswith("data: [DONE]\n\n")
        assert await facade.ended(3) == 0
        assert await core.ended(3) == 0


async def test_the_drain_has_an_end(upstream: FakeUpstream, tmp_path: Path) -> None:
    config = write(tmp_path, upstream, "drain: 700ms")
    upstream.script(hang(), sse(chunks(["Hel", "lo"]), stop_after=3, ending="hang"))
    async with Process("serve", "--config", config, *ANYWHERE) as process:
        async with (
            httpx.AsyncClient(base_url=f"http://{process.rest}", timeout=20) as http,
            Client(process.grpc, timeout=20) as client,
        ):
            call = asyncio.create_task(http.post("/v1/chat/completions", json=ASK))
            await upstream.wait_for_requests(1)
            events = client.chat_stream(REQUEST)
            await events.__anext__()
            began = time.monotonic()
            process.send(signal.SIGTERM)
            assert await process.ended() == 0
            took = time.monotonic() - began
            with pytest.raises(GatewayError):
                async for _ in events:
                    pass
            response = await call
            assert response.status_code == 503
            assert response.json()["error"]["message"] == "the gateway is stopping"
        for record in upstream.requests:
            await record.wait_closed(1)
        written = await process.stderr()
        assert "Traceback" not in written
        assert "never retrieved" not in written
    assert 0.6 < took < 3, took


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_second_signal_ends_at_once(
    upstream: FakeUpstream, tmp_path: Path, workers: str
) -> None:
    config = write(tmp_path, upstream, "drain: 60")
    upstream.default(hang())
    options = ("--config", config, *ANYWHERE, "--workers", workers)
    async with Process("serve", *options) as process:
        async with httpx.AsyncClient(base_url=f"http://{process.rest}", timeout=20) as http:
            call = asyncio.create_task(http.post("/v1/chat/completions", json=ASK))
            await upstream.wait_for_requests()
            process.send(signal.SIGTERM)
            await until_refused(process.rest)
            assert process.running
            began = time.monotonic()
            process.send(signal.SIGINT)
            assert await process.ended(5) == 130
            assert time.monotonic() - began < 1
            await asyncio.gather(call, return_exceptions=True)
        await upstream.requests[0].wait_closed(1)


# gRPC gives a connection five seconds to say its first words, and waits for it at the end, too.
@pytest.mark.parametrize(("silent_grpc", "within"), [(False, 2.0), (True, 7.0)])
async def test_idle_connections_do_not_delay_the_end(
    upstream: FakeUpstream, tmp_path: Path, silent_grpc: bool, within: float
) -> None:
    config = write(tmp_path, upstream, "drain: 60")
    async with Process("serve", "--config", config, *ANYWHERE) as process:
        host, _, port = process.rest.rpartition(":")
        silent = await asyncio.open_connection(host, int(port))
        half = await asyncio.open_connection(host, int(port))
        half[1].write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        open_ones = [silent, half]
        if silent_grpc:
            open_ones.append(await asyncio.open_connection(*process.grpc.rpartition(":")[::2]))
        async with (
            httpx.AsyncClient(base_url=f"http://{process.rest}", timeout=20) as http,
            Client(process.grpc, timeout=20) as client,
        ):
            await http.post("/v1/chat/completions", json=ASK)
            await client.chat_complete(REQUEST)
            await asyncio.sleep(0.1)
            began = time.monotonic()
            process.send(signal.SIGTERM)
            assert await process.ended() == 0
            assert time.monotonic() - began < within
        for _, writer in open_ones:
            writer.close()


async def test_a_signal_while_nothing_is_there_yet(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Whenever it comes, it ends the process, without a traceback."""
    from e2e.process import spawn

    config = write(tmp_path, upstream)
    for wait in (0.3, 0.5, 0.7):
        process = await spawn("serve", "--config", config, *ANYWHERE)
        await asyncio.sleep(wait)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            _, err = await process.communicate()
        assert process.returncode in (0, -signal.SIGTERM)
        assert b"Traceback" not in err


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
