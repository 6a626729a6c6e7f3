"""Requests of the OpenAI dialect: nothing of the proto is forgotten, nothing is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers.base import Endpoint, Target, UnsupportedPolicy
from headgate_server.providers.openai import OpenAIDialect
from headgate_server.providers.openai.encode import FIELDS, PLAIN_FIELDS, encode_request
from headgate_server.providers.vendors import Vendor, family_of, vendors

Json = dict[str, Any]
ENDPOINT = Endpoint("https://api.example/v1", {"authorization": "Bearer k"})
# Knows everything that the dialect can say.
ACME = Vendor(name="Acme", cache_control=True)


def target(
    vendor: Vendor | str = ACME, model: str = "m", policy: UnsupportedPolicy = "drop"
) -> Target:
    facts = vendors()[vendor] if isinstance(vendor, str) else vendor
    kind = vendor if isinstance(vendor, str) else "openai"
    return Target(kind, kind, model, facts, family_of(model), policy)


def body(request: chat_pb2.ChatRequest, to: Target | None = None) -> Json:
    call = encode_request(request, to or target(), ENDPOINT, stream=False)
    found = json.loads(call.body)
    assert isinstance(found, dict)
    return found


def request(*parts: content_pb2.Part, **fields: Any) -> chat_pb2.ChatRequest:
    message = content_pb2.Message(
        role=content_pb2.ROLE_USER, parts=parts or [content_pb2.Part(text="Hi")]
    )
    return chat_pb2.ChatRequest(model="public", messages=[message], **fields)


def test_every_field_of_the_request_has_a_home() -> None:
    fields = {field.name for field in chat_pb2.ChatRequest.DESCRIPTOR.fields}
    # A bare text has an API of its own.
    assert fields - {"text_completion"} == PLAIN_FIELDS | FIELDS.keys()
    assert not PLAIN_FIELDS & FIELDS.keys()


# Every field of every message that a request can hold, but for those that say something about
# answers or that this wire format has no word for.
WITHOUT_A_WORD = {
    "ToolResult.is_error": "the parts alone say so",
    "Media.id": "only of the assistant's audio, tested below",
    "Media.transcript": "answers only",
    "Media.expire_time": "answers only",
    "Media.detail": "images only, tested below",
    "Reasoning.signature": "OpenRouter's details only, tested below",
    "Reasoning.encrypted": "OpenRouter's details only, tested below",
    "Reasoning.id": "OpenRouter's details only, tested below",
    "Reasoning.dialect": "OpenRouter's details only, tested below",
    "Part.thought_signature": "the assistant's texts and calls only, tested below",
    "Part.annotations": "answers only",
}
MARK = "mark_of_the_field"
RAW = f'{{"{MARK}":1}}'


def filled(field: FieldDescriptor, owner: Message) -> None:
    """Sets a scalar so that it can be found in the body."""
    if field.type == FieldDescriptor.TYPE_STRING:
        setattr(owner, field.name, RAW if field.name.endswith("_json") else MARK)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        setattr(owner, field.name, MARK.encode())
    elif field.type == FieldDescriptor.TYPE_BOOL:
        setattr(owner, field.name, True)


def sample(kind: str) -> tuple[chat_pb2.ChatRequest, Message]:
    """A request, and the message of this kind inside it."""
    found = request()
    message = found.messages[0]
    part = message.parts[0]
    if kind == "Message":
        return found, message
    if kind == "Part":
        return found, part
    if kind == "Media":
        part.file.data = b"x"
        return found, part.file
    if kind == "CacheControl":
        part.cache_control.SetInParent()
        return found, part.cache_control
    if kind in ("ToolCall", "Reasoning"):
        message.role = content_pb2.ROLE_ASSISTANT
        inner = part.tool_call if kind == "ToolCall" else part.reasoning
        inner.SetInParent()
        return found, inner
    if kind == "ToolResult":
        message.role = content_pb2.ROLE_TOOL
        part.tool_result.tool_call_id = "a"
        return found, part.tool_result
    if kind in ("Tool", "FunctionTool"):
        tool = found.tools.add(function=chat_pb2.FunctionTool(name="f"))
        return found, tool if kind == "Tool" else tool.function
    if kind == "JsonSchemaFormat":
        return found, found.response_format.json_schema
    if kind == "AudioOptions":
        return found, found.audio
    if kind == "WebSearchOptions":
        return found, found.web_search_options
    assert kind == "UserLocation"
    return found, found.web_search_options.user_location


SCALARS = [
    (descriptor.name, field.name)
    for descriptor in (
        *(getattr(content_pb2, name).DESCRIPTOR for name in (
            "Message", "Part", "Media", "CacheControl", "ToolCall", "ToolResult", "Reasoning")),
        *(getattr(chat_pb2, name).DESCRIPTOR for name in (
            "Tool", "FunctionTool", "JsonSchemaFormat", "AudioOptions", "WebSearchOptions",
            "UserLocation")),
    )
    for field in descriptor.fields
    if field.type
    in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_BOOL)
    and f"{descriptor.name}.{field.name}" not in WITHOUT_A_WORD
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), SCALARS)
def test_every_scalar_inside_reaches_the_body(kind: str, name: str) -> None:
    found, owner = sample(kind)
    before = body(found)
    if (kind, name) == ("Part", "refusal"):
        found.messages[0].role = content_pb2.ROLE_ASSISTANT
    if kind == "Media" and name == "media_type":
        owner.media_type = MARK  # type: ignore[attr-defined]
    else:
        filled(owner.DESCRIPTOR.fields_by_name[name], owner)
    after = encode_request(found, target(), ENDPOINT, stream=False).body.decode()
    assert json.loads(after) != before
    if owner.DESCRIPTOR.fields_by_name[name].type == FieldDescriptor.TYPE_STRING:
        assert MARK in after


def test_the_assistants_audio_and_an_images_detail() -> None:
    audio = content_pb2.Message(
        role=content_pb2.ROLE_ASSISTANT,
        parts=[content_pb2.Part(audio=content_pb2.Media(id="audio_1"))],
    )
    image = content_pb2.Media(url="https://a.example/b.png", detail="low")
    found = request(content_pb2.Part(image=image))
    found.messages.append(audio)
    user, assistant = body(found)["messages"]
    assert assistant["audio"] == {"id": "audio_1"}
    assert user["content"][0]["image_url"] == {"url": "https://a.example/b.png", "detail": "low"}


def test_json_that_we_do_not_interpret_stays_as_it_is() -> None:
    text = '{"z":1,"a":12345678901234567890123,"f":1.50,"u":"\\u00e9é","z2":[ 1 ]}'
    tool = chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f", parameters_json=text))
    found = request(tools=[tool])
    found.response_format.json_schema.name = "s"
    found.response_format.json_schema.schema_json = text
    found.messages[0].extra_json = f'{{"more":{text}}}'
    found.extra_body_json = f'{{"extra":{text}}}'
    raw = encode_request(found, target(), ENDPOINT, stream=False).body.decode()
    assert raw.count(text) == 4


def test_the_gateway_decides_about_model_and_stream() -> None:
    smuggled = '{"model":"other","stream":true,"stream_options":{"include_usage":false},"x":1}'
    found = request(extra_body_json=smuggled, provider_options_json={"openai": smuggled})
    assert body(found) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "x": 1}
    call = encode_request(found, target(), ENDPOINT, stream=True)
    assert json.loads(call.body)["stream_options"] == {"include_usage": True}


def test_options_of_the_name_win_over_those_of_the_kind() -> None:
    found = request(
        temperature=0.1,
        provider_options_json={"openai": '{"temperature":0.2,"a":1}', "mine": '{"a":2}', "x": "{}"},
    )
    mine = Target("mine", "openai", "m", ACME, family_of("m"))
    assert body(found, mine) | {"messages": 0} == {
        "model": "m", "messages": 0, "temperature": 0.2, "a": 2,
    }  # fmt: skip


def test_a_member_of_the_schema_wins_over_the_extra_body() -> None:
    found = request(temperature=0.1, extra_body_json='{"temperature":2,"messages":[]}')
    assert body(found)["temperature"] == 0.1
    assert body(found)["messages"]


def test_unset_is_not_zero() -> None:
    assert body(request()).keys() == {"model", "messages"}
    zeros = request(temperature=0, n=0, seed=0, logprobs=False, store=False, user="")
    assert body(zeros) | {"messages": 0} == {
        "model": "m", "messages": 0, "temperature": 0, "n": 0, "seed": 0, "logprobs": False,
        "store": False, "user": "",
    }  # fmt: skip


@pytest.mark.parametrize("policy", ["drop", "pass"])
def test_a_warning_for_each_tuning_that_is_left_out(policy: UnsupportedPolicy) -> None:
    found = request(n=2, logprobs=True, temperature=0.5)
    call = encode_request(found, target("groq", policy=policy), ENDPOINT, stream=False)
    sent = json.loads(call.body)
    if policy == "pass":
        assert not call.warnings
        assert sent["n"] == 2
    else:
        assert {warning.field for warning in call.warnings} == {"n", "logprobs"}
        assert "n" not in sent
    assert sent["temperature"] == 0.5


def test_one_choice_needs_no_warning() -> None:
    call = encode_request(request(n=1), target("groq", policy="strict"), ENDPOINT, stream=False)
    assert not call.warnings


def test_strict_names_the_field() -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(request(logprobs=True), target("groq", policy="strict"))
    assert [violation.field for violation in caught.value.violations] == ["logprobs"]


def test_a_directive_without_a_user_message() -> None:
    found = request(reasoning=chat_pb2.ReasoningOptions(enabled=True))
    found.messages[0].role = content_pb2.ROLE_SYSTEM
    call = encode_request(found, target("deepseek", "deepseek-v4-pro"), ENDPOINT, stream=False)
    assert [warning.field for warning in call.warnings] == ["reasoning.enabled"]


def test_the_directive_does_not_touch_the_request() -> None:
    found = request(reasoning=chat_pb2.ReasoningOptions(enabled=True))
    sent = body(found, target("deepseek", "deepseek-v4-pro"))
    assert sent["messages"][0]["content"] == "Hi /think"
    assert found.messages[0].parts[0].text == "Hi"


@pytest.mark.parametrize(
    ("model", "effort", "enabled", "sent"),
    [
        ("gpt-5.4", None, False, "none"),
        ("gpt-5.4", None, True, "medium"),
        ("gpt-5.4", "high", True, "high"),
        ("gpt-5.4", "low", False, "low"),
        ("o3", "low", None, "low"),
        ("o3", None, True, None),
    ],
)
def test_the_boolean_where_there_is_an_effort(
    model: str, effort: str | None, enabled: bool | None, sent: str | None
) -> None:
    options = chat_pb2.ReasoningOptions(effort=effort, enabled=enabled)
    assert body(request(reasoning=options), target("openai", model)).get("reasoning_effort") == sent


@pytest.mark.parametrize(
    "part",
    [
        content_pb2.Part(),
        content_pb2.Part(audio=content_pb2.Media(url="https://a.example/b.wav")),
        content_pb2.Part(image=content_pb2.Media(file_id="file-1")),
        content_pb2.Part(tool_call=content_pb2.ToolCall(name="f")),
    ],
)
def test_content_without_a_word_is_refused_with_its_path(part: content_pb2.Part) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(request(content_pb2.Part(text="Hi"), part))
    assert caught.value.violations[0].field == "messages[0].parts[1]"


def test_an_image_in_the_assistants_mouth_is_refused() -> None:
    found = request(content_pb2.Part(image=content_pb2.Media(url="https://a.example/b.png")))
    found.messages[0].role = content_pb2.ROLE_ASSISTANT
    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.parts\[0\]"):
        body(found)


def test_calls_without_ids_are_answered_in_order() -> None:
    def asks() -> content_pb2.Message:
        part = content_pb2.Part(tool_call=content_pb2.ToolCall(name="f", arguments_json="{}"))
        return content_pb2.Message(role=content_pb2.ROLE_ASSISTANT, parts=[part])

    def tells(text: str) -> content_pb2.Message:
        result = content_pb2.ToolResult(name="f", parts=[content_pb2.Part(text=text)])
        part = content_pb2.Part(tool_result=result)
        return content_pb2.Message(role=content_pb2.ROLE_FUNCTION, parts=[part])

    found = request()
    found.messages.extend([asks(), tells("1"), asks(), tells("2")])
    _, first, one, second, two = body(found)["messages"]
    assert first["tool_calls"][0]["id"] == one["tool_call_id"] == "call_1_0"
    assert second["tool_calls"][0]["id"] == two["tool_call_id"] == "call_3_0"
    assert (one["role"], one["content"], two["content"]) == ("tool", "1", "2")


def test_the_order_of_maps_does_not_change_from_run_to_run() -> None:
    labels = {f"k{n}": "v" for n in range(16)}
    bias = {str(n): 1.0 for n in range(64)}
    found = body(request(metadata=labels, logit_bias=bias))
    assert list(found["metadata"]) == sorted(labels)
    assert list(found["logit_bias"]) == sorted(bias)


@pytest.mark.parametrize(
    ("base", "version", "url"),
    [
        ("https://r.example", None, "https://r.example/openai/v1/chat/completions"),
        ("https://r.example/openai", None, "https://r.example/openai/v1/chat/completions"),
        ("https://r.example/openai/v1", None, "https://r.example/openai/v1/chat/completions"),
        ("https://r.example", "preview",
         "https://r.example/openai/v1/chat/completions?api-version=preview"),
        ("https://r.example/openai/v1", "preview",
         "https://r.example/openai/v1/chat/completions?api-version=preview"),
        ("https://r.example", "2024-10-21",
         "https://r.example/openai/deployments/m%2F1/chat/completions?api-version=2024-10-21"),
        ("https://r.example/openai", "2024-10-21",
         "https://r.example/openai/deployments/m%2F1/chat/completions?api-version=2024-10-21"),
    ],
)  # fmt: skip
def test_azure_addresses(base: str, version: str | None, url: str) -> None:
    facts = vendors()["azure"]
    azure = Target("az", "azure", "m/1", facts, family_of("m/1"), api_version=version)
    assert encode_request(request(), azure, Endpoint(base, {}), stream=False).url == url


def test_a_vendors_query_parameters() -> None:
    vendor = Vendor(name="Acme", query={"a": "1 2"})
    call = encode_request(request(), target(vendor), ENDPOINT, stream=False)
    assert call.url == "https://api.example/v1/chat/completions?a=1+2"
    assert call.headers == {"authorization": "Bearer k"}
    assert "Bearer" not in repr(call)


# What belongs to some dialects, or to some vendors of this one.


def spoken(*parts: content_pb2.Part, **fields: Any) -> chat_pb2.ChatRequest:
    """A request with these parts in the assistant's mouth."""
    found = request(**fields)
    found.messages.add(role=content_pb2.ROLE_ASSISTANT).parts.extend(parts)
    return found


