"""What the stock `google-genai` SDK makes of failures, early and late, and the envelope itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.genai import errors

from conformance.conftest import Site
from conformance.gemini_sdk import QUIET, WEATHER_TOOL, Sdk
from fakes.upstream import answer, chunks, completion, error, hang, html, rate_limited, sse

pytestmark = QUIET

BEGUN = chunks(["Hel", "lo"], finish_reason="")
FAILURE = {"error": {"message": "Boom.", "type": "server_error", "code": None}}
CONTEXT = error(400, "Too long.", type="invalid_request_error", code="context_length_exceeded")
FILTER = error(400, "Filtered.", type="invalid_request_error", code="content_filter")
QUOTA = error(429, "Pay.", type="insufficient_quota", code="insufficient_quota")
TABLE: list[Any] = [
    (CONTEXT, errors.ClientError, 400, "INVALID_ARGUMENT", "CONTEXT_TOO_LONG"),
    (FILTER, errors.ClientError, 400, "FAILED_PRECONDITION", "CONTENT_FILTERED"),
    (rate_limited(7), errors.ClientError, 429, "RESOURCE_EXHAUSTED", "RATE_LIMITED"),
    (QUOTA, errors.ClientError, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXHAUSTED"),
    (error(401), errors.ServerError, 502, "INTERNAL", "UPSTREAM_REJECTED_US"),
    (answer(b"{"), errors.ServerError, 502, "INTERNAL", "UPSTREAM_PROTOCOL"),
    (html(502), errors.ServerError, 503, "UNAVAILABLE", "UPSTREAM_UNAVAILABLE"),
    (error(404, code="model_not_found"), errors.ClientError, 404, "NOT_FOUND", "MODEL_NOT_FOUND"),
]


@pytest.fixture(params=["async", "sync"])
async def sdk(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Sdk]:
    """The SDK in front of the site."""
    sdk = Sdk(site, request.param)
    yield sdk
    await sdk.close()


def reason_of(error: errors.APIError) -> Any:
    """The reason in the error's details."""
    (info,) = [d for d in details_of(error) if d["@type"].endswith(".ErrorInfo")]
    return info["reason"]


def details_of(error: errors.APIError) -> list[Any]:
    body: Any = error.details
    found: list[Any] = body["error"]["details"]
    return found


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_early_failures(site: Site, sdk: Sdk, streamed: bool) -> None:
    call = sdk.chunks if streamed else sdk.generate
    for step, kind, code, status, reason in TABLE:
        site.up.script(step)
        with pytest.raises(kind) as found:
            await call()
        assert (found.value.code, found.value.status) == (code, status)
        assert reason_of(found.value) == reason
        assert found.value.message


async def test_retry_info(site: Site, sdk: Sdk) -> None:
    site.up.script(rate_limited(7))
    with pytest.raises(errors.ClientError) as found:
        await sdk.generate()
    (retry,) = [d for d in details_of(found.value) if d["@type"].endswith(".RetryInfo")]
    assert retry["retryDelay"] == "7s"


async def test_retries_of_the_sdk(site: Site, sdk: Sdk) -> None:
    site.up.script(error(503), error(503))
    again = {"retry_options": {"attempts": 3, "initial_delay": 0.01, "max_delay": 0.02}}
    got = await sdk.run(
        lambda c: c.models.generate_content(model="m", contents="Hi"), http_options=again
    )
    assert got.text and len(site.up.requests) == 3


async def test_late_failures(site: Site, sdk: Sdk) -> None:
    for step, reason in (
        (sse([*BEGUN, FAILURE], done=False), "UPSTREAM_UNAVAILABLE"),
        (sse(BEGUN, ending="fin", done=False), "UPSTREAM_"),
    ):
        site.up.script(step)
        with pytest.raises(errors.ServerError) as found:
            await sdk.chunks()
        assert reason_of(found.value).startswith(reason)


async def test_unknown_model(sdk: Sdk) -> None:
    for work in (
        lambda c: c.models.generate_content(model="nope", contents="Hi"),
        lambda c: c.models.count_tokens(model="nope", contents="Hi"),
        lambda c: c.models.get(model="nope"),
    ):
        with pytest.raises(errors.ClientError) as found:
            await sdk.run(work)
        assert (found.value.code, found.value.status) == (404, "NOT_FOUND")


KEYS = """
auth: {mode: keys, keys: [{name: a, key: "the-right-key-0123456789"}]}
"""


