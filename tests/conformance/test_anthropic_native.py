"""Anthropic's door over an upstream of Anthropic's own dialect: nothing is lost or changed on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from conformance.anthropic_sdk import HELLO, PNG, WEATHER, Sdk
from conformance.conftest import Site
from fakes.gateway import KEY
from fakes.upstream import Answer, answer

SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds/+="
REDACTED = "EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpP"
PROVIDERS = "providers: {{claude: {{kind: anthropic, base_url: '{origin}', api_key: secret}}}}"
MODELS = "models: {{m: {{targets: [{{provider: claude, model: {model}}}]}}}}"
USAGE: dict[str, Any] = {
    "input_tokens": 2095,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 5,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 503,
    "output_tokens_details": {"thinking_tokens": 99},
    "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
    "service_tier": "standard",
    "inference_geo": "us",
}
SEARCH = {
    "type": "server_tool_use",
    "id": "srvtoolu_01",
    "name": "web_search",
    "input": {"query": "claude shannon"},
}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_01",
    "content": [
        {
            "type": "web_search_result",
            "url": "https://a.example",
            "title": "A",
            "encrypted_content": "EqgfCioIARgB",
            "page_age": None,
        }
    ],
}
CITED: list[dict[str, Any]] = [
    {
        "type": "web_search_result_location",
        "url": "https://a.example",
        "title": "A",
        "encrypted_index": "Eo8BCioIAhgB",
        "cited_text": "Shannon was born",
    },
    {
        "type": "char_location",
        "document_index": 0,
        "document_title": None,
        "start_char_index": 0,
        "end_char_index": 20,
        "cited_text": "The grass is green. ",
    },
]
CALL = {
    "type": "tool_use",
    "id": "toolu_01",
    "name": "get_weather",
    "input": {"city": "Paris"},
    "caller": {"type": "direct"},
}
CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "Let me see.", "signature": SIGNATURE},
    {"type": "redacted_thinking", "data": REDACTED},
    {"type": "thinking", "thinking": "", "signature": "EqQB-omitted"},
    SEARCH,
    FOUND,
    {"type": "text", "text": "He was born in 1916.", "citations": CITED},
    CALL,
]
MESSAGE: dict[str, Any] = {
    "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": CONTENT,
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": USAGE,
    "container": {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"},
}


def line(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def streamed(message: dict[str, Any]) -> Answer:
    """The message as the vendor streams it."""
    late = ("stop_reason", "stop_sequence", "container")
    first = {k: v for k, v in message.items() if k not in late}
    first |= {"content": [], "stop_reason": None, "stop_sequence": None}
    first["usage"] = message["usage"] | {"output_tokens": 1}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": first}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        start, deltas = pieces(block)
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {name: message[name] for name in late if name in message}
    events.append({"type": "message_delta", "delta": delta, "usage": message["usage"]})
    events.append({"type": "message_stop"})
    return Answer([line(e) for e in events], content_type="text/event-stream", framing="chunked")


def pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    kind = block["type"]
    if kind == "text":
        cited = [{"type": "citations_delta", "citation": c} for c in block.get("citations", [])]
        words = [{"type": "text_delta", "text": word} for word in cut(block["text"])]
        return {"type": "text", "text": ""}, [*cited, *words]
    if kind == "thinking":
        words = [{"type": "thinking_delta", "thinking": word} for word in cut(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [*words, signed]
    if kind in ("tool_use", "server_tool_use"):
        words = cut(json.dumps(block["input"]))
        return block | {"input": {}}, [
            {"type": "input_json_delta", "partial_json": word} for word in ("", *words)
        ]
    return block, []


def cut(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]


@pytest.fixture
async def sdk(site: Site) -> AsyncIterator[Sdk]:
    """The SDK in front of the site, whose upstream is Anthropic's."""
    await native(site, "claude-sonnet-4-6")
    sdk = Sdk(site, "async")
    yield sdk
    await sdk.close()


async def native(site: Site, model: str) -> None:
    config = f"{PROVIDERS}\n{MODELS}".format(origin=site.up.origin, model=model)
    await site.open_config(config)


async def post(site: Site, body: Any, **headers: str) -> Any:
    async with site.gateway.http() as http:
        return await http.post("/v1/messages", json=body, headers={"x-api-key": KEY, **headers})


async def test_an_answer_is_intact(site: Site, sdk: Sdk) -> None:
    site.up.script(answer(MESSAGE), streamed(MESSAGE))
    asked = {"model": "m", "max_tokens": 9, "messages": HELLO}
    got = (await post(site, asked)).json()
    assert got == MESSAGE
    _, found = await sdk.stream()
    said = json.loads(found.to_json(exclude_unset=True))
    assert said.pop("stop_details") is None  # the SDK's own addition
    # What the vendor tells of the usage at the start is known here only at the end, where the SDK
    # looks for the counts alone.
    for message in (said, got):
        message["usage"] = {k: v for k, v in message["usage"].items() if k in COUNTS}
    assert said == got


