"""Plays a scenario with the gateway's own router, health and executor, and keeps what callers saw.

Owns the arrivals (an open loop: callers do not wait for each other, so a slow gateway gets no fewer
requests) and the change of the weather. What a decision is, the gateway alone knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from bench.simulation import virtual
from bench.simulation.scenarios import Phase, Scenario
from bench.simulation.world import FAIR, SimulatedProvider
from headgate.core import CallContext
from headgate.errors import GatewayError, reason_name
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.auth import ANYBODY
from headgate_server.call import Call
from headgate_server.config import Config, parse_config
from headgate_server.execute import Executor
from headgate_server.health import Board
from headgate_server.providers import kinds
from headgate_server.providers.base import Timeouts
from headgate_server.routing import STRATEGIES, Router
from headgate_server.settlement import OK, Settlement

MODEL = "m"
_USERS = 200  # of affinity
_STREAMED = 0.5  # share of requests


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as its caller saw it.

    Attributes:
        at: when it came, in seconds from the beginning.
        seconds: until the whole answer or the error.
        outcome: ``OK``, or the reason of the error.
        target: the last one that was tried.
        attempts: upstream calls.
    """

    at: float
    seconds: float
    outcome: str
    target: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Standings:
    """A target, at a moment: its name, what its breaker does, and its calls."""

    at: float
    target: str
    breaker: str
    in_flight: int


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario that has been played with one strategy.

    Attributes:
        seen: the requests, in the order of their arrival.
        calls: when each target was called, in seconds from the beginning.
        limited: when each target's rate limit refused a call.
        standings: of every target, once a second.
        left_over: calls, places and tasks that nobody gave back.
    """

    scenario: Scenario
    strategy: str
    seen: Sequence[Seen]
    calls: dict[str, list[float]]
    limited: dict[str, list[float]]
    standings: Sequence[Standings]
    left_over: int

    def phase(self, name: str) -> tuple[float, float]:
        """From when to when a phase lasts."""
        begin = 0.0
        for phase in self.scenario.phases:
            if phase.name == name:
                return begin, begin + phase.seconds
            begin += phase.seconds
        raise KeyError(name)

    def seen_in(self, begin: float, end: float) -> list[Seen]:
        """The requests that came within these seconds."""
        return [one for one in self.seen if begin <= one.at < end]

    def calls_in(self, begin: float, end: float, target: str | None = None) -> int:
        """The upstream calls that were begun within these seconds."""
        chosen = self.calls.values() if target is None else [self.calls[target]]
        return sum(begin <= at < end for calls in chosen for at in calls)


def play(scenario: Scenario, strategy: str, seed: int = 1) -> Played:
    """Plays it from the first to the last request. The same arguments give the same numbers."""
    return virtual.run(_Stage(scenario, strategy, seed).play())


def config_of(scenario: Scenario, strategy: str) -> Config:
    """The gateway's configuration: one model on all of the scenario's targets."""
    providers = "\n".join(
        f'  {site.name}: {{kind: openai, base_url: "http://{site.name}.invalid"}}'
        for site in scenario.sites
    )
    targets = ", ".join(
        f"{{provider: {site.name}, price: {{input: {site.price}, output: {site.price}}}}}"
        for site in scenario.sites
    )
    affinity = ["affinity: {by: user}"] if strategy == "affinity" else []
    own = ", ".join([f"strategy: {strategy}", *affinity, *filter(None, [scenario.model])])
    text = f"""
providers:
{providers}
models:
  {MODEL}: {{{own}, targets: [{targets}]}}
{scenario.settings}
"""
    return parse_config(text, scenario.name, kinds=kinds(), strategies=STRATEGIES, env={})


class _Stage:
    def __init__(self, scenario: Scenario, strategy: str, seed: int) -> None:
        self._scenario = scenario
        self._strategy = strategy
        self._seed = seed
        self._seen: list[Seen] = []
        self._standings: list[Standings] = []

    async def play(self) -> Played:
        scenario, loop = self._scenario, asyncio.get_running_loop()
        config = config_of(scenario, self._strategy)
        limits = Timeouts(**config.timeouts.model_dump())
        self._providers = {
            site.name: SimulatedProvider(site, limits, f"{self._seed} {site.name}")
            for site in scenario.sites
        }
        dice = Random(f"{self._seed} gateway").random
        self._clock = loop.time
        self._board = Board(config)
        self._router = Router(config, self._providers, self._board, dice=dice)
        self._executor = Executor(self._router, self._board, config, clock=self._clock, dice=dice)
        self._begin = loop.time()
        random = Random(f"{self._seed} callers")
        watch = asyncio.create_task(self._watch())
        async with asyncio.TaskGroup() as requests:
            for at, phase in _arrivals(scenario.phases, self._seed):
                await self._until(at)
                self._weather(phase)
                user, streamed = random.randrange(_USERS), random.random() < _STREAMED
                requests.create_task(self._request(at, f"user-{user}", streamed))
        watch.cancel()
        await asyncio.wait([watch])
        return Played(
            scenario,
            self._strategy,
            sorted(self._seen, key=lambda one: one.at),
            {name: self._since(each.begun) for name, each in self._providers.items()},
            {name: self._since(each.limited) for name, each in self._providers.items()},
            self._standings,
            self._left_over(),
        )

    async def _request(self, at: float, user: str, streamed: bool) -> None:
        """One caller."""
        request = chat_pb2.ChatRequest(model=MODEL, user=user)
        request.messages.add(role=content_pb2.ROLE_USER).parts.add().text = "Hello?"
        context = CallContext(
            request_id=f"{at}", deadline=self._begin + at + self._scenario.patience
        )
        route, shadow = self._router.resolve(request, context, ANYBODY)
        call = Call(request, context, ANYBODY, route, shadow)
        record = Settlement(context.request_id, MODEL, streamed)
        outcome = OK
        try:
            if streamed:
                async for _ in self._executor.stream(call, record):
                    pass
            else:
                await self._executor.complete(call, record)
        except GatewayError as error:
            outcome = reason_name(error)
        seconds = self._clock() - self._begin - at
        self._seen.append(Seen(at, seconds, outcome, record.provider, record.attempts))

    def _since(self, moments: Sequence[float]) -> list[float]:
        return [moment - self._begin for moment in moments]

    async def _until(self, at: float) -> None:
        wait = self._begin + at - self._clock()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _watch(self) -> None:
        while True:
            now = self._clock()
            for health in self._board.all():
                at, breaker = now - self._begin, health.breaker(now)[0].name
                self._standings.append(Standings(at, health.provider, breaker, health.in_flight))
            await asyncio.sleep(1.0)

    def _weather(self, phase: Phase) -> None:
        for name, provider in self._providers.items():
            provider.weather = phase.weather.get(name, FAIR)

    def _left_over(self) -> int:
        places = sum(health.in_flight + health.queued for health in self._board.all())
        calls = sum(provider.open for provider in self._providers.values())
        return places + calls + len(asyncio.all_tasks()) - 1


def _arrivals(phases: Sequence[Phase], seed: int) -> Iterator[tuple[float, Phase]]:
    """When requests come (Poisson), and in which phase; the same for every strategy."""
    random = Random(f"{seed} arrivals")
    begin = 0.0
    for phase in phases:
        at = begin + random.expovariate(phase.rate)
        while at < begin + phase.seconds:
            yield at, phase
            at += random.expovariate(phase.rate)
        begin += phase.seconds
