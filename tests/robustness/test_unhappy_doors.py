"""How every front door fails: in its own words, early and late, as SDKs raise it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio
from google import genai
from google.genai import errors as genai_errors

from conformance.gemini_sdk import QUIET
from contract.doors import Doors, ScriptedCore
from headgate import errors
from headgate.errors import GatewayError, reason_name
from headgate.v1 import chat_pb2, content_pb2
from robustness.fronts import FRONTS, Front, counting
from robustness.shown import server_sent

on_module_loop = pytest.mark.asyncio(loop_scope="module")


def subclasses(cls: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


# The public ones: the server tells some apart further, for routing.
ALL = sorted(
    {cls for cls in subclasses(GatewayError) if cls.__module__ == errors.__name__},
    key=lambda cls: cls.__name__,
)
# The words of each door for the same error, where it has words of its own.
CODES = {
    "INVALID_REQUEST": "invalid_request_error",
    "CONTEXT_TOO_LONG": "context_length_exceeded",
    "CONTENT_FILTERED": "content_filter",
    "UNAUTHENTICATED": "invalid_api_key",
    "RATE_LIMITED": "rate_limit_exceeded",
    "QUOTA_EXHAUSTED": "insufficient_quota",
}
TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
    500: "api_error", 502: "api_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


def word_for(front: Front, cls: type[GatewayError]) -> str:
    reason = reason_name(cls)
    if front.name == "messages":
        return TYPES[cls.http_status]
    return reason if front.name == "gemini" else CODES.get(reason, reason.lower())


# -- each error at each door ----------------------------------------------------------------------------


BEGUN = [
    chat_pb2.ChatEvent(started=chat_pb2.Started(id="a1", model="m")),
    chat_pb2.ChatEvent(part_started=chat_pb2.PartStarted(initial=content_pb2.Part(text=""))),
    chat_pb2.ChatEvent(part_delta=chat_pb2.PartDelta(text="It rains.")),
]


class Scripted:
    """A core that fails as told, behind all doors, over both transports."""

    def __init__(
        self, doors: Doors, core: ScriptedCore, https: dict[str, httpx.AsyncClient]
    ) -> None:
        self.doors = doors
        self.core = core
        self.https = https

    def fail(self, cls: type[GatewayError], *, late: bool) -> None:
        self.core.make_error = lambda: cls("it is broken", retry_after=6.2)
        self.core.events = BEGUN if late else ()


class CountingCore(ScriptedCore):
    async def count_tokens(self, request: Any, context: Any) -> chat_pb2.CountTokensResponse:
        self._raise(context)
        return chat_pb2.CountTokensResponse()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scripted() -> AsyncIterator[Scripted]:
    core = CountingCore()
    async with Doors(core) as doors:
        https = {name: httpx.AsyncClient(base_url=url) for name, url in doors.rest.items()}
        yield Scripted(doors, core, https)
        for each in https.values():
            await each.aclose()


@pytest.fixture(params=FRONTS, ids=lambda front: front.name)
def front(request: pytest.FixtureRequest) -> Front:
    found: Front = request.param
    return found


@on_module_loop
@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
async def test_an_early_error(scripted: Scripted, front: Front, cls: type[GatewayError]) -> None:
    scripted.fail(cls, late=False)
    for http in scripted.https.values():
        asked = [(front.path("m", s), front.body("m", s)) for s in (False, True)]
        if front.name in ("messages", "gemini"):
            asked.append(counting(front, "m"))
        for path, body in asked:
            response = await http.post(path, json=body, headers={"x-request-id": "req-7"})
            assert response.status_code == cls.http_status
            assert response.headers["content-type"].startswith("application/json")
            assert response.headers["x-request-id"] == "req-7"
            assert response.headers["retry-after"] == "7"
            told = front.told(response.json())
            assert "it is broken" in told.message
            assert told.kind == word_for(front, cls)
            assert told.status in (None, cls.http_status)


@on_module_loop
@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
async def test_a_late_error(scripted: Scripted, front: Front, cls: type[GatewayError]) -> None:
    scripted.fail(cls, late=True)
    for http in scripted.https.values():
        response = await http.post(front.path("m", True), json=front.body("m", True))
        assert response.status_code == 200
        told = front.told_by_stream(response.content)
        assert "it is broken" in told.message
        assert told.kind == word_for(front, cls)
        assert front.said(server_sent(response.content)) == "It rains."


@on_module_loop
async def test_a_defect_in_the_middle_is_an_error_too(
    scripted: Scripted,
    front: Front,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stream that merely stopped would look like a lost connection, or worse, like an answer."""
    scripted.core.make_error = None
    # A delta for a part of which nobody has heard, and an end that is no JSON.
    finished = chat_pb2.ChoiceFinished(finish_reason=1, extra_json="{nope")
    broken = chat_pb2.Completed(extra_json="{nope")
    scripted.core.events = [
        *BEGUN,
        chat_pb2.ChatEvent(part_finished=chat_pb2.PartFinished()),
        chat_pb2.ChatEvent(choice_finished=finished),
        chat_pb2.ChatEvent(completed=broken),
    ]
    scripted.core.events[0].started.served.dialect = {
        "messages": "anthropic", "responses": "openai_responses"
    }.get(front.name, front.name)  # fmt: skip
    http = scripted.https["direct"]
    response = await http.post(front.path("m", True), json=front.body("m", True))
    told = front.told_by_stream(response.content)
    assert "internal error" in told.message
    assert "nope" not in told.message
    assert any("failed" in record.message for record in caplog.records)


