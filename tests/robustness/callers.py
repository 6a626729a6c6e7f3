"""Callers at every way into a gateway, who can tell what became of each request.

Owns the four ways in: the core itself, gRPC, and REST in front of either; and one form for what is told
at any of them. Judges nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

import fakes.gateway  # noqa: F401 - for a listener that ends at once
from contract.doors import Doors, no_complaints, nothing_left, until
from fakes.upstream import FakeUpstream
from headgate.core import CallContext, ChatCore
from headgate.errors import GatewayError, reason_name
from headgate.v1 import chat_pb2, content_pb2, routing_pb2
from headgate_server.app import App
from headgate_server.config import parse_config
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES
from headgate_server.settlement import Settlement

_TRIED = re.compile(r"(\S+?)/\S+ (?:key=\S+ )?([A-Z_]+) \d+\.\d{3}s( hedge)?")
_FAULTS = {number: name.removeprefix("FAULT_") for name, number in routing_pb2.Fault.items()}


@dataclass
class Told:
    """What a caller was told.

    Attributes:
        text: of the answer, as far as it came.
        whole: the answer ended as it should.
        error: the reason of the error, such as ``OVERLOADED`` (over REST its code); empty without one.
        message: of the error.
        begun: part of an answer came.
        provider, attempts: as told; 0 attempts if nothing was told.
        tried: provider, fault, and whether it was a hedge, of each attempt. One that is alone and
            answered is not told of apart.
    """

    text: str = ""
    whole: bool = False
    error: str = ""
    message: str = ""
    begun: bool = False
    provider: str = ""
    attempts: int = 0
    tried: tuple[tuple[str, str, bool], ...] = ()

    def served(self, served: chat_pb2.Served | None) -> None:
        if served is None:
            return
        self.provider = served.provider
        self.attempts = served.attempts
        self.tried = tuple(
            (each.provider, _FAULTS[each.fault] if each.fault else "OK", each.hedge)
            for each in served.tried
        )
        self._alone()

    def headers(self, headers: Mapping[str, str]) -> None:
        self.provider = headers.get("x-headgate-provider", "")
        self.attempts = int(headers.get("x-headgate-attempts", "0"))
        self.tried = tuple(
            (provider, fault, bool(hedge))
            for provider, fault, hedge in _TRIED.findall(headers.get("x-headgate-tried", ""))
        )
        self._alone()

    def _alone(self) -> None:
        if self.attempts == 1 and not self.tried:
            self.tried = ((self.provider, "OK", False),)


class Callers:
    """The four ways in: the core, gRPC, and REST in front of either.

    Attributes:
        app: the gateway.
        settled: each call's settlement.
        http, urls: the ways over REST.
        ways: their names.
    """

    ways = ("direct", "grpc", "rest", "rest apart")

    def __init__(self, app: App, doors: Doors, http: aiohttp.ClientSession, settled: Any) -> None:
        self.app = app
        self.settled: list[Settlement] = settled
        self._cores = doors.cores
        self.http = http
        self.urls = {
            "rest": doors.rest["direct"] + "/v1/chat/completions",
            "rest apart": doors.rest["grpc"] + "/v1/chat/completions",
        }

    async def ask(
        self,
        way: str,
        model: str,
        text: str,
        *,
        stream: bool,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> Told:
        """One call; whatever comes of it is told. `seconds` is the deadline, of the core and gRPC."""
        if way in self.urls:
            return await self._rest(self.urls[way], model, text, stream, headers or {})
        context = CallContext() if seconds is None else CallContext.with_timeout(seconds)
        given = dict(headers or {})
        context = replace(
            context,
            idempotency_key=given.pop("idempotency-key", None),
            cache=given.pop("x-headgate-cache", None),
            bearer=given.pop("authorization", "").removeprefix("Bearer ") or None,
            headers=tuple(sorted(given.items())),
        )
        return await self._core(self._cores[way], model, text, stream, context)

    async def _core(
        self, core: ChatCore, model: str, text: str, stream: bool, context: CallContext
    ) -> Told:
        told = Told()
        part = content_pb2.Part(text=text)
        message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[part])
        request = chat_pb2.ChatRequest(model=model, messages=[message])
        try:
            if not stream:
                response = await core.chat_complete(request, context)
                told.text = response.choices[0].message.parts[0].text
                told.whole = told.begun = True
                told.served(response.served)
                return told
            async with core.chat_stream(request, context) as events:
                async for event in events:
                    kind = event.WhichOneof("event")
                    if kind == "started":
                        told.served(event.started.served)
                    elif kind == "part_started":
                        told.text += event.part_started.initial.text
                    elif kind == "part_delta":
                        told.begun = True
                        told.text += event.part_delta.text
                    told.whole = kind == "completed"
        except GatewayError as failed:
            told.error, told.message = reason_name(failed), failed.message
            if not told.begun:
                told.served(failed.served)
        return told

    async def _rest(
        self, url: str, model: str, text: str, stream: bool, headers: Mapping[str, str]
    ) -> Told:
        told = Told()
        asked = {"model": model, "messages": [{"role": "user", "content": text}]}
        body = json.dumps(asked | {"stream": True} if stream else asked)
        async with self.http.post(url, data=body.encode(), headers=headers) as response:
            told.headers(response.headers)
            found = await response.read()
        if response.status != 200:
            _failed(told, json.loads(found))
            return told
        told.begun = True
        if not stream:
            told.text = json.loads(found)["choices"][0]["message"]["content"]
            told.whole = True
            return told
        *events, end = found.decode().split("\n\n")
        assert end == "", found[-200:]
        told.whole = events[-1] == "data: [DONE]"
        for event in events[:-1] if told.whole else events:
            if event.startswith(":"):
                continue
            read = json.loads(event.removeprefix("data: "))
            if "error" in read:
                assert event is events[-1], "something follows an error"
                _failed(told, read)
            for choice in read.get("choices", ()):
                told.text += choice["delta"].get("content") or ""
        return told


def _failed(told: Told, body: Mapping[str, Any]) -> None:
    told.message = body["error"]["message"]
    told.error = body["error"]["code"] or body["error"]["type"]


def parsed(config: str) -> Any:
    """A configuration."""
    return parse_config(config, "test.yaml", kinds=kinds(), strategies=STRATEGIES, env={})


@asynccontextmanager
async def callers(config: str) -> AsyncIterator[Callers]:
    """A gateway with this configuration, and all ways in."""
    async with AsyncExitStack() as stack:
        settled: list[Settlement] = []
        app = await stack.enter_async_context(App(parsed(config), hooks=[settled.append]))
        doors = await stack.enter_async_context(Doors(app.core))
        # Not httpx: it takes a millisecond for a request.
        pool = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=pool))
        yield Callers(app, doors, http, settled)


@asynccontextmanager
async def asking(
    models: str,
    extra: str = "",
    *,
    allowed: Sequence[str] = (),
    providers: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Callers, FakeUpstream]]:
    """A gateway with these models on the providers `up` and `by`, which are one upstream.

    Nothing may be left of it, and nothing but what is allowed may have been complained of. Further
    providers are given by their settings; their address is the same if they say none.
    """
    with no_complaints(*allowed):
        async with nothing_left(), AsyncExitStack() as stack:
            up = await stack.enter_async_context(FakeUpstream())
            more = "\n".join(
                f"  {name}: {{{at(up, settings)}}}" for name, settings in (providers or {}).items()
            )
            config = f"""
providers:
{more}
  up: {{kind: openai, base_url: "{up.base_url}", api_key: upstream-secret-key}}
  by: {{kind: openai, base_url: "{up.base_url}", api_key: upstream-secret-key}}
models:
{models}
{extra}
"""
            found = await stack.enter_async_context(callers(config))
            yield found, up
            await idle(found)


def at(up: FakeUpstream, settings: str) -> str:
    """The settings of a provider with its address: without /v1 where the vendor's SDK adds it."""
    if "base_url" in settings:
        return settings
    address = up.origin if "anthropic" in settings else up.base_url
    return f'{settings}, base_url: "{address}"'


async def idle(found: Callers) -> None:
    """Waits until nothing is under way at any target."""
    board = found.app.core.setup.board
    await until(lambda: not any(each.in_flight or each.queued for each in board.all()))
    assert not found.app.core.setup.running
