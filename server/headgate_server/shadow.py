"""Shadow traffic: copies of calls that go to a second model, and whose answers are thrown away.

Owns that a copy never harms the call that it copies: it does not delay it, fail it, or outlive the bounds
below. Which calls are copied is the router's decision.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from headgate.v1 import chat_pb2
from headgate_server.call import Call
from headgate_server.config import Config
from headgate_server.settlement import Settlement

_log = logging.getLogger(__name__)

_SUFFIX = "-shadow"
_MAX_ID = 128  # characters of a request id
_SECONDS_BETWEEN_COMPLAINTS = 60.0

ShadowHandle: TypeAlias = asyncio.Task[None]
"""A copy on its way; `cancel()` ends it."""


class Shadows:
    """Sends copies.

    Args:
        config: the section `shadows`.
        run: makes the whole answer to a call. The settlement reaches no hook: nobody pays for a copy.
        clock: seconds, monotonic; the one of deadlines.

    Attributes:
        sent: copies that were sent.
        dropped: copies that were not, because too many were under way.
    """

    def __init__(
        self,
        config: Config,
        run: Callable[[Call, Settlement], Awaitable[chat_pb2.ChatResponse]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sent = 0
        self.dropped = 0
        self._settings = config.shadows
        self._run = run
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained: float | None = None
        self._closed = False

    def send(self, call: Call) -> ShadowHandle | None:
        """Begins a copy of the call on its shadow. None if it has none, or there is no room for it."""
        if call.shadow is None or self._closed:
            return None
        if len(self._tasks) >= self._settings.max_in_flight:
            self._drop()
            return None
        self.sent += 1
        task = asyncio.get_running_loop().create_task(self._copy(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancels all copies, and sends no more."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _copy(self, call: Call) -> None:
        if call.shadow is None:
            return
        request_id = call.context.request_id[: _MAX_ID - len(_SUFFIX)] + _SUFFIX
        context = dataclasses.replace(
            call.context,
            request_id=request_id,
            deadline=self._clock() + self._settings.timeout,
            idempotency_key=None,
            cache="off",
        )
        record = Settlement(request_id, call.request.model, streamed=False, caller=call.caller.name)
        try:
            # The run keeps to the deadline by itself; a copy must end even if something in it does not.
            async with asyncio.timeout(self._settings.timeout):
                await self._run(Call(call.request, context, call.caller, call.shadow), record)
        except Exception as error:
            # The border that must hold: nobody waits for a copy, and nobody may hear of its failures.
            _log.debug("the shadow %s of %s failed: %r", request_id, call.shadow.name, error)

    def _drop(self) -> None:
        self.dropped += 1
        now = self._clock()
        if self._complained is None or now - self._complained >= _SECONDS_BETWEEN_COMPLAINTS:
            self._complained = now
            _log.warning(
                "%d shadow copies are under way; further ones are not sent (%d so far)",
                len(self._tasks),
                self.dropped,
            )
