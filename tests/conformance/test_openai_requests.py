"""What the stock `openai` SDK sends reaches the upstream: content, parameters, vendors' extras."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from conformance.conftest import HELLO, Sdk, Site
from fakes.upstream import answer, completion, tool_call

PNG = base64.b64encode(bytes(range(256)) * 3).decode()
WAV = base64.b64encode(b"RIFF" + bytes(200)).decode()


# Content.


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a%20b/%E2%82%AC.jpg?x=1&y=%2F&sig=a+b==#frag",
        "http://example.com:8080/i.png",
        f"data:image/png;base64,{PNG}",
        f"data:image/png;name=a.png;base64,{PNG[:-1]}",  # not even valid base64: not our business
    ],
    ids=["https", "http", "data", "odd data"],
)
async def test_image(site: Site, sdk: Sdk, url: str) -> None:
    parts: list[Any] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    await sdk.create([{"role": "user", "content": parts}])
    assert site.sent["messages"] == [{"role": "user", "content": parts}]
    assert site.up.requests[-1].body.count(json.dumps(url).encode()) == 2


@pytest.mark.parametrize("form", ["wav", "mp3"])
async def test_audio_input(site: Site, sdk: Sdk, form: str) -> None:
    part = {"type": "input_audio", "input_audio": {"data": WAV, "format": form}}
    await sdk.create([{"role": "user", "content": [part]}])
    assert site.sent["messages"][0]["content"] == [part]


@pytest.mark.parametrize(
    "file",
    [
        {"file_id": "file-abc"},
        {"file_data": f"data:application/pdf;base64,{PNG}", "filename": "a b.pdf"},
    ],
    ids=["id", "data"],
)
async def test_file_input(site: Site, sdk: Sdk, file: dict[str, str]) -> None:
    part = {"type": "file", "file": file}
    await sdk.create([{"role": "user", "content": [part]}])
    assert site.sent["messages"][0]["content"] == [part]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.pdf", "application/pdf"), (None, "application/octet-stream")]
)
async def test_file_input_as_plain_base64(
    site: Site, sdk: Sdk, name: str | None, kind: str
) -> None:
    named = {"filename": name} if name else {}
    part = {"type": "file", "file": {"file_data": PNG} | named}
    await sdk.create([{"role": "user", "content": [part]}])
    (arrived,) = site.sent["messages"][0]["content"]
    assert arrived["file"] == {"file_data": f"data:{kind};base64,{PNG}"} | named


async def test_audio_output(site: Site, sdk: Sdk) -> None:
    audio = {"id": "audio_1", "expires_at": 1900000000, "data": WAV, "transcript": "Hi"}
    site.up.script(answer(completion(None, message={"audio": audio})))
    asked = {"voice": "alloy", "format": "wav"}
    got = await sdk.create(modalities=["text", "audio"], audio=asked)
    assert got.choices[0].message.audio.model_dump() == audio
    assert got.choices[0].message.content is None
    assert site.sent["audio"] == asked and site.sent["modalities"] == ["text", "audio"]
    turn = {"role": "assistant", "audio": {"id": "audio_1"}}
    await sdk.create([*HELLO, turn, *HELLO], audio={"voice": {"id": "v_1"}, "format": "mp3"})
    assert site.sent["messages"][1] == {
        "role": "assistant",
        "content": None,
        "audio": {"id": "audio_1"},
    }
    assert site.sent["audio"] == {"voice": {"id": "v_1"}, "format": "mp3"}


async def test_roles_and_names(site: Site, sdk: Sdk) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief.", "name": "app"},
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "assistant", "content": "Ho", "name": "bot"},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."},
                                          {"type": "text", "text": "Well"}]},
        {"role": "assistant", "content": None, "tool_calls": [tool_call("f", "", id="c")]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ]  # fmt: skip
    await sdk.create(messages)
    assert site.sent["messages"] == messages


# Parameters. The sample has every member that the SDK's types know, and a test of its own says so.

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "F",
        "parameters": {"type": "object", "properties": {"b": {}, "a": {}}},
        "strict": False,
    },
}
EVERYTHING: dict[str, Any] = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {
                    "type": "image_url",
                    "image_url": {"url": "https://example.com/x.png", "detail": "original"},
                    "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"},
                },
                {
                    "type": "input_audio",
                    "input_audio": {"data": WAV, "format": "wav"},
                    "prompt_cache_breakpoint": {"mode": "explicit"},
                },
                {
                    "type": "file",
                    "file": {"file_data": f"data:text/plain;base64,{PNG}", "filename": "f.txt"},
                    "prompt_cache_breakpoint": {"mode": "explicit"},
                },
            ],
            "name": "ann",
        }
    ],
    "audio": {"voice": "alloy", "format": "pcm16"},
    "frequency_penalty": 0.1,
    "logit_bias": {"50256": -100, "42": 7},
    "logprobs": True,
    "max_completion_tokens": 4611686018427387905,
    "metadata": {"team": "a", "": "b", "ключ": "значение"},
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest", "policy": {"input": {"mode": "block"}}},
    "n": 3,
    "parallel_tool_calls": False,
    "prediction": {
        "type": "content",
        "content": [{"type": "text", "text": "def f"}, {"type": "text", "text": "(): pass"}],
    },
    "presence_penalty": -0.30000000000000004,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "xhigh",
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "S",
            "description": "An S",
            "schema": {"type": "object", "properties": {"z": {"maximum": 2**63 + 1}, "a": {}}},
            "strict": True,
        },
    },
    "safety_identifier": "s",
    "seed": -9007199254740993,
    "service_tier": "flex",
    "stop": ["END", "\n\n"],
    "store": True,
    "temperature": 0,
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "tools": [TOOL, {"type": "custom", "custom": {"name": "c", "description": "C"}}],
    "top_logprobs": 20,
    "top_p": 0.1,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {
        "search_context_size": "high",
        "user_location": {
            "type": "approximate",
            "approximate": {
                "city": "Köln",
                "country": "DE",
                "region": "NRW",
                "timezone": "Europe/Berlin",
            },
        },
    },
}
ELSEWHERE = {
    "model",
    "stream_options",
    "functions",
    "function_call",
    "max_tokens",
}  # have tests of their own


def test_the_sample_has_every_parameter() -> None:
    assert set(get_type_hints(CompletionCreateParamsBase)) == set(EVERYTHING) | ELSEWHERE


@pytest.mark.parametrize("name", [n for n in EVERYTHING if n != "messages"])
def test_the_sample_is_whole(name: str) -> None:
    """Nested objects of one shape, too, have all members that the SDK's types know."""
    known = get_type_hints(CompletionCreateParamsBase, include_extras=True)[name]
    missing = _missing(known, EVERYTHING[name], name)
    allowed = {"moderation.policy.output"}
    assert set(missing) <= allowed


