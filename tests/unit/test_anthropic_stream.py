"""Streams of Anthropic: what golden cases do not reach, mostly servers that are a little different."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from headgate.errors import GatewayError, Overloaded, UpstreamProtocol
from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate_server.providers.anthropic.answer import decode_answer
from headgate_server.providers.anthropic.stream import AnthropicStreamDecoder

START = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "c"},
}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
STOP = {"type": "message_stop"}
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **members: Any) -> dict[str, Any]:
    return {
        "type": "content_block_delta",
        "index": index,
        "delta": {"type": kind, **members},
    }


def end(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def wire(*events: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def decode(*events: dict[str, Any]) -> list[chat_pb2.ChatEvent]:
    decoder = AnthropicStreamDecoder(1 << 20)
    return decoder.feed(wire(*events)) + decoder.finish()


def parts(*events: dict[str, Any]) -> list[dict[str, Any]]:
    response = fold(decode(START, *events, DELTA, STOP))
    found: list[dict[str, Any]] = json_format.MessageToDict(
        response.choices[0].message, preserving_proto_field_name=True
    ).get("parts", [])
    return found


def test_nothing_is_said_before_the_first_real_event() -> None:
    decoder = AnthropicStreamDecoder(1 << 20)
    assert decoder.feed(wire(START, {"type": "ping"})) == []
    with pytest.raises(Overloaded):
        decoder.feed(wire(ERROR))


def test_what_came_before_an_error_in_the_same_read_goes_out_first() -> None:
    decoder = AnthropicStreamDecoder(1 << 20)
    events = decoder.feed(
        wire(START, begin(0, type="text", text=""), delta(0, "text_delta", text="Hel"), ERROR)
    )
    assert [event.WhichOneof("event") for event in events] == [
        "started",
        "part_started",
        "part_delta",
    ]
    assert decoder.done
    with pytest.raises(Overloaded):
        decoder.finish()


def test_an_answer_that_breaks_off_inside_a_block_starts_with_started() -> None:
    decoder = AnthropicStreamDecoder(1 << 20)
    events = decoder.feed(
        wire(START, begin(0, type="later"), begin(1, type="text", text={"not": "a text"}))
    )
    assert events[0].HasField("started")
    with pytest.raises(UpstreamProtocol):
        decoder.finish()


def test_it_is_done_with_message_stop_and_not_before() -> None:
    decoder = AnthropicStreamDecoder(1 << 20)
    decoder.feed(wire(START, begin(0, type="text", text=""), end(0), DELTA))
    assert not decoder.done
    decoder.feed(wire(STOP))
    assert decoder.done
    assert decoder.feed(wire(ERROR) + b"data: nonsense\n\n") == []
    assert decoder.finish()[-1].HasField("completed")


@pytest.mark.parametrize("kept", range(6))
def test_a_stream_that_ends_early_is_no_answer(kept: int) -> None:
    events = [
        START,
        begin(0, type="text", text=""),
        delta(0, "text_delta", text="Hel"),
        end(0),
        DELTA,
        STOP,
    ]
    with pytest.raises(UpstreamProtocol, match="finish reason"):
        decode(*events[:kept])
    assert decode(*events)[-1].HasField("completed")


def test_the_done_mark_of_another_dialect_changes_nothing() -> None:
    decoder = AnthropicStreamDecoder(1 << 20)
    decoder.feed(b"data: [DONE]\n\n" + wire(START, begin(0, type="text", text=""), DELTA, STOP))
    decoder.feed(b"data: [DONE]\n\n")
    assert decoder.finish()[-1].HasField("completed")


def test_blocks_that_are_never_stopped_are_whole_all_the_same() -> None:
    assert parts(
        begin(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="Hm."),
        delta(0, "signature_delta", signature="c2ln"),
        begin(1, type="tool_use", id="t", name="f", input={}),
    ) == [
        {"reasoning": {"text": "Hm.", "signature": "c2ln", "dialect": "anthropic"}},
        {"tool_call": {"id": "t", "name": "f", "arguments_json": "{}"}},
    ]


def test_parts_are_numbered_in_the_order_of_blocks_that_interleave() -> None:
    found = parts(
        begin(0, type="server_tool_use", id="s", name="web_search", input={}),
        delta(0, "input_json_delta", partial_json='{"query":'),
        begin(1, type="text", text=""),
        delta(1, "text_delta", text="Hm."),
        delta(0, "input_json_delta", partial_json='"x"}'),
        end(0),
        end(1),
    )
    assert json.loads(found[0]["vendor_part"]["json"])["input"] == {"query": "x"}
    assert found[1] == {"text": "Hm."}


def test_a_server_tools_input_that_was_cut_off_stays_a_text() -> None:
    (part,) = parts(
        begin(0, type="server_tool_use", id="s", name="web_search", input={}),
        delta(0, "input_json_delta", partial_json='{"query":"x'),
        end(0),
    )
    assert json.loads(part["vendor_part"]["json"])["input"] == '{"query":"x'


def test_an_unknown_block_grows_with_whatever_its_deltas_bring() -> None:
    (part,) = parts(
        begin(0, type="poem", verse="Roses", rhymes=["red"], line=1, text="a"),
        delta(0, "poem_delta", verse=" are", rhymes=["bed"], line=2, mood=None),
        delta(0, "text_delta", text="b"),
        delta(0, "citations_delta", citation={"type": "x"}),
        end(0),
    )
    assert json.loads(part["vendor_part"]["json"]) == {
        "type": "poem",
        "verse": "Roses are",
        "rhymes": ["red", "bed"],
        "line": 2,
        "text": "ab",
        "mood": None,
        "citations": [{"type": "x"}],
    }


def test_a_block_that_did_not_grow_stays_as_it_came() -> None:
    decoder = AnthropicStreamDecoder(1 << 20)
    text = '{"type":"poem",  "n": 1.0}'
    events = decoder.feed(
        wire(START)
        + b'data: {"type":"content_block_start","index":0,"content_block":%s}\n\n' % text.encode()
        + wire(end(0), DELTA, STOP)
    )
    assert events[1].part_started.initial.vendor_part.json == text


def test_usage_is_cumulative_and_keeps_what_is_said_once() -> None:
    head = {
        "input_tokens": 3,
        "cache_read_input_tokens": 4,
        "output_tokens": 1,
        "service_tier": "standard",
        "cache_creation": {"a": 1},
        "early": 1,
    }
    start = {"type": "message_start", "message": {**START["message"], "usage": head}}  # type: ignore[dict-item]
    events = decode(
        start,
        {**DELTA, "usage": {"output_tokens": 5, "cache_creation": None, "late": 2}},
        {**DELTA, "usage": {"input_tokens": 10, "output_tokens": 7, "service_tier": "priority"}},
        STOP,
    )
    assert events[0].started.service_tier == "standard"
    completed = events[-1].completed
    assert completed.service_tier == "priority"
    usage = completed.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (14, 7, 21)
    assert usage.cached_input_tokens == 4
    assert not usage.HasField("cache_write_input_tokens")
    assert json.loads(usage.extra_json) == {"cache_creation": {"a": 1}, "early": 1, "late": 2}


def test_usage_may_come_late_alone() -> None:
    events = decode(START, {**DELTA, "usage": {"input_tokens": 2, "output_tokens": 3}}, STOP)
    assert events[-1].completed.usage.total_tokens == 5


@pytest.mark.parametrize(
    "events",
    [
        [delta(0, "text_delta", text="x")],
        [begin(0, type="text", text=""), begin(0, type="text", text="")],
        [begin(0, type="text", text=7)],
        [begin(0, type=7)],
        [{"type": "content_block_start", "index": 0}],
        [{"type": "content_block_start", "index": -1, "content_block": {"type": "text"}}],
        [{"type": "message_start", "message": "hi"}],
        [{"type": "message_delta", "delta": {"stop_reason": 7}}],
        [{**DELTA, "usage": {"output_tokens": -1}}, STOP],
        [{"type": "error"}],
    ],
    ids=str,
)
def test_nonsense_is_an_error_of_the_upstream(events: list[dict[str, Any]]) -> None:
    with pytest.raises(GatewayError) as caught:
        decode(START, *events, DELTA, STOP)
    assert isinstance(caught.value, UpstreamProtocol) or events == [{"type": "error"}]


@pytest.mark.parametrize(
    "data",
    [b"[]", b"7", b'"x"', b"{", b"\xff", b'{"type":{}}', b"[" * 100_000],
    ids=lambda data: repr(data[:12]),
)
def test_data_of_another_shape_is_an_error_of_the_upstream(data: bytes) -> None:
    decoder = AnthropicStreamDecoder(1 << 20)
    with pytest.raises(UpstreamProtocol):
        decoder.feed(b"data: " + data + b"\n\n")


def test_a_thousand_parts_are_enough() -> None:
    many = [begin(index, type="text", text="") for index in range(1025)]
    with pytest.raises(UpstreamProtocol, match="1024 parts"):
        decode(START, *many, DELTA, STOP)


# Whole answers of odd shapes.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"content":"text"}',
        b'{"content":["x"]}',
        b'{"content":[{"type":"text","text":7}]}',
        b'{"content":[{"text":"no type"}],"usage":{"output_tokens":-1}}',
        b'{"content":[],"usage":{"output_tokens":1e300}}',
        b'{"content":[{"type":"text","text":"\xff"}]}',
    ],
    ids=repr,
)
def test_nonsense_as_a_whole_answer(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        decode_answer(body)


def test_members_that_are_null_are_not_there() -> None:
    response = decode_answer(
        b'{"id":"m","model":"c","content":[{"type":"text","text":"x","citations":null}],'
        b'"stop_reason":null,"stop_details":null,"container":null,"usage":{"cache_creation":null,'
        b'"cache_read_input_tokens":null,"input_tokens":1,"output_tokens":2}}'
    )
    (choice,) = response.choices
    assert choice.finish_reason == chat_pb2.FINISH_REASON_OTHER
    assert not choice.HasField("extra_json")
    assert not response.HasField("extra_json")
    assert not response.usage.HasField("extra_json")
    assert not response.usage.HasField("cached_input_tokens")


def test_offsets_count_characters_of_all_the_text_before() -> None:
    cited = {"type": "web_search_result_location", "url": "https://e.com"}
    body = {
        "content": [
            {"type": "text", "text": "🙂é"},
            {"type": "thinking", "thinking": "not counted", "signature": "s"},
            {"type": "text", "text": "abc", "citations": [cited]},
        ]
    }
    part = decode_answer(json.dumps(body).encode()).choices[0].message.parts[2]
    citation = part.annotations[0].url_citation
    assert (citation.start_index, citation.end_index) == (2, 5)
    assert json.loads(part.extra_json) == {"citations": [cited]}
