"""What the stock `anthropic` SDK makes of failures: its exception classes, its retries."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import anthropic
import httpx
import pytest

from conformance.anthropic_sdk import HELLO, PNG, Sdk, asked_for
from conformance.conftest import Site
from fakes.gateway import KEY
from fakes.upstream import answer, chunks, disconnect, error, hang, html, rate_limited, sse
from headgate.core import EventStream
from headgate.errors import PermissionDenied
from headgate_facade.settings import FacadeSettings
from headgate_server.core import Core

KEYS = f"auth: {{mode: keys, keys: [{{name: a, key: {KEY}, models: [m]}}]}}"
both = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


@pytest.fixture(params=["async", "sync"])
async def sdk(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Sdk]:
    """The SDK in front of the site."""
    sdk = Sdk(site, request.param)
    yield sdk
    await sdk.close()


async def failed(
    kind: type[anthropic.APIError], sdk: Sdk, stream: bool = False, **params: Any
) -> Any:
    """The exception of a call; the same early error whether streamed or not."""
    with pytest.raises(kind) as caught:
        await (sdk.stream if stream else sdk.create)(**params)
    assert type(caught.value) is kind
    return caught.value


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
SEARCHED = {"type": "search_result", "source": "s", "title": "t", "content": []}
RESULT = {"type": "tool_result", "tool_use_id": "call_a", "content": [SEARCHED]}
CALL = {"type": "tool_use", "id": "call_a", "name": "f", "input": {}}
BAD_REQUESTS: list[Any] = [
    ({"extra_body": {"temperature": 3}}, "temperature: must be from 0 to 2"),
    ({"extra_body": {"temperature": "hot"}}, "temperature: expected `float"),
    ({"extra_body": {"max_tokens": None}}, "max_tokens: Field required"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content: "),
    ({"messages": [{"role": "oracle", "content": "x"}]}, "messages[0].role: "),
    ({"extra_body": {"messages": []}}, "messages: "),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content: must hold"),
    ({"tool_choice": {"type": "any"}}, "tool_choice: cannot be required without tools"),
    ({"tools": [{"name": "x" * 129, "input_schema": {}}]}, "tools[0].name: must have 1 to 128"),
    # Said by the provider's dialect, which sees other messages than the body has.
    (
        {
            "system": "S",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, SEARCHED]}],
        },
        "messages[0].content[1]: ",
    ),
    (
        {
            "system": [{"type": "text", "text": "S"}],
            "messages": [
                *HELLO,
                {"role": "assistant", "content": [CALL]},
                {"role": "user", "content": [RESULT, {"type": "text", "text": "x"}]},
            ],
        },
        "messages[2].content[0].content[0]: ",
    ),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]: "),
]


@both
@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_bad_request(site: Site, sdk: Sdk, stream: bool, subtests: pytest.Subtests) -> None:
    for params, message in BAD_REQUESTS:
        with subtests.test(message=message):
            caught = await failed(anthropic.BadRequestError, sdk, stream, **params)
            assert caught.type == "invalid_request_error"
            assert caught.api_message.startswith(message)
            assert caught.request_id.startswith("req_")
            assert caught.body["request_id"] == caught.request_id
            assert not site.up.requests


@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_bad_request_to_count(site: Site, sdk: Sdk) -> None:
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": []}]}
    with pytest.raises(anthropic.BadRequestError) as caught:
        await sdk.run(lambda c: c.messages.count_tokens(**asked, system="S"))
    assert caught.value.api_message.startswith("messages[0].content: must hold")
    assert caught.value.request_id
    with pytest.raises(anthropic.NotFoundError) as gone:
        await sdk.run(lambda c: c.messages.count_tokens(model="nope", messages=HELLO))
    assert gone.value.type == "not_found_error"


@both
async def test_keys(site: Site, sdk: Sdk, stream: bool) -> None:
    await site.open(extra=KEYS)
    assert await sdk.create()
    caught = await failed(anthropic.NotFoundError, sdk, stream, model="up/other")
    assert caught.type == "not_found_error"
    asked = asked_for(None, {"stream": stream})
    for wrong in ({"api_key": "wrong-key"}, {"default_headers": {"x-api-key": "wrong-key"}}):
        options = {"api_key": None, "auth_token": None} | wrong
        if "default_headers" in wrong:
            options["default_headers"] |= {"Authorization": anthropic.omit}
        with pytest.raises(anthropic.AuthenticationError) as found:
            await sdk.run(lambda c: c.messages.create(**asked), **options)
        assert found.value.type == "authentication_error"
        assert "wrong-key" not in str(found.value)
    with pytest.raises(anthropic.AuthenticationError) as found:
        await sdk.run(lambda c: c.models.list(), api_key="wrong-key")
    assert found.value.type == "authentication_error"
    with pytest.raises(anthropic.AuthenticationError):
        await sdk.run(lambda c: c.messages.count_tokens(model="m", messages=HELLO), api_key="x")
    assert len(site.up.requests) == 1
    async with site.gateway.http() as http:
        got = await http.post("/v1/messages", json=asked_for(None, {}), headers={"x-api-key": KEY})
        assert got.status_code == 200
        assert (await http.head("/")).status_code == (await http.get("/")).status_code == 200


class RefusingCore(Core):
    """Only certificates and rights of administration are refused so; the mapping counts here."""

    failure: Exception = PermissionDenied("no rule lets the client in")

    async def chat_complete(self, *_: Any) -> Any:
        raise self.failure

    async def count_tokens(self, *_: Any) -> Any:
        raise self.failure

    def chat_stream(self, *_: Any) -> EventStream:
        async def events() -> AsyncGenerator[Any, None]:
            raise self.failure
            yield

        return EventStream(events())


class BrokenCore(RefusingCore):
    """Has a defect."""

    failure = ZeroDivisionError("secret detail")


@both
async def test_permission_denied(site: Site, sdk: Sdk, stream: bool) -> None:
    site.gateway.app.core.__class__ = RefusingCore
    caught = await failed(anthropic.PermissionDeniedError, sdk, stream)
    assert (caught.type, caught.api_message) == ("permission_error", "no rule lets the client in")
    with pytest.raises(anthropic.PermissionDeniedError):
        await sdk.run(lambda c: c.messages.count_tokens(model="m", messages=HELLO))


@both
async def test_a_defect_is_opaque(site: Site, sdk: Sdk, stream: bool) -> None:
    site.gateway.app.core.__class__ = BrokenCore
    caught = await failed(anthropic.InternalServerError, sdk, stream)
    assert caught.type == "api_error" and "secret" not in str(caught.body)
    with pytest.raises(anthropic.InternalServerError) as found:
        await sdk.run(lambda c: c.messages.count_tokens(model="m", messages=HELLO))
    assert "secret" not in str(found.value.body) and found.value.request_id


UPSTREAM: list[Any] = [
    (error(400, "Bad."), anthropic.BadRequestError, "invalid_request_error"),
    (error(401, "Who?"), anthropic.InternalServerError, "api_error"),
    (error(404, "No model.", code="model_not_found"), anthropic.NotFoundError, "not_found_error"),
    (rate_limited(7), anthropic.RateLimitError, "rate_limit_error"),
    (error(503, "Busy."), anthropic.ServiceUnavailableError, "overloaded_error"),
    (error(529, "Busy."), anthropic.ServiceUnavailableError, "overloaded_error"),
    (html(502), anthropic.ServiceUnavailableError, "overloaded_error"),
    (answer(b"<nonsense>"), anthropic.InternalServerError, "api_error"),
    (disconnect(), anthropic.ServiceUnavailableError, "overloaded_error"),
]


@both
async def test_failures_of_the_upstream(
    site: Site, sdk: Sdk, stream: bool, subtests: pytest.Subtests
) -> None:
    for step, kind, type_ in UPSTREAM:
        with subtests.test(kind=type_):
            site.up.default(step)
            caught = await failed(kind, sdk, stream)
            assert caught.type == type_
            assert "upstream-secret-key" not in str(caught.body)


async def test_a_prompt_that_is_too_long(site: Site, sdk: Sdk) -> None:
    site.up.script(error(400, "Too long.", code="context_length_exceeded"))
    caught = await failed(anthropic.BadRequestError, sdk)
    assert caught.api_message == "prompt is too long: Too long."


async def test_timeout_of_the_upstream(site: Site, sdk: Sdk) -> None:
    await site.open(extra="timeouts: {first_byte: 0.1}")
    site.up.script(hang())
    caught = await failed(anthropic.GatewayTimeoutError, sdk)
    assert caught.type == "timeout_error"


async def test_a_large_body(site: Site, sdk: Sdk) -> None:
    await site.open(facade=FacadeSettings(body_limit=1000))
    many = [{"role": "user", "content": "x" * 2000}]
    caught = await failed(anthropic.ContentTooLargeError, sdk, messages=many)
    assert caught.type == "request_too_large"


async def test_error_in_mid_stream(site: Site, sdk: Sdk) -> None:
    failure = {"error": {"message": "Boom.", "type": "server_error", "code": None}}
    begun = chunks(["Hel", "lo"], finish_reason="")
    site.up.script(sse([*begun, failure], done=False), sse(begun, done=False))
    for words in ("Boom.", ""):
        with pytest.raises(anthropic.APIStatusError) as caught:
            await sdk.stream()
        assert caught.value.status_code == 200
        assert caught.value.type in ("api_error", "overloaded_error")
        assert words in str(caught.value.api_message)
        assert caught.value.body["request_id"] == caught.value.request_id


async def test_the_sdk_retries(site: Site, sdk: Sdk) -> None:
    site.up.script(error(500), error(503))
    found = await sdk.run(lambda c: c.messages.create(**asked_for(None, {})), max_retries=2)
    assert found.content[0].text
    assert len(site.up.requests) == 3
    site.up.script(rate_limited(headers={"retry-after-ms": "300"}))
    started = time.monotonic()
    await sdk.run(lambda c: c.messages.create(**asked_for(None, {})), max_retries=1)
    assert 0.29 <= time.monotonic() - started < 2


async def test_what_cannot_be_cured_is_not_retried(site: Site, sdk: Sdk) -> None:
    quota = error(429, "Pay.", type="insufficient_quota", code="insufficient_quota")
    site.up.script(quota)
    with pytest.raises(anthropic.RateLimitError):
        await sdk.run(lambda c: c.messages.create(**asked_for(None, {})), max_retries=2)
    assert len(site.up.requests) == 1


PATHS = [
    ("GET", "/v1/messages", 405, "invalid_request_error"),
    ("PUT", "/v1/messages/count_tokens", 405, "invalid_request_error"),
    ("POST", "/v1/messages/batches", 404, "not_found_error"),
    ("GET", "/v1/messages/batches/b", 404, "not_found_error"),
]


async def test_unknown_paths(site: Site) -> None:
    async with site.gateway.http() as http:
        for method, path, status, type_ in PATHS:
            got = await http.request(method, path)
            assert got.status_code == status
            body = got.json()
            assert (body["type"], body["error"]["type"]) == ("error", type_)
            assert body["request_id"] == got.headers["request-id"] == got.headers["x-request-id"]
        got = await http.get("/v1/modelz", headers={"anthropic-version": "2023-06-01"})
        assert got.json()["error"]["code"] == "not_found"


MODELS: list[Any] = [
    ({"limit": "0"}, "limit: must be a number from 1 to 1000"),
    ({"limit": "many"}, "limit: must"),
    ({"after_id": "nope"}, "after_id: there is no model"),
    ({"after_id": "m", "before_id": "m"}, "before_id: cannot"),
]


async def test_bad_pages_of_models(site: Site) -> None:
    async with site.gateway.http(headers={"anthropic-version": "2023-06-01"}) as http:
        for query, message in MODELS:
            got: httpx.Response = await http.get("/v1/models", params=query)
            assert got.status_code == 400
            assert got.json()["error"]["message"].startswith(message)
        got = await http.get("/v1/models/nope")
        assert (got.status_code, got.json()["error"]["type"]) == (404, "not_found_error")
