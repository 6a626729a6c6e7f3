"""What comes next when an attempt has failed. Pure: told the time, the dice and the faults.

Owns the order of attempts of one call: another key, the next target, the same again after a wait, a
fallback model, or none. It asks nobody and waits for nothing; `execute` does what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from headgate.errors import (
    ContextTooLong,
    DeadlineExceeded,
    GatewayError,
    UpstreamUnavailable,
)
from headgate_server.call import Call
from headgate_server.config import Retries
from headgate_server.faults import VERDICTS, Fault, fault_of
from headgate_server.health import Board, Standing
from headgate_server.keyring import Key, all_benched
from headgate_server.routing import Candidate, Plan, Route, Router

Chain = Literal["general", "on_context_window", "on_content_policy"]

# Targets are left alone for so long at most, whatever a Retry-After says: nobody remembers a day later
# why nothing goes there.
_LONGEST_COOLING_SECONDS = 600.0
# Where a rate limit comes without a Retry-After; it doubles for a key that goes on to meet its limit.
_FIRST_COOLING_SECONDS = 1.0
_MAX_DOUBLINGS = 6
# What is left of the deadline must be worth a connection at least.
_WORTH_SECONDS = 0.01


class Patience(msgspec.Struct, frozen=True, gc=False):
    """The settings of retries for one route.

    Attributes:
        max: retries on the same target.
        attempts: upstream calls in all.
        base: seconds of the longest first wait.
        max_wait: seconds of the longest wait.
        bench: seconds that a refused key rests.
    """

    max: int
    attempts: int
    base: float
    max_wait: float
    bench: float


def patience_of(route: Route, retries: Retries, bench: float) -> Patience:
    """The settings of a route: its own where it has some."""
    own = route.settings.retries if route.settings is not None else None
    given = {
        field: value
        for field in ("max", "attempts", "max_wait")
        if own is not None and (value := getattr(own, field)) is not None
    }
    return Patience(
        **{
            "max": retries.max,
            "attempts": retries.attempts,
            "max_wait": retries.max_wait,
            "base": retries.base,
            "bench": bench,
            **given,
        }
    )


class Step(msgspec.Struct, gc=False):
    """An attempt to make.

    Attributes:
        route: the public model that it belongs to.
        candidate: where.
        key: with which key, where the provider has keys.
        wait: seconds to wait before.
        retries: how often the target failed for this call already.
        last: no other target is left, so a place in its queue is worth waiting for.
    """

    route: Route
    candidate: Candidate
    key: Key | None
    wait: float = 0.0
    retries: int = 0
    last: bool = False


class Course:
    """The attempts of one call, one step at a time.

    Attributes:
        error: the last failure, to be raised when there is no next step; None if there was none.
    """

    __slots__ = (
        "_again",
        "_board",
        "_call",
        "_chain",
        "_dice",
        "_done",
        "_keys",
        "_left",
        "_patience",
        "_plan",
        "_queue",
        "_rotate",
        "_route",
        "_router",
        "_seen",
        "_tried",
        "error",
    )

    def __init__(
        self,
        call: Call,
        router: Router,
        board: Board,
        patience: Patience,
        dice: Callable[[], float],
        now: float,
    ) -> None:
        self.error: GatewayError | None = None
        self._call = call
        self._router = router
        self._board = board
        self._patience = patience
        self._dice = dice
        self._left = patience.attempts
        self._seen = {call.route.name}
        self._tried: set[tuple[str, str]] = set()
        self._keys: dict[str, list[Key]] = {}
        self._chain: list[Route] | None = None
        self._done = False
        self._rotate: Step | None = None
        self._enter(call.route, now)

    def next(self, now: float) -> Step | None:
        """The next attempt; None if there is none, and `error` says why."""
        if self._done or self._left <= 0 or not self._worth(0.0, None, now):
            return None
        step = self._rotated(now)
        while step is None:
            step = self._fresh(now) or self._repeated(now)
            if step is None and not self._fall_back(now):
                return None
        self._left -= 1
        return step

    def hedge(self, beside: Step, now: float) -> Step | None:
        """An attempt beside a slow one: at the next target, else at the same; None if not allowed."""
        if self._left <= 0 or self._plan.last_resort:
            return None
        fresh = self._fresh(now)
        step = fresh
        if step is None:
            key = self._key(beside.candidate, now, rotate=False)
            if key is None and beside.candidate.provider.keyring is not None:
                return None
            step = Step(self._route, beside.candidate, key, retries=beside.retries)
        health, target = step.candidate.health, step.candidate.target
        # It waits for no place. The budget is that of whoever was slow: the next target's may have no
        # calls of its own.
        full = not health.calm and health.standing(now) is Standing.FULL
        if full or not self._board.budget(beside.candidate.target.provider).take(now):
            if fresh is not None:  # it may still come after the slow one
                self._queue.append(step.candidate)
                self._tried.discard((target.provider, target.model))
            return None
        self._left -= 1
        return step

    def failed(self, step: Step, error: GatewayError, now: float) -> None:
        """Takes note of a failure; benches the key, or rests the target, where the fault asks for it."""
        fault = fault_of(error)
        verdict = VERDICTS[fault]
        self.error = error
        self._rotate = None
        if fault is Fault.CALLER or fault is Fault.POLICY:
            self._stop(error, fault)
            return
        if not verdict.onward:
            self._done = True
            return
        if verdict.rotate:
            self._rest(step, fault, error, now)
            self._rotate = step
        elif error.retry_after:
            step.candidate.health.cool(now + min(error.retry_after, _LONGEST_COOLING_SECONDS))
        if verdict.again and not self._plan.last_resort and step.retries < self._patience.max:
            self._again.append((step, error.retry_after or 0.0))

    def shed(self, error: GatewayError) -> None:
        """The target had no place for the call, not even in its queue."""
        self.error = error
        self._rotate = None

    # Where to go.

    def _enter(self, route: Route, now: float) -> None:
        """Begins with the targets of a public model."""
        call = self._call
        self._route = route
        self._plan: Plan = self._router.plan(route, call.request, call.context, call.caller, now)
        # The next one last, to be popped.
        self._queue: list[Candidate] = list(reversed(self._plan.candidates))
        self._again: list[tuple[Step, float]] = []
        self._rotate = None
        if not self._queue and self._plan.left_out:
            self.error = self._benched([left.candidate for left in self._plan.left_out], now)

    def _rotated(self, now: float) -> Step | None:
        """The same target with another key."""
        failed, self._rotate = self._rotate, None
        if failed is None or failed.key is None:
            return None
        key = self._key(failed.candidate, now, rotate=True)
        if key is None:
            self.error = self._benched([failed.candidate], now)
            return None
        if self._again and self._again[-1][0] is failed:
            self._again.pop()  # it goes on now, not later
        # The place that the refused attempt had may be another call's by now.
        return Step(
            failed.route, failed.candidate, key, retries=failed.retries, last=not self._queue
        )

    def _fresh(self, now: float) -> Step | None:
        """The next target that was not tried yet."""
        while self._queue:
            candidate = self._queue.pop()
            place = (candidate.target.provider, candidate.target.model)
            if place in self._tried or not self._worth(0.0, candidate, now):
                continue
            health = candidate.health
            if (
                not (health.calm or self._plan.last_resort)
                and health.standing(now) is Standing.OPEN
            ):
                continue  # since the plan was made; half open, and others probe it already
            key = self._key(candidate, now, rotate=False)
            if key is None and candidate.provider.keyring is not None:
                continue
            if not self._tried:
                self._board.budget(place[0]).sent(now)
            self._tried.add(place)
            return Step(self._route, candidate, key, last=not self._queue)
        return None

    def _repeated(self, now: float) -> Step | None:
        """A target that may do better now, after a wait."""
        while self._again:
            failed, retry_after = self._again.pop(0)
            wait = self._backoff(failed.retries, retry_after)
            candidate = failed.candidate
            if wait is None or not self._worth(wait, candidate, now):
                continue
            key = self._key(candidate, now, rotate=False)
            if key is None and candidate.provider.keyring is not None:
                continue
            if not self._board.budget(candidate.target.provider).take(now):
                continue
            return Step(failed.route, candidate, key, wait, failed.retries + 1, last=True)
        return None

    def _backoff(self, retries: int, retry_after: float) -> float | None:
        """Exponential with full jitter, and what the provider asks for; None if that is too long.

        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        patience = self._patience
        if retry_after > patience.max_wait:
            return None
        drawn = self._dice() * patience.base * 2.0**retries
        return min(max(drawn, retry_after), patience.max_wait)

    def _fall_back(self, now: float) -> bool:
        """Goes on with the next model of the chain, if there is one that can take the request."""
        if self._chain is None:
            self._chain = self._models("general")
        while self._chain:
            route = self._chain.pop(0)
            if route.name in self._seen:
                continue
            self._seen.add(route.name)
            if self._router.lacks(route, self._call.request):
                continue
            error = self.error
            self._enter(route, now)
            self.error = error
            if self._queue:
                return True
        return False

    def _stop(self, error: GatewayError, fault: Fault) -> None:
        """The request itself is refused: only a model that was named for this case may try."""
        kind: Chain | None = None
        if isinstance(error, ContextTooLong):
            kind = "on_context_window"
        elif fault is Fault.POLICY:
            kind = "on_content_policy"
        chain = self._models(kind) if kind is not None else []
        if chain:
            self._chain = chain
            self._queue, self._again = [], []
        else:
            self._done = True

    def _models(self, kind: Chain) -> list[Route]:
        """The chain of the model that was asked for; a fallback's own chain is not followed."""
        return list(self._router.chain(self._call.route, kind))

    # What is worth it, and with which key.

    def _worth(self, wait: float, candidate: Candidate | None, now: float) -> bool:
        """Whether the deadline leaves time for another attempt."""
        deadline = self._call.context.deadline
        if deadline is None:
            return True
        left = deadline - now - wait
        if candidate is None or not self._tried:
            return left > 0
        # Half of what the target usually takes: an average is above most of what it was made of.
        usual = candidate.health.first_token(now) or 0.0
        return left > max(_WORTH_SECONDS, usual / 2)

    def _key(self, candidate: Candidate, now: float, *, rotate: bool) -> Key | None:
        keyring = candidate.provider.keyring
        if keyring is None:
            return None
        tried = self._keys.get(candidate.target.provider, ()) if rotate else ()
        return keyring.pick(candidate.target.model, now, tried)

    def _rest(self, step: Step, fault: Fault, error: GatewayError, now: float) -> None:
        """Benches the key that was refused; where there is only one, the target rests instead."""
        candidate = step.candidate
        target, keyring = candidate.target, candidate.provider.keyring
        limited = fault is Fault.RATE_LIMIT
        seconds = error.retry_after or 0.0
        if not limited:
            seconds = max(seconds, self._patience.bench)
        elif error.retry_after is None:
            strikes = (
                keyring.strike(step.key) if keyring is not None and step.key is not None else 0
            )
            seconds = _FIRST_COOLING_SECONDS * 2.0 ** min(strikes, _MAX_DOUBLINGS)
        seconds = min(seconds, _LONGEST_COOLING_SECONDS)
        if step.key is not None:
            self._keys.setdefault(target.provider, []).append(step.key)
        if step.key is None or keyring is None or len(keyring.keys) == 1:
            candidate.health.cool(now + seconds)
            return
        # A rate limit, and a permission, is often one for this model alone.
        narrow = limited or error.metadata.get("upstream_status") == "403"
        keyring.bench(step.key, fault, now + seconds, model=target.model if narrow else "")

    def _benched(self, candidates: Sequence[Candidate], now: float) -> GatewayError | None:
        """What to say when no key is left: so, or the last failure where there was but one key."""
        rings = {
            each.target.provider: keyring
            for each in candidates
            if (keyring := each.provider.keyring) is not None and len(keyring.keys) > 1
        }
        return all_benched(rings, now) or self.error


def given_up(error: GatewayError | None, now: float, deadline: float | None) -> GatewayError:
    """What to raise when no step is left: the last failure, or why there was not even one."""
    if error is not None:
        return error
    if deadline is not None and now >= deadline:
        return DeadlineExceeded("the caller's deadline passed")
    return UpstreamUnavailable("no target can be tried now")
