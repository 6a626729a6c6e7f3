"""What callers say beside their request, and what they are told of its way: alike through every door."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import grpc.aio
import httpx
import pytest

from contract.doors import (
    ASK,
    Doors,
    ScriptedCore,
    events_of,
    no_complaints,
    outcome,
    request,
)
from fakes.gateway import Gateway, config_for
from headgate import errors, metadata
from headgate.admin.v1 import route_service_pb2 as admin
from headgate.core import CallContext
from headgate.v1 import chat_pb2, chat_service_pb2_grpc, content_pb2, routing_pb2
from headgate_facade.settings import FacadeSettings

ASK_ANTHROPIC = ASK | {"max_tokens": 9}
DOORS = {
    "/v1/chat/completions": ASK,
    "/v1/messages": ASK_ANTHROPIC,
    "/v1/responses": {"model": "m", "input": "hi"},
    "/v1/completions": {"model": "m", "prompt": "hi"},
    "/v1beta/models/m:generateContent": {"contents": [{"parts": [{"text": "hi"}]}]},
}


def served() -> chat_pb2.Served:
    first = routing_pb2.Attempt(provider="a", model="x", fault=routing_pb2.FAULT_RATE_LIMIT)
    first.upstream_status = 429
    first.key = "eu"
    first.elapsed.FromMilliseconds(120)
    second = routing_pb2.Attempt(provider="b", model="y", hedge=True)
    second.elapsed.FromMilliseconds(900)
    second.waited.FromMilliseconds(300)
    return chat_pb2.Served(
        provider="b",
        model="y",
        attempts=2,
        dialect="openai",
        route="fast",
        tried=[first, second],
        cache=routing_pb2.CACHE_STATUS_SHARED,
        repeated_answer=True,
    )


TOLD = {
    "x-headgate-provider": "b",
    "x-headgate-model": "y",
    "x-headgate-attempts": "2",
    "x-headgate-route": "fast",
    "x-headgate-tried": "a/x key=eu RATE_LIMIT 0.120s, b/y OK 0.900s hedge",
    "x-headgate-waited": "0.300",
    "x-headgate-cache": "shared",
    "x-headgate-repeated": "true",
}


def failed() -> errors.GatewayError:
    error = errors.Overloaded("busy", retry_after=1)
    error.served = served()
    return error


@pytest.fixture
async def scripted() -> AsyncGenerator[tuple[ScriptedCore, Doors], None]:
    core = ScriptedCore()
    core.response.served.CopyFrom(served())
    core.response.choices.add().message.role = content_pb2.ROLE_ASSISTANT
    core.events = [
        chat_pb2.ChatEvent(started=chat_pb2.Started(id="1", model="y", served=served())),
        chat_pb2.ChatEvent(completed=chat_pb2.Completed()),
    ]
    with no_complaints():
        async with Doors(core, scripted=True) as doors:
            yield core, doors


# -- what comes in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", DOORS)
async def test_what_callers_say_arrives(
    scripted: tuple[ScriptedCore, Doors], path: str, stream: bool
) -> None:
    core, doors = scripted
    headers = [
        ("X-Team", "red"),
        ("x-tier", "gold"),
        ("x-team", "blue"),
        ("Idempotency-Key", "order-1"),
        ("X-Headgate-Cache", "Refresh"),
        ("x-api-key", "secret"),
        ("x-stainless-lang", "python"),
    ]
    body = DOORS[path]
    if stream and "v1beta" in path:
        path = path.replace("generateContent", "streamGenerateContent")
    elif stream:
        body = body | {"stream": True}
    await doors.each_rest("POST", path, json=body, headers=headers)
    for found in core.contexts:
        assert found.headers == (("x-team", "red"), ("x-team", "blue"), ("x-tier", "gold"))
        assert found.idempotency_key == "order-1"
        assert found.cache == "refresh"
        assert "blue" not in repr(found)
    assert len(core.contexts) == 2


async def test_nothing_said_is_nothing(scripted: tuple[ScriptedCore, Doors]) -> None:
    core, doors = scripted
    await doors.each_rest("POST", "/v1/chat/completions", json=ASK)
    for found in core.contexts:
        assert found.headers == ()
        assert found.idempotency_key is None
        assert found.cache is None


MALFORMED: dict[str, list[tuple[str, str | bytes]]] = {
    "unprintable": [("x-team", b"r\xe4d"), ("idempotency-key", b"\xff"), ("x-headgate-cache", b"\xe4")],
    "tab": [("x-team", "a\tb"), ("idempotency-key", "a\tb"), ("x-headgate-cache", "o\tn")],
    "long": [("x-team", "x" * 5000), ("idempotency-key", "x" * 5000), ("x-headgate-cache", "x" * 5000)],
    "many": [(f"x-team-{n}", "x" * 500) for n in range(40)],
    "odd names": [("x-!#$%&'*+^`|~", "a"), ("x-bytes-bin", "a"), ("x-", "a"), ("x-a_b.c", "a")],
    "empty": [("x-team", ""), ("idempotency-key", ""), ("x-headgate-cache", "")],
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_words_do_no_harm(scripted: tuple[ScriptedCore, Doors], case: str) -> None:
    core, doors = scripted
    given: Any = [*MALFORMED[case], ("x-request-id", "mine")]
    direct, apart = await doors.each_rest("POST", "/v1/chat/completions", json=ASK, headers=given)
    assert direct["status"] == apart["status"] == 200
    first, second = core.contexts
    assert first.headers == second.headers
    assert first.idempotency_key == second.idempotency_key
    assert first.cache == second.cache
    assert (first.idempotency_key is not None) == (case in ("unprintable", "tab", "long"))


async def test_words_of_a_grpc_caller(scripted: tuple[ScriptedCore, Doors]) -> None:
    core, doors = scripted
    context = CallContext(
        headers=(("x-team", "rät"), ("x-tier", "gold"), ("authorization", "Bearer no")),
        idempotency_key="ördnung",
        cache=" OFF ",
    )
    await doors.cores["grpc"].chat_complete(request(), context)
    async with grpc.aio.insecure_channel(doors.grpc_address) as channel:
        stub: Any = chat_service_pb2_grpc.ChatServiceStub(channel)
        sent = (("x-team", "red"), ("x-blob-bin", b"\x00"), ("x-tier", "gold"))
        await stub.ChatComplete(request(), metadata=(*sent, ("idempotency-key", "k")))
    client, bare = core.contexts
    assert client.headers == (("x-tier", "gold"),)
    assert client.idempotency_key == metadata.idempotency_key("ördnung")
    assert client.cache == "off"
    assert client.bearer is None
    assert bare.headers == (("x-team", "red"), ("x-tier", "gold"))
    assert bare.idempotency_key == "k"


async def test_words_end_at_the_first_gateway(scripted: tuple[ScriptedCore, Doors]) -> None:
    behind, doors = scripted
    text = config_for(f"http://{doors.grpc_address}").replace("kind: openai", "kind: headgate")
    async with Gateway(text) as gateway, gateway.client() as client:
        context = CallContext(headers=(("x-team", "red"),), idempotency_key="k", cache="on")
        await client.chat_complete(request(), context)
    (found,) = behind.contexts
    assert found.hops == 1
    assert (found.headers, found.idempotency_key, found.cache) == ((), None, None)


# -- what goes out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("path", DOORS)
async def test_answers_tell_their_way(
    scripted: tuple[ScriptedCore, Doors], path: str, stream: bool
) -> None:
    _, doors = scripted
    body = DOORS[path]
    if stream and "v1beta" in path:
        path = path.replace("generateContent", "streamGenerateContent")
    elif stream:
        body = body | {"stream": True}
    for found in await doors.each_rest("POST", path, json=body):
        assert found["status"] == 200, found
        assert {name: found["headers"].get(name) for name in TOLD} == TOLD


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("path", DOORS)
async def test_errors_tell_their_way(
    scripted: tuple[ScriptedCore, Doors], path: str, stream: bool
) -> None:
    core, doors = scripted
    core.events, core.make_error = (), failed
    body = DOORS[path]
    if stream and "v1beta" in path:
        path = path.replace("generateContent", "streamGenerateContent")
    elif stream:
        body = body | {"stream": True}
    direct, apart = await doors.each_rest("POST", path, json=body, headers={"x-request-id": "a"})
    assert direct == apart
    assert direct["status"] == 503
    assert {name: direct["headers"].get(name) for name in TOLD} == TOLD


async def test_errors_in_the_words_of_a_body_tell_their_way(
    scripted: tuple[ScriptedCore, Doors],
) -> None:
    core, doors = scripted

    def wrong() -> errors.GatewayError:
        error = errors.InvalidRequest.of("messages[0].parts[0]", "is too odd")
        error.served = served()
        return error

    core.make_error = wrong
    for found in await doors.each_rest("POST", "/v1/chat/completions", json=ASK):
        assert json.loads(found["body"])["error"]["param"] == "messages[0].content[0]"
        assert found["headers"]["x-headgate-tried"] == TOLD["x-headgate-tried"]


async def test_a_refusal_tells_of_no_way(scripted: tuple[ScriptedCore, Doors]) -> None:
    core, doors = scripted
    core.make_error = lambda: errors.Unauthenticated("no")
    for found in await doors.each_rest("POST", "/v1/chat/completions", json=ASK):
        assert found["status"] == 401
        assert not [name for name in found["headers"] if name.startswith("x-headgate-")]


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
async def test_errors_over_grpc_tell_their_way(
    scripted: tuple[ScriptedCore, Doors], late: bool
) -> None:
    core, doors = scripted
    core.make_error = failed
    core.events = core.events[:1] if late else ()
    context = CallContext()
    direct, apart = await doors.each(lambda each: events_of(each.chat_stream(request(), context)))
    assert direct == apart
    assert direct[-1]["served"] == served()
    direct, apart = await doors.each(lambda each: each.chat_complete(request(), context))
    assert direct == apart
    assert direct["served"] == served()


def pairs(found: Any) -> dict[str, Any]:
    return dict(found)


async def test_trailers_of_grpc_answers(scripted: tuple[ScriptedCore, Doors]) -> None:
    _, doors = scripted
    async with grpc.aio.insecure_channel(doors.grpc_address) as channel:
        stub: Any = chat_service_pb2_grpc.ChatServiceStub(channel)
        unary = stub.ChatComplete(request())
        await unary
        stream = stub.ChatStream(request())
        early = pairs(await stream.initial_metadata())
        assert [event async for event in stream]
        for call, named in (
            (unary, pairs(await unary.trailing_metadata())),
            (stream, early),
        ):
            assert named[metadata.PROVIDER] == "b"
            assert named[metadata.MODEL] == "y"
            assert named[metadata.ATTEMPTS] == "2"
            assert named[metadata.ROUTE] == "fast"
            packed = pairs(await call.trailing_metadata())[metadata.SERVED]
            assert chat_pb2.Served.FromString(packed) == served()


@pytest.mark.parametrize("name", ["x" * 3000, "é\n" * 100])
async def test_no_way_is_too_long_to_be_told(
    scripted: tuple[ScriptedCore, Doors], name: str
) -> None:
    core, doors = scripted
    many = served()
    many.tried.extend(list(many.tried) * 100)
    many.model = many.route = many.tried[0].model = name
    core.response.served.CopyFrom(many)
    core.events[0].started.served.CopyFrom(many)
    for found in await doors.each(lambda each: each.chat_complete(request(), CallContext())):
        assert found.served == many
    for events in await doors.each(
        lambda each: events_of(each.chat_stream(request(), CallContext()))
    ):
        assert events[-1].HasField("completed"), events
    for stream in (False, True):
        body = ASK | {"stream": stream}
        found = await doors.each_rest(
            "POST", "/v1/chat/completions", json=body, headers={"x-request-id": "a"}
        )
        assert found[0]["headers"] == found[1]["headers"]
        assert found[0]["status"] == 200

    def long() -> errors.GatewayError:
        error = errors.Overloaded("é" * 9999)
        error.served = many
        return error

    core.events, core.make_error = (), long
    for each in doors.cores.values():
        found = await outcome(each.chat_complete(request(), CallContext()))
        assert found["class"] is errors.Overloaded


async def test_pages_of_other_origins_may_read_it() -> None:
    core = ScriptedCore()
    core.response.served.CopyFrom(served())
    core.response.choices.add()
    async with Doors(core, FacadeSettings(cors_origins=("https://a.test",))) as doors:
        async with httpx.AsyncClient(base_url=doors.rest["direct"]) as client:
            found = await client.post(
                "/v1/chat/completions", json=ASK, headers={"origin": "https://a.test"}
            )
    exposed = found.headers["access-control-expose-headers"].split(", ")
    assert set(TOLD) <= set(exposed)


# -- what operators are told --------------------------------------------------------------------------


class ScriptedRoutes:
    """A `RouteCore` that gives what it was given."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.explanation = admin.ExplainResponse(
            model="m",
            route="fast",
            steps=["alias m -> fast"],
            strategy="weighted",
            candidates=[admin.Candidate(provider="a", model="x", reason="weight 3 of 4")],
            left_out=[admin.LeftOut(provider="b", model="y", reason="breaker open for 7.5 s more")],
            fallbacks=[admin.Fallback(model="n", kind="general")],
            estimated_input_tokens=12,
        )
        self.targets = admin.ListTargetsResponse(
            targets=[admin.TargetState(provider="a", model="x", routes=["fast"], breaker=2)]  # type: ignore[list-item]
        )
        self.targets.targets[0].opens_for.FromMilliseconds(7500)
        self.error: errors.GatewayError | None = None

    async def explain(
        self, request: admin.ExplainRequest, context: CallContext
    ) -> admin.ExplainResponse:
        return self._answer(request, context, self.explanation)

    async def list_targets(
        self, request: admin.ListTargetsRequest, context: CallContext
    ) -> admin.ListTargetsResponse:
        return self._answer(request, context, self.targets)

    def _answer(self, request: Any, context: CallContext, answer: Any) -> Any:
        self.asked.append(request)
        if self.error is not None:
            self.error.request_id = context.request_id
            raise self.error
        return answer


