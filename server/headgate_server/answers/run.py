"""One run that several callers follow: who waits for what, who pays, and when it ends.

Owns that identical calls at the same time make one upstream call, whole answers and streams in any mix.
The run is a task of its own. It goes on when the caller leaves that began it, and is cancelled as soon as
the last one has left. What is kept of it is the answer itself, so that a slow reader slows nobody.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType

import msgspec

from headgate.core import CallContext
from headgate.errors import (
    DeadlineExceeded,
    GatewayError,
    UpstreamProtocol,
    UpstreamUnavailable,
)
from headgate.fold import fold
from headgate.unfold import unfold
from headgate.v1 import chat_pb2
from headgate_server.faults import Fault, fault_of
from headgate_server.providers.runtime import Batch
from headgate_server.settlement import Settlement

Complete = Callable[[Settlement], Awaitable[chat_pb2.ChatResponse]]
Stream = Callable[[Settlement], AsyncGenerator[Batch, None]]


class Taken(Exception):
    """The place holds a run for another request."""


class Job(msgspec.Struct, frozen=True, eq=False):
    """What one caller wants of a run.

    Attributes:
        place: callers with the same one share a run.
        context: the caller's.
        record: the caller's.
        keep: gets a copy of its own of the answer, once, if it is whole.
        mark: notes in a record whether the run is its own, or somebody else's.
        complete, stream: makes the answer; one of them.
        tag: must be the same for all callers of a place.
        fresh: begin a run whatever is under way; later callers follow this one.
    """

    place: bytes
    context: CallContext
    record: Settlement
    keep: Callable[[chat_pb2.ChatResponse], None]
    mark: Callable[[Settlement, bool], None]
    complete: Complete | None = None
    stream: Stream | None = None
    tag: bytes = b""
    fresh: bool = False


class Runs:
    """The runs under way."""

    def __init__(self) -> None:
        self._runs: dict[bytes, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def complete(self, job: Job) -> chat_pb2.ChatResponse:
        """The whole answer, a copy of the caller's own.

        Raises:
            GatewayError: the run's, or `DeadlineExceeded`, by the caller's own deadline.
            Taken: the place holds a run with another tag.
        """
        while True:
            async with self._join(job) as seat:
                while not seat.run.over:
                    await seat.news()
            if not seat.begins_anew():
                return seat.run.answer()

    async def stream(self, job: Job) -> AsyncGenerator[Batch, None]:
        """The events: what is there already at once, and then as they come. Raises as `complete`."""
        while True:
            told = 0
            async with self._join(job) as seat:
                events = seat.run.events
                while told < len(events) or not seat.run.over:
                    if told == len(events):
                        await seat.news()
                        continue
                    batch = events[told:]
                    if not told:
                        batch[0] = _marked(batch[0], job.record)
                    told += len(batch)
                    yield batch
            if told:
                seat.run.check(begun=not seat.led)
                return
            if not seat.begins_anew():
                batch = unfold(seat.run.answer())
                batch[0] = _marked(batch[0], job.record)
                yield batch
                return

    async def close(self) -> None:
        """Cancels all runs; whoever follows one gets an error."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _join(self, job: Job) -> _Seat:
        run = None if job.fresh else self._runs.get(job.place)
        if run is not None and run.job.tag != job.tag:
            raise Taken
        led = run is None
        if run is None:
            run = self._runs[job.place] = _Run(job, self._ended)
            self._tasks.add(run.task)
            run.task.add_done_callback(self._tasks.discard)
        job.mark(job.record, led)
        return _Seat(run, job, led=led)

    def _ended(self, run: _Run) -> None:
        if self._runs.get(run.job.place) is not run:
            return  # overtaken by a fresh one, whose answer is the newer
        del self._runs[run.job.place]
        if run.error is None and run.whole:
            try:
                answer = run.answer()
            except UpstreamProtocol:
                return  # who waits for the whole is told
            run.job.keep(answer)


