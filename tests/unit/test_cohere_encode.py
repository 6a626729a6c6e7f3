"""Requests of Cohere's chat: nothing of the proto is forgotten, and each policy does what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.errors import InvalidRequest
from headgate.reasoning import seal, unseal
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers.base import Endpoint, Target, UnsupportedPolicy
from headgate_server.providers.cohere import CohereDialect
from headgate_server.providers.cohere.encode import FIELDS, PLAIN_FIELDS
from headgate_server.providers.vendors import family_of, vendors

Json = dict[str, Any]
ENDPOINT = Endpoint("https://api.cohere.com", {"authorization": "Bearer k"})
PLAIN, REASONING = "command-a-03-2025", "command-a-reasoning-08-2025"
TOOL = chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"))
USER, ASSISTANT, TOOL_ROLE = (
    content_pb2.ROLE_USER,
    content_pb2.ROLE_ASSISTANT,
    content_pb2.ROLE_TOOL,
)


def target(model: str = PLAIN, policy: UnsupportedPolicy = "drop") -> Target:
    return Target("cohere", "cohere", model, vendors()["cohere"], family_of(model), policy)


def request(*parts: content_pb2.Part, role: int = USER, **fields: Any) -> chat_pb2.ChatRequest:
    message = content_pb2.Message(
        role=role,  # type: ignore[arg-type]
        parts=parts or [content_pb2.Part(text="Hi")],
    )
    return chat_pb2.ChatRequest(model="public", messages=[message], **fields)


def encode(asked: chat_pb2.ChatRequest, to: Target | None = None) -> tuple[Json, list[str]]:
    """The body, and the fields of the warnings."""
    call = CohereDialect(1 << 20).encode(asked, to or target(), ENDPOINT, stream=False)
    return json.loads(call.body), [warning.field for warning in call.warnings]


# Fields that `encode_fields` and `merge_extras` look at, or that are unsupported tuning.
ELSEWHERE = {
    *("model", "messages", "extra_body_json", "extra_dialect", "provider_options_json"),
    *("n", "logit_bias", "top_logprobs", "audio", "prediction", "service_tier", "metadata"),
    *("web_search_options", "store", "user", "safety_identifier", "prompt_cache_key"),
    *("verbosity", "text_completion", "parallel_tool_calls"),
}


def test_every_field_of_the_request_has_a_home() -> None:
    fields = {field.name for field in chat_pb2.ChatRequest.DESCRIPTOR.fields}
    assert fields == PLAIN_FIELDS.keys() | FIELDS.keys() | ELSEWHERE


def test_streams_differ_in_one_member_only() -> None:
    dialect = CohereDialect(1 << 20)
    whole = dialect.encode(request(), target(), ENDPOINT, stream=False)
    streamed = dialect.encode(request(), target(), ENDPOINT, stream=True)
    assert whole.url == streamed.url == "https://api.cohere.com/v2/chat"
    assert whole.headers is ENDPOINT.headers
    assert json.loads(streamed.body) == {**json.loads(whole.body), "stream": True}


def test_parallel_calls_go_by_the_policy_only_where_they_are_forbidden() -> None:
    assert encode(request(tools=[TOOL], parallel_tool_calls=True))[1] == []
    body, warned = encode(request(tools=[TOOL], parallel_tool_calls=False))
    assert warned == ["parallel_tool_calls"]
    assert "parallel_tool_calls" not in body
    with pytest.raises(InvalidRequest, match="parallel_tool_calls"):
        encode(request(tools=[TOOL], parallel_tool_calls=False), target(policy="strict"))
    body, _ = encode(request(tools=[TOOL], parallel_tool_calls=False), target(policy="pass"))
    assert body["parallel_tool_calls"] is False


def test_a_named_function_is_required_only_if_it_is_the_only_one() -> None:
    choice = chat_pb2.ToolChoice(function_name="f")
    other = chat_pb2.Tool(function=chat_pb2.FunctionTool(name="g"))
    for policy in ("strict", "drop", "pass"):
        body, warned = encode(request(tools=[TOOL], tool_choice=choice), target(policy=policy))
        assert (body["tool_choice"], warned) == ("REQUIRED", [])
    for policy in ("drop", "pass"):
        body, warned = encode(
            request(tools=[TOOL, other], tool_choice=choice), target(policy=policy)
        )
        assert (body["tool_choice"], warned) == ("REQUIRED", ["tool_choice"])


def test_choices_that_say_nothing() -> None:
    none = chat_pb2.ToolChoice(mode=chat_pb2.ToolChoice.MODE_NONE)
    assert "tool_choice" not in encode(request(tool_choice=none))[0]
    own = chat_pb2.ToolChoice(provider_choice_json='"SPECIAL"')
    body, warned = encode(request(tools=[TOOL], tool_choice=own, extra_dialect="cohere"))
    assert (body["tool_choice"], warned) == ("SPECIAL", [])
    assert encode(request(tools=[TOOL], tool_choice=own))[1] == ["tool_choice"]


def test_strict_tools() -> None:
    def tools(*strict: bool | None) -> list[chat_pb2.Tool]:
        return [
            chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f", strict=each)) for each in strict
        ]

    assert encode(request(tools=tools(True, True)))[0]["strict_tools"] is True
    assert encode(request(tools=tools(False, None))) == encode(request(tools=tools(None, None)))
    body, warned = encode(request(tools=tools(None, True)))
    assert "strict_tools" not in body
    assert warned == ["tools[1].function.strict"]


def test_thinking() -> None:
    def thinking(model: str = REASONING, **options: Any) -> tuple[object, list[str]]:
        asked = request(reasoning=chat_pb2.ReasoningOptions(**options))
        body, warned = encode(asked, target(model))
        return body.get("thinking"), warned

    enabled, disabled = {"type": "enabled"}, {"type": "disabled"}
    assert thinking(enabled=True) == (enabled, [])
    assert thinking(enabled=False, budget_tokens=5) == (disabled, [])
    assert thinking(budget_tokens=5) == ({**enabled, "token_budget": 5}, [])
    assert thinking(effort="high") == (enabled, ["reasoning.effort"])
    assert thinking(effort="none") == (disabled, [])
    assert thinking(native_json='{"type": "adaptive"}') == (enabled, [])
    claude_s = '{"type": "enabled", "budget_tokens": 5}'
    assert thinking(native_json=claude_s) == ({**enabled, "token_budget": 5}, [])
    assert thinking(PLAIN, enabled=False) == (None, [])
    assert thinking(PLAIN, budget_tokens=5) == (None, ["reasoning"])
    assert thinking("command-future", enabled=True) == (enabled, [])


def test_a_plan_stays_a_plan_through_another_door() -> None:
    """A front door of another dialect seals what it cannot show; the plan comes back as one."""
    plan = content_pb2.Reasoning(text="I look.", id="tool_plan", dialect="cohere")
    found = unseal(seal(plan, "cohere"))
    assert found is not None
    found.text = plan.text
    call = content_pb2.ToolCall(id="c", name="f", arguments_json="{}")
    body, warned = encode(
        request(content_pb2.Part(reasoning=found), content_pb2.Part(tool_call=call), role=ASSISTANT)
    )
    assert body["messages"][0]["tool_plan"] == "I look."
    assert "content" not in body["messages"][0]
    assert warned == []


def test_a_plan_without_calls_is_thinking() -> None:
    plan = content_pb2.Part(reasoning=content_pb2.Reasoning(text="Hm.", id="tool_plan"))
    body, _ = encode(request(plan, role=ASSISTANT), target(REASONING))
    assert body["messages"][0]["content"] == [{"type": "thinking", "thinking": "Hm."}]


@pytest.mark.parametrize(
    ("part", "role", "field"),
    [
        (
            content_pb2.Part(audio=content_pb2.Media(data=b"x", media_type="audio/wav")),
            USER,
            "messages[0].parts[0]",
        ),
        (
            content_pb2.Part(file=content_pb2.Media(data=b"x", media_type="text/plain")),
            USER,
            "messages[0].parts[0]",
        ),
        (
            content_pb2.Part(image=content_pb2.Media(data=b"x", media_type="image/png")),
            ASSISTANT,
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
        *(
            (
                content_pb2.Part(
                    tool_result=content_pb2.ToolResult(
                        tool_call_id="c", parts=[content_pb2.Part(file=media)]
                    )
                ),
                TOOL_ROLE,
                f"messages[0].parts[0].tool_result.parts[0].file{place}",
            )
            for media, place in (
                (content_pb2.Media(data=b"x", media_type="application/pdf"), ""),
                (content_pb2.Media(url="https://x.test/a.txt"), ""),
                (content_pb2.Media(data=b"\xff", media_type="text/plain"), ".data"),
            )
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


def test_extras_of_messages_parts_and_tools() -> None:
    asked = request(
        content_pb2.Part(text="Hi", extra_json='{"own": 1}'),
        tools=[chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"), extra_json='{"x": 1}')],
        extra_dialect="cohere",
    )
    asked.messages[0].extra_json = '{"mood": "good"}'
    body, warned = encode(asked)
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "own": 1}], "mood": "good"}
    ]
    assert body["tools"][0]["x"] == 1
    assert warned == []
    asked.extra_dialect = "anthropic"
    body, warned = encode(asked)
    assert warned == ["messages[0].parts[0].own", "messages[0].mood", "tools[0].x"]
