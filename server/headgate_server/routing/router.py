"""From a request to the targets to try: names, rules and plans put together.

Asks nobody and waits for nothing: it decides over the state of the targets (`headgate_server.health`),
the clock and the dice. A new configuration gets a new router.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from headgate.core import CallContext
from headgate.errors import ModelNotFound
from headgate.v1 import chat_pb2
from headgate_server.auth import Caller
from headgate_server.config import Config
from headgate_server.estimate import estimate_tokens
from headgate_server.prices import Prices, Rates
from headgate_server.providers.base import Target
from headgate_server.providers.runtime import Provider
from headgate_server.routing.abilities import lacks
from headgate_server.routing.names import Names
from headgate_server.routing.plan import plan
from headgate_server.routing.routes import Maker, Plan, Route
from headgate_server.routing.rules import Asked, decide, rules_of
from headgate_server.routing.strategies import Look

if TYPE_CHECKING:
    from headgate_server.health import Board

ChainKind = Literal["general", "on_context_window", "on_content_policy"]


class Router:
    """Decides where requests go.

    Args:
        config: the models and the rules.
        providers: the providers, by name.
        board: how the targets are.
        prices: the price list, for the strategy cost; see `needs_prices`.
        natural_homes: whether a bare name such as ``gpt-5.4`` finds the configured vendor that it
            comes from; of several, the one that says it most exactly. So it is without a configuration
            file; a file lists its models itself.
        dice: returns a number from 0 to 1.

    Attributes:
        routes: the configured models, by name; those whose name is a glob are not among them.
        needs_prices: whether a strategy compares prices, so that the list should be loaded.
    """

    def __init__(
        self,
        config: Config,
        providers: Mapping[str, Provider],
        board: Board,
        *,
        prices: Prices | None = None,
        natural_homes: bool = False,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._prices = prices
        self._dice = dice
        maker = Maker(config, providers, board)
        self._names = Names(config, providers, maker, natural_homes=natural_homes)
        self.routes = self._names.routes
        self._rules = rules_of(config.routes, self._names.route)
        self.needs_prices = any(model.strategy == "cost" for model in config.models.values())
        self._tokens = _Estimates()

    def route(self, model: str) -> Route:
        """The route of a configured name, an alias, ``provider/model``, or a name that a glob matches.

        Raises `ModelNotFound`.
        """
        return self._names.route(model)

    def canonical(self, model: str) -> str:
        """The configured name behind an alias; any other name as it is."""
        try:
            return self._names.route(model).name
        except ModelNotFound:
            return model

    def resolve(
        self,
        request: chat_pb2.ChatRequest,
        context: CallContext,
        caller: Caller,
        notes: list[str] | None = None,
    ) -> tuple[Route, Route | None]:
        """The model that serves a request, and the one that gets a copy. Raises `ModelNotFound`.

        Args:
            request: what is asked.
            context: what belongs to it besides.
            caller: who asks.
            notes: gets a line for every alias and rule that had a say.
        """
        found: Route | None = None
        shadow: Route | None = None
        if self._rules:
            asked = Asked(request, context, caller, self._tokens)
            found, shadow = decide(self._rules, asked, self._dice, notes)
        if found is None:
            found = self._names.route(request.model)
            if notes is not None and found.name != request.model:
                notes.append(f"{request.model!r} is an alias of {found.name!r}")
        return found, shadow

    def plan(
        self,
        route: Route,
        request: chat_pb2.ChatRequest,
        context: CallContext,
        caller: Caller,
        now: float,
    ) -> Plan:
        """Which targets of a route to try for a request, in order, and which ones not.

        Args:
            route: from `resolve` or `chain`.
            request: what is asked.
            context: what belongs to it besides.
            caller: who asks.
            now: seconds, on the clock of the board.
        """
        candidates = route.candidates
        for candidate in candidates:
            if not (candidate.health.calm and candidate.has_keys(now)):
                return plan(route, self.look(request, context, now))
        if route.chooser is None:
            return route.plain
        return Plan(route.chooser.order(candidates, self.look(request, context, now)))

    def chain(self, route: Route, kind: ChainKind) -> Sequence[Route]:
        """The models to try behind a route, in order. Raises `ModelNotFound`."""
        if route.settings is None:
            return ()
        names = route.fallbacks if kind == "general" else getattr(route, kind)
        return [self._names.route(name) for name in names]

    def lacks(self, route: Route, request: chat_pb2.ChatRequest) -> str:
        """Why a route cannot take a request, such as "takes no image input"; empty if it can."""
        return lacks(route, request, self._prices, self._tokens)

    def look(self, request: chat_pb2.ChatRequest, context: CallContext, now: float) -> Look:
        """What strategies see of a request."""
        return Look(request, context, now, self._dice, self._tokens, self._rates)

    def tokens(self, request: chat_pb2.ChatRequest) -> int:
        """The estimate of the prompt's tokens that conditions, prices and capability checks use."""
        return self._tokens(request)

    def _rates(self, target: Target, now: float) -> Rates | None:
        return self._prices.rates(target, now) if self._prices is not None else None


class _Estimates:
    """Estimates the tokens of a request once, though rules, prices and fallbacks all ask.

    Remembers the last request alone: whoever asks, asks in the same breath.
    """

    __slots__ = ("_last", "_tokens")

    def __init__(self) -> None:
        self._last: chat_pb2.ChatRequest | None = None
        self._tokens = 0

    def __call__(self, request: chat_pb2.ChatRequest) -> int:
        if request is not self._last:
            self._tokens = estimate_tokens(request)
            self._last = request
        return self._tokens