async def test_explain_over_rest() -> None:
    routes = ScriptedRoutes()
    async with Doors(ScriptedCore(), routes=routes) as doors:
        headers = {"x-team": "red", "x-request-id": "mine", "authorization": "Bearer k"}
        direct, apart = await doors.each_rest(
            "POST", "/admin/v1/explain?tenant=acme", json=ASK, headers=headers
        )
        assert direct == apart
        assert direct["status"] == 200
        assert direct["headers"]["x-request-id"] == "mine"
        assert json.loads(direct["body"]) == {
            "model": "m",
            "route": "fast",
            "steps": ["alias m -> fast"],
            "strategy": "weighted",
            "candidates": [{"provider": "a", "model": "x", "reason": "weight 3 of 4"}],
            "left_out": [{"provider": "b", "model": "y", "reason": "breaker open for 7.5 s more"}],
            "fallbacks": [{"model": "n", "kind": "general", "left_out": ""}],
            "shadow": "",
            "estimated_input_tokens": 12,
        }
        first, second = routes.asked
        assert first == second
        assert dict(first.headers) == {"x-team": "red"}
        assert first.tenant == "acme"
        assert first.request.messages[0].parts[0].text == "hi"
        routes.asked.clear()
        await doors.each_rest("POST", "/admin/v1/explain", json=ASK)
        assert not any(asked.HasField("tenant") for asked in routes.asked)


