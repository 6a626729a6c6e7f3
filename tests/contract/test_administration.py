"""What operators are told by a real gateway, over gRPC and REST, and who may ask."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from contract.doors import ASK, Doors, no_complaints, outcome, request
from fakes.gateway import KEY
from fakes.upstream import FakeUpstream, error
from headgate import errors
from headgate.admin.v1 import route_service_pb2 as pb
from headgate.core import CallContext, RouteCore
from headgate_server.admin import Admin
from headgate_server.app import App
from headgate_server.config import parse_config
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES

ADMIN_KEY = "admin-key-0123456789"
KEYS = f"""
auth:
  mode: keys
  keys:
    - {{name: ci, key: "{KEY}"}}
    - {{name: ops, key: "{ADMIN_KEY}", admin: true}}
"""
CONFIG = """
providers:
  up: {{kind: openai, base_url: "{url}", api_key: "upstream-secret-key"}}
  other:
    kind: openai
    base_url: "{url}"
    api_keys: [{{name: eu, key: "first-secret-key"}}, {{name: us, key: "second-secret-key"}}]
models:
  m:
    strategy: priority
    targets: [{{provider: up, model: first}}, {{provider: up, model: second}}]
    fallbacks: [n]
  n: {{targets: [{{provider: other, model: third}}]}}
breaker: {{min_requests: 2, window: 60, open_for: 30}}
retries: {{max: 0}}
{extra}
"""


def doors_of(url: str, extra: str = "") -> tuple[App, Doors]:
    config = parse_config(
        CONFIG.format(url=url, extra=extra),
        "test.yaml",
        kinds=kinds(),
        strategies=STRATEGIES,
        env={},
    )
    app = App(config)
    return app, Doors(app.core, routes=Admin(app.core))


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


@pytest.fixture
async def doors(upstream: FakeUpstream) -> AsyncGenerator[Doors, None]:
    app, doors = doors_of(upstream.base_url)
    with no_complaints("rejected the gateway's credentials"):
        async with app, doors:
            yield doors


async def each(doors: Doors, call: Any) -> list[Any]:
    return [await outcome(call(routes)) for routes in doors.routes.values()]


def explained(**fields: Any) -> Any:
    asked = pb.ExplainRequest(request=request(**fields))
    return lambda routes: routes.explain(asked, CallContext(request_id="mine"))


def listed(route: str = "") -> Any:
    asked = pb.ListTargetsRequest(route=route)
    return lambda routes: routes.list_targets(asked, CallContext(request_id="mine"))


async def test_an_explanation_calls_nobody(doors: Doors, upstream: FakeUpstream) -> None:
    direct, apart = await each(doors, explained())
    assert direct == apart
    assert (direct.model, direct.route, direct.strategy) == ("m", "m", "priority")
    assert [(one.provider, one.model) for one in direct.candidates] == [
        ("up", "first"),
        ("up", "second"),
    ]
    assert all(one.reason for one in direct.candidates)
    assert [(one.model, one.kind) for one in direct.fallbacks] == [("n", "general")]
    assert direct.estimated_input_tokens > 0
    rest = await doors.each_rest("POST", "/admin/v1/explain", json=ASK)
    assert json.loads(rest[0]["body"]) == json.loads(rest[1]["body"])
    assert json.loads(rest[0]["body"])["candidates"][0]["model"] == "first"
    assert not upstream.requests


async def test_an_explanation_of_what_is_refused(doors: Doors) -> None:
    direct, apart = await each(doors, explained(temperature=7.0))
    assert direct == apart
    assert direct["class"] is errors.InvalidRequest
    assert direct["request_id"] == "mine"
    direct, apart = await each(doors, explained(model="none"))
    assert direct == apart
    assert direct["class"] is errors.ModelNotFound
    rest = await doors.each_rest(
        "POST", "/admin/v1/explain", json=ASK | {"temperature": 7}, headers={"x-request-id": "mine"}
    )
    assert rest[0] == rest[1]
    assert rest[0]["status"] == 400
    assert json.loads(rest[0]["body"])["error"]["param"] == "temperature"


async def test_targets_before_any_call(doors: Doors) -> None:
    direct, apart = await each(doors, listed())
    assert direct == apart
    found = {f"{one.provider}/{one.model}": one for one in direct.targets}
    assert list(found) == ["other/third", "up/first", "up/second"]
    first = found["up/first"]
    assert list(first.routes) == ["m"]
    assert first.breaker == pb.TargetState.BREAKER_CLOSED
    assert first.in_flight == first.window_calls == first.error_rate == 0
    for unset in ("opens_for", "ejected_for", "cooling_for", "first_token", "total", "limit"):
        assert not first.HasField(unset), unset
    direct, apart = await each(doors, listed("n"))
    assert direct == apart
    assert [one.model for one in direct.targets] == ["third"]
    direct, apart = await each(doors, listed("none"))
    assert direct == apart
    assert direct["class"] is errors.ModelNotFound


async def test_targets_tell_what_happened(doors: Doors, upstream: FakeUpstream) -> None:
    core = doors.cores["direct"]
    await core.chat_complete(request(model="up/second"), CallContext())
    upstream.default(error(500))
    for _ in range(3):
        await outcome(core.chat_complete(request(model="up/first"), CallContext()))
    upstream.script(error(401))
    await outcome(core.chat_complete(request(model="n"), CallContext()))
    direct, _ = await each(doors, listed())
    found = {one.model: one for one in direct.targets}
    first, second, third = found["first"], found["second"], found["third"]
    assert first.breaker == pb.TargetState.BREAKER_OPEN
    assert 25 < first.opens_for.ToSeconds() <= 30
    assert first.error_rate == 1
    assert first.window_calls >= 2
    assert second.breaker == pb.TargetState.BREAKER_CLOSED
    assert second.error_rate == 0
    assert 0 < second.total.ToMicroseconds() < 5e6
    (benched,) = third.benched_keys
    assert benched.name in ("eu", "us")
    assert benched.fault == "CREDENTIAL"
    assert benched.remaining.ToSeconds() > 0
    assert not first.benched_keys
    assert "secret" not in str(direct)
    rest = await doors.each_rest("GET", "/admin/v1/targets?route=m")
    for one in rest:
        states = {each["model"]: each for each in json.loads(one["body"])["targets"]}
        assert set(states) == {"first", "second"}
        assert states["first"]["breaker"] == "open"
        assert 25 < states["first"]["opens_for_seconds"] <= 30
        assert states["second"]["opens_for_seconds"] is None
    left = (await each(doors, explained()))[0].left_out
    assert [(one.model, "open" in one.reason) for one in left] == [("first", True)]


@pytest.mark.parametrize(
    ("key", "expected"),
    [(None, errors.Unauthenticated), (KEY, errors.PermissionDenied), (ADMIN_KEY, None)],
)
async def test_who_may_ask(
    upstream: FakeUpstream, key: str | None, expected: type[errors.GatewayError] | None
) -> None:
    app, doors = doors_of(upstream.base_url, KEYS)
    async with app, doors:
        context = CallContext(bearer=key)
        asked = pb.ExplainRequest(request=request())
        calls: list[Any] = [
            lambda routes: routes.explain(asked, context),
            lambda routes: routes.list_targets(pb.ListTargetsRequest(), context),
        ]
        for call in calls:
            direct, apart = await each(doors, call)
            assert direct == apart
            if expected is not None:
                assert direct["class"] is expected
                assert direct["request_id"] == context.request_id
        if expected is errors.PermissionDenied:
            assert "admin: true" in direct["message"]
        headers = {"x-request-id": "mine"} | ({"authorization": f"Bearer {key}"} if key else {})
        for method, path, body in (
            ("POST", "/admin/v1/explain", ASK),
            ("GET", "/admin/v1/targets", None),
        ):
            rest = await doors.each_rest(method, path, json=body, headers=headers)
            assert rest[0] == rest[1]
            assert rest[0]["status"] == (expected.http_status if expected else 200)


RULES = """
routes:
  - {when: {headers: {x-team: red}}, use: n}
  - {when: {tenant: acme}, use: n}
