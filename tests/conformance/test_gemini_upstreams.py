"""Gemini's door in front of Gemini, where nothing may change on the way, and in front of Anthropic."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.genai import types

from assembly import gemini_stream
from conformance.conftest import Site
from conformance.gemini_sdk import AS_JSON_SCHEMA, PNG, QUIET, WEATHER_TOOL, Sdk, parts_of, text_of
from fakes.upstream import Answer, answer, sse

pytestmark = QUIET

GENERATE = "/v1beta/models/m:generateContent"
STREAM = "/v1beta/models/m:streamGenerateContent"


def config(site: Site, kind: str, model: str) -> str:
    return f"""
providers:
  up: {{kind: {kind}, base_url: "{site.up.origin}", api_key: "upstream-secret-key"}}
models:
  m: {{targets: [{{provider: up, model: {model}}}]}}
"""


@pytest.fixture(params=["gemini-2.5-flash", "gemini-3-flash-preview"])
async def gemini(site: Site, request: pytest.FixtureRequest) -> Site:
    """The site with Gemini behind."""
    await site.open_config(config(site, "gemini", request.param))
    site.up.default(answer(answered([{"text": "Hi."}])))
    return site


@pytest.fixture
async def claude(site: Site) -> Site:
    """The site with Anthropic behind."""
    await site.open_config(config(site, "anthropic", "claude-sonnet-4-5"))
    return site


@pytest.fixture(params=["async", "sync"])
async def sdk(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Sdk]:
    """The SDK in front of the site."""
    sdk = Sdk(site, request.param)
    yield sdk
    await sdk.close()


def answered(parts: list[Any], **extra: Any) -> Any:
    """A whole answer of Gemini's."""
    candidate = {
        "content": {"parts": parts, "role": "model"},
        "finishReason": "STOP",
        "index": 0,
    }
    return {
        "candidates": [candidate | extra],
        "usageMetadata": {
            "promptTokenCount": 30,
            "candidatesTokenCount": 8,
            "totalTokenCount": 53,
            "thoughtsTokenCount": 4,
            "cachedContentTokenCount": 16,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 30}],
            "toolUsePromptTokenCount": 11,
        },
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r-1",
    }


def streamed(pieces: list[list[Any]], **extra: Any) -> Answer:
    """The same as a stream: a chunk for each list of parts, the last with all the rest."""
    events = []
    for parts in pieces:
        whole = answered(parts, **extra)
        if parts is not pieces[-1]:
            candidate = {k: whole["candidates"][0][k] for k in ("content", "index")}
            whole = {"candidates": [candidate], "modelVersion": whole["modelVersion"]}
            whole["responseId"] = "r-1"
        events.append(f"data: {json.dumps(whole)}\r\n\r\n".encode())
    return sse(events, done=False)


async def post(site: Site, path: str, body: Any) -> Any:
    async with site.gateway.http() as http:
        got = await http.post(path, json=body)
    assert got.status_code == 200, got.text
    return got


# Gemini behind.

