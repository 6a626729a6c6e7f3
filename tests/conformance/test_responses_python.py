"""`client.responses` of the stock `openai` SDK over a Chat Completions upstream.

Strict validation is on: an answer that departs from OpenAI's schema fails the call.
"""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from conformance.conftest import Sdk, Site
from conformance.responses_sdk import PNG, TEXT, WEATHER, Responses, turn, types_of
from fakes.gateway import KEY
from fakes.upstream import answer, chat, chunks, completion, error, rate_limited, sse, tool_call

CALLS = [
    tool_call("get_weather", {"zone": "Europe", "city": "Paris"}, id="call_a"),
    tool_call("get_weather", {"zone": "Asia", "city": "Tokyo"}, id="call_b"),
]


@pytest.fixture
def responses(sdk: Sdk) -> Responses:
    return Responses(sdk)


# Text.


async def test_unary(site: Site, responses: Responses) -> None:
    got = await responses.create(instructions="Be brief.", metadata={"k": "v"})
    assert got.output_text == TEXT
    assert (got.status, got.model, got.created_at) == ("completed", "upstream-m", 1741569952)
    assert got.id.startswith("resp_")
    assert got.completed_at is not None and got.completed_at >= got.created_at
    assert (got.error, got.incomplete_details, got.previous_response_id) == (None, None, None)
    (message,) = got.output
    assert message.type == "message" and message.role == "assistant"
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.total_tokens) == (19, 10, 29)
    assert got.instructions == "Be brief." and got.metadata == {"k": "v"}
    assert got.to_dict()["store"] is False
    assert got._request_id is not None and got._request_id.startswith("req_")
    assert site.sent == {
        "model": "upstream-m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello!"},
        ],
        "metadata": {"k": "v"},
    }


async def test_stream(site: Site, responses: Responses) -> None:
    got = await responses.events()
    deltas = "output_text.delta"
    kinds = types_of(got)
    assert [kind for kind in kinds if kind != deltas] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert "".join(each.delta for each in got if each.type.endswith(deltas)) == TEXT
    assert [each.sequence_number for each in got] == list(range(len(got)))
    final = got[-1].response
    assert final.output_text == TEXT and final.usage.total_tokens == 29
    assert site.sent["stream"] is True
    (settlement,) = await site.gateway.settled()
    assert settlement.outcome == "OK" and settlement.usage is not None


async def test_the_streaming_helper_ends_with_what_a_unary_call_gives(
    site: Site, responses: Responses
) -> None:
    whole = await responses.create()
    events, final = await responses.stream()
    assert final.output_text == TEXT
    texts = [e for e in events if e.type == "response.output_text.delta"]
    assert texts[-1].snapshot == TEXT
    ours, theirs = whole.to_dict(), events[-1].response.to_dict()
    for body in (ours, theirs):
        body.pop("completed_at")
    # Only streams of this upstream tell no tier.
    theirs["service_tier"] = ours["service_tier"]
    for content in theirs["output"][0]["content"]:
        content.pop("parsed", None)
    assert theirs == ours


async def test_a_length_limit_and_a_filter_make_it_incomplete(
    site: Site, responses: Responses
) -> None:
    site.up.script(answer(completion("Once upon", finish_reason="length")))
    got = await responses.create(max_output_tokens=16)
    assert got.status == "incomplete" and got.incomplete_details is not None
    assert got.incomplete_details.reason == "max_output_tokens"
    assert got.max_output_tokens == 16 and site.sent["max_completion_tokens"] == 16
    assert got.completed_at is None
    site.up.script(sse(chunks(["Once"], finish_reason="content_filter")))
    last = (await responses.events())[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "content_filter"
    assert last.response.output[0].status == "incomplete"


async def test_a_refusal(site: Site, responses: Responses) -> None:
    site.up.script(answer(completion(None, message={"refusal": "I cannot."})))
    got = await responses.create()
    (message,) = got.output
    assert message.type == "message"
    (refusal,) = message.content
    assert refusal.type == "refusal" and refusal.refusal == "I cannot."


async def test_logprobs(site: Site, responses: Responses) -> None:
    tokens = [
        {"token": "Hé", "logprob": -0.25, "bytes": None, "top_logprobs": [
            {"token": "Hé", "logprob": -0.25, "bytes": [72, 195, 169]}]},
    ]  # fmt: skip
    body = completion("Hé")
    body["choices"][0]["logprobs"] = {"content": tokens, "refusal": None}
    first, *rest = chunks(["Hé"])
    rest[0]["choices"][0]["logprobs"] = {"content": tokens, "refusal": None}
    site.up.script(answer(body), sse([first, *rest]))
    for got in await responses.both(top_logprobs=1, include=["message.output_text.logprobs"]):
        (message,) = got.output
        assert message.type == "message"
        (text,) = message.content
        assert text.type == "output_text" and text.logprobs is not None
        assert [(t.token, t.bytes, t.logprob) for t in text.logprobs] == [
            ("Hé", [72, 195, 169], -0.25)
        ]
        assert site.sent["logprobs"] is True and site.sent["top_logprobs"] == 1


async def test_citations(site: Site, responses: Responses) -> None:
    cited = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 5}
    note = {"type": "url_citation", "url_citation": cited}
    late = chunks(["Hello"])
    late[-1]["choices"][0]["delta"] = {"annotations": [note]}
    site.up.script(answer(completion("Hello", message={"annotations": [note]})), sse(late))
    for got in await responses.both(tools=[{"type": "web_search"}]):
        (message,) = got.output
        assert message.type == "message"
        (text,) = message.content
        assert text.type == "output_text"
        assert [a.to_dict() for a in text.annotations] == [{"type": "url_citation", **cited}]
        assert site.sent["web_search_options"] == {}