"""


async def test_headers_and_tenant_count_as_they_would(upstream: FakeUpstream) -> None:
    app, doors = doors_of(upstream.base_url, RULES)

    def routed(headers: dict[str, str], tenant: str | None = None) -> Any:
        asked = pb.ExplainRequest(request=request(), headers=headers, tenant=tenant)
        return lambda routes: routes.explain(asked, CallContext())

    async with app, doors:
        for headers, tenant, route in (
            ({}, None, "m"),
            ({"x-team": "blue"}, "other", "m"),
            ({"X-TEAM": "red"}, None, "n"),
            ({}, "acme", "n"),
        ):
            for found in await each(doors, routed(headers, tenant)):
                assert found.route == route, (headers, tenant)
        for path, headers, route in (
            ("/admin/v1/explain", {}, "m"),
            ("/admin/v1/explain", {"x-team": "red"}, "n"),
            ("/admin/v1/explain?tenant=acme", {}, "n"),
        ):
            for found in await doors.each_rest("POST", path, json=ASK, headers=headers):
                assert json.loads(found["body"])["route"] == route


async def test_the_document_says_what_is_answered(doors: Doors) -> None:
    async with httpx.AsyncClient(base_url=doors.rest["direct"]) as client:
        document = (await client.get("/openapi.json")).json()
        explanation = (await client.post("/admin/v1/explain", json=ASK)).json()
        (state, *_) = (await client.get("/admin/v1/targets")).json()["targets"]
    schemas = document["components"]["schemas"]
    assert list(schemas["Explanation"]["properties"]) == list(explanation)
    assert list(schemas["TargetState"]["properties"]) == list(state)
    responses = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    for status in ("200", "503"):
        assert "x-headgate-tried" in responses[status]["headers"]


def test_the_admin_is_a_route_core(doors: Doors) -> None:
    for routes in doors.routes.values():
        checked: RouteCore = routes
        assert checked.explain