def thought(text: str = "", **fields: str) -> content_pb2.Part:
    return content_pb2.Part(reasoning=content_pb2.Reasoning(text=text, **fields))


def call_of(name: str = "f", **fields: Any) -> content_pb2.Part:
    return content_pb2.Part(tool_call=content_pb2.ToolCall(id="c", name=name), **fields)


@pytest.mark.parametrize("dialect", [None, "openai"])
def test_extras_of_our_own_dialect(dialect: str | None) -> None:
    found = request(
        content_pb2.Part(text="Hi", extra_json='{"a":1}'),
        extra_dialect=dialect,
        extra_body_json='{"b":2}',
        tools=[chat_pb2.Tool(provider_tool_json='{"type":"web_search"}')],
        tool_choice=chat_pb2.ToolChoice(provider_choice_json='{"type":"web_search"}'),
    )
    sent = body(found)
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "Hi", "a": 1}]
    assert (sent["b"], sent["tools"]) == (2, [{"type": "web_search"}])
    assert sent["tool_choice"] == {"type": "web_search"}


def test_extras_of_another_dialect_are_told_by_their_paths() -> None:
    result = content_pb2.Message(role=content_pb2.ROLE_TOOL, extra_json='{"d":1}')
    result.parts.add(extra_json='{"e":1}').tool_result.tool_call_id = "c"
    result.parts[0].tool_result.parts.add(text="x", extra_json='{"f":1}')
    found = spoken(call_of(extra_json='{"a":1}'), extra_dialect="anthropic")
    found.messages[0].parts[0].extra_json = '{"g":1}'
    found.messages[1].extra_json = '{"b":1}'
    found.messages.append(result)
    found.tools.add(function=chat_pb2.FunctionTool(name="f"), extra_json='{"h":1}')
    found.extra_body_json = '{"i":1}'
    call = encode_request(found, target(), ENDPOINT, stream=False)
    assert sorted(warning.field for warning in call.warnings) == sorted(
        [
            "messages[0].parts[0].g",
            "messages[1].b",
            "messages[1].parts[0].a",
            "messages[2].d",
            "messages[2].parts[0].e",
            "messages[2].parts[0].tool_result.parts[0].f",
            "tools[0].h",
            "i",
        ]
    )
    assert all("anthropic" in warning.message for warning in call.warnings)
    assert not any(f'"{name}":1' in call.body.decode() for name in "abcdefghi")
    with pytest.raises(InvalidRequest):
        body(found, target(policy="strict"))


