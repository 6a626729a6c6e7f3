"""Ten thousand requests through a gateway half of whose upstreams fail, in every way there is.

One target is broken, another is well. What must hold: nothing is lost where another attempt is allowed,
nothing runs twice where it is not, every stream is whole or says that it is not, what is told about
attempts is what upstreams saw, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from contract.doors import no_complaints, nothing_left, resident_bytes, running_tasks, until
from headgate_server.faults import Fault
from robustness.callers import Callers, Told, callers
from robustness.chaos import TROUBLES, Chaos, Seen, marks, noted, said
from robustness.ground import NOWHERE

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED = 20_260_214
AT_A_TIME = 32
# Seconds; of targets whose trouble only a limit ends, and of those that may also do well.
STRICT, LENIENT = 0.25, 0.9
STRATEGIES = ("priority", "weighted", "latency")
# By rules alone: each request meets its trouble.
UNGUARDED = """
breaker: {enabled: false}
outliers: {enabled: false}
"""
# With breakers and ejections, as it is by default, but for shorter times.
GUARDED = """
breaker: {min_requests: 6, open_for: 100ms, max_open: 400ms}
outliers: {interval: 500ms, eject_for: 300ms}
"""
REQUESTS = {UNGUARDED: 7000, GUARDED: 3000}
# What may be tried again at the same target.
FLAKY = [
    name
    for name, trouble in TROUBLES.items()
    if trouble.fault is not Fault.RATE_LIMIT  # that lets the target rest, whatever is left
]
MEBIBYTE = 1 << 20


def config(bad: str, good: str, guard: str) -> str:
    limits = "timeouts: {{first_byte: {0}, first_token: {0}, idle: {0}}}"
    lines = [
        "providers:",
        f'  bad: {{kind: openai, base_url: "{bad}", api_key: bad-secret-key}}',
        f'  strict: {{kind: openai, base_url: "{bad}", {limits.format(STRICT)}}}',
        f'  lenient: {{kind: openai, base_url: "{bad}", {limits.format(LENIENT)}}}',
        f'  gone: {{kind: openai, base_url: "{NOWHERE}/v1", api_key: bad-secret-key}}',
        f'  good: {{kind: openai, base_url: "{good}", api_key: good-secret-key}}',
        "retries: {max: 0, base: 5ms, budget: 1.0, budget_min: 10000}",
        guard,
        "models:",
    ]
    for kind in [*TROUBLES, "gone", "dice"]:
        for strategy in STRATEGIES:
            name = f"{kind}.{strategy}"
            lines.append(
                f'  "{name}": {{strategy: {strategy}, targets: [{{provider: {provider(kind)}}}, '
                f'{{provider: good, model: "healthy.{name}"}}]}}'
            )
    for kind in FLAKY:
        lines.append(
            f"  flaky-{kind}: {{targets: [{{provider: {provider(kind)}}}], retries: {{max: 1}}}}"
        )
    return "\n".join(lines)


def provider(kind: str) -> str:
    """Who is in this kind of trouble."""
    if kind == "gone":
        return "gone"
    if kind != "dice" and not TROUBLES[kind].limited:
        return "bad"
    return "lenient" if kind == "dice" or TROUBLES[kind].late else "strict"


@dataclass(frozen=True)
class Case:
    """One request."""

    mark: str
    model: str
    kind: str
    stream: bool
    way: str


@dataclass(frozen=True)
class Outcome:
    """One request, what its caller was told, and what upstreams saw of it."""

    case: Case
    told: Told
    seen: Sequence[Seen]

    @property
    def counted(self) -> list[Seen]:
        """The attempts, as the gateway counts them."""
        return [each for each in self.seen if not each.unseen]


class Campaign:
    """Requests under way, and what came of them."""

    def __init__(self, asking: Callers, bad: Chaos, good: Chaos, *, guarded: bool) -> None:
        self.asking = asking
        self.bad = bad
        self.good = good
        self.guarded = guarded
        self.dice = random.Random(SEED)
        self.outcomes: list[Outcome] = []
        self.mark = marks()
        self.seconds = 0.0

    def cases(self, count: int) -> Iterator[Case]:
        """Requests of all kinds alike, shuffled."""
        models = [f"{kind}.{each}" for kind in [*TROUBLES, "gone", "dice"] for each in STRATEGIES]
        if not self.guarded:  # a breaker lets nobody try again
            models += [f"flaky-{kind}" for kind in FLAKY]
        cases = [
            Case(
                self.mark(),
                model := models[number % len(models)],
                model.partition(".")[0].removeprefix("flaky-"),
                stream=number // len(models) % 2 == 0,
                # gRPC takes the most time, and has the least to do with it.
                way=self.dice.choices(Callers.ways, (4, 1, 4, 1))[0],
            )
            for number in range(count)
        ]
        self.dice.shuffle(cases)
        return iter(cases)

    async def run(self, count: int) -> None:
        """So many requests, a few at a time."""
        cases = self.cases(count)

        async def some() -> None:
            for case in cases:
                async with asyncio.timeout(30):
                    told = await self.asking.ask(
                        case.way, case.model, f"Say {case.mark}", stream=case.stream
                    )
                seen = self.bad.seen.pop(case.mark, [])
                self.outcomes.append(Outcome(case, told, seen))

        await asyncio.gather(*(some() for _ in range(AT_A_TIME)))

    def of(self, kind: str) -> list[Outcome]:
        return [each for each in self.outcomes if each.case.kind == kind]


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[UNGUARDED, GUARDED], ids=["unguarded", "guarded"]
)
async def campaign(request: pytest.FixtureRequest) -> AsyncIterator[Campaign]:
    guard = request.param
    with no_complaints():
        async with nothing_left(), AsyncExitStack() as stack:
            seen = noted()
            bad = await stack.enter_async_context(Chaos("bad", seen, SEED))
            good = await stack.enter_async_context(Chaos("good", seen, SEED))
            asking = await stack.enter_async_context(
                callers(config(bad.base_url, good.base_url, guard))
            )
            campaign = Campaign(asking, bad, good, guarded=guard is GUARDED)
            began = time.monotonic()
            await campaign.run(REQUESTS[guard])
            campaign.seconds = time.monotonic() - began
            yield campaign


def upstream_of(provider: str) -> str:
    return "good" if provider == "good" else "bad"


def wrong(outcome: Outcome, *, guarded: bool) -> str:
    """What is wrong with an outcome; empty if nothing is."""
    case, told, counted = outcome.case, outcome.told, outcome.counted
    places = [each.upstream for each in counted]
    refused = sum(provider == "gone" for provider, _, _ in told.tried)
    if told.attempts != len(counted) + refused:
        return f"{told.attempts} attempts told"
    if len(told.tried) != told.attempts:
        return "not every attempt is told of"
    if len(outcome.seen) > len(counted) + 1:
        return "sent anew more than once"
    flaky = case.model.startswith("flaky-")
    if places.count("bad") > 1 + flaky or places.count("good") > 1:
        return "sent twice to one target"
    if refused == 0:
        providers = [upstream_of(provider) for provider, _, _ in told.tried]
        if providers != places:
            return "other targets told than asked"
    met = next((each.trouble for each in counted if each.upstream == "bad"), "")
    trouble = TROUBLES.get(met)
    for each, (_, fault, _) in zip(counted, told.tried, strict=False):
        expected = TROUBLES[each.trouble].fault
        name = expected.name if expected else "OK"
        if not refused and fault != name:
            return f"told of {fault}, and it was {name}"
    if trouble is not None and places[-1] == "bad" and not (flaky and counted[-1].trouble != met):
        # Nobody was asked after the bad one.
        if trouble.late and case.stream:
            if told.whole or not told.error or not told.begun:
                return "a broken stream does not say so"
            whole = said("bad", case.mark)
            return "" if told.text and whole.startswith(told.text) else "not what was sent"
        if trouble.fault is Fault.CALLER:
            return "" if told.error and "mistake" in told.message else "not the caller's mistake"
        if trouble.fault is not Fault.NONE and not (flaky and not trouble.again):
            return "given up"
        if flaky and trouble.fault is not Fault.NONE:
            return "" if told.error and not told.begun else "no error"
    if told.error or not told.whole:
        return "no whole answer"
    if told.text != said(upstream_of(told.provider), case.mark) or not places:
        return "not the answer to this request"
    if upstream_of(told.provider) != places[-1]:
        return "not the answer of the last target"
    if not guarded and case.model.endswith(".priority") and places[0] != "bad" and not refused:
        return "" if case.kind in ("429", "dice") else "not asked in order"
    return ""


@pytest.mark.parametrize("kind", [*TROUBLES, "gone", "dice"])
async def test_each_request_ends_as_it_must(campaign: Campaign, kind: str) -> None:
    outcomes = campaign.of(kind)
    assert len(outcomes) > 50
    found = [
        (outcome, reason)
        for outcome in outcomes
        if (reason := wrong(outcome, guarded=campaign.guarded))
    ]
    assert not found, f"{len(found)} of {len(outcomes)}: {Counter(r for _, r in found)}\n{found[0]}"
    met = sum(any(each.upstream == "bad" for each in outcome.seen) for outcome in outcomes)
    assert met or kind == "gone"  # else nothing was shown here
    if not campaign.guarded and kind in TROUBLES and not TROUBLES[kind].late:
        # Streams and whole answers, first and second targets, and every way in have had their turn.
        assert {each.case.stream for each in outcomes} == {False, True}
        assert {each.case.way for each in outcomes} == set(Callers.ways)


async def test_all_were_asked_and_settled_once(
    campaign: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, settled = campaign.outcomes, campaign.asking.settled
    assert not campaign.bad.seen  # nothing was sent after its caller had the answer
    assert len(asked) == REQUESTS[GUARDED if campaign.guarded else UNGUARDED]
    assert len(settled) == len(asked)
    whole = sum(outcome.told.whole for outcome in asked)
    assert Counter(each.outcome for each in settled)["OK"] == whole
    told = sum(outcome.told.attempts for outcome in asked)
    assert sum(each.attempts for each in settled) == told
    with capsys.disabled():
        print(
            f"\n{len(asked)} requests, {told} attempts, {whole} whole answers in "
            f"{campaign.seconds:.1f} s",
            end="",
        )


async def test_a_breaker_spares_the_broken_target(campaign: Campaign) -> None:
    """Where breakers are on, most requests do not even meet the trouble; where not, all do."""
    failing = [
        each
        for each in campaign.outcomes
        if each.case.model in ("500.priority", "reset.priority", "html.priority")
    ]
    met = sum(any(seen.upstream == "bad" for seen in each.seen) for each in failing)
    assert (met < 0.6 * len(failing)) if campaign.guarded else (met == len(failing))


async def test_nothing_is_under_way(campaign: Campaign) -> None:
    targets = campaign.asking.app.core.setup.board.all()
    assert len(targets) > 50
    await until(lambda: all(not each.in_flight and not each.queued for each in targets))
    assert campaign.asking.app.core.setup.running == 0


async def test_more_of_it_leaves_nothing_behind(campaign: Campaign) -> None:
    """No tasks, connections and objects that grow with the number of requests."""
    if campaign.guarded:
        return  # it calls the same code less often

    def counts() -> tuple[int, int, int]:
        campaign.outcomes.clear()
        campaign.asking.settled.clear()
        gc.collect()
        open_now = campaign.bad.open_connections + campaign.good.open_connections
        return len(gc.get_objects()), len(running_tasks()) - open_now, open_now

    await campaign.run(200)
    await asyncio.sleep(0.05)
    objects, tasks, connections = counts()
    memory = resident_bytes()
    await campaign.run(600)
    await asyncio.sleep(0.05)
    more_objects, more_tasks, more_connections = counts()
    assert more_objects - objects < 500
    assert more_tasks - tasks < 5
    assert more_connections - connections < AT_A_TIME
    assert resident_bytes() - memory < 16 * MEBIBYTE


async def test_the_judge_finds_what_is_wrong() -> None:
    """Lest ten thousand requests pass because nobody looks."""
    case = Case("#000001", "500.priority", "500", stream=True, way="rest")
    good = said("good", case.mark)
    seen = [Seen("bad", "500", False), Seen("good", "healthy", False)]
    tried = (("bad", "PROVIDER", False), ("good", "OK", False))
    told: dict[str, Any] = {
        "text": good, "whole": True, "begun": True, "provider": "good", "attempts": 2, "tried": tried
    }  # fmt: skip

    def judged(seen: Sequence[Seen] = seen, **changed: Any) -> str:
        return wrong(Outcome(case, Told(**told | changed), seen), guarded=False)

    assert judged() == ""
    assert judged(whole=False)
    assert judged(text=said("good", "#000002"))
    assert judged(text=said("bad", case.mark))
    assert judged(attempts=1)
    assert judged(seen=seen[:1])
    assert judged(seen=[*seen, seen[1]])
    assert judged(tried=(("bad", "OVERLOAD", False), tried[1]))
    assert judged(seen=seen[1:], attempts=1, tried=tried[1:])
    late = [Seen("bad", "late-cut", False), seen[1]]
    assert judged(seen=late)  # somebody else was asked after the first content
