"""Which of a model's targets fail much more often than the others. Pure.

Owns the comparison; for how long a target is ejected, and how many may be, is the board's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Who does better than this much below the mean, times `deviations`, is good enough however alike the
# others are: five of a hundred requests.
_LEAST_DEVIATION = 0.05


def outlying(rates: Sequence[tuple[float, int]], deviations: float) -> list[int]:
    """The positions of those that are too bad, the worst first.

    Envoy's outlier detection by success rate (envoyproxy.io, "Outlier detection"): below the mean by
    more than so many standard deviations. Two things differ, since Envoy compares hosts by the dozen and
    asks for at least five, while a model has two or three targets. Of n values, none is further from
    their mean than sqrt(n - 1) deviations, so that with the usual 1.9 no one of four could ever be
    ejected: so each is compared to the mean and the deviation of the others. And a deviation is never
    less than 0.05, nor less than what chance makes of so many requests: that is what two targets must
    differ by.

    As with Envoy, several that are equally bad hide one another. That is what breakers are for.

    Args:
        rates: the share of successes, 0 to 1, and the number of requests, of each that had enough.
        deviations: how many standard deviations.
    """
    if len(rates) < 2:
        return []
    found = []
    for place, (rate, requests) in enumerate(rates):
        others = [each for at, (each, _) in enumerate(rates) if at != place]
        mean = sum(others) / len(others)
        spread = math.sqrt(sum((each - mean) ** 2 for each in others) / len(others))
        chance = math.sqrt(mean * (1 - mean) / requests)
        if rate < mean - deviations * max(spread, chance, _LEAST_DEVIATION):
            found.append(place)
    return sorted(found, key=lambda place: rates[place][0])
