"""Upstreams that fail in every way, by the dice, and callers who can tell what became of each request.

Each request carries a mark in its prompt. The upstream notes which mark it saw and how it treated it, and
its answers quote the mark, so that a request that got lost, ran twice, or got another one's answer shows.
Owns the faults, what the documentation promises for each, and the four ways in. Judges nothing.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import aiohttp

from contract.doors import Doors, no_complaints, nothing_left, until
from fakes.bodies import chunks, completion
from fakes.steps import Answer, answer, disconnect, error, hang, html, rate_limited, reset, sse
from fakes.upstream import FakeUpstream
from fakes.wire import Connection, Record, Step
from headgate.core import CallContext, ChatCore
from headgate.errors import GatewayError, reason_name
from headgate.v1 import chat_pb2, content_pb2, routing_pb2
from headgate_server.app import App
from headgate_server.config import parse_config
from headgate_server.faults import Fault
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES
from headgate_server.settlement import Settlement

_MARK = re.compile(rb"#\d{6}")
_MODEL = re.compile(rb'"model":\s*"([^"]+)"')
_STREAMED = re.compile(rb'"stream":\s*true')
_TRIED = re.compile(r"(\S+?)/\S+ (?:key=\S+ )?([A-Z_]+) \d+\.\d{3}s( hedge)?")
_NO_MARK = b"#000000"
_FAULTS = {number: name.removeprefix("FAULT_") for name, number in routing_pb2.Fault.items()}


def said(upstream: str, mark: str) -> str:
    """What an upstream answers to a request."""
    return f"{upstream} got {mark}, and says so at some length."


def _words(upstream: str) -> list[str]:
    return re.findall(r"\S+ ?", said(upstream, _NO_MARK.decode()))


# -- faults ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """One way to fail, and what the documentation says about it.

    Attributes:
        unary, stream: does it.
        fault: what is told about the attempt; of one that is whole, NONE.
        late: a stream fails only after its first content, so nobody else is asked.
        again: the same target may be asked again.
        dropped: the connection is closed before anything of an answer; on a kept connection that looks
            like one that was closed before the request came, which is repeated once, unseen.
        limited: it takes a time limit to notice.
    """

    unary: Callable[[str], Step]
    stream: Callable[[str], Step]
    fault: Fault
    late: bool = False
    again: bool = True
    dropped: bool = False
    limited: bool = False


def _whole(upstream: str) -> Answer:
    return answer(completion("".join(_words(upstream))))


def _events(upstream: str) -> Answer:
    return sse(chunks(_words(upstream), usage=True))


def _both(step: Callable[[], Step]) -> tuple[Callable[[str], Step], Callable[[str], Step]]:
    return lambda _: step(), lambda _: step()


def _cut(ending: Any) -> tuple[Callable[[str], Step], Callable[[str], Step]]:
    """Ends within a whole answer, or after a stream's role, before its content."""
    half = len(_whole("x").pieces[0]) // 2  # type: ignore[index,arg-type]
    return (
        lambda up: replace(_whole(up), cut=half, pieces=_halves(up), stop_after=1, ending=ending),
        lambda up: replace(_events(up), stop_after=1, ending=ending),
    )


def _halves(upstream: str) -> list[bytes]:
    (piece,) = _whole(upstream).pieces  # type: ignore[misc]
    assert isinstance(piece, bytes)
    return [piece[:40], piece[40:]]


_ERROR_EVENT = {"error": {"message": "broken", "type": "server_error", "param": None, "code": None}}
_DUE = {"fault": Fault.TIMEOUT, "again": False, "limited": True}


def _after(*pieces: Any, ending: Any = "complete") -> Callable[[str], Step]:
    """A stream's first content, and then this."""
    return lambda up: sse([*chunks(_words(up))[:3], *pieces], done=False, ending=ending)


