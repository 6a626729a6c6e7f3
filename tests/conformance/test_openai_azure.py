"""Azure OpenAI over the wire: what Azure gets from us is what its own SDK sends, and how it fails."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from conformance.conftest import HELLO, Sdk, Site
from fakes.upstream import Record, answer, chat, chunks, completion, error, sse

VERSION = "2024-10-21"
FILTERED = {
    "message": "The response was filtered due to the prompt triggering Azure OpenAI's content policy.",
    "type": None,
    "param": "prompt",
    "code": "content_filter",
    "status": 400,
    "innererror": {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
    },
}
RESULTS = {"hate": {"filtered": False, "severity": "safe"}}


def config(site: Site, *, path: str = "", version: str | None = VERSION, **secrets: str) -> str:
    """A provider of kind azure at the fake upstream."""
    options = secrets or {"api_key": "azure-secret"}
    if version:
        options["api_version"] = version
    facts = ", ".join(f'{name}: "{value}"' for name, value in options.items())
    base = f"http://127.0.0.1:{site.up.port}{path}"
    return (
        f'providers: {{az: {{kind: azure, base_url: "{base}", {facts}}}}}\n'
        "models: {m: {targets: [{provider: az, model: my-gpt}]}}"
    )


def sent_of(record: Record) -> dict[str, Any]:
    """What of a request is Azure's business."""
    wanted = ("api-key", "authorization", "content-type")
    path, _, query = record.path.partition("?")
    return {
        "path": path,
        "query": query,
        "headers": {k: v for k, v in record.headers.items() if k in wanted},
        "body": record.json,
    }


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("credentials", ["key", "token"])
async def test_what_azures_own_sdk_sends(
    site: Site, sdk: Sdk, credentials: str, streamed: bool
) -> None:
    secret = {"api_key": "azure-secret"} if credentials == "key" else {"bearer_token": "entra"}
    await site.open_config(config(site, **secret))
    asked: dict[str, Any] = {"model": "my-gpt", "messages": HELLO, "temperature": 0.5}
    if streamed:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    own = openai.AsyncAzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{site.up.port}",
        api_version=VERSION,
        max_retries=0,
        **({"api_key": "azure-secret"} if credentials == "key" else {"azure_ad_token": "entra"}),
    )
    async with own:
        got = await own.chat.completions.create(**asked)
        if streamed:
            await got.close()
    await (sdk.chunks if streamed else sdk.create)(temperature=0.5)
    theirs, ours = (sent_of(record) for record in site.up.requests)
    assert ours == theirs
    assert ours["path"] == "/openai/deployments/my-gpt/chat/completions"
    assert ours["query"] == f"api-version={VERSION}"
    if credentials == "key":
        assert ours["headers"]["api-key"] == "azure-secret"
        assert "authorization" not in ours["headers"]
    else:
        assert ours["headers"]["authorization"] == "Bearer entra"
        assert "api-key" not in ours["headers"]


async def test_text_completions_of_a_deployment(site: Site, sdk: Sdk) -> None:
    await site.open_config(config(site))
    body = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [
        {"text": "x", "index": 0, "logprobs": None, "finish_reason": "stop"}]}  # fmt: skip
    site.up.script(answer(body), answer(body))
    own = openai.AsyncAzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{site.up.port}",
        api_version=VERSION,
        api_key="azure-secret",
    )
    async with own:
        await own.completions.create(model="my-gpt", prompt="x")
    await sdk.run(lambda client: client.completions.create(model="m", prompt="x"))
    theirs, ours = (sent_of(record) for record in site.up.requests)
    assert ours == theirs


@pytest.mark.parametrize("path", ["", "/openai", "/openai/v1"])
@pytest.mark.parametrize("version", [None, "preview"])
async def test_the_v1_surface(site: Site, sdk: Sdk, path: str, version: str | None) -> None:
    await site.open_config(config(site, path=path, version=version))
    await sdk.create()
    ours = sent_of(site.up.requests[-1])
    assert ours["path"] == "/openai/v1/chat/completions"
    assert ours["query"] == ("api-version=preview" if version else "")
    assert ours["headers"]["api-key"] == "azure-secret"
    assert ours["body"]["model"] == "my-gpt"


async def test_filter_results_reach_the_caller(site: Site, sdk: Sdk) -> None:
    await site.open_config(config(site))
    prompt = [{"prompt_index": 0, "content_filter_results": RESULTS}]
    body = completion("Hi", prompt_filter_results=prompt)
    body["choices"][0]["content_filter_results"] = RESULTS
    head = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
    streamed = [head | {"prompt_filter_results": prompt}, *chunks(["Hi"])]
    streamed[-1]["choices"][0]["content_filter_results"] = RESULTS
    site.up.script(answer(body), sse(streamed))
    got = await sdk.create()
    assert got.prompt_filter_results == prompt
    assert got.choices[0].content_filter_results == RESULTS
    found = await sdk.chunks()
    assert {chunk.id for chunk in found} == {body["id"]} and found[0].model == "m"
    assert found[-1].prompt_filter_results == prompt
    (end,) = [chunk.choices[0] for chunk in found if chunk.choices[0].finish_reason]
    assert end.content_filter_results == RESULTS


FAILURES: list[Any] = [
    (400, FILTERED, openai.BadRequestError, "content_filter"),
    (400, FILTERED | {"code": "BadRequest"}, openai.BadRequestError, "content_filter"),
    (404, {"code": "DeploymentNotFound", "message": "The API deployment does not exist."},
     openai.NotFoundError, "model_not_found"),
    (404, {"code": "404", "message": "Resource not found"},
     openai.InternalServerError, "upstream_protocol"),
    (400, {"code": "BadRequest", "message": "API version not supported"},
     openai.InternalServerError, "upstream_protocol"),
    (401, {"code": "401", "message": "Access denied due to invalid subscription key azure-secret"},
     openai.InternalServerError, "upstream_rejected_us"),
    (429, {"code": "429", "message": "Requests have exceeded token rate limit."},
     openai.RateLimitError, "rate_limit_exceeded"),
    (400, {"code": "context_length_exceeded", "message": "Too long."},
     openai.BadRequestError, "context_length_exceeded"),
]  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_failures(site: Site, sdk: Sdk, streamed: bool, subtests: pytest.Subtests) -> None:
    await site.open_config(config(site))
    for status, body, kind, code in FAILURES:
        with subtests.test(code=code, body=body["message"]):
            site.up.script(answer({"error": body}, status))
            with pytest.raises(kind) as caught:
                await (sdk.chunks if streamed else sdk.create)()
            assert caught.value.code == code
            assert "azure-secret" not in caught.value.response.text


async def test_a_filter_in_mid_stream(site: Site, sdk: Sdk) -> None:
    await site.open_config(config(site))
    site.up.script(sse([*chunks(["Half"], finish_reason=""), {"error": FILTERED}], done=False))
    with pytest.raises(openai.APIError) as caught:
        await sdk.chunks()
    assert caught.value.code == "content_filter"


async def test_retry_after(site: Site, sdk: Sdk) -> None:
    await site.open_config(config(site))
    site.up.script(error(429, "Slow down.", code="429", headers={"retry-after": "6"}))
    with pytest.raises(openai.RateLimitError) as caught:
        await sdk.create()
    assert caught.value.response.headers["retry-after"] == "6"
    site.up.default(chat())
    assert json.loads((await sdk.create()).model_dump_json())["choices"]
