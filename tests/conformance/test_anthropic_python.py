"""The stock `anthropic` SDK against a gateway over an upstream that speaks OpenAI's dialect: answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conformance.anthropic_sdk import HELLO, WEATHER, Sdk, asked_for
from conformance.conftest import Site
from fakes.upstream import answer, chunks, completion, hang, sse, tool_call
from headgate_facade.settings import FacadeSettings

TEXT = "Hello! How can I help you today?"
CALLS = [
    tool_call("get_weather", {"city": "Paris"}, id="call_a"),
    tool_call("get_weather", {"city": "Tokyo"}, id="call_b"),
]
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 7},
}


@pytest.fixture(params=["async", "sync"])
async def sdk(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Sdk]:
    """The SDK in front of the site."""
    sdk = Sdk(site, request.param)
    yield sdk
    await sdk.close()


async def test_message(site: Site, sdk: Sdk) -> None:
    site.up.script(answer(completion(TEXT, usage=USAGE)))
    message = await sdk.create(system="Be kind.")
    assert message.type == "message" and message.role == "assistant"
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": TEXT}]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.model == "m"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (36, 64, 20)
    assert usage.cache_creation_input_tokens == 0
    assert usage.output_tokens_details.thinking_tokens == 7
    assert usage.service_tier == "standard"
    assert message._request_id.startswith("req_")
    assert site.sent["messages"] == [{"role": "system", "content": "Be kind."}, *HELLO]


async def test_headers(sdk: Sdk) -> None:
    raw = await sdk.run(lambda c: c.messages.with_raw_response.create(**asked_for(None, {})))
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    assert raw.headers["x-headgate-provider"] == "up"


async def test_stream(site: Site, sdk: Sdk) -> None:
    site.up.script(sse(chunks(["Hel", "lo"], usage=USAGE)))
    events = await sdk.events()
    assert [event.type for event in events] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert [event.delta.text for event in events[2:4]] == ["Hel", "lo"]
    last = events[-2]
    assert last.delta.stop_reason == "end_turn"
    assert (last.usage.input_tokens, last.usage.cache_read_input_tokens) == (36, 64)
    assert last.usage.output_tokens == 20


async def test_the_stream_helper_gives_the_whole_message(site: Site, sdk: Sdk) -> None:
    site.up.script(answer(completion(TEXT, usage=USAGE, service_tier=None)))
    site.up.script(sse(chunks(["Hello! How", " can I help you", " today?"], usage=USAGE)))
    whole = await sdk.create()
    events, streamed = await sdk.stream()
    assert streamed.to_dict(exclude_none=True) == whole.to_dict(exclude_none=True)
    assert "".join(event.text for event in events if event.type == "text") == TEXT


async def test_tools(site: Site, sdk: Sdk) -> None:
    site.up.script(
        answer(completion("I look.", tool_calls=CALLS)),
        sse(chunks(["I look."], tool_calls=CALLS, usage=True)),
    )
    asked = {"tools": [WEATHER], "tool_choice": {"type": "auto"}}
    whole = await sdk.create(**asked)
    assert whole.stop_reason == "tool_use"
    assert [(b.type, getattr(b, "input", None)) for b in whole.content] == [
        ("text", None), ("tool_use", {"city": "Paris"}), ("tool_use", {"city": "Tokyo"})
    ]  # fmt: skip
    events, streamed = await sdk.stream(**asked)
    assert [b.to_dict() for b in streamed.content] == [b.to_dict() for b in whole.content]
    pieces = [event.partial_json for event in events if event.type == "input_json"]
    assert "".join(pieces) == '{"city": "Paris"}{"city": "Tokyo"}'

    results = [
        {"type": "tool_result", "tool_use_id": "call_a", "content": "sunny"},
        {
            "type": "tool_result",
            "tool_use_id": "call_b",
            "content": [{"type": "text", "text": "no such city"}],
            "is_error": True,
        },
        {"type": "text", "text": "Well?"},
    ]
    for said in (whole, streamed):
        turns = [*HELLO, {"role": "assistant", "content": said.content}]
        again = await sdk.create([*turns, {"role": "user", "content": results}], tools=[WEATHER])
        assert again.content[0].text == TEXT
        _, called, first, second, then = site.sent["messages"]
        assert called["content"] == "I look."
        assert [json.loads(c["function"]["arguments"]) for c in called["tool_calls"]] == [
            {"city": "Paris"}, {"city": "Tokyo"}
        ]  # fmt: skip
        assert (first["tool_call_id"], first["content"]) == ("call_a", "sunny")
        assert (second["tool_call_id"], second["content"]) == ("call_b", "no such city")
        assert then == {"role": "user", "content": "Well?"}


def interleaved() -> list[dict[str, Any]]:
    """Two calls whose arguments come in turns."""
    first, *rest = chunks([], tool_calls=CALLS)
    calls, last = rest[:-1], rest[-1]
    half = len(calls) // 2
    paired = zip(calls[:half], calls[half:], strict=True)
    return [first, *(chunk for pair in paired for chunk in pair), last]


async def test_calls_that_come_in_turns_are_shown_one_by_one(site: Site, sdk: Sdk) -> None:
    site.up.script(sse(interleaved()))
    _, message = await sdk.stream(tools=[WEATHER])
    assert [block.input for block in message.content] == [{"city": "Paris"}, {"city": "Tokyo"}]
    assert [block.id for block in message.content] == ["call_a", "call_b"]


async def test_the_runner_of_tools(site: Site, sdk: Sdk) -> None:
    import anthropic

    cities: list[str] = []
    site.up.script(answer(completion(None, tool_calls=CALLS)))

    def look(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return "sunny"

    async def look_async(city: str) -> str:
        """The weather in a city."""
        return look(city)

    if sdk.flavour == "sync":
        tool: Any = anthropic.beta_tool(name="get_weather")(look)
    else:
        tool = anthropic.beta_async_tool(name="get_weather")(look_async)

    def sync(client: Any) -> Any:
        return client.beta.messages.tool_runner(**asked_for(None, {"tools": [tool]})).until_done()

    final = await sdk.run(sync)
    assert final.content[0].text == TEXT
    assert sorted(cities) == ["Paris", "Tokyo"]


async def test_thinking(site: Site, sdk: Sdk) -> None:
    site.up.script(
        answer(completion("42", message={"reasoning_content": "six times seven"})),
        sse(chunks(["42"], reasoning=["six ", "times seven"])),
    )
    asked = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048}
    whole = await sdk.create(**asked)
    _, streamed = await sdk.stream(**asked)
    for message in (whole, streamed):
        thought, said = message.content
        assert (thought.type, thought.thinking) == ("thinking", "six times seven")
        assert thought.signature == ""
        assert said.text == "42"
        turns = [*HELLO, {"role": "assistant", "content": message.content}, *HELLO]
        assert (await sdk.create(turns)).content[0].text == TEXT


async def test_structured_output(site: Site, sdk: Sdk) -> None:
    import pydantic

    class Person(pydantic.BaseModel):
        name: str
        age: int

    said = '{"name": "Ada", "age": 36}'
    site.up.script(answer(completion(said)))
    found = await sdk.run(lambda c: c.messages.parse(**asked_for(None, {"output_format": Person})))
    assert found.parsed_output == Person(name="Ada", age=36)
    form = site.sent["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["required"] == ["name", "age"]


async def test_stop_reasons(site: Site, sdk: Sdk) -> None:
    for upstream, ours in (
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("stop", "end_turn"),
    ):
        site.up.script(
            answer(completion("x", finish_reason=upstream)),
            sse(chunks(["x"], finish_reason=upstream)),
        )
        assert (await sdk.create()).stop_reason == ours
        assert (await sdk.stream())[1].stop_reason == ours


async def test_a_refusal_is_text(site: Site, sdk: Sdk) -> None:
    site.up.script(answer(completion(None, message={"refusal": "I will not."})))
    assert (await sdk.create()).content[0].text == "I will not."


async def test_web_citations(site: Site, sdk: Sdk) -> None:
    cited = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    note = [{"type": "url_citation", "url_citation": cited}]
    site.up.script(answer(completion("It", message={"annotations": note})))
    (block,) = (await sdk.create()).content
    (citation,) = block.citations
    assert (citation.type, citation.url) == ("web_search_result_location", "https://a.example")


async def test_count_tokens(site: Site, sdk: Sdk) -> None:
    asked = {"model": "m", "messages": HELLO, "system": "Be kind.", "tools": [WEATHER]}
    counted = await sdk.run(lambda c: c.messages.count_tokens(**asked))
    few = await sdk.run(lambda c: c.messages.count_tokens(model="m", messages=HELLO))
    assert counted.input_tokens > few.input_tokens > 0
    beta = await sdk.run(lambda c: c.beta.messages.count_tokens(**asked))
    assert beta.input_tokens == counted.input_tokens
    raw = await sdk.run(lambda c: c.messages.with_raw_response.count_tokens(**asked))
    assert raw.headers["x-headgate-warnings"].startswith("input_tokens: estimated")
    assert not site.up.requests


async def test_models(site: Site, sdk: Sdk) -> None:
    names = [f"m{number:02}" for number in range(30)]
    await site.open(models="".join(f"  {n}: {{targets: [{{provider: up}}]}}\n" for n in names))
    names = ["m", *names]

    async def every(client: Any, **params: Any) -> list[str]:
        return [model.id async for model in client.models.list(**params)]

    def every_sync(client: Any, **params: Any) -> list[str]:
        return [model.id for model in client.models.list(**params)]

    walk: Any = every_sync if sdk.flavour == "sync" else every
    assert await sdk.run(walk) == names
    assert await sdk.run(lambda c: walk(c, limit=7)) == names
    page = await sdk.run(lambda c: c.models.list(limit=2, before_id="m05"))
    assert [model.id for model in page.data] == ["m03", "m04"]
    assert (page.has_more, page.first_id, page.last_id) == (True, "m03", "m04")
    page = await sdk.run(lambda c: c.models.list(limit=2, before_id="m00"))
    assert [model.id for model in page.data] == ["m"] and page.has_more is False
    assert await sdk.run(lambda c: walk(c, lifecycle=["retired"])) == []
    one = await sdk.run(lambda c: c.models.retrieve("m07"))
    assert (one.id, one.type, one.display_name) == ("m07", "model", "m07")


async def test_a_quiet_stream_is_kept_alive(site: Site, sdk: Sdk) -> None:
    await site.open(facade=FacadeSettings(ping_interval=0.05))
    begun = chunks(["Hel"], finish_reason="")
    site.up.script(sse([*begun, 0.3, *chunks(["lo"])[1:]]))
    async with site.gateway.http() as http:
        asked = {"model": "m", "max_tokens": 9, "messages": HELLO, "stream": True}
        got = await http.post("/v1/messages", json=asked)
    # One stands behind message_start in any case.
    assert got.text.count('event: ping\ndata: {"type": "ping"}\n\n') >= 3
    site.up.script(sse([*begun, 0.3, *chunks(["lo"])[1:]]))
    assert (await sdk.stream())[1].content[0].text == "Hello"


@pytest.mark.parametrize("sdk", ["async"], indirect=True)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_cancel_reaches_the_upstream(site: Site, sdk: Sdk, stream: bool) -> None:
    site.up.script(hang())
    task = asyncio.ensure_future(sdk.stream() if stream else sdk.create())
    (record,) = await site.up.wait_for_requests()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await record.wait_closed() and not record.finished


@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_leaving_a_stream_reaches_the_upstream(site: Site, sdk: Sdk) -> None:
    site.up.script(sse(chunks(["Hel"], finish_reason=""), ending="hang", done=False))

    async def leave(client: Any) -> None:
        async with client.messages.stream(**asked_for(None, {})) as stream:
            async for text in stream.text_stream:
                assert text == "Hel"
                return

    await sdk.run(leave)
    assert await site.up.requests[0].wait_closed()
    (settled,) = await site.gateway.settled()
    assert settled.streamed
