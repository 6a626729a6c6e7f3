"""The calls that wait for a place at a target, first come, first served. Owns the queue.

How many places there are is its owner's business.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class Waiting:
    """A bounded queue.

    Args:
        most: how many may wait.

    Attributes:
        handed: places that were given to waiters who have not woken up yet. They are taken.
    """

    __slots__ = ("_most", "_waiters", "handed")

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiters: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self.handed = 0

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return len(self._waiters) >= self._most

    def hand_out(self, places: int) -> None:
        """Wakes as many, the first first."""
        while places > 0 and self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():  # else cancelled just now
                waiter.set_result(True)
                self.handed += 1
                places -= 1

    async def wait(self, seconds: float) -> bool:
        """Whether there was a place within so many seconds.

        A waiter that is cancelled leaves; if it had got a place, the owner is to hand that out again.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters[waiter] = None
        timer = loop.call_later(seconds, self._give_up, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiters.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self.handed -= 1

    def _give_up(self, waiter: asyncio.Future[bool]) -> None:
        if not waiter.done():
            del self._waiters[waiter]
            waiter.set_result(False)