def test_a_foreign_tool_is_refused_and_a_foreign_choice_left_out() -> None:
    found = request(extra_dialect="anthropic", tools=[chat_pb2.Tool(provider_tool_json="{}")])
    with pytest.raises(InvalidRequest) as caught:
        body(found)
    assert [violation.field for violation in caught.value.violations] == ["tools[0]"]
    found = request(extra_dialect="gemini")
    found.tool_choice.provider_choice_json = "{}"
    call = encode_request(found, target(), ENDPOINT, stream=False)
    assert [warning.field for warning in call.warnings] == ["tool_choice.provider_choice_json"]
    with pytest.raises(InvalidRequest):
        body(found, target(policy="strict"))


@pytest.mark.parametrize("role", [content_pb2.ROLE_USER, content_pb2.ROLE_ASSISTANT])
def test_vendors_parts(role: content_pb2.Role.ValueType) -> None:
    text = '{"type":"video_url","video_url":{"url":"https://a.example/v.mp4","fps":2.50}}'
    found = request(
        content_pb2.Part(text="Look"),
        content_pb2.Part(vendor_part=content_pb2.VendorPart(dialect="openai", json=text)),
    )
    found.messages[0].role = role
    assert text in encode_request(found, target(), ENDPOINT, stream=False).body.decode()
    found.messages[0].parts[1].vendor_part.dialect = "anthropic"
    with pytest.raises(InvalidRequest, match="anthropic") as caught:
        body(found)
    assert caught.value.violations[0].field == "messages[0].parts[1]"


