"""Idempotency keys: a whole answer that was asked for twice is made once.

Owns what a key stands for: one request of one tenant. Failures are forgotten, so that a repetition runs.
"""

from __future__ import annotations

from collections.abc import Callable

from headgate.errors import InvalidRequest
from headgate.metadata import IDEMPOTENCY_KEY
from headgate.v1 import chat_pb2
from headgate_server.answers import fingerprint
from headgate_server.answers.cache import as_hit
from headgate_server.answers.run import Complete, Job, Runs, Taken
from headgate_server.answers.store import Store
from headgate_server.call import Call
from headgate_server.config import Idempotency as Settings
from headgate_server.settlement import Settlement

MAX_KEY = 255  # characters


class Idempotency:
    """Answers by key.

    Args:
        settings: the section `idempotency`.
        clock: seconds, monotonic.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._store = Store(settings.max_bytes, clock, recent=False)
        self._runs = Runs()

    def use(self, settings: Settings) -> None:
        """Other settings, for what comes from now on."""
        self._settings = settings
        self._store.limit(settings.max_bytes)

    async def complete(
        self, key: str, call: Call, record: Settlement, run: Complete
    ) -> chat_pb2.ChatResponse:
        """The answer of the first call with this key, or of `run`, if this is the first."""
        if not key.strip() or not key.isprintable() or len(key) > MAX_KEY:
            raise InvalidRequest.of(IDEMPOTENCY_KEY, f"must be 1 to {MAX_KEY} printable characters")
        place = fingerprint.holder(call.caller.tenant, key)
        tag = fingerprint.exact(call.request)
        kept = self._store.get(place)
        if kept is not None:
            if not kept.startswith(tag):
                raise _used()
            record.repeated = True
            answer = chat_pb2.ChatResponse.FromString(kept[fingerprint.SIZE :])
            record.provider, record.target_model = answer.served.provider, answer.served.model
            record.route = answer.served.route
            return answer
        job = Job(
            place=place,
            context=call.context,
            record=record,
            keep=lambda answer: self._keep(place, tag, answer),
            mark=_mark,
            complete=run,
            tag=tag,
        )
        try:
            answer = await self._runs.complete(job)
        except Taken as error:
            raise _used() from error
        answer.served.repeated_answer = record.repeated
        answer.served.cache = record.cache  # type: ignore[assignment]  # the same numbers
        return answer

    async def close(self) -> None:
        """Cancels what runs."""
        await self._runs.close()

    def _keep(self, place: bytes, tag: bytes, answer: chat_pb2.ChatResponse) -> None:
        as_hit(answer.served)
        answer.served.ClearField("cache")
        answer.served.repeated_answer = True
        self._store.put(place, tag + answer.SerializeToString(), self._settings.ttl)


def _used() -> InvalidRequest:
    return InvalidRequest.of(IDEMPOTENCY_KEY, "was used for another request; give each its own")


def _mark(record: Settlement, mine: bool) -> None:
    record.repeated = not mine