TROUBLES: dict[str, Trouble] = {
    "healthy": Trouble(_whole, _events, Fault.NONE),
    "trickle": Trouble(
        lambda up: replace(_whole(up), cut=60, delay=0.002, cut_head=True),
        lambda up: replace(_events(up), cut=60, delay=0.002, cut_head=True),
        Fault.NONE,
    ),
    "reset": Trouble(*_both(reset), Fault.TRANSPORT, dropped=True),
    "close": Trouble(*_both(disconnect), Fault.TRANSPORT, dropped=True),
    "cut": Trouble(*_cut("fin"), Fault.TRANSPORT),
    "torn": Trouble(*_cut("rst"), Fault.TRANSPORT),
    "silence": Trouble(*_both(hang), **_DUE),  # type: ignore[arg-type]
    "silence-after-head": Trouble(
        lambda up: replace(_whole(up), stop_after=0, ending="hang"),
        lambda up: replace(_events(up), stop_after=0, ending="hang"),
        **_DUE,  # type: ignore[arg-type]
    ),
    "stall": Trouble(*_cut("hang"), **_DUE),  # type: ignore[arg-type]
    "late-stall": Trouble(_whole, _after(ending="hang"), Fault.NONE, late=True, limited=True),
    "late-cut": Trouble(_whole, _after(ending="fin"), Fault.NONE, late=True),
    "late-reset": Trouble(_whole, _after(ending="rst"), Fault.NONE, late=True),
    "late-end": Trouble(_whole, _after(), Fault.NONE, late=True),
    "late-error": Trouble(_whole, _after(_ERROR_EVENT), Fault.NONE, late=True),
    "late-nonsense": Trouble(_whole, _after(b"data: {nope\n\n"), Fault.NONE, late=True),
    "429": Trouble(*_both(lambda: rate_limited(1)), Fault.RATE_LIMIT),
    "500": Trouble(*_both(lambda: error(500)), Fault.PROVIDER),
    "503": Trouble(*_both(lambda: error(503)), Fault.OVERLOAD),
    "529": Trouble(*_both(lambda: error(529)), Fault.OVERLOAD),
    "html": Trouble(*_both(lambda: html(200)), Fault.PROVIDER),
    "nonsense": Trouble(
        lambda up: answer(b'{"choices": [{'),
        lambda up: sse([b"data: {nope\n\n"], done=False),
        Fault.PROVIDER,
    ),
    "error-in-200": Trouble(*_both(lambda: answer(_ERROR_EVENT)), Fault.PROVIDER),
    "error-event": Trouble(
        lambda up: error(500), lambda up: sse([_ERROR_EVENT], done=False), Fault.PROVIDER
    ),
    "400": Trouble(
        *_both(lambda: error(400, "a caller's mistake", type="invalid_request_error")),
        Fault.CALLER,
        again=False,
    ),
}

# Without the one that may meet a limit, or may not.
_DICE = [name for name in TROUBLES if name != "trickle"]


class Seen(NamedTuple):
    """What an upstream saw of one request.

    Attributes:
        upstream: which.
        trouble: what it did.
        unseen: the gateway takes it for a connection that had been closed before, and sends it anew.
    """

    upstream: str
    trouble: str
    unseen: bool


class Chaos(FakeUpstream):
    """An upstream that treats a request as its model's name says: ``TROUBLE``, ``TROUBLE.anything``.

    ``flaky-TROUBLE`` is in trouble the first time that it sees a mark, and well afterwards; ``dice`` is
    in any trouble, by the dice.

    Args:
        name: quoted in answers.
        seen: where it notes what it saw, by mark; shared with others.
        seed: of the dice.
    """

    def __init__(self, name: str, seen: dict[str, list[Seen]], seed: int = 1) -> None:
        super().__init__()
        self.name = name
        self.seen = seen
        self.dice = random.Random(seed)
        self._connections: dict[int, Connection] = {}
        self._steps_made: dict[tuple[str, bool], Step] = {}

    def adopt(self, connection: Connection) -> int:
        number = super().adopt(connection)
        self._connections[number] = connection
        return number

    def drop(self, connection: Connection) -> None:
        super().drop(connection)
        del self._connections[connection.number]

    def take(self, record: Record) -> Step:
        mark, model, streamed = _facts(record.body)
        kind = model.partition(".")[0]
        if kind == "dice":
            kind = self.dice.choice(_DICE)
        elif kind.startswith("flaky-"):
            kind = "healthy" if mark in self.seen else kind.removeprefix("flaky-")
        records = self._connections[record.connection].records
        reused = len(records) > 1
        records[:] = [record, record]  # not all of them: they would look like a leak
        self.seen[mark].append(Seen(self.name, kind, reused and TROUBLES[kind].dropped))
        made = self._steps_made.get((kind, streamed))
        if made is None:
            trouble = TROUBLES[kind]
            made = (trouble.stream if streamed else trouble.unary)(self.name)
            self._steps_made[kind, streamed] = made
        if not isinstance(made, Answer):
            return made
        quoted = mark.encode()
        pieces = [
            piece.replace(_NO_MARK, quoted) if isinstance(piece, bytes) else piece
            for piece in made.pieces  # type: ignore[union-attr]
        ]
        return replace(made, pieces=pieces)


def _facts(body: bytes) -> tuple[str, str, bool]:
    """Mark, model and whether a stream is wanted; not parsed, to be quick."""
    mark, model = _MARK.search(body), _MODEL.search(body)
    assert mark and model, body[:200]
    return mark[0].decode(), model[1].decode(), _STREAMED.search(body) is not None


# -- callers --------------------------------------------------------------------------------------------


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
    providers are given by their settings, but for the address.
    """
    with no_complaints(*allowed):
        async with nothing_left(), AsyncExitStack() as stack:
            up = await stack.enter_async_context(FakeUpstream())
            more = "\n".join(
                f'  {name}: {{base_url: "{up.base_url}", {settings}}}'
                for name, settings in (providers or {}).items()
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


async def idle(found: Callers) -> None:
    """Waits until nothing is under way at any target."""
    board = found.app.core.setup.board
    await until(lambda: not any(each.in_flight or each.queued for each in board.all()))
    assert not found.app.core.setup.running


def marks() -> Callable[[], str]:
    """Gives out marks, each once."""
    given = 0

    def mark() -> str:
        nonlocal given
        given += 1
        return f"#{given:06}"

    return mark


def noted() -> dict[str, list[Seen]]:
    """An empty book of what upstreams saw."""
    return defaultdict(list)
