"""The stock `openai` SDK gets from the gateway what the upstream said, and the other way round.

Strict validation is on: an answer that departs from OpenAI's schema fails the call.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from conformance.conftest import Sdk, Site
from fakes.upstream import USAGE, answer, chunks, completion, sse, tool_call
from headgate_facade.settings import FacadeSettings

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string"}, "city": {"type": "string"}},
            "required": ["zone", "city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def text_of(parts: list[Any], index: int = 0) -> str:
    return "".join(
        choice.delta.content or ""
        for chunk in parts
        for choice in chunk.choices
        if choice.index == index
    )


# Text.


async def test_unary(site: Site, sdk: Sdk) -> None:
    got = await sdk.create()
    assert got.choices[0].message.content == "Hello! How can I help you today?"
    assert got.choices[0].message.role == "assistant"
    assert got.choices[0].message.tool_calls is None
    assert got.choices[0].message.refusal is None
    assert got.choices[0].finish_reason == "stop"
    assert got.model == "upstream-m"
    assert got.id.startswith("chatcmpl-")
    assert got.created == 1741569952
    assert got.system_fingerprint == "fp_06737a9306"
    assert got.service_tier == "default"
    assert got.usage.model_dump(exclude_unset=True) == USAGE
    assert site.sent == {
        "model": "upstream-m",
        "messages": [{"role": "user", "content": "Hello!"}],
    }
    assert site.up.requests[-1].headers["authorization"] == "Bearer upstream-secret-key"


async def test_stream(site: Site, sdk: Sdk) -> None:
    got = await sdk.chunks()
    assert text_of(got) == "Hello! How can I help you today?"
    assert {chunk.id for chunk in got} == {"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"}
    assert {chunk.created for chunk in got} == {1741569952}
    assert got[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in got] == [None] * (len(got) - 1) + ["stop"]
    # Not asked for, so neither numbers nor nulls; the gateway itself has them all the same.
    assert all("usage" not in chunk.model_fields_set for chunk in got)
    assert site.sent["stream_options"] == {"include_usage": True}
    (settlement,) = await site.gateway.settled()
    assert settlement.usage is not None and settlement.usage.total_tokens == USAGE["total_tokens"]


async def test_stream_with_usage(sdk: Sdk) -> None:
    got = await sdk.chunks(stream_options={"include_usage": True})
    *others, last = got
    assert all("usage" in c.model_fields_set and c.usage is None for c in others)
    assert all(len(c.choices) == 1 for c in others)
    assert last.choices == []
    assert last.usage.model_dump(exclude_unset=True) == USAGE


@pytest.mark.parametrize("usage_in", ["own chunk", "finish chunk"])
async def test_usage_has_a_chunk_of_its_own_wherever_the_upstream_puts_it(
    site: Site, sdk: Sdk, usage_in: str
) -> None:
    script = chunks(["Hi"], usage=USAGE if usage_in == "own chunk" else None)
    if usage_in == "finish chunk":
        script[-1] |= {"usage": USAGE}
    site.up.script(sse(script), sse(script))
    got = await sdk.chunks(stream_options={"include_usage": True})
    assert got[-1].choices == [] and got[-1].usage.total_tokens == 29
    assert got[-2].choices[0].finish_reason == "stop" and got[-2].usage is None
    got = await sdk.chunks()
    assert all(chunk.usage is None and chunk.choices for chunk in got)


async def test_several_choices(site: Site, sdk: Sdk) -> None:
    body = completion("one")
    body["choices"].append(json.loads(json.dumps(body["choices"][0]).replace("one", "two")))
    body["choices"][1]["index"] = 1
    body["choices"][1]["finish_reason"] = "length"
    site.up.script(answer(body))
    got = await sdk.create(n=2)
    assert [(c.index, c.message.content, c.finish_reason) for c in got.choices] == [
        (0, "one", "stop"),
        (1, "two", "length"),
    ]
    assert site.sent["n"] == 2


async def test_several_choices_interleaved(site: Site, sdk: Sdk) -> None:
    first, second = chunks(["a", "b", "c"]), chunks(["x", "y", "z"])
    for chunk in second:
        chunk["choices"][0]["index"] = 1
    site.up.script(sse([chunk for pair in zip(first, second, strict=True) for chunk in pair]))
    got = await sdk.chunks(n=2)
    assert text_of(got, 0) == "abc" and text_of(got, 1) == "xyz"
    spoken = [c.choices[0].index for c in got if c.choices[0].delta.content]
    assert spoken == [0, 1, 0, 1, 0, 1], "interleaved as it came"
    assert [c.choices[0].index for c in got if c.choices[0].finish_reason] == [0, 1]
    assert sum(c.choices[0].delta.role == "assistant" for c in got) == 2


LOGPROBS = [
    {
        "token": "Hé",
        "logprob": -0.25,
        "bytes": [72, 195, 169],
        "top_logprobs": [
            {"token": "Hé", "logprob": -0.25, "bytes": [72, 195, 169]},
            {"token": "<x>", "logprob": -9999.0, "bytes": None},
        ],
    },
    {"token": "!", "logprob": -1.5, "bytes": [33], "top_logprobs": []},
]


@pytest.mark.parametrize("of", ["content", "refusal"])
async def test_logprobs(site: Site, sdk: Sdk, of: str) -> None:
    wanted = {"content": None, "refusal": None, of: LOGPROBS}
    said = {"content": None, "refusal": "Hé!"} if of == "refusal" else {}
    body = completion("Hé!", message=said)
    body["choices"][0]["logprobs"] = wanted
    streamed = chunks([])
    for token in LOGPROBS:
        piece = json.loads(json.dumps(streamed[0]))
        piece["choices"][0]["delta"] = {of: token["token"]}
        piece["choices"][0]["logprobs"] = {"content": None, "refusal": None, of: [token]}
        streamed.insert(-1, piece)
    site.up.script(answer(body), sse(streamed))

    got = await sdk.create(logprobs=True, top_logprobs=2)
    assert got.choices[0].logprobs.model_dump() == wanted
    assert (site.sent["logprobs"], site.sent["top_logprobs"]) == (True, 2)

    parts = await sdk.chunks(logprobs=True, top_logprobs=2)
    found = [c.choices[0].logprobs for c in parts if c.choices[0].logprobs]
    assert [t.model_dump() for each in found for t in getattr(each, of)] == LOGPROBS
    text = "".join(getattr(c.choices[0].delta, of) or "" for c in parts)
    assert text == "Hé!", "the text comes with its log probabilities"


async def test_refusal(site: Site, sdk: Sdk) -> None:
    streamed = chunks([])
    for piece in ("I can't ", "do that."):
        chunk = json.loads(json.dumps(streamed[0]))
        chunk["choices"][0]["delta"] = {"refusal": piece}
        streamed.insert(-1, chunk)
    site.up.script(answer(completion(None, message={"refusal": "I can't."})), sse(streamed))
    message = (await sdk.create()).choices[0].message
    assert (message.content, message.refusal) == (None, "I can't.")
    events, final = await sdk.events()
    assert [e.delta for e in events if e.type == "refusal.delta"] == ["I can't ", "do that."]
    assert final.choices[0].message.refusal == "I can't do that."
    assert not final.choices[0].message.content


# Thinking.


async def test_reasoning_content(site: Site, sdk: Sdk) -> None:
    site.up.script(
        answer(completion("42", message={"reasoning_content": "six times seven"})),
        sse(chunks(["4", "2"], reasoning=["six ", "times seven"])),
    )
    message = (await sdk.create()).choices[0].message
    assert (message.content, message.reasoning_content) == ("42", "six times seven")
    got = await sdk.chunks()
    thought = [getattr(c.choices[0].delta, "reasoning_content", None) for c in got]
    assert "".join(t or "" for t in thought) == "six times seven"
    assert text_of(got) == "42"


async def test_reasoning_only_in_streams(site: Site, sdk: Sdk) -> None:
    await site.open(facade=FacadeSettings(reasoning_in_unary=False))
    site.up.script(
        answer(completion("42", message={"reasoning_content": "hm"})),
        sse(chunks(["42"], reasoning=["hm"])),
    )
    message = (await sdk.create()).choices[0].message
    assert message.content == "42" and "reasoning_content" not in message.model_fields_set
    assert message.model_extra == {}
    got = await sdk.chunks()
    assert any(getattr(c.choices[0].delta, "reasoning_content", None) == "hm" for c in got)


# Tools.


async def test_tools(site: Site, sdk: Sdk) -> None:
    calls = [
        tool_call("get_weather", '{"zone": "CET", "city": "Paris"}', id="call_a"),
        tool_call("get_weather", '{"zone":"JST","city":"東京"}', id="call_b"),
    ]
    site.up.script(answer(completion(None, tool_calls=calls)))
    got = await sdk.create(tools=[WEATHER], parallel_tool_calls=True, tool_choice="auto")
    message = got.choices[0].message
    assert got.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert [call.model_dump() for call in message.tool_calls] == calls
    assert site.sent["tools"] == [WEATHER]
    # As text: the order of a schema's members is the prompt's, and the key of prompt caches.
    assert json.dumps(WEATHER["function"]["parameters"], separators=(",", ":")) in (
        site.up.requests[-1].body.decode().replace(", ", ",").replace(": ", ":")
    )
    assert site.sent["parallel_tool_calls"] is True
    assert site.sent["tool_choice"] == "auto"

    # The next turn: the SDK's own message object goes back with the results.
    await sdk.create(
        [
            {"role": "user", "content": "Weather?"},
            message,
            {"role": "tool", "tool_call_id": "call_a", "content": "sunny"},
            {
                "role": "tool",
                "tool_call_id": "call_b",
                "content": [{"type": "text", "text": "rain"}],
            },
        ],
        tools=[WEATHER],
    )
    _, said, first, second = site.sent["messages"]
    assert said == {"role": "assistant", "content": None, "tool_calls": calls}
    assert first == {"role": "tool", "tool_call_id": "call_a", "content": "sunny"}
    assert second == {"role": "tool", "tool_call_id": "call_b", "content": "rain"}


async def test_tools_streamed(site: Site, sdk: Sdk) -> None:
    calls = [
        tool_call("get_weather", {"zone": "CET", "city": "Paris"}, id="call_a"),
        tool_call("get_weather", {"zone": "JST", "city": "Tokyo"}, id="call_b"),
    ]
    site.up.script(*[sse(chunks([], tool_calls=calls))] * 2)
    got = await sdk.chunks(tools=[WEATHER])
    deltas = [d for c in got for d in c.choices[0].delta.tool_calls or ()]
    opened = [d for d in deltas if d.id]
    assert [(d.index, d.id, d.type, d.function.name) for d in opened] == [
        (0, "call_a", "function", "get_weather"),
        (1, "call_b", "function", "get_weather"),
    ]
    for index, call in enumerate(calls):
        text = "".join(d.function.arguments or "" for d in deltas if d.index == index)
        assert text == call["function"]["arguments"]
    assert all(a.index <= b.index for a, b in pairwise(deltas))
    assert got[-1].choices[0].finish_reason == "tool_calls"
    assert text_of(got) == ""

    events, final = await sdk.events(tools=[WEATHER])
    done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    assert [e.parsed_arguments["city"] for e in done] == ["Paris", "Tokyo"]
    assert [c.id for c in final.choices[0].message.tool_calls] == ["call_a", "call_b"]


async def test_text_before_a_tool_call(site: Site, sdk: Sdk) -> None:
    call = tool_call("get_weather", {"city": "Paris", "zone": "CET"})
    site.up.script(
        answer(completion("Let me look.", tool_calls=[call])),
        sse(chunks(["Let me ", "look."], tool_calls=[call])),
    )
    message = (await sdk.create(tools=[WEATHER])).choices[0].message
    assert message.content == "Let me look." and len(message.tool_calls) == 1
    _, final = await sdk.events(tools=[WEATHER])
    assert final.choices[0].message.content == "Let me look."
    assert final.choices[0].message.tool_calls[0].function.name == "get_weather"


@pytest.mark.parametrize(
    "choice",
    [
        "none",
        "auto",
        "required",
        {"type": "function", "function": {"name": "get_weather"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "get_weather"}}],
            },
        },
        {"type": "custom", "custom": {"name": "code"}},
    ],
)
async def test_tool_choice(site: Site, sdk: Sdk, choice: Any) -> None:
    await sdk.create(tools=[WEATHER], tool_choice=choice)
    assert site.sent["tool_choice"] == choice


async def test_custom_tools(site: Site, sdk: Sdk) -> None:
    tool = {"type": "custom", "custom": {"name": "code", "format": {"type": "text"}}}
    call = {"id": "call_c", "type": "custom", "custom": {"name": "code", "input": "print(1)"}}
    site.up.script(answer(completion(None, tool_calls=[call])))
    got = await sdk.create(tools=[tool])
    assert site.sent["tools"] == [tool]
    message = got.choices[0].message
    assert [c.model_dump() for c in message.tool_calls] == [call]
    result = {"role": "tool", "tool_call_id": "call_c", "content": "1"}
    await sdk.create([{"role": "user", "content": "go"}, message, result], tools=[tool])
    assert site.sent["messages"][1]["tool_calls"] == [call]


async def test_legacy_functions(site: Site, sdk: Sdk) -> None:
    function = WEATHER["function"] | {}
    del function["strict"]
    call = tool_call("get_weather", '{"city":"Paris"}')
    site.up.script(answer(completion(None, tool_calls=[call])), sse(chunks([], tool_calls=[call])))
    got = await sdk.create(functions=[function], function_call={"name": "get_weather"})
    assert got.choices[0].finish_reason == "function_call"
    message = got.choices[0].message
    assert message.function_call.model_dump() == call["function"]
    assert message.tool_calls is None
    assert site.sent["tools"] == [{"type": "function", "function": function}]
    assert site.sent["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert "functions" not in site.sent and "function_call" not in site.sent

    parts = await sdk.chunks(functions=[function], function_call="auto")
    deltas = [d for c in parts if (d := c.choices[0].delta.function_call)]
    assert deltas[0].name == "get_weather"
    assert "".join(d.arguments or "" for d in deltas) == '{"city":"Paris"}'
    assert parts[-1].choices[0].finish_reason == "function_call"
    assert site.sent["tool_choice"] == "auto"

    result = {"role": "function", "name": "get_weather", "content": "sunny"}
    await sdk.create([{"role": "user", "content": "?"}, message, result], functions=[function])
    _, said, answered = site.sent["messages"]
    assert said["tool_calls"][0]["function"] == call["function"]
    assert answered == {
        "role": "tool",
        "tool_call_id": said["tool_calls"][0]["id"],
        "content": "sunny",
    }


async def test_late_words_of_a_vendor(site: Site, sdk: Sdk) -> None:
    """What only the last chunk tells does not disturb the SDK's helper."""
    late = chunks(["Hi"])[0] | {"choices": [], "citations": ["u"]}
    site.up.script(*[sse([*chunks(["Hi"]), late])] * 2)
    events, final = await sdk.events()
    assert final.choices[0].message.content == "Hi"
    assert final.choices[0].finish_reason == "stop"
    assert [e.type for e in events if e.type == "content.done"] == ["content.done"]
    assert (await sdk.chunks())[-1].citations == ["u"]


