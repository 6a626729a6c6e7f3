"""Answers that need no run of their own: kept ones, and those of identical calls under way.

Stands between the admission of a call and its execution. `cache` is the exact cache, `idempotency` what
a repeated key gets; `run` shares runs, `store` bounds memory, `fingerprint` says what is the same. All of
it is in this process's memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from headgate.v1 import chat_pb2
from headgate_server.answers.cache import Cache
from headgate_server.answers.idempotency import Idempotency
from headgate_server.answers.run import Complete, Stream
from headgate_server.call import Call
from headgate_server.config import Config
from headgate_server.providers.runtime import Batch
from headgate_server.settlement import Settlement

__all__ = ["Answers"]


class Answers:
    """Gives kept and shared answers.

    What was made for another call is not billed to this one: its record has no usage and no attempts.
    When the caller leaves that a run was begun for, the next one of those who share it pays.

    Args:
        config: the sections `cache` and `idempotency`.
        clock: seconds, monotonic.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = Cache(config.cache, clock)
        self._idempotency = Idempotency(config.idempotency, clock)
        self._settings = config.idempotency

    def adopt(self, older: Answers) -> None:
        """After a change of configuration: keys that were used stay used, and their runs go on.

        What the cache holds is not taken over: another configuration may give other answers.
        """
        self._idempotency, older._idempotency = older._idempotency, self._idempotency
        self._idempotency.use(self._settings)

    def wanted(self, call: Call, *, streamed: bool) -> bool:
        """Whether this call goes through here at all; most do not."""
        if call.context.idempotency_key is not None and not streamed:
            return True
        return self._cache.wanted(call)

    async def complete(
        self, call: Call, record: Settlement, run: Complete
    ) -> chat_pb2.ChatResponse:
        """A whole answer; the caller may change it.

        Args:
            call: the call.
            record: gets `cache`, `repeated`, and what the run did if it is this call's.
            run: makes the answer, and writes into the record that it is given.

        Raises:
            InvalidRequest: an idempotency key or a wish for the cache that is none, or a key that was
                used for another request.
            DeadlineExceeded: the caller's deadline passed while it waited for an identical call.
            GatewayError: whatever the run raised.
        """
        key = call.context.idempotency_key
        if key is None:
            return await self._cache.complete(call, record, run)
        return await self._idempotency.complete(
            key, call, record, lambda own: self._cache.complete(call, own, run)
        )

    def stream(self, call: Call, record: Settlement, run: Stream) -> AsyncGenerator[Batch, None]:
        """The same for a stream, which idempotency keys have no say in. Readers do not change events."""
        return self._cache.stream(call, record, run)

    async def close(self) -> None:
        """Cancels the runs that are under way; whoever waits for one gets `UpstreamUnavailable`."""
        await asyncio.gather(self._idempotency.close(), self._cache.close())
