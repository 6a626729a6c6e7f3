"""A running gateway gets another configuration: nothing under way is lost, nothing old is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from fakes.bodies import chunks
from fakes.gateway import KEY, Gateway, config_for
from fakes.upstream import FakeUpstream, chat, error, hang, sse
from headgate.core import CallContext
from headgate_server.config import ConfigError
from headgate_server.core import Setup

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture
async def old() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        up.default(chat("old"))
        yield up


@pytest.fixture
async def new() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        up.default(chat("new"))
        yield up


async def said(http: httpx.AsyncClient, **more: Any) -> str:
    response = await http.post(CHAT, json=ASK | more)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


async def closed(up: FakeUpstream, within: float = 5) -> None:
    async with asyncio.timeout(within):
        while up.open_connections:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("apart", [False, True])
async def test_calls_under_way_end_with_the_old_one(
    old: FakeUpstream, new: FakeUpstream, apart: bool
) -> None:
    gate = asyncio.Event()
    first, *rest = chunks(["Hel", "lo"])
    old.script(sse([first, rest[0], gate, *rest[1:]]), sse([first, rest[0], gate, *rest[1:]]))
    async with Gateway(config_for(old.base_url), apart=apart) as gateway, gateway.http() as http:
        streams = [
            asyncio.create_task(http.post(CHAT, json=ASK | {"stream": True})) for _ in range(2)
        ]
        await old.wait_for_requests(2)
        await asyncio.sleep(0.05)
        await gateway.reload(config_for(new.base_url))
        assert await said(http) == "new"
        assert old.open_connections == 2
        gate.set()
        for response in await asyncio.gather(*streams):
            assert response.text.endswith("data: [DONE]\n\n")
            assert "lo" in response.text
        await closed(old)  # they were kept alive, for nobody
        assert await said(http) == "new"
    assert len(old.requests) == 2


async def test_a_call_that_does_not_end_gets_drain_seconds(
    old: FakeUpstream, new: FakeUpstream
) -> None:
    old.default(hang())
    config = config_for(old.base_url, extra="drain: 300ms")
    async with Gateway(config) as gateway, gateway.http() as http:
        call = asyncio.create_task(http.post(CHAT, json=ASK))
        await old.wait_for_requests(1)
        began = time.monotonic()
        await gateway.reload(config_for(new.base_url))
        await old.requests[0].wait_closed(5)
        assert 0.2 < time.monotonic() - began < 2
        assert (await call).status_code in (502, 503)
        assert await said(http) == "new"


async def test_the_end_does_not_wait_for_what_a_reload_left(
    old: FakeUpstream, new: FakeUpstream
) -> None:
    old.default(hang())
    async with Gateway(config_for(old.base_url)) as gateway:
        async with gateway.http() as http:
            call = asyncio.create_task(http.post(CHAT, json=ASK))
            await old.wait_for_requests(1)
            await gateway.reload(config_for(new.base_url))
            began = time.monotonic()
            await gateway.app.__aexit__(None, None, None)
            assert time.monotonic() - began < 3
            await call
    await closed(old)


async def test_connections_of_unchanged_providers_stay_warm(
    old: FakeUpstream, new: FakeUpstream
) -> None:
    both = config_for(old.base_url) + "  other: {targets: [{provider: up}]}\n"
    async with Gateway(config_for(old.base_url)) as gateway, gateway.http() as http:
        for config in (both, config_for(old.base_url)):
            assert await said(http) == "old"
            await gateway.reload(config)
        await asyncio.sleep(0.1)  # the old ones are closed by now
        assert await said(http) == "old"
        assert {record.connection for record in old.requests} == {0}
        await gateway.reload(config_for(old.base_url, extra="timeouts: {connect: 3s}"))
        assert await said(http) == "old"
        assert old.requests[-1].connection == 1
        await gateway.reload(config_for(old.base_url).replace("upstream-secret", "another-secret"))
        assert await said(http) == "old"
        assert old.requests[-1].headers["authorization"] == "Bearer another-secret-key"


async def test_what_two_configurations_share_is_not_closed_by_the_first_to_end(
    old: FakeUpstream, new: FakeUpstream
) -> None:
    """A provider of the first and second: the second ends while the first still has a call."""
    gate = asyncio.Event()
    first, *rest = chunks(["Hel", "lo"])
    old.script(sse([first, rest[0], gate, *rest[1:]]))
    async with Gateway(config_for(old.base_url)) as gateway, gateway.http() as http:
        stream = asyncio.create_task(http.post(CHAT, json=ASK | {"stream": True}))
        await old.wait_for_requests(1)
        await gateway.reload(config_for(old.base_url, extra="retries: {max: 1}"))
        await gateway.reload(config_for(new.base_url))
        await asyncio.sleep(0.2)
        gate.set()
        assert (await stream).text.endswith("data: [DONE]\n\n")
        await closed(old)


async def test_what_is_refused_changes_nothing(old: FakeUpstream) -> None:
    async with Gateway(config_for(old.base_url)) as gateway, gateway.http() as http:
        assert await said(http) == "old"
        before, tasks = gateway.app.config, len(asyncio.all_tasks())
        with pytest.raises(ConfigError, match="cannot be added while the gateway runs"):
            await gateway.reload(
                config_for(old.base_url).replace("models:", "  tiny: {kind: local}\nmodels:")
            )
        with pytest.raises(ConfigError):  # found while it is wired
            await gateway.reload(
                config_for(old.base_url).replace(
                    "models:",
                    "  v: {kind: vertex, project: p, region: r, credentials_file: /no/where}\nmodels:",
                )
            )
        assert gateway.app.config is before
        assert len(asyncio.all_tasks()) == tasks
        assert await said(http) == "old"
        assert {record.connection for record in old.requests} == {0}


async def test_keys_of_callers_change_at_once(old: FakeUpstream) -> None:
    def keys(key: str) -> str:
        extra = f'auth: {{mode: keys, keys: [{{name: t, key: "{key}"}}]}}'
        return config_for(old.base_url, extra=extra)

    async with Gateway(keys(KEY)) as gateway, gateway.http() as http:

        async def status(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            return (await http.post(CHAT, json=ASK, headers=headers)).status_code

        assert (await status(KEY), await status("another-key-0123")) == (200, 401)
        await gateway.reload(keys("another-key-0123"))
        assert (await status(KEY), await status("another-key-0123")) == (401, 200)


async def test_a_breaker_stays_open_over_a_reload(old: FakeUpstream) -> None:
    breaker = "breaker: {min_requests: 3, open_for: 60s}"
    config = config_for(old.base_url, extra=breaker)
    old.default(error(500))

    def breakers() -> list[str]:
        states = gateway.app.core.setup.board.all()
        return [each.breaker(time.monotonic())[0].name for each in states]

    async with Gateway(config) as gateway, gateway.http() as http:
        for _ in range(4):
            assert (await http.post(CHAT, json=ASK)).status_code >= 500
        assert breakers() == ["OPEN"]
        await gateway.reload(
            config.replace(
                "models:", "models:\n  n: {targets: [{provider: up, model: upstream-m}]}"
            )
        )
        assert breakers() == ["OPEN"]
        await gateway.reload(config.replace("min_requests: 3", "min_requests: 30"))
        assert breakers() == ["CLOSED"]  # by other rules, it begins anew


async def test_an_idempotent_answer_survives_a_reload(old: FakeUpstream, new: FakeUpstream) -> None:
    headers = {"idempotency-key": "once-and-for-all"}
    async with Gateway(config_for(old.base_url)) as gateway, gateway.http() as http:
        first = await http.post(CHAT, json=ASK, headers=headers)
        await gateway.reload(config_for(new.base_url))
        again = await http.post(CHAT, json=ASK, headers=headers)
        assert again.json()["choices"] == first.json()["choices"]
        await gateway.reload(config_for(new.base_url, extra="idempotency: {ttl: 5s}"))
        third = await http.post(CHAT, json=ASK, headers=headers)
        assert third.json()["choices"] == first.json()["choices"]
    assert (len(old.requests), len(new.requests)) == (1, 0)


async def test_prices_are_there_when_the_strategy_needs_them(old: FakeUpstream) -> None:
    cheap = config_for(old.base_url, model_extra=", strategy: cost")
    async with Gateway(config_for(old.base_url)) as gateway:
        assert gateway.app.core.setup.prices._snapshot is None
        await gateway.reload(cheap)
        assert gateway.app.core.setup.prices._snapshot is not None
    async with Gateway(cheap) as gateway:
        assert gateway.app.core.setup.prices._snapshot is not None


def held() -> tuple[int, int, int]:
    """Open files, tasks, and setups in memory."""
    gc.collect()
    setups = sum(isinstance(each, Setup) for each in gc.get_objects())
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), setups


async def test_fifty_reloads_leave_nothing_behind(old: FakeUpstream, new: FakeUpstream) -> None:
    async with (
        Gateway(config_for(new.base_url)) as behind,
        Gateway(config_for(old.base_url)) as gateway,
        gateway.http() as http,
    ):
        remote = f"{{kind: headgate, base_url: 'http://{behind.grpc_address}'}}"
        configs = [
            config_for(up.base_url, extra=f"timeouts: {{total: {n + 1}s}}").replace(
                "models:",
                f"  gate: {remote}\nmodels:\n  g{n}: {{targets: [{{provider: gate, model: m}}]}}",
            )
            for n, up in enumerate([old, new])
        ]

        async def round_trip(number: int) -> None:
            await gateway.reload(configs[number % 2])
            assert await said(http) == ("old", "new")[number % 2]
            assert await said(http, model=f"g{number % 2}") == "new"

        for number in range(4):
            await round_trip(number)
        await settled(gateway)
        before = held()
        for number in range(50):
            await round_trip(number)
        await settled(gateway)
        after = held()
    assert after[0] <= before[0] + 2  # the pools of the test's own client
    assert after[1:] == before[1:]


async def settled(gateway: Gateway) -> None:
    """Until no replaced configuration is left."""
    async with asyncio.timeout(5):
        while gateway.app._retiring:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("apart", [False, True])
async def test_requests_at_full_speed_never_notice(
    old: FakeUpstream, new: FakeUpstream, apart: bool
) -> None:
    configs = [config_for(up.base_url) for up in (old, new)]
    over = asyncio.Event()
    counts = {"old": 0, "new": 0}

    async def caller(http: httpx.AsyncClient, streamed: bool) -> None:
        while not over.is_set():
            if streamed:
                response = await http.post(CHAT, json=ASK | {"stream": True})
                assert response.status_code == 200, response.text
                assert response.text.endswith("data: [DONE]\n\n")
                which = "old" if '"old"' in response.text else "new"
            else:
                which = await said(http)
            counts[which] += 1

    async with Gateway(configs[0], apart=apart) as gateway, gateway.http() as http:
        callers = [asyncio.create_task(caller(http, bool(n % 2))) for n in range(16)]
        for number in range(1, 21):
            seen = sum(counts.values())
            await gateway.reload(configs[number % 2])
            async with asyncio.timeout(10):
                while sum(counts.values()) < seen + 16 and not any(c.done() for c in callers):
                    await asyncio.sleep(0.002)
        over.set()
        await asyncio.gather(*callers)
        await settled(gateway)
    assert min(counts.values()) > 100, counts
    assert sum(counts.values()) == len(old.requests) + len(new.requests)


async def test_reloads_at_the_same_time_come_one_after_the_other(
    old: FakeUpstream, new: FakeUpstream
) -> None:
    async with Gateway(config_for(old.base_url)) as gateway, gateway.http() as http:
        await asyncio.gather(
            *(gateway.reload(config_for(up.base_url)) for up in (old, new, old, new, old, new))
        )
        assert await said(http) == "new"
        await settled(gateway)
        with contextlib.suppress(ConfigError):
            await gateway.reload(config_for(old.base_url))
        assert await said(http) == "old"
        models = await gateway.app.core.list_models(_models(), CallContext())
        assert [model.id for model in models.models] == ["m"]


def _models() -> Any:
    from headgate.v1 import model_service_pb2

    return model_service_pb2.ListModelsRequest()


async def test_a_changed_model_gives_no_old_answers_and_used_keys_stay_used() -> None:
    async with FakeUpstream() as up:
        first = config_for(up.base_url, model_extra=", cache: {ttl: 1h}")
        second = first.replace("upstream-m", "other-m") + "\nidempotency: {ttl: 1h}\n"
        async with Gateway(first) as gateway, gateway.http() as http:
            key = {"idempotency-key": "once", "x-headgate-cache": "off"}
            for headers in ({}, key):
                assert (await http.post(CHAT, json=ASK, headers=headers)).status_code == 200
            await gateway.reload(second)
            anew = await http.post(CHAT, json=ASK)
            assert anew.headers["x-headgate-cache"] == "miss"
            again = await http.post(CHAT, json=ASK, headers=key)
            assert again.headers["x-headgate-repeated"] == "true"
            assert [r.json["model"] for r in up.requests] == ["upstream-m", "upstream-m", "other-m"]
