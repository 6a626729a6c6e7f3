"""The exact cache: the same answer to the same request again, and one run for identical calls.

Owns which calls use it and which answers are kept. A hit calls no provider and costs nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from headgate.errors import InvalidRequest
from headgate.metadata import CACHE
from headgate.unfold import unfold
from headgate.v1 import chat_pb2, routing_pb2
from headgate_server.answers import fingerprint
from headgate_server.answers.run import Complete, Job, Runs, Stream
from headgate_server.answers.store import Store
from headgate_server.call import Call
from headgate_server.config import Cache as Settings
from headgate_server.providers.runtime import Batch
from headgate_server.settlement import Settlement

ON, OFF, REFRESH = "on", "off", "refresh"
# Answers that ended by themselves. Others were cut off: by a bound, a filter, a pause, something unknown.
_WHOLE = {
    chat_pb2.FINISH_REASON_STOP,
    chat_pb2.FINISH_REASON_TOOL_CALLS,
    chat_pb2.FINISH_REASON_REFUSAL,
}


class Cache:
    """Answers by question.

    Args:
        settings: the section `cache`.
        clock: seconds, monotonic.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._store = Store(settings.max_bytes, clock, recent=True)
        self._runs = Runs()

    def wanted(self, call: Call) -> bool:
        """Whether the cache has a say in this call. A wish that is none has one: it is refused."""
        wish = call.context.cache
        if wish is None:
            settings = call.route.settings
            return settings is not None and settings.cache is not None
        return wish != OFF

    async def complete(
        self, call: Call, record: Settlement, run: Complete
    ) -> chat_pb2.ChatResponse:
        """The kept answer, or that of `run`, which identical calls share."""
        ttl = self._ttl(call)
        if ttl is None:
            return await run(record)
        place = _place(call)
        answer = self._kept(place, call, record)
        if answer is None:
            answer = await self._runs.complete(self._job(place, ttl, call, record, complete=run))
            answer.served.cache = record.cache  # type: ignore[assignment]  # the same numbers
        return answer

    async def stream(
        self, call: Call, record: Settlement, run: Stream
    ) -> AsyncGenerator[Batch, None]:
        """The same as events; a kept answer comes in one batch."""
        ttl = self._ttl(call)
        if ttl is None:
            batches = run(record)
        else:
            place = _place(call)
            answer = self._kept(place, call, record)
            if answer is not None:
                yield unfold(answer)
                return
            batches = self._runs.stream(self._job(place, ttl, call, record, stream=run))
        async with aclosing(batches):
            async for batch in batches:
                yield batch

    async def close(self) -> None:
        """Cancels what runs."""
        await self._runs.close()

    def _ttl(self, call: Call) -> float | None:
        """How long this call's answer is kept, in seconds; None if the cache is not for it."""
        wish = call.context.cache
        if wish not in (None, ON, OFF, REFRESH):
            raise InvalidRequest.of(CACHE, f"must be on, off or refresh, not {wish!r:.40}")
        if wish == OFF:
            return None
        own = call.route.settings.cache if call.route.settings is not None else None
        if own is None:
            return self._settings.ttl if wish is not None and self._settings.on_request else None
        return own.ttl if own.ttl is not None else self._settings.ttl

    def _kept(self, place: bytes, call: Call, record: Settlement) -> chat_pb2.ChatResponse | None:
        if call.context.cache == REFRESH:
            return None
        kept = self._store.get(place)
        if kept is None:
            return None
        answer = chat_pb2.ChatResponse.FromString(kept)
        record.cache = routing_pb2.CACHE_STATUS_HIT
        record.provider, record.target_model = answer.served.provider, answer.served.model
        record.route = answer.served.route
        return answer

    def _job(
        self,
        place: bytes,
        ttl: float,
        call: Call,
        record: Settlement,
        complete: Complete | None = None,
        stream: Stream | None = None,
    ) -> Job:
        return Job(
            place=place,
            context=call.context,
            record=record,
            keep=lambda answer: self._keep(place, ttl, answer),
            mark=_mark,
            complete=complete,
            stream=stream,
            fresh=call.context.cache == REFRESH,
        )

    def _keep(self, place: bytes, ttl: float, answer: chat_pb2.ChatResponse) -> None:
        reasons = [choice.finish_reason for choice in answer.choices]
        if not reasons or not _WHOLE.issuperset(reasons):
            return
        as_hit(answer.served)
        answer.served.cache = routing_pb2.CACHE_STATUS_HIT
        if answer.ByteSize() <= self._settings.max_entry_bytes:
            self._store.put(place, answer.SerializeToString(), ttl)


def as_hit(served: chat_pb2.Served) -> None:
    """What a kept answer says of itself: who gave it, and that nobody was called this time."""
    served.attempts = 0
    served.ClearField("tried")


def _place(call: Call) -> bytes:
    return fingerprint.question(call.caller.tenant, call.route.name, call.request)


def _mark(record: Settlement, mine: bool) -> None:
    record.cache = routing_pb2.CACHE_STATUS_MISS if mine else routing_pb2.CACHE_STATUS_SHARED
