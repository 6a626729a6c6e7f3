"""The keys of one provider: which one a call takes, and which ones rest for now.

Owns the benches. Whether a key is benched is the executor's decision, by the fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

import msgspec

from headgate_server.faults import Fault
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
