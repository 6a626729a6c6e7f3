"""The stock `google-genai` SDK against a gateway over an upstream that speaks OpenAI's dialect."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.genai import types
from pydantic import BaseModel

from conformance.conftest import Site
from conformance.gemini_sdk import (
    AS_JSON_SCHEMA,
    PNG,
    QUIET,
    TEXT,
    WEATHER,
    WEATHER_TOOL,
    Sdk,
    parts_of,
    text_of,
)
from fakes.upstream import answer, chunks, completion, sse, tool_call
from headgate_facade.settings import FacadeSettings

pytestmark = QUIET

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 7},
}
CALLS = [
    tool_call("get_weather", {"zone": "CET", "city": "Paris"}, id="call_a"),
    tool_call("get_weather", {"zone": "JST", "city": "東京"}, id="call_b"),
]


@pytest.fixture(params=["async", "sync"])
async def sdk(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Sdk]:
    """The SDK in front of the site."""
    sdk = Sdk(site, request.param)
    yield sdk
    await sdk.close()


# Text.


@pytest.mark.parametrize("version", [None, "v1beta"])
async def test_answer(site: Site, sdk: Sdk, version: str | None) -> None:
    sdk = Sdk(site, sdk.flavour, version)
    site.up.script(answer(completion(TEXT, usage=USAGE)))
    got = await sdk.generate(system_instruction="Be kind.")
    assert got.text == TEXT
    (candidate,) = got.candidates
    assert candidate.finish_reason is types.FinishReason.STOP
    assert (candidate.index, candidate.content.role) == (0, "model")
    assert got.model_version == "m" and got.response_id.startswith("chatcmpl-")
    usage = got.usage_metadata
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (100, 64)
    assert (usage.candidates_token_count, usage.thoughts_token_count) == (13, 7)
    assert usage.total_token_count == 120
    headers = {k.lower(): v for k, v in got.sdk_http_response.headers.items()}
    assert headers["x-headgate-provider"] == "up" and headers["x-request-id"].startswith("req_")
    assert site.sent == {
        "model": "upstream-m",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello!"},
        ],
    }
    await sdk.close()


async def test_stream(site: Site, sdk: Sdk) -> None:
    site.up.script(sse(chunks(["Hé", "l", "lo!"], usage=USAGE)))
    got = await sdk.chunks()
    assert text_of(got) == "Héllo!"
    assert [c.candidates[0].finish_reason for c in got] == [None, None, None, "STOP"]
    assert [c.usage_metadata is None for c in got] == [True, True, True, False]
    assert got[-1].usage_metadata.thoughts_token_count == 7
    assert {c.response_id for c in got} == {"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"}
    assert site.sent["stream"] is True


async def test_stream_with_pings(site: Site, sdk: Sdk) -> None:
    """A comment would end the SDK's stream; a blank line does not."""
    await site.open(facade=FacadeSettings(ping_interval=0.02))
    site.up.script(sse(chunks(["a", "b", "c"]), delay=0.1))
    assert text_of(await sdk.chunks()) == "abc"


async def test_length_and_filter(site: Site, sdk: Sdk) -> None:
    for said, wanted in (("length", "MAX_TOKENS"), ("content_filter", "SAFETY")):
        site.up.script(
            answer(completion("x", finish_reason=said)), sse(chunks(["x"], finish_reason=said))
        )
        got = await sdk.generate()
        assert got.candidates[0].finish_reason == wanted
        assert (await sdk.chunks())[-1].candidates[0].finish_reason == wanted


async def test_two_candidates(site: Site, sdk: Sdk) -> None:
    body = completion("one")
    body["choices"].append(json.loads(json.dumps(body["choices"][0]).replace("one", "two")))
    body["choices"][1]["index"] = 1
    site.up.script(answer(body))
    got = await sdk.generate(candidate_count=2)
    assert [(c.index, c.content.parts[0].text) for c in got.candidates] == [(0, "one"), (1, "two")]
    assert site.sent["n"] == 2


