"""Requests to Anthropic: what golden cases cannot see, such as headers and the limits of each family."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.errors import InvalidRequest, UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers import DIALECTS, vendor_of
from headgate_server.providers.anthropic import AnthropicDialect
from headgate_server.providers.base import (
    Dialect,
    Endpoint,
    HttpCall,
    Target,
    TokenCounter,
    UnsupportedPolicy,
)
from headgate_server.providers.claude import thinking_types
from headgate_server.providers.vendors import Family, families, family_of

ENDPOINT = Endpoint("https://a.example", {"x-api-key": "k", "content-type": "application/json"})


def target(model: str = "claude-sonnet-4-5", policy: UnsupportedPolicy = "drop") -> Target:
    return Target("p", "anthropic", model, vendor_of("anthropic", None), family_of(model), policy)


def request(**fields: Any) -> chat_pb2.ChatRequest:
    message = content_pb2.Message(
        role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="Hello")]
    )
    return chat_pb2.ChatRequest(**{"model": "m", "messages": [message]} | fields)


def encode(
    asked: chat_pb2.ChatRequest | None = None,
    *,
    dialect: AnthropicDialect | None = None,
    endpoint: Endpoint = ENDPOINT,
    at: Target | None = None,
    stream: bool = False,
) -> HttpCall:
    dialect = dialect or AnthropicDialect(1 << 20)
    return dialect.encode(asked or request(), at or target(), endpoint, stream=stream)


def options(**members: Any) -> dict[str, str]:
    return {"anthropic": json.dumps(members)}


def test_it_is_what_the_registry_says() -> None:
    dialect: Dialect = DIALECTS["anthropic"](1 << 20)
    assert isinstance(dialect, AnthropicDialect)
    assert isinstance(dialect, TokenCounter)
    assert dialect.name == "anthropic"


# Headers.


def test_the_version_goes_along_and_the_key_stays() -> None:
    assert encode().headers == {
        "anthropic-version": "2023-06-01",
        "x-api-key": "k",
        "content-type": "application/json",
    }


def test_headers_of_the_configuration_win() -> None:
    endpoint = Endpoint("https://a.example", {"anthropic-version": "2026-10-21"})
    assert encode(endpoint=endpoint).headers["anthropic-version"] == "2026-10-21"


def test_equal_headers_are_one_object() -> None:
    dialect = AnthropicDialect(1 << 20)
    with_beta = request(provider_options_json=options(betas=["a-1"]))
    first = [encode(asked, dialect=dialect).headers for asked in (None, with_beta)]
    again = [encode(asked, dialect=dialect).headers for asked in (None, with_beta)]
    assert first[0] is again[0]
    assert first[1] is again[1]
    assert "anthropic-beta" not in first[0]


def test_headers_follow_their_endpoint() -> None:
    dialect = AnthropicDialect(1 << 20)
    encode(dialect=dialect)
    other = Endpoint("https://a.example", {"x-api-key": "other"})
    assert encode(dialect=dialect, endpoint=other).headers["x-api-key"] == "other"
    assert encode(dialect=dialect).headers["x-api-key"] == "k"


def test_no_more_headers_are_kept_than_needed() -> None:
    dialect = AnthropicDialect(1 << 20)
    for number in range(1000):
        asked = request(provider_options_json=options(betas=[f"b-{number}"]))
        assert encode(asked, dialect=dialect).headers["anthropic-beta"] == f"b-{number}"
    assert len(dialect._heads._made) <= 64


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"anthropic_beta": ["b-2", "c-3"]}, "a-1,b-2,c-3"),
        ({"betas": ["b-2", "a-1"]}, "a-1,b-2"),
        ({"anthropic_beta": "b-2, c-3"}, "a-1,b-2,c-3"),
        ({"anthropic_beta": ["b-2"], "betas": ["b-2", "c-3"]}, "a-1,b-2,c-3"),
        ({"betas": []}, "a-1"),
    ],
    ids=str,
)
def test_betas_are_a_header_and_not_in_the_body(members: dict[str, Any], expected: str) -> None:
    endpoint = Endpoint("https://a.example", {"anthropic-beta": "a-1"})
    call = encode(request(provider_options_json=options(**members)), endpoint=endpoint)
    assert call.headers["anthropic-beta"] == expected
    assert not {"betas", "anthropic_beta"} & json.loads(call.body).keys()


def test_betas_in_the_body_of_a_door_of_the_same_dialect() -> None:
    asked = request(extra_dialect="anthropic", extra_body_json='{"betas": ["b-2"]}')
    call = encode(asked)
    assert call.headers["anthropic-beta"] == "b-2"
    assert "betas" not in json.loads(call.body)


@pytest.mark.parametrize("betas", [["a\r\nx: y"], [""], ["a,b"], ["ä"], [7], 7, {"a": 1}], ids=str)
def test_a_beta_must_have_a_name(betas: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode(request(provider_options_json=options(betas=betas)))
    assert caught.value.violations[0].field == "provider_options_json.betas"


@pytest.mark.parametrize("base", ["https://a.example", "https://a.example/v1"])
def test_the_address(base: str) -> None:
    assert encode(endpoint=Endpoint(base, {})).url == "https://a.example/v1/messages"


def test_a_streamed_call_differs_in_the_stream_member_only() -> None:
    whole, streamed = json.loads(encode().body), json.loads(encode(stream=True).body)
    assert streamed.pop("stream") is True
    assert streamed == whole


# Counting.


def test_counting_sends_the_prompt_alone() -> None:
    asked = request(
        max_tokens=7,
        stop=["x"],
        temperature=0.5,
        user="u",
        service_tier="auto",
        tools=[chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"))],
        provider_options_json=options(betas=["b-2"], mcp_servers=[], container="c"),
    )
    call = AnthropicDialect(1 << 20).encode_count(asked, target(), ENDPOINT)
    assert call.url == "https://a.example/v1/messages/count_tokens"
    assert call.headers["anthropic-beta"] == "b-2"
    assert json.loads(call.body).keys() == {"model", "messages", "tools", "mcp_servers"}


def test_the_count() -> None:
    dialect = AnthropicDialect(1 << 20)
    assert dialect.decode_count(b'{"input_tokens":2095,"context_management":null}') == 2095
    for body in (b"{}", b"[]", b'{"input_tokens":"x"}', b"oops"):
        with pytest.raises(UpstreamProtocol):
            dialect.decode_count(body)


# Families.


CLAUDES = [family for family in families() if family.name.startswith("claude")]


def test_every_family_of_the_maker_says_how_it_thinks() -> None:
    assert [family.name for family in CLAUDES if not family.thinking_types] == ["claude-3"]
    assert not any(family.thinking_types for family in families() if family not in CLAUDES)


@pytest.mark.parametrize(
    ("model", "types"),
    # https://platform.claude.com/docs/en/build-with-claude/thinking-troubleshooting
    [
        ("claude-fable-5", {"adaptive"}),
        ("claude-mythos-5-2", {"adaptive"}),
        ("claude-mythos-preview", {"adaptive", "enabled"}),
        ("claude-opus-5-5", {"adaptive"}),
        ("claude-opus-5", {"adaptive", "disabled"}),
        ("claude-sonnet-5-5", {"adaptive", "between_tools"}),
        ("claude-haiku-5-5", {"adaptive", "disabled"}),
        ("anthropic/claude-opus-4.8", {"adaptive", "disabled"}),
        ("claude-opus-4-7", {"adaptive", "disabled"}),
        ("claude-sonnet-5", {"adaptive", "disabled"}),
        ("us.anthropic.claude-opus-4-6-v1:0", {"adaptive", "enabled", "disabled"}),
        ("claude-sonnet-4-6", {"adaptive", "enabled", "disabled"}),
        ("claude-opus-4-5-20251101", {"enabled", "disabled"}),
        ("claude-haiku-4-5@20251001", {"enabled", "disabled"}),
        ("claude-sonnet-4-20250514", {"enabled", "disabled"}),
        ("claude-3-7-sonnet-20250219", {"enabled", "disabled"}),
        ("claude-3-haiku-20240307", set()),
    ],
)
def test_how_models_think(model: str, types: set[str]) -> None:
    assert set(thinking_types(family_of(model))) == types


def test_other_vendors_models_know_the_oldest_form_of_thinking() -> None:
    assert thinking_types(family_of("unheard-of")) == ("enabled", "disabled")


@pytest.mark.parametrize("family", CLAUDES, ids=lambda family: family.name)
def test_efforts_go_with_adaptive_thinking(family: Family) -> None:
    if "adaptive" in family.thinking_types:
        assert family.efforts
        # Whoever thinks as it likes and takes no budget takes no sampling parameters either.
        assert ("temperature" in family.refuses) is (
            "enabled" not in family.thinking_types or family.name == "claude-mythos-preview"
        )


@pytest.mark.parametrize(
    ("effort", "limit", "budget"),
    [
        ("minimal", None, 1024),
        ("low", None, 2048),
        ("medium", None, 8192),
        ("high", None, 16000),
        ("xhigh", None, 24000),
        ("max", None, 32000),
        ("high", 8000, 4000),
        ("minimal", 2048, 1024),
    ],
)
def test_an_effort_as_a_budget(effort: str, limit: int | None, budget: int) -> None:
    asked = request(reasoning=chat_pb2.ReasoningOptions(effort=effort), max_tokens=limit)
    body = json.loads(encode(asked).body)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert body["max_tokens"] == (limit or 32_000 + budget)
    assert body["max_tokens"] > budget


@pytest.mark.parametrize("model", ["claude-opus-4-1", "claude-sonnet-4-5", "something-else"])
@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "xhigh", "max"])
@pytest.mark.parametrize("limit", [None, 1, 1024, 2047, 2048, 5000, 100_000])
def test_a_translated_budget_always_fits(model: str, effort: str, limit: int | None) -> None:
    """The API's own rules: at least 1,024, and less than max_tokens."""
    at = target(model)
    asked = request(reasoning=chat_pb2.ReasoningOptions(effort=effort), max_tokens=limit)
    call = encode(asked, at=at)
    body = json.loads(call.body)
    if limit is None and at.family.max_output_tokens is not None:
        assert body["max_tokens"] <= at.family.max_output_tokens
    if "thinking" in body:
        assert 1024 <= body["thinking"]["budget_tokens"] < body["max_tokens"]
        assert not call.warnings
    else:
        assert [warning.field for warning in call.warnings] == ["reasoning.effort"]


