"""The Ollama dialect beyond its golden cases: laws over several, and the way through a gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from fakes.gateway import Gateway
from fakes.steps import Answer
from fakes.upstream import FakeUpstream, answer, chat
from headgate import CallContext, fold
from headgate.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamProtocol,
    UpstreamUnavailable,
)
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers import dialect_of, vendor_of
from headgate_server.providers.base import Endpoint, Target
from headgate_server.providers.ollama import OllamaDialect
from headgate_server.providers.ollama.errors import decode_error, error_in_body
from headgate_server.providers.vendors import family_of, vendors

ROOT = Path(__file__).parents[1] / "golden" / "ollama"
DIALECT = OllamaDialect(1 << 20)
REQUEST = chat_pb2.ChatRequest(model="m")
TARGET = Target(
    provider="p",
    kind="ollama",
    model="qwen3:8b",
    vendor=vendor_of("ollama", None),
    family=family_of("qwen3:8b"),
)
NDJSON: dict[str, Any] = {"content_type": "application/x-ndjson", "framing": "chunked"}


def golden(case: str, name: str) -> bytes:
    return (ROOT / case / name).read_bytes()


def line(**members: Any) -> bytes:
    return json.dumps(members).encode() + b"\n"


def asked(words: str = "hi", **fields: Any) -> chat_pb2.ChatRequest:
    request = chat_pb2.ChatRequest(model="m", **fields)
    request.messages.add(role=content_pb2.ROLE_USER).parts.add().text = words
    return request


def sent(request: chat_pb2.ChatRequest, *, stream: bool = False, base: str = "http://o") -> Any:
    return DIALECT.encode(request, TARGET, Endpoint(base, {}), stream=stream)


# Requests.


SENT = sorted(path.parent for path in ROOT.glob("*/upstream_request.json"))


@pytest.mark.parametrize("folder", SENT, ids=lambda folder: folder.name)
def test_a_streamed_call_differs_in_one_member_only(folder: Path) -> None:
    """And that is always said: the API streams by default."""
    whole = json.loads((folder / "upstream_request.json").read_text())["body"]
    assert whole["stream"] is False
    if not (folder / "target.json").exists():
        text = (folder / "request.json").read_text()
        request = json_format.Parse(text, chat_pb2.ChatRequest())
        assert json.loads(sent(request, stream=True).body) == whole | {"stream": True}


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/api/chat"),
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/api/chat"),
        ("https://ollama.com", "https://ollama.com/api/chat"),
        ("http://h/behind/a/proxy", "http://h/behind/a/proxy/api/chat"),
        ("http://h/proxy/v1", "http://h/proxy/api/chat"),
    ],
)
def test_where_it_is(base: str, url: str) -> None:
    assert sent(asked(), base=base).url == url


def test_facts_of_the_vendor() -> None:
    vendor = vendors()["ollama"]
    assert (vendor.dialect, vendor.base_url) == ("ollama", "http://127.0.0.1:11434")
    assert (vendor.auth, vendor.api_key_env) == ("none", ())
    assert dialect_of("ollama", vendor, 1).name == "ollama"


def test_arguments_stay_as_they_were_written() -> None:
    """Numbers and the order of members: a prompt cache would miss otherwise."""
    request = asked()
    call = request.messages.add(role=content_pb2.ROLE_ASSISTANT).parts.add().tool_call
    call.id, call.name = "c", "f"
    call.arguments_json = '{"z": 9007199254740993, "a": 1.0, "e": 1E5}'
    assert b'"arguments":{"z": 9007199254740993, "a": 1.0, "e": 1E5}' in sent(request).body


# Ids of calls.


def ids_of(request: chat_pb2.ChatRequest, *given: str) -> list[str]:
    function = {"name": "f", "arguments": {}}
    calls = [
        {"id": each, "function": function} if each else {"function": function} for each in given
    ]
    body = line(message={"role": "assistant", "tool_calls": calls}, done=True, done_reason="stop")
    whole = DIALECT.decode(body, request, TARGET)
    decoder = DIALECT.stream_decoder(request, TARGET)
    streamed = fold(decoder.feed(body) + decoder.finish())
    assert whole == streamed
    return [part.tool_call.id for part in whole.choices[0].message.parts]


def test_ids_of_the_vendor_are_kept() -> None:
    assert ids_of(asked(), "call_x1", "call_x2") == ["call_x1", "call_x2"]


def test_ids_are_never_used_twice_in_a_conversation() -> None:
    request = asked()
    seen: list[str] = []
    for _ in range(4):
        found = ids_of(request, "", "")
        seen += found
        message = request.messages.add(role=content_pb2.ROLE_ASSISTANT)
        for each in found:
            message.parts.add().tool_call.id = each
    assert seen == [f"call_{number}" for number in range(8)]
    del request.messages[
        :4
    ]  # what a client forgets is not given anew while it remembers a later one
    assert ids_of(request, "")[0] == "call_8"


@pytest.mark.parametrize(
    "given", ["call_99999999999", "call_x", "Call_7", "call_7x", "toolu_7", ""]
)
def test_ids_of_others_do_not_matter(given: str) -> None:
    request = asked()
    request.messages.add(role=content_pb2.ROLE_ASSISTANT).parts.add().tool_call.id = given
    assert ids_of(request, "") == ["call_0"]


def test_results_count_as_well_as_calls() -> None:
    request = asked()
    part = request.messages.add(role=content_pb2.ROLE_TOOL).parts.add()
    part.tool_result.tool_call_id = "call_4"
    assert ids_of(request, "", "mine", "") == ["call_5", "mine", "call_6"]


# Answers.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b'{"message": {"content": "x"}}',
        b'{"done": true}',
        b'{"message": "x", "done": true}',
        b'{"message": {"content": 1}, "done": true}',
        b'{"message": {"images": ["!"]}, "done": true}',
        b'{"message": {}, "done": true, "prompt_eval_count": -1}',
        b'{"message": {}, "done": true, "eval_count": 1e300}',
        b'{"message": {}, "done": true, "created_at": "yesterday"}',
        b'{"message": {}, "done": true, "logprobs": [{"token": "x", "bytes": [256]}]}',
        b'{"message": {"tool_calls": [{"function": {"arguments": "\\ud800"}}]}, "done": true}',
        b'{"message": {"tool_calls": [{"function": {"x": "\xff"}}]}, "done": true}',
        b'{"error": 7}',
        b"[" * 100_000,
    ],
    ids=lambda body: body[:60],
)
def test_nonsense_is_the_upstreams_fault(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.decode(body, REQUEST, TARGET)
    decoder = DIALECT.stream_decoder(REQUEST, TARGET)
    if body == b'{"done": true}':
        return  # the last line of a stream may say no more
    with pytest.raises(UpstreamProtocol):
        decoder.feed(body + b"\n")
        decoder.finish()


def test_a_line_over_the_limit() -> None:
    decoder = OllamaDialect(100).stream_decoder(REQUEST, TARGET)
    with pytest.raises(UpstreamProtocol, match="100 bytes"):
        decoder.feed(b"x" * 101)


def test_the_stream_is_done_with_its_last_line() -> None:
    decoder = DIALECT.stream_decoder(REQUEST, TARGET)
    *first, last = golden("plain", "upstream.ndjson").splitlines(keepends=True)
    assert decoder.feed(b"".join(first))
    assert not decoder.done
    decoder.feed(last + b'{"error": "too late"}\nnonsense')
    assert decoder.done
    assert decoder.finish()[-1].HasField("completed")


def test_nothing_is_said_before_the_model_says_something() -> None:
    """So that a failure until then can be tried elsewhere."""
    decoder = DIALECT.stream_decoder(REQUEST, TARGET)
    assert decoder.feed(line(model="m", message={"role": "assistant", "content": ""})) == []
    with pytest.raises(ModelNotFound):
        decoder.feed(line(error='model "x" not found, try pulling it first'))


def test_what_came_before_an_error_goes_out_first() -> None:
    decoder = DIALECT.stream_decoder(REQUEST, TARGET)
    events = decoder.feed(golden("error_mid_stream", "upstream.ndjson"))
    assert events[0].HasField("started")
    assert events[-1].part_delta.text == " of"
    assert decoder.done
    with pytest.raises(UpstreamUnavailable):
        decoder.finish()


# Errors.


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (404, "model 'x' not found", ModelNotFound),
        (200, "model `x` not found", ModelNotFound),
        (500, "failed to load model: file not found", UpstreamUnavailable),
        (500, "unable to find tokenizer model: not found", UpstreamUnavailable),
        (400, '"x" does not support chat', InvalidRequest),
        (500, "input length exceeds the context length", ContextTooLong),
        (499, "request canceled", UpstreamProtocol),
    ],
)
def test_words_count_where_the_status_says_little(
    status: int, message: str, kind: type[GatewayError]
) -> None:
    body = json.dumps({"error": message}).encode()
    found = error_in_body(body) if status == 200 else decode_error(status, {}, body)
    assert type(found) is kind


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"null", b"{}", b'{"error": ""}', b'{"error": {}}', b"\xff", b"[" * 9999],
)
def test_errors_without_an_error(body: bytes) -> None:
    assert error_in_body(body) is None
    assert isinstance(decode_error(500, {}, body), UpstreamUnavailable)
    assert isinstance(decode_error(404, {}, body), UpstreamProtocol)


# Through a gateway.


@pytest.fixture
async def up() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture(params=[False, True], ids=["together", "apart"])
async def gateway(
    up: FakeUpstream, request: pytest.FixtureRequest
) -> AsyncGenerator[Gateway, None]:
    config = f"""
