"""Simulated targets: they answer after a while, or fail in the ways that real ones do.

Owns what a target does to a call. A `SimulatedProvider` is to the gateway a provider like any other: it
satisfies the protocol of `headgate_server.providers.runtime`, raises the errors that a dialect and
`upstream.py` would, and keeps to the limits that `upstream.py` keeps. It knows nothing of strategies.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Literal

from headgate.core import CallContext
from headgate.errors import (
    DeadlineExceeded,
    GatewayError,
    Overloaded,
    RateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.faults import Unreachable
from headgate_server.keyring import Key, Keyring
from headgate_server.providers import vendor_of
from headgate_server.providers.base import Target, Timeouts
from headgate_server.providers.runtime import Batch
from headgate_server.providers.vendors import Vendor

Trouble = Literal["", "errors", "overload", "refuses", "hangs"]

# How long a target takes to say no, in seconds; a refused connection is quicker than an answer.
_SECONDS_TO_FAIL = 0.03
_SECONDS_TO_REFUSE = 0.002
# Of the time of an answer, what passes before its first content.
_FIRST_CONTENT = 0.3
_MOST_BURST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Weather:
    """What a target does for a while.

    Attributes:
        slower: factor on the time of an answer.
        trouble: how calls fail: 500 at once, 529, no connection, no answer at all.
        share: of calls that have the trouble.
        per_second: calls that a rate limit lets through; None without one.
        retry_after: seconds that the rate limit asks to wait for.
    """

    slower: float = 1.0
    trouble: Trouble = ""
    share: float = 1.0
    per_second: float | None = None
    retry_after: float = 5.0


FAIR = Weather()


@dataclass(frozen=True, slots=True)
class Site:
    """A target by nature.

    Attributes:
        name: of its provider.
        median: seconds of a usual answer.
        spread: sigma of the lognormal distribution around it.
        slots: answers that it makes at a time, further calls queue there; None means any number.
        price: US dollars for one million tokens, in and out alike.
    """

    name: str
    median: float
    spread: float = 0.3
    slots: int | None = None
    price: float = 1.0


class SimulatedProvider:
    """One target, behind the protocol of providers.

    Args:
        site: what it is like.
        limits: of each call, as `upstream.py` would keep them.
        seed: of its dice.

    Attributes:
        weather: what it does now; the play changes it.
        begun: when each call came (the loop's clock), whatever became of it.
        limited: when each call was told that it was one too many.
        open: calls that it works on or keeps waiting.
    """

    kind = "openai"
    api_version: str | None = None
    dialect_name = "openai"
    secrets: tuple[str, ...] = ()
    keyring: Keyring | None = None

    def __init__(self, site: Site, limits: Timeouts, seed: str) -> None:
        self.site = site
        self.name = site.name
        self.vendor: Vendor = vendor_of(self.kind, "http://simulated.invalid")
        self.weather = FAIR
        self.begun: list[float] = []
        self.limited: list[float] = []
        self.open = 0
        self._limits = limits
        self._random = Random(seed)
        self._clock = asyncio.get_running_loop().time
        self._slots = None if site.slots is None else asyncio.Semaphore(site.slots)
        self._credit = 0.0  # of the rate limit, in calls
        self._counted = self._clock()

    async def complete(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> chat_pb2.ChatResponse:
        """A whole answer, after its time."""
        async with self._call(target, context) as seconds:
            await asyncio.sleep(seconds)
        answer = chat_pb2.ChatResponse(model=target.model)
        choice = answer.choices.add(finish_reason=chat_pb2.FINISH_REASON_STOP)
        choice.message.role = content_pb2.ROLE_ASSISTANT
        choice.message.parts.add().text = "Hello."
        return answer

    async def stream(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """The same answer in two pieces."""
        async with self._call(target, context) as seconds:
            await asyncio.sleep(_FIRST_CONTENT * seconds)
            started = chat_pb2.ChatEvent(started=chat_pb2.Started(model=target.model))
            part = chat_pb2.ChatEvent()
            part.part_started.initial.text = ""
            yield [started, part, chat_pb2.ChatEvent(part_delta=chat_pb2.PartDelta(text="Hel"))]
            await asyncio.sleep((1 - _FIRST_CONTENT) * seconds)
        finished = chat_pb2.ChoiceFinished(finish_reason=chat_pb2.FINISH_REASON_STOP)
        yield [
            chat_pb2.ChatEvent(part_delta=chat_pb2.PartDelta(text="lo.")),
            chat_pb2.ChatEvent(part_finished=chat_pb2.PartFinished()),
            chat_pb2.ChatEvent(choice_finished=finished),
            chat_pb2.ChatEvent(completed=chat_pb2.Completed()),
        ]

    async def count_tokens(
        self,
        request: chat_pb2.ChatRequest,
        target: Target,
        context: CallContext,
        key: Key | None = None,
    ) -> chat_pb2.CountTokensResponse | None:
        """Not here."""
        return None

    @asynccontextmanager
    async def _call(self, target: Target, context: CallContext) -> AsyncGenerator[float, None]:
        """The life of a call around its answer, within its limits; gives the seconds to answer in."""
        limits = target.timeouts or self._limits
        begun = self._clock()
        ends = begun + min(limits.first_byte, limits.total)
        late: GatewayError = UpstreamTimeout(f"provider {self.name!r} took too long")
        if context.deadline is not None and context.deadline < ends:
            ends, late = context.deadline, DeadlineExceeded("the caller's deadline passed")
        self.begun.append(begun)
        self.open += 1
        try:
            async with asyncio.timeout_at(ends):
                await self._trouble()
                if self._slots is None:
                    yield self._seconds()
                else:
                    async with self._slots:
                        yield self._seconds()
        except TimeoutError as error:
            raise late from error
        finally:
            self.open -= 1

    async def _trouble(self) -> None:
        """What goes wrong before an answer begins."""
        weather = self.weather
        if weather.per_second is not None and not self._within_rate(weather.per_second):
            await asyncio.sleep(_SECONDS_TO_FAIL)
            self.limited.append(self._clock())
            raise RateLimited("too many requests", retry_after=weather.retry_after)
        if not weather.trouble or self._random.random() >= weather.share:
            return
        if weather.trouble == "hangs":
            await asyncio.get_running_loop().create_future()  # only a limit ends it
        if weather.trouble == "refuses":
            await asyncio.sleep(_SECONDS_TO_REFUSE)
            raise Unreachable("connection refused")
        await asyncio.sleep(_SECONDS_TO_FAIL)
        if weather.trouble == "overload":
            raise Overloaded("overloaded")
        raise UpstreamUnavailable("internal server error")

    def _seconds(self) -> float:
        site = self.site
        return site.median * math.exp(self._random.gauss(0.0, site.spread)) * self.weather.slower

    def _within_rate(self, per_second: float) -> bool:
        """A token bucket of one second."""
        now = self._clock()
        earned = (now - self._counted) * per_second
        self._credit = min(self._credit + earned, per_second * _MOST_BURST_SECONDS)
        self._counted = now
        if self._credit < 1:
            return False
        self._credit -= 1
        return True
