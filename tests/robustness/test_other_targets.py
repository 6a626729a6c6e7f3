"""A first target that is broken in any way and any dialect: the second answers, or nobody hears of it.

Until the first event; after it no other target is asked, because half an answer is out already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio

from fakes.gateway import Gateway
from fakes.upstream import Answer, FakeUpstream, Step, disconnect, hang, html, reset
from robustness.fronts import FRONTS, Front
from robustness.ground import NOWHERE
from robustness.hostile import (
    BY_KIND,
    KINDS,
    RICH,
    error_body,
    failed,
    failure_event,
    pieces_of,
    provider,
    streamed,
)
from robustness.shown import server_sent
from square.vendors import Reply, Vendor

pytestmark = pytest.mark.asyncio(loop_scope="module")
both = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])

GOOD = Reply("From the second target.")
# What is wrong with the first target before its first event; an SDK's user never hears of it.
BROKEN: dict[str, Callable[[Vendor, bool], Step]] = {
    "resets": lambda v, s: reset(),
    "closes": lambda v, s: disconnect(),
    "is silent": lambda v, s: hang(),
    "HTML": lambda v, s: html(200),
    "a proxy's HTML": lambda v, s: html(502),
    "no JSON": lambda v, s: streamed(v, [b"data: {nope\n\n"]) if s else Answer([b"{nope"]),
    "nothing": lambda v, s: streamed(v, []) if s else Answer([]),
    "our key refused": lambda v, s: failed(v, 401),
    "too many requests": lambda v, s: failed(v, 429),
    "500": lambda v, s: failed(v, 500),
    "overloaded": lambda v, s: failed(v, 529),
    "an error with status 200": lambda v, s: Answer([error_body(v)]),
    "an error as the first event": lambda v, s: streamed(v, [failure_event(v)]) if s else failed(v, 503),
}  # fmt: skip


class Pair:
    """Two upstreams, and models whose first target is at one, the second at the other.

    The second target of each kind speaks the next kind's dialect.
    """

    def __init__(self, bad: FakeUpstream, good: FakeUpstream, gateway: Gateway) -> None:
        self.bad = bad
        self.good = good
        self.gateway = gateway
        self.http = gateway.http()

    def play(self, vendor: Vendor, step: Step, stream: bool) -> None:
        self.gateway.forget()
        self.bad.default(step)
        second = BY_KIND[next_kind(vendor.kind)]
        self.good.default(second.stream(GOOD) if stream else second.answer(GOOD))
        self.good.requests.clear()
        self.gateway.settlements.clear()

    async def post(self, front: Front, model: str, stream: bool) -> httpx.Response:
        return await self.http.post(front.path(model, stream), json=front.body(model, stream))


def next_kind(kind: str) -> str:
    return KINDS[(KINDS.index(kind) + 1) % len(KINDS)]


def pair_config(bad: str, good: str) -> str:
    lines = ["providers:"]
    for vendor in BY_KIND.values():
        lines.append(provider(vendor, bad, f"bad-{vendor.kind}"))
        lines.append(provider(vendor, good, f"good-{vendor.kind}"))
        lines.append(provider(vendor, NOWHERE, f"gone-{vendor.kind}"))
    lines.append("models:")
    for vendor in BY_KIND.values():
        second = BY_KIND[next_kind(vendor.kind)]
        for name in ("bad", "gone"):
            first = f'{{provider: {name}-{vendor.kind}, model: "{vendor.model}"}}'
            rest = f'{{provider: good-{second.kind}, model: "{second.model}"}}'
            lines.append(f"  {name}-{vendor.kind}: {{targets: [{first}, {rest}]}}")
    lines.append("timeouts: {first_byte: 100ms, connect: 1s}")
    return "\n".join(lines)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    async with (
        FakeUpstream() as bad,
        FakeUpstream() as good,
        Gateway(pair_config(bad.origin, good.origin)) as gateway,
    ):
        pair = Pair(bad, good, gateway)
        yield pair
        await pair.http.aclose()


def fronts_for(number: int) -> Front:
    """A door that chats, another one for each case, so that all have their turn."""
    able = [front for front in FRONTS if front.name != "completions"]
    return able[number % len(able)]


@both
@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("kind", KINDS)
async def test_another_target_answers(pair: Pair, kind: str, how: str, stream: bool) -> None:
    vendor = BY_KIND[kind]
    pair.play(vendor, BROKEN[how](vendor, stream), stream)
    front = fronts_for(KINDS.index(kind) + list(BROKEN).index(how))
    response = await pair.post(front, f"bad-{kind}", stream)
    assert response.status_code == 200, response.text
    assert response.headers["x-headgate-provider"] == f"good-{next_kind(kind)}"
    assert response.headers["x-headgate-attempts"] == "2"
    assert GOOD.text in (front.said(server_sent(response.content)) if stream else response.text)
    (settled,) = await pair.gateway.settled()
    assert (settled.outcome, settled.attempts) == ("OK", 2)


@both
@pytest.mark.parametrize("kind", KINDS)
async def test_another_target_answers_where_nobody_listens(
    pair: Pair, kind: str, stream: bool
) -> None:
    pair.play(BY_KIND[kind], reset(), stream)
    response = await pair.post(fronts_for(KINDS.index(kind)), f"gone-{kind}", stream)
    assert response.status_code == 200, response.text
    assert response.headers["x-headgate-provider"] == f"good-{next_kind(kind)}"


@both
@pytest.mark.parametrize("kind", KINDS)
async def test_the_callers_own_mistakes_are_not_tried_again(
    pair: Pair, kind: str, stream: bool
) -> None:
    vendor = BY_KIND[kind]
    front = fronts_for(KINDS.index(kind))
    pair.play(vendor, failed(vendor, 400, "tools: are no tools"), stream)
    response = await pair.post(front, f"bad-{kind}", stream)
    assert response.status_code == 400
    assert "are no tools" in front.told(response.json()).message
    assert not pair.good.requests


@pytest.mark.parametrize("kind", KINDS)
async def test_after_the_first_event_no_other_target_is_asked(pair: Pair, kind: str) -> None:
    """However far the first came: either the second answers, whole, or the stream ends in an error."""
    vendor = BY_KIND[kind]
    pieces = pieces_of(vendor, RICH)
    outcomes = []
    for count in range(len(pieces) - 2):
        front = fronts_for(count)
        broken = failure_event(vendor) if count % 2 else b""
        pair.play(
            vendor,
            streamed(vendor, [*pieces[:count], broken, b""], stop_after=count + 1, ending="fin"),
            True,
        )
        response = await pair.post(front, f"bad-{kind}", True)
        assert response.status_code == 200
        events = server_sent(response.content)
        begun = response.headers["x-headgate-provider"] == f"bad-{kind}"
        if begun:
            front.told_by_stream(response.content)
            assert response.headers["x-headgate-attempts"] == "1"
            assert not pair.good.requests
        else:
            assert front.said(events) == GOOD.text
            assert response.headers["x-headgate-attempts"] == "2"
        assert GOOD.text not in front.said(events) or not begun
        (settled,) = await pair.gateway.settled()
        assert (settled.outcome == "OK") is not begun
        outcomes.append(begun)
    assert outcomes == sorted(outcomes)  # once begun, always begun
    assert (outcomes[0], outcomes[-1]) == (False, True)


async def test_all_targets_broken_tells_of_the_last(pair: Pair) -> None:
    for number, kind in enumerate(KINDS):
        second = BY_KIND[next_kind(kind)]
        front = fronts_for(number)
        for stream in (False, True):
            pair.play(BY_KIND[kind], failed(BY_KIND[kind], 500, "the first"), stream)
            pair.good.default(failed(second, 429, "the second", headers={"retry-after": "3"}))
            response = await pair.post(front, f"bad-{kind}", stream)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "3"
            assert "the second" in front.told(response.json()).message
            (settled,) = await pair.gateway.settled()
            assert (settled.outcome, settled.attempts) == ("RATE_LIMITED", 2)
