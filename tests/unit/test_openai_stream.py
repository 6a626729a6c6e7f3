"""OpenAI's chunks as vendors really send them, and as nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.errors import GatewayError, Overloaded, UpstreamProtocol, UpstreamUnavailable
from headgate.fold import fold
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers.openai.answer import decode_answer
from headgate_server.providers.openai.completions import completion_decoder, decode_completion
from headgate_server.providers.openai.errors import decode_error, error_in_body
from headgate_server.providers.openai.stream import OpenAIStreamDecoder
from headgate_server.providers.think_tags import ThinkTags
from headgate_server.providers.vendors import Vendor, vendors

Json = dict[str, Any]
ACME = Vendor(name="Acme")
DONE = "[DONE]"


def chunk(delta: Json | None = None, finish: str | None = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [choice], **more}  # fmt: skip


def call(arguments: Any = None, **members: Any) -> Json:
    """A delta with one piece of a tool call."""
    function = {} if arguments is None else {"arguments": arguments}
    if "name" in members:
        function["name"] = members.pop("name")
    return {"tool_calls": [{**members, "function": function}]}


def decode(*chunks: Json | str | bytes, vendor: Vendor = ACME) -> list[chat_pb2.ChatEvent]:
    """The events of these chunks. Text and bytes go in as they are, without `data:`."""
    decoder = OpenAIStreamDecoder(1 << 20, vendor)
    events: list[chat_pb2.ChatEvent] = []
    for item in chunks:
        data = item if isinstance(item, bytes) else (
            item.encode() if isinstance(item, str) else json.dumps(item).encode()
        )  # fmt: skip
        events += decoder.feed(b"data: " + data + b"\n\n")
    return events + decoder.finish()


def answer(*chunks: Json | str | bytes, vendor: Vendor = ACME) -> chat_pb2.ChatResponse:
    return fold(decode(*chunks, vendor=vendor))


def parts(*chunks: Json | str | bytes) -> list[content_pb2.Part]:
    return list(answer(*chunks).choices[0].message.parts)


def text(*chunks: Json | str | bytes) -> str:
    return "".join(part.text for part in parts(*chunks))


def calls(*deltas: Json) -> list[tuple[str, str, str]]:
    """(id, name, arguments) of each call; "*" stands for an id of our own making."""
    found = parts(*[chunk(delta) for delta in deltas], chunk(finish="tool_calls"))
    return [
        ("*" if c.id.startswith("call_") else c.id, c.name, c.arguments_json)
        for c in (part.tool_call for part in found)
    ]


HI = chunk({"content": "Hi"})
STOP = chunk(finish="stop")
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


# Text, roles, choices.


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        pytest.param([HI, STOP, DONE], "Hi", id="plain"),
        pytest.param([HI, STOP], "Hi", id="[DONE] missing"),
        pytest.param([HI, STOP, " [DONE]  "], "Hi", id="[DONE] with spaces"),
        pytest.param([HI, STOP, DONE, HI, "nonsense"], "Hi", id="after [DONE]"),
        pytest.param([chunk(choices=[]), HI, STOP, chunk(choices=[])], "Hi", id="empty choices"),
        pytest.param([chunk(choices=None), HI, STOP], "Hi", id="null choices"),
        pytest.param([{"id": "c"}, HI, STOP], "Hi", id="absent choices"),
        pytest.param([chunk({"content": None}), HI, STOP], "Hi", id="null content"),
        pytest.param([chunk(choices=[{"index": 0, "delta": None}]), HI, STOP], "Hi", id="null delta"),
        pytest.param([chunk(choices=[{}]), HI, STOP], "Hi", id="empty choice"),
        pytest.param([chunk({"role": "assistant", "content": c}) for c in "ab"] + [STOP], "ab",
                     id="role repeated"),
        pytest.param([HI, chunk({"content": "!"}, "stop")], "Hi!", id="finish with content"),
        pytest.param([HI, chunk({"content": ""}, ""), STOP], "Hi", id="empty finish reason"),
        pytest.param([chunk({"content": [{"type": "text", "text": "a"}, {"text": "b"}]}), STOP],
                     "ab", id="content as list"),
        pytest.param([chunk(choices=[{"message": {"content": "Hi"}, "finish_reason": "stop"}])],
                     "Hi", id="message instead of delta"),
        pytest.param([chunk(choices=[{"index": 0.0, "delta": {"content": "Hi"}}]), STOP], "Hi",
                     id="index as float"),
        pytest.param([chunk(choices=[{"delta": {"content": "Hi"}}]), STOP], "Hi", id="no index"),
    ],
)  # fmt: skip
def test_text(chunks: list[Any], said: str) -> None:
    assert text(*chunks) == said


@pytest.mark.parametrize(
    ("reasons", "ours", "theirs"),
    [
        (["stop"], chat_pb2.FINISH_REASON_STOP, "stop"),
        (["stop", "stop"], chat_pb2.FINISH_REASON_STOP, "stop"),
        (["stop", "length"], chat_pb2.FINISH_REASON_LENGTH, "length"),
        (["length", "stop"], chat_pb2.FINISH_REASON_LENGTH, "length"),
        (["eos"], chat_pb2.FINISH_REASON_STOP, "eos"),
        (["sensitive"], chat_pb2.FINISH_REASON_CONTENT_FILTER, "sensitive"),
        (["whatever"], chat_pb2.FINISH_REASON_OTHER, "whatever"),
    ],
)
def test_finish_reasons(reasons: list[str], ours: int, theirs: str) -> None:
    choice = answer(HI, *[chunk(finish=reason) for reason in reasons]).choices[0]
    assert (choice.finish_reason, choice.provider_finish_reason) == (ours, theirs)


def test_content_behind_the_finish_reason_is_kept() -> None:
    """Some proxies put "stop" into every chunk."""
    events = decode(chunk({"content": "a"}, "stop"), chunk({"content": "b"}, "stop"))
    assert fold(events).choices[0].message.parts[0].text == "ab"
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.count("choice_finished") == 1
    assert kinds.index("choice_finished") == len(kinds) - 2


def test_a_stop_behind_calls_asks_for_their_results() -> None:
    delta = call("{}", index=0, id="a", name="f")
    for chunks in ([chunk(delta, "stop")], [chunk(delta, "tool_calls"), STOP]):
        assert answer(*chunks).choices[0].finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS


def test_choices_interleave() -> None:
    def at(index: int, content: str, finish: str | None = None) -> Json:
        choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
        return chunk(choices=[choice])

    both = chunk(choices=[at(1, "y")["choices"][0], at(0, "b")["choices"][0]])
    found = answer(at(1, "x"), at(0, "a"), both, at(0, "", "stop"), at(1, "z", "length"))
    assert [(c.index, c.message.parts[0].text) for c in found.choices] == [(0, "ab"), (1, "xyz")]


def test_thinking_then_text() -> None:
    found = parts(
        chunk({"reasoning_content": "a", "content": ""}), chunk({"reasoning": "b"}),
        chunk({"reasoning_content": "c", "reasoning": "c"}), HI, STOP,
    )  # fmt: skip
    assert found == [
        content_pb2.Part(reasoning=content_pb2.Reasoning(text="abc")),
        content_pb2.Part(text="Hi"),
    ]


# Head and usage.


def test_ids_as_numbers_and_times_as_floats() -> None:
    found = answer(*[c | {"id": 17, "created": 1.5} for c in (HI, STOP)])
    assert found.id == "17"
    assert found.create_time.ToMilliseconds() == 1500


def test_what_the_head_lacks_is_made_up() -> None:
    events = decode({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]})
    assert events[0].started.id.startswith("chatcmpl-")
    assert events[0].started.create_time.seconds > 1_600_000_000
    assert events[0].started.model == ""


@pytest.mark.parametrize(
    "chunks",
    [
        [HI, STOP, chunk(choices=[], usage=USAGE)],
        [HI, STOP | {"usage": USAGE}],
        [HI | {"usage": {**USAGE, "total_tokens": 1}}, STOP | {"usage": USAGE}],
        [HI | {"usage": None}, STOP, chunk(choices=None, usage=USAGE)],
        [HI, chunk(choices=[{"finish_reason": "stop", "usage": USAGE}])],
        [
            HI,
            chunk(choices=[{"finish_reason": "stop", "usage": {}}]),
            chunk(choices=[], usage=USAGE),
        ],
        [HI, STOP | {"usage": {**USAGE, "prompt_tokens": 1.0}}],
        [HI, STOP | {"usage": {k: v for k, v in USAGE.items() if k != "total_tokens"}}],
    ],
)
def test_usage_wherever_it_stands(chunks: list[Json]) -> None:
    usage = answer(*chunks).usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (1, 2, 3)


def test_no_usage_is_not_zero_usage() -> None:
    assert not answer(HI, STOP).HasField("usage")


def test_usage_per_choice_is_added_up() -> None:
    chunks = [HI, STOP, chunk(choices=[], usage=USAGE), chunk(choices=[], usage=USAGE)]
    assert answer(*chunks, vendor=vendors()["llamacpp"]).usage.output_tokens == 4
    assert answer(*chunks).usage.output_tokens == 2


@pytest.mark.parametrize(
    ("prompt", "n", "counted"),
    [('["a", "b"]', 0, 2), ("[[1], [2]]", 1, 2), ("[1, 2]", 0, 1), ('"a"', 2, 1), ('["a"]', 2, 1)],
)
def test_usage_of_several_prompts_is_added_up(prompt: str, n: int, counted: int) -> None:
    request = chat_pb2.ChatRequest(n=n)
    request.text_completion.prompt_json = prompt
    decoder = completion_decoder(1 << 20, vendors()["llamacpp"], request)
    events = []
    for index in range(2):
        done = {"text": "x", "index": index, "finish_reason": "stop"}
        body = json.dumps({"id": "c", "choices": [done], "usage": USAGE})
        events += decoder.feed(b"data: " + body.encode() + b"\n\n")
    usage = fold(events + decoder.finish()).usage
    assert (usage.input_tokens, usage.output_tokens) == (counted, 4)


# Tool calls.


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        pytest.param(
            [call("", index=0, id="a", name="f"), call('{"x"', index=0), call(":1}", index=0)],
            [("a", "f", '{"x":1}')], id="as OpenAI does"),
        pytest.param([call("{}", index=0, id="a", name="f")], [("a", "f", "{}")], id="one piece"),
        pytest.param([call({"x": 1}, index=0, id="a", name="f")], [("a", "f", '{"x": 1}')],
                     id="arguments as object"),
        pytest.param([call(None, index=0, id="a", name="f")], [("a", "f", "")], id="no arguments"),
        pytest.param([call("{}", index=0, name="f")], [("*", "f", "{}")], id="no id"),
        pytest.param([call("{}", index=0, id=7, name="f")], [("7", "f", "{}")], id="id as number"),
        pytest.param([call("{", index=0, id="a", name="f"), call("}", index=0, id="")],
                     [("a", "f", "{}")], id="empty id later"),
        pytest.param([call("{", index=0, id="a", name="f"), call("}", index=0, id="a")],
                     [("a", "f", "{}")], id="id in each delta"),
        pytest.param([call("{", index=0, id="a", name="f"), call("}", index=0, id="a", name="f")],
                     [("a", "f", "{}")], id="id and name in each delta"),
        pytest.param([call("{", index=0, id="a", name="f"), call("}", index=0, name="f")],
                     [("a", "f", "{}")], id="name in each delta"),
        pytest.param([call("{", id="a", name="f"), call("}"), call("{}", id="b", name="g")],
                     [("a", "f", "{}"), ("b", "g", "{}")], id="index missing"),
        pytest.param([call("{}", index=0, id="a", name="f"), call("{}", index=0, id="b", name="f")],
                     [("a", "f", "{}"), ("b", "f", "{}")], id="index always 0"),
        pytest.param([call("{", index=0, id="a", name="f"), call("[", index=0, id="b", name="g"),
                      call("]", index=0, id="b"), call("}", index=0, id="a")],
                     [("a", "f", "{}"), ("b", "g", "[]")], id="index always 0, interleaved by id"),
        pytest.param([call("{}", index=0, name="f"), call("{}", index=0, name="f")],
                     [("*", "f", "{}"), ("*", "f", "{}")], id="whole calls without ids"),
        pytest.param([call("{}", name="f"), call("{}", name="g")],
                     [("*", "f", "{}"), ("*", "g", "{}")], id="neither index nor id"),
        pytest.param([call("", index=0, id="a", name="f"), call("", index=1, id="b", name="g"),
                      call("1", index=1), call("0", index=0), call("1", index=1)],
                     [("a", "f", "0"), ("b", "g", "11")], id="interleaved by index"),
        pytest.param([{"tool_calls": [*call("0", index=0, id="a", name="f")["tool_calls"],
                                      *call("1", index=1, id="b", name="g")["tool_calls"]]}],
                     [("a", "f", "0"), ("b", "g", "1")], id="two in one chunk"),
        pytest.param([call("0", index=0.0, id="a", name="f"), call("1", index=0)],
                     [("a", "f", "01")], id="index as float"),
        pytest.param([call("0", index=5, id="a", name="f"), call("1", index=-1, id="b", name="g")],
                     [("a", "f", "0"), ("b", "g", "1")], id="odd indices"),
        pytest.param([{"function_call": {"name": "f", "arguments": "{"}},
                      {"function_call": {"arguments": "}"}}],
                     [("*", "f", "{}")], id="deprecated function_call"),
        pytest.param([{"tool_calls": None}, {"tool_calls": []}, call("{}", index=0, id="a", name="f")],
                     [("a", "f", "{}")], id="null and empty lists"),
    ],
)  # fmt: skip
def test_tool_calls(deltas: list[Json], expected: list[tuple[str, str, str]]) -> None:
    assert calls(*deltas) == expected


def test_a_vendors_state_of_a_call_may_come_early_or_late() -> None:
    early = call("{}", index=0, id="a", name="f", sign="x")
    late = {"tool_calls": [{"index": 0, "sign": "y", "more": [2]}]}
    (one,) = parts(chunk(early), STOP)
    assert json.loads(one.extra_json) == {"sign": "x"}
    (both,) = parts(chunk(early | {}), chunk(late), chunk(late), STOP)
    assert json.loads(both.extra_json) == {"sign": "y", "more": [2, 2]}


# Log probabilities.


def token(name: str) -> Json:
    return {"token": name, "logprob": -1, "bytes": None, "top_logprobs": []}


def with_tokens(delta: Json, kind: str, *tokens: Json, finish: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": {kind: tokens}}
    return chunk(choices=[choice])


def test_tokens_stay_with_what_they_are_tokens_of() -> None:
    found = answer(
        with_tokens({"reasoning_content": "hm"}, "content", token("hm")),
        with_tokens({"reasoning_content": "hm"}, "content", token("hm")),
        with_tokens({"content": "Hi"}, "content", token("Hi")),
        with_tokens({}, "content", token("")),
        with_tokens(call("{}", index=0, id="a", name="f"), "content", token("{}")),
        STOP,
    ).choices[0]
    assert [p.WhichOneof("kind") for p in found.message.parts] == ["reasoning", "text", "tool_call"]
    assert [t.token for t in found.logprobs.content] == ["hm", "hm", "Hi", "", "{}"]


def test_tokens_of_a_refusal() -> None:
    found = answer(with_tokens({"refusal": "No"}, "refusal", token("No")), STOP).choices[0]
    assert [t.token for t in found.logprobs.refusal] == ["No"]
    assert not found.logprobs.content
    (part,) = found.message.parts
    assert part.refusal == "No"


def test_log_probabilities_of_another_form_are_ignored() -> None:
    old = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"tokens": ["Hi"], "content": 3}}
    assert text(chunk(choices=[old]), STOP) == "Hi"


# Members that nobody knows.


def test_unknown_members_travel_at_every_level() -> None:
    big = b'{"a":12345678901234567890,"z":1.10}'
    first = (
        b'{"id":"c","model":"m","created":1,"top":%s,"choices":[{"index":0,"of_choice":%s,'
        b'"delta":{"content":"Hi","of_delta":%s}}],'
        b'"usage":{"prompt_tokens":1,"of_usage":%s}}' % (big, big, big, big)
    )
    found = answer(first, STOP)
    choice = found.choices[0]
    assert found.extra_json == f'{{"top":{big.decode()}}}'
    assert choice.extra_json == f'{{"of_choice":{big.decode()}}}'
    assert choice.message.extra_json == f'{{"of_delta":{big.decode()}}}'
    assert found.usage.extra_json == f'{{"of_usage":{big.decode()}}}'


def test_the_latest_value_of_an_unknown_member_counts() -> None:
    found = answer(HI | {"list": [1], "text": "a"}, STOP | {"list": [1, 2], "text": "b"})
    assert json.loads(found.extra_json) == {"list": [1, 2], "text": "b"}


def test_lists_in_deltas_grow() -> None:
    found = answer(chunk({"details": [1]}), chunk({"details": [2], "x": 1}), STOP)
    assert json.loads(found.choices[0].message.extra_json) == {"details": [1, 2], "x": 1}


def test_unknown_members_cost_the_same_in_a_long_stream() -> None:
    """The state grows by what is new, and is not read again with each chunk."""
    decoder = OpenAIStreamDecoder(1 << 20, ACME)
    piece = b"data: " + json.dumps(chunk({"content": "x", "d": [1]}, top="y")).encode() + b"\n\n"
    for _ in range(500):
        decoder.feed(piece)
    (choice,) = decoder._choices.values()
    assert len(choice._message_extra["d"]) == 500
    assert len(decoder._extra) == 1


# Framing.


def stream(raw: bytes) -> chat_pb2.ChatResponse:
    decoder = OpenAIStreamDecoder(1 << 20, ACME)
    return fold(decoder.feed(raw) + decoder.finish())


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("colon", [b"data: ", b"data:"])
@pytest.mark.parametrize("noise", [b"", b": ping\n\n", b"event: message\nid: 1\nretry: 5\nx: y\n"])
def test_framing(end: bytes, mark: bytes, colon: bytes, noise: bytes) -> None:
    body = b"".join(noise + colon + json.dumps(item).encode() + b"\n\n" for item in (HI, STOP)) + (
        colon + b"[DONE]\n\n"
    )
    found = stream(mark + body.replace(b"\n", end))
    assert found.choices[0].message.parts[0].text == "Hi"


def test_data_over_several_lines() -> None:
    lines = json.dumps(chunk({"content": "Hi"}, "stop"), indent=1).splitlines()
    raw = "".join(f"data: {line}\n" for line in lines) + "\n"
    assert stream(raw.encode()).choices[0].message.parts[0].text == "Hi"


# Failures.


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([], id="nothing"),
        pytest.param([DONE], id="only [DONE]"),
        pytest.param([HI], id="no finish reason"),
        pytest.param([HI, DONE], id="[DONE] without finish reason"),
        pytest.param([HI, chunk(choices=[{"index": 1, "delta": {"content": "x"}}]), STOP],
                     id="one of two choices unfinished"),
        pytest.param(["{"], id="broken JSON"),
        pytest.param(["nonsense"], id="no JSON"),
        pytest.param(["[1]"], id="a list"),
        pytest.param(['"text"'], id="a string"),
        pytest.param([b'{"model":"\xff"}'], id="not UTF-8"),
        pytest.param([b'{"unknown":"\xff","choices":[{"finish_reason":"stop"}]}'],
                     id="not UTF-8 in an unknown member"),
        pytest.param([b'{"choices":[{"delta":{"content":"\\ud800"}}]}'], id="half a surrogate pair"),
        pytest.param([chunk({"content": 5})], id="content as number"),
        pytest.param([chunk({"content": [5]})], id="content as list of numbers"),
        pytest.param([chunk(choices={"index": 0})], id="choices as object"),
        pytest.param([chunk(choices=[{"index": "0"}])], id="index as text"),
        pytest.param([chunk(choices=[{"index": -1}])], id="index negative"),
        pytest.param([chunk(choices=[{"index": 128}])], id="index too large"),
        pytest.param([chunk(choices=[{"index": 10**40}])], id="index huge"),
        pytest.param([chunk(choices=[{"index": 1e300}])], id="index huge float"),
        pytest.param([HI | {"created": 10**30}], id="created huge"),
        pytest.param([HI | {"created": -1e300}], id="created huge float"),
        pytest.param([HI | {"usage": {"prompt_tokens": 2**63}}], id="tokens huge"),
        pytest.param([HI | {"usage": {"prompt_tokens": "1"}}], id="tokens as text"),
        pytest.param(['{"created":NaN}'], id="NaN"),
        pytest.param(['{"created":1e999}'], id="more than a float"),
        pytest.param([chunk({"audio": {"data": "%%"}})], id="audio not base64"),
        pytest.param([chunk({"audio": {"expires_at": 10**18}})], id="audio expires never"),
        pytest.param([with_tokens({}, "content", token("x") | {"bytes": [256]})], id="not a byte"),
        pytest.param([b'{"x":' + b"[" * 100_000], id="nested deeply"),
        pytest.param([chunk({"content": "x", "x": 1}, "stop"), chunk(call(index=0, id=[]))],
                     id="id as list"),
    ],
)  # fmt: skip
def test_nonsense_is_a_protocol_error(chunks: list[Any]) -> None:
    with pytest.raises(UpstreamProtocol):
        decode(*chunks)


def test_a_stream_gone_mad_is_bounded() -> None:
    flips = [chunk({"content": "a"} if n % 2 else {"reasoning": "b"}) for n in range(1100)]
    with pytest.raises(UpstreamProtocol, match="parts"):
        decode(*flips)
    decoder = OpenAIStreamDecoder(1000, ACME)
    with pytest.raises(UpstreamProtocol, match="1000 bytes"):
        for _ in range(100):
            decoder.feed(b"data: 0123456789")


def test_an_error_before_anything_leaves_no_events() -> None:
    decoder = OpenAIStreamDecoder(1 << 20, ACME)
    role = chunk({"role": "assistant", "content": ""})
    assert decoder.feed(f"data: {json.dumps(role)}\n\n".encode()) == []
    with pytest.raises(UpstreamUnavailable, match="boom"):
        decoder.feed(b'data: {"error":{"message":"boom"}}\n\n')


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("insufficient_system_resource", Overloaded),
        ("network_error", UpstreamUnavailable),
        ("abort", UpstreamUnavailable),
        ("error", UpstreamUnavailable),
    ],
)
def test_a_broken_answer_is_an_error(reason: str, kind: type[GatewayError]) -> None:
    decoder = OpenAIStreamDecoder(1 << 20, ACME)
    begun = decoder.feed(f"data: {json.dumps(HI)}\n\n".encode())
    assert begun[0].HasField("started")
    with pytest.raises(kind, match=reason) as caught:
        decoder.feed(f"data: {json.dumps(chunk(finish=reason))}\n\n".encode())
    assert type(caught.value) is kind
    assert caught.value.metadata == {"upstream_code": reason}
    whole = {"choices": [{"message": {"content": "Hi"}, "finish_reason": reason}]}
    with pytest.raises(kind, match=reason):
        decode_answer(json.dumps(whole).encode())


def test_the_upstreams_own_error_in_a_broken_choice() -> None:
    told = {"finish_reason": "error", "error": {"code": 429, "message": "slow"}, "delta": {}}
    with pytest.raises(GatewayError, match="slow") as caught:
        decode(HI, chunk(choices=[told]))
    assert caught.value.http_status == 429


def test_a_first_chunk_without_an_id_is_not_the_head() -> None:
    filters = {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": [1]}
    found = answer(filters, HI, STOP)
    assert (found.id, found.model, found.create_time.seconds) == ("c", "m", 1)
    assert json.loads(found.extra_json) == {"prompt_filter_results": [1]}


def test_null_events_say_nothing() -> None:
    assert text("null", HI, "null", STOP) == "Hi"


# Signatures, images, thinking between tags.


def signed(signature: str) -> Json:
    return {"extra_content": {"google": {"thought_signature": signature}}}


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([{"content": "a", **signed("x")}], [("a", "x")]),
        ([{"content": "a"}, signed("x")], [("a", "x")]),
        ([signed("x")], [("", "x")]),
        ([signed("x"), {"content": "a"}], [("a", "x")]),
        ([{"content": "a"}, {"content": "b", **signed("x")}, signed("y")], [("ab", "y")]),
        ([{"content": "a", **signed("x")}, {"reasoning": "r"}], [("a", "x"), ("", "")]),
        ([{"content": "a", **signed("x")}, call("{}", index=0, id="c", name="f")],
         [("a", "x"), ("", "")]),
        ([call("{}", index=0, id="c", name="f"), signed("x")], [("", ""), ("", "x")]),
    ],
)  # fmt: skip
def test_a_texts_signature(deltas: list[Json], expected: list[tuple[str, str]]) -> None:
    found = parts(*[chunk(delta) for delta in deltas], STOP)
    assert [(part.text, part.thought_signature) for part in found] == expected
    assert not answer(*[chunk(delta) for delta in deltas], STOP).choices[0].message.extra_json


@pytest.mark.parametrize(
    "extra",
    [{}, {"google": None}, {"google": {}}, {"google": 1}, {"google": {"thought_signature": 1}}, 1],
)
def test_extra_content_that_is_no_signature_stays(extra: Any) -> None:
    found = answer(chunk({"content": "a", "extra_content": extra}), STOP).choices[0].message
    assert not found.parts[0].thought_signature
    assert json.loads(found.extra_json) == {"extra_content": extra}


@pytest.mark.parametrize(
    ("url", "data", "kind"),
    [
        ("data:image/png;base64,AAEC", b"\x00\x01\x02", "image/png"),
        ("https://a.example/b.png", b"", ""),
        ("data:image/png;base64,%%", b"", ""),
        ("data:image/svg+xml,<svg/>", b"", ""),
    ],
)
def test_generated_images(url: str, data: bytes, kind: str) -> None:
    image = {"type": "image_url", "image_url": {"url": url}}
    (part,) = parts(chunk({"images": [image]}), STOP)
    assert (part.image.data, part.image.media_type) == (data, kind)
    assert part.image.url == ("" if data else url)


@pytest.mark.parametrize("image", [1, {}, {"image_url": "x"}, {"image_url": {"url": 1}}])
def test_images_that_are_none(image: Any) -> None:
    with pytest.raises(UpstreamProtocol, match="image"):
        decode(chunk({"images": [image]}), STOP)


def test_pieces_of_reasoning_details_are_joined() -> None:
    def detail(**members: Any) -> Json:
        return chunk({"reasoning_details": [members]})

    kind = "reasoning.text"
    found = answer(
        detail(type=kind, text="a", index=0, signature=None),
        detail(type=kind, text="b", index=0),
        detail(type=kind, signature="s", index=0),
        detail(type=kind, text="c", index=0),
        detail(type="reasoning.encrypted", data="d", index=1),
        detail(type="reasoning.encrypted", data="e", index=1),
        detail(type="reasoning.summary", summary="f", index=2),
        detail(type="reasoning.summary", summary="g", index=3),
        chunk({"reasoning_details": [5, {"type": 5}]}),
        HI,
        STOP,
    )
    assert json.loads(found.choices[0].message.extra_json)["reasoning_details"] == [
        {"type": kind, "text": "ab", "index": 0, "signature": "s"},
        {"type": kind, "text": "c", "index": 0},
        {"type": "reasoning.encrypted", "data": "d", "index": 1},
        {"type": "reasoning.encrypted", "data": "e", "index": 1},
        {"type": "reasoning.summary", "summary": "f", "index": 2},
        {"type": "reasoning.summary", "summary": "g", "index": 3},
        5,
        {"type": 5},
    ]


def tagged(*chunks: Json, prefilled: bool = False) -> list[content_pb2.Part]:
    decoder = OpenAIStreamDecoder(1 << 20, ACME, ThinkTags("<think>", "</think>", prefilled))
    events = [
        event
        for item in chunks
        for event in decoder.feed(b"data: " + json.dumps(item).encode() + b"\n\n")
    ]
    return list(fold(events + decoder.finish()).choices[0].message.parts)


def test_each_choice_has_tags_of_its_own() -> None:
    def at(index: int, content: str, finish: str | None = None) -> Json:
        return {"index": index, "delta": {"content": content}, "finish_reason": finish}

    decoder = OpenAIStreamDecoder(1 << 20, ACME, ThinkTags("<think>", "</think>"))
    events = []
    for choices in (
        [at(0, "<thi"), at(1, "<th")],
        [at(0, "nk>a</think>b", "stop"), at(1, "en", "stop")],
    ):
        body = json.dumps(chunk(choices=choices)).encode()
        events += decoder.feed(b"data: " + body + b"\n\n")
    found = fold(events + decoder.finish())
    assert [[p.reasoning.text + p.text for p in c.message.parts] for c in found.choices] == [
        ["a", "b"],
        ["<then"],
    ]


def test_thinking_in_a_member_of_its_own_switches_the_tags_off() -> None:
    found = tagged(chunk({"reasoning": "r"}), chunk({"content": "a"}), STOP, prefilled=True)
    assert [part.reasoning.text + part.text for part in found] == ["r", "a"]


def test_a_partial_tag_at_the_end() -> None:
    assert [part.text for part in tagged(chunk({"content": "<thi"}), STOP)] == ["<thi"]
    (part,) = tagged(chunk({"content": "<think>a</th"}), chunk(finish="length"))
    assert part.reasoning.text == "a</th"


# Whatever comes, only GatewayErrors come out.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
REAL = [
    chunk({"role": "assistant", "content": "Hi", "refusal": None}, usage=USAGE, system_fingerprint="f"),
    chunk(call("{}", index=0, id="a", name="f", type="function", extra_content={"x": 1})),
    chunk({"audio": {"id": "a", "data": "AAEC", "transcript": "x", "expires_at": 5}}),
    chunk({"annotations": [{"type": "url_citation", "url_citation": {"url": "u", "start_index": 1}}]}),
    chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}]}),
    with_tokens({"content": "x"}, "content", token("x") | {"bytes": [1], "top_logprobs": [token("y")]}),
    chunk({"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAEC"}}]}),
    chunk({"content": "x", "reasoning_details": [{"type": "reasoning.text", "text": "t", "index": 0}]}),
    chunk({"content": "x", "extra_content": {"google": {"thought_signature": "s"}}}),
    chunk(usage=USAGE | {"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {}}),
    {"error": {"message": "m", "code": 429, "type": "t", "param": "p"}},
    STOP,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(
        value, list
    ) else ()  # fmt: skip
    return [path, *(found for key, item in inner for found in places(item, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real chunk with a member or two replaced, removed or added."""
    value = json.loads(json.dumps(draw(st.sampled_from(REAL))))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(value)))
        if not path:
            continue
        *way, last = path
        owner = value
        for key in way:
            owner = owner[key]
        if isinstance(owner, dict) and draw(st.booleans()):
            owner[draw(st.sampled_from(["x", "choices", "delta", "index"]))] = draw(JSON)
        elif isinstance(owner, dict) and draw(st.booleans()):
            del owner[last]
        else:
            owner[last] = draw(JSON)
    return json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def drain(*pieces: bytes) -> None:
    for decoder in (
        OpenAIStreamDecoder(1 << 16, ACME),
        OpenAIStreamDecoder(1 << 16, ACME, ThinkTags("<think>", "</think>", prefilled=True)),
        completion_decoder(1 << 16, ACME, chat_pb2.ChatRequest()),
    ):
        try:
            events = [event for piece in pieces for event in decoder.feed(piece)]
            fold(events + decoder.finish())
        except GatewayError:
            pass


@settings(max_examples=400, deadline=None)
@given(st.lists(mutated(), min_size=1, max_size=4))
def test_mutated_chunks(chunks: list[bytes]) -> None:
    drain(*[b"data: " + item + b"\n\n" for item in chunks], b'data: {"choices":[]}\n\n')


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_arbitrary_bytes(pieces: list[bytes]) -> None:
    drain(*pieces)
    drain(*[b"data: " + piece + b"\n\n" for piece in pieces])


def whole(item: bytes) -> bytes:
    return item.replace(b'"delta"', b'"message"')


@settings(max_examples=300, deadline=None)
@given(mutated().map(whole) | st.binary(max_size=60) | JSON.map(lambda v: json.dumps(v).encode()))
def test_arbitrary_answers_and_errors(body: bytes) -> None:
    for decode_body in (decode_answer, decode_completion):
        try:
            decode_body(body)
        except GatewayError:
            pass
    error_in_body(body)
    assert isinstance(decode_error(400, {}, body), GatewayError)
