"""Attempts beside a slow one: the first result wins, the others are cancelled and cleared away.

Owns the race, and when another attempt is due. What an attempt is, and whether it may begin, it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from headgate.errors import GatewayError
from headgate_server.config import Hedge

T = TypeVar("T")
_SLACK_SECONDS = 0.001  # timers come a little early


class Watch:
    """Tells races when another attempt is due: one timer for all that wait equally long.

    Args:
        settings: how long, and how many attempts a race begins.
        loop: the one that runs.
    """

    def __init__(self, settings: Hedge, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.loop = loop
        self._due: dict[Race[Any], float] = {}  # the first is due first
        self._timer: asyncio.TimerHandle | None = None

    def add(self, race: Race[Any]) -> None:
        """From now on the race waits."""
        due = self.loop.time() + self.settings.after
        self._due[race] = due
        if self._timer is None:
            self._timer = self.loop.call_at(due, self._fire)

    def drop(self, race: Race[Any]) -> None:
        """It is over."""
        self._due.pop(race, None)

    def _fire(self) -> None:
        self._timer = None
        now = self.loop.time() + _SLACK_SECONDS
        while self._due:
            race, due = next(iter(self._due.items()))
            if due > now:
                if self._timer is None:
                    self._timer = self.loop.call_at(due, self._fire)
                return
            del self._due[race]
            race.next()


class Race(Generic[T]):
    """One race.

    The first attempt runs in the task that runs the race: most are over before a second one is due, and
    cost next to nothing. When a later one wins, that task is interrupted, as `asyncio.timeout` does it.

    Args:
        beside: begins another attempt; None if there is to be none.
        discard: throws a result away that came too late.
        final: whether an error is the answer, so that no other attempt is worth waiting for.
        watch: tells when.
    """

    __slots__ = (
        "_beside",
        "_cancelling",
        "_discard",
        "_final",
        "_first",
        "_first_won",
        "_interrupted",
        "_left",
        "_over",
        "_result",
        "_tasks",
        "_watch",
        "_winner",
    )

    def __init__(
        self,
        beside: Callable[[], Coroutine[None, None, T] | None],
        discard: Callable[[T], Awaitable[None]],
        final: Callable[[GatewayError], bool],
        watch: Watch,
    ) -> None:
        self._beside = beside
        self._discard = discard
        self._final = final
        self._watch = watch
        self._left = watch.settings.max
        self._tasks: list[asyncio.Task[T]] = []
        self._winner: asyncio.Task[T] | None = None
        self._interrupted = False
        self._first_won = False
        self._over = False

    async def run(self, first: Coroutine[None, None, T]) -> T:
        """The first result. Raises the first attempt's error if all fail; a defect at once."""
        task = asyncio.current_task(self._watch.loop)
        assert task is not None  # noqa: S101 - for the type checker
        self._first: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._watch.add(self)
        try:
            result = await first
        except BaseException as error:
            self._watch.drop(self)
            if not self._tasks:
                raise
            return await self._decide(task, [], error)
        self._watch.drop(self)
        if not self._tasks:
            return result  # as mostly
        return await self._decide(task, [result], None)

    async def _decide(
        self, task: asyncio.Task[object], result: list[T], error: BaseException | None
    ) -> T:
        """The first attempt has ended, with a result or an error, and others were begun."""
        self._first = None  # from now on nothing interrupts it
        self._result = result
        try:
            if self._interrupted:
                await self._absorb(task)
            if error is None:
                self._first_won = True
                self._winner = None
                return result[0]
            if isinstance(error, GatewayError):
                if self._final(error) or not await self._others():
                    raise error
            elif not self._interrupted or not isinstance(error, asyncio.CancelledError):
                raise error
            assert self._winner is not None  # noqa: S101 - for the type checker
            return self._winner.result()
        except BaseException:
            self._winner = None  # whoever has a result by now has won nothing
            self._first_won = False
            raise
        finally:
            await self._clear()

    @property
    def won(self) -> bool:
        """Whether there is a result, so that whoever is cancelled now was too slow."""
        winner = self._winner
        return self._first_won or (winner is not None and winner.exception() is None)

    def next(self) -> None:
        """It is time for another attempt."""
        begun = self._beside() if self._left > 0 else None
        if begun is None:
            return
        self._left -= 1
        task = self._watch.loop.create_task(begun)
        self._tasks.append(task)
        task.add_done_callback(self._done)
        if self._left > 0:
            self._watch.add(self)

    def _done(self, task: asyncio.Task[T]) -> None:
        if task.cancelled() or self._winner is not None or self._over:
            return
        error = task.exception()
        if isinstance(error, GatewayError) and not self._final(error):
            return  # the others go on
        self._winner = task  # a result, the last word, or a defect
        if self._first is not None and not self._interrupted:
            self._interrupted = True
            self._first.cancel()

    async def _others(self) -> bool:
        """Waits for one of the others to win; returns whether one did."""
        while self._winner is None:
            running = [task for task in self._tasks if not task.done()]
            if not running:
                return False
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # for `_done`
        return True

    async def _absorb(self, task: asyncio.Task[object]) -> None:
        """Takes the race's own interruption back, whether it has arrived or is on its way.

        Raises `CancelledError` if there is another one behind it, which is somebody else's.
        """
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass
        if task.uncancel() > self._cancelling:
            raise asyncio.CancelledError

    async def _clear(self) -> None:
        """Ends what has not won, and returns when nothing of it runs; also if it is cancelled itself."""
        cancelled = False
        self._over = True
        losers = [task for task in self._tasks if task is not self._winner]
        for task in losers:
            task.cancel()
        for task in losers:
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError:
                    cancelled = True
        if cancelled and self._winner is not None:
            losers.append(self._winner)  # nobody is left to take it
        late = [task.result() for task in losers if not task.cancelled() and not task.exception()]
        if cancelled or not self._first_won:
            late += self._result
        for result in late:
            await self._discard(result)
        if cancelled:
            raise asyncio.CancelledError
