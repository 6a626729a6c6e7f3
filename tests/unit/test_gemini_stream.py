"""Streams of the Gemini API beyond the golden cases: what comes early, late, twice, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import GatewayError, Overloaded, UpstreamProtocol
from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate_server.providers.gemini.calls import StreamedArguments
from headgate_server.providers.gemini.errors import decode_error
from headgate_server.providers.gemini.stream import GeminiStreamDecoder, decode_answer
from headgate_server.providers.gemini.wire import PartialArgWire

ROOT = Path(__file__).parents[1] / "golden" / "gemini"
ERROR = {"error": {"code": 503, "message": "Busy.", "status": "UNAVAILABLE"}}


def chunk(*parts: Any, finish: str | None = None, **members: Any) -> bytes:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if finish:
        candidate["finishReason"] = finish
    return line({"candidates": [candidate], "responseId": "r", **members})


def line(value: Any) -> bytes:
    return b"data: %b\r\n\r\n" % json.dumps(value).encode()


def decoder() -> GeminiStreamDecoder:
    return GeminiStreamDecoder(1 << 20)


def kinds(events: list[chat_pb2.ChatEvent]) -> list[str | None]:
    return [event.WhichOneof("event") for event in events]


STREAMS = [
    folder
    for folder in sorted(ROOT.iterdir())
    if (folder / "upstream.sse").exists() and not (folder / "error.json").exists()
]


@pytest.mark.parametrize("folder", STREAMS, ids=lambda folder: folder.name)
def test_without_its_finish_reasons_no_stream_is_whole(folder: Path) -> None:
    stream = (folder / "upstream.sse").read_bytes()
    for reason in (b"STOP", b"MAX_TOKENS", b"SAFETY", b"PROHIBITED_CONTENT"):
        stream = stream.replace(b'"finishReason": "%b"' % reason, b'"tokenCount": 1')
    found = decoder()
    events = found.feed(stream)
    assert not found.done
    with pytest.raises(UpstreamProtocol, match="finish reason"):
        found.finish()
    assert "completed" not in kinds(events)


def test_one_of_two_candidates_is_not_whole() -> None:
    found = decoder()
    candidates = [
        {"index": 0, "content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"},
        {"index": 1, "content": {"parts": [{"text": "b"}]}},
    ]
    found.feed(line({"candidates": candidates}))
    with pytest.raises(UpstreamProtocol, match="finish reason"):
        found.finish()


def test_nothing_starts_before_there_is_something() -> None:
    found = decoder()
    usage = line({"usageMetadata": {"promptTokenCount": 3}, "responseId": "r"})
    assert found.feed(usage + chunk({"text": ""})) == []
    events = found.feed(chunk({"text": "Hi"}))
    assert kinds(events) == ["started", "part_started", "part_delta"]
    assert events[0].started.id == "r"


def test_an_error_before_anything_is_that_error() -> None:
    found = decoder()
    with pytest.raises(Overloaded):
        found.feed(chunk({"text": ""}) + line(ERROR))


def test_an_error_after_something_in_the_same_read() -> None:
    found = decoder()
    events = found.feed(chunk({"text": "Hi"}) + line(ERROR) + chunk({"text": "never"}))
    assert kinds(events) == ["started", "part_started", "part_delta"]
    assert found.done
    with pytest.raises(Overloaded, match="Busy"):
        found.finish()


def test_a_part_of_a_bad_chunk_does_not_go_out() -> None:
    found = decoder()
    good = {"text": "Hi"}
    bad = {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "no path"}]}}
    with pytest.raises(UpstreamProtocol, match="no path"):
        found.feed(chunk(good, bad))


def test_more_behind_the_finish_reason() -> None:
    found = decoder()
    events = found.feed(chunk({"text": "Hi"}, finish="STOP"))
    events += found.feed(line({"candidates": [], "usageMetadata": {"totalTokenCount": 5}}))
    events += found.feed(chunk({"text": "!"}, finish="FINISH_REASON_UNSPECIFIED"))
    events += found.finish()
    answer = fold(events)
    assert answer.choices[0].message.parts[0].text == "Hi!"
    assert answer.choices[0].provider_finish_reason == "STOP"
    assert answer.usage.total_tokens == 5


def test_calls_without_ids_get_the_same_ones_whole_and_streamed() -> None:
    call = {"functionCall": {"name": "f"}}
    whole = decode_answer(
        json.dumps(
            {
                "candidates": [{"content": {"parts": [call, call]}, "finishReason": "STOP"}],
                "responseId": "r",
            }
        ).encode()
    )
    found = decoder()
    events = found.feed(chunk(call)) + found.feed(chunk(call, finish="STOP")) + found.finish()
    ids = [part.tool_call.id for part in fold(events).choices[0].message.parts]
    assert ids == [part.tool_call.id for part in whole.choices[0].message.parts]
    assert len(set(ids)) == 2
    assert all(name.startswith("call_") and len(name) == 29 for name in ids)


def test_calls_of_two_answers_have_different_ids() -> None:
    body = b'{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}}]}'
    first, second = decode_answer(body), decode_answer(body)
    assert first.id != second.id
    one, other = (answer.choices[0].message.parts[0].tool_call.id for answer in (first, second))
    assert one != other


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"candidates": 1}',
        b'{"candidates": [{"index": -1}]}',
        b'{"candidates": [{"index": 999999}]}',
        b'{"candidates": [{"content": {"parts": [{"text": 5}]}}]}',
        b'{"candidates": [{"content": {"parts": [{"inlineData": {"data": "%%"}}]}}]}',
        b'{"candidates": [{"content": {}}], "createTime": "yesterday"}',
        b'{"candidates": [{"content": {}}], "usageMetadata": {"promptTokenCount": 1e300}}',
        b'{"candidates": [{"content": {}, "logprobsResult": {"chosenCandidates": 1}}]}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": {"args": {"a": "\xff"}}}]}}]}',
        b'{"candidates": [{"content": {}, "novel": "\xff"}]}',
        b'{"candidates": [{"content": {"parts": [{"novel": "\xff"}]}}]}',
        b'{"error": "what"}',
        b"<html>",
    ],
)
def test_nonsense(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        decode_answer(body)
    found = decoder()
    with pytest.raises(UpstreamProtocol):
        found.feed(b"data: %b\n\n" % body)
        found.finish()


def test_odd_metadata_are_passed_on_unread() -> None:
    candidate = {"groundingMetadata": [1], "citationMetadata": {"citations": 5}}
    body = {"candidates": [candidate], "promptFeedback": 3}
    answer = decode_answer(json.dumps(body).encode())
    assert json.loads(answer.choices[0].extra_json) == candidate
    assert json.loads(answer.extra_json) == {"promptFeedback": 3}
    found = decoder()
    twice = line({"candidates": [candidate]}) + line({"candidates": [candidate]})
    events = found.feed(twice + chunk({"text": "x"}, finish="STOP")) + found.finish()
    assert json.loads(fold(events).choices[0].extra_json) == candidate


def test_odd_usage_details_are_passed_on_unread() -> None:
    usage = {"promptTokenCount": 3, "promptTokensDetails": {"modality": "AUDIO"}}
    body = {"candidates": [{"content": {}}], "usageMetadata": usage}
    answer = decode_answer(json.dumps(body).encode())
    assert answer.usage.input_tokens == answer.usage.total_tokens == 3
    assert not answer.usage.HasField("audio_input_tokens")
    assert json.loads(answer.usage.extra_json) == {"promptTokensDetails": {"modality": "AUDIO"}}


def test_log_probabilities_without_a_text_of_their_own() -> None:
    def logprobs(token: str) -> dict[str, Any]:
        return {"chosenCandidates": [{"token": token, "logProbability": -1}]}

    pieces = [
        {"content": {"parts": []}, "logprobsResult": logprobs("a")},
        {"content": {"parts": [{"text": "ab"}]}, "logprobsResult": logprobs("b")},
        {"finishReason": "STOP", "logprobsResult": logprobs("c")},
    ]
    found = decoder()
    events = [event for each in pieces for event in found.feed(line({"candidates": [each]}))]
    answer = fold(events + found.finish())
    (choice,) = answer.choices
    assert [part.text for part in choice.message.parts] == ["ab"]
    assert [token.token for token in choice.logprobs.content] == ["a", "b", "c"]


# Arguments in pieces.


def arguments(*pieces: dict[str, Any]) -> Any:
    found = StreamedArguments()
    for piece in pieces:
        found.add(PartialArgWire(**piece))
    return json.loads(found.text())


def test_arguments_in_pieces() -> None:
    assert arguments(
        {"json_path": "$.a.b", "string_value": "x"},
        {"json_path": "$.a.b", "string_value": "y"},
        {"json_path": "$.a.list[0].n", "number_value": 5},
        {"json_path": "$.a.list[0].m", "number_value": 1.5},
        {"json_path": "$.a.list[1]", "bool_value": False},
        {"json_path": "$['odd name']", "string_value": ""},
        {"json_path": '$["empty"]', "will_continue": True},
    ) == {
        "a": {"b": "xy", "list": [{"n": 5, "m": 1.5}, False]},
        "odd name": "",
        "empty": "",
    }


@pytest.mark.parametrize(
    "pieces",
    [
        [{"json_path": ""}],
        [{"json_path": "a"}],
        [{"json_path": "$"}],
        [{"json_path": "$."}],
        [{"json_path": "$.a[*]"}],
        [{"json_path": "$..a"}],
        [{"json_path": "$[0]", "number_value": 1}],
        [{"json_path": "$.a[1]", "number_value": 1}],
        [{"json_path": "$.a[999999999]", "number_value": 1}],
        [{"json_path": "$" + ".a" * 100, "number_value": 1}],
        [{"json_path": "$.a", "number_value": 1}, {"json_path": "$.a.b", "number_value": 1}],
    ],
)
def test_arguments_at_no_place(pieces: list[dict[str, Any]]) -> None:
    with pytest.raises(UpstreamProtocol):
        arguments(*pieces)


def test_a_piece_of_no_call() -> None:
    found = decoder()
    piece = {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}]}}
    events = found.feed(chunk(piece, finish="STOP")) + found.finish()
    (part,) = fold(events).choices[0].message.parts
    assert part.tool_call.arguments_json == '{"a":"x"}'


def test_a_call_that_is_cut_by_the_next() -> None:
    found = decoder()
    first = {"functionCall": {"name": "f", "id": "1", "willContinue": True}}
    piece = {
        "functionCall": {
            "partialArgs": [{"jsonPath": "$.a", "numberValue": 1}],
            "willContinue": True,
        }
    }
    second = {"functionCall": {"name": "g", "id": "2", "args": {}}}
    events = found.feed(chunk(first, piece, second, finish="STOP")) + found.finish()
    calls = [part.tool_call for part in fold(events).choices[0].message.parts]
    assert [(call.name, call.arguments_json) for call in calls] == [("f", '{"a":1}'), ("g", "{}")]


# Errors.


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        ("3s", 3.0),
        ("0.5s", 0.5),
        ("-1s", 0.0),
        ("99999999s", 86400.0),
        ("infs", None),
        ("soon", None),
        ("", None),
        (5, None),
    ],
)
def test_how_long_to_wait(delay: Any, expected: float | None) -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [detail]}}
    error = decode_error(429, {}, json.dumps(body).encode())
    assert error.retry_after == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"[1]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"error": null}',
        b'{"error": []}',
        b'{"error": {"code": "x", "message": 5, "status": {}, "details": {}}}',
        b'{"error": {"details": [1, {"@type": 3, "violations": [1, {"quotaId": 5}]}]}}',
        b'{"error": {"details": [{"@type": "x.BadRequest", "fieldViolations": [{"field": 1}]}]}}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("status", [0, 200, 302, 400, 401, 403, 404, 418, 429, 499, 500, 501, 599])
def test_no_body_is_too_odd(status: int, body: bytes) -> None:
    error = decode_error(status, {}, body)
    assert isinstance(error, GatewayError)
    assert error.metadata["upstream_status"] == str(status)
