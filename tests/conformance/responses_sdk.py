"""The Responses side of the stock `openai` SDK as a user has it, in front of a site."""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import Response

from conformance.conftest import Sdk
from fakes.upstream import Answer, sse

TEXT = "Hello! How can I help you today?"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "Current weather",
    "parameters": {
        "type": "object",
        "properties": {"zone": {"type": "string"}, "city": {"type": "string"}},
        "required": ["zone", "city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Responses:
    """What users do with `client.responses`, in both flavours of the SDK."""

    def __init__(self, sdk: Sdk) -> None:
        self.sdk = sdk

    async def create(self, input: Any = "Hello!", **params: Any) -> Response:
        """A unary answer."""
        asked = {"model": "m", "input": input} | params
        got: Response = await self.sdk.run(lambda client: client.responses.create(**asked))
        return got

    async def parse(self, input: Any = "Hello!", **params: Any) -> Any:
        """A unary answer parsed into a model."""
        asked = {"model": "m", "input": input} | params
        return await self.sdk.run(lambda client: client.responses.parse(**asked))

    async def events(self, input: Any = "Hello!", **params: Any) -> list[Any]:
        """The events of a stream as they come."""
        asked = {"model": "m", "input": input, "stream": True} | params

        def sync(client: Any) -> Any:
            with client.responses.create(**asked) as stream:
                return list(stream)

        async def concurrent(client: Any) -> Any:
            async with await client.responses.create(**asked) as stream:
                return [event async for event in stream]

        got: list[Any] = await self.sdk.run(sync if self.sdk.flavour == "sync" else concurrent)
        return got

    async def stream(self, input: Any = "Hello!", **params: Any) -> tuple[list[Any], Any]:
        """The events of the SDK's streaming helper, and the final response."""
        asked = {"model": "m", "input": input} | params

        def sync(client: Any) -> Any:
            with client.responses.stream(**asked) as stream:
                return list(stream), stream.get_final_response()

        async def concurrent(client: Any) -> Any:
            async with client.responses.stream(**asked) as stream:
                events = [event async for event in stream]
                return events, await stream.get_final_response()

        got: tuple[list[Any], Any] = await self.sdk.run(
            sync if self.sdk.flavour == "sync" else concurrent
        )
        return got

    async def both(self, input: Any = "Hello!", **params: Any) -> list[Response]:
        """The same asked for twice: whole, and as the end of a stream."""
        whole = await self.create(input, **params)
        events, _ = await self.stream(input, **params)
        return [whole, events[-1].response]


def types_of(events: list[Any]) -> list[str]:
    """The events' types without what they have in common."""
    return [event.type.removeprefix("response.") for event in events]


def turn(response: Response) -> list[Any]:
    """The output as it goes back with the next turn."""
    return [item.to_dict() for item in response.output]


def named(events: list[dict[str, Any]]) -> Answer:
    """A stream of a Responses upstream: named events with numbers, and no `[DONE]`."""
    numbered = [
        {"type": event["type"], "sequence_number": number} | event
        for number, event in enumerate(events)
    ]
    lines = [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in numbered]
    return sse(lines, done=False)