def test_geminis_proofs_go_where_they_are_known() -> None:
    found = spoken(
        content_pb2.Part(text="So", thought_signature="QQ=="), call_of(thought_signature="Qg==")
    )
    said = body(found, target(Vendor(name="Google", thought_signatures=True)))["messages"][1]
    assert said["extra_content"] == {"google": {"thought_signature": "QQ=="}}
    signed = said["tool_calls"][0]["extra_content"]
    assert signed == {"google": {"thought_signature": "Qg=="}}
    assert "extra_content" not in json.dumps(body(found, target("openai", "gpt-4.1")))


def test_openrouters_details() -> None:
    found = spoken(thought("a", signature="s", id="i", dialect="anthropic"), thought("b"))
    said = body(found, target("openrouter"))["messages"][1]
    assert said["reasoning"] == "ab"
    assert said["reasoning_details"] == [
        {
            "type": "reasoning.text", "text": "a", "signature": "s", "id": "i",
            "format": "anthropic-claude-v1", "index": 0,
        }
    ]  # fmt: skip
    assert "reasoning_details" not in body(found)["messages"][1]


@pytest.mark.parametrize("dialect", ["bedrock", "cohere"])
def test_proofs_that_openrouter_cannot_pass_on(dialect: str) -> None:
    found = spoken(thought("a", signature="s", dialect=dialect))
    said = body(found, target("openrouter"))["messages"][1]
    assert (said["reasoning"], said.get("reasoning_details")) == ("a", None)