def _missing(hint: Any, value: Any, path: str) -> list[str]:
    """Members of typed dicts that the value leaves out; unions are not looked into."""
    while get_origin(hint) is not None and len(get_args(hint)) == 1:
        hint = get_args(hint)[0]
    options = [a for a in get_args(hint) if a is not type(None)]
    if len(options) == 1:
        return _missing(options[0], value, path)
    if not hasattr(hint, "__required_keys__"):
        return []
    found = []
    for member, inner in get_type_hints(hint, include_extras=True).items():
        if member in value:
            found += _missing(inner, value[member], f"{path}.{member}")
        else:
            found.append(f"{path}.{member}")
    return found


async def test_every_parameter(site: Site, sdk: Sdk) -> None:
    got = await sdk.create(**EVERYTHING)
    assert site.sent == EVERYTHING | {"model": "upstream-m"}
    body = site.up.requests[-1].body.decode()
    assert '"properties":{"b":{},"a":{}}' in body.replace(", ", ",").replace(": ", ":")
    assert "9223372036854775809" in body, "integers of schemas stay exact"
    assert got.choices


async def test_every_parameter_streamed(site: Site, sdk: Sdk) -> None:
    options = {"include_usage": False, "include_obfuscation": False}
    got = await sdk.chunks(**EVERYTHING, stream_options=options)
    own = {"model": "upstream-m", "stream": True, "stream_options": {"include_usage": True}}
    assert site.sent == EVERYTHING | own
    assert all("usage" not in chunk.model_fields_set for chunk in got)


VALUES: list[Any] = [
    ("temperature", [0, 0.7, 1.9999999999999998, 2]),
    ("top_p", [0, 1e-12, 1]),
    ("frequency_penalty", [-2, 0, 2]),
    ("presence_penalty", [-2, 0, 2]),
    ("max_tokens", [1, 2**53 + 1]),
    ("max_completion_tokens", [1, 65536]),
    ("seed", [0, -1, 2**63 - 1]),
    ("n", [1, 128]),
    ("logprobs", [False, True]),
    ("store", [False, True]),
    ("parallel_tool_calls", [False, True]),
    ("reasoning_effort", ["none", "minimal", "low", "medium", "high", "xhigh"]),
    ("verbosity", ["low", "medium", "high"]),
    ("service_tier", ["auto", "default", "flex", "scale", "priority", "fast"]),
    ("user", ["", "u-1"]),
    ("prediction", [{"type": "content", "content": "def f(): pass"}]),
    ("web_search_options", [{}, {"search_context_size": "low"}]),
    ("stop", [["a"], ["a", "b", "c", "d"]]),
]


@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_values_arrive_as_they_are(site: Site, sdk: Sdk, subtests: pytest.Subtests) -> None:
    for name, values in VALUES:
        with subtests.test(name=name):
            for value in values:
                await sdk.create(**{name: value})
                assert site.sent[name] == value and type(site.sent[name]) in (type(value), float)


