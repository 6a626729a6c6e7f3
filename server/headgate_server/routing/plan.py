"""Which candidates of a route are to be tried now, and why the others are not. Pure.

Owns who is left out; in which order the rest stands is the strategy's business.
"""

from __future__ import annotations

from collections.abc import Sequence

from headgate_server.health import Standing
from headgate_server.routing.routes import Candidate, LeftOut, Plan, Route
from headgate_server.routing.strategies import Look


def plan(route: Route, look: Look) -> Plan:
    """The candidates in the order to try them: those with a free place, then those that are full.

    If breakers, ejections and pauses leave nobody, one of them is tried all the same: it may have
    recovered, and the caller has nothing to lose. The dice decide which, whatever the strategy: always
    the same one would not show that another has recovered. If keys leave nobody, nobody is tried.
    """
    now = look.now
    ready: list[Candidate] = []
    full: list[Candidate] = []
    left_out: list[LeftOut] = []
    for candidate in route.candidates:
        health = candidate.health
        standing = Standing.READY if health.calm else health.standing(now)
        if standing > Standing.FULL or not candidate.has_keys(now):
            left_out.append(LeftOut(candidate, why_not(candidate, now)))
        else:
            (full if standing is Standing.FULL else ready).append(candidate)
    if not ready and not full:
        return _last_resort(route, look, left_out)
    return Plan((*_ordered(route, ready, look), *_ordered(route, full, look)), left_out)


def why_not(candidate: Candidate, now: float) -> str:
    """What speaks against a candidate, in words; empty if nothing does."""
    health = candidate.health
    standing = health.standing(now)
    left = max(health.until(now) - now, 0.0)
    if standing is Standing.OPEN:
        if left:
            return f"breaker open for {left:.1f} s more"
        return "breaker half open, with as many calls under way as may try it"
    if standing is Standing.EJECTED:
        return f"ejected for {left:.1f} s more: it failed more often than the other targets"
    if standing is Standing.COOLING:
        return f"asked to be left alone for {left:.1f} s more"
    if not candidate.has_keys(now):
        return f"all keys of {candidate.target.provider} rest"
    return ""


def _last_resort(route: Route, look: Look, left_out: Sequence[LeftOut]) -> Plan:
    usable = [each for each in route.candidates if _has_any_key(each, look.now)]
    if not usable:
        return Plan((), left_out)
    drawn = usable[min(int(look.dice() * len(usable)), len(usable) - 1)]
    others = [each for each in left_out if each.candidate is not drawn]
    return Plan((drawn,), others, last_resort=True)


def _has_any_key(candidate: Candidate, now: float) -> bool:
    """Whether the keyring would give a key at all: perhaps one that rests for its rate limit only."""
    keyring = candidate.provider.keyring
    return keyring is None or keyring.pick(candidate.target.model, now) is not None


def _ordered(route: Route, candidates: Sequence[Candidate], look: Look) -> Sequence[Candidate]:
    if route.chooser is None or len(candidates) < 2:
        return candidates
    return route.chooser.order(candidates, look)