WHOLE: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "Look"},
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {
                    "fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/v.mp4"},
                    "videoMetadata": {"startOffset": "1s", "fps": 0.5},
                },
            ],
        },
        {
            "role": "model",
            "parts": [
                {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
                {"text": "One. ", "thoughtSignature": "QUJD"},
                {"thought": True, "inlineData": {"mimeType": "image/png", "data": PNG}},
                {
                    "functionCall": {"id": "x", "name": "f", "args": {"n": 1.5}},
                    "thoughtSignature": "REVG",
                },
                {"functionCall": {"id": "y", "name": "f", "args": {"n": 12345678901234567890}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "id": "x",
                        "name": "f",
                        "response": {"output": 1.5, "a": [1]},
                    }
                },
                {
                    "functionResponse": {
                        "id": "y",
                        "name": "f",
                        "response": {"result": "text"},
                        "scheduling": "SILENT",
                    }
                },
            ],
        },
    ],
    "tools": [
        {"functionDeclarations": [{"name": "f", "parametersJsonSchema": AS_JSON_SCHEMA}]},
        {"codeExecution": {}},
        {"googleSearch": {"timeRangeFilter": {"startTime": "2026-01-01T00:00:00Z"}}},
    ],
    "toolConfig": {
        "functionCallingConfig": {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
        "includeServerSideToolInvocations": True,
    },
    "generationConfig": {
        "temperature": 0.5,
        "topP": 0.8,
        "topK": 10,
        "candidateCount": 1,
        "maxOutputTokens": 800,
        "stopSequences": ["END"],
        "seed": 42,
        "presencePenalty": 0.5,
        "frequencyPenalty": 0.25,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "array", "items": {"type": "integer", "minimum": 1.0}},
        "responseModalities": ["TEXT"],
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
        "imageConfig": {"aspectRatio": "16:9"},
        "newMember": {"snake_case": 1},
    },
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "cachedContent": "cachedContents/abc",
    "labels": {"team": "a"},
    "serviceTier": "flex",
    "store": False,
    "newTop": [1],
}


async def test_the_request_goes_through_as_it_is(gemini: Site) -> None:
    await post(gemini, GENERATE, WHOLE)
    assert gemini.sent == WHOLE
    text = gemini.up.requests[-1].body.decode()
    assert "12345678901234567890" in text and '"minimum":1.0' in text.replace(" ", "")
    (record,) = gemini.up.requests
    assert record.headers["x-goog-api-key"] == "upstream-secret-key"


@pytest.mark.parametrize(
    "thinking",
    [
        {"thinkingBudget": -1, "includeThoughts": True},
        {"thinkingBudget": 0},
        {"thinkingBudget": 1024, "includeThoughts": True},
        {"thinkingBudget": 1024},
    ],
)
async def test_thinking_goes_through_as_it_is(gemini: Site, thinking: Any) -> None:
    if gemini.gateway.config.models["m"].targets[0].model != "gemini-2.5-flash":
        return  # newer ones take levels
    body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    await post(gemini, GENERATE, body | {"generationConfig": {"thinkingConfig": thinking}})
    assert gemini.sent["generationConfig"]["thinkingConfig"] == thinking


async def test_schemas_of_googles_become_json_schema(gemini: Site) -> None:
    schema = {"type": "ARRAY", "items": {"type": "STRING", "nullable": True}}
    form = {"responseMimeType": "application/json", "responseSchema": schema}
    body: Any = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    body |= {"generationConfig": form, "tools": [{"googleSearch": {}}]}
    await post(gemini, GENERATE, body)
    config = gemini.sent["generationConfig"]
    assert config["responseJsonSchema"] == {"type": "array", "items": {"type": ["string", "null"]}}
    assert gemini.sent["tools"] == [{"googleSearch": {}}]


OWN_PARTS: list[Any] = [
    {"text": "**Plan**", "thought": True},
    {"executableCode": {"language": "PYTHON", "code": "print(1)", "id": "c"}},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n", "id": "c"}},
    {"text": "Olé", "thoughtSignature": "QUJD"},
    {"inlineData": {"mimeType": "image/png", "data": PNG}},
    {"functionCall": {"id": "x", "name": "f", "args": {"n": 1.5}}, "thoughtSignature": "REVG"},
    {"functionCall": {"id": "y", "name": "g", "args": {}}},
]
OWN_EXTRA: Any = {
    "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}],
    "avgLogprobs": -0.25,
    "citationMetadata": {"citationSources": [{"startIndex": 0, "uri": "https://a.example"}]},
    "groundingMetadata": {
        "webSearchQueries": ["ole"],
        "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A", "domain": "a"}}],
        "groundingSupports": [
            {"segment": {"endIndex": 4, "text": "Olé"}, "groundingChunkIndices": [0]}
        ],
    },
    "urlContextMetadata": {"urlMetadata": [{"retrievedUrl": "https://a.example"}]},
    "newMember": 1,
}
ASKED: Any = {
    "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
    "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
}


