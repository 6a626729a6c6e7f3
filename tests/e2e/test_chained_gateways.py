"""A gateway behind a gateway, over gRPC: the caller must not be able to tell, whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from contract.doors import request
from fakes.gateway import KEY, Gateway, config_for
from fakes.upstream import FakeUpstream, answer, error, hang, hang_after_headers, sse
from headgate.core import CallContext
from headgate.errors import (
    DeadlineExceeded,
    GatewayError,
    ModelNotFound,
    RateLimited,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate_server.config import ConfigError
from headgate_server.grpc_server import GrpcServer

KEYS = f'auth: {{mode: keys, keys: [{{name: front, key: "{KEY}"}}]}}'


def front_config(address: str, *, key: str = KEY, extra: str = "") -> str:
    return f"""
providers:
  behind: {{kind: headgate, base_url: "http://{address}", api_key: "{key}"{extra}}}
models:
  m: {{targets: [{{provider: behind}}]}}
  renamed: {{targets: [{{provider: behind, model: m}}]}}
  unknown: {{targets: [{{provider: behind, model: nowhere}}]}}
"""


class Chain:
    """Two gateways and what is behind them."""

    def __init__(self, up: FakeUpstream, behind: Gateway, front: Gateway) -> None:
        self.up, self.behind, self.front = up, behind, front

    async def call(self, **fields: Any) -> chat_pb2.ChatResponse:
        async with self.front.client() as client:
            return await client.chat_complete(request(**fields), CallContext("r1"))

    async def failure(self, **fields: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.call(**fields)
        return caught.value


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    async with FakeUpstream() as up, Gateway(config_for(up.base_url, extra=KEYS)) as behind:
        async with Gateway(front_config(behind.grpc_address)) as front:
            yield Chain(up, behind, front)


async def test_the_answer_is_the_same_through_one_gateway_and_two(chain: Chain) -> None:
    through_two = await chain.call(model="renamed", extra_body_json='{"x": 1}', temperature=0.5)
    assert chain.up.requests[-1].json["x"] == 1
    assert chain.up.requests[-1].json["temperature"] == 0.5
    async with chain.behind.client(api_key=KEY) as client:
        through_one = await client.chat_complete(request())
    assert (through_two.served.provider, through_two.served.model) == ("behind", "m")
    # Extras in the answer are still those of the provider that made them.
    assert through_two.served.dialect == through_one.served.dialect == "openai"
    for response in (through_one, through_two):
        response.ClearField("served")
        response.ClearField("id")
        response.ClearField("create_time")
    assert through_one == through_two


async def test_one_request_id_in_both(chain: Chain) -> None:
    await chain.call()
    assert [s.request_id for s in chain.front.settlements] == ["r1"]
    assert [s.request_id for s in chain.behind.settlements] == ["r1"]
    assert chain.front.settlements[0].usage == chain.behind.settlements[0].usage
    assert chain.behind.settlements[0].caller == "front"


async def test_a_stream_arrives_event_by_event(chain: Chain) -> None:
    async with chain.front.client() as client:
        events = [event async for event in client.chat_stream(request())]
        assert fold(events).choices[0].message.parts[0].text
        assert len(events) > 4
    async with chain.front.http() as http:
        answered = await http.post(
            "/v1/chat/completions",
            json={"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]},
        )
    assert answered.text.endswith("data: [DONE]\n\n")
    assert answered.headers["x-headgate-provider"] == "behind"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("where", [hang, hang_after_headers])
async def test_a_caller_that_leaves_closes_the_last_socket(
    chain: Chain, streamed: bool, where: Any
) -> None:
    chain.up.script(where())
    async with chain.front.client() as client:
        work = (
            client.chat_stream(request()).next_batch()
            if streamed
            else client.chat_complete(request())
        )
        task = asyncio.ensure_future(work)
        await chain.up.wait_for_requests()
        task.cancel()
        await asyncio.wait({task})
        async with asyncio.timeout(1):
            while chain.up.open_connections:
                await asyncio.sleep(0.005)
    assert [s.outcome for s in await chain.front.settled()] == ["CANCELLED"]
    assert [s.outcome for s in await chain.behind.settled()] == ["CANCELLED"]


async def test_the_deadline_holds_for_the_whole_chain(chain: Chain) -> None:
    chain.up.default(hang())
    async with chain.front.client() as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await client.chat_complete(request(), timeout=0.3)
        assert type(caught.value) is DeadlineExceeded
        assert 0.25 < time.monotonic() - started < 0.8
    async with asyncio.timeout(1):
        while chain.up.open_connections:
            await asyncio.sleep(0.005)
    assert [s.outcome for s in await chain.behind.settled()] == ["DEADLINE_EXCEEDED"]


async def test_errors_keep_their_kind_and_their_facts(chain: Chain) -> None:
    chain.up.script(error(429, "slow down", headers={"retry-after": "7"}))
    found = await chain.failure()
    assert isinstance(found, RateLimited)
    assert (found.message, found.retry_after) == ("slow down", 7.0)
    assert isinstance(await chain.failure(model="unknown"), ModelNotFound)
    chain.up.script(answer("<html>", content_type="text/html"))
    assert isinstance(await chain.failure(), UpstreamProtocol)


async def test_an_error_in_the_middle_of_a_stream(chain: Chain) -> None:
    first = {"id": "1", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    chain.up.script(sse([first, 0.2, first], done=False, stop_after=1, ending="rst"))
    async with chain.front.client() as client:
        events = client.chat_stream(request())
        assert (await anext(events)).HasField("started")
        with pytest.raises(UpstreamUnavailable):
            async for _ in events:
                pass


async def test_a_key_that_the_next_gateway_refuses_is_not_the_callers_fault() -> None:
    async with FakeUpstream() as up, Gateway(config_for(up.base_url, extra=KEYS)) as behind:
        wrong = front_config(behind.grpc_address, key="not-the-right-key")
        async with Gateway(wrong) as front, front.client() as client:
            with pytest.raises(UpstreamRejectedUs) as caught:
                await client.chat_complete(request())
            assert caught.value.http_status == 502
            assert "not-the-right-key" not in caught.value.message
        assert not up.requests


async def test_the_next_gateway_is_away() -> None:
    async with Gateway(front_config("127.0.0.1:1")) as front, front.client() as client:
        with pytest.raises(UpstreamUnavailable):
            await client.chat_complete(request(), timeout=5)


async def test_our_own_limit_is_a_timeout_of_the_upstream() -> None:
    async with FakeUpstream() as up, Gateway(config_for(up.base_url, extra=KEYS)) as behind:
        up.default(hang())
        limit = front_config(behind.grpc_address, extra=", timeouts: {total: 200ms}")
        async with Gateway(limit) as front, front.client() as client:
            with pytest.raises(UpstreamTimeout, match=r"timeouts\.total"):
                await client.chat_complete(request())
            limit = front_config(behind.grpc_address, extra=", timeouts: {first_byte: 200ms}")
        async with Gateway(limit) as front, front.client() as client:
            with pytest.raises(UpstreamTimeout):
                await client.chat_stream(request()).next_batch()


async def test_a_fallback_beside_a_gateway_that_is_away() -> None:
    async with FakeUpstream() as up:
        config = f"""