async def test_one_stop_text_is_a_list_of_one(site: Site, sdk: Sdk) -> None:
    await sdk.create(stop="END")
    assert site.sent["stop"] == ["END"]


async def test_nulls_are_left_out(site: Site, sdk: Sdk) -> None:
    nullable = set(EVERYTHING) - {"messages", "response_format", "tool_choice", "tools"}
    await sdk.create(**dict.fromkeys(nullable), extra_body={"tools": None, "tool_choice": None})
    unknown = {name: None for name in site.sent if site.sent[name] is None}
    # What the gateway does not know it does not judge, null or not.
    assert set(unknown) <= {"moderation", "prompt_cache_options", "prompt_cache_retention"}
    assert set(site.sent) - set(unknown) == {"model", "messages"}


# Beyond OpenAI.


async def test_extra_body(site: Site, sdk: Sdk) -> None:
    extras = {
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.05,
        "guided_choice": ["yes", "no"],
        "chat_template_kwargs": {"enable_thinking": False},
        "provider": {"order": ["a", "b"], "allow_fallbacks": False},
        "big": 123456789012345678901234567890,
        "none": None,
    }
    await sdk.create(extra_body=extras)
    assert site.sent == {"model": "upstream-m", "messages": HELLO} | extras
    assert b'"big":123456789012345678901234567890' in site.up.requests[-1].body


async def test_extras_inside_messages_parts_and_tools(site: Site, sdk: Sdk) -> None:
    marked = {"type": "ephemeral"}
    messages: Any = [
        {
            "role": "system",
            "content": [{"type": "text", "text": "a", "cache_control": marked}],
            "x": 1,
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "image_url",
                    "image_url": {"url": "https://e.com/i", "format": "png"},
                    "y": 2,
                }
            ],
        },
        {"role": "assistant", "content": "so", "prefix": True, "thought_id": "t"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}", "sig": {"a": [1]}},
                    "extra_content": {"google": {"thought_signature": "s"}},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "r", "z": None},
    ]
    tools: Any = [TOOL | {"cache_control": marked}, {"type": "web_search", "filters": {"a": [1]}}]
    await sdk.create(messages, tools=tools)
    assert site.sent["messages"] == messages
    assert site.sent["tools"] == tools


FAMILIES = "\n".join(
    f"  {name}: {{targets: [{{provider: up}}]}}"
    for name in ("qwen3.6-plus", "deepseek-v4-flash", "glm-4.6", "kimi-k2")
)


@pytest.mark.parametrize("switch", ["enable_thinking", "llmgw_thinking"])
@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("sdk", ["async"], indirect=True)
async def test_thinking_switch(site: Site, sdk: Sdk, switch: str, on: bool) -> None:
    await site.open(models=FAMILIES)

    async def sent(model: str) -> Any:
        raw = await sdk.run(
            lambda client: client.chat.completions.with_raw_response.create(
                model=model, messages=HELLO, extra_body={switch: on}
            )
        )
        warnings = raw.headers.get("x-headgate-warnings")
        body = {k: v for k, v in site.sent.items() if k != "model"}
        return body, warnings

    assert await sent("qwen3.6-plus") == ({"messages": HELLO, "enable_thinking": on}, None)
    directive = "/think" if on else "/no_think"
    told = [{"role": "user", "content": f"Hello! {directive}"}]
    assert await sent("deepseek-v4-flash") == ({"messages": told}, None)
    kind = "enabled" if on else "disabled"
    assert await sent("glm-4.6") == ({"messages": HELLO, "thinking": {"type": kind}}, None)
    body, warnings = await sent("kimi-k2")
    assert body == {"messages": HELLO}
    assert "thinking" in warnings, "left out, and said so"


async def test_the_gateways_own_switch_wins(site: Site, sdk: Sdk) -> None:
    await site.open(models=FAMILIES)
    extra = {"enable_thinking": True, "llmgw_thinking": False}
    await sdk.create(model="qwen3.6-plus", extra_body=extra)
    assert site.sent["enable_thinking"] is False
    assert "llmgw_thinking" not in site.sent


@pytest.mark.parametrize("model", ["kimi-k2", "glm-4.6", "qwen3.6-plus", "deepseek-v4-flash", "m"])
async def test_native_thinking_object(site: Site, sdk: Sdk, model: str) -> None:
    await site.open(models=FAMILIES)
    native = {"type": "enabled", "budget_tokens": 1024, "keep": "all"}
    await sdk.create(model=model, extra_body={"thinking": native})
    assert site.sent["thinking"] == native
    assert site.sent["messages"] == HELLO


async def test_reasoning_goes_back_unchanged(site: Site, sdk: Sdk) -> None:
    site.up.script(answer(completion("42", message={"reasoning_content": "hm"})))
    message = (await sdk.create()).choices[0].message
    await sdk.create([*HELLO, message, *HELLO])
    said = {"role": "assistant", "content": "42", "reasoning_content": "hm"}
    assert site.sent["messages"][1] == said