# What the SDKs make of it: each raises its own exception, with the status and the words.


async def with_openai(url: str, stream: bool, ask: Callable[[Any, bool], Any]) -> Exception | None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        try:
            got = await ask(client, stream)
            if stream:
                async for _ in got:
                    pass
        except openai.APIError as error:
            return error
    return None


async def chat(url: str, stream: bool) -> Exception | None:
    turn: Any = [{"role": "user", "content": "hi"}]
    return await with_openai(
        url, stream, lambda c, s: c.chat.completions.create(model="m", messages=turn, stream=s)
    )


async def completions(url: str, stream: bool) -> Exception | None:
    return await with_openai(
        url, stream, lambda c, s: c.completions.create(model="m", prompt="hi", stream=s)
    )


async def responses(url: str, stream: bool) -> Exception | None:
    return await with_openai(
        url, stream, lambda c, s: c.responses.create(model="m", input="hi", stream=s)
    )


async def messages(url: str, stream: bool) -> Exception | None:
    turn: Any = [{"role": "user", "content": "hi"}]
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        try:
            got: Any = await client.messages.create(
                model="m", max_tokens=9, messages=turn, stream=stream
            )
            if stream:
                async for _ in got:
                    pass
        except anthropic.APIError as error:
            return error
    return None


async def gemini(url: str, stream: bool) -> Exception | None:
    client = genai.Client(api_key="k", http_options={"base_url": url})
    try:
        if stream:
            async for _ in await client.aio.models.generate_content_stream(
                model="m", contents="hi"
            ):
                pass
        else:
            await client.aio.models.generate_content(model="m", contents="hi")
    except genai_errors.APIError as error:
        return error
    finally:
        await client.aio.aclose()
        client.close()
    return None


SDKS = {each.__name__: each for each in (chat, completions, messages, gemini, responses)}


@QUIET
@on_module_loop
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
async def test_sdks_raise_it(scripted: Scripted, front: Front, late: bool) -> None:
    for cls in ALL:
        scripted.fail(cls, late=late)
        for stream in (True,) if late else (False, True):
            error: Any = await SDKS[front.name](scripted.doors.rest["direct"], stream)
            assert error is not None, cls
            assert "it is broken" in str(error)
            if not late:
                status = error.code if front.name == "gemini" else error.status_code
                assert status == cls.http_status


def test_the_table_is_whole() -> None:
    assert {cls.__name__ for cls in ALL} <= set(dir(errors))
    assert len(ALL) >= 17
