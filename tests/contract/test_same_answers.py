"""The same call through each transport: answers equal field by field, events one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from contract.doors import ASK, Doors, ScriptedCore, events_of, no_complaints, nothing_left, request
from fakes.bodies import chunks, completion, tool_call
from fakes.gateway import config_for
from fakes.upstream import FakeUpstream, answer, sse
from headgate import fold
from headgate.core import CallContext
from headgate.v1 import chat_pb2, model_service_pb2
from headgate_server.app import App
from headgate_server.config import parse_config
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES

MODELS = "\n".join(f"  model-{number:02}: {{targets: [{{provider: up}}]}}" for number in range(25))
CALL = tool_call("weather", {"city": "Paris", "days": 3, "ä": "\u2028"})
LOGPROBS = {"content": [{"token": "Hé", "logprob": -0.1, "bytes": [72, 195], "top_logprobs": []}]}
UNARY = {
    "text": completion("Hello, wörld \u0000\u2028 🙂"),
    "empty": completion(""),
    "no usage": completion("x", usage=None),
    "tool calls": completion(None, tool_calls=[CALL, tool_call("other", id="call_2")]),
    "reasoning": completion("42", message={"reasoning_content": "I think, so \n I am."}),
    "refusal": completion(None, message={"refusal": "No."}, finish_reason="stop"),
    "annotations": completion(
        "See.",
        message={
            "annotations": [
                {
                    "type": "url_citation",
                    "url_citation": {
                        "url": "https://x.test",
                        "title": "X",
                        "start_index": 0,
                        "end_index": 3,
                    },
                }
            ]
        },
    ),
    "cut": completion("Hel", finish_reason="length"),
    "unknown members": completion("x", vendor_says={"b": 1, "a": [1.0, 9007199254740993]}),
    "odd finish": completion("x", finish_reason="because"),
    "big": completion("x" * 3_000_000),
}
STREAMS = {
    "text": chunks(["Hel", "lo", " 🙂"], usage=True),
    "no usage": chunks(["Hello"]),
    "tool calls": chunks([], tool_calls=[CALL, tool_call("other", id="call_2")], usage=True),
    "reasoning": chunks(["42"], reasoning=["I think", ", so"], usage=True),
    "cut": chunks(["Hel"], finish_reason="length", usage=True),
    "unknown members": chunks(["x"], vendor_says={"b": 1, "a": 1.0}),
    "many": chunks(["x"] * 2000, usage=True),
}


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


@pytest.fixture
async def doors(upstream: FakeUpstream) -> AsyncGenerator[Doors, None]:
    text = config_for(upstream.base_url).replace("models:\n", f"models:\n{MODELS}\n")
    config = parse_config(text, "test.yaml", kinds=kinds(), strategies=STRATEGIES, env={})
    with no_complaints():
        async with App(config) as app, Doors(app.core) as doors:
            yield doors


@pytest.mark.parametrize("case", UNARY)
async def test_unary_answers_are_equal(doors: Doors, upstream: FakeUpstream, case: str) -> None:
    upstream.default(answer(UNARY[case]))
    direct, grpc = await doors.each(lambda core: core.chat_complete(request(), CallContext()))
    assert isinstance(direct, chat_pb2.ChatResponse), direct
    assert direct == grpc
    assert direct.served.attempts == 1
    assert direct.served.provider == "up"
    sent = [record.json for record in upstream.requests]
    assert sent[0] == sent[1]


@pytest.mark.parametrize("case", STREAMS)
async def test_events_are_equal(doors: Doors, upstream: FakeUpstream, case: str) -> None:
    upstream.default(sse(STREAMS[case]))
    direct, grpc = await doors.each(
        lambda core: events_of(core.chat_stream(request(), CallContext()))
    )
    assert direct == grpc
    assert direct[0].HasField("started")
    assert direct[-1].HasField("completed")
    assert fold(direct) == fold(grpc)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", STREAMS)
async def test_rest_answers_are_equal(
    doors: Doors, upstream: FakeUpstream, case: str, stream: bool
) -> None:
    upstream.default(sse(STREAMS[case]) if stream else answer(UNARY.get(case, UNARY["text"])))
    body = ASK | {"stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    direct, grpc = await doors.each_rest(
        "POST", "/v1/chat/completions", json=body, headers={"x-request-id": "mine"}
    )
    assert direct == grpc
    assert direct["status"] == 200
    assert direct["headers"]["x-request-id"] == "mine"
    assert direct["headers"]["x-headgate-attempts"] == "1"
    assert not stream or direct["body"].endswith("data: [DONE]\n\n")


async def test_warnings_are_equal(doors: Doors, upstream: FakeUpstream) -> None:
    asked = request(top_k=3)
    direct, grpc = await doors.each(lambda core: core.chat_complete(asked, CallContext()))
    assert direct == grpc
    direct, grpc = await doors.each(lambda core: events_of(core.chat_stream(asked, CallContext())))
    assert direct == grpc


async def test_models_page_by_page(doors: Doors) -> None:
    pages: list[list[model_service_pb2.ListModelsResponse]] = []
    for core in doors.cores.values():
        found, token = [], ""
        while True:
            page = await core.list_models(
                model_service_pb2.ListModelsRequest(page_size=7, page_token=token), CallContext()
            )
            found.append(page)
            token = page.next_page_token
            if not token:
                break
        pages.append(found)
    assert pages[0] == pages[1]
    assert [len(page.models) for page in pages[0]] == [7, 7, 7, 5]
    ids = [model.id for page in pages[0] for model in page.models]
    assert ids == sorted([*(f"model-{n:02}" for n in range(25)), "m"])


@pytest.mark.parametrize(
    ("size", "token"),
    [(-1, ""), (0, "junk"), (0, "!!"), (0, "bTp"), (0, "ü"), (0, "eDp5"), (0, "/w==")],
)
async def test_wrong_pages(doors: Doors, size: int, token: str) -> None:
    asked = model_service_pb2.ListModelsRequest(page_size=size, page_token=token)
    context = CallContext()
    direct, grpc = await doors.each(lambda core: core.list_models(asked, context))
    assert direct == grpc
    assert direct["class"].__name__ == "InvalidRequest"
    assert direct["violations"][0].field == ("page_size" if size else "page_token")
    assert direct["request_id"] == context.request_id


@pytest.mark.parametrize("size", [0, 1, 26, 1000, 100_000])
async def test_page_sizes(doors: Doors, size: int) -> None:
    asked = model_service_pb2.ListModelsRequest(page_size=size)
    direct, grpc = await doors.each(lambda core: core.list_models(asked, CallContext()))
    assert direct == grpc
    assert len(direct.models) == (size if 0 < size < 26 else 26)


@pytest.mark.parametrize(
    "model", ["m", "model-07", "up/anything-at-all", "none", "", "none/x", "é\n"]
)
async def test_one_model(doors: Doors, model: str) -> None:
    asked = model_service_pb2.GetModelRequest(id=model)
    context = CallContext()
    direct, grpc = await doors.each(lambda core: core.get_model(asked, context))
    assert direct == grpc
    if isinstance(direct, dict):
        assert direct["request_id"] == context.request_id
    else:
        assert direct.id == model


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/m", "/v1/models/none", "/v1/model-catalog/m", "/nowhere"]
)
async def test_models_over_rest(doors: Doors, path: str) -> None:
    direct, grpc = await doors.each_rest("GET", path, headers={"x-request-id": "mine"})
    assert direct == grpc


async def test_ready(doors: Doors) -> None:
    assert [await core.ready() for core in doors.cores.values()] == [True, True]
    assert [found["status"] for found in await doors.each_rest("GET", "/readyz")] == [200, 200]


async def test_a_draining_core_is_not_ready(upstream: FakeUpstream) -> None:
    config = parse_config(
        config_for(upstream.base_url), "test.yaml", kinds=kinds(), strategies=STRATEGIES, env={}
    )
    async with App(config) as app, Doors(app.core) as doors:
        app.core.drain()
        await doors._grpc.stop(0)
        assert [await core.ready() for core in doors.cores.values()] == [False, False]
        found = await doors.each_rest("GET", "/readyz")
        assert [each["status"] for each in found] == [503, 503]
        assert found[0] == found[1]
        alive = await doors.each_rest("GET", "/healthz")
        assert [each["status"] for each in alive] == [200, 200]


HEADERS: dict[str, dict[str, str | bytes]] = {
    "nothing": {},
    "all": {
        "authorization": "Bearer sk-1",
        "x-request-id": "a.b-c_d",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
    },
    "not ASCII": {
        "authorization": b"Bearer \xc3\xa4",
        "traceparent": b"\xff",
        "x-request-id": b"\xe4",
    },
    "another scheme": {"authorization": "Basic abc"},
    "long": {"authorization": "Bearer " + "k" * 4000},
}


@pytest.mark.parametrize("case", HEADERS)
async def test_what_the_core_gets_to_know(case: str) -> None:
    core = ScriptedCore()
    async with Doors(core) as doors:
        found = await doors.each_rest(
            "POST", "/v1/chat/completions", json=ASK, headers=HEADERS[case]
        )
        assert found[0]["status"] == found[1]["status"] == 200
    direct, grpc = core.contexts
    if "x-request-id" in HEADERS[case]:
        assert direct.request_id == grpc.request_id or case == "not ASCII"
    if case == "not ASCII":  # cannot pass, and can be nothing but wrong
        assert direct.bearer and grpc.bearer == "?"
        assert grpc.traceparent is None
        return
    assert direct.bearer == grpc.bearer
    assert direct.traceparent == grpc.traceparent
    assert direct.tracestate == grpc.tracestate
    assert direct.deadline is grpc.deadline is None


@pytest.mark.parametrize("name", ["é", "a\nb", "x" * 20_000, "\x00", " ", "", "100%"])
async def test_any_name_of_an_upstream_model_passes(
    doors: Doors, upstream: FakeUpstream, name: str
) -> None:
    upstream.default(answer(completion("x", model=name)))
    direct, grpc = await doors.each(lambda core: core.chat_complete(request(), CallContext()))
    assert isinstance(direct, chat_pb2.ChatResponse), direct
    assert direct == grpc
    upstream.default(sse(chunks(["x"], model=name)))
    direct, grpc = await doors.each(
        lambda core: events_of(core.chat_stream(request(), CallContext()))
    )
    assert direct[-1].HasField("completed"), direct
    assert direct == grpc


async def test_many_at_once_leave_nothing(doors: Doors, upstream: FakeUpstream) -> None:
    async def one(core: Any, number: int) -> None:
        if number % 2:
            events = await events_of(core.chat_stream(request(), CallContext()))
            assert events[-1].HasField("completed")
        else:
            await core.chat_complete(request(), CallContext())

    for core in doors.cores.values():  # opens the connections that are kept
        await asyncio.gather(*(one(core, n) for n in range(40)))
    async with nothing_left():
        for core in doors.cores.values():
            await asyncio.gather(*(one(core, n) for n in range(40)))
    assert all(json.loads(record.body)["model"] == "upstream-m" for record in upstream.requests)