async def test_keys(site: Site, sdk: Sdk) -> None:
    await site.open(extra=KEYS)
    right: dict[str, Any] = {"api_key": "the-right-key-0123456789"}
    call: Any = lambda c: c.models.generate_content(model="m", contents="Hi")  # noqa: E731
    assert (await sdk.run(call, **right)).text
    for work in (call, lambda c: c.models.get(model="m")):
        with pytest.raises(errors.ClientError) as found:
            await sdk.run(work, api_key="another-key-0123456789")
        assert (found.value.code, found.value.status) == (401, "UNAUTHENTICATED")
        assert "another-key" not in str(found.value)


async def test_the_wrong_field_is_named_as_in_the_body(site: Site, sdk: Sdk) -> None:
    with pytest.raises(errors.ClientError) as found:
        await sdk.generate(temperature=7)
    (bad,) = [d for d in details_of(found.value) if d["@type"].endswith(".BadRequest")]
    (violation,) = bad["fieldViolations"]
    assert violation["field"] == "generationConfig.temperature"
    assert found.value.message.startswith("generationConfig.temperature: must be from 0 to 2")
    assert not site.up.requests


async def post(site: Site, body: Any, path: str = "/v1beta/models/m:generateContent") -> Any:
    async with site.gateway.http() as http:
        got = await http.post(path, json=body)
    return got.status_code, got.json()["error"]


async def test_places_of_parts_and_tools(site: Site) -> None:
    """Messages and tools are not counted as contents and tools are; errors say the latter."""
    part = {"text": "x"}
    contents = [
        {"role": "user", "parts": [part]},
        {"role": "model", "parts": [part]},
        {"role": "model", "parts": [part, {"functionCall": {"name": "f", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}, part]},
        {"role": "user", "parts": [part, {"functionCall": {"name": "g", "args": {}}}]},
        {"role": "user"},
    ]
    declared = {"functionDeclarations": [{"name": "f"}, {"name": "x" * 200}]}
    body = {
        "systemInstruction": {"parts": [part, {"functionCall": {"name": "f"}}]},
        "contents": contents,
        "tools": [{"googleSearch": {}}, {"urlContext": {}}, declared],
    }
    status, found = await post(site, body)
    assert (status, found["code"], found["status"]) == (400, 400, "INVALID_ARGUMENT")
    (bad,) = [d for d in found["details"] if d["@type"].endswith(".BadRequest")]
    assert [v["field"] for v in bad["fieldViolations"]] == [
        "systemInstruction.parts[1]",
        "contents[4].parts[1]",
        "contents[5].parts",
        "tools[2].functionDeclarations[1].name",
    ]
    assert "messages[" not in found["message"] and "contents[4].parts[1]: " in found["message"]


async def test_what_a_target_refuses_is_named_as_in_the_body(site: Site) -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    contents = [
        {"parts": [{"text": "Go"}]},
        {"role": "model", "parts": [{"text": "x"}, code]},
        {"parts": [{"text": "Go on"}]},
    ]
    status, found = await post(site, {"systemInstruction": "Be.", "contents": contents})
    assert status == 400
    assert "contents[1].parts[1]" in found["message"], found
    status, found = await post(
        site, {"contents": "Hi", "tools": [{"codeExecution": {}}, WEATHER_TOOL]}
    )
    assert status == 400 and "tools[0].codeExecution" in found["message"], found


async def test_the_stream_of_an_array_ends_as_json(site: Site) -> None:
    site.up.script(sse([*BEGUN, FAILURE], done=False))
    async with site.gateway.http() as http:
        got = await http.post("/v1beta/models/m:streamGenerateContent", json={"contents": "Hi"})
    assert got.status_code == 200
    *said, failed = json.loads(got.text)
    assert "".join(c["candidates"][0]["content"]["parts"][0]["text"] for c in said) == "Hello"
    assert (failed["error"]["code"], failed["error"]["status"]) == (503, "UNAVAILABLE")


async def test_hang_ups_reach_the_upstream(site: Site) -> None:
    site.up.default(hang())
    for verb in ("generateContent", "streamGenerateContent"):
        async with site.gateway.http() as http:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await http.post(f"/v1beta/models/m:{verb}", json={"contents": "Hi"})
    for record in site.up.requests:
        assert await record.wait_closed()


async def test_a_blocked_prompt_is_an_error(site: Site, sdk: Sdk) -> None:
    """Google answers 200 with `promptFeedback`; here the table of errors holds for every door."""
    site.up.script(FILTER, answer(completion("Fine.")))
    with pytest.raises(errors.ClientError, match="FAILED_PRECONDITION"):
        await sdk.generate()
    assert (await sdk.generate()).text == "Fine."
