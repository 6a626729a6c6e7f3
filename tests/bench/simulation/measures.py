"""What a play comes to: shares, quantiles, curves over time. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.simulation.play import Played, Seen
from headgate_server.settlement import OK

NONE = math.nan


@dataclass(frozen=True, slots=True)
class Summary:
    """Requests of some seconds, together.

    Attributes:
        requests: how many came.
        success: the share that got an answer.
        mean, p50, p99: seconds to the whole answer, of those that got one; nan if none did.
        calls: upstream calls for each request.
    """

    requests: int
    success: float
    mean: float
    p50: float
    p99: float
    calls: float


def quantile(values: Iterable[float], share: float) -> float:
    """The nearest-rank quantile; nan of nothing."""
    ordered = sorted(values)
    if not ordered:
        return NONE
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def summary(played: Played, begin: float, end: float) -> Summary:
    """Of the requests that came within these seconds."""
    seen = played.seen_in(begin, end)
    times = _times(seen)
    return Summary(
        requests=len(seen),
        success=len(times) / len(seen) if seen else NONE,
        mean=sum(times) / len(times) if times else NONE,
        p50=quantile(times, 0.5),
        p99=quantile(times, 0.99),
        calls=played.calls_in(begin, end) / len(seen) if seen else NONE,
    )


def phase(played: Played, name: str) -> Summary:
    """Of a phase."""
    return summary(played, *played.phase(name))


def curve(played: Played, step: float) -> list[tuple[float, Summary]]:
    """A summary for each so many seconds, with the middle of them."""
    total = sum(phase.seconds for phase in played.scenario.phases)
    edges = [index * step for index in range(round(total / step))]
    return [(begin + step / 2, summary(played, begin, begin + step)) for begin in edges]


def seconds_to_recover(played: Played) -> float:
    """From the end of the trouble to the last request that failed; 0 if none did."""
    end = played.phase("trouble")[1]
    failed = [one.at for one in played.seen if one.at >= end and one.outcome != OK]
    return max(failed) - end if failed else 0.0


def seconds_to_close(played: Played) -> float:
    """From the end of the trouble until no breaker is open; nan if one still is in the end.

    A half-open one counts as closed: it takes requests, and closes when some come.
    """
    end = played.phase("trouble")[1]
    open_at = [one.at for one in played.standings if one.breaker == "OPEN" and one.at >= end]
    if not open_at:
        return 0.0
    last = max(one.at for one in played.standings)
    return NONE if max(open_at) >= last else max(open_at) + 1.0 - end


def _times(seen: Sequence[Seen]) -> list[float]:
    return [one.seconds for one in seen if one.outcome == OK]