async def test_logprobs(site: Site, sdk: Sdk) -> None:
    token = {
        "token": "Hi",
        "logprob": -0.5,
        "bytes": [72, 105],
        "top_logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": None}],
    }
    body = completion("Hi")
    body["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    site.up.script(answer(body))
    got = await sdk.generate(response_logprobs=True, logprobs=1)
    result = got.candidates[0].logprobs_result
    assert [(c.token, c.log_probability) for c in result.chosen_candidates] == [("Hi", -0.5)]
    assert [c.token for c in result.top_candidates[0].candidates] == ["Hi"]
    assert (site.sent["logprobs"], site.sent["top_logprobs"]) == (True, 1)


async def test_citations(site: Site, sdk: Sdk) -> None:
    cited = {
        "type": "url_citation",
        "url_citation": {
            "url": "https://a.example",
            "title": "A",
            "start_index": 4,
            "end_index": 8,
        },
    }
    site.up.script(answer(completion("Olé, Rome!", message={"annotations": [cited]})))
    got = await sdk.generate(tools=[{"google_search": {}}])
    grounding = got.candidates[0].grounding_metadata
    assert grounding.grounding_chunks[0].web.uri == "https://a.example"
    segment = grounding.grounding_supports[0].segment
    assert got.text.encode()[segment.start_index : segment.end_index].decode() == segment.text
    assert site.sent["web_search_options"] == {} and "tools" not in site.sent


# Tools.


async def test_calls(site: Site, sdk: Sdk) -> None:
    site.up.script(answer(completion("Let me see.", tool_calls=CALLS)))
    question = types.UserContent("Weather?")
    got = await sdk.generate(question, tools=[WEATHER_TOOL])
    assert [(c.id, c.name, c.args["city"]) for c in got.function_calls] == [
        ("call_a", "get_weather", "Paris"),
        ("call_b", "get_weather", "東京"),
    ]
    assert got.candidates[0].finish_reason == "STOP"
    (tool,) = site.sent["tools"]
    assert tool["function"] == {
        "name": "get_weather",
        "description": WEATHER["description"],
        "parameters": AS_JSON_SCHEMA,
    }
    assert list(tool["function"]["parameters"]["properties"]) == ["zone", "city"]

    # The next turn, without ids in the outcomes: as the SDK makes them.
    outcomes = [
        types.Part.from_function_response(name="get_weather", response={"result": text})
        for text in ("sun", "rain")
    ]
    await sdk.generate(
        [question, got.candidates[0].content, types.UserContent(outcomes)], tools=[WEATHER_TOOL]
    )
    _, said, first, second = site.sent["messages"]
    assert said["content"] == "Let me see."
    assert [c["id"] for c in said["tool_calls"]] == ["call_a", "call_b"]
    assert json.loads(said["tool_calls"][1]["function"]["arguments"]) == {
        "zone": "JST",
        "city": "東京",
    }
    assert (first["role"], second["role"]) == ("tool", "tool")
    assert (first["tool_call_id"], first["content"]) == ("call_a", '{"result":"sun"}')
    assert (second["tool_call_id"], second["content"]) == ("call_b", '{"result":"rain"}')


async def test_calls_streamed(site: Site, sdk: Sdk) -> None:
    site.up.script(sse(chunks(["Let me ", "see."], tool_calls=CALLS)))
    got = await sdk.chunks(tools=[WEATHER_TOOL])
    calls = [call for chunk in got for call in chunk.function_calls or ()]
    assert [(call.id, call.args["zone"]) for call in calls] == [
        ("call_a", "CET"),
        ("call_b", "JST"),
    ]
    assert text_of(got) == "Let me see."


async def test_a_malformed_call(site: Site, sdk: Sdk) -> None:
    broken = tool_call("get_weather", '{"city": ', id="call_a")
    site.up.script(answer(completion(None, tool_calls=[broken])))
    got = await sdk.generate(tools=[WEATHER_TOOL])
    assert got.candidates[0].finish_reason == "MALFORMED_FUNCTION_CALL"
    assert not got.function_calls


async def test_automatic_function_calling(site: Site, sdk: Sdk) -> None:
    asked: list[str] = []

    def get_weather(zone: str, city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        if city == "Paris":
            raise ValueError("no such city")
        return "rain"

    site.up.script(answer(completion(None, tool_calls=CALLS)), answer(completion("Wet.")))
    got = await sdk.generate(tools=[get_weather])
    assert asked == ["Paris", "東京"] and got.text == "Wet."
    assert site.sent["tools"][0]["function"]["parameters"]["required"] == ["zone", "city"]
    failed, done = site.sent["messages"][-2:]
    assert (failed["tool_call_id"], done["tool_call_id"]) == ("call_a", "call_b")
    assert "no such city" in json.loads(failed["content"])["error"]
    assert json.loads(done["content"]) == {"result": "rain"}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"mode": "AUTO"}, "auto"),
        ({"mode": "ANY"}, "required"),
        ({"mode": "NONE"}, "none"),
        (
            {"mode": "ANY", "allowed_function_names": ["get_weather"]},
            {"type": "function", "function": {"name": "get_weather"}},
        ),
    ],
)
async def test_tool_choice(site: Site, sdk: Sdk, config: Any, wanted: Any) -> None:
    await sdk.generate(tools=[WEATHER_TOOL], tool_config={"function_calling_config": config})
    assert site.sent["tool_choice"] == wanted


# Structured output.


class Recipe(BaseModel):
    name: str
    ingredients: list[str]


async def test_structured_output(site: Site, sdk: Sdk) -> None:
    cake = Recipe(name="Cake", ingredients=["flour"])
    for spelled in ("response_schema", "response_json_schema"):
        schema: Any = Recipe if spelled == "response_schema" else Recipe.model_json_schema()
        site.up.script(answer(completion(cake.model_dump_json())))
        got = await sdk.generate(response_mime_type="application/json", **{spelled: schema})
        assert got.parsed == (cake if spelled == "response_schema" else cake.model_dump())
        form = site.sent["response_format"]
        assert form["type"] == "json_schema"
        found = form["json_schema"]["schema"]
        assert found["type"] == "object" and list(found["properties"]) == ["name", "ingredients"]
        assert found["properties"]["ingredients"]["items"] == {"type": "string"}


