"""The legacy text completions by the stock `openai` SDK: POST /v1/completions, whole and streamed.

Whole answers are validated strictly. Chunks are not: OpenAI's own have a null finish reason, which the
SDK's type of them does not allow.
"""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import openai
import pytest
from openai.types import Completion
from openai.types.completion_create_params import CompletionCreateParamsBase

from conformance.conftest import HELLO, Sdk, Site
from fakes.upstream import USAGE, answer, error, sse

ID, CREATED = "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7", 1589478378
LOGPROBS: dict[str, Any] = {
    "tokens": ["\n\n", "This"],
    "token_logprobs": [-0.25, -0.5],
    "top_logprobs": [{"\n\n": -0.25}, {"This": -0.5, "That": -1.25}],
    "text_offset": [0, 2],
}


def text(
    said: str, index: int = 0, finish: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    return {"text": said, "index": index, "logprobs": logprobs, "finish_reason": finish}


def completion(*choices: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "object": "text_completion",
        "created": CREATED,
        "model": "upstream-m",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": list(choices),
        **members,
    }


WHOLE = completion(text("\n\nThis is a test", finish="length"), usage=USAGE)
STREAM = [
    completion(text("\n\n")),
    completion(text("This is")),
    completion(text(" a test")),
    completion(text("", finish="length")),
    completion(usage=USAGE),
]


async def create(sdk: Sdk, **params: Any) -> Any:
    asked = {"model": "m", "prompt": "Say this is a test"} | params
    return await sdk.run(lambda client: client.completions.create(**asked))


async def stream(sdk: Sdk, **params: Any) -> list[Any]:
    asked = {"model": "m", "prompt": "Say this is a test", "stream": True} | params

    def sync(client: Any) -> Any:
        with client.completions.create(**asked) as chunks:
            return list(chunks)

    async def concurrent(client: Any) -> Any:
        async with await client.completions.create(**asked) as chunks:
            return [chunk async for chunk in chunks]

    work = sync if sdk.flavour == "sync" else concurrent
    return await sdk.run(work, _strict_response_validation=False)  # type: ignore[no-any-return]


async def test_unary(site: Site, sdk: Sdk) -> None:
    site.up.script(answer(WHOLE))
    got = await create(sdk)
    assert got.model_dump(exclude_unset=True) == WHOLE
    assert site.sent == {"model": "upstream-m", "prompt": "Say this is a test"}
    assert site.up.requests[-1].path == "/v1/completions"
    (settlement,) = await site.gateway.settled()
    assert settlement.usage is not None and settlement.usage.total_tokens == USAGE["total_tokens"]


async def test_stream(site: Site, sdk: Sdk) -> None:
    site.up.script(sse(STREAM))
    got = await stream(sdk)
    assert "".join(chunk.choices[0].text for chunk in got) == "\n\nThis is a test"
    assert [chunk.choices[0].finish_reason for chunk in got] == [None, None, None, "length"]
    assert all("usage" not in chunk.model_fields_set for chunk in got)
    assert {(chunk.id, chunk.object, chunk.created) for chunk in got} == {
        (ID, "text_completion", CREATED)
    }
    assert site.sent["stream_options"] == {"include_usage": True}


async def test_stream_with_usage(site: Site, sdk: Sdk) -> None:
    site.up.script(sse(STREAM))
    *others, last = await stream(sdk, stream_options={"include_usage": True})
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in others)
    assert last.choices == []
    assert last.usage.model_dump(exclude_unset=True) == USAGE


async def test_chunks_but_for_their_finish_reason_are_valid(site: Site) -> None:
    site.up.script(sse(STREAM))
    asked = {"model": "m", "prompt": "x", "stream": True}
    async with site.gateway.http() as http:
        body = (await http.post("/v1/completions", json=asked)).text
    *lines, done = body.strip().split("\n\n")
    assert done == "data: [DONE]"
    for line in lines:
        chunk = json.loads(line.removeprefix("data: "))
        chunk["choices"][0]["finish_reason"] = chunk["choices"][0]["finish_reason"] or "stop"
        Completion.model_validate(chunk, strict=True)


@pytest.mark.parametrize(
    "prompt",
    ["", "x", ["a", "b"], [1212, 318], [[1212, 318], [464]], "snow\u2028man \u2603"],
    ids=["empty", "text", "texts", "tokens", "lists of tokens", "odd"],
)
@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_prompts(site: Site, sdk: Sdk, prompt: Any) -> None:
    site.up.script(answer(WHOLE))
    if prompt == "":
        with pytest.raises(openai.BadRequestError) as caught:
            await create(sdk, prompt=prompt)
        assert caught.value.param == "prompt"  # type: ignore[attr-defined]
        return
    await create(sdk, prompt=prompt)
    assert site.sent["prompt"] == prompt


EVERYTHING: dict[str, Any] = {
    "best_of": 3,
    "echo": True,
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "logprobs": 2,
    "max_tokens": 7,
    "n": 2,
    "presence_penalty": -0.5,
    "seed": 42,
    "stop": ["a", "b"],
    "suffix": " end.",
    "temperature": 0.25,
    "top_p": 0.5,
    "user": "u",
}


def test_the_sample_has_every_parameter() -> None:
    known = set(get_type_hints(CompletionCreateParamsBase))
    assert known == EVERYTHING.keys() | {"model", "prompt", "stream_options"}