# Structured output.


class Step(BaseModel):
    explanation: str
    output: str


class Solution(BaseModel):
    steps: list[Step]
    final_answer: str


SOLVED = Solution(steps=[Step(explanation="8x = -30", output="x = -30/8")], final_answer="-3.75")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # of the SDK itself
async def test_parse(site: Site, sdk: Sdk) -> None:
    site.up.script(answer(completion(SOLVED.model_dump_json())))
    got = await sdk.parse(response_format=Solution)
    assert got.choices[0].message.parsed == SOLVED
    form = site.sent["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["name"] == "Solution" and form["json_schema"]["strict"] is True
    assert list(form["json_schema"]["schema"]["$defs"]) == ["Step"]

    # A parsed message goes back as the assistant's turn, as the SDK sends it.
    said = got.choices[0].message
    await sdk.create([{"role": "user", "content": "Solve"}, said, {"role": "user", "content": "!"}])
    assert site.sent["messages"][1] == {"role": "assistant", "content": SOLVED.model_dump_json()}


async def test_parse_streamed(site: Site, sdk: Sdk) -> None:
    text = SOLVED.model_dump_json()
    site.up.script(sse(chunks([text[i : i + 7] for i in range(0, len(text), 7)], usage=True)))
    events, final = await sdk.events(
        response_format=Solution, stream_options={"include_usage": True}
    )
    assert final.choices[0].message.parsed == SOLVED
    assert final.usage.total_tokens == 29
    (done,) = [e for e in events if e.type == "content.done"]
    assert done.parsed == SOLVED
    assert "".join(e.delta for e in events if e.type == "content.delta") == text


class GetWeather(BaseModel):
    city: str


async def test_parse_tools(site: Site, sdk: Sdk) -> None:
    call = tool_call("GetWeather", {"city": "Paris"})
    site.up.script(answer(completion(None, tool_calls=[call])))
    tools = [openai.pydantic_function_tool(GetWeather)]
    got = await sdk.parse(tools=tools)
    message = got.choices[0].message
    assert message.tool_calls[0].function.parsed_arguments == GetWeather(city="Paris")
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    await sdk.parse([{"role": "user", "content": "?"}, message, result], tools=tools)
    assert site.sent["messages"][1]["tool_calls"] == [call]


async def test_json_object(site: Site, sdk: Sdk) -> None:
    site.up.script(answer(completion('{"a": 1}')))
    got = await sdk.create(response_format={"type": "json_object"})
    assert got.choices[0].message.content == '{"a": 1}'
    assert site.sent["response_format"] == {"type": "json_object"}
    await sdk.create(response_format={"type": "text"})
    assert site.sent["response_format"] == {"type": "text"}
