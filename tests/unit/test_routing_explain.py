"""An explanation says what the router would do, and why."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.routers import ANYBODY, NOBODY, NOW, asked, break_down, health, names, router
from headgate.admin.v1 import route_service_pb2 as pb
from headgate.core import CallContext
from headgate.errors import ModelNotFound
from headgate.v1 import chat_pb2
from headgate_server.faults import Fault
from headgate_server.routing import STRATEGIES, Router, explain

TWO = [
    {"provider": "openai", "weight": 3, "price": {"input": 1, "output": 2}},
    {"provider": "ds", "weight": 1},
]


def told(
    found: Router, request: chat_pb2.ChatRequest | None = None, context: CallContext = NOBODY
) -> pb.ExplainResponse:
    return explain(found, request or asked(), context, ANYBODY, NOW)


@settings(deadline=None)
@given(
    st.sampled_from(STRATEGIES),
    st.lists(st.sampled_from(["ready", "busy", "full", "cooling", "open"]), min_size=1, max_size=4),
    st.integers(),
    st.sampled_from([None, 0.3]),
)
def test_it_never_disagrees_with_the_plan(
    strategy: str, states: list[str], seed: int, share: float | None
) -> None:
    """The same dice give the same route, the same order, and the same ones left out."""

    def built() -> Router:
        listed = [
            {"provider": "openai", "model": f"m{number}", "concurrency": {"limit": 2}}
            for number in range(len(states))
        ]
        rules = [{"share": share, "use": "n"}] if share else []
        model = {"strategy": strategy, "targets": listed}
        found = router({"m": model, "n": model}, seed=seed, sections={"routes": rules})
        for place, state in enumerate(states):
            target = health(found, "m", place)
            for _ in range({"busy": 1, "full": 2}.get(state, 0)):
                target.begin(NOW)
            if state == "cooling":
                target.cool(NOW + 3)
            if state == "open":
                break_down(target)
        return found

    request = asked(max_tokens=random.Random(seed).randint(1, 9))
    found = built()
    route, _ = found.resolve(request, NOBODY, ANYBODY)
    plan = found.plan(route, request, NOBODY, ANYBODY, NOW)
    said = told(built(), request)
    assert said.route == route.name
    assert [f"{each.provider}/{each.model}" for each in said.candidates] == names(plan)
    assert [(each.model, each.reason) for each in said.left_out] == [
        (each.candidate.target.model, each.reason) for each in plan.left_out
    ]
    assert all(each.reason for each in said.candidates)


def reasons(found: Router, **fields: Any) -> dict[str, str]:
    return {each.provider: each.reason for each in told(found, asked(**fields)).candidates}


def two(strategy: str, **more: Any) -> Router:
    return router({"m": {"strategy": strategy, "targets": TWO, **more}})


def test_the_words_of_each_strategy() -> None:
    assert reasons(two("priority")) == {
        "openai": "number 1 of 2 in the order written",
        "ds": "number 2 of 2 in the order written",
    }
    assert reasons(two("weighted")) == {"openai": "weight 3 of 4", "ds": "weight 1 of 4"}
    found = two("least_busy")
    health(found, "m").begin(NOW)
    assert reasons(found) == {"openai": "1 in flight", "ds": "0 in flight"}
    found = two("latency")
    for place, seconds in ((0, 0.5), (1, 0.25)):
        target = health(found, "m", place)
        target.begin(NOW)
        target.first(seconds, NOW)
        target.end(Fault.NONE, seconds, NOW)
    assert reasons(found) == {
        "openai": "cost 0.500 s",
        "ds": "cost 0.250 s, the better of two that were drawn",
    }
    assert reasons(two("cost")) == {"openai": "USD 0.001", "ds": "no known price"}
    found = two("affinity", affinity={"by": "user"})
    assert reasons(found, user="u") == dict.fromkeys(("openai", "ds"), "hash of user, 0 in flight")
    assert set(reasons(found).values()) == {"0 in flight, the request has no user"}
    assert reasons(router({"m": {"targets": TWO[:1]}})) == {"openai": "the only target"}


def test_what_is_full_and_what_is_a_last_resort() -> None:
    found = two("priority", targets=[{**each, "concurrency": {"limit": 1}} for each in TWO])
    health(found, "m").begin(NOW)
    assert reasons(found)["openai"] == (
        "number 1 of 2 in the order written; behind the others, at its limit of 1"
    )
    found = two("priority")
    for place in (0, 1):
        health(found, "m", place).cool(NOW + 2)
    said = told(found)
    assert [each.reason for each in said.candidates] == [
        "last resort, though asked to be left alone for 2.0 s more"
    ]
    assert [each.provider for each in said.left_out] == ["ds"]


def test_everything_else() -> None:
    blind = {"targets": TWO[:1], "catalog": {"tools": False}}
    found = router(
        {
            "m": {
                "targets": TWO,
                "aliases": ["nick"],
                "fallbacks": ["blind", "n"],
                "on_content_policy": ["or/x"],
            },
            "n": {"targets": TWO},
            "blind": blind,
        },
        sections={"routes": [{"name": "copy", "shadow": "n"}]},
    )
    tools = [chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"))]
    said = told(found, asked("nick", tools=tools))
    assert (said.model, said.route, said.strategy, said.shadow) == ("nick", "m", "priority", "n")
    assert list(said.steps) == [
        "rule 'copy' sends a copy to 'n'",
        "'nick' is an alias of 'm'",
    ]
    assert [(each.model, each.kind, each.left_out) for each in said.fallbacks] == [
        ("blind", "general", "takes no tools"),
        ("n", "general", ""),
        ("or/x", "on_content_policy", ""),
    ]
    assert said.estimated_input_tokens == 19


def test_no_such_model() -> None:
    with pytest.raises(ModelNotFound):
        told(router(), asked("nothing"))