async def test_one_word(site: Site, sdk: Sdk) -> None:
    """`text/x.enum`, which nobody else has, by way of a JSON object."""
    wrapped = '{"value":"String"}'
    site.up.script(answer(completion(wrapped)), sse(chunks([wrapped[:9], wrapped[9:]])))
    form = {
        "response_mime_type": "text/x.enum",
        "response_schema": {"type": "STRING", "enum": ["Percussion", "String"]},
    }
    assert (await sdk.generate(**form)).text == "String"
    schema = site.sent["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"value": {"type": "string", "enum": ["Percussion", "String"]}}
    assert text_of(await sdk.chunks(**form)) == "String"


# Media.


async def test_images(site: Site, sdk: Sdk) -> None:
    image = types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
    linked = types.Part.from_uri(file_uri="https://a.example/b.jpg", mime_type="image/jpeg")
    await sdk.generate([image, linked, "What?"])
    assert site.sent["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.jpg"}},
        {"type": "text", "text": "What?"},
    ]


# Chats.


async def test_chat(site: Site, sdk: Sdk) -> None:
    chat = sdk.chat(system_instruction="Be brief.")
    site.up.script(answer(completion("One.")), sse(chunks(["T", "wo."])), answer(completion("3.")))
    assert (await chat.send("a")).text == "One."
    assert text_of(await chat.stream("b")) == "Two."
    assert (await chat.send("c")).text == "3."
    assert site.sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "c"},
    ], "the pieces of a stream are one turn again"


async def test_chat_with_calls_streamed(site: Site, sdk: Sdk) -> None:
    off = {"automatic_function_calling": {"disable": True}}
    chat = sdk.chat(tools=[WEATHER_TOOL], **off)
    site.up.script(sse(chunks(["See", "..."], tool_calls=CALLS)), sse(chunks(["Wet."])))
    await chat.stream("Weather?")
    outcomes = [
        types.Part.from_function_response(name="get_weather", response={"result": text})
        for text in ("sun", "rain")
    ]
    assert text_of(await chat.stream(outcomes)) == "Wet."
    _, said, first, second = site.sent["messages"]
    assert said["content"] == "See..."
    assert [c["id"] for c in said["tool_calls"]] == ["call_a", "call_b"]
    assert (first["tool_call_id"], second["tool_call_id"]) == ("call_a", "call_b")


# Thinking.


async def test_thoughts(site: Site, sdk: Sdk) -> None:
    whole = completion("42", message={"reasoning_content": "six times seven"})
    streamed = chunks(["42"], reasoning=["six ", "times seven"])
    site.up.script(answer(whole), sse(streamed), answer(whole), sse(streamed))
    thinking = {"thinking_config": {"include_thoughts": True}}
    got = await sdk.generate(**thinking)
    assert got.text == "42"
    assert parts_of(got)[0] == {"text": "six times seven", "thought": True}
    got = await sdk.chunks(**thinking)
    assert text_of(got) == "42"
    assert parts_of(got)[:2] == [
        {"text": "six ", "thought": True},
        {"text": "times seven", "thought": True},
    ]
    assert parts_of(await sdk.generate()) == [{"text": "42"}], "not shown unless asked for"
    assert text_of(await sdk.chunks()) == "42"


# Counting, and models.


async def test_count_tokens(sdk: Sdk) -> None:
    got = await sdk.run(lambda c: c.models.count_tokens(model="m", contents="Hello, how are you?"))
    assert got.total_tokens > 3
    assert "estimated" in got.sdk_http_response.headers["x-headgate-warnings"]
    assert "x-headgate-provider" not in got.sdk_http_response.headers


@pytest.mark.parametrize("version", [None, "v1beta"])
async def test_models(site: Site, sdk: Sdk, version: str | None) -> None:
    await site.open(models="  a/b: {targets: [{provider: up}]}\n  z: {targets: [{provider: up}]}")
    sdk = Sdk(site, sdk.flavour, version)

    async def listed(client: Any) -> Any:
        pager = await client.models.list(config={"page_size": 2})
        return [model async for model in pager]

    found = (
        await sdk.run(lambda c: list(c.models.list(config={"page_size": 2})))
        if sdk.flavour == "sync"
        else await sdk.run(listed)
    )
    assert [model.name for model in found] == ["models/a/b", "models/m", "models/z"]
    assert "generateContent" in found[0].supported_actions
    one = await sdk.run(lambda c: c.models.get(model="a/b"))
    assert one.name == "models/a/b" and one.display_name == "a/b"
    await sdk.close()


async def test_addressed_models(site: Site, sdk: Sdk) -> None:
    """`provider/model`, with colons in the name."""
    await sdk.generate(model="up/llama3:8b")
    assert site.sent["model"] == "llama3:8b"
    assert text_of(await sdk.chunks(model="models/up/llama3:8b")) == TEXT
    got = await sdk.run(lambda c: c.models.count_tokens(model="up/llama3:8b", contents="Hi"))
    assert got.total_tokens > 0
    assert (
        await sdk.run(lambda c: c.models.get(model="up/llama3:8b"))
    ).name == "models/up/llama3:8b"
