"""What a public model is to the gateway: its candidates, in a form that plans are quickly made of.

Owns the values. How a name finds its route is `names`, who comes first is `strategies`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from headgate.v1 import model_service_pb2
from headgate_server.config import Config, ModelRoute, TimeoutOverrides
from headgate_server.config import Target as TargetSettings
from headgate_server.globs import fill
from headgate_server.providers.base import Target, Timeouts
from headgate_server.providers.runtime import Provider
from headgate_server.providers.vendors import family_of
from headgate_server.routing.strategies import Strategy, strategy_of

if TYPE_CHECKING:
    from headgate_server.health import Board, TargetHealth

_LIMITS = ("connect", "first_byte", "first_token", "idle", "total")


class Candidate(msgspec.Struct, frozen=True, eq=False):
    """A target that may be tried.

    Attributes:
        target: where.
        health: how it is; shared by all routes that have the target.
        provider: who makes the attempt.
    """

    target: Target
    health: TargetHealth
    provider: Provider

    def has_keys(self, now: float) -> bool:
        """Whether the provider has a key that does not rest, or needs none."""
        keyring = self.provider.keyring
        return keyring is None or keyring.ready(self.target.model, now)


class LeftOut(NamedTuple):
    """A candidate that is not to be tried, and why, in words."""

    candidate: Candidate
    reason: str


class Plan(msgspec.Struct, frozen=True, eq=False):
    """Which targets to try.

    Attributes:
        candidates: in this order.
        left_out: those of the route that are not among them.
        last_resort: nothing speaks for the one candidate; but for every other there is no more.
    """

    candidates: Sequence[Candidate]
    left_out: Sequence[LeftOut] = ()
    last_resort: bool = False


class Route:
    """A public model.

    Args:
        name: the public name; of a glob, the name that was asked for.
        candidates: in the order of the configuration, at least one.
        settings: the configuration behind it; None for a target addressed directly.

    Attributes:
        targets: of the candidates.
        strategy: who decides about their order; `chooser` does it.
        fallbacks, on_context_window, on_content_policy: public names to try behind the targets.
        plain: the plan in which all stand as they were written.
        facts: what `catalog.describe` has found out without prices; None before somebody asked.
    """

    __slots__ = ("candidates", "chooser", "facts", "name", "plain", "settings", "targets")

    def __init__(
        self, name: str, candidates: Sequence[Candidate], settings: ModelRoute | None = None
    ) -> None:
        self.name = name
        self.candidates = tuple(candidates)
        self.targets = tuple(candidate.target for candidate in candidates)
        self.settings = settings
        self.chooser: Strategy | None = None
        if len(self.candidates) > 1 and settings is not None and settings.strategy != "priority":
            self.chooser = strategy_of(settings)
        self.plain = Plan(self.candidates)
        self.facts: model_service_pb2.Model | None = None

    @property
    def strategy(self) -> str:
        """Its name."""
        return self.settings.strategy if self.settings is not None else "priority"

    @property
    def fallbacks(self) -> Sequence[str]:
        """For every other failure."""
        return self.settings.fallbacks if self.settings is not None else ()

    @property
    def on_context_window(self) -> Sequence[str]:
        """When the prompt is too long."""
        return self.settings.on_context_window if self.settings is not None else ()

    @property
    def on_content_policy(self) -> Sequence[str]:
        """When a content policy refuses."""
        return self.settings.on_content_policy if self.settings is not None else ()


class Maker:
    """Makes routes.

    Args:
        config: the wider settings.
        providers: by name.
        board: knows how the targets are.
    """

    def __init__(self, config: Config, providers: Mapping[str, Provider], board: Board) -> None:
        self._config = config
        self._providers = providers
        self._board = board

    def configured(self, name: str, settings: ModelRoute, stars: Sequence[str] = ()) -> Route:
        """A model of the configuration.

        Args:
            name: its public name; of a glob, the name that was asked for.
            settings: the configuration.
            stars: what the glob's stars stand for; put in the place of those of upstream names.
        """
        candidates = [
            self._candidate(
                self._providers[entry.provider],
                fill(entry.model, stars) if entry.model else name,
                settings,
                entry,
            )
            for entry in settings.targets
        ]
        if len(candidates) > 1:
            self._board.peers(name, [each.health for each in candidates])
        return Route(name, candidates, settings)

    def direct(self, name: str, provider: Provider, model: str) -> Route:
        """A target that is addressed directly."""
        return Route(name, [self._candidate(provider, model)])

    def _candidate(
        self,
        provider: Provider,
        model: str,
        settings: ModelRoute | None = None,
        entry: TargetSettings | None = None,
    ) -> Candidate:
        target = Target(
            provider=provider.name,
            kind=provider.kind,
            model=model,
            vendor=provider.vendor,
            family=family_of(model),
            api_version=provider.api_version,
        )
        if settings is not None and entry is not None:
            told = settings.catalog.price if settings.catalog is not None else None
            target = dataclasses.replace(
                target,
                policy=settings.unsupported,
                timeouts=self._timeouts(provider.name, settings.timeouts),
                weight=entry.weight,
                price=entry.price or told,
                concurrency=entry.concurrency,
            )
        return Candidate(target, self._board.target(target), provider)

    def _timeouts(self, provider: str, own: TimeoutOverrides | None) -> Timeouts | None:
        """The limits of a model that has some of its own; the rest is as at its provider."""
        if own is None:
            return None
        providers = self._config.providers[provider].timeouts
        narrowest_first = [each for each in (own, providers) if each is not None]
        return Timeouts(**{
            limit: next(
                (found for each in narrowest_first if (found := getattr(each, limit)) is not None),
                getattr(self._config.timeouts, limit),
            )
            for limit in _LIMITS
        })  # fmt: skip
