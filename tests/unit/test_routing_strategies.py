"""Who comes first under each strategy."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.routers import ANYBODY, NOBODY, NOW, asked, health, names, order, router
from headgate.core import CallContext
from headgate.v1 import content_pb2
from headgate_server.faults import Fault
from headgate_server.health import TargetHealth
from headgate_server.prices import Prices
from headgate_server.routing import STRATEGIES, Router
from headgate_server.routing.affinity import ranked

Targets = list[dict[str, Any]]


def targets(*providers: str, weights: tuple[float, ...] = ()) -> Targets:
    return [
        {"provider": name, "weight": weight}
        for name, weight in itertools.zip_longest(providers, weights, fillvalue=1)
    ]


def one(strategy: str, listed: Targets, **options: Any) -> Router:
    more = options.pop("more", {})
    return router({"m": {"strategy": strategy, "targets": listed, **more}}, **options)


def busy(target: TargetHealth, calls: int) -> None:
    for _ in range(calls):
        target.begin(NOW)


def answered(target: TargetHealth, seconds: float) -> None:
    for _ in range(20):
        target.begin(NOW)
        target.first(seconds, NOW)
        target.end(Fault.NONE, seconds, NOW)


@settings(deadline=None)
@given(
    st.sampled_from(STRATEGIES),
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0, 7.0])), min_size=1, max_size=5
    ),
    st.integers(),
    st.booleans(),
)
def test_every_strategy_gives_back_all_candidates(
    strategy: str, states: list[tuple[int, float]], seed: int, keyed: bool
) -> None:
    listed = [
        {"provider": "openai", "model": f"m{number}", "weight": weight}
        for number, (_, weight) in enumerate(states)
    ]
    found = one(strategy, listed, seed=seed, more={"affinity": {"by": "user"}})
    for place, (calls, _) in enumerate(states):
        busy(health(found, "m", place), calls)
    tried = order(found, "m", **({"user": "u"} if keyed else {}))
    assert sorted(tried) == sorted(f"openai/m{number}" for number in range(len(states)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dice", [0.0, 1.0, 1e-300, 1 - 1e-16])
def test_no_throw_of_the_dice_fails(strategy: str, dice: float) -> None:
    listed = targets("openai", "ds", "groq", weights=(1e-9, 1e9, 0))
    assert len(order(one(strategy, listed, dice=lambda: dice), "m")) == 3


def test_priority_is_the_order_written() -> None:
    found = one("priority", targets("ds", "openai"))
    busy(health(found, "m"), 9)
    assert all(order(found, "m") == ["ds/m", "openai/m"] for _ in range(20))


def test_weights_are_shares_of_the_first_place() -> None:
    found = one("weighted", targets("openai", "ds", "groq", weights=(3, 1, 0)))
    orders = [order(found, "m") for _ in range(4000)]
    first = Counter(each[0] for each in orders)
    assert first["openai/m"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert first["ds/m"] / 4000 == pytest.approx(0.25, abs=0.03)
    assert all(each[-1] == "groq/m" for each in orders)


def test_the_second_place_goes_by_weight_too() -> None:
    found = one("weighted", targets("openai", "ds", "groq", weights=(8, 3, 1)))
    orders = [order(found, "m") for _ in range(8000)]
    second = Counter(each[1] for each in orders if each[0] == "openai/m")
    assert second["ds/m"] / second.total() == pytest.approx(0.75, abs=0.03)


def test_least_busy_goes_by_calls_in_flight_and_shares_ties() -> None:
    found = one("least_busy", targets("openai", "ds", "groq"))
    busy(health(found, "m", 0), 2)
    firsts = Counter(tuple(order(found, "m")) for _ in range(400))
    assert set(firsts) == {("ds/m", "groq/m", "openai/m"), ("groq/m", "ds/m", "openai/m")}
    assert min(firsts.values()) > 120


def test_latency_takes_the_quicker_of_two() -> None:
    found = one("latency", targets("openai", "ds", "groq"))
    for place, seconds in enumerate((0.1, 0.4, 0.9)):
        answered(health(found, "m", place), seconds)
    orders = [order(found, "m") for _ in range(3000)]
    first = Counter(each[0] for each in orders)
    # The slowest never wins, the middle one when the quickest is not drawn: one time in three.
    assert set(first) == {"openai/m", "ds/m"}
    assert first["ds/m"] / 3000 == pytest.approx(1 / 3, abs=0.04)
    assert {tuple(each) for each in orders} == {
        ("openai/m", "ds/m", "groq/m"),
        ("ds/m", "openai/m", "groq/m"),
    }


def test_latency_counts_the_calls_in_flight() -> None:
    found = one("latency", targets("openai", "ds"))
    for place in (0, 1):
        answered(health(found, "m", place), 0.1 * (place + 1))
    assert order(found, "m")[0] == "openai/m"
    busy(health(found, "m"), 5)
    assert order(found, "m")[0] == "ds/m"


# --- cost -----------------------------------------------------------------------------------------


def priced(provider: str, given: float | None, answer: float | None = None) -> dict[str, Any]:
    price = {"input": given, "output": answer if answer is not None else given}
    return {"provider": provider, **({"price": price} if given is not None else {})}


def test_the_cheapest_comes_first_and_the_unknown_last() -> None:
    listed = [priced("az", None), priced("or", None), priced("openai", 3), priced("ds", 1),
              priced("groq", 2)]  # fmt: skip
    expected = ["ds/m", "groq/m", "openai/m", "az/m", "or/m"]
    assert order(one("cost", listed), "m") == expected


def test_equal_prices_share() -> None:
    found = one("cost", [priced("openai", 1), priced("ds", 1)])
    first = Counter(order(found, "m")[0] for _ in range(400))
    assert min(first["openai/m"], first["ds/m"]) > 120


def test_the_price_is_that_of_this_request() -> None:
    found = one("cost", [priced("openai", 1, 10), priced("ds", 5, 1)])
    assert order(found, "m")[0] == "ds/m"  # 500 tokens of answer
    assert order(found, "m", max_tokens=1)[0] == "openai/m"
    assert order(found, "m", max_completion_tokens=1, max_tokens=1)[0] == "openai/m"
    assert order(found, "m", text="word " * 50_000)[0] == "openai/m"
    assert order(found, "m", text="word " * 50_000, max_tokens=100_000)[0] == "ds/m"


async def test_prices_come_from_the_list_unless_the_configuration_has_some() -> None:
    listed: Targets = [
        {"provider": "openai", "model": "gpt-4o"},
        {"provider": "openai", "model": "gpt-4o-mini"},
        {"provider": "openai", "model": "gpt-4", "price": {"input": 0, "output": 0}},
    ]
    prices = Prices()
    found = one("cost", listed, prices=prices)
    assert found.needs_prices
    assert not one("latency", listed, prices=prices).needs_prices
    assert order(found, "m") == ["openai/gpt-4", "openai/gpt-4o", "openai/gpt-4o-mini"]
    await prices.load()
    assert order(found, "m") == ["openai/gpt-4", "openai/gpt-4o-mini", "openai/gpt-4o"]


# --- affinity -------------------------------------------------------------------------------------

FIVE = ("openai", "ds", "groq", "or", "resp")


def affine(by: str = "user", listed: Targets | None = None, **settings: Any) -> Router:
    more = {"affinity": {"by": by, **settings}}
    return one("affinity", listed or targets(*FIVE), more=more)


def test_the_same_key_goes_to_the_same_target_and_keys_are_spread() -> None:
    found = affine()
    first = Counter()
    for number in range(2000):
        user = f"user-{number}"
        tried = order(found, "m", user=user)
        assert order(found, "m", user=user) == tried
        first[tried[0]] += 1
    assert all(count / 2000 == pytest.approx(0.2, abs=0.04) for count in first.values())
    assert len(first) == 5


def test_weights_are_shares_of_the_keys() -> None:
    found = affine(listed=targets("openai", "ds", "groq", weights=(3, 1, 0)))
    orders = [order(found, "m", user=f"user-{number}") for number in range(3000)]
    first = Counter(each[0] for each in orders)
    assert first["openai/m"] / 3000 == pytest.approx(0.75, abs=0.03)
    assert all(each[-1] == "groq/m" for each in orders)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=20), st.sampled_from(FIVE))
def test_only_the_keys_of_a_target_that_goes_are_moved(key: str, gone: str) -> None:
    rest = targets(*(name for name in FIVE if name != gone))
    before = ranked(key, affine().route("m").candidates, 1.25)
    after = ranked(key, affine(listed=rest).route("m").candidates, 1.25)
    assert [c.target.provider for c in after] == [
        c.target.provider for c in before if c.target.provider != gone
    ]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=5, max_size=5),
    st.lists(st.sampled_from([0.5, 1.0, 4.0]), min_size=5, max_size=5),
    st.floats(1.01, 3),
    st.text(min_size=1, max_size=5),
)
def test_nobody_is_first_beyond_the_bound(
    calls: list[int], weights: list[float], load: float, key: str
) -> None:
    found = affine(listed=targets(*FIVE, weights=tuple(weights)), load=load)
    candidates = found.route("m").candidates
    for each, count in zip(candidates, calls, strict=True):
        busy(each.health, count)

    def bound(weight: float) -> int:
        return math.ceil(load * (sum(calls) + 1) * weight / sum(weights))

    tried = ranked(key, candidates, load)
    crowded = [each.health.in_flight > bound(each.target.weight) for each in tried]
    assert not crowded[0]
    assert crowded == sorted(crowded)
    # Within the bound, and beyond it, the order is the one of the hash.
    idle = affine(listed=targets(*FIVE, weights=tuple(weights))).route("m").candidates
    usual = [each.target.provider for each in ranked(key, idle, load)]
    for group in (True, False):
        some = [
            each.target.provider for each, full in zip(tried, crowded, strict=True) if full is group
        ]
        assert some == [name for name in usual if name in some]


def test_a_popular_key_does_not_drown_its_target() -> None:
    found = affine(load=1.5)
    candidates = found.route("m").candidates
    for _ in range(100):
        ranked("everybody", candidates, 1.5)[0].health.begin(NOW)
    assert max(each.health.in_flight for each in candidates) <= math.ceil(1.5 * 100 / 5) + 1


def test_without_a_key_the_least_busy() -> None:
    for by in ("user", "session"):
        found = affine(by)
        for place in (0, 1, 2, 4):
            busy(health(found, "m", place), 1)
        assert order(found, "m")[0] == "or/m"


def first_of(found: Router, context: CallContext = NOBODY, **fields: Any) -> str:
    route = found.route("m")
    return names(found.plan(route, asked(**fields), context, ANYBODY, NOW))[0]


def test_the_key_may_be_the_user_or_its_safety_identifier() -> None:
    found = affine()
    for number in range(20):
        name = f"u{number}"
        assert first_of(found, user=name) == first_of(found, safety_identifier=name)


def test_the_key_may_be_a_header() -> None:
    found = affine("session", header="x-chat")
    seen = set()
    for number in range(50):
        context = CallContext(headers=(("x-other", "z"), ("x-chat", f"c{number}")))
        place = first_of(found, context, text=f"{random.random()}", user=f"{random.random()}")
        assert place == first_of(found, context)
        seen.add(place)
    assert len(seen) == 5


def message(role: content_pb2.Role.ValueType, text: str) -> content_pb2.Message:
    return content_pb2.Message(role=role, parts=[content_pb2.Part(text=text)])


def test_the_key_may_be_how_the_prompt_begins() -> None:
    found = affine("prompt", prefix=100)
    system, user = content_pb2.ROLE_SYSTEM, content_pb2.ROLE_USER
    assistant = content_pb2.ROLE_ASSISTANT

    def place(*messages: content_pb2.Message) -> str:
        request = asked()
        del request.messages[:]
        request.messages.extend(messages)
        return names(found.plan(found.route("m"), request, NOBODY, ANYBODY, NOW))[0]

    for number in range(20):
        opening = (message(system, "Be brief."), message(user, f"Question {number}"))
        later = (message(assistant, "Answer"), message(user, "And then?"))
        assert place(*opening) == place(*opening, *later)
        # Only so many characters count.
        long = message(user, f"{number}" + "x" * 100)
        assert place(long) == place(message(user, f"{number}" + "x" * 100 + "y" * 50))
    spread = {place(message(system, "Be brief."), message(user, f"{n}")) for n in range(50)}
    assert len(spread) == 5
    spread = {place(message(system, f"{n}"), message(user, "Hi")) for n in range(50)}
    assert len(spread) == 5


def test_tools_are_a_part_of_how_the_prompt_begins() -> None:
    found = affine("prompt")
    places = {
        first_of(found, tools=[{"function": {"name": "f", "parameters_json": f'{{"n": {n}}}'}}])
        for n in range(50)
    }
    assert len(places) == 5
