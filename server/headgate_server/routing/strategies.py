"""Who comes first: one strategy each. Pure over the state of the targets, the clock and the dice.

Owns the orders. Which candidates are to be ordered at all is `plan`'s business; a strategy gives back
all that it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from headgate.core import CallContext
from headgate.v1 import chat_pb2
from headgate_server.config import Affinity, ModelRoute
from headgate_server.prices import Rates
from headgate_server.providers.base import Target
from headgate_server.routing.affinity import key_of, ranked

if TYPE_CHECKING:
    from headgate_server.routing.routes import Candidate

# What an answer is taken to be long, for comparing prices, where the request sets no limit.
_USUAL_ANSWER_TOKENS = 500


class Look(msgspec.Struct, frozen=True, eq=False):
    """What a strategy may look at.

    Attributes:
        request, context: of the call.
        now: seconds, on the clock of the targets' health.
        dice: returns a number from 0 to 1.
        tokens: estimates those of the prompt.
        rates: what a target takes, if that is known.
    """

    request: chat_pb2.ChatRequest
    context: CallContext
    now: float
    dice: Callable[[], float]
    tokens: Callable[[chat_pb2.ChatRequest], int]
    rates: Callable[[Target, float], Rates | None]


class Strategy(Protocol):
    """An order of candidates."""

    def order(self, candidates: Sequence[Candidate], look: Look) -> Sequence[Candidate]:
        """All candidates, the one to try first in front."""
        ...

    def why(self, candidate: Candidate, place: int, of: Sequence[Candidate], look: Look) -> str:
        """Why a candidate stands in that place (from 0) among these, in words."""
        ...


class Priority:
    """As they are written."""

    def order(self, candidates: Sequence[Candidate], look: Look) -> Sequence[Candidate]:
        """No other order."""
        return candidates

    def why(self, candidate: Candidate, place: int, of: Sequence[Candidate], look: Look) -> str:
        """Its place among all targets of the model."""
        number = next(n for n, each in enumerate(of, 1) if each is candidate)
        return f"number {number} of {len(of)} in the order written"


class Weighted:
    """At random, by weight: a target with twice the weight is first twice as often."""

    def order(self, candidates: Sequence[Candidate], look: Look) -> Sequence[Candidate]:
        """Weighted sampling without replacement; those without a weight last."""
        # Efraimidis and Spirakis (2006): the largest of dice^(1/weight) comes first with a probability
        # in proportion to its weight, the second likewise among the rest, and so on.
        dice = look.dice
        drawn = [
            dice() ** (1 / weight) if (weight := each.target.weight) > 0 else -1.0
            for each in candidates
        ]
        return _sorted(candidates, [-number for number in drawn])

    def why(self, candidate: Candidate, place: int, of: Sequence[Candidate], look: Look) -> str:
        """Its weight, and that of all."""
        total = sum(each.target.weight for each in of)
        return f"weight {candidate.target.weight:g} of {total:g}"


class LeastBusy:
    """The fewest calls in flight first; between equals at random."""

    def order(self, candidates: Sequence[Candidate], look: Look) -> Sequence[Candidate]:
        """By calls in flight."""
        dice = look.dice
        return _sorted(candidates, [(each.health.in_flight, dice()) for each in candidates])

    def why(self, candidate: Candidate, place: int, of: Sequence[Candidate], look: Look) -> str:
        """Its calls in flight."""
        return f"{candidate.health.in_flight} in flight"


class Latency:
    """Power of two choices: of two that are drawn, the one that answers sooner; the others by latency.

    Always to take the quickest would send everything to whoever looked quick a moment ago
    (https://www.eecs.harvard.edu/~michaelm/postscripts/handbook2001.pdf).
    """

    def order(self, candidates: Sequence[Candidate], look: Look) -> Sequence[Candidate]:
        """By the cost that health tells, but for the first place."""
        now, dice, count = look.now, look.dice, len(candidates)
        costs = [each.health.cost(now) for each in candidates]
        one = min(int(dice() * count), count - 1)
        other = min(int(dice() * (count - 1)), count - 2)
        if other >= one:
            other += 1
        first = one if costs[one] <= costs[other] else other
        rest = [place for place in range(count) if place != first]
        if count > 2:
            rest.sort(key=costs.__getitem__)
        return [candidates[first], *[candidates[place] for place in rest]]

    def why(self, candidate: Candidate, place: int, of: Sequence[Candidate], look: Look) -> str:
        """Its cost: seconds, for the calls that it has already and this one."""
        drawn = ", the better of two that were drawn" if place == 0 and len(of) > 1 else ""
        return f"cost {candidate.health.cost(look.now):.3f} s{drawn}"


class Cost:
    """The cheapest for this request; between equals at random; unknown prices last, as written."""

    def order(self, candidates: Sequence[Candidate], look: Look) -> Sequence[Candidate]:
        """By price."""
        dice = look.dice
        prices = [self._price(each.target, look) for each in candidates]
        return _sorted(
            candidates,
            [
                (1, place, 0.0) if price is None else (0, price, dice())
                for place, price in enumerate(prices)
            ],
        )

    def why(self, candidate: Candidate, place: int, of: Sequence[Candidate], look: Look) -> str:
        """The price of this request."""
        price = self._price(candidate.target, look)
        return "no known price" if price is None else f"USD {price:.2g}"

    def _price(self, target: Target, look: Look) -> float | None:
        own = target.price
        rates = Rates(own.input, own.output) if own is not None else look.rates(target, look.now)
        if rates is None:
            return None
        request = look.request
        written = request.max_completion_tokens or request.max_tokens or _USUAL_ANSWER_TOKENS
        return (look.tokens(request) * rates.input + written * rates.output) / 1e6


class Affine:
    """The same target for the same key, unless it is much busier than the others.

    Weighted rendezvous hashing with bounded load. A request without a key goes to the least busy.

    Args:
        settings: what the key is, and how large the bound.
    """

    def __init__(self, settings: Affinity) -> None:
        self._settings = settings
        self._keyless = LeastBusy()

    def order(self, candidates: Sequence[Candidate], look: Look) -> Sequence[Candidate]:
        """By the hash of key and target."""
        key = key_of(look.request, look.context, self._settings)
        if not key:
            return self._keyless.order(candidates, look)
        return ranked(key, candidates, self._settings.load)

    def why(self, candidate: Candidate, place: int, of: Sequence[Candidate], look: Look) -> str:
        """What was hashed."""
        by = self._settings.by
        if not key_of(look.request, look.context, self._settings):
            return f"{candidate.health.in_flight} in flight, the request has no {by}"
        return f"hash of {by}, {candidate.health.in_flight} in flight"


_BY_NAME: Mapping[str, Callable[[], Strategy]] = {
    "priority": Priority,
    "weighted": Weighted,
    "least_busy": LeastBusy,
    "latency": Latency,
    "cost": Cost,
}
# What the configuration may name.
STRATEGIES = (*_BY_NAME, "affinity")


def strategy_of(settings: ModelRoute) -> Strategy:
    """The strategy of a configured model."""
    if settings.strategy == "affinity":
        return Affine(settings.affinity or Affinity())
    return _BY_NAME[settings.strategy]()


def _sorted(
    candidates: Sequence[Candidate], keys: Sequence[float] | Sequence[tuple[float, ...]]
) -> list[Candidate]:
    """The candidates by their keys, the smallest first; equals stay in order."""
    return [candidates[place] for place in sorted(range(len(candidates)), key=keys.__getitem__)]
