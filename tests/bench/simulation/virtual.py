"""An asyncio event loop whose time is virtual: an hour of waiting takes no longer than its work.

Owns the clock. When nothing is ready to run, the loop's time jumps to the next timer; so the order of
things, and with seeded dice every number, is the same in each run. There are no sockets and no threads
in such a world: a wait that no timer ends would last for ever, and raises instead.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")

# Not zero, so that a stamp that was forgotten is not taken for a moment of this world.
BEGINNING = 1000.0


class Forever(RuntimeError):
    """Every task waits, and no timer will wake one."""


class _Jumps(selectors.SelectSelector):
    """Instead of waiting for sockets, moves the clock on by as long as it was asked to wait."""

    now = BEGINNING

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Forever("every task waits, and no timer will wake one")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time; `time` begins at `BEGINNING` and is the one clock for all in it."""

    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs a coroutine to its end in a virtual time of its own, as `asyncio.run` does in ours."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