def test_the_callers_own_limit_and_budget_are_never_changed() -> None:
    options = chat_pb2.ReasoningOptions(budget_tokens=5000)
    body = json.loads(encode(request(reasoning=options, max_completion_tokens=400)).body)
    assert body["max_tokens"] == 400  # the vendor will say that this cannot be
    assert body["thinking"]["budget_tokens"] == 5000


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("claude-sonnet-4-5", {"effort": "heroic"}),
        ("claude-sonnet-4-5", {"summary": "auto"}),
        ("claude-3-opus-20240229", {"enabled": True}),
        ("claude-opus-4-7", {"budget_tokens": 2000}),
        ("claude-opus-4-6", {"effort": "xhigh"}),
        ("claude-fable-5", {"enabled": False}),
        ("claude-fable-5", {"effort": "none"}),
        ("claude-fable-5", {"budget_tokens": 0}),
    ],
)
def test_reasoning_that_cannot_be_is_never_dropped_without_a_word(
    model: str, options: dict[str, Any]
) -> None:
    asked = request(reasoning=chat_pb2.ReasoningOptions(**options))
    (warning,) = encode(asked, at=target(model)).warnings
    assert warning.field == f"reasoning.{next(iter(options))}"
    with pytest.raises(InvalidRequest) as caught:
        encode(asked, at=target(model, "strict"))
    assert caught.value.violations[0].field == warning.field


