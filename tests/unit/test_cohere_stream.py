"""Answers of Cohere's chat, whole and streamed: what the golden folders do not show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.errors import UpstreamProtocol, UpstreamTimeout, UpstreamUnavailable
from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Target
from headgate_server.providers.cohere import CohereDialect
from headgate_server.providers.cohere.answer import FINISH_REASONS
from headgate_server.providers.vendors import family_of, vendors

Json = dict[str, Any]
Events = list[chat_pb2.ChatEvent]
MODEL = "command-a-03-2025"
TARGET = Target("cohere", "cohere", MODEL, vendors()["cohere"], family_of(MODEL))
START = {"type": "message-start", "id": "x", "delta": {"message": {"role": "assistant"}}}
TEXT = {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}}
END = {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}
DIALECT = CohereDialect(1 << 20)


def stream(*events: object) -> bytes:
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)


def decoder() -> Any:
    return DIALECT.stream_decoder(chat_pb2.ChatRequest(), TARGET)


def decode(*pieces: bytes) -> Events:
    under_way = decoder()
    events: Events = []
    for piece in pieces:
        events += under_way.feed(piece)
    return events + list(under_way.finish())


def unary(body: Json) -> chat_pb2.ChatResponse:
    return DIALECT.decode(json.dumps(body).encode(), chat_pb2.ChatRequest(), TARGET)


def answer(reason: str = "COMPLETE", **message: Any) -> Json:
    return {"id": "x", "finish_reason": reason, "message": {"role": "assistant", **message}}


def kinds(events: Events) -> list[str | None]:
    return [event.WhichOneof("event") for event in events]


@pytest.mark.parametrize("reason", [*FINISH_REASONS, "SOMETHING_NEW"])
def test_every_finish_reason_whole_and_streamed(reason: str) -> None:
    whole = unary(answer(reason, content=[{"type": "text", "text": "Hi"}]))
    end = {"type": "message-end", "delta": {"finish_reason": reason}}
    assert fold(decode(stream(START, TEXT, end))) == whole
    (choice,) = whole.choices
    assert choice.provider_finish_reason == reason
    assert choice.finish_reason == FINISH_REASONS.get(reason, chat_pb2.FINISH_REASON_OTHER)


@pytest.mark.parametrize(
    ("reason", "expected"), [("ERROR", UpstreamUnavailable), ("TIMEOUT", UpstreamTimeout)]
)
def test_an_answer_that_broke_off_is_none(reason: str, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        unary(answer(reason, content=[{"type": "text", "text": "Hal"}]))
    end = {"type": "message-end", "delta": {"finish_reason": reason, "error": None}}
    under_way = decoder()
    assert kinds(under_way.feed(stream(START, TEXT, end))) == [
        "started",
        "part_started",
        "part_delta",
    ]
    assert under_way.done
    with pytest.raises(expected):
        under_way.finish()


def test_an_answer_with_calls_waits_for_results_whatever_it_says() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    whole = unary(answer("COMPLETE", tool_calls=[call]))
    assert whole.choices[0].finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS
    start = {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": call}}}
    assert fold(decode(stream(START, start, END))) == whole


def test_the_answer_is_over_with_message_end() -> None:
    under_way = decoder()
    under_way.feed(stream(START, TEXT))
    assert not under_way.done
    under_way.feed(stream(END))
    assert under_way.done
    assert under_way.feed(stream(TEXT) + b"data: [DONE]\n\n") == []
    assert kinds(under_way.finish())[-1] == "completed"


def test_started_waits_for_the_first_real_event() -> None:
    under_way = decoder()
    assert under_way.feed(stream(START)) == []
    assert kinds(under_way.feed(stream(TEXT))) == ["started", "part_started", "part_delta"]


def test_an_end_without_a_finish_reason() -> None:
    for body in (b"", stream(START), stream(START, TEXT), b"data: [DONE]\n\n"):
        with pytest.raises(UpstreamProtocol, match="finish reason"):
            decode(body)
    with pytest.raises(UpstreamProtocol, match="finish reason"):
        decode(stream(START, TEXT, {"type": "message-end", "delta": {}}))


def test_calls_that_nobody_ends() -> None:
    start = {"id": "c", "type": "function", "function": {"name": "f"}}
    event = {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": start}}}
    (part,) = fold(decode(stream(START, event, END))).choices[0].message.parts
    assert part.tool_call.arguments_json == "{}"
    assert part.tool_call.id == "c"


def test_a_citation_behind_the_end_of_its_text_still_belongs_to_it() -> None:
    citation = {"start": 0, "end": 2, "text": "Hi", "sources": []}
    late = {"type": "citation-start", "index": 0, "delta": {"message": {"citations": citation}}}
    events = decode(stream(START, TEXT, {"type": "content-end", "index": 0}, late, END))
    (part,) = fold(events).choices[0].message.parts
    assert json.loads(part.annotations[0].other_json) == citation


@pytest.mark.parametrize(
    "event",
    [
        {"type": "content-delta", "delta": {"message": {"content": {"text": 5}}}},
        {"type": "tool-call-start", "delta": {"message": {"tool_calls": "x"}}},
        {"type": "message-end", "delta": {"finish_reason": 5}},
        {"type": "message-end", "delta": {"usage": {"tokens": {"input_tokens": -1}}}},
        {"type": 5},
        [],
    ],
)
def test_nonsense_in_a_stream(event: object) -> None:
    with pytest.raises(UpstreamProtocol):
        decode(stream(event, TEXT, END))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "x", "finish_reason": "COMPLETE"},
        {"id": "x", "message": {"content": []}},
        answer(content=[5]),
        answer(content=[{"type": "text", "text": 5}]),
        answer(tool_calls={}),
        {**answer(content=[]), "usage": {"tokens": {"input_tokens": "many"}}},
        {**answer(content=[]), "usage": {"tokens": {"input_tokens": 1e300}}},
        {**answer(content=[]), "logprobs": [{"logprobs": "x"}]},
    ],
)
def test_nonsense_in_an_answer(body: Json) -> None:
    with pytest.raises(UpstreamProtocol):
        unary(body)


def test_a_call_without_an_id_gets_one() -> None:
    whole = unary(answer("TOOL_CALL", tool_calls=[{"function": {"name": "f"}}]))
    (part,) = whole.choices[0].message.parts
    assert part.tool_call.id.startswith("call_")
    assert part.tool_call.arguments_json == "{}"
