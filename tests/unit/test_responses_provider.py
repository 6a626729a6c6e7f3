"""The Responses dialect beyond its golden cases: laws over several, and the way through a gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format

from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream, answer, chat, error, sse
from headgate import CallContext, fold
from headgate.errors import (
    ContentFiltered,
    GatewayError,
    InvalidRequest,
    RateLimited,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.config import zero_config
from headgate_server.providers import dialect_of, vendor_of
from headgate_server.providers.base import Endpoint, Target, TokenCounter
from headgate_server.providers.responses import ResponsesDialect
from headgate_server.providers.responses.errors import decode_error, error_in_body
from headgate_server.providers.vendors import family_of, vendors

ROOT = Path(__file__).parents[1] / "golden" / "openai_responses"
DIALECT = ResponsesDialect(1 << 20)
REQUEST = chat_pb2.ChatRequest(model="m")
Json = dict[str, Any]


def target(model: str = "gpt-5-pro", **facts: Any) -> Target:
    kind = "openai_responses"
    given = {"provider": "p", "kind": kind, "vendor": vendor_of(kind, None)} | facts
    return Target(model=model, family=family_of(model), **given)


def encoded(request: chat_pb2.ChatRequest, model: str = "gpt-5-pro", **facts: Any) -> Json:
    call = DIALECT.encode(request, target(model, **facts), Endpoint("https://a", {}), stream=False)
    body: Json = json.loads(call.body)
    return body


def asked(*parts: content_pb2.Part, **fields: Any) -> chat_pb2.ChatRequest:
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=parts or [text("hi")])
    return chat_pb2.ChatRequest(**{"model": "m", "messages": [message]} | fields)


def text(words: str) -> content_pb2.Part:
    return content_pb2.Part(text=words)


def golden(case: str, name: str) -> bytes:
    return (ROOT / case / name).read_bytes()


def events_of(stream: bytes) -> list[chat_pb2.ChatEvent]:
    decoder = DIALECT.stream_decoder(REQUEST, target())
    return decoder.feed(stream) + decoder.finish()


# Requests.


@pytest.mark.parametrize("store", [None, False, True])
def test_nothing_is_kept_at_the_vendor_unless_asked(store: bool | None) -> None:
    body = encoded(asked() if store is None else asked(store=store))
    assert body["store"] is bool(store)


@pytest.mark.parametrize(
    ("model", "reasoning", "asks"),
    [
        ("gpt-5-pro", {}, True),
        ("o3-deep-research", {}, True),
        ("gpt-4.1", {}, False),
        ("gpt-4.1", {"effort": "low"}, False),
        ("never-heard-of", {}, False),
        ("never-heard-of", {"effort": "low"}, True),
    ],
)
def test_thinking_is_asked_for_in_encrypted_form_where_there_is_some(
    model: str, reasoning: Json, asks: bool
) -> None:
    request = asked()
    if reasoning:
        request.reasoning.effort = reasoning["effort"]
    assert ("reasoning.encrypted_content" in encoded(request, model).get("include", [])) is asks


@pytest.mark.parametrize(
    ("given", "dialect", "sent"),
    [
        (None, None, False),  # what it means everywhere else
        (None, "openai", False),
        (None, "anthropic", False),
        (None, "openai_responses", None),  # the API's own default
        (True, None, True),
        (False, "openai_responses", False),
    ],
)
def test_functions_are_strict_only_if_somebody_said_so(
    given: bool | None, dialect: str | None, sent: bool | None
) -> None:
    request = asked()
    function = request.tools.add().function
    function.name = "f"
    if given is not None:
        function.strict = given
    if dialect is not None:
        request.extra_dialect = dialect
    assert encoded(request)["tools"][0]["strict"] is sent


def test_an_answer_goes_back_as_it_came() -> None:
    """Every documented item: decoded, sent with the next turn, it is the item that it was."""
    for case in ("web_search", "tool_calls_parallel", "reasoning", "file_search", "custom_tool"):
        raw = golden(case, "upstream_response.json")
        answered = DIALECT.decode(raw, REQUEST, target())
        request = asked(extra_dialect="openai_responses")
        request.messages.append(answered.choices[0].message)
        sent = encoded(request)["input"][1:]
        for item, came in zip(sent, json.loads(raw)["output"], strict=True):
            for content in came.get("content", ()):
                content.pop("logprobs", None)
            if came["type"] in ("function_call", "custom_tool_call"):
                came.pop("id")
                came.pop("status")
            if came["type"] == "reasoning":
                joined = "\n\n".join(piece["text"] for piece in came["summary"])
                came["summary"] = [{"type": "summary_text", "text": joined}]
            assert item == came


@pytest.mark.parametrize("role", [content_pb2.ROLE_SYSTEM, content_pb2.ROLE_DEVELOPER])
def test_a_vendor_without_developers_gets_system_messages(role: content_pb2.Role.ValueType) -> None:
    request = asked()
    request.messages[0].role = role
    vendor = msgspec.structs.replace(vendors()["openai_responses"], developer_role=False)
    assert encoded(request, vendor=vendor)["input"][0]["role"] == "system"


def test_query_parameters_of_the_vendor() -> None:
    vendor = msgspec.structs.replace(vendors()["openai_responses"], query={"api-version": "v1"})
    endpoint = Endpoint("https://a/openai/v1", {})
    call = DIALECT.encode(asked(), target(vendor=vendor), endpoint, stream=True)
    assert call.url == "https://a/openai/v1/responses?api-version=v1"


def test_background_answers_may_be_streamed() -> None:
    request = asked(extra_dialect="openai_responses", extra_body_json='{"background":true}')
    call = DIALECT.encode(request, target(), Endpoint("https://a", {}), stream=True)
    assert json.loads(call.body)["background"] is True
    with pytest.raises(InvalidRequest):
        encoded(request)


def test_tokens_are_counted() -> None:
    assert isinstance(DIALECT, TokenCounter)
    assert DIALECT.decode_count(b'{"object":"response.input_tokens","input_tokens":37,"x":1}') == 37
    for nonsense in (b"", b"{}", b'{"input_tokens":"many"}', b'{"input_tokens":1e300}'):
        with pytest.raises(UpstreamProtocol):
            DIALECT.decode_count(nonsense)


# Answers.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"output": 1, "status": "completed"}',
        b'{"status": "completed", "output": ["x"]}',
        b'{"status": "completed", "output": [{"type": 1}]}',
        b'{"status": "completed", "output": [{"type": "message", "content": "x"}]}',
        b'{"status": "completed", "output": [{"type": "function_call", "arguments": {}}]}',
        b'{"status": "completed", "output": [{"type": "new", "x": "\xff"}]}',
        b'{"status": "completed", "output": [], "created_at": 1e300}',
        b'{"status": "completed", "output": [], "usage": {"input_tokens": 1e300}}',
        b'{"status": "completed", "output": '
        b'[{"type": "image_generation_call", "result": "!", "status": "completed"}]}',
        b'{"status": "completed", "output": [{"type": "message", "content": '
        b'[{"type": "output_text", "text": "x", "logprobs": [{"token": "x", "bytes": [900]}]}]}]}',
        b"[" * 100_000,
    ],
    ids=lambda body: body[:60],
)
def test_nonsense_is_the_upstreams_fault(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.decode(body, REQUEST, target())


@pytest.mark.parametrize("item", [b"1", b'{"type":"message","content":7}', b"null", b"[]"])
@pytest.mark.parametrize("event", ["added", "done"])
def test_nonsense_in_a_stream(item: bytes, event: str) -> None:
    decoder = DIALECT.stream_decoder(REQUEST, target())
    with pytest.raises(UpstreamProtocol):
        decoder.feed(
            b'data: {"type":"response.output_item.%b","output_index":0,"item":%b}\n\n'
            % (event.encode(), item)
        )


@pytest.mark.parametrize(
    "line", [b"data: x\n\n", b"data: 1\n\n", b'data: {"type":7}\n\n', b'data: {"type":"\xff"}\n\n']
)
def test_events_that_are_none(line: bytes) -> None:
    decoder = DIALECT.stream_decoder(REQUEST, target())
    with pytest.raises(UpstreamProtocol):
        decoder.feed(line)


def test_an_event_over_the_limit() -> None:
    decoder = ResponsesDialect(100).stream_decoder(REQUEST, target())
    with pytest.raises(UpstreamProtocol, match="100 bytes"):
        decoder.feed(b"data: " + b"x" * 101)


def test_an_answer_without_end() -> None:
    decoder = DIALECT.stream_decoder(REQUEST, target())
    with pytest.raises(UpstreamProtocol, match="parts"):
        for index in range(2000):
            item = {"type": "function_call", "call_id": "c", "name": "f"}
            event = {"type": "response.output_item.added", "output_index": index, "item": item}
            decoder.feed(b"data: " + json.dumps(event).encode() + b"\n\n")


def test_the_stream_is_done_with_its_last_event() -> None:
    decoder = DIALECT.stream_decoder(REQUEST, target())
    head, mark, tail = golden("plain", "upstream.sse").partition(b"event: response.completed")
    assert decoder.feed(head)
    assert not decoder.done
    decoder.feed(mark + tail)
    assert decoder.done
    assert decoder.feed(b'data: {"type":"response.output_text.delta","delta":"more"}\n\n') == []
    assert decoder.finish()[-1].HasField("completed")


def test_nothing_is_said_before_the_model_says_something() -> None:
    """So that a failure until then can be tried elsewhere."""
    decoder = DIALECT.stream_decoder(REQUEST, target())
    lines = golden("failed_early", "upstream.sse").split(b"\n\n")
    for line in lines[:2]:
        assert decoder.feed(line + b"\n\n") == []
    with pytest.raises(UpstreamUnavailable):
        decoder.feed(lines[2] + b"\n\n")


def test_what_came_before_an_error_goes_out_first() -> None:
    decoder = DIALECT.stream_decoder(REQUEST, target())
    events = decoder.feed(golden("failed_mid_stream", "upstream.sse"))
    assert events[0].HasField("started")
    assert events[-1].part_delta.text == "Hello"
    assert decoder.done
    with pytest.raises(UpstreamTimeout):
        decoder.finish()


def test_partial_images_and_progress_cost_nothing() -> None:
    events = events_of(golden("image_generation", "upstream.sse"))
    assert sum(event.HasField("part_delta") for event in events) == 1


# Errors.


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("server_error", UpstreamUnavailable),
        ("rate_limit_exceeded", RateLimited),
        ("invalid_prompt", ContentFiltered),
        ("data_residency_mismatch", InvalidRequest),
        ("bio_policy", ContentFiltered),
        ("misalignment_policy_violation", ContentFiltered),
        ("vector_store_timeout", UpstreamTimeout),
        ("invalid_image", InvalidRequest),
        ("invalid_image_format", InvalidRequest),
        ("invalid_base64_image", InvalidRequest),
        ("invalid_image_url", InvalidRequest),
        ("image_too_large", InvalidRequest),
        ("image_too_small", InvalidRequest),
        ("image_parse_error", InvalidRequest),
        ("image_content_policy_violation", ContentFiltered),
        ("invalid_image_mode", InvalidRequest),
        ("image_file_too_large", InvalidRequest),
        ("unsupported_image_media_type", InvalidRequest),
        ("empty_image_file", InvalidRequest),
        ("failed_to_download_image", InvalidRequest),
        ("image_file_not_found", InvalidRequest),
        ("something_new", UpstreamUnavailable),
    ],
)
def test_every_documented_code_of_a_failed_answer(code: str, kind: type[GatewayError]) -> None:
    body = json.dumps({"status": "failed", "error": {"code": code, "message": "Because."}}).encode()
    with pytest.raises(GatewayError) as caught:
        DIALECT.decode(body, REQUEST, target())
    assert type(caught.value) is kind
    assert caught.value.metadata["upstream_code"] == code
    stream = b'data: {"type":"response.failed","response":%b}\n\n' % body
    with pytest.raises(kind):
        events_of(stream)


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"null", b'{"error": null}', b"\xff", b"[" * 9999]
)
def test_errors_without_an_error(body: bytes) -> None:
    assert error_in_body(body) is None
    assert isinstance(decode_error(500, {}, body), UpstreamUnavailable)
    assert isinstance(decode_error(400, {}, body), UpstreamProtocol)


# Through a gateway.


def config(up: FakeUpstream) -> str:
    return f"""
