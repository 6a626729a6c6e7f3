"""Answers of Converse, whole and streamed: what the golden folders do not show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.eventstream import event_stream, frame
from headgate.errors import (
    GatewayError,
    Overloaded,
    RateLimited,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamUnavailable,
)
from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Target
from headgate_server.providers.bedrock import BedrockDialect
from headgate_server.providers.bedrock.answer import FINISH_REASONS
from headgate_server.providers.vendors import family_of, vendors

Json = dict[str, Any]
MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
USAGE = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
TEXT = ["contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}}]
STOP = ["messageStop", {"stopReason": "end_turn"}]
METADATA = ["metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}]
Events = list[chat_pb2.ChatEvent]


def target(model: str = MODEL) -> Target:
    return Target("aws", "bedrock", model, vendors()["bedrock"], family_of(model))


def stream(*lines: object) -> bytes:
    return event_stream("\n".join(map(json.dumps, lines)))


def decode(*pieces: bytes) -> Events:
    decoder = BedrockDialect(1 << 20).stream_decoder(chat_pb2.ChatRequest(), target())
    events: Events = []
    for piece in pieces:
        events += decoder.feed(piece)
    return events + decoder.finish()


def unary(body: Json) -> chat_pb2.ChatResponse:
    return BedrockDialect(1 << 20).decode(
        json.dumps(body).encode(), chat_pb2.ChatRequest(), target()
    )


def answer(*content: Json, stop: str = "end_turn", **more: Any) -> Json:
    message = {"role": "assistant", "content": list(content)}
    return {"output": {"message": message}, "stopReason": stop, "usage": USAGE, **more}


@pytest.mark.parametrize("reason", [*FINISH_REASONS, "something_new"])
def test_every_stop_reason_whole_and_streamed(reason: str) -> None:
    whole = unary(answer({"text": "Hi"}, stop=reason))
    streamed = fold(decode(stream(TEXT, ["messageStop", {"stopReason": reason}], METADATA)))
    assert whole.choices == streamed.choices
    (choice,) = whole.choices
    assert choice.provider_finish_reason == reason
    expected = FINISH_REASONS.get(reason, chat_pb2.FINISH_REASON_OTHER)
    assert choice.finish_reason == expected


def test_the_answer_is_over_with_the_metadata() -> None:
    decoder = BedrockDialect(1 << 20).stream_decoder(chat_pb2.ChatRequest(), target())
    decoder.feed(stream(TEXT, STOP))
    assert not decoder.done
    decoder.feed(stream(METADATA))
    assert decoder.done
    # What comes behind it is nobody's.
    assert decoder.feed(stream(TEXT)) == []
    assert fold([*decode(stream(TEXT, STOP, METADATA, TEXT))]).choices[0].message.parts[0].text == (
        "Hi"
    )


def test_started_waits_for_the_first_real_event() -> None:
    decoder = BedrockDialect(1 << 20).stream_decoder(chat_pb2.ChatRequest(), target())
    assert decoder.feed(stream(["messageStart", {"role": "assistant"}])) == []
    found = [event.WhichOneof("event") for event in decoder.feed(stream(TEXT))]
    assert found == ["started", "part_started", "part_delta"]


def test_an_error_behind_events_of_the_same_read_lets_them_out_first() -> None:
    decoder = BedrockDialect(1 << 20).stream_decoder(chat_pb2.ChatRequest(), target())
    failure = {"exception": "serviceUnavailableException", "payload": {"message": "later"}}
    events = decoder.feed(stream(TEXT, failure, TEXT))
    assert [event.WhichOneof("event") for event in events] == [
        "started",
        "part_started",
        "part_delta",
    ]
    assert decoder.done
    with pytest.raises(Overloaded, match="later"):
        decoder.finish()


def test_damage_behind_events_of_the_same_read_lets_them_out_first() -> None:
    decoder = BedrockDialect(1 << 20).stream_decoder(chat_pb2.ChatRequest(), target())
    assert len(decoder.feed(stream(TEXT) + b"\x00" * 20)) == 3
    with pytest.raises(UpstreamProtocol, match="checksum"):
        decoder.finish()


def test_an_end_in_the_middle_of_an_event() -> None:
    whole = stream(TEXT, STOP)
    with pytest.raises(UpstreamProtocol, match="in the middle"):
        decode(whole[:-3])
    with pytest.raises(UpstreamProtocol, match="without a stop reason"):
        decode(stream(TEXT))
    with pytest.raises(UpstreamProtocol, match="without a stop reason"):
        decode(b"")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ThrottlingException", RateLimited),
        ("InternalFailure", UpstreamUnavailable),
        ("AccessDeniedException", UpstreamRejectedUs),
        ("Whatever", UpstreamUnavailable),
    ],
)
def test_unmodeled_errors_are_all_in_their_headers(code: str, expected: type[GatewayError]) -> None:
    def header(name: str, value: str) -> bytes:
        data = value.encode()
        return bytes([len(name)]) + name.encode() + b"\x07" + len(data).to_bytes(2) + data

    block = header(":message-type", "error") + header(":error-code", code)
    with pytest.raises(expected) as caught:
        decode(frame(block + header(":error-message", "of arn:aws:iam::1:user/x"), b""))
    assert type(caught.value) is expected
    assert ("arn:" in caught.value.message) is (expected is not UpstreamRejectedUs)


@pytest.mark.parametrize(
    "line",
    [
        ["contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": 5}}],
        ["contentBlockDelta", []],
        ["contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": "x"}}],
        ["contentBlockStop", {"contentBlockIndex": None}],
        ["messageStop", {"stopReason": 1}],
        ["metadata", {"usage": {"inputTokens": "many"}}],
        ["contentBlockDelta", {"delta": {"reasoningContent": {"redactedContent": "?"}}}],
    ],
)
def test_nonsense_in_a_stream(line: object) -> None:
    with pytest.raises(UpstreamProtocol):
        decode(stream(line, STOP, METADATA))


@pytest.mark.parametrize(
    "body",
    [
        {"output": {"message": {"content": [5]}}, "stopReason": "end_turn"},
        {"output": {"message": {"content": "text"}}, "stopReason": "end_turn"},
        {"output": {"message": {"content": []}}},
        answer({"image": {"format": "png", "source": {"bytes": "no base64"}}}),
        answer({"text": "x"}, usage={"inputTokens": -1}),
        answer({"text": "x"}, usage={"inputTokens": 2**70}),
        {},
    ],
)
def test_nonsense_in_an_answer(body: Json) -> None:
    with pytest.raises(UpstreamProtocol):
        unary(body)


def test_more_parts_than_anybody_needs() -> None:
    lines = [
        ["contentBlockDelta", {"contentBlockIndex": index, "delta": {"text": "x"}}]
        for index in range(1100)
    ]
    with pytest.raises(UpstreamProtocol, match="parts"):
        decode(stream(*lines, STOP, METADATA))


def test_a_server_tool_call_with_broken_arguments() -> None:
    start = {"toolUse": {"toolUseId": "t", "name": "n", "type": "server_tool_use"}}
    delta = {"toolUse": {"input": "{not json"}}
    with pytest.raises(UpstreamProtocol, match="content block"):
        decode(
            stream(
                ["contentBlockStart", {"contentBlockIndex": 0, "start": start}],
                ["contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}],
                ["contentBlockStop", {"contentBlockIndex": 0}],
                STOP,
                METADATA,
            )
        )


def test_a_call_without_an_id_gets_one() -> None:
    (part,) = (
        unary(answer({"toolUse": {"name": "f", "input": {}}}, stop="tool_use"))
        .choices[0]
        .message.parts
    )
    assert part.tool_call.id.startswith("tooluse_")


def test_who_made_a_proof_is_said_with_it() -> None:
    body = json.dumps(
        answer({"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "S"}}})
    ).encode()
    request = chat_pb2.ChatRequest()
    for model, dialect in (
        (MODEL, "anthropic"),
        ("us.amazon.nova-2-lite-v1:0", "bedrock"),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/a1", "bedrock"),
    ):
        response = BedrockDialect(1 << 20).decode(body, request, target(model))
        assert response.choices[0].message.parts[0].reasoning.dialect == dialect


def test_counted_tokens() -> None:
    dialect = BedrockDialect(1 << 20)
    assert dialect.decode_count(b'{"inputTokens": 42}') == 42
    for body in (b"{}", b'{"inputTokens": "x"}', b'{"inputTokens": -1}', b"nope"):
        with pytest.raises(UpstreamProtocol):
            dialect.decode_count(body)
