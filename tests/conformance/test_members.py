"""No member of OpenAI's answer objects is lost, changed or added on the way through.

The samples have every member that the SDK's types know; a test says so, and so fails when a new SDK
knows a new one.
"""

from __future__ import annotations

import base64
import copy
import json
from typing import Any, get_args

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from conformance.conftest import HELLO, Site
from fakes.upstream import answer, sse

WAV = base64.b64encode(b"RIFF" + bytes(100)).decode()
VERDICT = {
    "type": "moderation_results",
    "model": "omni",
    "results": [
        {
            "categories": {"violence": False},
            "category_applied_input_types": {"violence": ["text"]},
            "category_scores": {"violence": 1.25e-5},
            "flagged": False,
            "model": "omni",
            "type": "moderation_result",
        }
    ],
}
MODERATION = {
    "input": VERDICT,
    "output": {"type": "error", "code": "timeout", "message": "Too slow."},
}
TOKEN = {
    "token": "Hi",
    "logprob": -0.1,
    "bytes": [72, 105],
    "top_logprobs": [{"token": "Ho", "logprob": -9999.0, "bytes": None}],
}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "prompt_tokens_details": {
        "cached_tokens": 1,
        "audio_tokens": 2,
        "cache_write_tokens": 3,
        "image_tokens": 4,
        "text_tokens": 5,
    },
    "completion_tokens_details": {
        "reasoning_tokens": 1,
        "audio_tokens": 2,
        "accepted_prediction_tokens": 3,
        "rejected_prediction_tokens": 4,
        "text_tokens": 5,
    },
}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-x-2026-01-01",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi, see there.",
                "refusal": "But no more.",
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {
                            "url": "https://example.com/?a=1&b=2",
                            "title": "Example",
                            "start_index": 8,
                            "end_index": 13,
                        },
                    }
                ],
                "audio": {"id": "a", "expires_at": 1900000000, "data": WAV, "transcript": "Hi"},
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"b": 1, "a": 2}'},
                    },
                    {"id": "call_2", "type": "custom", "custom": {"name": "c", "input": "x\n"}},
                ],
            },
            "logprobs": {"content": [TOKEN], "refusal": [TOKEN]},
            "finish_reason": "tool_calls",
        }
    ],
    "usage": USAGE,
    "service_tier": "default",
    "system_fingerprint": "fp_1",
    "metadata": {"team": "a"},
    "moderation": MODERATION,
}


def unseen(model: type[BaseModel], sample: Any, path: str = "") -> set[str]:
    """Members of the SDK's model that the sample lacks, at any depth; unions by their best fit."""
    found = set()
    for name, field in model.model_fields.items():
        where = f"{path}.{name}".lstrip(".")
        if name not in sample:
            found.add(where)
            continue
        options = _models(field.annotation)
        values = sample[name] if isinstance(sample[name], list) else [sample[name]]
        for value in values:
            if options and isinstance(value, dict):
                found |= min((unseen(o, value, where) for o in options), key=len)
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def test_the_sample_has_every_member() -> None:
    # The deprecated form of tool_calls, which the upstream is never asked for.
    assert unseen(ChatCompletion, COMPLETION) == {"choices.message.function_call"}
    ChatCompletion.model_validate(COMPLETION, strict=True)


async def test_every_member_of_a_completion(site: Site) -> None:
    site.up.script(answer(COMPLETION))
    async with site.gateway.http() as http:
        got = await http.post("/v1/chat/completions", json={"model": "m", "messages": HELLO})
    assert got.json() == COMPLETION


async def test_members_that_only_vendors_know(site: Site) -> None:
    """Unknown members come back verbatim, wherever they stand."""
    body = copy.deepcopy(COMPLETION)
    body["citations"] = ["https://e.com"]
    body["x_groq"] = {"id": "req_1", "n": 12345678901234567890123}
    body["usage"]["queue_time"] = 0.018
    body["usage"]["prompt_tokens_details"]["video_tokens"] = 5
    body["choices"][0]["stop_reason"] = 151643
    body["choices"][0]["message"]["provider_specific_fields"] = {"a": [None, 1.0]}
    body["choices"][0]["message"]["audio"]["format"] = "wav"
    body["choices"][0]["message"]["tool_calls"][0]["extra_content"] = {"google": {"sig": "x"}}
    site.up.script(answer(body))
    async with site.gateway.http() as http:
        got = await http.post("/v1/chat/completions", json={"model": "m", "messages": HELLO})
    assert got.json() == body
    assert "12345678901234567890123" in got.text