providers:
  home: {{kind: ollama, base_url: "{up.origin}"}}
  cloud: {{kind: ollama, base_url: "{up.base_url}", api_key: "upstream-secret-key"}}
  other: {{kind: openai, base_url: "{up.base_url}"}}
models:
  m: {{targets: [{{provider: home, model: "qwen3:8b"}}]}}
  cloud: {{targets: [{{provider: cloud, model: "gpt-oss:120b"}}]}}
  two: {{targets: [{{provider: home, model: "qwen3:8b"}}, {{provider: other, model: x}}]}}
"""
    async with Gateway(config, apart=request.param) as made:
        yield made


ASK = {"model": "m", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


async def test_a_chat_client_gets_an_answer(gateway: Gateway, up: FakeUpstream) -> None:
    up.script(
        answer(golden("thinking", "upstream_response.json")),
        Answer([golden("thinking", "upstream.ndjson")], **NDJSON, cut=7),
    )
    async with gateway.http() as http:
        whole = (await http.post("/v1/chat/completions", json=ASK)).json()
        stream = await http.post("/v1/chat/completions", json=ASK | {"stream": True})
    message = whole["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Three.", "Count the r's. Three.")
    assert whole["id"].startswith("chatcmpl-")  # made up by the gateway: the API has none
    assert whole["usage"]["completion_tokens"] == 18
    chunks = [json.loads(each[6:]) for each in stream.text.splitlines() if each[:7] == "data: {"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Three."
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert stream.text.endswith("data: [DONE]\n\n")
    unary, streaming = up.requests
    assert unary.path == streaming.path == "/api/chat"
    assert "authorization" not in unary.headers
    assert streaming.json == unary.json | {"stream": True}
    settled = await gateway.settled(2)
    assert [each.outcome for each in settled] == ["OK", "OK"]
    assert [each.usage and each.usage.total_tokens for each in settled] == [29, 29]


async def test_a_key_for_the_cloud(gateway: Gateway, up: FakeUpstream) -> None:
    up.default(answer(golden("plain", "upstream_response.json")))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ASK | {"model": "cloud"})
    assert found.status_code == 200
    assert up.requests[0].path == "/api/chat"
    assert up.requests[0].headers["authorization"] == "Bearer upstream-secret-key"


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_over_two_turns(gateway: Gateway, up: FakeUpstream, stream: bool) -> None:
    """With an old version, which gives calls no ids."""
    case = "tool_calls_without_ids_or_history"
    first = Answer([golden(case, "upstream.ndjson")], **NDJSON)
    up.script(
        first if stream else answer(golden(case, "upstream_response.json")),
        answer(golden("plain", "upstream_response.json")),
    )
    request = asked("What time is it?")
    async with gateway.client() as client:
        if stream:
            async with client.chat_stream(request, CallContext()) as events:
                answered = fold([event async for event in events])
        else:
            answered = await client.chat_complete(request, CallContext())
        message = answered.choices[0].message
        assert answered.choices[0].finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS
        request.messages.append(message)
        result = request.messages.add(role=content_pb2.ROLE_TOOL).parts.add().tool_result
        result.tool_call_id = message.parts[0].tool_call.id
        result.parts.add().text = "noon"
        assert not (await client.chat_complete(request, CallContext())).warnings
    assert up.requests[1].json["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_0", "function": {"index": 0, "name": "now", "arguments": {}}}
            ],
        },
        {"role": "tool", "content": "noon", "tool_name": "now", "tool_call_id": "call_0"},
    ]


async def test_an_error_instead_of_a_stream(gateway: Gateway, up: FakeUpstream) -> None:
    up.script(answer({"error": 'model "qwen3:8b" not found, try pulling it first'}, 404))
    up.script(answer({"error": "model requires more system memory"}))  # with status 200
    async with gateway.http() as http:
        missing = await http.post("/v1/chat/completions", json=ASK | {"stream": True})
        failed = await http.post("/v1/chat/completions", json=ASK | {"stream": True})
    assert (missing.status_code, failed.status_code) == (404, 503)
    assert "try pulling it" in missing.text
    assert "more system memory" in failed.text


async def test_an_early_failure_is_tried_elsewhere(gateway: Gateway, up: FakeUpstream) -> None:
    quiet = line(model="m", message={"role": "assistant", "content": ""})
    up.script(Answer([quiet, line(error="CUDA error: out of memory")], **NDJSON), chat())
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ASK | {"model": "two", "stream": True})
    assert found.status_code == 200
    assert found.headers["x-headgate-attempts"] == "2"
    assert [record.path for record in up.requests] == ["/api/chat", "/v1/chat/completions"]


@pytest.mark.parametrize("case", ["error_mid_stream", "stream_cut"])
async def test_a_late_failure_is_told(gateway: Gateway, up: FakeUpstream, case: str) -> None:
    up.default(Answer([golden(case, "upstream.ndjson")], **NDJSON))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ASK | {"model": "two", "stream": True})
    assert '"content":"Because"' in found.text
    assert '"error"' in found.text
    assert "[DONE]" not in found.text
    assert len(up.requests) == 1
