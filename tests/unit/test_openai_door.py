"""What the chat door carries beyond OpenAI's members: it comes back as it went out, whole or streamed.

The answers here are those of other dialects' providers: signed and encrypted thinking, blocks of their
own, generated images. Streams are put together as the official SDK does it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from openai._models import validate_type
from openai.lib.streaming._deltas import accumulate_delta
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from headgate.errors import InvalidRequest
from headgate.fold import fold
from headgate.v1 import chat_pb2, content_pb2
from headgate_facade.openai.chat import ChatDoor
from headgate_facade.openai.chat_in import read_chat

Json = dict[str, Any]
DOOR = ChatDoor(reasoning_in_unary=True)
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def part(**fields: Any) -> content_pb2.Part:
    return json_format.ParseDict(fields, content_pb2.Part())


def thought(text: str = "", **fields: str) -> content_pb2.Part:
    return part(reasoning={"text": text, **fields})


CALL = {"id": "call_1", "name": "f", "arguments_json": '{"a":1}'}
PNG = "iVBORw0KGgo="
BLOCK = '{"type": "server_tool_use", "id": "srv_1", "input": {"big": 12345678901234567890}}'

# The dialect of the provider, and what it answered. The parts stand in the order in which a history
# brings them back.
ANSWERS: dict[str, tuple[str, list[content_pb2.Part]]] = {
    "signed": ("anthropic", [thought("a\nb", signature="s=="), part(text="x"), part(tool_call=CALL)]),
    "signed_without_text": ("anthropic", [thought(signature="s=="), part(text="x")]),
    "redacted": ("anthropic", [thought(encrypted="e=="), part(text="x")]),
    "signed_and_redacted": (
        "anthropic",
        [thought("a", signature="s"), thought(encrypted="e"), thought("b", signature="t"),
         part(tool_call=CALL)],
    ),
    "partly_signed": ("anthropic", [thought("a"), thought("b", signature="s"), thought("c")]),
    "dialect_of_its_own": ("bedrock", [thought("a", signature="s", dialect="anthropic")]),
    "another_dialect": ("bedrock", [thought("a", signature="s")]),
    "item": ("openai_responses", [thought("a", encrypted="e", id="rs_1"), part(text="x")]),
    "item_without_summary": ("openai_responses", [thought(encrypted="e", id="rs_1")]),
    "item_not_encrypted": ("openai_responses", [thought("a", id="rs_1"), thought(id="rs_2")]),
    "two_items": (
        "openai_responses",
        [thought("a", encrypted="e", id="rs_1"), thought("b", encrypted="f", id="rs_2")],
    ),
    "all_proofs_at_once": (
        "some-dialect", [thought("a", encrypted="e", signature="s", id="i")],
    ),
    "gemini_call": (
        "gemini",
        [thought("a"), part(tool_call=CALL, thought_signature="c2ln"),
         part(tool_call={**CALL, "id": "call_2"})],
    ),
    "gemini_text": ("gemini", [thought("a"), part(text="x", thought_signature="c2ln")]),
    "gemini_empty_text": ("gemini", [part(text="", thought_signature="c2ln")]),
    "gemini_thought": ("gemini", [part(reasoning={"text": "a", "id": "i"}, thought_signature="c2ln")]),
    "image": ("gemini", [part(text="x"), part(image={"data": PNG, "media_type": "image/png"})]),
    "images": (
        "gemini",
        [part(image={"url": "https://a.example/b.png"}, thought_signature="c2ln"),
         part(image={"url": f"data:image/png;base64,{PNG}"})],
    ),
    "vendor_parts": (
        "anthropic",
        [part(vendor_part={"dialect": "anthropic", "json": BLOCK}),
         part(vendor_part={"dialect": "anthropic", "json": "{}"}), part(text="x")],
    ),
    "everything": (
        "anthropic",
        [thought("a", signature="s"), part(vendor_part={"dialect": "anthropic", "json": BLOCK}),
         part(text="x", thought_signature="c2ln"),
         part(image={"data": PNG, "media_type": "image/png"}), part(tool_call=CALL)],
    ),
    "unproven": ("openai", [thought("a"), part(text="x")]),
}  # fmt: skip


def response(name: str) -> chat_pb2.ChatResponse:
    dialect, parts = ANSWERS[name]
    calls = any(each.HasField("tool_call") for each in parts)
    found = chat_pb2.ChatResponse(id="c", model="m", served=chat_pb2.Served(dialect=dialect))
    found.create_time.seconds = 1
    found.choices.add(
        message=content_pb2.Message(role=content_pb2.ROLE_ASSISTANT, parts=parts),
        finish_reason=chat_pb2.FINISH_REASON_TOOL_CALLS if calls else chat_pb2.FINISH_REASON_STOP,
    )
    return found


def events_of(whole: chat_pb2.ChatResponse, *, early: bool) -> Iterator[chat_pb2.ChatEvent]:
    """The answer as a stream, its texts letter by letter; proofs with the start of a part, or its end."""
    started = chat_pb2.Started(id=whole.id, model=whole.model, served=whole.served)
    started.create_time.CopyFrom(whole.create_time)
    yield chat_pb2.ChatEvent(started=started)
    (choice,) = whole.choices
    for place, each in enumerate(choice.message.parts):
        initial, rest = content_pb2.Part(), content_pb2.Part()
        initial.CopyFrom(each)
        kind = each.WhichOneof("kind")
        text, data = "", b""
        if kind == "text":
            text, initial.text = each.text, ""
        elif kind == "reasoning":
            text, initial.reasoning.text = each.reasoning.text, ""
            if not early:
                rest.reasoning.CopyFrom(initial.reasoning)
                initial.reasoning.Clear()
                initial.reasoning.SetInParent()
        elif kind == "tool_call":
            text, initial.tool_call.arguments_json = each.tool_call.arguments_json, ""
        elif kind == "image" and each.image.data:
            data = each.image.data
            initial.image.ClearField("data")
        if each.thought_signature and not early:
            rest.thought_signature = each.thought_signature
            initial.ClearField("thought_signature")
        yield chat_pb2.ChatEvent(part_started=chat_pb2.PartStarted(part=place, initial=initial))
        for letter in text:
            yield chat_pb2.ChatEvent(part_delta=chat_pb2.PartDelta(part=place, text=letter))
        for at in range(0, len(data), 3):
            piece = chat_pb2.PartDelta(part=place, data=data[at : at + 3])
            yield chat_pb2.ChatEvent(part_delta=piece)
        finished = chat_pb2.PartFinished(part=place, rest=rest if rest.ByteSize() else None)
        yield chat_pb2.ChatEvent(part_finished=finished)
    reason = chat_pb2.ChoiceFinished(finish_reason=choice.finish_reason)
    yield chat_pb2.ChatEvent(choice_finished=reason)
    yield chat_pb2.ChatEvent(completed=chat_pb2.Completed())


def whole_message(name: str) -> Json:
    body = json.loads(DOOR.read({}, json.dumps(ASKED).encode()).answer(response(name)))
    validate_type(type_=ChatCompletion, value=body)
    found = body["choices"][0]["message"]
    assert isinstance(found, dict)
    return found


def streamed_message(name: str, *, early: bool) -> Json:
    writer = DOOR.read({}, json.dumps(ASKED | {"stream": True}).encode()).writer()
    events = list(events_of(response(name), early=early))
    assert fold(events) == response(name), "the sample is a stream of that answer"
    text = b"".join(writer.write([event]) for event in events).decode()
    *lines, done = text.strip().split("\n\n")
    assert done == "data: [DONE]"
    message: Any = {}
    for line in lines:
        chunk = json.loads(line.removeprefix("data: "))
        validate_type(type_=ChatCompletionChunk, value=chunk)
        message = accumulate_delta(message, chunk["choices"][0]["delta"])
    return dict(message)


def comparable(message: Json) -> Json:
    """Without what only one form of the answer has, and with blocks as JSON."""
    found = {k: v for k, v in message.items() if v not in (None, "", [])}
    found["tool_calls"] = [
        {k: v for k, v in call.items() if k != "index"} for call in found.get("tool_calls", ())
    ]
    return found


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_says_what_the_whole_answer_says(name: str, early: bool) -> None:
    assert comparable(streamed_message(name, early=early)) == comparable(whole_message(name))


def read_back(message: Json) -> list[content_pb2.Part]:
    history = [*ASKED["messages"], message]
    call = read_chat(json.dumps(ASKED | {"messages": history}).encode())
    said = call.request.messages[1]
    assert not said.extra_json
    return list(said.parts)


def spoken(name: str, found: list[content_pb2.Part]) -> list[content_pb2.Part]:
    """Without the empty text that stands for an answer without one."""
    if any(each.HasField("text") for each in ANSWERS[name][1]):
        return found
    return [each for each in found if not each.HasField("text") or each.text]


def expected(name: str) -> list[content_pb2.Part]:
    """The parts with the dialect of their proofs, and images as the URLs that the door makes of them."""
    dialect, parts = ANSWERS[name]
    proven = any(p.reasoning.signature or p.reasoning.encrypted or p.reasoning.id for p in parts)
    found = []
    for each in parts:
        copy = content_pb2.Part()
        copy.CopyFrom(each)
        if copy.HasField("reasoning") and proven and not copy.reasoning.dialect:
            copy.reasoning.dialect = dialect
        if copy.HasField("image") and copy.image.data:
            copy.image.Clear()
            copy.image.url = f"data:image/png;base64,{PNG}"
        found.append(copy)
    return found


@pytest.mark.parametrize("name", ANSWERS)
def test_the_history_brings_it_back(name: str) -> None:
    assert spoken(name, read_back(whole_message(name))) == expected(name)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_history_of_a_stream_brings_it_back(name: str) -> None:
    message = streamed_message(name, early=False)
    for call in message.get("tool_calls", ()):
        call.pop("index")
    assert spoken(name, read_back(message)) == expected(name)


def test_blocks_stay_as_they_are_to_the_last_digit() -> None:
    text = '{"z":1.50,"a":[ 12345678901234567890 ]}'
    whole = response("vendor_parts")
    whole.choices[0].message.parts[0].vendor_part.json = text
    raw = DOOR.read({}, json.dumps(ASKED).encode()).answer(whole)
    assert text.encode() in raw
    message = bytes(raw).partition(b'"message":')[2].partition(b',"logprobs"')[0]
    body = b'{"model":"m","messages":[%b]}' % message
    assert read_chat(body).request.messages[0].parts[0].vendor_part.json == text


def test_formats_are_openrouters() -> None:
    assert whole_message("signed")["reasoning_details"] == [
        {
            "type": "reasoning.text", "text": "a\nb", "signature": "s==",
            "format": "anthropic-claude-v1", "index": 0,
        }
    ]  # fmt: skip
    details = whole_message("item")["reasoning_details"]
    assert [(d["type"], d["id"], d["format"], d["index"]) for d in details] == [
        ("reasoning.summary", "rs_1", "openai-responses-v1", 0),
        ("reasoning.encrypted", "rs_1", "openai-responses-v1", 1),
    ]
    assert whole_message("another_dialect")["reasoning_details"][0]["format"] == "bedrock"
    assert "reasoning_details" not in whole_message("unproven")


def test_details_of_the_answers_own_are_not_doubled() -> None:
    own = '{"reasoning_details":[{"type":"reasoning.text","text":"a","signature":"s"}]}'
    whole = response("signed")
    whole.choices[0].message.extra_json = own
    message = json.loads(DOOR.read({}, json.dumps(ASKED).encode()).answer(whole))
    assert len(message["choices"][0]["message"]["reasoning_details"]) == 1
    events = list(events_of(response("signed"), early=True))
    events[-2].choice_finished.message_extra_json = own
    writer = DOOR.read({}, json.dumps(ASKED | {"stream": True}).encode()).writer()
    assert writer.write(events).count(b'"reasoning_details"') == 1


def test_thinking_hidden_from_whole_answers_keeps_its_proofs() -> None:
    call = ChatDoor(reasoning_in_unary=False).read({}, json.dumps(ASKED).encode())
    message = json.loads(call.answer(response("signed")))["choices"][0]["message"]
    assert "reasoning_content" not in message
    assert message["reasoning_details"][0]["signature"] == "s=="


# Histories that other clients make.


def history(**members: Any) -> list[content_pb2.Part]:
    return read_back({"role": "assistant", "content": "x", **members})


def detail(kind: str, **members: Any) -> Json:
    return {"type": f"reasoning.{kind}", **members}


def test_pieces_of_a_stream_are_joined() -> None:
    found = history(
        reasoning="abc",
        reasoning_details=[
            detail("text", text="a", index=0, format="anthropic-claude-v1"),
            detail("text", text="b", index=0, format="anthropic-claude-v1"),
            detail("text", signature="s", index=0, format="anthropic-claude-v1"),
            detail("text", text="c", signature="t", index=0, format="anthropic-claude-v1"),
        ],
    )
    assert [p.reasoning for p in found if p.HasField("reasoning")] == [
        content_pb2.Reasoning(text="ab", signature="s", dialect="anthropic"),
        content_pb2.Reasoning(text="c", signature="t", dialect="anthropic"),
    ]


def test_openrouters_gemini() -> None:
    """The signature of a call comes as a detail with the call's id, the thinking beside it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    found = history(
        content=None,
        reasoning="hm",
        reasoning_details=[
            detail("encrypted", data="c2ln", id="call_1", format="google-gemini-v1", index=0)
        ],
        tool_calls=[call],
    )
    assert [p.WhichOneof("kind") for p in found] == ["reasoning", "tool_call"]
    assert (found[0].reasoning.text, found[1].thought_signature) == ("hm", "c2ln")