COUNTS = {
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
}


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_thinking_and_server_blocks_go_back_as_they_came(
    site: Site, sdk: Sdk, stream: bool
) -> None:
    site.up.script(streamed(MESSAGE) if stream else answer(MESSAGE), answer(MESSAGE))
    first = (await sdk.stream())[1] if stream else await sdk.create()
    result = {"type": "tool_result", "tool_use_id": "toolu_01", "content": "sunny"}
    turns = [*HELLO, {"role": "assistant", "content": first.content}]
    await sdk.create([*turns, {"role": "user", "content": [result]}], tools=[WEATHER])
    _, assistant, user = site.sent["messages"]
    assert assistant == {"role": "assistant", "content": CONTENT}
    assert user == {"role": "user", "content": [result]}


CACHED = {"type": "ephemeral", "ttl": "1h"}
BODY: dict[str, Any] = {
    "model": "m",
    "max_tokens": 16000,
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                    "title": "a.pdf",
                    "context": "c",
                    "citations": {"enabled": True},
                    "cache_control": CACHED,
                },
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "Grüße."},
                },
                {"type": "document", "source": {"type": "content", "content": "One. Two."}},
                {"type": "search_result", "source": "s", "title": "t", "content": []},
                {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}, "novel": [1]},
            ],
        },
        {"role": "assistant", "content": CONTENT},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_01",
                    "is_error": True,
                    "content": [
                        {"type": "text", "text": "no such city"},
                        {"type": "tool_reference", "tool_name": "get_weather"},
                    ],
                    "cache_control": {"type": "ephemeral"},
                },
                {"type": "text", "text": "And?"},
            ],
        },
    ],
    "system": [{"type": "text", "text": "Kind.", "cache_control": CACHED}],
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u", "novel": 1},
    "tools": [
        WEATHER | {"cache_control": CACHED, "strict": True, "defer_loading": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True, "novel": 1},
    "thinking": {"type": "enabled", "budget_tokens": 10000, "display": "summarized", "novel": 1},
    "output_config": {
        "effort": "high",
        "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}},
        "task_budget": {"type": "tokens", "total": 20000},
    },
    "cache_control": {"type": "ephemeral"},
    "container": "container_1",
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "inference_geo": "us",
    "mcp_servers": [{"type": "url", "url": "https://mcp.example.com", "name": "m"}],
    "service_tier": "standard_only",
    "speed": "fast",
    "brand_new": {"a": [1, 2.50]},
}  # fmt: skip


async def test_a_request_is_intact(site: Site, sdk: Sdk) -> None:
    betas = "context-1m-2025-08-07,fast-mode-2026-02-01"
    got = await post(site, BODY, **{"anthropic-beta": betas})
    assert site.up.requests, got.text
    record = site.up.requests[-1]
    assert record.json == BODY | {"model": "claude-sonnet-4-6"}
    assert record.headers["anthropic-beta"] == betas
    assert record.headers["x-api-key"] == "secret"
    assert "x-headgate-warnings" not in got.headers


THINKING: list[Any] = [
    ("claude-sonnet-4-5", {"type": "enabled", "budget_tokens": 2048}),
    ("claude-opus-4-6", {"type": "adaptive"}),
    ("claude-opus-4-6", {"type": "adaptive", "display": "omitted"}),
    ("claude-sonnet-4-5", {"type": "disabled"}),
    ("claude-sonnet-5-5", {"type": "between_tools"}),
    ("claude-sonnet-4-5", {"type": "of_tomorrow", "display": "all", "x": 1}),
]


@pytest.mark.parametrize(("model", "thinking"), THINKING)
async def test_thinking_is_asked_for_as_the_caller_does(
    site: Site, model: str, thinking: Any
) -> None:
    await native(site, model)
    await post(site, {"model": "m", "max_tokens": 9000, "messages": HELLO, "thinking": thinking})
    assert site.sent["thinking"] == thinking


async def test_tokens_are_counted_by_the_vendor(site: Site, sdk: Sdk) -> None:
    site.up.script(answer({"input_tokens": 2188}))
    asked = {"model": "m", "messages": HELLO, "system": "Kind.", "tools": [WEATHER]}
    raw = await sdk.run(lambda c: c.messages.with_raw_response.count_tokens(**asked))
    assert (await raw.parse()).input_tokens == 2188
    assert raw.headers["x-headgate-provider"] == "claude"
    assert "x-headgate-warnings" not in raw.headers
    record = site.up.requests[-1]
    assert record.path.partition("?")[0] == "/v1/messages/count_tokens"
    assert record.json == asked | {"model": "claude-sonnet-4-6"}


async def test_errors_of_the_vendor(site: Site, sdk: Sdk) -> None:
    for status, type_, kind in (
        (400, "invalid_request_error", anthropic.BadRequestError),
        (404, "not_found_error", anthropic.NotFoundError),
        (429, "rate_limit_error", anthropic.RateLimitError),
        (529, "overloaded_error", anthropic.ServiceUnavailableError),
    ):
        failure = {"type": "error", "error": {"type": type_, "message": "model: Nope."}}
        site.up.default(answer(failure, status))
        with pytest.raises(kind) as caught:
            await sdk.create()
        assert caught.value.type == type_
