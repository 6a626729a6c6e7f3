"""What makes answers where no socket is needed: counted, held back until told, and watched for leaks."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from headgate.core import CallContext, deadline_after
from headgate.errors import DeadlineExceeded
from headgate.unfold import unfold
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.auth import Caller
from headgate_server.call import Call
from headgate_server.config import Config, parse_config
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES, Route
from headgate_server.settlement import Settlement, Tried

STOP = chat_pb2.FINISH_REASON_STOP


@functools.cache
def config(text: str = "") -> Config:
    """A configuration; settings that are not given have their defaults."""
    return parse_config(text or "{}", "test.yaml", kinds=kinds(), strategies=STRATEGIES)


def ask(text: str = "Hi", **fields: Any) -> chat_pb2.ChatRequest:
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text=text)])
    return chat_pb2.ChatRequest(**({"model": "m", "messages": [message]} | fields))


def call_of(
    request: chat_pb2.ChatRequest | None = None,
    *,
    tenant: str = "",
    route: str = "m",
    routes: Config | None = None,
    seconds: float | None = None,
    shadow: Route | None = None,
    **context: Any,
) -> Call:
    """An admitted call; its route has the settings of the configuration's model of that name."""
    settings = routes.models.get(route) if routes is not None else None
    if seconds is not None:
        context["deadline"] = deadline_after(seconds)
    return Call(
        ask() if request is None else request,
        CallContext(**context),
        Caller(tenant=tenant),
        Route(route, (), settings),
        shadow,
    )


def record_of(call: Call, *, streamed: bool = False) -> Settlement:
    return Settlement(call.context.request_id, call.request.model, streamed)


def reply(text: str = "Hello", reason: int = STOP) -> chat_pb2.ChatResponse:
    """A whole answer, as the executor gives it."""
    response = chat_pb2.ChatResponse(id="1", model="up")
    response.served.provider, response.served.model = "p", "up"
    response.served.route, response.served.attempts = "m", 1
    response.served.tried.add(provider="p", model="up")
    choice = response.choices.add(finish_reason=reason, provider_finish_reason="stop")  # type: ignore[arg-type]
    choice.message.role = content_pb2.ROLE_ASSISTANT
    choice.message.parts.add(text=text)
    response.usage.input_tokens, response.usage.output_tokens = 3, 5
    return response


class Source:
    """Makes one answer again and again.

    Attributes:
        answer: what is answered.
        error: what is raised instead; of a stream, behind its second event.
        gate: nothing is answered before it is set; of a stream, nothing behind its second event.
        begun, running: how many runs.
        deadline: `DeadlineExceeded` is raised then, as the executor does.
    """

    def __init__(self, answer: chat_pb2.ChatResponse | None = None, *, held: bool = False) -> None:
        self.answer = reply() if answer is None else answer
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()
        self.begun = 0
        self.running = 0
        self.deadline: float | None = None

    async def complete(self, record: Settlement) -> chat_pb2.ChatResponse:
        self._begin(record)
        try:
            await self._wait()
            response = chat_pb2.ChatResponse()
            response.CopyFrom(self.answer)
            record.usage = response.usage
            return response
        finally:
            await self._finish()

    async def stream(self, record: Settlement) -> AsyncGenerator[list[chat_pb2.ChatEvent], None]:
        self._begin(record)
        try:
            events = unfold(self.answer)
            yield events[:2]
            await self._wait()
            for event in events[2:]:
                if event.HasField("completed"):
                    record.usage = event.completed.usage
                yield [event]
                await asyncio.sleep(0)
        finally:
            await self._finish()

    def _begin(self, record: Settlement) -> None:
        self.begun += 1
        self.running += 1
        record.attempts += 1
        record.provider, record.target_model, record.route = "p", "up", "m"
        record.tried.append(Tried("p", "up"))

    async def _wait(self) -> None:
        left = None
        if self.deadline is not None:
            left = max(self.deadline - asyncio.get_running_loop().time(), 0)
        try:
            async with asyncio.timeout(left):
                await self.gate.wait()
        except TimeoutError as error:
            raise DeadlineExceeded("the caller's deadline passed") from error
        if self.error is not None:
            raise self.error

    async def _finish(self) -> None:
        try:
            await asyncio.sleep(0)  # a socket that is closed
        finally:
            self.running -= 1


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fails if the block leaves a task, or an exception that nobody has seen."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    try:
        yield
        assert asyncio.all_tasks() == before
        gc.collect()
        await asyncio.sleep(0)
        assert complaints == []
    finally:
        loop.set_exception_handler(None)


async def ticks(count: int) -> None:
    """Lets the loop go round so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
