"""The embedded model's dialect: what is added to a request, and how a forced call comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.fold import fold
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers import LOCAL
from headgate_server.providers.base import Endpoint, Target
from headgate_server.providers.local import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_SYSTEM,
    DEFAULT_TEXT_MAX_TOKENS,
    LocalDialect,
)
from headgate_server.providers.openai import OpenAIDialect
from headgate_server.providers.vendors import family_of

TARGET = Target(
    "local", "local", "smollm2-135m-instruct", LOCAL, family_of("smollm2-135m-instruct")
)
ENDPOINT = Endpoint("http://127.0.0.1:1/v1", {})


def dialect() -> LocalDialect:
    return LocalDialect(OpenAIDialect(1 << 20))


def asked(**members: Any) -> chat_pb2.ChatRequest:
    request = chat_pb2.ChatRequest(model="m", **members)
    request.messages.add(role=content_pb2.ROLE_USER).parts.add(text="hi")
    return request


def sent(request: chat_pb2.ChatRequest) -> dict[str, Any]:
    call = dialect().encode(request, TARGET, ENDPOINT, stream=True)
    body: dict[str, Any] = json.loads(call.body)
    return body


def streamed(request: chat_pb2.ChatRequest, *chunks: dict[str, Any]) -> chat_pb2.ChatResponse:
    decoder = dialect().stream_decoder(request, TARGET)
    events = []
    for chunk in chunks:
        events += decoder.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    events += decoder.feed(b"data: [DONE]\n\n")
    assert decoder.done
    return fold([*events, *decoder.finish()])


def chunk(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c", "created": 1, "model": "m", "choices": [choice]}


def tool(name: str, schema: dict[str, Any] | None = None) -> chat_pb2.Tool:
    text = json.dumps(schema) if schema is not None else ""
    return chat_pb2.Tool(function=chat_pb2.FunctionTool(name=name, parameters_json=text))


def test_defaults_are_added() -> None:
    body = sent(asked())
    assert body["messages"][0] == {"role": "system", "content": DEFAULT_SYSTEM}
    assert body["max_tokens"] == DEFAULT_MAX_TOKENS
    assert body["temperature"] == 0
    assert body["return_progress"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_what_the_caller_says_stands() -> None:
    request = asked(max_completion_tokens=5, temperature=0.9, extra_body_json='{"min_p":0.1}')
    request.messages.insert(0, content_pb2.Message(role=content_pb2.ROLE_SYSTEM))
    request.messages[0].parts.add(text="Be brief.")
    before = request.SerializeToString(deterministic=True)
    body = sent(request)
    assert [m["content"] for m in body["messages"]] == ["Be brief.", "hi"]
    assert (body["max_completion_tokens"], body["temperature"], body["min_p"]) == (5, 0.9, 0.1)
    assert "max_tokens" not in body
    assert request.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("named", [False, True])
def test_a_forced_call_becomes_a_schema(named: bool) -> None:
    point = {"type": "object", "properties": {"at": {"$ref": "#/$defs/P"}}, "$defs": {"P": {}}}
    request = asked(tools=[tool("ping"), tool("look", point)])
    if named:
        request.tool_choice.function_name = "look"
    else:
        request.tool_choice.mode = chat_pb2.ToolChoice.MODE_REQUIRED
    body = sent(request)
    assert "tools" not in body
    assert "tool_choice" not in body
    alternatives = body["response_format"]["json_schema"]["schema"]["anyOf"]
    names = [alternative["properties"]["name"]["const"] for alternative in alternatives]
    assert names == (["look"] if named else ["ping", "look"])
    look = alternatives[-1]["properties"]["arguments"]
    place = f"#/anyOf/{len(names) - 1}/properties/arguments/$defs/P"
    assert look["properties"]["at"]["$ref"] == place
    if not named:
        nothing = {"type": "object", "properties": {}, "additionalProperties": False}
        assert alternatives[0]["properties"]["arguments"] == nothing
    assert "look" in body["messages"][-1]["content"]


def test_a_forced_call_comes_back_as_a_call() -> None:
    request = asked(tools=[tool("look")])
    request.tool_choice.mode = chat_pb2.ToolChoice.MODE_REQUIRED
    answer = streamed(
        request,
        chunk(role="assistant", content=None),
        chunk(content='{ "name": "look",\n "argu'),
        chunk(content='ments": {"at": [1, 2]} }'),
        chunk(finish="stop"),
    )
    (part,) = answer.choices[0].message.parts
    assert part.tool_call.name == "look"
    assert part.tool_call.id.startswith("call_")
    assert json.loads(part.tool_call.arguments_json) == {"at": [1, 2]}
    assert answer.choices[0].finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS


def test_a_call_cut_short_stays_text() -> None:
    request = asked(tools=[tool("look")])
    request.tool_choice.mode = chat_pb2.ToolChoice.MODE_REQUIRED
    answer = streamed(request, chunk(content='{"name": "lo'), chunk(finish="length"))
    assert answer.choices[0].message.parts[0].text == '{"name": "lo'
    assert answer.choices[0].finish_reason == chat_pb2.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    "mode", [None, chat_pb2.ToolChoice.MODE_AUTO, chat_pb2.ToolChoice.MODE_NONE]
)
def test_free_tools_are_left_out_with_a_word(mode: Any) -> None:
    request = asked(tools=[tool("look")])
    if mode is not None:
        request.tool_choice.mode = mode
    call = dialect().encode(request, TARGET, ENDPOINT, stream=True)
    assert "tools" not in json.loads(call.body)
    warned = [warning.field for warning in call.warnings]
    assert warned == ([] if mode == chat_pb2.ToolChoice.MODE_NONE else ["tools"])


def test_usage_of_several_choices_is_summed() -> None:
    def usage(tokens: int) -> dict[str, Any]:
        counts = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
        return {"id": "c", "created": 1, "model": "m", "choices": [], "usage": counts}

    answer = streamed(
        asked(n=2),
        chunk(1, content="b"),
        chunk(0, content="a"),
        chunk(0, finish="stop"),
        usage(3),
        chunk(1, content="b"),
        chunk(1, finish="stop"),
        usage(5),
    )
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 8)
    assert answer.usage.total_tokens == 15
    assert [c.message.parts[0].text for c in answer.choices] == ["a", "bb"]


def test_logprobs_without_alternatives() -> None:
    request = asked(logprobs=True)
    assert sent(request)["top_logprobs"] == 1
    token = {"token": "a", "logprob": -1, "bytes": [97], "id": 3}
    logprobs = {"content": [{**token, "top_logprobs": [token]}]}
    with_logprobs = chunk(content="a")
    with_logprobs["choices"][0]["logprobs"] = logprobs
    answer = streamed(request, with_logprobs, chunk(finish="stop"))
    (found,) = answer.choices[0].logprobs.content
    assert (found.token, found.logprob, list(found.top)) == ("a", -1, [])


def test_the_server_s_own_matters_stay_inside() -> None:
    progress = chunk(role="assistant", content=None) | {"prompt_progress": {"total": 9}}
    answer = streamed(
        asked(), progress, chunk(content="a"), chunk(finish="stop") | {"timings": {"n": 1}}
    )
    assert not answer.HasField("extra_json")


def test_a_bare_text_stays_bare() -> None:
    request = chat_pb2.ChatRequest(model="m")
    request.text_completion.prompt_json = '"Once"'
    request.text_completion.echo = True
    call = dialect().encode(request, TARGET, ENDPOINT, stream=True)
    body = json.loads(call.body)
    assert call.url.endswith("/v1/completions")
    assert (body["prompt"], body["max_tokens"]) == ("Once", DEFAULT_TEXT_MAX_TOKENS)
    assert "messages" not in body and "echo" not in body
    assert [warning.field for warning in call.warnings] == ["echo"]

    def piece(text: str, logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
        choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish}
        return {"id": "c", "created": 1, "model": "m", "choices": [choice], "timings": {"n": 1}}

    answer = streamed(
        request,
        piece(" upon", {"content": [1]}),
        piece("", {"content": [2]}),
        piece("", None, "stop"),
    )
    assert [part.text for part in answer.choices[0].message.parts] == [" upon"]
    assert json.loads(answer.choices[0].extra_json) == {"logprobs": {"content": [1, 2]}}
    assert not answer.HasField("extra_json")
