"""What other languages get: the generated stubs on a plain channel, nothing of our client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from contract.doors import MEBIBYTE, Doors, ScriptedCore, no_complaints, request
from fakes.bodies import chunks, completion
from fakes.gateway import KEY, Gateway, config_for
from fakes.upstream import FakeUpstream, answer, echo, error, hang, rate_limited, sse
from headgate.v1 import (
    chat_pb2,
    chat_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)

Metadata = dict[str, str | bytes]


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


@pytest.fixture
async def gateway(upstream: FakeUpstream) -> AsyncGenerator[Gateway, None]:
    with no_complaints("rejected the gateway's credentials"):  # an alert, and meant
        async with Gateway(config_for(upstream.base_url)) as gw:
            yield gw


@contextmanager
def stub(address: str, **options: int) -> Iterator[Any]:
    settings = [(f"grpc.{name}", value) for name, value in options.items()]
    with grpc.insecure_channel(address, options=settings) as channel:
        yield chat_service_pb2_grpc.ChatServiceStub(channel)


def pairs(metadata: Any) -> Metadata:
    return {pair.key: pair.value for pair in metadata}


def details(error: Any) -> dict[str, Any]:
    """The details by the name of their type, as any language finds them."""
    status = status_pb2.Status.FromString(
        pairs(error.trailing_metadata())["grpc-status-details-bin"]
    )
    assert status.code == error.code().value[0]
    found: dict[str, Any] = {}
    for detail in status.details:
        package, _, name = detail.TypeName().rpartition(".")
        module: Any = {"google.rpc": error_details_pb2, "headgate.v1": chat_pb2}[package]
        found[name] = getattr(module, name).FromString(detail.value)
    return found


async def test_unary(gateway: Gateway, upstream: FakeUpstream) -> None:
    def call() -> None:
        with stub(gateway.grpc_address) as chat:
            answer, rpc = chat.ChatComplete.with_call(
                request(), metadata=[("x-request-id", "from-the-test.1")]
            )
            assert answer.choices[0].message.parts[0].text.startswith("Hello!")
            first = pairs(rpc.trailing_metadata())
            assert first["x-request-id"] == "from-the-test.1"
            assert first["x-headgate-provider"] == "up"
            assert first["x-headgate-model"] == "upstream-m"

    await asyncio.to_thread(call)
    assert gateway.settlements[0].request_id == "from-the-test.1"


async def test_stream(gateway: Gateway, upstream: FakeUpstream) -> None:
    def call() -> list[str]:
        with stub(gateway.grpc_address) as chat:
            rpc = chat.ChatStream(request(), metadata=[("x-request-id", "a")])
            kinds = [event.WhichOneof("event") for event in rpc]
            assert rpc.code() is grpc.StatusCode.OK
            assert pairs(rpc.initial_metadata())["x-request-id"] == "a"
            return kinds

    kinds = await asyncio.to_thread(call)
    assert kinds[0] == "started"
    assert kinds[-1] == "completed"
    assert kinds.count("completed") == kinds.count("started") == 1


@pytest.mark.parametrize("given", [None, "bad id", "x" * 129])
async def test_a_request_id_is_made_up_where_none_fits(gateway: Gateway, given: str | None) -> None:
    def call() -> str:
        with stub(gateway.grpc_address) as chat:
            sent = [("x-request-id", given)] if given else []
            _, rpc = chat.ChatComplete.with_call(request(), metadata=sent)
            return str(pairs(rpc.trailing_metadata())["x-request-id"])

    made = await asyncio.to_thread(call)
    assert made.startswith("req_")
    assert gateway.settlements[0].request_id == made


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_rich_errors(gateway: Gateway, upstream: FakeUpstream, stream: bool) -> None:
    def fail(**options: Any) -> Any:
        with stub(gateway.grpc_address) as chat, pytest.raises(grpc.RpcError) as caught:
            asked = options.pop("asked", request())
            sent = [("x-request-id", "mine")]
            if stream:
                list(chat.ChatStream(asked, metadata=sent, **options))
            else:
                chat.ChatComplete(asked, metadata=sent, **options)
        error = caught.value
        assert pairs(error.trailing_metadata())["x-request-id"] == "mine"
        found = details(error)
        assert found["ErrorInfo"].domain == "headgate"
        assert found["RequestInfo"].request_id == "mine"
        return error, found

    upstream.script(rate_limited(2))
    failed, found = await asyncio.to_thread(fail)
    assert failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert found["ErrorInfo"].reason == "RATE_LIMITED"
    assert found["Served"].attempts == len(found["Served"].tried) == 1
    assert found["ErrorInfo"].metadata["provider"] == "up"
    assert found["ErrorInfo"].metadata["upstream_status"] == "429"
    assert found["RetryInfo"].retry_delay.seconds == 2

    upstream.script(error(429, "pay", code="insufficient_quota"))
    failed, found = await asyncio.to_thread(fail)
    assert found["ErrorInfo"].reason == "QUOTA_EXHAUSTED"
    assert found["QuotaFailure"].violations[0].description == "pay"

    failed, found = await asyncio.to_thread(lambda: fail(asked=request(temperature=9.0)))
    assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert found["BadRequest"].field_violations[0].field == "temperature"
    assert failed.details().startswith("temperature: ")

    failed, found = await asyncio.to_thread(lambda: fail(asked=request(model="none")))
    assert failed.code() is grpc.StatusCode.NOT_FOUND
    assert found["ErrorInfo"].reason == "MODEL_NOT_FOUND"


async def test_an_error_in_the_middle_of_a_stream(gateway: Gateway, upstream: FakeUpstream) -> None:
    half = chunks(["Hel"], finish_reason="")
    upstream.script(sse([*half, 0.05, {"error": {"message": "x", "code": "429"}}]))

    def call() -> Any:
        with stub(gateway.grpc_address) as chat:
            kinds = []
            with pytest.raises(grpc.RpcError) as caught:
                for event in chat.ChatStream(request()):
                    kinds.append(event.WhichOneof("event"))
            return kinds, caught.value

    kinds, failed = await asyncio.to_thread(call)
    assert kinds[0] == "started"
    assert "part_delta" in kinds
    assert failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(failed)["ErrorInfo"].reason == "RATE_LIMITED"


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_deadline(gateway: Gateway, upstream: FakeUpstream, stream: bool) -> None:
    upstream.default(hang())

    def call() -> tuple[Any, float]:
        with stub(gateway.grpc_address) as chat:
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                if stream:
                    list(chat.ChatStream(request(), timeout=0.4))
                else:
                    chat.ChatComplete(request(), timeout=0.4)
            return caught.value, time.monotonic() - began

    failed, took = await asyncio.to_thread(call)
    assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.39 < took < 0.8, took
    settled = await gateway.settled()
    assert [each.outcome for each in settled] == ["DEADLINE_EXCEEDED"]
    await upstream.requests[0].wait_closed(0.5)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([], grpc.StatusCode.UNAUTHENTICATED),
        ([("authorization", KEY)], grpc.StatusCode.UNAUTHENTICATED),
        ([("authorization", "Bearer wrong-key-12345")], grpc.StatusCode.UNAUTHENTICATED),
        ([("authorization", f"Basic {KEY}")], grpc.StatusCode.UNAUTHENTICATED),
        ([("authorization", f"Bearer {KEY}")], grpc.StatusCode.OK),
        ([("authorization", f"bearer  {KEY} ")], grpc.StatusCode.OK),
    ],
)
async def test_keys(upstream: FakeUpstream, sent: Any, code: grpc.StatusCode) -> None:
    keys = f'auth: {{mode: keys, keys: [{{name: ci, key: "{KEY}", models: ["m"]}}]}}'
    async with Gateway(config_for(upstream.base_url, extra=keys)) as gw:

        def call() -> list[grpc.StatusCode]:
            codes = []
            with grpc.insecure_channel(gw.grpc_address) as channel:
                chat: Any = chat_service_pb2_grpc.ChatServiceStub(channel)
                models: Any = model_service_pb2_grpc.ModelServiceStub(channel)
                for method, message in (
                    (chat.ChatComplete, request()),
                    (models.ListModels, model_service_pb2.ListModelsRequest()),
                    (models.GetModel, model_service_pb2.GetModelRequest(id="m")),
                ):
                    try:
                        codes.append(method.with_call(message, metadata=sent)[1].code())
                    except grpc.RpcError as failed:
                        codes.append(failed.code())
                rpc = chat.ChatStream(request(), metadata=sent)
                try:
                    list(rpc)
                except grpc.RpcError:
                    pass
                codes.append(rpc.code())
            return codes

        assert await asyncio.to_thread(call) == [code] * 4
        if code is grpc.StatusCode.OK:
            assert {each.caller for each in await gw.settled(2)} == {"ci"}


# -- sizes ------------------------------------------------------------------------------------------

UNLIMITED = {"max_receive_message_length": -1, "max_send_message_length": -1}


async def test_five_megabytes_each_way(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.default(echo())
    text = "x" * (5 * MEBIBYTE)

    def call() -> Any:
        with stub(gateway.grpc_address, **UNLIMITED) as chat:
            return chat.ChatComplete(request(text))

    answer = await asyncio.to_thread(call)
    assert text in answer.choices[0].message.parts[0].text


async def test_a_message_over_the_limit(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The whole 64 MiB pass, one byte more does not."""
    upstream.default(answer(completion("ok")))
    limit = 64 * MEBIBYTE
    exact = request("x" * (limit - 100))
    exact = request("x" * (limit - 100 + limit - exact.ByteSize()))
    assert exact.ByteSize() == limit

    def call(asked: chat_pb2.ChatRequest) -> Any:
        with stub(gateway.grpc_address, **UNLIMITED) as chat:
            return chat.ChatComplete(asked)

    assert (await asyncio.to_thread(call, exact)).choices
    exact.messages[0].parts[0].text += "x"
    with pytest.raises(grpc.RpcError) as caught:
        await asyncio.to_thread(call, exact)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_sizes_through_our_client_and_rest(upstream: FakeUpstream) -> None:
    from contract.doors import answer as found
    from contract.doors import outcome
    from headgate.core import CallContext
    from headgate.errors import PayloadTooLarge
    from headgate_facade.settings import FacadeSettings

    core = ScriptedCore()
    facade = FacadeSettings(body_limit=4 * MEBIBYTE)
    async with Doors(core, facade, max_message_bytes=2 * MEBIBYTE) as doors:
        big = request("x" * (3 * MEBIBYTE))
        refused = await outcome(doors.cores["grpc"].chat_complete(big, CallContext()))
        assert refused["class"] is PayloadTooLarge
        core.response = chat_pb2.ChatResponse(id="x" * (3 * MEBIBYTE))
        refused = await outcome(doors.cores["grpc"].chat_complete(request(), CallContext()))
        assert refused["class"] is PayloadTooLarge
        core.response = chat_pb2.ChatResponse()
        import httpx

        body = {"model": "m", "messages": [{"role": "user", "content": "x" * (3 * MEBIBYTE)}]}
        async with httpx.AsyncClient(base_url=doors.rest["grpc"]) as client:
            response = await client.post("/v1/chat/completions", json=body)
            assert found(response)["status"] == 413
        body["messages"][0]["content"] *= 2  # type: ignore[index]
        rest = await doors.each_rest(
            "POST", "/v1/chat/completions", json=body, headers={"x-request-id": "mine"}
        )
        assert rest[0] == rest[1]
        assert rest[0]["status"] == 413
