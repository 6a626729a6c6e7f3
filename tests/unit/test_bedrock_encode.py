"""Requests of Converse: nothing of the proto is forgotten, and each policy does what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers.base import Endpoint, Target, TokenCounter, UnsupportedPolicy
from headgate_server.providers.bedrock import BedrockDialect
from headgate_server.providers.bedrock.encode import FIELDS, PLAIN_FIELDS
from headgate_server.providers.bedrock.models import foundation_model
from headgate_server.providers.vendors import family_of, vendors

Json = dict[str, Any]
ENDPOINT = Endpoint("https://bedrock-runtime.eu-west-1.amazonaws.com", {"x-own": "1"}, "eu-west-1")
CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
DIALECT = BedrockDialect(1 << 20)
TOOL = chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"))
REQUIRED = chat_pb2.ToolChoice(mode=chat_pb2.ToolChoice.MODE_REQUIRED)
USER, ASSISTANT = content_pb2.ROLE_USER, content_pb2.ROLE_ASSISTANT


def target(model: str = CLAUDE, policy: UnsupportedPolicy = "drop") -> Target:
    return Target("aws", "bedrock", model, vendors()["bedrock"], family_of(model), policy)


def request(*parts: content_pb2.Part, role: int = USER, **fields: Any) -> chat_pb2.ChatRequest:
    message = content_pb2.Message(
        role=role,  # type: ignore[arg-type]
        parts=parts or [content_pb2.Part(text="Hi")],
    )
    return chat_pb2.ChatRequest(model="public", messages=[message], **fields)


def encode(asked: chat_pb2.ChatRequest, to: Target | None = None) -> tuple[Json, list[str]]:
    """The body, and the fields of the warnings."""
    call = DIALECT.encode(asked, to or target(), ENDPOINT, stream=False)
    return json.loads(call.body), [warning.field for warning in call.warnings]


def reasoning(model: str, **options: Any) -> tuple[Json, list[str]]:
    body, warned = encode(
        request(reasoning=chat_pb2.ReasoningOptions(**options)), target(f"anthropic.{model}")
    )
    del body["messages"]
    return body, warned


# Fields that `encode_fields` and `merge_extras` look at, or that are unsupported tuning.
ELSEWHERE = {
    *("model", "messages", "extra_body_json", "extra_dialect", "provider_options_json"),
    *("logit_bias", "audio", "prediction", "text_completion"),
}


def test_every_field_of_the_request_has_a_home() -> None:
    fields = {field.name for field in chat_pb2.ChatRequest.DESCRIPTOR.fields}
    assert fields == PLAIN_FIELDS.keys() | FIELDS.keys() | ELSEWHERE


def test_streams_differ_in_the_address_only() -> None:
    whole = DIALECT.encode(request(), target(), ENDPOINT, stream=False)
    streamed = DIALECT.encode(request(), target(), ENDPOINT, stream=True)
    assert whole.url == f"{ENDPOINT.base_url}/model/{CLAUDE.replace(':', '%3A')}/converse"
    assert streamed.url == f"{whole.url}-stream"
    assert streamed.body == whole.body
    assert whole.headers is ENDPOINT.headers


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "seed", "user", "verbosity"])
def test_policies_for_what_the_family_or_the_api_lacks(name: str) -> None:
    model = "anthropic.claude-opus-4-7"
    asked = request(**{name: "low" if name in ("user", "verbosity") else 1})
    body, warned = encode(asked, target(model))
    assert warned == [name]
    assert body == {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    with pytest.raises(InvalidRequest) as caught:
        encode(asked, target(model, "strict"))
    assert caught.value.violations[0].field == name
    body, warned = encode(asked, target(model, "pass"))
    assert warned == []
    assert len(body) == 2


def test_thinking_of_each_claude() -> None:
    def thinking(model: str, **options: Any) -> object:
        body, _ = reasoning(model, **options)
        effort = body.get("outputConfig", {}).get("effort")
        return body.get("additionalModelRequestFields", {}).get("thinking"), effort

    budget = {"type": "enabled", "budget_tokens": 8192}
    adaptive = {"type": "adaptive"}
    off = {"type": "disabled"}
    assert thinking("claude-3-7-sonnet-20250219-v1:0", enabled=True) == (budget, None)
    assert thinking("claude-opus-4-5-20251101-v1:0", effort="medium") == (budget, "medium")
    assert thinking("claude-opus-4-6-v1", enabled=True) == (adaptive, None)
    assert thinking("claude-opus-4-6-v1", budget_tokens=5000, effort="max") == (
        {"type": "enabled", "budget_tokens": 5000},
        "max",
    )
    assert thinking("claude-sonnet-5", effort="high") == (adaptive, "high")
    assert thinking("claude-sonnet-5", effort="none") == (off, None)
    assert thinking("claude-sonnet-5-5", enabled=False) == ({"type": "between_tools"}, None)
    assert thinking("claude-fable-5", enabled=False) == (None, None)
    assert thinking("claude-3-5-haiku-20241022-v1:0", enabled=True) == (None, None)
    assert thinking("claude-3-5-haiku-20241022-v1:0", enabled=False) == (None, None)
    assert thinking("claude-sonnet-5", summary="none", enabled=True) == (
        {"type": "adaptive", "display": "omitted"},
        None,
    )


def test_what_becomes_of_thinking_that_cannot_be_had_is_said() -> None:
    assert reasoning("claude-fable-5", enabled=False)[1] == ["reasoning.enabled"]
    assert reasoning("claude-sonnet-5", budget_tokens=5000)[1] == ["reasoning.budget_tokens"]
    assert reasoning("claude-opus-4-6-v1", effort="xhigh")[1] == ["reasoning.effort"]
    assert reasoning("claude-3-5-haiku-20241022-v1:0", enabled=True)[1] == ["reasoning.enabled"]
    assert reasoning("claude-3-5-haiku-20241022-v1:0", enabled=False)[1] == []
    small = request(reasoning=chat_pb2.ReasoningOptions(enabled=True), max_tokens=2000)
    assert encode(small)[1] == ["reasoning.enabled"]
    forced = request(
        reasoning=chat_pb2.ReasoningOptions(enabled=True), tools=[TOOL], tool_choice=REQUIRED
    )
    assert encode(forced)[1] == ["reasoning"]


@pytest.mark.parametrize(
    ("model", "options", "fields"),
    [
        (
            "us.amazon.nova-2-lite-v1:0",
            {"effort": "low"},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
        ),
        (
            "us.amazon.nova-2-lite-v1:0",
            {"enabled": False},
            {"reasoningConfig": {"type": "disabled"}},
        ),
        (
            "us.amazon.nova-2-lite-v1:0",
            {"native_json": '{"type": "enabled", "maxReasoningEffort": "high"}'},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}},
        ),
        (
            "us.amazon.nova-2-lite-v1:0",
            {"native_json": '{"type": "disabled", "budget_tokens": 5}'},
            {"reasoningConfig": {"type": "disabled"}},
        ),
        ("openai.gpt-oss-20b-1:0", {"effort": "low"}, {"reasoning_effort": "low"}),
        ("deepseek.v3-v1:0", {"native_json": '{"type":"x"}'}, {"thinking": {"type": "x"}}),
    ],
)
def test_thinking_of_other_makers(model: str, options: Json, fields: Json) -> None:
    body, warned = encode(request(reasoning=chat_pb2.ReasoningOptions(**options)), target(model))
    assert body["additionalModelRequestFields"] == fields
    assert warned == []


def test_temperature_beside_thinking_goes_by_the_policy() -> None:
    asked = request(
        reasoning=chat_pb2.ReasoningOptions(enabled=True), temperature=0.5, top_k=5, top_p=0.95
    )
    body, warned = encode(asked)
    assert warned == ["temperature", "top_k"]
    assert body["inferenceConfig"] == {"topP": 0.95}
    assert body["additionalModelRequestFields"].keys() == {"thinking"}
    with pytest.raises(InvalidRequest, match="temperature"):
        encode(asked, target(policy="strict"))
    assert encode(asked, target(policy="pass"))[1] == []
    assert encode(request(reasoning=asked.reasoning, temperature=1.0))[1] == []


def test_calls_that_must_come_one_at_a_time() -> None:
    def native(**fields: Any) -> tuple[object, object]:
        body, _ = encode(request(tools=[TOOL], parallel_tool_calls=False, **fields))
        choice = body["additionalModelRequestFields"]["tool_choice"]
        return choice, body["toolConfig"].get("toolChoice")

    flag = {"disable_parallel_tool_use": True}
    assert native() == ({"type": "auto", **flag}, None)
    assert native(tool_choice=REQUIRED) == ({"type": "any", **flag}, None)
    named = chat_pb2.ToolChoice(function_name="f")
    assert native(tool_choice=named) == ({"type": "tool", "name": "f", **flag}, None)
    # Without tools there is nothing to say, and allowing it is the default.
    assert encode(request(parallel_tool_calls=False)) == encode(request())
    assert encode(request(tools=[TOOL], parallel_tool_calls=True)) == encode(request(tools=[TOOL]))


def test_a_search_stays_when_functions_must_not_be_called() -> None:
    asked = request(
        tools=[TOOL],
        tool_choice=chat_pb2.ToolChoice(mode=chat_pb2.ToolChoice.MODE_NONE),
        web_search_options=chat_pb2.WebSearchOptions(),
    )
    body, _ = encode(asked, target("us.amazon.nova-2-lite-v1:0"))
    assert body["toolConfig"]["tools"] == [{"systemTool": {"name": "nova_grounding"}}]


def test_a_choice_of_another_api_goes_by_the_policy() -> None:
    choice = chat_pb2.ToolChoice(provider_choice_json='{"type": "allowed_tools"}')
    body, warned = encode(request(tools=[TOOL], tool_choice=choice))
    assert warned == ["tool_choice"]
    assert "toolChoice" not in body["toolConfig"]
    with pytest.raises(InvalidRequest, match="tool_choice"):
        encode(request(tools=[TOOL], tool_choice=choice), target(policy="strict"))


def test_only_results_in_the_conversation_need_a_tool_too() -> None:
    result = content_pb2.Part(tool_result=content_pb2.ToolResult(tool_call_id="c"))
    body, warned = encode(request(result, role=content_pb2.ROLE_TOOL))
    assert body["messages"][0]["content"] == [{"toolResult": {"toolUseId": "c", "content": []}}]
    assert body["toolConfig"]["tools"][0]["toolSpec"]["name"] == "tool"
    assert warned == ["tools"]


@pytest.mark.parametrize(
    ("part", "role", "field"),
    [
        (
            content_pb2.Part(image=content_pb2.Media(url="https://x.test/a.png")),
            USER,
            "messages[0].parts[0].image.url",
        ),
        (
            content_pb2.Part(image=content_pb2.Media(file_id="f-1", media_type="image/png")),
            USER,
            "messages[0].parts[0].image.file_id",
        ),
        (
            content_pb2.Part(image=content_pb2.Media(file_id="f-1")),
            USER,
            "messages[0].parts[0].image.file_id",
        ),
        (
            content_pb2.Part(audio=content_pb2.Media(id="audio_1")),
            ASSISTANT,
            "messages[0].parts[0].audio.data",
        ),
        (
            content_pb2.Part(file=content_pb2.Media(data=b"x", media_type="application/zip")),
            USER,
            "messages[0].parts[0].file.media_type",
        ),
        (
            content_pb2.Part(image=content_pb2.Media(url="data:image/png;base64,%%%")),
            USER,
            "messages[0].parts[0].image.url",
        ),
        (
            content_pb2.Part(image=content_pb2.Media(url="data:image/png;base64")),
            USER,
            "messages[0].parts[0].image.url",
        ),
        (
            content_pb2.Part(image=content_pb2.Media(data=b"x", media_type="image/png")),
            content_pb2.ROLE_SYSTEM,
            "messages[0].parts[0]",
        ),
        (
            content_pb2.Part(tool_call=content_pb2.ToolCall(id="c", name="f", custom=True)),
            ASSISTANT,
            "messages[0].parts[0].tool_call.custom",
        ),
        (
            content_pb2.Part(tool_result=content_pb2.ToolResult(name="f")),
            content_pb2.ROLE_FUNCTION,
            "messages[0].parts[0]",
        ),
        (
            content_pb2.Part(
                tool_result=content_pb2.ToolResult(
                    tool_call_id="c",
                    parts=[content_pb2.Part(image=content_pb2.Media(url="gs://a/b.png"))],
                )
            ),
            content_pb2.ROLE_TOOL,
            "messages[0].parts[0].tool_result.parts[0].image.url",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_its_path(
    part: content_pb2.Part, role: int, field: str
) -> None:
    for policy in ("drop", "pass", "strict"):
        with pytest.raises(InvalidRequest) as caught:
            encode(request(part, role=role), target(policy=policy))
        assert [violation.field for violation in caught.value.violations] == [field]


def test_names_of_documents_are_clean_and_their_own() -> None:
    names = ["a.b_c.pdf", "a.b*c.pdf", "../../etc/a.b c.pdf", "", "ÄÖ.pdf", "x" * 300 + ".pdf"]
    parts = [
        content_pb2.Part(
            file=content_pb2.Media(data=b"x", media_type="application/pdf", filename=name)
        )
        for name in names
    ]
    body, _ = encode(request(*parts))
    found = [block["document"]["name"] for block in body["messages"][0]["content"]]
    assert found[:5] == ["a b c", "a b c-2", "a b c-3", "document", "document-2"]
    assert len(found[5]) <= 200
    # The same request gives the same names, so that a cached prompt stays one.
    assert encode(request(*parts))[0] == body


def test_proofs_go_back_where_they_hold() -> None:
    def blocks(model: str, **thought: str) -> tuple[object, list[str]]:
        part = content_pb2.Part(reasoning=content_pb2.Reasoning(**thought))
        text = content_pb2.Part(text="Hi")
        body, warned = encode(request(part, text, role=ASSISTANT), target(model))
        return body["messages"][0]["content"][:-1], warned

    nova, signed = "us.amazon.nova-2-lite-v1:0", {"text": "Hm", "signature": "S"}
    sent = [{"reasoningContent": {"reasoningText": signed}}]
    left_out = ([], ["messages.reasoning"])
    assert blocks(CLAUDE, **signed) == (sent, [])
    assert blocks(CLAUDE, **signed, dialect="anthropic") == (sent, [])
    assert blocks(CLAUDE, **signed, dialect="bedrock") == left_out
    assert blocks(CLAUDE, **signed, dialect="gemini") == left_out
    assert blocks(nova, **signed, dialect="bedrock") == (sent, [])
    assert blocks(nova, **signed, dialect="anthropic") == left_out
    assert blocks(nova, text="Hm") == left_out
    redacted = [{"reasoningContent": {"redactedContent": "eA=="}}]
    assert blocks(CLAUDE, encrypted="eA==", dialect="anthropic") == (redacted, [])
    # Bytes that are none would spoil the whole call.
    assert blocks(CLAUDE, encrypted="not base64", dialect="anthropic") == left_out


def test_an_empty_turn_says_nothing() -> None:
    asked = chat_pb2.ChatRequest(model="m")
    for role, text in ((USER, "a"), (ASSISTANT, ""), (USER, "b"), (USER, "")):
        message = asked.messages.add(role=role)  # type: ignore[arg-type]
        message.parts.add(text=text)
    body, _ = encode(asked)
    assert body["messages"] == [{"role": "user", "content": [{"text": "a"}, {"text": "b"}]}]


def test_extras_of_parts_and_tools() -> None:
    asked = request(
        content_pb2.Part(text="Hi", extra_json='{"own": 1}'),
        tools=[chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"), extra_json='{"x": 1}')],
        extra_dialect="bedrock",
    )
    body, warned = encode(asked)
    assert body["messages"][0]["content"] == [{"text": "Hi", "own": 1}]
    assert body["toolConfig"]["tools"][0]["toolSpec"]["x"] == 1
    assert warned == []
    asked.extra_dialect = "anthropic"
    body, warned = encode(asked)
    assert warned == ["messages[0].parts[0].own", "tools[0].x"]
    assert body["messages"][0]["content"] == [{"text": "Hi"}]


def test_tokens_are_counted_for_the_foundation_model() -> None:
    assert isinstance(DIALECT, TokenCounter)
    asked = request(
        tools=[TOOL], max_tokens=5, reasoning=chat_pb2.ReasoningOptions(budget_tokens=2000)
    )
    call = DIALECT.encode_count(asked, target(f"eu.{CLAUDE}"), ENDPOINT)
    assert call is not None
    assert call.url == f"{ENDPOINT.base_url}/model/{CLAUDE.replace(':', '%3A')}/count-tokens"
    counted = json.loads(call.body)["input"]["converse"]
    assert counted.keys() == {"messages", "toolConfig", "additionalModelRequestFields"}


@pytest.mark.parametrize(
    "model",
    [
        "us.anthropic.claude-opus-4-7",
        "anthropic.claude-sonnet-5",
        "us.amazon.nova-2-lite-v1:0",
        "meta.llama3-3-70b-instruct-v1:0",
        "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc",
    ],
)
def test_models_that_the_service_does_not_count(model: str) -> None:
    assert DIALECT.encode_count(request(), target(model), ENDPOINT) is None


@pytest.mark.parametrize(
    ("model", "foundation"),
    [
        (CLAUDE, CLAUDE),
        (f"us.{CLAUDE}", CLAUDE),
        (f"global.{CLAUDE}", CLAUDE),
        (f"arn:aws:bedrock:us-east-1:1:inference-profile/us.{CLAUDE}", CLAUDE),
        (
            f"arn:aws:bedrock:us-east-1::foundation-model/{CLAUDE}",
            f"arn:aws:bedrock:us-east-1::foundation-model/{CLAUDE}",
        ),
        ("usual.model", "usual.model"),
        ("plain", "plain"),
    ],
)
def test_foundation_models(model: str, foundation: str) -> None:
    assert foundation_model(model) == foundation
