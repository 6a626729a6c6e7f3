"""Requests that are wrong for every provider."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.validate import validate

Request = chat_pb2.ChatRequest
Part = content_pb2.Part
BAD = "[1]"


def valid(**fields: Any) -> Request:
    """A request with every field set, rightly."""
    request = Request(
        model="m",
        parallel_tool_calls=True, temperature=2, top_p=1, top_k=1, n=128, stop=["x"], seed=-1,
        max_completion_tokens=1, max_tokens=1, frequency_penalty=-2, presence_penalty=2,
        logit_bias={"5": -100, "6": 100}, logprobs=True, top_logprobs=20, modalities=["text"],
        service_tier="auto", metadata={"k" * 64: "v" * 512}, store=False, user="u",
        safety_identifier="s", prompt_cache_key="p", verbosity="low",
        provider_options_json={"x": "{}"}, extra_body_json='{"a":1}', extra_dialect="openai",
    )  # fmt: skip
    media = content_pb2.Media(url="https://a.example/b.png")
    data = content_pb2.Media(data=b"x", media_type="audio/wav")
    call = content_pb2.ToolCall(name="f", arguments_json="not JSON")
    result = content_pb2.ToolResult(
        tool_call_id="a", name="f", parts=[Part(text="", extra_json="{}"), Part(image=media)]
    )
    for role, parts in (
        (content_pb2.ROLE_SYSTEM, [Part(text="")]),
        (content_pb2.ROLE_DEVELOPER, [Part(text="x", extra_json="{}")]),
        (content_pb2.ROLE_USER, [Part(image=media), Part(audio=data), Part(file=data)]),
        (content_pb2.ROLE_ASSISTANT, [
            Part(reasoning=content_pb2.Reasoning(text="r")), Part(text="x"), Part(refusal="n"),
            Part(tool_call=call), Part(audio=content_pb2.Media(id="a")), Part(image=media)]),
        (content_pb2.ROLE_ASSISTANT, []),
        (content_pb2.ROLE_TOOL, [Part(tool_result=result)]),
        (content_pb2.ROLE_FUNCTION, [Part(tool_result=content_pb2.ToolResult(name="f"))]),
    ):  # fmt: skip
        request.messages.add(role=role, parts=parts, extra_json="{}", name="n")
    request.tools.add(function=chat_pb2.FunctionTool(name="f", parameters_json='{"type":"object"}'))
    request.tools.add(provider_tool_json='{"type":"custom"}', extra_json="{}")
    request.tool_choice.function_name = "f"
    request.response_format.json_schema.name = "s"
    request.response_format.json_schema.schema_json = "{}"
    request.reasoning.MergeFrom(chat_pb2.ReasoningOptions(budget_tokens=0, native_json="{}"))
    request.audio.voice = '{"id":"v"}'
    request.prediction.parts.add(text="x", extra_json="{}")
    request.web_search_options.user_location.city = "Oslo"
    request.MergeFrom(Request(**fields))
    return request


def fields_of(request: Request) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        validate(request)
    return [violation.field for violation in caught.value.violations]


def test_valid_requests() -> None:
    validate(valid())
    validate(
        Request(model="m", messages=[{"role": content_pb2.ROLE_USER, "parts": [{"text": ""}]}])
    )


def test_the_valid_request_sets_every_field() -> None:
    named = {descriptor.name for descriptor, _ in valid().ListFields()}
    assert named == {field.name for field in Request.DESCRIPTOR.fields} - {"text_completion"}


BARE = chat_pb2.TextCompletion(prompt_json='"a"')


def test_a_bare_text_stands_in_place_of_messages() -> None:
    validate(Request(model="m", text_completion=BARE))
    both = valid()
    both.text_completion.CopyFrom(BARE)
    assert fields_of(both) == ["text_completion"]


@pytest.mark.parametrize("prompt", ["", "{}", "[", "1", '""', "[]", "null"])
def test_a_bare_text_must_be_one(prompt: str) -> None:
    request = Request(model="m", text_completion=chat_pb2.TextCompletion(prompt_json=prompt))
    assert fields_of(request) == ["text_completion.prompt_json"]


def test_a_block_of_a_vendor_says_whose_it_is() -> None:
    request = valid()
    request.messages[2].parts.add(vendor_part=content_pb2.VendorPart(dialect="gemini", json="{}"))
    validate(request)
    part = request.messages[2].parts[-1].vendor_part
    part.dialect, part.json = "", "[]"
    path = f"messages[2].parts[{len(request.messages[2].parts) - 1}].vendor_part"
    assert fields_of(request) == [f"{path}.dialect", f"{path}.json"]


def test_an_empty_request() -> None:
    assert fields_of(Request()) == ["model", "messages"]


def change(field: str, value: Any) -> Callable[[Request], None]:
    return lambda request: setattr(request, field, value)


def message(index: int) -> Callable[[Request], content_pb2.Message]:
    return lambda request: request.messages[index]


USER, ASSISTANT, TOOL, FUNCTION = 2, 3, 5, 6
RANGES = {
    "temperature": [-0.1, 2.1, math.nan, math.inf, -math.inf],
    "top_p": [-0.1, 1.1, math.nan],
    "frequency_penalty": [-2.1, 2.1, math.nan],
    "presence_penalty": [-2.1, 2.1, math.inf],
    "n": [0, -1, 129],
    "top_k": [0, -1],
    "max_completion_tokens": [0, -5],
    "top_logprobs": [-1, 21],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, vs in RANGES.items() for v in vs])
def test_ranges(field: str, value: float) -> None:
    request = valid()
    request.ClearField("max_tokens")
    setattr(request, field, value)
    assert fields_of(request) == [field]


CHANGES: list[tuple[str, Callable[[Request], Any]]] = [
    ("model", change("model", "")),
    ("messages", lambda r: r.ClearField("messages")),
    ("messages[2].role", lambda r: r.messages[USER].ClearField("role")),
    ("messages[2].role", lambda r: setattr(r.messages[USER], "role", 99)),
    ("messages[2].parts", lambda r: r.messages[USER].ClearField("parts")),
    ("messages[5].parts", lambda r: r.messages[TOOL].ClearField("parts")),
    ("messages[2].extra_json", lambda r: setattr(r.messages[USER], "extra_json", BAD)),
    ("messages[2].extra_json", lambda r: setattr(r.messages[USER], "extra_json", "")),
    ("messages[2].parts[3]", lambda r: r.messages[USER].parts.add()),
    ("messages[2].parts[3]", lambda r: r.messages[USER].parts.add(refusal="no")),
    ("messages[2].parts[3]", lambda r: r.messages[USER].parts.add(reasoning={"text": "x"})),
    ("messages[2].parts[3]", lambda r: r.messages[USER].parts.add(tool_call={"name": "f"})),
    ("messages[2].parts[3]", lambda r: r.messages[USER].parts.add(tool_result={})),
    ("messages[3].parts[6]", lambda r: r.messages[ASSISTANT].parts.add(tool_result={})),
    ("messages[5].parts[1]", lambda r: r.messages[TOOL].parts.add(text="x")),
    ("messages[2].parts[3].extra_json", lambda r: r.messages[USER].parts.add(text="x", extra_json=BAD)),
    ("messages[2].parts[0].extra_json", lambda r: setattr(r.messages[USER].parts[0], "extra_json", BAD)),
    ("messages[2].parts[0].image", lambda r: r.messages[USER].parts[0].image.Clear()),
    ("messages[2].parts[0].image.url", lambda r: setattr(r.messages[USER].parts[0].image, "url", "x")),
    ("messages[2].parts[0].image.url",
     lambda r: setattr(r.messages[USER].parts[0].image, "url", "file:///etc/passwd")),
    ("messages[2].parts[1].audio.media_type",
     lambda r: setattr(r.messages[USER].parts[1].audio, "media_type", "")),
    ("messages[2].parts[1].audio", lambda r: r.messages[USER].parts[1].audio.CopyFrom(
        content_pb2.Media(id="a"))),
    ("messages[3].parts[3].tool_call.name",
     lambda r: setattr(r.messages[ASSISTANT].parts[3].tool_call, "name", "")),
    ("messages[5].parts[0].tool_result.tool_call_id",
     lambda r: setattr(r.messages[TOOL].parts[0].tool_result, "tool_call_id", "")),
    ("messages[6].parts[0].tool_result.name",
     lambda r: setattr(r.messages[FUNCTION].parts[0].tool_result, "name", "")),
    ("messages[5].parts[0].tool_result.parts[2]",
     lambda r: r.messages[TOOL].parts[0].tool_result.parts.add()),
    ("messages[5].parts[0].tool_result.parts[2]",
     lambda r: r.messages[TOOL].parts[0].tool_result.parts.add(refusal="x")),
    ("messages[5].parts[0].tool_result.parts[0].extra_json",
     lambda r: setattr(r.messages[TOOL].parts[0].tool_result.parts[0], "extra_json", BAD)),
    ("messages[5].parts[0].tool_result.parts[1].image.url",
     lambda r: setattr(r.messages[TOOL].parts[0].tool_result.parts[1].image, "url", "x")),
    ("tools[2]", lambda r: r.tools.add()),
    ("tools[2].function.name", lambda r: r.tools.add(function={})),
    ("tools[2].function.name", lambda r: r.tools.add(function={"name": "f" * 129})),
    ("tools[0].function.parameters_json",
     lambda r: setattr(r.tools[0].function, "parameters_json", "{")),
    ("tools[1].provider_tool_json", lambda r: setattr(r.tools[1], "provider_tool_json", "")),
    ("tools[1].extra_json", lambda r: setattr(r.tools[1], "extra_json", BAD)),
    ("tool_choice", lambda r: r.tool_choice.Clear()),
    ("tool_choice", lambda r: setattr(r.tool_choice, "function_name", "g")),
    ("tool_choice.mode", lambda r: setattr(r.tool_choice, "mode", 0)),
    ("tool_choice.mode", lambda r: setattr(r.tool_choice, "mode", 99)),
    ("tool_choice", lambda r: (r.ClearField("tools"), setattr(r.tool_choice, "mode", 3))),
    ("tool_choice.provider_choice_json",
     lambda r: setattr(r.tool_choice, "provider_choice_json", '"auto"')),
    ("response_format", lambda r: r.response_format.Clear()),
    ("response_format.json_schema.name",
     lambda r: setattr(r.response_format.json_schema, "name", "")),
    ("response_format.json_schema.schema_json",
     lambda r: setattr(r.response_format.json_schema, "schema_json", "true")),
    ("max_tokens", change("max_tokens", 2)),
    ("top_logprobs", change("logprobs", False)),
    ("top_logprobs", lambda r: r.ClearField("logprobs")),
    ("logit_bias['x']", lambda r: r.logit_bias.update({"x": 1})),
    ("logit_bias['-5']", lambda r: r.logit_bias.update({"-5": 1})),
    ("logit_bias['٣']", lambda r: r.logit_bias.update({"٣": 1})),
    ("logit_bias['5']", lambda r: r.logit_bias.update({"5": 101})),
    ("logit_bias['5']", lambda r: r.logit_bias.update({"5": math.nan})),
    ("metadata", lambda r: r.metadata.update({str(n): "" for n in range(16)})),
    ("metadata", lambda r: r.metadata.update({"k" * 65: ""})),
    ("metadata['a']", lambda r: r.metadata.update({"a": "v" * 513})),
    ("reasoning.budget_tokens", lambda r: setattr(r.reasoning, "budget_tokens", -1)),
    ("reasoning.native_json", lambda r: setattr(r.reasoning, "native_json", "on")),
    ("prediction.parts[1]", lambda r: r.prediction.parts.add(refusal="x")),
    ("prediction.parts[0].extra_json",
     lambda r: setattr(r.prediction.parts[0], "extra_json", BAD)),
    ("audio.voice", lambda r: setattr(r.audio, "voice", "{")),
    ("provider_options_json['x']", lambda r: r.provider_options_json.update({"x": BAD})),
    ("extra_body_json", change("extra_body_json", "")),
    ("extra_body_json", change("extra_body_json", '{"a":' * 100_000)),
]  # fmt: skip


@pytest.mark.parametrize(("field", "break_it"), CHANGES)
def test_violations(field: str, break_it: Callable[[Request], Any]) -> None:
    request = valid()
    break_it(request)
    assert fields_of(request) == [field]


def test_all_violations_are_told_at_once() -> None:
    found = fields_of(Request(temperature=9, n=0, top_logprobs=5))
    assert found == ["model", "messages", "temperature", "n", "top_logprobs"]


def test_equal_bounds_may_be_sent_in_both_spellings() -> None:
    validate(valid(max_tokens=7, max_completion_tokens=7))


def test_validation_changes_nothing() -> None:
    request = valid()
    before = request.SerializeToString(deterministic=True)
    validate(request)
    assert request.SerializeToString(deterministic=True) == before


@given(st.binary(max_size=200))
def test_any_message_is_valid_or_refused(raw: bytes) -> None:
    request = valid()
    try:
        request.MergeFromString(raw)
    except Exception:  # protobuf's own refusal
        return
    try:
        validate(request)
    except InvalidRequest:
        pass


@pytest.mark.parametrize(
    "url", ["https://a.b/c", "http://a.b/c", "data:,x", "gs://b/c", "s3://b/c"]
)
def test_urls_that_some_provider_can_read(url: str) -> None:
    request = valid()
    request.messages[USER].parts[0].image.url = url
    validate(request)


def test_the_refusal_of_a_url_names_those_that_are_read() -> None:
    request = valid()
    request.messages[USER].parts[0].image.url = "file:///etc/passwd"
    with pytest.raises(InvalidRequest) as caught:
        validate(request)
    for scheme in ("https://", "data:", "gs://", "s3://"):
        assert scheme in caught.value.violations[0].description