class _Run:
    """One run.

    Attributes:
        job: of the caller who began it.
        record: what is billed for it, to one caller.
        events: of a stream, so far.
        error: why it failed.
        over: nothing more comes.
        task: makes the answer.
    """

    __slots__ = (
        "_ended", "_payer", "_response", "_seats", "error", "events", "job", "over", "record", "task"
    )  # fmt: skip

    def __init__(self, job: Job, ended: Callable[[_Run], None]) -> None:
        self.job = job
        own = job.record
        self.record = Settlement(own.request_id, own.model, own.streamed, own.caller)
        self.events: Batch = []
        self.error: Exception | None = None
        self.over = False
        self._response: chat_pb2.ChatResponse | None = None
        self._seats: dict[_Seat, None] = {}  # a set that keeps its order
        self._payer: _Seat | None = None
        self._ended = ended
        self.task = asyncio.get_running_loop().create_task(self._pursue())
        self.task.add_done_callback(self._done)

    @property
    def whole(self) -> bool:
        """Whether all of the answer is there."""
        if self._response is not None:
            return True
        return bool(self.events) and self.events[-1].HasField("completed")

    def answer(self) -> chat_pb2.ChatResponse:
        """A copy of the answer. Raises a copy of the error if there is one."""
        self.check()
        if self._response is None:
            self._response = fold(self.events)
        own = chat_pb2.ChatResponse()
        own.CopyFrom(self._response)
        return own

    def check(self, *, begun: bool = False) -> None:
        """Raises a copy of the error if there is one: each caller writes its request id into its own.

        Args:
            begun: somebody else's run, of which a part is out already.
        """
        error = self.error
        if error is None:
            return
        if not isinstance(error, GatewayError):
            raise RuntimeError("a shared run failed") from error
        if begun and fault_of(error) is Fault.CANCELLED:
            raise UpstreamUnavailable(
                "the identical call that this answer was shared with has met its deadline"
            ) from error
        own = copy.copy(error)
        own.metadata = dict(error.metadata)
        raise own from error

    def join(self, seat: _Seat) -> None:
        """One more follows."""
        self._seats[seat] = None

    async def leave(self, seat: _Seat) -> None:
        """One less. Without anybody left the run is over, and so is its upstream call on return."""
        del self._seats[seat]
        try:
            if not self._seats and not self.over:
                self._payer = self._payer or seat
                self._end()
                self.task.cancel()
                await asyncio.wait((self.task,))
        finally:
            self._settle(seat)

    async def _pursue(self) -> None:
        try:
            if self.job.stream is not None:
                async with aclosing(self.job.stream(self.record)) as batches:
                    async for batch in batches:
                        self.events += batch
                        if self.whole:
                            self._charge()
                        self._tell()
            elif self.job.complete is not None:
                self._response = await self.job.complete(self.record)
        except Exception as error:
            # Not swallowed: everybody who follows raises it.
            self.error = error
        self._end()

    def _done(self, task: asyncio.Task[None]) -> None:
        # Here, because a task that is cancelled before it began runs nothing of its own.
        if task.cancelled() and not self.over:
            self.error = UpstreamUnavailable("the gateway ended the call")
            self._end()

    def _end(self) -> None:
        if not self.over:
            self.over = True
            self._charge()
            self._tell()
            self._ended(self)

    def _charge(self) -> None:
        """Decides who pays: of those who get the answer, the one who came first."""
        if self._payer is None:
            self._payer = next(iter(self._seats), None)

    def _tell(self) -> None:
        for seat in self._seats:
            seat.wake()

    def _settle(self, seat: _Seat) -> None:
        """Writes into the caller's record what the run did, and, for one of them, what it cost."""
        into, made = seat.job.record, self.record
        into.provider = made.provider or into.provider
        into.target_model = made.target_model or into.target_model
        into.route = made.route or into.route
        if seat is self._payer:
            into.attempts += made.attempts
            into.tried.extend(made.tried)
            into.usage = made.usage
            into.cache = made.cache
            seat.job.mark(into, True)


class _Seat:
    """One caller's place at a run. An async context manager: leaving the block leaves the run.

    Attributes:
        run: the run.
        job: the caller's.
        led: the caller began it.
    """

    __slots__ = ("_late", "_timer", "_waiter", "job", "led", "run")

    def __init__(self, run: _Run, job: Job, *, led: bool) -> None:
        self.run = run
        self.job = job
        self.led = led
        self._late = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # Who leads needs none: the run keeps to that deadline by itself.
        if not led and (left := job.context.remaining()) is not None:
            self._timer = asyncio.get_running_loop().call_later(left, self._expire)
        run.join(self)

    async def news(self) -> None:
        """Waits until the run has moved on. Raises `DeadlineExceeded`, by the caller's own deadline."""
        if self._late:
            raise DeadlineExceeded(
                "the caller's deadline passed while it waited for an identical call"
            )
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """The run has moved on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def begins_anew(self) -> bool:
        """Whether the run has ended only because somebody else's time was up."""
        error = self.run.error
        return (
            not self.led
            and isinstance(error, GatewayError)
            and fault_of(error) is Fault.CANCELLED
            and self.job.context.remaining() != 0
        )

    async def __aenter__(self) -> _Seat:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self.run.leave(self)

    def _expire(self) -> None:
        self._late = True
        self.wake()


def _marked(event: chat_pb2.ChatEvent, record: Settlement) -> chat_pb2.ChatEvent:
    """A copy of Started that says what the cache did for this caller."""
    own = chat_pb2.ChatEvent()
    own.CopyFrom(event)
    own.started.served.cache = record.cache  # type: ignore[assignment]  # the same numbers
    return own
