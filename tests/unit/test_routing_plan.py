"""Which targets are left out of a plan; what happens when nobody is left; what fallbacks cannot take."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.routers import (
    ANYBODY,
    NOBODY,
    NOW,
    asked,
    break_down,
    health,
    names,
    order,
    planned,
    provider,
    router,
)
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.faults import Fault
from headgate_server.routing import Plan, Router

THREE = [{"provider": name} for name in ("openai", "ds", "groq")]


def three(strategy: str = "priority", **more: Any) -> Router:
    return router({"m": {"strategy": strategy, "targets": THREE}}, **more)


def reasons(plan: Plan) -> dict[str, str]:
    return {each.candidate.target.provider: each.reason for each in plan.left_out}


def plan_of(found: Router) -> Plan:
    return planned(found, found.route("m"))


def test_a_plan_of_calm_targets_is_made_once() -> None:
    found = three()
    assert plan_of(found) is plan_of(found)
    assert names(plan_of(found)) == ["openai/m", "ds/m", "groq/m"]
    assert plan_of(found).left_out == ()


def test_what_is_broken_or_resting_is_left_out() -> None:
    found = three()
    break_down(health(found, "m", 0))
    health(found, "m", 1).cool(NOW + 2.5)
    plan = plan_of(found)
    assert names(plan) == ["groq/m"]
    assert not plan.last_resort
    said = reasons(plan)
    assert said["openai"].startswith("breaker open for ")
    assert said["ds"] == "asked to be left alone for 2.5 s more"


def test_an_ejected_target_is_left_out() -> None:
    found = three()
    health(found, "m", 2).eject(10, NOW)
    assert reasons(plan_of(found)) == {
        "groq": "ejected for 10.0 s more: it failed more often than the other targets"
    }


def test_a_single_target_is_looked_at_too() -> None:
    found = router({"m": {"targets": THREE[:1]}})
    break_down(health(found, "m"))
    plan = plan_of(found)
    assert (names(plan), plan.last_resort, plan.left_out) == (["openai/m"], True, [])


def test_half_open_without_a_place_for_a_probe() -> None:
    found = three(sections={"breaker": {"probes": 1, "open_for": "5s"}})
    target = health(found, "m")
    break_down(target)
    later = target.until(NOW) + 0.1
    route, request = found.route("m"), asked()
    assert names(found.plan(route, request, NOBODY, ANYBODY, later))[0] == "openai/m"
    target.begin(later)
    plan = found.plan(route, request, NOBODY, ANYBODY, later)
    assert reasons(plan) == {
        "openai": "breaker half open, with as many calls under way as may try it"
    }


def test_full_targets_stand_behind_those_with_a_place() -> None:
    found = three(sections={"concurrency": {"limit": 2}})
    for place in (0, 1):
        for _ in range(2):
            health(found, "m", place).begin(NOW)
    plan = plan_of(found)
    assert names(plan) == ["groq/m", "openai/m", "ds/m"]
    assert not plan.left_out
    health(found, "m", 2).begin(NOW)
    assert names(plan_of(found)) == ["groq/m", "openai/m", "ds/m"]
    health(found, "m", 2).begin(NOW)
    assert names(plan_of(found)) == ["openai/m", "ds/m", "groq/m"]


def test_a_strategy_orders_what_is_left() -> None:
    found = three("least_busy", sections={"concurrency": {"limit": 5}})
    for place, calls in enumerate((5, 3, 1)):
        for _ in range(calls):
            health(found, "m", place).begin(NOW)
    assert order(found, "m") == ["groq/m", "ds/m", "openai/m"]
    health(found, "m", 2).cool(NOW + 1)
    assert order(found, "m") == ["ds/m", "openai/m"]


@pytest.mark.parametrize("strategy", ["priority", "least_busy"])
@pytest.mark.parametrize(
    ("thrown", "drawn"), [(0.0, "openai/m"), (0.5, "ds/m"), (0.99, "groq/m"), (1.0, "groq/m")]
)
def test_the_last_resort_is_drawn_whatever_the_strategy(
    strategy: str, thrown: float, drawn: str
) -> None:
    found = three(strategy, dice=lambda: thrown)
    for place in range(3):
        break_down(health(found, "m", place))
    plan = plan_of(found)
    assert plan.last_resort
    assert names(plan) == [drawn]
    assert len(plan.left_out) == 2
    assert drawn.removesuffix("/m") not in reasons(plan)


# --- keys -----------------------------------------------------------------------------------------

KEYS = {"api_keys": [{"key": "key-aaaa"}, {"key": "key-bbbb"}]}


def bench(found: Router, place: int, fault: Fault, count: int = 2) -> None:
    candidate = found.route("m").candidates[place]
    keyring = candidate.provider.keyring
    assert keyring is not None
    for key in keyring.keys[:count]:
        keyring.bench(key, fault, NOW + 60)


def test_a_provider_without_a_key_left_is_left_out() -> None:
    found = three(providers={"openai": KEYS})
    bench(found, 0, Fault.CREDENTIAL, count=1)
    assert names(plan_of(found)) == ["openai/m", "ds/m", "groq/m"]
    bench(found, 0, Fault.CREDENTIAL)
    plan = plan_of(found)
    assert names(plan) == ["ds/m", "groq/m"]
    assert reasons(plan) == {"openai": "all keys of openai rest"}


def test_nobody_is_tried_without_a_key() -> None:
    found = three(providers={"openai": KEYS, "ds": KEYS, "groq": KEYS})
    for place in range(3):
        bench(found, place, Fault.QUOTA)
    plan = plan_of(found)
    assert (plan.candidates, plan.last_resort) == ((), False)
    assert set(reasons(plan)) == {"openai", "ds", "groq"}


def test_the_last_resort_needs_a_key() -> None:
    found = three(providers={"openai": KEYS})
    bench(found, 0, Fault.CREDENTIAL)
    for place in (1, 2):
        break_down(health(found, "m", place))
    plan = plan_of(found)
    assert (names(plan), plan.last_resort) == (["ds/m"], True)
    assert reasons(plan)["openai"] == "all keys of openai rest"


def test_keys_that_rest_for_a_rate_limit_are_a_last_resort() -> None:
    found = router({"m": {"targets": THREE[:1]}}, providers={"openai": KEYS})
    bench(found, 0, Fault.RATE_LIMIT)
    plan = plan_of(found)
    assert (names(plan), plan.last_resort) == (["openai/m"], True)


# --- what a fallback cannot take ------------------------------------------------------------------


def part(kind: str, media_type: str = "x/y") -> content_pb2.Part:
    media = content_pb2.Media(url="https://x", media_type=media_type)
    return content_pb2.Part(**{kind: media})  # type: ignore[arg-type]


def saying(*parts: content_pb2.Part, **fields: Any) -> chat_pb2.ChatRequest:
    said = content_pb2.Message(role=content_pb2.ROLE_USER, parts=parts)
    return chat_pb2.ChatRequest(model="m", messages=[said], **fields)


TOOL = chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"))
SCHEMA = chat_pb2.ResponseFormat(json_schema=chat_pb2.JsonSchemaFormat(name="s"))


@pytest.mark.parametrize(
    ("catalog", "request_", "expected"),
    [
        ({"input": ["text"]}, saying(part("image")), "takes no image input"),
        ({"input": ["text"]}, saying(part("audio")), "takes no audio input"),
        ({"input": ["text"]}, saying(part("file", "video/mp4")), "takes no video input"),
        ({"input": ["text", "image"]}, saying(part("file", "application/pdf")), ""),
        ({"input": ["text"]}, saying(part("file", "text/plain")), ""),
        ({}, saying(part("image")), ""),
        ({"tools": False}, asked(tools=[TOOL]), "takes no tools"),
        ({"tools": False}, asked(), ""),
        ({"tools": True}, asked(tools=[TOOL]), ""),
        ({}, asked(tools=[TOOL]), ""),
        (
            {"structured_output": False},
            asked(response_format=SCHEMA),
            "cannot keep to a JSON Schema",
        ),
        ({"structured_output": False}, asked(), ""),
        ({}, asked(response_format=SCHEMA), ""),
        (
            {"context_window": 8192},
            asked(text="x" * 36_000),
            "its context window of 8192 tokens is smaller than the prompt's estimated 9004",
        ),
        ({"context_window": 8192}, asked(), ""),
        ({}, asked(text="x" * 36_000), ""),
    ],
)
def test_abilities(catalog: dict[str, Any], request_: chat_pb2.ChatRequest, expected: str) -> None:
    listed = [{"provider": "openai", "model": "unheard-of"}]
    found = router({"m": {"targets": listed, "catalog": catalog}})
    assert found.lacks(found.route("m"), request_) == expected


def test_a_provider_that_has_no_keys_of_its_own_needs_none() -> None:
    assert provider("openai", "openai").keyring is None
    found = router({"m": {"targets": THREE}})
    assert found.route("m").candidates[0].has_keys(NOW)
