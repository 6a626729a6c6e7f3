"""A gateway over a scripted upstream, and the `openai` SDK in both of its flavours in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest

from fakes.gateway import KEY, Gateway, config_for
from fakes.upstream import FakeUpstream
from headgate_facade.settings import FacadeSettings

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]


class Site:
    """A gateway with its upstream; `open` may be called once more with other settings."""

    def __init__(self, apart: bool, stack: AsyncExitStack) -> None:
        self.apart = apart
        self.up = FakeUpstream()
        self._stack = stack
        self.gateway: Gateway

    async def open(
        self, *, facade: FacadeSettings | None = None, extra: str = "", models: str = ""
    ) -> Gateway:
        config = config_for(self.up.base_url, extra=extra)
        if models:
            config = config.replace("models:\n", f"models:\n{models}\n")
        return await self.open_config(config, facade)

    async def open_config(self, config: str, facade: FacadeSettings | None = None) -> Gateway:
        gateway = Gateway(config, apart=self.apart, facade=facade)
        self.gateway = await self._stack.enter_async_context(gateway)
        return gateway

    @property
    def sent(self) -> Any:
        """The last body that the upstream got."""
        return self.up.requests[-1].json


@pytest.fixture(params=[False, True], ids=["together", "apart"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """A running gateway with the usual configuration, in one process and with gRPC between."""
    async with AsyncExitStack() as stack:
        site = Site(request.param, stack)
        await stack.enter_async_context(site.up)
        await site.open()
        yield site


class Sdk:
    """The SDK as a user has it: sync (in a thread) or async, with strict validation of answers."""

    def __init__(self, site: Site, flavour: str) -> None:
        self.site = site
        self.flavour = flavour
        self._sync: list[openai.OpenAI] = []
        self._async: list[openai.AsyncOpenAI] = []

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "base_url": self.site.gateway.rest_url + "/v1",
            "api_key": KEY,
            "max_retries": 0,
            "timeout": 20,
            "_strict_response_validation": True,
        } | options

    async def run(self, work: Callable[[Any], Any], **options: Any) -> Any:
        """Does `work(client)`; with the async client its result is awaited."""
        if self.flavour == "sync":
            sync = openai.OpenAI(**self.options(options))
            self._sync.append(sync)
            return await asyncio.to_thread(work, sync)
        client = openai.AsyncOpenAI(**self.options(options))
        self._async.append(client)
        return await work(client)

    async def create(self, messages: Any = None, **params: Any) -> Any:
        """A unary completion."""
        asked = {"model": "m", "messages": messages or HELLO} | params
        return await self.run(lambda client: client.chat.completions.create(**asked))

    async def chunks(self, messages: Any = None, **params: Any) -> list[Any]:
        """All chunks of a streamed completion."""
        asked = {"model": "m", "messages": messages or HELLO, "stream": True} | params

        def sync(client: Any) -> Any:
            with client.chat.completions.create(**asked) as stream:
                return list(stream)

        async def concurrent(client: Any) -> Any:
            async with await client.chat.completions.create(**asked) as stream:
                return [chunk async for chunk in stream]

        return await self.run(sync if self.flavour == "sync" else concurrent)

    async def parse(self, messages: Any = None, **params: Any) -> Any:
        """A completion parsed into a model."""
        asked = {"model": "m", "messages": messages or HELLO} | params
        return await self.run(lambda client: client.chat.completions.parse(**asked))

    async def events(self, messages: Any = None, **params: Any) -> tuple[list[Any], Any]:
        """The events of the SDK's streaming helper, and the final completion."""
        asked = {"model": "m", "messages": messages or HELLO} | params

        def sync(client: Any) -> Any:
            with client.chat.completions.stream(**asked) as stream:
                return list(stream), stream.get_final_completion()

        async def concurrent(client: Any) -> Any:
            async with client.chat.completions.stream(**asked) as stream:
                events = [event async for event in stream]
                return events, await stream.get_final_completion()

        return await self.run(sync if self.flavour == "sync" else concurrent)

    async def close(self) -> None:
        for sync in self._sync:
            sync.close()
        for client in self._async:
            await client.close()


@pytest.fixture(params=["async", "sync"])
async def sdk(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Sdk]:
    """The SDK in front of the site."""
    sdk = Sdk(site, request.param)
    yield sdk
    await sdk.close()