async def test_members_deep_inside(site: Site) -> None:
    body = copy.deepcopy(COMPLETION)
    body["choices"][0]["message"]["tool_calls"][0]["function"]["thought"] = "t"
    site.up.script(answer(body))
    async with site.gateway.http() as http:
        got = await http.post("/v1/chat/completions", json={"model": "m", "messages": HELLO})
    assert got.json() == body


# Streams. What one chunk says may come in other chunks; what all of them say may not change.


def chunk(choice: dict[str, Any] | None, **members: Any) -> dict[str, Any]:
    blank = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": "gpt-x-2026-01-01",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": [] if choice is None else [blank | choice],
        "usage": None,
    } | members


def opened(index: int, call: dict[str, Any]) -> dict[str, Any]:
    return {"delta": {"tool_calls": [{"index": index, **call}]}}


CHUNKS = [
    chunk({"delta": {"role": "assistant", "content": "", "refusal": None}}, obfuscation="x"),
    chunk({"delta": {"content": "Hi"}, "logprobs": {"content": [TOKEN], "refusal": None}}),
    chunk({"delta": {"content": ", see there."}}),
    chunk(
        {"delta": {"refusal": "But no more."}, "logprobs": {"content": None, "refusal": [TOKEN]}}
    ),
    chunk({"delta": {"audio": {"id": "a", "transcript": "Hi"}}}),
    chunk({"delta": {"audio": {"data": WAV}}}),
    chunk({"delta": {"audio": {"expires_at": 1900000000}}}),
    chunk(opened(0, {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}})),
    chunk(opened(0, {"function": {"arguments": '{"b": 1}'}})),
    chunk({"finish_reason": "tool_calls"}),
    chunk(None, moderation=MODERATION),
    chunk(None, usage=USAGE),
]


def test_the_chunks_have_every_member() -> None:
    assert unseen(ChatCompletionChunk, told(CHUNKS)) == {"choices.delta.function_call"}


def told(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """All that the chunks say, members of deltas joined in their order."""
    said: dict[str, Any] = {}

    def join(into: dict[str, Any], members: dict[str, Any]) -> None:
        for key, value in members.items():
            present = into.get(key)
            if present is None:
                into[key] = copy.deepcopy(value)
            elif isinstance(present, dict) and isinstance(value, dict):
                join(present, value)
            elif isinstance(present, list) and value is not None:
                if value and isinstance(value[0], dict) and "index" in value[0]:
                    for item in value:
                        same = [p for p in present if p["index"] == item["index"]]
                        join(same[0], item) if same else present.append(copy.deepcopy(item))
                else:
                    present.extend(value)
            elif isinstance(value, str) and key in TEXTS:
                into[key] = present + value
            elif value is not None:
                assert present == value, f"{key} changed"

    for each in chunks:
        join(said, each)
    return said


TEXTS = ("content", "refusal", "arguments", "transcript", "data", "input", "reasoning_content")


@pytest.mark.parametrize("include_usage", [True, False])
async def test_every_member_of_chunks(site: Site, include_usage: bool) -> None:
    site.up.script(sse(CHUNKS))
    asked: dict[str, Any] = {"model": "m", "messages": HELLO, "stream": True, "logprobs": True}
    if include_usage:
        asked["stream_options"] = {"include_usage": True}
    async with site.gateway.http() as http:
        text = (await http.post("/v1/chat/completions", json=asked)).text
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    got = [json.loads(line) for line in lines]
    for each in got:
        ChatCompletionChunk.model_validate(each, strict=True)
    wanted = told(CHUNKS)
    del wanted["obfuscation"]
    if not include_usage:
        del wanted["usage"]
    assert told(got) == wanted


async def test_what_is_known_only_at_the_end(site: Site) -> None:
    """A tier or fingerprint that changed, and a vendor's last words, still reach the client."""
    script = [
        chunk({"delta": {"role": "assistant", "content": "Hi"}}, service_tier="auto"),
        chunk({"finish_reason": "stop", "stop_reason": 7}, service_tier="auto"),
        chunk(None, service_tier="flex", system_fingerprint="fp_2", citations=["u"], usage=USAGE),
    ]
    asked = {"model": "m", "messages": HELLO, "stream": True}
    async with site.gateway.http() as http:
        for options in ({}, {"stream_options": {"include_usage": True}}):
            site.up.script(sse(script))
            text = (await http.post("/v1/chat/completions", json=asked | options)).text
            *_, last, done = [line for line in text.split("\n\n") if line]
            assert done == "data: [DONE]"
            end = json.loads(last.removeprefix("data: "))
            assert (end["service_tier"], end["system_fingerprint"]) == ("flex", "fp_2")
            assert end["citations"] == ["u"]
            assert last.count('"service_tier"') == 1
