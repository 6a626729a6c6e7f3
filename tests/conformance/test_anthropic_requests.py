"""What an upstream of OpenAI's dialect gets of Anthropic's requests, and what its caller is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from conformance.anthropic_sdk import HELLO, PNG, WEATHER, Sdk
from conformance.conftest import Site
from fakes.gateway import KEY
from fakes.upstream import answer, chunks, completion, sse, tool_call

CASE_MODEL = {"models": "  claude-sonnet-4-5: {targets: [{provider: up, model: gpt-4.1}]}"}


@pytest.fixture
async def sdk(site: Site) -> AsyncIterator[Sdk]:
    """The SDK in front of the site."""
    sdk = Sdk(site, "async")
    yield sdk
    await sdk.close()


def said(block: Any) -> list[Any]:
    return [{"role": "user", "content": block if isinstance(block, list) else [block]}]


async def test_tuning(site: Site, sdk: Sdk) -> None:
    more = {"temperature": 0.5, "top_p": 0.9}
    await sdk.create(
        stop_sequences=["END"], metadata={"user_id": "u-1"}, max_tokens=77, extra_body=more
    )
    sent = site.sent
    assert (sent["temperature"], sent["top_p"], sent["stop"]) == (0.5, 0.9, ["END"])
    assert (sent["user"], sent.get("max_tokens") or sent["max_completion_tokens"]) == ("u-1", 77)


async def test_images(site: Site, sdk: Sdk) -> None:
    inline = {"type": "base64", "media_type": "image/png", "data": PNG}
    far = {"type": "url", "url": "https://a.example/i.png"}
    blocks = [{"type": "image", "source": inline}, {"type": "image", "source": far}]
    await sdk.create(said([*blocks, {"type": "text", "text": "What is it?"}]))
    (message,) = site.sent["messages"]
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": "https://a.example/i.png"}},
        {"type": "text", "text": "What is it?"},
    ]


async def test_a_document(site: Site, sdk: Sdk) -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    document = {"type": "document", "source": source, "title": "a.pdf"}
    await sdk.create(said(document))
    (message,) = site.sent["messages"]
    data = "data:application/pdf;base64,JVBERi0="
    assert message["content"] == [
        {"type": "file", "file": {"file_data": data, "filename": "a.pdf"}}
    ]


async def test_tools(site: Site, sdk: Sdk) -> None:
    tool = WEATHER | {"cache_control": {"type": "ephemeral"}}
    choice = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    await sdk.create(tools=[tool], tool_choice=choice)
    (sent,) = site.sent["tools"]
    assert sent["function"]["name"] == "get_weather"
    assert sent["function"]["parameters"] == WEATHER["input_schema"]
    assert "cache_control" not in sent
    assert site.sent["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert site.sent["parallel_tool_calls"] is False
    for ours, theirs in (("any", "required"), ("auto", "auto"), ("none", "none")):
        await sdk.create(tools=[WEATHER], tool_choice={"type": ours})
        assert site.sent["tool_choice"] == theirs


async def test_a_prefill_and_turns_of_one_role(site: Site, sdk: Sdk) -> None:
    turns = [*HELLO, *HELLO, {"role": "assistant", "content": "The answer is ("}]
    await sdk.create(turns)
    assert site.sent["messages"] == turns


async def test_instructions_in_mid_conversation(site: Site, sdk: Sdk) -> None:
    turns = [
        *HELLO,
        {"role": "assistant", "content": "Hi"},
        {"role": "system", "content": "Short."},
    ]
    await sdk.create([*turns, *HELLO], system=[{"type": "text", "text": "Kind."}])
    roles = [(m["role"], m["content"]) for m in site.sent["messages"]]
    assert roles[0] == ("system", "Kind.") and roles[3] == ("system", "Short.")


async def test_betas_do_not_reach_others(site: Site, sdk: Sdk) -> None:
    await sdk.create(beta=True, betas=["context-1m-2025-08-07"])
    record = site.up.requests[-1]
    assert "anthropic_beta" not in record.json and "betas" not in record.json
    assert not [name for name in record.headers if name.lower().startswith("anthropic")]


# Claude Code, in the shapes that its traffic has; see https://code.claude.com/docs/en/llm-gateway.

USER_ID = json.dumps(
    {"device_id": "d" * 64, "account_uuid": "", "session_id": "0b0f7e8a-5d5a-4a52"}
)
CLAUDE_CODE_HEADERS = {
    "x-api-key": KEY,
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,"
    "context-management-2025-06-27,prompt-caching-scope-2026-01-05",
    "anthropic-dangerous-direct-browser-access": "true",
    "user-agent": "claude-cli/2.1.197 (external, cli)",
    "x-app": "cli",
}
BASH = {
    "name": "Bash",
    "description": "Executes a bash command.",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"command": {"type": "string"}},
        "required": ["command"],
        "additionalProperties": False,
    },
    "eager_input_streaming": True,
}
CACHED = {"cache_control": {"type": "ephemeral"}}


def claude_code(**members: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32000,
        "system": [
            {"type": "text", "text": "You are Claude Code.", **CACHED},
            {"type": "text", "text": "You are an interactive CLI tool.", **CACHED},
        ],
        "messages": said(
            [
                {"type": "text", "text": "<system-reminder>\n...\n</system-reminder>\n"},
                {"type": "text", "text": "list files", **CACHED},
            ]
        ),
        "tools": [BASH],
        "metadata": {"user_id": USER_ID},
        "temperature": 1,
        "thinking": {"type": "enabled", "budget_tokens": 31999},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "stream": True,
    } | members


async def post(site: Site, body: Any, path: str = "/v1/messages?beta=true") -> httpx.Response:
    async with site.gateway.http() as http:
        return await http.post(path, json=body, headers=CLAUDE_CODE_HEADERS)


async def test_claude_code(site: Site) -> None:
    """Two turns with a tool: what only Anthropic has ends as a warning, not as an error."""
    await site.open(**CASE_MODEL)
    call = tool_call("Bash", {"command": "ls"}, id="call_1")
    site.up.script(sse(chunks(["I look."], tool_calls=[call], usage=True)))
    got = await post(site, claude_code())
    assert got.status_code == 200, got.text
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    told = got.headers["x-headgate-warnings"]
    assert "reasoning." in told and "context_management" in told and "eager_input_streaming" in told
    sent = site.sent
    assert not {"context_management", "thinking", "metadata", "cache_control"} & sent.keys()
    assert "eager_input_streaming" not in json.dumps(sent)
    assert "cache_control" not in json.dumps(sent)
    system, asked = sent["messages"]
    assert [part["text"] for part in system["content"]] == [
        "You are Claude Code.", "You are an interactive CLI tool."
    ]  # fmt: skip
    assert [part["text"] for part in asked["content"]][1] == "list files"
    assert sent["tools"][0]["function"]["parameters"] == BASH["input_schema"]

    used = {"type": "tool_use", "id": "call_1", "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "a.py", **CACHED}
    turns = [
        *claude_code()["messages"],
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, used]},
        {"role": "user", "content": [result, {"type": "text", "text": "<system-reminder/>"}]},
    ]
    site.up.script(sse(chunks(["One file."])))
    got = await post(site, claude_code(messages=turns))
    assert got.status_code == 200, got.text
    assert [m["role"] for m in site.sent["messages"]] == [
        "system", "user", "assistant", "tool", "user"
    ]  # fmt: skip


async def test_claude_code_asks_on_the_side(site: Site) -> None:
    """Small unary questions, such as for a title, with a schema; and counts of tokens."""
    await site.open(**CASE_MODEL)
    site.up.script(answer(completion('{"title": "Files"}')))
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "additionalProperties": False,
    }
    config = {"format": {"type": "json_schema", "schema": schema}}
    got = await post(site, claude_code(stream=False, tools=[], output_config=config))
    assert got.status_code == 200, got.text
    assert got.json()["content"] == [{"type": "text", "text": '{"title": "Files"}'}]
    assert site.sent["response_format"]["json_schema"]["schema"] == schema

    body = claude_code()
    for member in ("max_tokens", "stream", "temperature", "metadata"):
        del body[member]
    got = await post(site, body, "/v1/messages/count_tokens?beta=true")
    assert got.status_code == 200, got.text
    assert got.json().keys() == {"input_tokens"} and got.json()["input_tokens"] > 10


@pytest.mark.parametrize("policy", ["strict", "drop", "pass"])
async def test_policies(site: Site, policy: str) -> None:
    config = f"""
providers: {{up: {{kind: openai, base_url: "{site.up.base_url}", api_key: k}}}}
models: {{claude-sonnet-4-5: {{unsupported: {policy}, targets: [{{provider: up, model: gpt-4.1}}]}}}}
"""
    await site.open_config(config)
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    body = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": HELLO}
    got = await post(site, body | {"context_management": edits})
    if policy == "strict":
        assert got.status_code == 400
        assert "context_management" in got.json()["error"]["message"]
        return
    assert got.status_code == 200
    assert ("x-headgate-warnings" in got.headers) == (policy == "drop")
    assert site.sent.get("context_management") == (edits if policy == "pass" else None)
