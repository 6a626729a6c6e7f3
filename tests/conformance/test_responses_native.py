"""The Responses door over an upstream of its own dialect: nothing is lost or changed on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from conformance.conftest import Sdk, Site
from conformance.responses_sdk import WEATHER, Responses, named, turn
from fakes.upstream import answer

CONFIG = """
providers: {{up: {{kind: openai_responses, base_url: "{base}", api_key: upstream-secret-key}}}}
models: {{m: {{targets: [{{provider: up, model: gpt-5.4}}]}}}}
"""
REASONING: dict[str, Any] = {
    "id": "rs_67c",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "Two cities."}],
    "encrypted_content": "gAAAAABoISQ24OyVRYbkYfukdJoqdzWT-3uiErKInHDC",
}
SEARCH: dict[str, Any] = {
    "id": "ws_67c",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "weather"},
}
MESSAGE: dict[str, Any] = {
    "id": "msg_67c",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "phase": "commentary",
    "content": [
        {
            "type": "output_text",
            "annotations": [
                {"type": "url_citation", "start_index": 0, "end_index": 3, "title": "W",
                 "url": "https://w.example"},
                {"type": "file_citation", "file_id": "file_1", "filename": "a.txt", "index": 2},
            ],
            "logprobs": [],
            "text": "Let me look.",
        }
    ],
}  # fmt: skip
CALL: dict[str, Any] = {
    "id": "fc_67c",
    "type": "function_call",
    "status": "completed",
    "arguments": '{"zone":"Europe","city":"Paris"}',
    "call_id": "call_a",
    "name": "get_weather",
}
PATCH: dict[str, Any] = {
    "id": "ctc_67c",
    "type": "custom_tool_call",
    "status": "completed",
    "call_id": "call_p",
    "input": "*** Begin Patch\n",
    "name": "apply_patch",
}
SPACED: dict[str, Any] = CALL | {"id": "fc_67d", "call_id": "call_n", "namespace": "mcp__files"}
PATCH_TOOL: dict[str, Any] = {
    "type": "custom",
    "name": "apply_patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
TOOLS: list[dict[str, Any]] = [
    WEATHER,
    PATCH_TOOL,
    {"type": "namespace", "name": "mcp__files", "description": "Files.", "tools": [WEATHER]},
    {"type": "web_search", "external_web_access": False},
    {"type": "mcp", "server_label": "d", "server_url": "https://d.example"},
]
HELLO: dict[str, Any] = {"role": "user", "content": "Hello!"}


def response(*items: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    """A response object as OpenAI sends it."""
    return {
        "id": "resp_67c", "object": "response", "created_at": 1741476542, "status": status,
        "background": False, "error": None, "incomplete_details": None, "instructions": None,
        "max_output_tokens": None, "model": "gpt-5.4-2026-03-05", "output": list(items),
        "parallel_tool_calls": True, "previous_response_id": None,
        "reasoning": {"effort": "medium", "summary": None}, "service_tier": "default",
        "store": False, "temperature": 1.0, "text": {"format": {"type": "text"}},
        "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled",
        "usage": {
            "input_tokens": 36, "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
            "output_tokens": 87, "output_tokens_details": {"reasoning_tokens": 64},
            "total_tokens": 123,
        },
        "user": None, "metadata": {},
    } | more  # fmt: skip


def streamed(*items: dict[str, Any], **more: Any) -> Any:
    """The same in a stream: each item begins empty and is told whole at its end."""
    begun = response(status="in_progress") | {"usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(items):
        empty = dict(item)
        for name, nothing in (("content", []), ("summary", []), ("arguments", ""), ("input", "")):
            if name in item:
                empty[name] = nothing
        empty.pop("encrypted_content", None)
        at = {"output_index": index}
        events.append({"type": "response.output_item.added", **at, "item": empty})
        if item["type"] == "function_call":
            kind = "response.function_call_arguments.delta"
            events.append({"type": kind, **at, "item_id": item["id"], "delta": item["arguments"]})
        events.append({"type": "response.output_item.done", **at, "item": item})
    events.append({"type": "response.completed", "response": response(*items, **more)})
    return named(events)


@pytest.fixture
async def native(site: Site) -> AsyncIterator[Site]:
    """The site with an upstream that speaks the Responses API."""
    await site.open_config(CONFIG.format(base=site.up.base_url))
    yield site


@pytest.fixture
def responses(native: Site, sdk: Sdk) -> Responses:
    return Responses(sdk)


def without_ids_of_calls(items: list[Any]) -> list[Any]:
    """Ids of calls are not carried: with `call_id` nobody needs them."""
    return [
        {k: v for k, v in item.items() if k != "id" or not item["type"].endswith("_tool_call")}
        if item["type"] != "function_call"
        else {k: v for k, v in item.items() if k != "id"}
        for item in items
    ]


@pytest.mark.parametrize("whole", [True, False])
async def test_items_come_as_they_are(native: Site, responses: Responses, whole: bool) -> None:
    items = [REASONING, SEARCH, MESSAGE, CALL, PATCH, SPACED]
    more = {"tool_usage": {
        "image_gen": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
                      "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}},
        "web_search": {"num_requests": 1},
    }}  # fmt: skip
    native.up.script(answer(response(*items, **more)) if whole else streamed(*items, **more))
    got = await responses.create() if whole else (await responses.events())[-1].response
    assert without_ids_of_calls(turn(got)) == without_ids_of_calls(items)
    assert len({item.id for item in got.output}) == len(items)
    assert (got.id, got.model, got.created_at) == ("resp_67c", "gpt-5.4-2026-03-05", 1741476542)
    assert got.usage is not None and got.usage.to_dict() == response()["usage"]
    assert got.tool_usage is not None and got.tool_usage.web_search.num_requests == 1
    assert got.service_tier == "default"


async def test_thinking_goes_back_untouched(native: Site, responses: Responses) -> None:
    native.up.script(answer(response(REASONING, SEARCH, MESSAGE, CALL)), answer(response(MESSAGE)))
    got = await responses.create(tools=[WEATHER])
    output = {"type": "function_call_output", "call_id": "call_a", "output": "18 C"}
    await responses.create([HELLO, *turn(got), output], tools=[WEATHER], store=False)
    sent = native.sent["input"]
    assert sent[0] == HELLO
    assert [item.get("type") for item in sent[1:]] == [
        "reasoning", "web_search_call", "message", "function_call", "function_call_output",
    ]  # fmt: skip
    assert sent[1] == REASONING
    assert sent[2] == SEARCH
    message, call = dict(sent[3]), dict(sent[4])
    assert message["id"] == "msg_67c" and message["phase"] == "commentary"
    assert message["content"][0]["text"] == "Let me look."
    assert message["content"][0]["annotations"] == MESSAGE["content"][0]["annotations"]
    assert (call["call_id"], call["name"], call["arguments"]) == (
        "call_a", "get_weather", CALL["arguments"],
    )  # fmt: skip
    assert sent[5] == output
    assert native.sent["store"] is False


@pytest.mark.parametrize("whole", [True, False])
async def test_the_input_goes_as_it_came_where_no_other_vendor_has_its_form(
    native: Site, responses: Responses, whole: bool
) -> None:
    items = [REASONING, PATCH, SPACED]
    native.up.script(
        answer(response(*items)) if whole else streamed(*items), answer(response(MESSAGE))
    )
    asked: dict[str, Any] = {
        "tools": TOOLS,
        "tool_choice": {"type": "custom", "name": "apply_patch"},
        "instructions": "Be brief.",
    }
    got = (
        await responses.create(**asked) if whole else (await responses.events(**asked))[-1].response
    )
    assert native.sent["tools"] == TOOLS
    assert native.sent["tool_choice"] == asked["tool_choice"]
    foreign = {
        "type": "reasoning", "id": "rs_hg_1_0", "summary": [],
        "encrypted_content": "aGVhZGdhdGUxEgdFcW9CKy89KglhbnRocm9waWM=",
    }  # fmt: skip
    developer = {"role": "developer", "content": [{"type": "input_text", "text": "More."}]}
    outputs = [
        {"type": "custom_tool_call_output", "call_id": "call_p", "output": "Done!"},
        {"type": "function_call_output", "call_id": "call_n", "output": "Sun."},
    ]
    history = turn(got)
    await responses.create([developer, HELLO, foreign, *history, *outputs], **asked)
    assert native.sent["input"] == [developer, HELLO, *history, *outputs]
    assert native.sent["instructions"] == "Be brief."
    assert history[0] == REASONING and history[1]["input"] == PATCH["input"]


async def test_members_that_only_this_api_has(native: Site, responses: Responses) -> None:
    native.up.script(answer(response(MESSAGE)))
    extra: dict[str, Any] = {
        "max_tool_calls": 3, "truncation": "auto", "prompt_cache_retention": "24h",
        "context_management": [{"type": "compaction", "compact_threshold": 100000}],
    }  # fmt: skip
    got = await responses.create(
        **extra,
        include=["web_search_call.action.sources", "reasoning.encrypted_content"],
        reasoning={"effort": "high", "summary": "auto", "context": "all_turns"},
        text={"verbosity": "low"},
        metadata={"k": "v"},
        extra_body={"client_metadata": {"turn_id": "1"}},
    )
    for name, value in extra.items():
        assert native.sent[name] == value
    assert set(native.sent["include"]) >= {
        "web_search_call.action.sources", "reasoning.encrypted_content",
    }  # fmt: skip
    assert native.sent["reasoning"] == {"effort": "high", "summary": "auto", "context": "all_turns"}
    assert native.sent["text"] == {"verbosity": "low"}
    assert native.sent["client_metadata"] == {"turn_id": "1"}
    assert native.sent["store"] is False
    assert (got.max_tool_calls, got.truncation) == (3, "auto")


async def test_a_failed_answer_is_an_error(native: Site, responses: Responses) -> None:
    error = {"code": "rate_limit_exceeded", "message": "Too fast."}
    failed = response(status="failed", error=error)
    native.up.script(answer(failed))
    with pytest.raises(openai.RateLimitError, match="Too fast"):
        await responses.create()
    begun = streamed(MESSAGE).pieces
    assert not callable(begun)
    last = named([{"type": "response.failed", "response": failed}]).pieces
    assert not callable(last)
    whole = streamed()
    native.up.script(type(whole)([*begun[:-1], *last], content_type="text/event-stream"))
    with pytest.raises(openai.APIError, match="Too fast") as raised:
        await responses.events()
    assert raised.value.code == "rate_limit_exceeded"