providers:
  away: {{kind: headgate, base_url: "http://127.0.0.1:1"}}
  up: {{kind: openai, base_url: "{up.base_url}"}}
models:
  m: {{targets: [{{provider: away}}, {{provider: up}}]}}
"""
        async with Gateway(config) as front, front.client() as client:
            response = await client.chat_complete(request())
            assert (response.served.provider, response.served.attempts) == ("up", 2)
            response = fold([e async for e in client.chat_stream(request())])
            assert (response.served.provider, response.served.attempts) == ("up", 2)


async def test_gateways_in_a_circle_stop() -> None:
    async with Gateway(front_config("127.0.0.1:1")) as probe:
        address = probe.grpc_address
    circle = front_config(address)
    async with Gateway(circle) as front:
        # The address is free again: a second listener of the same core closes the circle.
        again = GrpcServer(front.app.core, address, max_message_bytes=1 << 20)
        await again.start()
        try:
            async with front.client() as client:
                with pytest.raises(UpstreamProtocol, match="gateways"):
                    await client.chat_complete(request(), timeout=10)
            assert len(front.settlements) == 9
        finally:
            await again.stop(1)


async def test_counting_tokens(chain: Chain) -> None:
    async with chain.front.client() as client:
        counted = await client.count_tokens(chat_pb2.CountTokensRequest(request=request()))
    assert counted.estimated
    assert counted.input_tokens > 0


async def test_mutual_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, cert in (("server", ca.issue_cert("127.0.0.1")), ("front", ca.issue_cert("front"))):
        cert.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        for blob in cert.cert_chain_pems:
            blob.write_to_path(str(tmp_path / f"{name}.pem"), append=True)
    from headgate.listening import TlsFiles

    files = TlsFiles(
        str(tmp_path / "server.pem"), str(tmp_path / "server.key"), str(tmp_path / "ca.pem")
    )
    async with FakeUpstream() as up:
        behind = Gateway(config_for(up.base_url))
        server = GrpcServer(behind.app.core, "127.0.0.1:0", max_message_bytes=1 << 20, tls=files)
        address = await server.start()
        tls = "{" + ", ".join(
            f'{key}: "{tmp_path / name}"'
            for key, name in (
                ("ca_file", "ca.pem"), ("cert_file", "front.pem"), ("key_file", "front.key"))
        ) + "}"  # fmt: skip
        config = front_config(address, extra=f", tls: {tls}").replace("http:", "https:")
        try:
            async with Gateway(config) as front, front.client() as client:
                assert (await client.chat_complete(request(), timeout=10)).choices
            stranger = front_config(address).replace("http:", "https:")
            async with Gateway(stranger) as front, front.client() as client:
                with pytest.raises(UpstreamUnavailable):
                    await client.chat_complete(request(), timeout=5)
        finally:
            await server.stop(1)
            await behind.app.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("provider", "problem"),
    [
        ("{kind: headgate}", "needs a base_url"),
        ('{kind: headgate, base_url: "http://a:1/v1"}', "without a path"),
        ('{kind: headgate, base_url: "http://a:1", tls: {ca_file: /x}}', "https://"),
        ('{kind: headgate, base_url: "https://a:1", tls: {ca_file: /nowhere}}', "no such file"),
        ('{kind: headgate, base_url: "https://a:1", tls: {key_file: /x}}', "belong together"),
        ('{kind: openai, base_url: "https://a:1", tls: {}}', "belongs to kind headgate only"),
    ],
)
def test_the_configuration_says_what_is_missing(provider: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Gateway(f"providers: {{a: {provider}}}")
