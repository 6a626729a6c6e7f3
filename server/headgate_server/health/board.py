"""All targets' health, and the retry budgets of providers. Owns who is compared with whom, and when.

Must not choose targets for calls.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from headgate_server.config import Concurrency, Config
from headgate_server.health.breaker import Position
from headgate_server.health.budget import RetryBudget
from headgate_server.health.outliers import outlying
from headgate_server.health.target import TargetHealth
from headgate_server.providers.base import Target

# Callers may address any model of a provider: so many targets that no public model names are remembered.
MAX_UNLISTED = 1024

_Place = tuple[str, str]  # a provider and a model there


class Board:
    """One for a configuration; a new configuration gets a new one, which adopts what stays the same.

    Args:
        config: what is enabled, and how patient.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        # What the targets of public models say about concurrency. Where several models share a target,
        # the first that says something.
        self._listed: dict[_Place, Concurrency | None] = {}
        for name, model in config.models.items():
            for target in model.targets:
                place = target.provider, target.model or name
                self._listed[place] = self._listed.get(place) or target.concurrency
        self._targets: dict[_Place, TargetHealth] = {}
        self._unlisted: OrderedDict[_Place, TargetHealth] = OrderedDict()
        self._budgets: dict[str, RetryBudget] = {}
        self._old_targets: dict[_Place, TargetHealth] = {}
        self._peers: dict[str, Sequence[TargetHealth]] = {}
        self._unlisted_peers: OrderedDict[str, Sequence[TargetHealth]] = OrderedDict()
        self._next_look = -math.inf if config.outliers.enabled else math.inf

    def target(self, target: Target) -> TargetHealth:
        """The health of a target, the same for the same provider and model; made at the first use.

        Of those that no public model names, the ones that were not used for longest are forgotten.
        """
        place = target.provider, target.model
        found = self._targets.get(place)
        if found is not None:
            return found
        if place in self._listed:
            found = self._targets[place] = self._make(place, target)
            return found
        found = self._unlisted.get(place)
        if found is not None:
            self._unlisted.move_to_end(place)
            return found
        while len(self._unlisted) >= MAX_UNLISTED:
            del self._unlisted[self._idle()]
        found = self._unlisted[place] = self._make(place, target)
        return found

    def budget(self, provider: str) -> RetryBudget:
        """The retry budget of a configured provider."""
        found = self._budgets.get(provider)
        if found is None:
            found = self._budgets[provider] = RetryBudget(self._config.retries)
        return found

    def peers(self, route: str, targets: Sequence[TargetHealth]) -> None:
        """Says that these serve one public model, and are to be compared with each other."""
        peers = tuple(dict.fromkeys(targets))
        if len(peers) < 2:
            return
        if route in self._config.models:
            self._peers[route] = peers
            return
        self._unlisted_peers[route] = peers  # an instance of a glob
        self._unlisted_peers.move_to_end(route)
        if len(self._unlisted_peers) > MAX_UNLISTED:
            self._unlisted_peers.popitem(last=False)

    def look(self, now: float) -> None:
        """Compares peers, and ejects the outliers among them; once in an interval."""
        if now < self._next_look:
            return
        settings = self._config.outliers
        self._next_look = now + settings.interval
        groups = [*self._peers.values(), *self._unlisted_peers.values()]
        kept: set[TargetHealth] = set()
        for group in groups:
            compared = [
                peer
                for peer in group
                if not _out(peer, now) and peer.window_calls(now) >= settings.min_requests
            ]
            rates = [(1 - peer.error_rate(now), peer.window_calls(now)) for peer in compared]
            worst = [compared[place] for place in outlying(rates, settings.deviations)]
            for peer in worst:
                if all(self._spares(each, now) for each in groups if peer in each):
                    peer.eject(settings.eject_for, now)
            if len(compared) > 1:
                kept.update(peer for peer in compared if peer not in worst)
        for peer in kept:
            if not peer.ejected_for(now):
                peer.keep()

    def all(self) -> list[TargetHealth]:
        """Every target that was used, those of public models first."""
        return [*self._targets.values(), *self._unlisted.values()]

    def adopt(self, older: Board) -> None:
        """Takes over what an older board knows, for targets and providers with the same settings.

        Both boards share these from now on, so that calls of the old configuration still count. To be
        called before anything is asked of this board.

        Raises:
            RuntimeError: it has given out targets of its own already.
        """
        if self._targets or self._unlisted or self._budgets:
            msg = "a board adopts another one before it is used"
            raise RuntimeError(msg)
        self._old_targets = {**older._unlisted, **older._targets}
        self._budgets = {
            provider: budget
            for provider, budget in older._budgets.items()
            if provider in self._config.providers and budget.same(self._config.retries)
        }

    def _make(self, place: _Place, target: Target) -> TargetHealth:
        config = self._config
        provider = config.providers.get(target.provider)
        concurrency = (
            target.concurrency
            or self._listed.get(place)
            or (provider.concurrency if provider is not None else None)
            or config.concurrency
        )
        made = TargetHealth(
            target.provider, target.model, config.breaker, concurrency, origin=provider
        )
        old = self._old_targets.pop(place, None)
        return old if old is not None and made.alike(old) else made

    def _spares(self, group: Sequence[TargetHealth], now: float) -> bool:
        """Whether one more of a group may be ejected: never the last."""
        out = sum(_out(peer, now) for peer in group)
        return out + 1 <= min(self._config.outliers.max_share * len(group), len(group) - 1)

    def _idle(self) -> _Place:
        """The least recently used target without calls; the least recently used if all have some."""
        for place, health in self._unlisted.items():
            if not health.in_flight and not health.queued:
                return place
        return next(iter(self._unlisted))


def _out(peer: TargetHealth, now: float) -> bool:
    return peer.ejected_for(now) > 0 or peer.breaker(now)[0] is not Position.CLOSED