# Input.


async def test_images_and_files(site: Site, responses: Responses) -> None:
    url = f"data:image/png;base64,{PNG}"
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": url, "detail": "low"},
        {
            "type": "input_file",
            "file_data": "data:application/pdf;base64,JVBERi0=",
            "filename": "a",
        },
    ]
    await responses.create([{"role": "user", "content": content}])
    assert site.sent["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
                {"type": "file", "file": {
                    "file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a"
                }},
            ],
        }
    ]  # fmt: skip


async def test_an_answer_goes_back_as_the_sdk_has_it(site: Site, responses: Responses) -> None:
    got = await responses.create()
    await responses.create(
        [{"role": "user", "content": "Hello!"}, *turn(got), {"role": "user", "content": "And?"}]
    )
    assert site.sent["messages"] == [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": TEXT},
        {"role": "user", "content": "And?"},
    ]


# Tools.


async def test_tools_in_parallel_and_their_results(site: Site, responses: Responses) -> None:
    for whole in (True, False):
        calls = (
            answer(completion("Let me look.", tool_calls=CALLS))
            if whole
            else sse(chunks(["Let me", " look."], tool_calls=CALLS))
        )
        site.up.script(calls, chat("Mild."))
        asked: dict[str, Any] = {"tools": [WEATHER], "parallel_tool_calls": True}
        if whole:
            got = await responses.create(**asked)
        else:
            events, got = await responses.stream(**asked)
            ended = [e for e in events if e.type == "response.function_call_arguments.delta"]
            assert json.loads(ended[-1].snapshot) == {"zone": "Asia", "city": "Tokyo"}
        _, first, second = got.output
        assert (first.type, second.type) == ("function_call", "function_call")
        assert (first.call_id, second.call_id) == ("call_a", "call_b")
        assert json.loads(first.arguments) == {"zone": "Europe", "city": "Paris"}
        assert len({item.id for item in got.output}) == 3
        sent = site.sent["tools"][0]
        assert sent["type"] == "function" and sent["function"]["strict"] is True
        assert list(sent["function"]["parameters"]["properties"]) == ["zone", "city"]

        results = [
            {"type": "function_call_output", "call_id": call, "output": text}
            for call, text in (("call_a", "18 C"), ("call_b", "25 C"))
        ]
        again = await responses.create(
            [{"role": "user", "content": "Hello!"}, *turn(got), *results], **asked
        )
        assert again.output_text == "Mild."
        _, said, *outcomes = site.sent["messages"]
        assert said["content"] == "Let me look."
        assert [call["id"] for call in said["tool_calls"]] == ["call_a", "call_b"]
        assert outcomes == [
            {"role": "tool", "tool_call_id": "call_a", "content": "18 C"},
            {"role": "tool", "tool_call_id": "call_b", "content": "25 C"},
        ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ("none", "none"),
        (
            {"type": "function", "name": "get_weather"},
            {"type": "function", "function": {"name": "get_weather"}},
        ),
        (
            {"type": "allowed_tools", "mode": "required",
             "tools": [{"type": "function", "name": "get_weather"}]},
            "required",
        ),
    ],
)  # fmt: skip
async def test_the_choice_of_a_tool(
    site: Site, responses: Responses, choice: Any, sent: Any
) -> None:
    other = WEATHER | {"name": "get_time"}
    got = await responses.create(tools=[WEATHER, other], tool_choice=choice)
    assert site.sent["tool_choice"] == sent
    names = [tool["function"]["name"] for tool in site.sent["tools"]]
    allowed = isinstance(choice, dict) and choice["type"] == "allowed_tools"
    assert names == ["get_weather"] if allowed else ["get_weather", "get_time"]
    echoed = got.tool_choice if isinstance(got.tool_choice, str) else got.tool_choice.to_dict()
    assert echoed == choice
    assert [tool.to_dict() for tool in got.tools] == [WEATHER, other]


PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
SPACE = {"type": "namespace", "name": "mcp__files", "description": "Files.", "tools": [WEATHER]}


async def test_custom_tools_and_namespaces_work_with_any_upstream(
    site: Site, responses: Responses
) -> None:
    calls = [
        tool_call("apply_patch", {"input": '*** Begin\n+"a"'}, id="call_p"),
        tool_call("mcp__files__get_weather", {"city": "Rome"}, id="call_f"),
    ]
    for whole in (True, False):
        site.up.script(
            answer(completion(None, tool_calls=calls))
            if whole
            else sse(chunks([], tool_calls=calls))
        )
        asked: dict[str, Any] = {"tools": [PATCH, SPACE]}
        got = await responses.create(**asked) if whole else (await responses.stream(**asked))[1]
        patch, found = got.output
        assert patch.type == "custom_tool_call"
        assert (patch.name, patch.input, patch.call_id) == (
            "apply_patch", '*** Begin\n+"a"', "call_p",
        )  # fmt: skip
        assert found.type == "function_call"
        assert (found.namespace, found.name) == ("mcp__files", "get_weather")
        function = site.sent["tools"][0]["function"]
        assert function["name"] == "apply_patch" and "start: /.+/" in function["description"]
        assert list(function["parameters"]["properties"]) == ["input"]

        results = [
            {"type": "custom_tool_call_output", "call_id": "call_p", "output": "Done!"},
            {"type": "function_call_output", "call_id": "call_f", "output": "Sun."},
        ]
        await responses.create(
            [{"role": "user", "content": "Hello!"}, *turn(got), *results], **asked
        )
        _, said, *outcomes = site.sent["messages"]
        assert [call["type"] for call in said["tool_calls"]] == ["function", "function"]
        assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {
            "input": '*** Begin\n+"a"'
        }
        assert said["tool_calls"][1]["function"]["name"] == "mcp__files__get_weather"
        assert [outcome["content"] for outcome in outcomes] == ["Done!", "Sun."]


async def test_a_hosted_tool_is_refused_where_it_does_not_exist(
    site: Site, responses: Responses
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await responses.create(tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}])
    assert refused.value.param == "tools[0]"
    assert not site.up.requests


# Thinking.


async def test_thinking_comes_as_a_summary_and_goes_back(site: Site, responses: Responses) -> None:
    site.up.script(
        answer(completion("42", message={"reasoning_content": "six times seven"})),
        sse(chunks(["42"], reasoning=["six ", "times seven"])),
    )
    for got in await responses.both(reasoning={"effort": "high", "summary": "auto"}):
        thought, message = got.output
        assert thought.type == "reasoning" and message.type == "message"
        assert [piece.text for piece in thought.summary] == ["six times seven"]
        assert site.sent["reasoning_effort"] == "high"
        assert got.reasoning is not None
        assert (got.reasoning.effort, got.reasoning.summary) == ("high", "auto")
    await responses.create(
        [{"role": "user", "content": "?"}, *turn(got), {"role": "user", "content": "Sure?"}]
    )
    assert site.sent["messages"][1] == {
        "role": "assistant",
        "content": "42",
        "reasoning_content": "six times seven",
    }


# Structured output.


class Step(BaseModel):
    explanation: str
    output: str


class Solution(BaseModel):
    steps: list[Step]
    answer: int


SOLVED = '{"steps":[{"explanation":"e","output":"o"}],"answer":42}'