def test_the_assistants_images_where_they_may_stand() -> None:
    image = content_pb2.Part(image=content_pb2.Media(data=b"x", media_type="image/png"))
    said = body(spoken(image), target("openrouter"))["messages"][1]
    assert said["images"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}
    ]
    assert said["content"] is None


@pytest.mark.parametrize("content", [None, "4", ["a", "b"]])
def test_thinking_between_tags(content: Any) -> None:
    texts = [
        content_pb2.Part(text=t) for t in ([content] if isinstance(content, str) else content or [])
    ]
    said = body(spoken(thought("x"), *texts), target("minimax", "minimax-m3"))["messages"][1]
    opened = "<think>\nx\n</think>\n\n"
    if isinstance(content, list):
        assert [part["text"] for part in said["content"]] == [opened, "a", "b"]
    else:
        assert said["content"] == opened + (content or "")


# Bare texts.


def bare(**fields: Any) -> chat_pb2.ChatRequest:
    found = chat_pb2.ChatRequest(model="public", **fields)
    found.text_completion.prompt_json = '["a", "b"]'
    return found


def completed(
    found: chat_pb2.ChatRequest, to: Target | None = None, *, stream: bool = False
) -> Any:
    call = OpenAIDialect(1 << 20).encode(found, to or target("vllm"), ENDPOINT, stream=stream)
    return json.loads(call.body), call