async def test_the_answer_comes_through_as_it_is(gemini: Site) -> None:
    said = answered(OWN_PARTS, **OWN_EXTRA) | {"modelStatus": {"modelStage": "STABLE"}}
    said["candidates"][0]["content"]["newMember"] = 1
    gemini.up.script(answer(said))
    got = (await post(gemini, GENERATE, ASKED)).json()
    assert got.pop("createTime")
    assert got == said


@pytest.mark.parametrize("query", ["", "?alt=sse"])
async def test_the_stream_comes_through_as_it_is(gemini: Site, query: str) -> None:
    pieces = [
        [{"text": "**Pl", "thought": True}],
        [{"text": "an**", "thought": True}],
        OWN_PARTS[1:3],
        [{"text": "Ol"}],
        [{"text": "é"}],
        [{"text": "", "thoughtSignature": "QUJD"}],
        OWN_PARTS[4:6],
        OWN_PARTS[6:],
    ]
    gemini.up.script(streamed(pieces, **OWN_EXTRA))
    got = gemini_stream.assemble((await post(gemini, STREAM + query, ASKED)).text)
    assert got.pop("createTime")
    wanted = answered(OWN_PARTS, **OWN_EXTRA)
    assert gemini_stream.comparable(got) == gemini_stream.comparable(wanted)


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "MALFORMED_FUNCTION_CALL", "NEW"])
async def test_its_own_reasons(gemini: Site, reason: str) -> None:
    gemini.up.script(answer(answered([{"text": "x"}], finishReason=reason, finishMessage="why")))
    (candidate,) = (await post(gemini, GENERATE, ASKED)).json()["candidates"]
    assert (candidate["finishReason"], candidate["finishMessage"]) == (reason, "why")


async def test_a_second_turn_brings_everything_back(gemini: Site, sdk: Sdk) -> None:
    """Signatures and parts of Gemini's own, whole and streamed, by way of the SDK's chat."""
    chat = sdk.chat(
        thinking_config={"include_thoughts": True},
        tools=[WEATHER_TOOL],
        automatic_function_calling={"disable": True},
    )
    pieces = [[part] for part in OWN_PARTS]
    pieces[3:4] = [[{"text": "Ol"}], [{"text": "é"}], [{"text": "", "thoughtSignature": "QUJD"}]]
    hi = answer(answered([{"text": "Hi."}]))
    gemini.up.script(answer(answered(OWN_PARTS)), hi, streamed(pieces))
    outcome = types.Part.from_function_response(name="f", response={"result": "a"})
    other = types.Part.from_function_response(name="g", response={"result": "b"})
    for turn in (chat.send, chat.stream):
        await turn("Go")
        await chat.send([outcome, other])
        said, back = gemini.sent["contents"][-2:]
        assert (said["role"], said["parts"]) == ("model", OWN_PARTS)
        assert [p["functionResponse"]["response"] for p in back["parts"]] == [
            {"result": "a"},
            {"result": "b"},
        ]
        assert [p["functionResponse"]["id"] for p in back["parts"]] == ["x", "y"]


@pytest.mark.parametrize(
    "response", [{"error": "no"}, {"error": {"code": 1}}, {"error": "no", "a": 1}, {}, {"a": 1.5}]
)
async def test_outcomes_of_functions_go_through_as_they_are(gemini: Site, response: Any) -> None:
    contents = [
        {"role": "user", "parts": [{"text": "Hi"}]},
        {"role": "model", "parts": [{"functionCall": {"id": "x", "name": "f", "args": {}}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"id": "x", "name": "f", "response": response}}],
        },
    ]
    await post(gemini, GENERATE, {"contents": contents})
    (back,) = gemini.sent["contents"][-1]["parts"]
    assert back["functionResponse"]["response"] == response


