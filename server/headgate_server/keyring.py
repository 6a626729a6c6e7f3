"""The keys of one provider: which one a call takes, and which ones rest for now.

Owns the benches. Whether a key is benched is the executor's decision, by the fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from headgate.errors import GatewayError, RateLimited, UpstreamRejectedUs
from headgate_server.faults import Fault

if TYPE_CHECKING:  # providers make keyrings
    from headgate_server.providers.base import Endpoint


class Key(msgspec.Struct, frozen=True, eq=False):
    """One credential.

    Attributes:
        name: for logs and answers; never the key itself.
        weight: its share of calls; 0 is taken only when no other is left.
        endpoint: the provider's address with this key in its headers.
    """

    name: str
    weight: float
    endpoint: Endpoint


class Bench(msgspec.Struct, frozen=True):
    """Why and for how long a key rests.

    Attributes:
        key: which one.
        fault: what it did.
        until: on the executor's clock.
        model: the upstream model that it rests for; empty for all.
    """

    key: Key
    fault: Fault
    until: float
    model: str = ""


class Keyring:
    """The keys of one provider. One that is alone is never refused: only a call tells whether it works.

    Args:
        keys: at least one.
        dice: returns a number from 0 to 1.
    """

    def __init__(self, keys: Sequence[Key], dice: Callable[[], float] = random.random) -> None:
        self.keys = tuple(keys)
        self._dice = dice
        self._benches: dict[tuple[Key, str], Bench] = {}
        self._strikes: dict[Key, int] = {}

    def pick(self, model: str, now: float, tried: Collection[Key] = ()) -> Key | None:
        """A key for a call to the model, by weight; None if all others rest or were tried.

        A key that rests for its rate limit alone is better than none, if it was not tried yet.
        """
        keys = self.keys
        if len(keys) == 1:
            return None if keys[0] in tried else keys[0]
        if not self._benches and not tried:
            return self._draw(keys)
        fresh = [key for key in keys if key not in tried]
        ready = [key for key in fresh if self._resting(key, model, now) is None]
        if ready:
            return self._draw(ready)
        slow = [
            key
            for key in fresh
            if (bench := self._resting(key, model, now)) and bench.fault is Fault.RATE_LIMIT
        ]
        return self._draw(slow) if slow else None

    def bench(self, key: Key, fault: Fault, until: float, *, model: str = "") -> None:
        """Lets a key rest until then (the executor's clock); the later end counts."""
        known = self._benches.get((key, model))
        if known is None or known.until < until:
            self._benches[key, model] = Bench(key, fault, until, model)

    def strike(self, key: Key) -> int:
        """Counts a rate limit of the key; returns how many there were in a row before this one."""
        before = self._strikes.get(key, 0)
        self._strikes[key] = before + 1
        return before

    def worked(self, key: Key) -> None:
        """The key was accepted."""
        if self._strikes:
            self._strikes.pop(key, None)

    def ready(self, model: str, now: float) -> bool:
        """Whether some key does not rest."""
        if not self._benches:
            return True
        return any(self._resting(key, model, now) is None for key in self.keys)

    def benches(self, now: float) -> list[Bench]:
        """The benches that last."""
        self._tidy(now)
        return list(self._benches.values())

    def _resting(self, key: Key, model: str, now: float) -> Bench | None:
        for where in ("", model):
            bench = self._benches.get((key, where))
            if bench is not None:
                if bench.until > now:
                    return bench
                del self._benches[key, where]
        return None

    def _tidy(self, now: float) -> None:
        for place in [place for place, bench in self._benches.items() if bench.until <= now]:
            del self._benches[place]

    def _draw(self, keys: Sequence[Key]) -> Key:
        if len(keys) == 1:
            return keys[0]
        total = sum(key.weight for key in keys)
        if total <= 0:
            return keys[int(self._dice() * len(keys)) % len(keys)]
        left = self._dice() * total
        for key in keys:
            left -= key.weight
            if left < 0:
                return key
        return max(keys, key=lambda key: key.weight)


def all_benched(rings: Mapping[str, Keyring], now: float) -> GatewayError | None:
    """The error of providers, by name, none of whose keys is left; None if their keys do not rest."""
    benches = {name: found for name, ring in rings.items() if (found := ring.benches(now))}
    if not benches:
        return None
    told = []
    for name, found in benches.items():
        faults = ", ".join(f"{bench.key.name}: {bench.fault.name}" for bench in found)
        told.append(f"all {len(rings[name].keys)} keys of provider {name!r} are benched ({faults})")
    every = [bench for found in benches.values() for bench in found]
    soonest = min(bench.until for bench in every) - now
    limits = all(bench.fault is Fault.RATE_LIMIT for bench in every)
    kind = RateLimited if limits else UpstreamRejectedUs
    return kind(
        f"{'; '.join(told)}; the first is used again in {soonest:.0f} s", retry_after=soonest
    )
