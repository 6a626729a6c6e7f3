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
    assert fields == PLAIN_FIELDS | FIELDS.keys()
    assert not PLAIN_FIELDS & FIELDS.keys()


# Every field of every message that a request can hold, but for those that say something about
# answers or that this wire format has no word for.
WITHOUT_A_WORD = {
    "ToolResult.is_error": "the parts alone say so",
    "Media.id": "only of the assistant's audio, tested below",
    "Media.transcript": "answers only",
    "Media.expire_time": "answers only",
    "Media.detail": "images only, tested below",
    "Reasoning.signature": "proofs of other dialects",
    "Reasoning.encrypted": "proofs of other dialects",
    "Reasoning.id": "ids of other dialects",
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