async def test_every_parameter(site: Site, sdk: Sdk) -> None:
    site.up.script(
        answer(completion(text("a", 0, "stop", LOGPROBS), text("b", 1, "content_filter")))
    )
    got = await create(sdk, **EVERYTHING, extra_body={"min_p": 0.5, "top_k": 3})
    assert site.sent == EVERYTHING | {
        "model": "upstream-m", "prompt": "Say this is a test", "min_p": 0.5, "top_k": 3,
    }  # fmt: skip
    assert [(c.index, c.text, c.finish_reason) for c in got.choices] == [
        (0, "a", "stop"),
        (1, "b", "content_filter"),
    ]
    assert got.choices[0].logprobs.model_dump() == LOGPROBS
    assert got.choices[1].logprobs is None


async def test_no_tokens_but_those_of_the_prompt(site: Site, sdk: Sdk) -> None:
    """How evaluation harnesses score a text."""
    site.up.script(answer(completion(text("\n\nThis", finish="length", logprobs=LOGPROBS))))
    await create(sdk, max_tokens=0, echo=True, logprobs=0)
    assert (site.sent["max_tokens"], site.sent["echo"], site.sent["logprobs"]) == (0, True, 0)


async def test_logprobs_streamed(site: Site, sdk: Sdk) -> None:
    def tokens(at: int) -> dict[str, Any]:
        return {name: values[at : at + 1] for name, values in LOGPROBS.items()}

    site.up.script(
        sse(
            [
                completion(text("\n\n", logprobs=tokens(0))),
                completion(text("This", logprobs=tokens(1))),
                completion(text("", finish="stop")),
            ]
        )
    )
    got = await stream(sdk, logprobs=2)
    assert "".join(chunk.choices[0].text for chunk in got) == "\n\nThis"
    assert got[-1].choices[0].logprobs.model_dump() == LOGPROBS, "those of all tokens, at the end"


async def test_choices_interleave(site: Site, sdk: Sdk) -> None:
    script = [text("a", 0), text("x", 1), text("b", 0, "stop"), text("y", 1, "length")]
    site.up.script(sse([completion(choice) for choice in script]))
    got = await stream(sdk, n=2)
    said = [(c.choices[0].index, c.choices[0].text) for c in got if c.choices[0].text]
    assert said == [(0, "a"), (1, "x"), (0, "b"), (1, "y")]
    ends = [(c.choices[0].index, c.choices[0].finish_reason) for c in got]
    assert [end for end in ends if end[1]] == [(0, "stop"), (1, "length")]


async def test_members_that_only_vendors_know(site: Site) -> None:
    body = completion(text("a", finish="stop") | {"stop_reason": 7}, usage=USAGE, x=[1.5])
    site.up.script(answer(body))
    async with site.gateway.http() as http:
        got = await http.post("/v1/completions", json={"model": "m", "prompt": "x"})
    assert got.json() == body


BAD: list[Any] = [
    (b"", None),
    (b"{", None),
    (b'{"model":"m"}', "prompt"),
    (b'{"prompt":"x"}', "model"),
    (b'{"model":"m","prompt":7}', "prompt"),
    (b'{"model":"m","prompt":null}', "prompt"),
    (b'{"model":"m","prompt":[]}', "prompt"),
    (b'{"model":"m","prompt":"x","temperature":3}', "temperature"),
    (b'{"model":"m","prompt":"x","n":0}', "n"),
    (b'{"model":"m","prompt":"x","logprobs":true}', "logprobs"),
    (b'{"model":"m","prompt":"x","stop":[1]}', "stop[0]"),
]


async def test_bad_bodies(site: Site, subtests: pytest.Subtests) -> None:
    async with site.gateway.http() as http:
        for body, param in BAD:
            with subtests.test(body=body):
                got = await http.post("/v1/completions", content=body)
                assert got.status_code == 400
                found = got.json()["error"]
                assert (found["param"], found["type"]) == (param, "invalid_request_error")
                assert "text_completion" not in found["message"]
    assert not site.up.requests


async def test_a_vendor_without_this_api(site: Site, sdk: Sdk) -> None:
    await site.open_config(
        f'providers: {{up: {{kind: groq, base_url: "{site.up.base_url}", api_key: k}}}}\n'
        "models: {m: {targets: [{provider: up}]}}"
    )
    with pytest.raises(openai.BadRequestError, match="send messages") as caught:
        await create(sdk)
    assert caught.value.param == "prompt"  # type: ignore[attr-defined]
    assert not site.up.requests


@pytest.mark.parametrize("streamed", [False, True])
async def test_errors_of_the_upstream(site: Site, sdk: Sdk, streamed: bool) -> None:
    site.up.script(error(404, "This is a chat model.", type="invalid_request_error", param="model"))
    with pytest.raises(openai.NotFoundError, match="chat model"):
        await (stream if streamed else create)(sdk)


async def test_an_error_in_mid_stream(site: Site, sdk: Sdk) -> None:
    site.up.script(sse([*STREAM[:2], {"error": {"message": "Boom."}}], done=False))
    with pytest.raises(openai.APIError, match="Boom"):
        await stream(sdk)


async def test_the_chat_is_still_there(sdk: Sdk) -> None:
    assert (await sdk.create(HELLO)).object == "chat.completion"