async def test_parse(site: Site, responses: Responses) -> None:
    site.up.script(answer(completion(SOLVED)))
    got = await responses.parse(text_format=Solution)
    assert got.output_parsed == Solution(steps=[Step(explanation="e", output="o")], answer=42)
    form = site.sent["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["name"] == "Solution" and form["json_schema"]["strict"] is True
    assert list(form["json_schema"]["schema"]["properties"]) == ["steps", "answer"]
    site.up.script(sse(chunks([SOLVED[:9], SOLVED[9:]])))
    _, final = await responses.stream(text_format=Solution)
    assert final.output_parsed.answer == 42
    # What the helper parsed does not come back to us.
    await responses.create([{"role": "user", "content": "?"}, *turn(got)])
    assert site.sent["messages"][1] == {"role": "assistant", "content": SOLVED}


async def test_json_object_and_verbosity(site: Site, responses: Responses) -> None:
    got = await responses.create(text={"format": {"type": "json_object"}, "verbosity": "low"})
    assert site.sent["response_format"] == {"type": "json_object"}
    assert site.sent["verbosity"] == "low"
    assert got.text is not None and got.text.format is not None
    assert (got.text.format.type, got.text.verbosity) == ("json_object", "low")


async def test_tuning(site: Site, responses: Responses) -> None:
    asked: dict[str, Any] = {
        "temperature": 0.5, "top_p": 0.25, "service_tier": "flex", "safety_identifier": "s",
        "prompt_cache_key": "k", "user": "u", "parallel_tool_calls": False,
    }  # fmt: skip
    got = await responses.create(**asked, tools=[WEATHER], store=False)
    for name, value in (asked | {"store": False}).items():
        assert site.sent[name] == value
        if name not in ("service_tier", "store"):
            assert getattr(got, name) == value


# Errors.


async def test_nothing_is_kept(site: Site, sdk: Sdk, responses: Responses) -> None:
    for asked in (
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"prompt": {"id": "pmpt_1"}},
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await responses.create(**asked)
        assert refused.value.param == next(iter(asked))
    with pytest.raises(openai.BadRequestError, match="keeps no answers") as refused:
        await responses.create([{"type": "item_reference", "id": "msg_1"}])
    assert refused.value.param == "input[0]"
    for work in (
        lambda client: client.responses.retrieve("resp_1"),
        lambda client: client.responses.delete("resp_1"),
        lambda client: client.responses.cancel("resp_1"),
    ):
        with pytest.raises(openai.NotFoundError, match="keeps no answers") as missing:
            await sdk.run(work)
        assert missing.value.code == "not_found" and missing.value.request_id
    async with site.gateway.http() as http:
        listed = await http.get("/v1/responses/resp_1/input_items")
    assert listed.status_code == 404 and "keeps no answers" in listed.text
    assert not site.up.requests


@pytest.mark.parametrize(
    ("step", "kind", "code"),
    [
        (error(401), openai.InternalServerError, "upstream_rejected_us"),
        (error(404, code="model_not_found"), openai.NotFoundError, "model_not_found"),
        (rate_limited(), openai.RateLimitError, "rate_limit_exceeded"),
        (
            error(429, type="insufficient_quota", code="insufficient_quota"),
            openai.RateLimitError,
            "insufficient_quota",
        ),
        (
            error(400, code="context_length_exceeded"),
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        (error(503), openai.InternalServerError, "overloaded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_early_errors_keep_their_status(
    site: Site, responses: Responses, step: Any, kind: type[Exception], code: str, stream: bool
) -> None:
    site.up.script(step)
    with pytest.raises(kind) as raised:
        await (responses.events() if stream else responses.create())
    assert isinstance(raised.value, openai.APIStatusError)
    assert raised.value.code == code


async def test_the_gateways_own_errors(site: Site, sdk: Sdk, responses: Responses) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await responses.create(model="unknown")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        await responses.create(
            [
                {"role": "user", "content": "Hi."},
                {"type": "message", "role": "assistant", "content": "Hi."},
                {"type": "function_call", "call_id": "c", "name": "", "arguments": "{}"},
            ],
            instructions="Be brief.",
        )
    assert wrong.value.param == "input[2].name"
    assert not site.up.requests


async def test_an_error_in_mid_stream_is_raised(site: Site, responses: Responses) -> None:
    failure = {"error": {"message": "Boom.", "type": "server_error", "code": None}}
    begun = chunks(["Hel", "lo"], finish_reason="")
    for work in (responses.events, responses.stream):
        site.up.script(sse([*begun, failure], done=False))
        with pytest.raises(openai.APIError, match=r"Boom\.") as raised:
            await work()
        assert raised.value.code == "upstream_unavailable"
    async with site.gateway.http(headers={"authorization": f"Bearer {KEY}"}) as http:
        site.up.script(sse([*begun, failure], done=False))
        body = {"model": "m", "input": "Hello!", "stream": True}
        text = (await http.post("/v1/responses", json=body)).text
    assert text.split("\n\n")[-2].startswith("event: response.failed\n")
    failed = json.loads(text.split("\n\n")[-2].split("data: ")[1])["response"]
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "server_error", "message": "Boom."}
    assert failed["output"][0]["content"][0]["text"] == "Hello"


async def test_input_tokens(sdk: Sdk) -> None:
    counted = await sdk.run(
        lambda client: client.responses.input_tokens.count(model="m", input="Hello!" * 40)
    )
    assert counted.object == "response.input_tokens"
    assert 40 < counted.input_tokens < 100