def test_a_bare_text() -> None:
    sent, call = completed(bare(max_completion_tokens=7, stop=["x"], top_k=3))
    assert call.url == "https://api.example/v1/completions"
    assert sent == {"model": "m", "prompt": ["a", "b"], "max_tokens": 7, "stop": ["x"], "top_k": 3}
    sent, _ = completed(bare(), stream=True)
    assert sent.pop("stream_options") == {"include_usage": True}
    assert sent == {"model": "m", "prompt": ["a", "b"], "stream": True}


@pytest.mark.parametrize("kind", sorted(vendors()))
def test_who_takes_bare_texts(kind: str) -> None:
    facts = vendors()[kind]
    if facts.dialect != "openai":
        return
    if facts.completions:
        _, call = completed(bare(), target(kind))
        assert call.url.split("?")[0].endswith("/completions")
        return
    with pytest.raises(InvalidRequest, match="send messages") as caught:
        completed(bare(), target(kind))
    assert [violation.field for violation in caught.value.violations] == ["text_completion"]


def test_the_gateway_decides_about_model_and_stream_of_bare_texts() -> None:
    smuggled = '{"model":"other","stream":true,"stream_options":{},"prompt":"other","x":1}'
    sent, _ = completed(bare(extra_body_json=smuggled))
    assert sent == {"model": "m", "prompt": ["a", "b"], "x": 1}
    sent, _ = completed(bare(provider_options_json={"vllm": '{"model":"other","min_p":0.1}'}))
    assert sent == {"model": "m", "prompt": ["a", "b"], "min_p": 0.1}


def test_extras_of_another_dialect_and_bare_texts() -> None:
    _, call = completed(bare(extra_body_json='{"x":1}', extra_dialect="gemini"))
    assert [warning.field for warning in call.warnings] == ["x"]