def test_thinking_and_sampling_exclude_each_other() -> None:
    options = chat_pb2.ReasoningOptions(enabled=True)
    asked = request(reasoning=options, temperature=0.2)
    assert [w.field for w in encode(asked).warnings] == ["temperature"]
    with pytest.raises(InvalidRequest, match="temperature"):
        encode(asked, at=target(policy="strict"))
    passed = encode(asked, at=target(policy="pass"))
    assert json.loads(passed.body)["temperature"] == 0.2
    assert not passed.warnings


# What the door of the same dialect hands over.


@pytest.mark.parametrize("model", ["claude-opus-4-8", "claude-opus-4-5"])
def test_an_effort_of_this_api_alone_does_not_switch_thinking_on(model: str) -> None:
    options = chat_pb2.ReasoningOptions(effort="low")
    at = target(model)
    theirs = json.loads(encode(request(reasoning=options), at=at).body)
    assert theirs["thinking"]["type"] in ("adaptive", "enabled")
    ours = json.loads(encode(request(reasoning=options, extra_dialect="anthropic"), at=at).body)
    assert ours["output_config"] == {"effort": "low"}
    assert "thinking" not in ours


def test_a_thinking_object_of_this_api_goes_as_it_is() -> None:
    thinking = '{"type":"between_tools","note":1}'
    asked = request(
        reasoning=chat_pb2.ReasoningOptions(effort="low"),
        extra_dialect="anthropic",
        extra_body_json=f'{{"thinking":{thinking}}}',
    )
    assert f'"thinking":{thinking}'.encode() in encode(asked, at=target("claude-opus-4-5")).body


