"""Every row of the error table, through each transport, unary and stream, early and late."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest

from contract.doors import (
    ASK,
    Doors,
    ScriptedCore,
    events_of,
    facts,
    no_complaints,
    request,
)
from fakes.bodies import chunks
from fakes.gateway import KEY, config_for
from fakes.upstream import (
    Answer,
    FakeUpstream,
    Step,
    answer,
    bad_chunks,
    bad_status_line,
    disconnect,
    error,
    html,
    rate_limited,
    redirect,
    reset,
    sse,
)
from headgate import errors
from headgate.core import CallContext
from headgate.errors import FieldViolation, GatewayError
from headgate.v1 import chat_pb2, content_pb2, model_service_pb2
from headgate_server.app import App
from headgate_server.config import parse_config
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES

FACTS = {"provider": "up", "model": "ü\n", "upstream_status": "418", "upstream_code": "x" * 300}
TEXT = 'Prüfe "dies": 100%\r\n\x00\ud800 \u2028'

# (class, keyword arguments, HTTP status, OpenAI's type, OpenAI's code)
TABLE: list[tuple[type[GatewayError], dict[str, Any], int, str, str | None]] = [
    (
        errors.InvalidRequest,
        {"violations": [FieldViolation("messages[0].parts[1]", "is empty")]},
        400,
        "invalid_request_error",
        None,
    ),
    (errors.ContextTooLong, {}, 400, "invalid_request_error", "context_length_exceeded"),
    (errors.ContentFiltered, {}, 400, "invalid_request_error", "content_filter"),
    (errors.Unauthenticated, {}, 401, "invalid_request_error", "invalid_api_key"),
    (errors.PermissionDenied, {}, 403, "invalid_request_error", "permission_denied"),
    (errors.ModelNotFound, {}, 404, "invalid_request_error", "model_not_found"),
    (errors.PayloadTooLarge, {}, 413, "invalid_request_error", "payload_too_large"),
    (errors.RateLimited, {"retry_after": 1.25}, 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.RateLimited, {}, 429, "rate_limit_error", "rate_limit_exceeded"),
    (
        errors.QuotaExhausted,
        {"retry_after": 3600.0},
        429,
        "insufficient_quota",
        "insufficient_quota",
    ),
    (errors.UpstreamUnavailable, {}, 503, "server_error", "upstream_unavailable"),
    (errors.Overloaded, {"retry_after": 0.0}, 503, "server_error", "overloaded"),
    (errors.StoreUnavailable, {}, 503, "server_error", "store_unavailable"),
    (errors.DeadlineExceeded, {}, 504, "server_error", "deadline_exceeded"),
    (errors.UpstreamTimeout, {}, 504, "server_error", "upstream_timeout"),
    (errors.UpstreamRejectedUs, {}, 502, "server_error", "upstream_rejected_us"),
    (errors.UpstreamProtocol, {}, 502, "server_error", "upstream_protocol"),
    (errors.InternalError, {}, 500, "server_error", None),
]
IDS = [f"{row[0].__name__}{'+' if row[1] else ''}" for row in TABLE]
STARTED = [
    chat_pb2.ChatEvent(started=chat_pb2.Started(id="1", model="x")),
    chat_pb2.ChatEvent(
        part_started=chat_pb2.PartStarted(choice=0, part=0, initial=content_pb2.Part(text=""))
    ),
    chat_pb2.ChatEvent(part_delta=chat_pb2.PartDelta(choice=0, part=0, text="Hel")),
]


def test_the_table_here_is_whole() -> None:
    def below(cls: type[GatewayError]) -> set[type[GatewayError]]:
        return {cls}.union(*(below(sub) for sub in cls.__subclasses__()))

    public = {cls for cls in below(GatewayError) if cls.__module__ == errors.__name__}
    assert {row[0] for row in TABLE} == public - {GatewayError}


@pytest.fixture
async def scripted() -> AsyncGenerator[tuple[ScriptedCore, Doors], None]:
    core = ScriptedCore()
    with no_complaints():
        async with Doors(core) as doors:
            yield core, doors


def maker(row: tuple[type[GatewayError], dict[str, Any], int, str, str | None]) -> Any:
    return lambda: row[0](TEXT, metadata=FACTS, **row[1])


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("row", TABLE, ids=IDS)
async def test_each_error_survives_the_wire(
    scripted: tuple[ScriptedCore, Doors], row: Any, late: bool
) -> None:
    core, doors = scripted
    core.make_error = maker(row)
    context = CallContext()
    expected = maker(row)()
    expected.request_id = context.request_id
    if late:
        core.events = STARTED
        found = await doors.each(lambda each: events_of(each.chat_stream(request(), context)))
        assert found[0] == found[1] == [*STARTED, facts(expected)]
        return
    found = await doors.each(lambda each: events_of(each.chat_stream(request(), context)))
    assert found[0] == found[1] == [facts(expected)]
    found = await doors.each(lambda each: each.chat_complete(request(), context))
    assert found[0] == found[1] == facts(expected)
    listed = model_service_pb2.ListModelsRequest()
    found = await doors.each(lambda each: each.list_models(listed, context))
    assert found[0] == found[1] == facts(expected)
    found = await doors.each(
        lambda each: each.get_model(model_service_pb2.GetModelRequest(id="m"), context)
    )
    assert found[0] == found[1] == facts(expected)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("row", TABLE, ids=IDS)
async def test_each_error_over_rest_before_the_answer(
    scripted: tuple[ScriptedCore, Doors], row: Any, stream: bool
) -> None:
    core, doors = scripted
    core.make_error = maker(row)
    direct, grpc = await doors.each_rest(
        "POST",
        "/v1/chat/completions",
        json=ASK | {"stream": stream},
        headers={"x-request-id": "mine"},
    )
    assert direct == grpc
    _, options, status, kind, code = row
    assert direct["status"] == status
    assert direct["headers"]["content-type"] == "application/json"
    assert direct["headers"]["x-request-id"] == "mine"
    body = json.loads(direct["body"])["error"]
    assert body["type"] == kind
    assert code is None or body["code"] == code
    assert ("retry-after" in direct["headers"]) == ("retry_after" in options)
    if "violations" in options:
        assert body["param"] == "messages[0].content[1]"


@pytest.mark.parametrize("row", TABLE, ids=IDS)
async def test_each_error_over_rest_in_the_middle(
    scripted: tuple[ScriptedCore, Doors], row: Any
) -> None:
    core, doors = scripted
    core.events = STARTED
    core.make_error = maker(row)
    direct, grpc = await doors.each_rest(
        "POST", "/v1/chat/completions", json=ASK | {"stream": True}, headers={"x-request-id": "a"}
    )
    # The chunks' made-up times may differ by a tick of the clock.
    assert direct["status"] == grpc["status"] == 200
    datas = [each["body"].strip().split("\n\n") for each in (direct, grpc)]
    assert datas[0][-1] == datas[1][-1]
    assert len(datas[0]) == len(datas[1])
    assert "Hel" in datas[0][-2]
    last = json.loads(datas[0][-1].removeprefix("data: "))
    assert last["error"]["type"] == row[3]
    assert "[DONE]" not in direct["body"]


# -- what upstreams do ------------------------------------------------------------------------------

RESTS = "param is wrong"
UPSTREAM: dict[str, tuple[Step, type[GatewayError]]] = {
    "400": (error(400, RESTS, type="invalid_request_error", param="top_k"), errors.InvalidRequest),
    "400 context": (
        error(400, "too long", code="context_length_exceeded"),
        errors.ContextTooLong,
    ),
    "400 filter": (error(400, "no", code="content_filter"), errors.ContentFiltered),
    "401": (error(401, "Incorrect API key: upstream-secret-key"), errors.UpstreamRejectedUs),
    "403": (error(403, "no"), errors.UpstreamRejectedUs),
    "404": (error(404, "no such model"), errors.ModelNotFound),
    "413": (error(413, "large"), errors.PayloadTooLarge),
    "429": (rate_limited(2), errors.RateLimited),
    "429 ms": (rate_limited(headers={"retry-after-ms": "250"}), errors.RateLimited),
    "429 quota": (error(429, "pay", code="insufficient_quota"), errors.QuotaExhausted),
    "500": (error(500, "uh, upstream-secret-key"), errors.UpstreamUnavailable),
    "503": (error(503), errors.Overloaded),
    "504": (error(504), errors.UpstreamTimeout),
    "html": (html(502), errors.UpstreamUnavailable),
    "redirect": (redirect("http://127.0.0.1:9/"), errors.UpstreamProtocol),
    "not HTTP": (bad_status_line(), errors.UpstreamProtocol),
    "bad chunk size": (bad_chunks(), errors.UpstreamProtocol),
    "closed": (disconnect(), errors.UpstreamUnavailable),
    "reset": (reset(), errors.UpstreamUnavailable),
}


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


async def real(base_url: str, extra: str = "") -> tuple[App, Doors]:
    text = config_for(base_url, extra=extra + "\nretries: {max: 0}\n")
    config = parse_config(text, "test.yaml", kinds=kinds(), strategies=STRATEGIES, env={})
    app = App(config)
    return app, Doors(app.core)


@pytest.fixture
async def doors(upstream: FakeUpstream) -> AsyncGenerator[Doors, None]:
    app, doors = await real(upstream.base_url)
    with no_complaints("rejected the gateway's credentials"):
        async with app, doors:
            yield doors


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("case", UPSTREAM)
async def test_upstream_faults_before_the_answer(
    doors: Doors, upstream: FakeUpstream, case: str, stream: bool
) -> None:
    step, cls = UPSTREAM[case]
    upstream.default(step)
    context = CallContext()
    found: list[Any]
    if stream:
        found = await doors.each(lambda core: events_of(core.chat_stream(request(), context)))
        assert [len(each) for each in found] == [1, 1]
        found = [each[0] for each in found]
    else:
        found = await doors.each(lambda core: core.chat_complete(request(), context))
    assert found[0] == found[1]
    assert found[0]["class"] is cls
    assert found[0]["request_id"] == context.request_id
    assert found[0]["metadata"]["provider"] == "up"
    assert found[0]["metadata"]["model"] == "upstream-m"
    assert "secret" not in str(found[0])
    rest = await doors.each_rest(
        "POST",
        "/v1/chat/completions",
        json=ASK | {"stream": stream},
        headers={"x-request-id": "mine"},
    )
    assert rest[0] == rest[1]
    assert rest[0]["status"] == cls.http_status
    assert "secret" not in str(rest[0])


PAUSE = 0.05  # so that what came before has been read by itself
HALF: list[Any] = chunks(["Hel", "lo"], finish_reason="")
LATE: dict[str, tuple[Answer | Step, type[GatewayError]]] = {
    "ends without finish": (sse(HALF), errors.UpstreamProtocol),
    "breaks off": (sse(HALF, stop_after=2, ending="fin"), errors.UpstreamUnavailable),
    "reset": (sse(HALF, stop_after=2, ending="rst"), errors.UpstreamUnavailable),
    "not JSON": (sse([*HALF, PAUSE, b"data: {oops\n\n"]), errors.UpstreamProtocol),
    "error event": (
        sse([*HALF, PAUSE, {"error": {"message": "slow down", "type": "rate_limit_error"}}]),
        errors.RateLimited,
    ),
    "overloaded event": (
        sse([*HALF, PAUSE, {"error": {"message": "busy", "type": "overloaded_error"}}]),
        errors.Overloaded,
    ),
}


@pytest.mark.parametrize("case", LATE)
async def test_upstream_faults_in_the_middle(
    doors: Doors, upstream: FakeUpstream, case: str
) -> None:
    step, cls = LATE[case]
    upstream.default(step)
    context = CallContext()
    direct, grpc = await doors.each(lambda core: events_of(core.chat_stream(request(), context)))
    assert direct == grpc
    assert direct[-1]["class"] is cls, direct[-1]
    assert len(direct) > 1
    assert len(upstream.requests) == 2  # nothing is tried again after an event
    rest = await doors.each_rest(
        "POST",
        "/v1/chat/completions",
        json=ASK | {"stream": True},
        headers={"x-request-id": "mine"},
    )
    assert rest[0] == rest[1]
    assert rest[0]["status"] == 200
    assert '"error"' in rest[0]["body"]
    assert "[DONE]" not in rest[0]["body"]


WRONG: dict[str, chat_pb2.ChatRequest] = {
    "no model": request(model=""),
    "no messages": chat_pb2.ChatRequest(model="m"),
    "unknown model": request(model="no-such-model"),
    "a model with a line break": request(model="m\nx"),
    "a very long model": request(model="up/" + "x" * 3000),
    "temperature": request(temperature=7.0),
    "many": request(temperature=7.0, top_p=3.0, n=0, max_tokens=-1, presence_penalty=9.0),
    "part without kind": chat_pb2.ChatRequest(
        model="m",
        messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part()])],
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_refused_beforehand(doors: Doors, upstream: FakeUpstream, case: str) -> None:
    upstream.default(error(418, "not found", code="x" * 500))
    context = CallContext()
    direct, grpc = await doors.each(lambda core: core.chat_complete(WRONG[case], context))
    assert direct == grpc
    assert direct["class"] is not errors.InternalError
    direct, grpc = await doors.each(lambda core: events_of(core.chat_stream(WRONG[case], context)))
    assert direct == grpc


KEYS = f"""
auth: {{mode: keys, keys: [{{name: ci, key: "{KEY}", models: ["other*"]}}]}}
"""


@pytest.mark.parametrize("key", [None, "", "wrong-key-0123456789", "schlüssel", KEY])
async def test_keys(upstream: FakeUpstream, key: str | None) -> None:
    app, doors = await real(upstream.base_url, KEYS)
    async with app, doors:
        context = CallContext(bearer=key)
        direct, grpc = await doors.each(lambda core: core.chat_complete(request(), context))
        assert direct == grpc
        expected = errors.ModelNotFound if key == KEY else errors.Unauthenticated
        assert direct["class"] is expected
        headers = {"x-request-id": "mine"}
        if key is not None:
            headers["authorization"] = f"Bearer {key}".rstrip()
        raw = {name: value.encode() for name, value in headers.items()}
        rest = await doors.each_rest("POST", "/v1/chat/completions", json=ASK, headers=raw)
        assert rest[0] == rest[1]
        assert rest[0]["status"] == expected.http_status
        if key == KEY:
            unknown = request(model="no-such-model")
            other = await doors.each(lambda core: core.chat_complete(unknown, context))
            assert other[0]["message"].replace("no-such-model", "m") == direct["message"]


# -- defects ----------------------------------------------------------------------------------------


async def test_a_defect_is_opaque_everywhere(upstream: FakeUpstream) -> None:
    app, doors = await real(upstream.base_url)

    def explode(*_: object) -> None:
        raise ZeroDivisionError("the secret is this")

    app.core.setup.router.plan = explode  # type: ignore[assignment, method-assign]
    async with app, doors:
        context = CallContext()
        calls: list[Callable[[Any], Any]] = [
            lambda core: core.chat_complete(request(), context),
            lambda core: events_of(core.chat_stream(request(), context)),
        ]
        for call in calls:
            direct, grpc = await doors.each(call)
            assert direct == grpc
            found = direct[0] if isinstance(direct, list) else direct
            assert found["class"] is errors.InternalError
            assert context.request_id in found["message"]
            assert "secret" not in found["message"]
        app.core.setup.router.route = explode  # type: ignore[assignment, method-assign]
        asked = model_service_pb2.GetModelRequest(id="m")
        direct, grpc = await doors.each(lambda core: core.get_model(asked, context))
        assert direct == grpc
        assert direct["class"] is errors.InternalError
        rest = await doors.each_rest(
            "POST", "/v1/chat/completions", json=ASK, headers={"x-request-id": "mine"}
        )
        assert rest[0] == rest[1]
        assert rest[0]["status"] == 500


async def test_a_defect_of_any_core_is_opaque_to_grpc_callers() -> None:
    core = ScriptedCore()
    core.make_error = lambda: ZeroDivisionError("the secret is this")
    async with Doors(core) as doors:
        client = doors.cores["grpc"]
        context = CallContext()
        for found in (
            await doors_outcome(client.chat_complete(request(), context)),
            (await events_of(client.chat_stream(request(), context)))[0],
            await doors_outcome(client.list_models(model_service_pb2.ListModelsRequest(), context)),
        ):
            assert found["class"] is errors.InternalError
            assert "secret" not in found["message"]
            assert found["request_id"] == context.request_id


async def doors_outcome(call: Any) -> Any:
    try:
        return await call
    except GatewayError as failure:
        return facts(failure)


async def test_a_core_that_is_not_there() -> None:
    """Only the facade that stands apart can meet this."""
    core = ScriptedCore()
    async with Doors(core) as doors:
        await doors._grpc.stop(0)
        found = await doors_outcome(doors.cores["grpc"].chat_complete(request(), CallContext()))
        assert found["class"] is errors.UpstreamUnavailable
        async with httpx.AsyncClient(base_url=doors.rest["grpc"]) as client:
            response = await client.post("/v1/chat/completions", json=ASK)
            assert response.status_code == 503
            response = await client.post("/v1/chat/completions", json=ASK | {"stream": True})
            assert response.status_code == 503
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200


async def test_a_client_that_is_closed_under_its_calls() -> None:
    """Those who wait get an error; they were not cancelled."""
    import asyncio

    class Silent(ScriptedCore):
        async def chat_complete(self, request: Any, context: CallContext) -> Any:
            await asyncio.sleep(30)

        def chat_stream(self, request: Any, context: CallContext) -> Any:
            from headgate.core import EventStream

            async def batches() -> Any:
                yield list(STARTED)
                await asyncio.sleep(30)

            return EventStream(batches())

    async with Doors(Silent()) as doors:
        client: Any = doors.cores["grpc"]
        context = CallContext()
        unary = asyncio.create_task(doors_outcome(client.chat_complete(request(), context)))
        stream = asyncio.create_task(events_of(client.chat_stream(request(), context)))
        await asyncio.sleep(0.2)
        await client.close()
        async with asyncio.timeout(2):
            found = [await unary, (await stream)[-1]]
        assert [each["class"] for each in found] == [errors.UpstreamUnavailable] * 2
        # A wait that is cancelled stays cancelled.
        task = asyncio.create_task(client.chat_complete(request(), context))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_no_answer_at_all_is_an_error(upstream: FakeUpstream) -> None:
    upstream.default(answer(b"", status=200))
    app, doors = await real(upstream.base_url)
    async with app, doors:
        context = CallContext()
        direct, grpc = await doors.each(lambda core: core.chat_complete(request(), context))
        assert direct == grpc
        assert direct["class"] is errors.UpstreamProtocol
