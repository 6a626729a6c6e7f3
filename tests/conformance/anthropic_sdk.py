"""The stock `anthropic` SDK as a user has it, in front of a site, with strict validation of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic

from conformance.conftest import Site
from fakes.gateway import KEY

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Sdk:
    """The SDK, sync (in a thread) or async."""

    def __init__(self, site: Site, flavour: str) -> None:
        self.site = site
        self.flavour = flavour
        self._sync: list[anthropic.Anthropic] = []
        self._async: list[anthropic.AsyncAnthropic] = []

    async def run(self, work: Callable[[Any], Any], **options: Any) -> Any:
        """Does `work(client)`; with the async client its result is awaited."""
        given: dict[str, Any] = {
            "base_url": self.site.gateway.rest_url,
            "api_key": KEY,
            "max_retries": 0,
            "timeout": 20,
            "_strict_response_validation": True,
        } | options
        if self.flavour == "sync":
            sync = anthropic.Anthropic(**given)
            self._sync.append(sync)
            return await asyncio.to_thread(work, sync)
        client = anthropic.AsyncAnthropic(**given)
        self._async.append(client)
        return await work(client)

    async def create(self, messages: Any = None, *, beta: bool = False, **params: Any) -> Any:
        """A whole message."""
        asked = asked_for(messages, params)
        return await self.run(lambda c: (c.beta if beta else c).messages.create(**asked))

    async def events(self, messages: Any = None, **params: Any) -> list[Any]:
        """The raw events of a stream."""
        asked = asked_for(messages, params) | {"stream": True}

        def sync(client: Any) -> Any:
            with client.messages.create(**asked) as stream:
                return list(stream)

        async def concurrent(client: Any) -> Any:
            async with await client.messages.create(**asked) as stream:
                return [event async for event in stream]

        return await self.run(sync if self.flavour == "sync" else concurrent)

    async def stream(self, messages: Any = None, *, beta: bool = False, **params: Any) -> Any:
        """The events of the SDK's streaming helper, and the final message."""
        asked = asked_for(messages, params)

        def sync(client: Any) -> Any:
            with (client.beta if beta else client).messages.stream(**asked) as stream:
                return list(stream), stream.get_final_message()

        async def concurrent(client: Any) -> Any:
            async with (client.beta if beta else client).messages.stream(**asked) as stream:
                events = [event async for event in stream]
                return events, await stream.get_final_message()

        return await self.run(sync if self.flavour == "sync" else concurrent)

    async def close(self) -> None:
        for sync in self._sync:
            sync.close()
        for client in self._async:
            await client.close()


def asked_for(messages: Any, params: dict[str, Any]) -> dict[str, Any]:
    """The usual arguments of a call."""
    return {"model": "m", "max_tokens": 1024, "messages": messages or HELLO} | params
