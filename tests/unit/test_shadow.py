"""Shadow traffic: copies never harm the call that they copy."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fakes.runs import Source, ask, call_of, config, nothing_left, ticks
from headgate.errors import UpstreamUnavailable
from headgate.v1 import chat_pb2
from headgate_server.call import Call
from headgate_server.routing import Route
from headgate_server.settlement import Settlement
from headgate_server.shadow import Shadows

OTHER = Route("other", ())


class Target:
    """Where copies go."""

    def __init__(self, *, held: bool = False) -> None:
        self.source = Source(held=held)
        self.calls: list[Call] = []
        self.records: list[Settlement] = []

    async def run(self, call: Call, record: Settlement) -> chat_pb2.ChatResponse:
        self.calls.append(call)
        self.records.append(record)
        return await self.source.complete(record)


def shadowed(**facts: Any) -> Call:
    return call_of(**{"shadow": OTHER} | facts)


async def test_what_a_copy_is() -> None:
    async with nothing_left():
        target = Target()
        shadows = Shadows(config("shadows: {timeout: 7}"), target.run, lambda: 100.0)
        call = shadowed(
            request=ask(n=2), request_id="req_1", idempotency_key="k", cache="refresh", seconds=1,
            headers=(("x-a", "b"),), tenant="t", traceparent="00-a-b-01",
        )  # fmt: skip
        assert shadows.send(call) is not None
        assert target.calls == []  # the caller does not wait even for its beginning
        await ticks(5)
        (copy,), (record,) = target.calls, target.records
        assert copy.request is call.request
        assert (copy.route, copy.shadow, copy.caller) == (OTHER, None, call.caller)
        context = copy.context
        assert (context.request_id, context.deadline) == ("req_1-shadow", 107.0)
        assert (context.idempotency_key, context.cache) == (None, "off")
        assert context.headers == call.context.headers
        assert context.traceparent == call.context.traceparent
        assert (record.request_id, record.streamed) == ("req_1-shadow", False)
        assert target.source.running == 0
        assert shadows.sent == 1


async def test_a_call_without_a_shadow() -> None:
    target = Target()
    assert Shadows(config(), target.run).send(call_of()) is None
    await ticks(3)
    assert target.calls == []


async def test_request_ids_stay_well_formed() -> None:
    target = Target()
    Shadows(config(), target.run).send(shadowed(request_id="r" * 128))
    await ticks(5)
    assert target.calls[0].context.request_id == "r" * 121 + "-shadow"


@pytest.mark.parametrize("error", [UpstreamUnavailable("down"), KeyError("defect"), TimeoutError()])
async def test_nobody_hears_of_failures(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "headgate_server.shadow")
    async with nothing_left():
        target = Target()
        target.source.error = error
        handle = Shadows(config(), target.run).send(shadowed(request_id="req_1"))
        assert handle is not None
        await handle
        (line,) = caplog.records
        assert line.levelno == logging.DEBUG
        assert "the shadow req_1-shadow of other failed" in line.message


async def test_at_most_so_many_and_one_complaint_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    async with nothing_left():
        target = Target(held=True)
        shadows = Shadows(config("shadows: {max_in_flight: 2}"), target.run, lambda: now)
        handles = [shadows.send(shadowed()) for _ in range(5)]
        assert [handle is not None for handle in handles] == [True, True, False, False, False]
        await ticks(3)
        now = 59.9
        shadows.send(shadowed())
        assert (shadows.sent, shadows.dropped, target.source.running) == (2, 4, 2)
        assert len(caplog.records) == 1
        now = 60.0
        shadows.send(shadowed())
        assert len(caplog.records) == 2
        assert "further ones are not sent (5 so far)" in caplog.records[1].message
        target.source.gate.set()
        await ticks(5)
        assert shadows.send(shadowed()) is not None
        await shadows.close()


@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_with_its_caller(turns: int) -> None:
    async with nothing_left():
        target = Target(held=turns < 4)
        handle = Shadows(config(), target.run).send(shadowed())
        assert handle is not None
        await ticks(turns)
        handle.cancel()
        await asyncio.wait([handle])
        assert target.source.running == 0


async def test_a_copy_ends_in_time_even_if_its_run_does_not() -> None:
    async with nothing_left():
        target = Target(held=True)
        handle = Shadows(config("shadows: {timeout: 0.02}"), target.run).send(shadowed())
        assert handle is not None
        async with asyncio.timeout(5):
            await handle
        assert target.source.running == 0


async def test_closing() -> None:
    async with nothing_left():
        target = Target(held=True)
        shadows = Shadows(config(), target.run)
        for _ in range(3):
            shadows.send(shadowed())
        await ticks(3)
        shadows.send(shadowed())  # and one that has not begun
        await shadows.close()
        assert target.source.running == 0
        assert shadows.send(shadowed()) is None
        await shadows.close()