providers:
  up: {{kind: openai_responses, base_url: "{up.base_url}", api_key: "upstream-secret-key"}}
  other: {{kind: openai, base_url: "{up.base_url}"}}
models:
  m: {{targets: [{{provider: up, model: gpt-5-pro}}]}}
  two: {{targets: [{{provider: up, model: gpt-5-pro}}, {{provider: other, model: x}}]}}
"""


@pytest.fixture
async def up() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture(params=[False, True], ids=["together", "apart"])
async def gateway(
    up: FakeUpstream, request: pytest.FixtureRequest
) -> AsyncGenerator[Gateway, None]:
    async with Gateway(config(up), apart=request.param) as made:
        yield made


def streamed(case: str) -> Any:
    return sse([golden(case, "upstream.sse")], done=False)


ASK = {"model": "m", "messages": [{"role": "user", "content": "Say hello."}]}


async def test_a_chat_client_gets_an_answer(gateway: Gateway, up: FakeUpstream) -> None:
    up.script(answer(golden("plain", "upstream_response.json")), streamed("plain"))
    async with gateway.http() as http:
        whole = (await http.post("/v1/chat/completions", json=ASK)).json()
        stream = await http.post("/v1/chat/completions", json=ASK | {"stream": True})
    words = "Hi there! How can I assist you today?"
    assert whole["choices"][0]["message"]["content"] == words
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"]["prompt_tokens"] == 36
    chunks = [json.loads(line[6:]) for line in stream.text.splitlines() if line[:7] == "data: {"]
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(deltas) == words
    assert stream.text.endswith("data: [DONE]\n\n")
    unary, streaming = up.requests
    assert unary.path == streaming.path == "/v1/responses"
    assert unary.headers["authorization"] == "Bearer upstream-secret-key"
    assert streaming.json == unary.json | {"stream": True}
    assert unary.json["input"] == [{"role": "user", "content": "Say hello."}]
    settled = await gateway.settled(2)
    assert [each.outcome for each in settled] == ["OK", "OK"]
    assert [each.usage and each.usage.total_tokens for each in settled] == [123, 123]


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_survives_the_turn(gateway: Gateway, up: FakeUpstream, stream: bool) -> None:
    """The answer goes back as it came, and the vendor finds its own thinking in it."""
    case = "reasoning_before_a_call"
    first = streamed(case) if stream else answer(golden(case, "upstream_response.json"))
    up.script(first, answer(golden("plain", "upstream_response.json")))
    request = asked(text("Weather in Paris?"))
    async with gateway.client() as client:
        if stream:
            async with client.chat_stream(request, CallContext()) as events:
                answered = fold([event async for event in events])
        else:
            answered = await client.chat_complete(request, CallContext())
        message = answered.choices[0].message
        request.extra_dialect = answered.served.dialect
        request.messages.append(message)
        result = request.messages.add(role=content_pb2.ROLE_TOOL).parts.add().tool_result
        result.tool_call_id = message.parts[1].tool_call.id
        result.parts.append(text("18 degrees"))
        assert not (await client.chat_complete(request, CallContext())).warnings
    sent = up.requests[1].json["input"]
    assert sent[1] == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "encrypted_content": "gAAAAABo",
    }
    assert [item.get("call_id") for item in sent] == [None, None, "call_1", "call_1"]


@pytest.mark.parametrize("stream", [False, True])
async def test_our_own_key_is_not_the_callers(
    gateway: Gateway, up: FakeUpstream, stream: bool
) -> None:
    up.default(error(401, "Incorrect API key provided: upstream-secret-key."))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ASK | {"stream": stream})
    assert found.status_code == 502
    assert "upstream-secret-key" not in found.text


async def test_an_early_failure_is_tried_elsewhere(gateway: Gateway, up: FakeUpstream) -> None:
    up.script(streamed("failed_early"), chat())
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ASK | {"model": "two", "stream": True})
    assert found.status_code == 200
    assert found.headers["x-headgate-attempts"] == "2"
    assert [record.path for record in up.requests] == ["/v1/responses", "/v1/chat/completions"]


async def test_a_late_failure_is_told(gateway: Gateway, up: FakeUpstream) -> None:
    up.default(streamed("failed_mid_stream"))
    async with gateway.http() as http:
        found = await http.post("/v1/chat/completions", json=ASK | {"model": "two", "stream": True})
    assert found.status_code == 200
    assert '"content":"Hello"' in found.text
    assert "The vector store did not answer." in found.text
    assert "[DONE]" not in found.text
    assert len(up.requests) == 1


async def test_tokens_are_counted_upstream(gateway: Gateway, up: FakeUpstream) -> None:
    up.default(answer({"object": "response.input_tokens", "input_tokens": 37}))
    async with gateway.client() as client:
        found = await client.count_tokens(
            chat_pb2.CountTokensRequest(request=asked()), CallContext()
        )
    assert (found.input_tokens, found.estimated, found.served.provider) == (37, False, "up")
    assert up.requests[0].path == "/v1/responses/input_tokens"


def test_zero_configuration_finds_models_that_live_there_only() -> None:
    found = zero_config({"OPENAI_API_KEY": "sk-1"}, vendors(), local_available=False)
    assert {"openai", "openai_responses"} <= set(found.providers)
    assert (
        dialect_of("openai_responses", vendors()["openai_responses"], 1).name == "openai_responses"
    )


def test_every_golden_request_can_be_read() -> None:
    for path in ROOT.glob("*/request.json"):
        json_format.Parse(path.read_text(), chat_pb2.ChatRequest())