def test_unknown_members_of_thinking_are_merged_into_it() -> None:
    asked = request(
        reasoning=chat_pb2.ReasoningOptions(enabled=True, summary="auto"),
        extra_dialect="anthropic",
        extra_body_json='{"thinking":{"block_binding":"off"}}',
    )
    body = json.loads(encode(asked, at=target("claude-opus-5")).body)
    assert body["thinking"] == {
        "type": "adaptive",
        "display": "summarized",
        "block_binding": "off",
    }


def test_members_of_known_objects_are_merged_into_them() -> None:
    asked = request(
        extra_dialect="anthropic",
        user="u",
        extra_body_json='{"metadata": {"user_id": "other", "team": "a"}, "max_tokens": 1}',
    )
    body = json.loads(encode(asked).body)
    assert body["metadata"] == {"user_id": "u", "team": "a"}
    assert body["max_tokens"] == 32_000


def test_provider_options_win() -> None:
    body = json.loads(encode(request(provider_options_json=options(max_tokens=5, model="x"))).body)
    assert body["max_tokens"] == 5
    assert body["model"] == "claude-sonnet-4-5"


def test_extras_of_a_hoisted_system_message_are_not_lost_without_a_word() -> None:
    asked = request(extra_dialect="anthropic")
    asked.messages.insert(
        0,
        content_pb2.Message(
            role=content_pb2.ROLE_SYSTEM,
            parts=[content_pb2.Part(text="Be brief.")],
            extra_json='{"clear_at": "end"}',
        ),
    )
    assert [w.field for w in encode(asked).warnings] == ["messages[0].extra_json"]


def test_extras_of_a_system_turn_go_along() -> None:
    asked = request(extra_dialect="anthropic")
    asked.messages.append(
        content_pb2.Message(
            role=content_pb2.ROLE_SYSTEM,
            parts=[
                content_pb2.Part(
                    vendor_part=content_pb2.VendorPart(
                        dialect="anthropic", json='{"type":"tool_removal","tool":{}}'
                    )
                )
            ],
            extra_json='{"clear_at": "end"}',
        )
    )
    call = encode(asked, at=target("claude-opus-5"))
    assert json.loads(call.body)["messages"][1] == {
        "role": "system",
        "content": [{"type": "tool_removal", "tool": {}}],
        "clear_at": "end",
    }


def test_extras_of_every_kind_of_part_go_back() -> None:
    own = content_pb2.Reasoning(text="Hm.", signature="s", dialect="anthropic")
    extra = '{"mood":"calm"}'
    asked = request(extra_dialect="anthropic")
    asked.messages.append(
        content_pb2.Message(
            role=content_pb2.ROLE_ASSISTANT,
            parts=[
                content_pb2.Part(reasoning=own, extra_json=extra),
                content_pb2.Part(text="a", extra_json=extra),
                content_pb2.Part(refusal="b", extra_json=extra),
                content_pb2.Part(
                    vendor_part=content_pb2.VendorPart(dialect="anthropic", json='{"type":"x"}'),
                    extra_json=extra,
                ),
                content_pb2.Part(
                    tool_call=content_pb2.ToolCall(id="t", name="f"), extra_json=extra
                ),
            ],
        )
    )
    asked.messages.append(
        content_pb2.Message(
            role=content_pb2.ROLE_TOOL,
            parts=[
                content_pb2.Part(
                    tool_result=content_pb2.ToolResult(tool_call_id="t"), extra_json=extra
                )
            ],
        )
    )
    sent = json.loads(encode(asked).body)["messages"]
    blocks = [*sent[1]["content"], *sent[2]["content"]]
    assert [block["mood"] for block in blocks] == ["calm"] * 6


def test_numbers_and_order_within_json_stay_as_they_are() -> None:
    arguments = '{"z":1.0,"a":9007199254740993,"n":1e2}'
    asked = request()
    asked.messages.append(
        content_pb2.Message(
            role=content_pb2.ROLE_ASSISTANT,
            parts=[
                content_pb2.Part(
                    tool_call=content_pb2.ToolCall(id="t", name="f", arguments_json=arguments)
                )
            ],
        )
    )
    assert arguments.encode() in encode(asked).body


def test_a_data_url_without_data_is_named() -> None:
    asked = request()
    asked.messages[0].parts.add().image.url = "data:image/png;base64"
    with pytest.raises(InvalidRequest) as caught:
        encode(asked)
    assert caught.value.violations[0].field == "messages[0].parts[1].image.url"


def test_a_part_of_no_kind_is_named() -> None:
    asked = request()
    asked.messages[0].parts.add()
    with pytest.raises(InvalidRequest) as caught:
        encode(asked)
    assert caught.value.violations[0].field == "messages[0].parts[1]"