def test_details_of_unknown_kinds_and_formats() -> None:
    odd = detail("server_tool_call", name="web_search", index=0)
    found = history(
        reasoning_details=[
            odd,
            detail("text", text="a", signature="s", format="xai-responses-v1", extra_member=1),
            detail("text", text="b", signature="s", format="unknown"),
            detail("text", text="c", signature="s", format=None),
        ]
    )
    thoughts = [p for p in found if p.HasField("reasoning")]
    assert json.loads(thoughts[0].extra_json) == odd
    assert [p.reasoning.dialect for p in thoughts] == ["", "xai-responses-v1", "", ""]
    assert json.loads(thoughts[1].extra_json) == {"extra_member": 1}


def test_thinking_as_text_alone() -> None:
    assert history(reasoning_content="a")[0] == thought("a")
    assert history(reasoning="a", reasoning_details=[])[0] == thought("a")


def test_extra_content_that_says_more_stays() -> None:
    said = {"google": {"thought_signature": "c2ln", "more": 1}}
    call = read_chat(
        json.dumps(
            ASKED | {"messages": [{"role": "assistant", "content": "x", "extra_content": said}]}
        ).encode()
    )
    (message,) = call.request.messages
    assert message.parts[0].thought_signature == "c2ln"
    assert json.loads(message.extra_json) == {"extra_content": said}


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"reasoning_details": [1]}, "messages[1].reasoning_details[0]"),
        ({"reasoning_details": [{}]}, "messages[1].reasoning_details[0]"),
        ({"reasoning_details": [detail("text", text=1)]}, "messages[1].reasoning_details[0].text"),
        ({"vendor_parts": [{"dialect": "x"}]}, "messages[1].vendor_parts[0].json"),
        ({"images": [{"image_url": "x"}]}, "messages[1].images[0].image_url"),
        ({"images": [{"image_url": {"url": "/x"}}]}, "messages[1].images[0].image_url.url"),
    ],
)
def test_what_is_none_of_it_is_refused_by_name(members: Json, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        history(**members)
    assert caught.value.violations[0].field == field


# Content parts of kinds that OpenAI does not document.


def content(parts: Any, role: str = "user", **more: Any) -> list[content_pb2.Part]:
    messages = [{"role": role, "content": parts, **more}]
    return list(
        read_chat(json.dumps({"model": "m", "messages": messages}).encode())
        .request.messages[0]
        .parts
    )


@pytest.mark.parametrize(
    ("role", "more"),
    [("user", {}), ("system", {}), ("assistant", {}), ("tool", {"tool_call_id": "c"})],
)
def test_parts_that_only_a_vendor_knows(role: str, more: Json) -> None:
    video = {"type": "video_url", "video_url": {"url": "https://a.example/v.mp4", "fps": 2.5}}
    found = content([{"type": "text", "text": "a", "own": 1}, video], role, **more)
    if role == "tool":
        found = list(found[0].tool_result.parts)
    assert (found[0].text, json.loads(found[0].extra_json)) == ("a", {"own": 1})
    assert found[1].vendor_part.dialect == "openai"
    assert json.loads(found[1].vendor_part.json) == video


def test_numbers_in_such_parts_stay_as_they_are() -> None:
    raw = b'{"type":"x","n":1.50,"big":12345678901234567890}'
    body = b'{"model":"m","messages":[{"role":"user","content":[%b]}]}' % raw
    (found,) = read_chat(body).request.messages[0].parts
    assert found.vendor_part.json == raw.decode()


@pytest.mark.parametrize("part", [{"type": 7}, {"type": None}, {}, 7, {"type": "image_url"}])
def test_parts_that_are_none(part: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.content\[1\]"):
        content([{"type": "video"}, part])


def test_files_by_url_and_with_members_of_a_vendors_own() -> None:
    file = {"filename": "a.pdf", "file_data": "https://a.example/a.pdf", "own": 1}
    (found,) = content([{"type": "file", "file": file}])
    assert (found.file.url, found.file.filename) == ("https://a.example/a.pdf", "a.pdf")
    assert json.loads(found.extra_json) == {"file": {"own": 1}}


# How much to think.


def reasoning(**members: Any) -> chat_pb2.ReasoningOptions:
    return read_chat(json.dumps(ASKED | members).encode()).request.reasoning


def test_openrouters_reasoning_object() -> None:
    asked = {"effort": "high", "max_tokens": 2000, "enabled": True, "exclude": False}
    assert reasoning(reasoning=asked) == chat_pb2.ReasoningOptions(
        effort="high", budget_tokens=2000, enabled=True
    )
    assert reasoning(reasoning={"exclude": True}).summary == "none"
    assert reasoning(reasoning={"summary": "detailed"}).summary == "detailed"


def test_members_of_their_own_names_win() -> None:
    asked = reasoning(
        reasoning={"effort": "low", "enabled": True}, reasoning_effort="high", enable_thinking=False
    )
    assert (asked.effort, asked.enabled) == ("high", False)


def test_the_objects_unknown_members_travel_on() -> None:
    call = read_chat(json.dumps(ASKED | {"reasoning": {"context": "all"}, "x": 1}).encode())
    assert json.loads(call.request.extra_body_json) == {"x": 1, "reasoning": {"context": "all"}}


@pytest.mark.parametrize("asked", [True, "high", {"max_tokens": -1}, {"effort": 1}])
def test_a_reasoning_object_that_is_none(asked: Any) -> None:
    with pytest.raises(InvalidRequest, match="reasoning"):
        reasoning(reasoning=asked)
