"""Whole answers as streams: the law, and that no door can tell them from real ones."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from assembly import anthropic_stream, gemini_stream, responses_stream
from fakes.messages import variants
from headgate.errors import GatewayError
from headgate.fold import fold
from headgate.unfold import unfold
from headgate.v1 import chat_pb2, content_pb2
from headgate_facade.anthropic.door import MessagesDoor
from headgate_facade.endpoint import Door
from headgate_facade.gemini.door import GeminiDoor
from headgate_facade.responses.door import ResponsesDoor

ROOT = Path(__file__).parents[1] / "golden"
ANSWERS = sorted(ROOT.glob("*/*/response.json"))
SAID = [{"role": "user", "content": "Hello"}]


def name_of(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}"


def read(path: Path) -> chat_pb2.ChatResponse:
    return json_format.Parse(path.read_text("utf-8"), chat_pb2.ChatResponse())


def test_there_are_answers() -> None:
    assert len(ANSWERS) > 250


@pytest.mark.parametrize("path", ANSWERS, ids=name_of)
def test_the_law(path: Path) -> None:
    response = read(path)
    assert fold(unfold(response)) == response
    assert response == read(path)


def test_every_field_comes_back() -> None:
    fields = set()
    for path, response in variants(chat_pb2.ChatResponse):
        assert isinstance(response, chat_pb2.ChatResponse)
        for choice in response.choices:
            choice.message.role = content_pb2.ROLE_ASSISTANT
            choice.message.ClearField("name")  # which an answer has not
            if choice.HasField("logprobs"):
                # Of nothing they cannot be.
                choice.message.parts.add(text="a" if choice.logprobs.content else "")
                if choice.logprobs.refusal:
                    choice.message.parts.add(refusal="b")
                elif not choice.logprobs.content:
                    choice.ClearField("logprobs")
        fields.add(path)
        assert fold(unfold(response)) == response, path
    assert {"extra_json", "choices.stop_sequence", "choices.message.parts.reasoning.id"} <= fields
    assert {path.partition(".")[0] for path in fields} == {
        field.name for field in chat_pb2.ChatResponse.DESCRIPTOR.fields
    }


def parts_of(response: chat_pb2.ChatResponse) -> list[str]:
    return [e.WhichOneof("event") or "" for e in unfold(response)]


def test_the_order_is_that_of_streams() -> None:
    response = chat_pb2.ChatResponse(id="1", model="m")
    for index in (0, 1):
        choice = response.choices.add(index=index, finish_reason=chat_pb2.FINISH_REASON_STOP)
        choice.message.parts.add(text="Hi", annotations=[content_pb2.Annotation(other_json="{}")])
        choice.message.parts.add().tool_call.name = "f"
    part = ["part_started", "part_delta", "part_delta", "part_finished"]
    assert parts_of(response) == [
        "started",
        *[*part, "part_started", "part_finished", "choice_finished"] * 2,
        "completed",
    ]
    assert parts_of(chat_pb2.ChatResponse()) == ["started", "completed"]


def test_what_grows_is_not_in_the_beginning() -> None:
    response = chat_pb2.ChatResponse()
    message = response.choices.add().message
    message.parts.add(text="t")
    message.parts.add(refusal="t")
    message.parts.add().reasoning.text = "t"
    message.parts.add().tool_call.arguments_json = "t"
    message.parts.add().audio.transcript = "t"
    message.parts.add().image.data = b"d"
    events = unfold(response)
    begun = [e.part_started.initial for e in events if e.HasField("part_started")]
    grown = [e.part_delta for e in events if e.HasField("part_delta")]
    assert [part.WhichOneof("kind") for part in begun] == [
        "text", "refusal", "reasoning", "tool_call", "audio", "image"
    ]  # fmt: skip
    assert not any("t" in json_format.MessageToJson(part).split(":", 1)[-1] for part in begun)
    assert [delta.text + delta.data.decode() for delta in grown] == ["t"] * 5 + ["d"]


def test_log_probabilities_go_with_their_text() -> None:
    response = chat_pb2.ChatResponse()
    choice = response.choices.add(finish_reason=chat_pb2.FINISH_REASON_STOP)
    choice.message.role = content_pb2.ROLE_ASSISTANT
    for text in ("Grüße", "", " an", " alle"):
        choice.message.parts.add(text=text)
    choice.message.parts.add(refusal="No")
    for token in ("Gr", "ü", "ße"):
        choice.logprobs.content.add(token=token)
    choice.logprobs.content.add(token="?", bytes=b" an")
    choice.logprobs.content.add(token=" alle")
    choice.logprobs.refusal.add(token="No")
    told: dict[int, list[str]] = {}
    for event in unfold(response):
        if event.part_delta.logprobs:
            told[event.part_delta.part] = [t.token for t in event.part_delta.logprobs]
    assert told == {0: ["Gr", "ü", "ße"], 2: ["?"], 3: [" alle"], 4: ["No"]}
    assert fold(unfold(response)) == response


DOORS: dict[str, tuple[Any, str, Any, Any]] = {
    "anthropic": (
        MessagesDoor,
        "/v1/messages",
        {"model": "m", "max_tokens": 9, "messages": SAID},
        anthropic_stream,
    ),
    "gemini": (
        GeminiDoor,
        "/v1beta/models/m:generateContent",
        {"contents": [{"parts": [{"text": "Hello"}]}]},
        gemini_stream,
    ),
    "responses": (
        lambda: ResponsesDoor(lambda: 1760000000.5),
        "/v1/responses",
        {"model": "m", "input": "Hello"},
        responses_stream,
    ),
}


@pytest.mark.parametrize("name", DOORS)
def test_every_answer_at_every_door(name: str) -> None:
    """Put together, the stream of an unfolded answer is what the unary call would have given."""
    make, path, body, assembly = DOORS[name]
    door: Door = make()
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    comparable = getattr(assembly, "comparable", lambda answer: answer)
    compared = 0
    for file in ANSWERS:
        response = read(file)
        response.id = response.id or "1"  # doors make one up, another each time
        call = door.read(scope, json.dumps(body).encode())
        try:
            unary = json.loads(call.answer(response))
        except GatewayError:
            continue  # what this door cannot say
        stream = door.read(scope, json.dumps(body).encode()).writer().write(unfold(response))
        assembled = assembly.assemble(stream.decode())
        lines = [
            json.dumps(comparable(each), indent=1, sort_keys=True).splitlines()
            for each in (unary, assembled)
        ]
        assert lines[0] == lines[1], (name_of(file), *difflib.unified_diff(*lines, n=0))
        compared += 1
    assert compared > 250