async def test_targets_over_rest() -> None:
    routes = ScriptedRoutes()
    async with Doors(ScriptedCore(), routes=routes) as doors:
        direct, apart = await doors.each_rest(
            "GET", "/admin/v1/targets?route=fast", headers={"x-request-id": "mine"}
        )
        assert direct == apart
        (target,) = json.loads(direct["body"])["targets"]
        assert target["breaker"] == "open"
        assert target["opens_for_seconds"] == 7.5
        assert target["cooling_for_seconds"] is None
        assert target["limit"] is None
        assert target["first_token_seconds"] is None
        assert [asked.route for asked in routes.asked] == ["fast", "fast"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'{"model": "m", "messages": 7}', "messages"),
        (
            b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "odd": '
            + (b"[" * 99999 + b"]" * 99999 + b"}"),
            None,
        ),
    ],
)
async def test_explain_of_what_is_no_request(body: bytes, param: str | None) -> None:
    async with Doors(ScriptedCore(), routes=ScriptedRoutes()) as doors:
        found = await doors.each_rest("POST", "/admin/v1/explain", content=body)
        for each in found:
            assert each["status"] == 400, each
            assert json.loads(each["body"])["error"]["param"] == param


async def test_explain_of_too_much() -> None:
    async with Doors(
        ScriptedCore(), FacadeSettings(body_limit=100), routes=ScriptedRoutes()
    ) as doors:
        for found in await doors.each_rest("POST", "/admin/v1/explain", content=b"x" * 101):
            assert found["status"] == 413


async def test_what_operators_are_not_told() -> None:
    routes = ScriptedRoutes()
    async with Doors(ScriptedCore(), routes=routes) as doors:
        for error, status in (
            (errors.PermissionDenied("no"), 403),
            (errors.ModelNotFound("none"), 404),
            (errors.InvalidRequest.of("messages[0].parts", "is empty"), 400),
        ):
            routes.error = error
            for method, path, body in (
                ("POST", "/admin/v1/explain", ASK),
                ("GET", "/admin/v1/targets", None),
            ):
                direct, apart = await doors.each_rest(
                    method, path, json=body, headers={"x-request-id": "mine"}
                )
                assert direct == apart
                assert direct["status"] == status
                assert direct["headers"]["x-request-id"] == "mine"
                assert json.loads(direct["body"])["error"]["message"]
        assert json.loads(direct["body"])["error"]["param"] is not None


async def test_without_routes_there_is_no_administration() -> None:
    async with Doors(ScriptedCore()) as doors:
        for found in await doors.each_rest("GET", "/admin/v1/targets"):
            assert found["status"] == 404
        client: Any = doors.cores["grpc"]
        found = await outcome(client.list_targets())
        assert found["class"] is errors.InternalError
