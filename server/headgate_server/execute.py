"""Makes the attempts of a call, until one answers.

Owns what an attempt does besides the provider's own work: the target's health, the key's bench, the
account of what was tried, hedging, and the rule that nothing is tried again once an event has gone out.
Which attempt comes next is `course`'s decision, one attempt the provider's business, the bookkeeping the
core's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import TypeVar

from headgate.errors import DeadlineExceeded, GatewayError, Overloaded
from headgate.v1 import chat_pb2
from headgate_server.account import blame, error_account, served
from headgate_server.attempt import Attempt, Kind, Opened, Whole
from headgate_server.call import Call
from headgate_server.config import Config, Hedge
from headgate_server.course import Course, Patience, Step, given_up, patience_of
from headgate_server.faults import VERDICTS, Fault, fault_of
from headgate_server.health import Board, Standing
from headgate_server.hedging import Race, Watch
from headgate_server.providers.runtime import Batch
from headgate_server.routing import Route, Router
from headgate_server.settlement import Settlement, Tried

_TIMERS_ARE_EARLY_SECONDS = 0.005

T = TypeVar("T")


class Executor:
    """Makes attempts. One for all calls.

    Args:
        router: knows the targets of each model.
        board: knows how they are.
        config: the settings of retries, queues and benches.
        clock: seconds, monotonic; the one of deadlines.
        dice: returns a number from 0 to 1.
    """

    def __init__(
        self,
        router: Router,
        board: Board,
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._router = router
        self._board = board
        self._config = config
        self._clock = clock
        self._dice = dice
        self._patience: dict[int, Patience] = {}
        self._watches: dict[int, Watch] = {}

    async def complete(self, call: Call, record: Settlement) -> chat_pb2.ChatResponse:
        """The first whole answer. Raises `GatewayError`: the last attempt's."""
        return await self._pursue(Whole(call), call, record)

    async def stream(self, call: Call, record: Settlement) -> AsyncGenerator[Batch, None]:
        """The events of the first target that begins to answer. Raises as `complete` does.

        Nothing is yielded before the first content, so that until then another target can take over.
        """
        begun = await self._pursue(Opened(call), call, record)
        attempt = begun.attempt
        try:
            if begun.held[-1].HasField("completed"):
                attempt.fault = Fault.NONE
            yield begun.held
            async for batch in begun.batches:
                if batch[-1].HasField("completed"):
                    attempt.fault = Fault.NONE  # also if the reader leaves now
                yield batch
        except GatewayError as error:
            attempt.failed(error)
            self._blame(error, attempt.step, record)
            raise
        finally:
            attempt.end()
            await begun.batches.aclose()

    async def count_tokens(
        self, call: Call, record: Settlement
    ) -> chat_pb2.CountTokensResponse | None:
        """The number from the first target; None if its provider does not count.

        Only the first is asked: another target counts in another way.
        """
        course = self._course(call)
        first = step = course.next(self._clock())
        while step is not None and first is not None and step.candidate is first.candidate:
            target, provider = step.candidate.target, step.candidate.provider
            if step.wait > 0:
                await asyncio.sleep(step.wait)
            try:
                counted = await provider.count_tokens(call.request, target, call.context, step.key)
            except GatewayError as error:
                _begin(record, step, Tried(target.provider, target.model, fault=fault_of(error)))
                self._failed(course, step, error, record)
                step = course.next(self._clock())
                continue
            if counted is not None:
                _begin(record, step, Tried(target.provider, target.model, fault=Fault.NONE))
                served(counted.served, record, provider)
            return counted
        raise self._given_up(course, call, record)

    # The attempts of a call.

    async def _pursue(self, kind: Kind[T], call: Call, record: Settlement) -> T:
        """The result of the first attempt that succeeds."""
        course = self._course(call)
        settings = call.route.settings
        hedge = settings.hedge if settings is not None else None
        while True:
            step = course.next(self._clock())
            if step is None:
                raise self._given_up(course, call, record)
            if step.wait > 0:
                await asyncio.sleep(step.wait)
            waited = step.wait
            health = step.candidate.health
            if not health.calm and health.standing(self._clock()) is Standing.FULL:
                try:
                    waited += await self._queue(step, call)
                except GatewayError as error:
                    self._blame(error, step, record)
                    course.shed(error)
                    continue
            try:
                if hedge is None:
                    result = await self._attempt(kind, step, record, waited)
                else:
                    result = await self._race(kind, step, record, waited, course, hedge)
            except GatewayError as error:
                self._failed(course, step, error, record)
                continue
            return result

    async def _attempt(
        self,
        kind: Kind[T],
        step: Step,
        record: Settlement,
        waited: float,
        race: Race[T] | None = None,
        *,
        hedge: bool = False,
    ) -> T:
        """One attempt, with all that is to be noted about it."""
        target = step.candidate.target
        tried = Tried(target.provider, target.model, waited=waited, hedge=hedge)
        keyring = step.candidate.provider.keyring
        if step.key is not None and keyring is not None and len(keyring.keys) > 1:
            tried.key = step.key.name
        _begin(record, step, tried)
        attempt = Attempt(step, tried, self._clock)
        try:
            result = await kind.run(step, attempt)
        except GatewayError as error:
            attempt.failed(error)
            attempt.end()
            raise
        except Exception:
            attempt.fault = tried.fault = Fault.INTERNAL
            attempt.end()
            raise
        except BaseException:  # cancelled
            attempt.left(kind.deadline, overtaken=race is not None and race.won)
            attempt.end()
            raise
        kind.succeeded(result, self._answered_by(step, record))
        if step.key is not None and keyring is not None:
            keyring.worked(step.key)
        return result

    async def _race(
        self,
        kind: Kind[T],
        first: Step,
        record: Settlement,
        waited: float,
        course: Course,
        hedge: Hedge,
    ) -> T:
        """An attempt, and others beside it while it is slow. The first result wins.

        Raises `GatewayError` if all of them failed: the first attempt's, of which the course is not told
        yet. It is told of the others.
        """

        def beside() -> Coroutine[None, None, T] | None:
            step = course.hedge(first, self._clock())
            return None if step is None else attempt(step)

        async def attempt(step: Step) -> T:
            try:
                return await self._attempt(kind, step, record, 0.0, race, hedge=True)
            except GatewayError as error:
                self._failed(course, step, error, record)
                raise

        race: Race[T] = Race(beside, kind.discard, _is_final, self._watch(hedge))
        result = await race.run(self._attempt(kind, first, record, waited, race))
        if record.attempts > 1:  # the one that answered is not always the one that ended last
            told = kind.told(result)
            record.provider, record.target_model, record.route = (
                told.provider,
                told.model,
                told.route,
            )
        return result

    def _failed(self, course: Course, step: Step, error: GatewayError, record: Settlement) -> None:
        self._blame(error, step, record)
        course.failed(step, error, self._clock())

    async def _queue(self, step: Step, call: Call) -> float:
        """Waits for a place on a target that is full; returns the seconds.

        Raises:
            Overloaded: there was none.
            DeadlineExceeded: nor was there time to wait any longer.
        """
        seconds = step.candidate.health.queue_wait if step.last else 0.0
        began = self._clock()
        deadline = call.context.deadline
        if deadline is not None:
            seconds = min(seconds, deadline - began)
        try:
            await step.candidate.health.wait_for_place(max(seconds, 0.0))
        except Overloaded as error:
            if deadline is None or self._clock() < deadline - _TIMERS_ARE_EARLY_SECONDS:
                raise
            raise DeadlineExceeded(
                "the caller's deadline passed while it waited for a place"
            ) from error
        return self._clock() - began

    def _watch(self, hedge: Hedge) -> Watch:
        """Kept by the settings, which live as long as this executor; it lives in one loop."""
        found = self._watches.get(id(hedge))
        if found is None:
            found = self._watches[id(hedge)] = Watch(hedge, asyncio.get_running_loop())
        return found

    def _course(self, call: Call) -> Course:
        now = self._clock()
        self._board.look(now)
        return Course(
            call, self._router, self._board, self._patience_of(call.route), self._dice, now
        )

    def _patience_of(self, route: Route) -> Patience:
        """Kept by the route's settings, which live as long as this executor."""
        place = id(route.settings)
        found = self._patience.get(place)
        if found is None:
            config = self._config
            found = patience_of(route, config.retries, config.keys.bench)
            self._patience[place] = found
        return found

    def _given_up(self, course: Course, call: Call, record: Settlement) -> GatewayError:
        error = given_up(course.error, self._clock(), call.context.deadline)
        error.served = error_account(record)
        return error

    def _answered_by(self, step: Step, record: Settlement) -> tuple[Settlement, Step]:
        """Notes whose answer it is: with hedges, not always the last that was tried."""
        target = step.candidate.target
        record.provider, record.target_model = target.provider, target.model
        record.route = step.route.name
        if len(record.tried) > 1:
            now = self._clock()
            for tried in record.tried:  # those that are being overtaken
                if tried.fault is Fault.CANCELLED and not tried.seconds:
                    tried.seconds = now - tried.began
        return record, step

    def _blame(self, error: GatewayError, step: Step, record: Settlement) -> None:
        key = step.key.name if step.key is not None else ""
        blame(error, step.candidate.provider, step.candidate.target, key, record)
        error.served = error_account(record)


def _is_final(error: GatewayError) -> bool:
    """Whether no other attempt could do better, such as when the request itself is wrong."""
    return not VERDICTS[fault_of(error)].onward


def _begin(record: Settlement, step: Step, tried: Tried) -> None:
    record.attempts += 1
    record.tried.append(tried)
    record.route = step.route.name
    record.provider, record.target_model = tried.provider, tried.model
