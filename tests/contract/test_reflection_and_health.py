"""What tools see: reflection, grpc.health.v1, and buf curl as a caller that knows nothing of us."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from contract.doors import Doors, ScriptedCore, no_complaints
from fakes.gateway import KEY, Gateway, config_for
from fakes.upstream import FakeUpstream, rate_limited
from headgate.admin.v1 import route_service_pb2
from headgate.v1 import chat_service_pb2, model_service_pb2

SERVICES = {
    "headgate.v1.ChatService",
    "headgate.v1.ModelService",
    "headgate.admin.v1.RouteService",
}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
BUF = Path(sys.executable).parent / "buf"
MESSAGE = '{"model":"m","messages":[{"role":"ROLE_USER","parts":[{"text":"hi"}]}]}'


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


@pytest.fixture
async def gateway(upstream: FakeUpstream) -> AsyncGenerator[Gateway, None]:
    with no_complaints():
        async with Gateway(config_for(upstream.base_url)) as gw:
            yield gw


async def test_reflection(gateway: Gateway) -> None:
    def look() -> None:
        with grpc.insecure_channel(gateway.grpc_address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert set(database.get_services()) >= SERVICES | {"grpc.health.v1.Health"}
            pool = DescriptorPool(database)
            for ours in (chat_service_pb2, model_service_pb2, route_service_pb2):
                for service in ours.DESCRIPTOR.services_by_name.values():
                    found = pool.FindServiceByName(service.full_name)
                    assert [m.name for m in found.methods] == [m.name for m in service.methods]
            fields = pool.FindMessageTypeByName("headgate.v1.ChatRequest").fields_by_name
            assert "messages" in fields

    await asyncio.to_thread(look)


@pytest.mark.parametrize("service", ["", *sorted(SERVICES)])
async def test_health_of_each_service(gateway: Gateway, service: str) -> None:
    async with grpc.aio.insecure_channel(gateway.grpc_address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == SERVING


async def test_health_of_an_unknown_service(gateway: Gateway) -> None:
    async with grpc.aio.insecure_channel(gateway.grpc_address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="none"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_and_reflection_need_no_key(upstream: FakeUpstream) -> None:
    keys = f'auth: {{mode: keys, keys: [{{name: ci, key: "{KEY}"}}]}}'
    async with Gateway(config_for(upstream.base_url, extra=keys)) as gw:
        async with gw.client() as client:
            assert await client.ready()
        code, out, _ = await buf(gw, "--list-services")
        assert code == 0
        assert set(out.split()) >= SERVICES


@pytest.mark.parametrize("service", ["", *sorted(SERVICES)])
async def test_watchers_hear_of_the_end_and_do_not_delay_it(service: str) -> None:
    heard: list[tuple[int, float]] = []
    with no_complaints():
        routes: Any = object()  # nobody calls it
        async with Doors(ScriptedCore(), routes=routes) as doors:
            async with grpc.aio.insecure_channel(doors.grpc_address) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)

                async def watch() -> None:
                    request = health_pb2.HealthCheckRequest(service=service)
                    try:
                        async for answer in health.Watch(request):
                            heard.append((answer.status, time.monotonic()))
                    except grpc.aio.AioRpcError:
                        pass

                watcher = asyncio.create_task(watch())
                reflected = asyncio.create_task(hold_reflection(channel))
                while not heard:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                began = time.monotonic()
                await doors._grpc.stop(20)
                took = time.monotonic() - began
                await asyncio.wait_for(watcher, 2)
                await asyncio.wait_for(reflected, 2)
    assert [status for status, _ in heard] == [SERVING, NOT_SERVING]
    assert heard[1][1] - began < 0.5
    assert took < 1, took


async def hold_reflection(channel: Any) -> None:
    """A reflection stream that its caller keeps open, as interactive tools do."""
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    assert (await call.read()).HasField("list_services_response")
    try:
        await call.read()
    except grpc.aio.AioRpcError:
        pass


# -- buf curl ---------------------------------------------------------------------------------------


async def buf(gateway: Gateway, *arguments: str, path: str = "") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        str(BUF),
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        *arguments,
        f"http://{gateway.grpc_address}{path}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


CHAT = "/headgate.v1.ChatService/"


async def test_buf_lists_services(gateway: Gateway) -> None:
    code, out, err = await buf(gateway, "--list-services")
    assert code == 0, err
    assert set(out.split()) >= SERVICES
    code, out, err = await buf(gateway, "--list-methods")
    assert "headgate.v1.ChatService/ChatStream" in out


async def test_buf_calls_unary(gateway: Gateway) -> None:
    code, out, err = await buf(gateway, "-d", MESSAGE, path=CHAT + "ChatComplete")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["choices"][0]["message"]["parts"][0]["text"].startswith("Hello!")
    assert answer["served"] == {
        "provider": "up", "model": "upstream-m", "attempts": 1, "dialect": "openai", "route": "m",
    }  # fmt: skip


async def test_buf_calls_the_stream(gateway: Gateway) -> None:
    code, out, err = await buf(gateway, "-d", MESSAGE, path=CHAT + "ChatStream")
    assert code == 0, err
    decoder, events = json.JSONDecoder(), []
    while out := out.strip():
        event, end = decoder.raw_decode(out)
        events.append(event)
        out = out[end:]
    assert "started" in events[0]
    assert "completed" in events[-1]


@pytest.mark.parametrize("method", ["ChatComplete", "ChatStream"])
async def test_buf_shows_errors(gateway: Gateway, upstream: FakeUpstream, method: str) -> None:
    upstream.default(rate_limited(2))
    code, _, err = await buf(gateway, "-d", MESSAGE, path=CHAT + method)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] * 8
    assert "resource_exhausted" in err
    kinds = {detail["type"]: detail for detail in json.loads(err)["details"]}
    assert {"google.rpc.ErrorInfo", "google.rpc.RetryInfo"} <= set(kinds)
    padded = kinds["google.rpc.ErrorInfo"]["value"] + "=="
    assert b"RATE_LIMITED" in base64.b64decode(padded)


async def test_buf_asks_for_health(gateway: Gateway) -> None:
    path = "/grpc.health.v1.Health/Check"
    code, out, err = await buf(gateway, "-d", "{}", path=path)
    assert (code, json.loads(out)) == (0, {"status": "SERVING"}), err
    code, out, _ = await buf(gateway, "-d", '{"service":"headgate.v1.ChatService"}', path=path)
    assert (code, json.loads(out)) == (0, {"status": "SERVING"})
    code, _, _ = await buf(gateway, "-d", '{"service":"none"}', path=path)
    assert code == grpc.StatusCode.NOT_FOUND.value[0] * 8
