"""The stock `google-genai` SDK as a user has it, in front of a site."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from google import genai
from google.genai import types

from conformance.conftest import Site
from fakes.gateway import KEY

# The SDK's own doing.
QUIET = pytest.mark.filterwarnings("ignore:Inheritance class .*:DeprecationWarning")

TEXT = "Hello! How can I help you today?"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "OBJECT",
        "properties": {"zone": {"type": "STRING"}, "city": {"type": "STRING"}},
        "required": ["zone", "city"],
    },
}
WEATHER_TOOL: dict[str, Any] = {"function_declarations": [WEATHER]}
AS_JSON_SCHEMA = {
    "type": "object",
    "properties": {"zone": {"type": "string"}, "city": {"type": "string"}},
    "required": ["zone", "city"],
}


class Sdk:
    """The SDK, sync (in a thread) or async.

    Args:
        site: where it calls.
        flavour: "sync" or "async".
        version: of the API; None for the SDK's own choice.
    """

    def __init__(self, site: Site, flavour: str, version: str | None = None) -> None:
        self.site = site
        self.flavour = flavour
        self._version = version
        self._clients: list[genai.Client] = []

    def client(self, **options: Any) -> genai.Client:
        """A client of the SDK."""
        http: dict[str, Any] = {"base_url": self.site.gateway.rest_url, "timeout": 20_000}
        if self._version:
            http["api_version"] = self._version
        http |= options.pop("http_options", {})
        client = genai.Client(**{"api_key": KEY} | options, http_options=http)
        self._clients.append(client)
        return client

    async def run(self, work: Callable[[Any], Any], **options: Any) -> Any:
        """Does `work(client)`; with the async half its result is awaited."""
        client = self.client(**options)
        if self.flavour == "sync":
            return await asyncio.to_thread(work, client)
        return await work(client.aio)

    async def generate(self, contents: Any = "Hello!", **params: Any) -> Any:
        """A whole answer; params are those of the call, or else of its config."""
        asked = asked_for(contents, params)
        return await self.run(lambda c: c.models.generate_content(**asked))

    async def chunks(self, contents: Any = "Hello!", **params: Any) -> list[Any]:
        """All chunks of a stream."""
        asked = asked_for(contents, params)

        async def concurrent(client: Any) -> Any:
            stream = await client.models.generate_content_stream(**asked)
            return [chunk async for chunk in stream]

        if self.flavour == "sync":
            return await self.run(lambda c: list(c.models.generate_content_stream(**asked)))
        return await self.run(concurrent)

    def chat(self, **params: Any) -> Chat:
        """A chat, which keeps its own history."""
        client = self.client()
        half: Any = client if self.flavour == "sync" else client.aio
        config = types.GenerateContentConfig(**params) if params else None
        return Chat(half.chats.create(model="m", config=config), self.flavour)

    async def close(self) -> None:
        for client in self._clients:
            client.close()
            await client.aio.aclose()


class Chat:
    """A chat of the SDK's, sync or async."""

    def __init__(self, chat: Any, flavour: str) -> None:
        self.chat = chat
        self._flavour = flavour

    async def send(self, message: Any) -> Any:
        if self._flavour == "sync":
            return await asyncio.to_thread(self.chat.send_message, message)
        return await self.chat.send_message(message)

    async def stream(self, message: Any) -> list[Any]:
        if self._flavour == "sync":
            return await asyncio.to_thread(lambda: list(self.chat.send_message_stream(message)))
        return [chunk async for chunk in await self.chat.send_message_stream(message)]


def asked_for(contents: Any, params: dict[str, Any]) -> dict[str, Any]:
    """The usual arguments of a call."""
    model = params.pop("model", "m")
    config = types.GenerateContentConfig(**params) if params else None
    return {"model": model, "contents": contents, "config": config}


def text_of(chunks: list[Any]) -> str:
    """The text of a stream, thoughts left out."""
    return "".join(chunk.text or "" for chunk in chunks)


def parts_of(answer: Any) -> list[dict[str, Any]]:
    """The parts of an answer, or of all chunks of a stream, as they are on the wire."""
    listed = answer if isinstance(answer, list) else [answer]
    return [
        part.model_dump(mode="json", by_alias=True, exclude_none=True)
        for each in listed
        for part in each.candidates[0].content.parts or ()
    ]
