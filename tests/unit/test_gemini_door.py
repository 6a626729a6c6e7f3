"""Gemini's door in detail: spellings, schemas, seals, bounds, and what the SDK's own types say.

What a whole body becomes is in golden/door_gemini.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.genai import types
from google.protobuf import json_format

from assembly.gemini_stream import chunks_of
from headgate.errors import InvalidRequest, UpstreamProtocol, UpstreamUnavailable
from headgate.reasoning import seal, unseal
from headgate.v1 import chat_pb2, content_pb2
from headgate_facade.gemini import stream_out, wire
from headgate_facade.gemini.content_out import FINISH_REASONS, MALFORMED_CALL, View, proof_text
from headgate_facade.gemini.door import GeminiDoor, model_and_verb
from headgate_facade.gemini.members import standard_base64
from headgate_facade.gemini.places import Places, rest_path
from headgate_facade.gemini.schema import json_schema
from headgate_facade.gemini.stream_out import ChunkWriter
from headgate_server.validate import validate

GOLDEN = Path(__file__).parents[1] / "golden" / "door_gemini"
SCOPE = {"path": "/v1beta/models/m:generateContent", "query_string": b""}


def folder_of(path: Path) -> str:
    return path.parent.name


def read(body: Any) -> chat_pb2.ChatRequest:
    return GeminiDoor().read(SCOPE, json.dumps(body).encode()).request


# The SDK's own types, which refuse members that they do not know.


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/http_response.json")), ids=folder_of)
def test_answers_are_what_the_sdk_knows(path: Path) -> None:
    types.GenerateContentResponse.model_validate(json.loads(path.read_text()))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("answer_*/http_stream.txt")), ids=folder_of)
def test_chunks_are_what_the_sdk_knows(path: Path) -> None:
    for chunk in chunks_of(path.read_bytes().decode()):
        types.GenerateContentResponse.model_validate(chunk)


def test_reasons_are_what_the_sdk_knows() -> None:
    known = {reason.value for reason in types.FinishReason}
    assert {*FINISH_REASONS.values(), MALFORMED_CALL} <= known
    reasons = {r for r in chat_pb2.FinishReason.values() if r}
    assert set(FINISH_REASONS) == reasons


# Paths.


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/v1beta/models/m:generateContent", ("m", "generateContent")),
        ("/v1/models/a/b:c:countTokens", ("a/b:c", "countTokens")),
        ("/v1/models/a/models/b:generateContent", ("a/models/b", "generateContent")),
        ("/v1/models/m:generateContent/", ("m", "generateContent")),
        ("/v1/models/m", ("", "m")),
    ],
)
def test_model_and_verb(path: str, wanted: tuple[str, str]) -> None:
    assert model_and_verb(path) == wanted


# Spellings.


def test_both_spellings_are_the_same() -> None:
    camel = {
        "contents": [
            {"parts": [{"functionResponse": {"name": "f", "willContinue": True, "response": {}}}]},
            {"parts": {"fileData": {"fileUri": "gs://b/c", "mimeType": "image/png"}}},
        ],
        "generationConfig": {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 7}},
        "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["f"], "mode": "ANY"}},
    }
    text = json.dumps(camel)
    for name in (
        "functionResponse", "willContinue", "fileData", "fileUri", "mimeType", "generationConfig",
        "thinkingConfig", "includeThoughts", "thinkingBudget", "toolConfig", "allowedFunctionNames",
        "functionCallingConfig",
    ):  # fmt: skip
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', f'"{snake}"')
    assert read(json.loads(text)) == read(camel)


def test_the_callers_own_words_keep_their_spelling() -> None:
    request = read(
        {
            "contents": [
                {"role": "model", "parts": [
                    {"function_call": {"name": "f", "args": {"mime_type": {"file_data": 1}}}}]},
                {"parts": [{"function_response": {"name": "f", "response": {"inline_data": 2}}}]},
            ],
            "unknown_member": {"top_p": 1},
            "extra": {"a": 1},
            "generation_config": {"response_json_schema": {"properties": {"top_k": {}}}},
        }
    )  # fmt: skip
    call, result = request.messages[0].parts[0], request.messages[1].parts[0]
    assert call.tool_call.arguments_json == '{"mime_type":{"file_data":1}}'
    assert result.tool_result.parts[0].text == '{"inline_data":2}'
    assert json.loads(request.extra_body_json) == {
        "unknown_member": {"top_p": 1},
        "extra": {"a": 1},
    }
    assert '"top_k"' in request.response_format.json_schema.schema_json


def test_of_both_spellings_at_once_the_camel_case_one_wins() -> None:
    request = read(
        {"contents": "x", "generationConfig": {"topP": 0.5, "top_p": 0.9, "temperature": 1}}
    )
    assert request.top_p == 0.5
    assert json.loads(request.extra_body_json) == {"generationConfig": {"top_p": 0.9}}


def test_null_is_absent() -> None:
    request = read(
        {
            "contents": [{"role": None, "parts": [{"text": "x", "executableCode": None}]}],
            "tools": None,
            "generationConfig": {"speechConfig": None, "topK": None, "thinkingConfig": None},
            "safetySettings": None,
        }
    )
    assert request == read({"contents": "x"})


@pytest.mark.parametrize("given", ["_-8", "_-8=", "/+8=", "/+8"])
def test_base64(given: str) -> None:
    assert standard_base64(given) == "/+8="


# Schemas.


def schema(value: Any) -> Any:
    return json.loads(json_schema(msgspec.Raw(json.dumps(value).encode()), "s"))


def test_a_json_schema_stays_as_it_is() -> None:
    value = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": ["object", "null"],
        "properties": {"type": {"const": "a"}, "nullable": {"type": "boolean"}, "ref": {}},
        "oneOf": [{"required": ["type"]}],
        "patternProperties": {"^x": {"type": "string"}},
        "additionalProperties": False,
        "enum": [1, None],
        "maxItems": 3,
    }
    text = json_schema(msgspec.Raw(json.dumps(value).encode()), "s")
    assert json.loads(text, object_pairs_hook=list) == json.loads(
        json.dumps(value), object_pairs_hook=list
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"type": "TYPE_UNSPECIFIED"}, {}),
        ({"nullable": False, "type": "STRING"}, {"type": "string"}),
        ({"nullable": True}, {}),
        ({"type": ["STRING", "NULL"], "nullable": True}, {"type": ["string", "null"]}),
        ({"any_of": [{"type": "STRING"}]}, {"anyOf": [{"type": "string"}]}),
        ({"type": "INTEGER", "enum": ["1", "x"]}, {"type": "integer", "enum": [1, "x"]}),
        (
            {"type": "OBJECT", "properties": {"b": {}, "a": {}}, "property_ordering": ["a", "z"]},
            {"type": "object", "properties": {"a": {}, "b": {}}},
        ),
        (
            {"additional_properties": {"type": "STRING"}},
            {"additionalProperties": {"type": "string"}},
        ),
        ({"properties": "nonsense", "items": [1]}, {"properties": "nonsense", "items": [1]}),
    ],
)
def test_schemas(given: Any, wanted: Any) -> None:
    found = schema(given)
    assert json.dumps(found) == json.dumps(wanted)


def test_a_schema_nested_too_deeply() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"items": deep}
    with pytest.raises(InvalidRequest, match=r"^s: is no valid schema"):
        schema(deep)


# Thoughts.


def test_a_seal_with_its_text_is_still_a_seal() -> None:
    part = content_pb2.Reasoning(text="Héllo", signature="c2ln", id="rs_1", dialect="anthropic")
    hidden = unseal(proof_text(part, View(False, False, "anthropic")))
    assert hidden == part
    shown = proof_text(part, View(True, False, "anthropic"))
    assert shown == seal(part, "anthropic")
    unnamed = content_pb2.Reasoning(text="x", signature="c2ln")
    assert unseal(proof_text(unnamed, View(False, False, "bedrock"))).dialect == "bedrock"  # type: ignore[union-attr]
    assert proof_text(unnamed, View(False, False, "gemini")) == "c2ln"
    assert proof_text(content_pb2.Reasoning(text="x"), View(False, False, "openai")) == ""


# Bounds.


def test_reading_takes_time_in_proportion() -> None:
    """A conversation in very many pieces; by the square of them it would take minutes."""
    count = 40_000
    call = {"functionCall": {"name": "f"}}
    result = {"functionResponse": {"name": "f", "response": {}}}
    body = {
        "contents": [
            *[{"role": "model", "parts": [{"text": "0123456789" * 10}]}] * count,
            {"role": "user", "parts": [{"text": "?"}]},
            *[{"role": "model", "parts": [{"text": "thought", "thought": True}]}] * count,
            {"role": "model", "parts": [call] * count},
            {"role": "user", "parts": [result] * count},
        ]
    }
    text = json.dumps(body).encode()
    start = time.process_time()
    request = GeminiDoor().read(SCOPE, text).request
    assert time.process_time() - start < 10
    said, _, called, results = request.messages
    assert len(said.parts) == 1 and len(said.parts[0].text) == 100 * count
    assert len(called.parts) == 1 + count and len(results.parts) == count
    ids = [part.tool_call.id for part in called.parts[1:]]
    assert [part.tool_result.tool_call_id for part in results.parts] == ids
    assert len(set(ids)) == count


def event(**kind: Any) -> chat_pb2.ChatEvent:
    return json_format.ParseDict(kind, chat_pb2.ChatEvent())


def test_what_waits_to_be_whole_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_out, "_LARGEST_HELD", 1000)
    writer = ChunkWriter(View(False, False), sse=True)
    call = {"tool_call": {"id": "a", "name": "f"}}
    writer.write([event(started={"model": "m"})])
    for index in range(5):
        writer.write([event(part_started={"part": index, "initial": call})])
        writer.write([event(part_delta={"part": index, "text": '{"a":"' + "x" * 900 + '"}'})])
        assert writer.write([event(part_finished={"part": index})]), "and is free again"
    writer.write([event(part_started={"part": 5, "initial": call})])
    with pytest.raises(UpstreamProtocol, match="wait to be whole"):
        for _ in range(1001):
            writer.write([event(part_delta={"part": 5, "text": "x"})])


def test_log_probabilities_of_what_is_no_text() -> None:
    """They go out at once, with an empty text, and the part comes whole as ever."""
    writer = ChunkWriter(View(False, False), sse=False)
    call = {"tool_call": {"id": "a", "name": "f"}}
    token = {"token": "{", "logprob": -1.0}
    out = writer.write(
        [
            event(started={"model": "m"}),
            event(part_started={"initial": call}),
            event(part_delta={"text": '{"a":', "logprobs": [token]}),
            event(part_delta={"text": "1}"}),
            event(part_finished={}),
            event(choice_finished={"finish_reason": "FINISH_REASON_TOOL_CALLS"}),
            event(completed={}),
        ]
    )
    first, second, _ = json.loads(out)
    assert first["candidates"][0]["logprobsResult"]["chosenCandidates"][0]["token"] == "{"
    assert first["candidates"][0]["content"]["parts"] == [{"text": ""}]
    assert second["candidates"][0]["content"]["parts"][0]["functionCall"]["args"] == {"a": 1}


# Errors.


def test_paths_of_the_proto_in_words_of_the_body() -> None:
    places = Places()
    places.messages = [("systemInstruction", ["systemInstruction.parts[0]"])]
    places.messages.append(("contents[0]", ["contents[0].parts[1]", "contents[0].parts[0]"]))
    places.tools = ["tools[0].functionDeclarations[0]", "tools[0].codeExecution"]
    for path, wanted in {
        "messages[0].parts[0]": "systemInstruction.parts[0]",
        "messages[1].parts[1].image.url": "contents[0].parts[0]",
        "messages[1].parts[7]": "contents[0]",
        "messages[1].role": "contents[0].role",
        "messages": "contents",
        "tools[0].function.parameters_json": "tools[0].functionDeclarations[0].parameters",
        "tools[1].provider_tool_json": "tools[0].codeExecution",
        "tool_choice.provider_choice_json": "toolConfig.functionCallingConfig",
        "reasoning.budget_tokens": "generationConfig.thinkingConfig.thinkingBudget",
        "response_format.json_schema.schema_json": "generationConfig.responseSchema",
        "model": "model",
        "something.new": "something.new",
    }.items():
        assert rest_path(path, places) == wanted


def test_an_error_within_a_stream_names_the_request() -> None:
    writer = ChunkWriter(View(False, False), sse=True)
    error = UpstreamUnavailable("gone")
    error.request_id = "req_1"
    details = json.loads(writer.error(error)[6:])["error"]["details"]
    assert details[-1]["requestId"] == "req_1"


def test_every_member_of_the_shapes_is_read() -> None:
    """A raw member that no list names would be lost without a word."""
    listed = {
        wire.Part: {*wire.VENDOR_KINDS, *wire.BESIDES},
        wire.Tool: set(wire.OWN_TOOLS),
        wire.GenerateBody: set(wire.OWN_MEMBERS),
        wire.GenerationConfig: {
            *wire.OWN_CONFIG, "response_schema", "response_json_schema", "response_format",
            "speech_config",
        },
        wire.FunctionDeclaration: {
            "parameters", "parameters_json_schema", "behavior", "response", "response_json_schema"
        },
        wire.ToolConfig: {"retrieval_config", "include_server_side_tool_invocations"},
        wire.FunctionResponse: {"response", "will_continue", "scheduling"},
    }  # fmt: skip
    for shape, names in listed.items():
        raw = {
            f.name
            for f in msgspec.structs.fields(shape)
            if f.type is msgspec.Raw
        }  # fmt: skip
        assert raw == names, shape


# Junk.

JUNK: list[Any] = [
    None, True, 0, -1, 2**63, 2**70, 1.5, 1e308, "", "x", "\x00", [], [None], ["x"], [{}], [[]], {},
    {"a": 1}, {"text": None},
]  # fmt: skip


def places_of(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if here:
        yield here
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places_of(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places_of(inner, (*here, index))


def bodies() -> list[tuple[str, Any]]:
    found = []
    for path in sorted(GOLDEN.glob("*/http_request.json")):
        if not path.parent.name.startswith("bad_"):
            found.append((path.parent.name, json.loads(path.read_text())))
    return found


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in bodies()])
def test_junk_at_any_place_is_refused_or_read(body: Any) -> None:
    """Never a defect; and what is read, the core refuses at most as a wrong field."""
    for place in places_of(body):
        *way, last = place
        holder = body
        for step in way:
            holder = holder[step]
        before = holder[last]
        for junk in JUNK:
            holder[last] = junk
            try:
                validate(read(body))
            except InvalidRequest as error:
                assert error.message
        holder[last] = before
