"""The Responses door beyond its golden cases: OpenAI's own types as judges, and bodies of any shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParams
from pydantic import ConfigDict, TypeAdapter

from assembly.responses_stream import events_of
from headgate import reasoning
from headgate.errors import ContextTooLong, InvalidRequest, QuotaExhausted
from headgate.v1 import chat_pb2, content_pb2
from headgate_facade.responses import naming
from headgate_facade.responses.door import ResponsesDoor
from headgate_facade.responses.tools_in import portable_name
from headgate_server.validate import validate

GOLDEN = Path(__file__).parents[1] / "golden" / "door_responses"
RESPONSE = TypeAdapter(Response)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
# A class, but to pydantic a shape; extra members are ours to judge.
PARAMS: TypeAdapter[Any] = TypeAdapter(ResponseCreateParams, config=ConfigDict(extra="ignore"))
# What this door takes though OpenAI's types do not name it.
NOT_OPENAIS = {
    "audio", "reasoning_of_others", "items_as_the_sdk_sends_them_back", "codex_code_mode",
    "thought_signatures",
}  # fmt: skip


def files(name: str, besides: str = "~") -> list[Any]:
    found = sorted(path for path in GOLDEN.glob(f"*/{name}") if not path.match(f"{besides}*/*"))
    assert len(found) > 20
    return [pytest.param(path, id=path.parent.name) for path in found]


def read(body: Any) -> Any:
    return ResponsesDoor(lambda: 0).read({}, json.dumps(body).encode())


# OpenAI's own types.


@pytest.mark.parametrize("path", files("http_response.json"))
def test_answers_are_responses(path: Path) -> None:
    body = json.loads(path.read_text("utf-8"))
    response = RESPONSE.validate_python(body)
    # Unions take what fits best: the items must have become what their type says.
    for item, told in zip(response.output, body["output"], strict=True):
        assert item.type == told["type"]


@pytest.mark.parametrize("path", files("http_stream.txt", besides="error_"))
def test_events_are_stream_events(path: Path) -> None:
    for told in events_of(path.read_bytes().decode()):
        event = EVENT.validate_python(told)
        assert type(event).model_fields["type"].annotation.__args__ == (told["type"],)


@pytest.mark.parametrize(
    "path",
    [
        each
        for each in files("http_request.json", besides="bad_")
        if each.id not in NOT_OPENAIS and (GOLDEN / str(each.id) / "request.json").exists()
    ],
)
def test_requests_are_such_as_the_sdk_can_send(path: Path) -> None:
    PARAMS.validate_python(json.loads(path.read_text("utf-8")))


# Bodies of any shape.


def mutations(value: Any) -> Iterator[Any]:
    """The value with each of its members in turn replaced by something else, or left out."""
    others = (None, 3, -1.5, True, "x", "", [], [3], ["x"], {}, {"type": "x"})
    yield from (other for other in others if other != value)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield {k: v for k, v in value.items() if k != name}
            yield from (value | {name: changed} for changed in mutations(inner))
        yield value | {"unknown": {"a": [1]}}
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from ([*value[:at], changed, *value[at + 1 :]] for changed in mutations(inner))


@pytest.mark.parametrize("path", files("http_request.json", besides="bad_"))
def test_whatever_comes_is_read_or_refused_with_a_reason(path: Path) -> None:
    for body in mutations(json.loads(path.read_text("utf-8"))):
        try:
            call = read(body)
            validate(call.request)
        except InvalidRequest as error:
            assert error.message
        else:
            call.answer(chat_pb2.ChatResponse())
            call.request.SerializeToString()


def test_a_lone_surrogate_and_other_bytes_are_refused() -> None:
    for text in ('{"model":"m","input":"\\ud800"}', '{"model":"m","input":[{"role":"\\ud800"}]}'):
        with pytest.raises(InvalidRequest):
            ResponsesDoor(lambda: 0).read({}, text.encode())
    with pytest.raises(InvalidRequest, match="UTF-8"):
        ResponsesDoor(lambda: 0).read({}, b'{"model":"m","input":"\xff"}')


def test_deep_nesting_is_refused() -> None:
    deep = b'{"model":"m","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidRequest):
        ResponsesDoor(lambda: 0).read({}, deep)


# Names.


def test_portable_names_fit_and_differ() -> None:
    names = [portable_name(name, space) for name in ("f", "g" * 60) for space in ("a.b", "n" * 64)]
    assert len(set(names)) == 4
    assert all(1 <= len(name) <= 64 and name.isascii() for name in names)
    assert portable_name("x y", None) == "x y", "what the caller named is the provider's to judge"
    assert portable_name("search", "mcp__files") == "mcp__files__search"


def test_ids_that_are_made_up_are_known_again() -> None:
    response = naming.response_id("chatcmpl-B9MB/s8 Cjc")
    assert response == "resp_hg_B9MBs8Cjc"
    assert naming.response_id("resp_67c") == "resp_67c"
    ids = [naming.item_id(prefix, response, 0) for prefix in ("rs", "msg", "fc", "ctc", "ig")]
    assert all(naming.is_made_up(each) for each in ids)
    assert not naming.is_made_up("rs_67c") and not naming.is_made_up("rs_67c1_hg_2")
    assert len(naming.item_id("msg", f"resp_{'x' * 99}", 1000)) <= 64


def test_a_proof_of_a_call_is_none_of_a_thought() -> None:
    sealed = naming.proof_of_call("call_1", "c2ln")
    proof = reasoning.unseal(sealed)
    assert proof is not None and proof.signature == "c2ln"
    assert naming.call_of_proof(proof) == "call_1"
    assert naming.call_of_proof(content_pb2.Reasoning(id="rs_1")) is None


# Streams.


def started() -> chat_pb2.ChatEvent:
    return chat_pb2.ChatEvent(started=chat_pb2.Started(id="1", model="m"))


@pytest.mark.parametrize("space", ["\n", "\r\n", "\r"])
def test_json_over_several_lines_stays_one_event(space: str) -> None:
    tool = f'{{"type":{space}"function","name":"a","parameters":{{{space}}}}}'
    body = f'{{"model":"m","input":"x","stream":true,"tools":[{tool}]}}'
    writer = ResponsesDoor(lambda: 0).read({}, body.encode()).writer()
    events = events_of(writer.write([started()]).decode())
    assert events[0]["response"]["tools"] == [{"type": "function", "name": "a", "parameters": {}}]


def test_failures_that_agents_look_for() -> None:
    for error, code in (
        (ContextTooLong("Too long."), "context_length_exceeded"),
        (QuotaExhausted("Pay."), "insufficient_quota"),
        (InvalidRequest.of("messages[0].parts[0].image", "no"), "invalid_prompt"),
    ):
        writer = read({"model": "m", "input": "x", "stream": True}).writer()
        writer.write([started()])
        first, last = writer.error(error).decode().removesuffix("\n\n").split("\n\n")
        assert first.startswith("event: error\n") and last.startswith("event: response.failed\n")
        told = json.loads(last.split("data: ")[1])["response"]["error"]
        assert told["code"] == code


def test_the_content_of_instructions_goes_along_with_the_input_as_it_came() -> None:
    body = {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
            {
                "type": "reasoning",
                "summary": [],
                "encrypted_content": naming.proof_of_call("c", "s"),
            },
            {
                "type": "reasoning",
                "id": "rs_hg_1",
                "summary": [{"type": "summary_text", "text": "t"}],
            },
            {"type": "custom_tool_call", "call_id": "c", "name": "n", "input": "i"},
        ],
    }
    request = read(body).request
    own = json.loads(request.provider_options_json["openai_responses"])
    assert own["instructions"] == "Be brief."
    assert [item["type"] for item in own["input"]] == ["reasoning", "custom_tool_call"]
    assert own["input"][0]["encrypted_content"] == "gAAA"
    assert request.messages[1].parts[-1].thought_signature == "s"