async def test_counting(gemini: Site, sdk: Sdk) -> None:
    gemini.up.script(answer({"totalTokens": 31, "promptTokensDetails": []}))
    got = await sdk.run(lambda c: c.models.count_tokens(model="m", contents="Hi"))
    assert got.total_tokens == 31
    assert gemini.up.requests[-1].path.endswith(":countTokens")
    headers = {k.lower(): v for k, v in got.sdk_http_response.headers.items()}
    assert headers["x-headgate-provider"] == "up" and "x-headgate-warnings" not in headers


# Anthropic behind.

CALL: Any = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
THINKING: list[Any] = [
    {"type": "thinking", "thinking": "six times seven", "signature": "ErUBCkYIARgCIkD+/w=="},
    {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix="},
    {"type": "text", "text": "Let me see."},
    CALL,
]


def message(content: list[Any], reason: str = "end_turn") -> Any:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }


def as_events(content: list[Any], reason: str) -> Answer:
    """The message as a stream of Anthropic's."""
    whole = message([]) | {"stop_reason": None}
    events: list[Any] = [{"type": "message_start", "message": whole}]
    for index, block in enumerate(content):
        opened, deltas = dict(block), []
        if block["type"] == "thinking":
            opened |= {"thinking": "", "signature": ""}
            half = len(block["thinking"]) // 2
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"][:half]},
                {"type": "thinking_delta", "thinking": block["thinking"][half:]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        elif block["type"] == "text":
            opened |= {"text": ""}
            deltas = [{"type": "text_delta", "text": c} for c in block["text"]]
        elif block["type"] == "tool_use":
            opened |= {"input": {}}
            text = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": text}]
        events.append({"type": "content_block_start", "index": index, "content_block": opened})
        for delta in deltas:
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 5}})
    events.append({"type": "message_stop"})
    lines = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events]
    return sse(lines, done=False)


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "hidden"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_thinking_of_another_vendor_comes_back(
    claude: Site, sdk: Sdk, shown: bool, streamed: bool
) -> None:
    """Block by block and word by word, or Anthropic refuses the second turn."""
    chat = sdk.chat(
        thinking_config={"thinking_budget": 2000, "include_thoughts": shown},
        tools=[WEATHER_TOOL],
        automatic_function_calling={"disable": True},
        max_output_tokens=4000,
    )
    claude.up.script(
        as_events(THINKING, "tool_use") if streamed else answer(message(THINKING, "tool_use")),
        answer(message([{"type": "text", "text": "Sun."}])),
    )
    first = await chat.stream("Weather?") if streamed else await chat.send("Weather?")
    told = first if streamed else [first]
    assert text_of(told) == "Let me see."
    thoughts = "".join(part.get("text", "") for part in parts_of(told) if part.get("thought"))
    assert thoughts == ("six times seven" if shown else "")
    outcome = types.Part.from_function_response(name="get_weather", response={"result": "sun"})
    assert (await chat.send(outcome)).text == "Sun."
    _, said, back = claude.sent["messages"]
    assert said == {"role": "assistant", "content": THINKING}
    (result,) = back["content"]
    assert (result["type"], result["tool_use_id"]) == ("tool_result", "toolu_1")
    assert claude.sent["thinking"]["budget_tokens"] == 2000


async def test_an_error_of_a_function_is_one_elsewhere(claude: Site, sdk: Sdk) -> None:
    claude.up.default(answer(message([{"type": "text", "text": "Oh."}])))
    call = types.Part.from_function_call(name="get_weather", args={"city": "Paris"})
    outcome = types.Part.from_function_response(name="get_weather", response={"error": "no"})
    history = [types.UserContent("Hi"), types.ModelContent(call), types.UserContent(outcome)]
    assert (await sdk.generate(history, tools=[WEATHER_TOOL])).text == "Oh."
    (result,) = claude.sent["messages"][-1]["content"]
    assert result["is_error"] is True and "no" in json.dumps(result["content"])
