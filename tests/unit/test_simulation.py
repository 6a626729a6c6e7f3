"""The routing policies at work, in virtual time: the real router, health and executor, simulated targets.

Small versions of the scenarios of `tests/bench/simulation`. Every play is seeded, so these numbers do not
waver: one that changes has been changed.
"""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import replace

import pytest

from bench.simulation import measures, virtual
from bench.simulation.play import Played, play
from bench.simulation.scenarios import BY_NAME, STRATEGIES

SEEDS = (1, 2, 3)
# Seconds of each phase, and requests a second: enough of them to tell a p99, and a calm long enough for
# its successes to be in the breakers' way.
SHORT = {
    "slow": BY_NAME["slow"].shortened(4, 10, 1, rate=40),
    "failing": BY_NAME["failing"].shortened(7, 4, 5, rate=40),
    "limited": BY_NAME["limited"].shortened(2, 8, 6, rate=40),
    "outage": BY_NAME["outage"].shortened(12, 14, 1, 5, rate=45),
    "overload": BY_NAME["overload"].shortened(1, 7, 2),
    "hanging": replace(BY_NAME["hanging"].shortened(5, 14, 1, rate=30), settings="", patience=5.0),
}


@functools.cache
def played(name: str, strategy: str, seed: int = 1) -> Played:
    return play(SHORT[name], strategy, seed)


def test_virtual_time_takes_no_time() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(1800))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await loop.create_future()
        return loop.time() - begun

    begun = time.monotonic()
    assert virtual.run(wait()) == pytest.approx(3660)
    assert time.monotonic() - begun < 1


def test_a_wait_that_nothing_ends_is_an_error() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(virtual.Forever):
        virtual.run(wait())


def test_the_same_seed_gives_the_same_numbers() -> None:
    again = play(SHORT["limited"], "latency", 1)
    assert again.seen == played("limited", "latency").seen
    assert again.calls == played("limited", "latency").calls
    assert again.seen != played("limited", "latency", 2).seen


@pytest.mark.parametrize("seed", SEEDS)
def test_latency_beats_the_others_under_a_slow_target(seed: int) -> None:
    latency, weighted, busy = (
        measures.phase(played("slow", strategy, seed), "trouble")
        for strategy in ("latency", "weighted", "least_busy")
    )
    assert latency.success == weighted.success == busy.success == 1
    assert latency.p99 < weighted.p99
    assert latency.p99 < busy.p99
    assert latency.mean < weighted.mean
    assert latency.mean < busy.mean


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_outage_makes_no_storm_of_retries(strategy: str) -> None:
    assert measures.phase(played("outage", strategy), "trouble").calls <= 1.2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_outage_is_over_as_soon_as_one_target_is_back(strategy: str) -> None:
    outage = played("outage", strategy)
    assert measures.seconds_to_recover(outage) <= 0.9
    assert measures.phase(outage, "recovery").success == 1


@pytest.mark.parametrize("strategy", ["weighted", "least_busy", "latency", "affinity"])
def test_breakers_close_after_an_outage(strategy: str) -> None:
    outage = played("outage", strategy)
    # Two probes fail, after 5 and 10 s; the third comes just after the last target is back.
    assert measures.seconds_to_close(outage) <= 3
    assert {one.breaker for one in outage.standings[-3:]} == {"CLOSED"}


@pytest.mark.parametrize("strategy", ["priority", "weighted", "least_busy", "latency"])
def test_a_target_that_fails_at_once_loses_its_traffic(strategy: str) -> None:
    failing = played("failing", strategy)
    begin, end = failing.phase("trouble")
    assert measures.phase(failing, "trouble").success == 1
    assert failing.calls_in(begin + 2, end, "a") == 0
    # And it gets some again when it is well.
    assert failing.calls_in(*failing.phase("recovery"), "a") > 10


@pytest.mark.parametrize("strategy", ["priority", "weighted"])
def test_a_target_that_hangs_is_found_out_though_callers_leave_before_any_limit(
    strategy: str,
) -> None:
    hanging = played("hanging", strategy)
    begin, end = hanging.phase("trouble")
    assert measures.summary(hanging, begin, begin + 4).success < 0.8
    assert measures.summary(hanging, begin + 5.5, end).success > 0.97


def test_shedding_keeps_the_times_of_the_others_short() -> None:
    limited = measures.phase(played("overload", "least_busy"), "trouble")
    boundless = measures.phase(play(SHORT["overload"].contrasted(), "least_busy"), "trouble")
    assert limited.success > 0.6  # what the targets can serve
    assert limited.p99 < 2.5
    assert boundless.p99 > 4


@pytest.mark.parametrize("strategy", ["priority", "weighted", "least_busy", "latency"])
def test_a_rate_limited_target_is_left_alone_for_as_long_as_it_asks(strategy: str) -> None:
    limited = played("limited", strategy)
    assert measures.phase(limited, "trouble").success == 1
    refusals, calls = limited.limited["a"], limited.calls["a"]
    assert refusals
    too_early = [at for at in calls if any(0 < at - refused < 4.99 for refused in refusals)]
    assert not too_early
    # And it is taken again when its time is over.
    assert limited.calls_in(*limited.phase("recovery"), "a") > 0


@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_left_over(name: str) -> None:
    assert played(name, "least_busy" if name == "overload" else "weighted").left_over == 0
