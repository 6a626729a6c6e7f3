"""The bytes on the wire, as OpenAI documents them: order of members, nulls, envelopes, headers.

Source: https://platform.openai.com/docs/api-reference/chat. SDKs forgive much of this; other clients,
written from the documentation, do not.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from conformance.conftest import HELLO, Site
from fakes.upstream import USAGE, answer, chunks, completion, error, sse, tool_call
from headgate_facade.settings import FacadeSettings

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "m", "messages": HELLO}


async def post(site: Site, body: Any = ASKED, **options: Any) -> httpx.Response:
    """POST to the chat path; bytes and iterators as they are, all else as JSON."""
    raw = isinstance(body, bytes) or hasattr(body, "__aiter__")
    async with site.gateway.http() as http:
        return await http.post(CHAT, **({"content": body} if raw else {"json": body}), **options)


def events(text: str) -> list[str]:
    assert text.endswith("\n\n")
    return [event.removeprefix("data: ") for event in text[:-2].split("\n\n")]


# Objects.


async def test_completion(site: Site) -> None:
    got = await post(site)
    assert got.text == json.dumps(
        {
            "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
            "object": "chat.completion",
            "created": 1741569952,
            "model": "upstream-m",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "Hello! How can I help you today?",
                        "refusal": None,
                        "annotations": [],
                    },
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
            "service_tier": "default",
            "system_fingerprint": "fp_06737a9306",
        },
        separators=(",", ":"),
    )


async def test_only_tool_calls(site: Site) -> None:
    site.up.script(answer(completion(None, tool_calls=[tool_call("f", "{}")])))
    message = (await post(site)).json()["choices"][0]["message"]
    assert list(message) == ["role", "content", "refusal", "annotations", "tool_calls"]
    assert message["content"] is None


async def test_empty_content_is_not_null(site: Site) -> None:
    site.up.script(answer(completion("")))
    assert (await post(site)).json()["choices"][0]["message"]["content"] == ""


HEAD = (
    '{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk",'
    '"created":1741569952,"model":"m","system_fingerprint":"fp_06737a9306","choices":['
)


@pytest.mark.parametrize("usage", [False, True])
async def test_chunks(site: Site, usage: bool) -> None:
    site.up.script(sse(chunks(["Hé\n", "llo"], usage=USAGE)))
    options = {"stream_options": {"include_usage": True}} if usage else {}
    got = await post(site, ASKED | {"stream": True} | options)
    tail = ',"usage":null}' if usage else "}"

    def chunk(delta: str, finish: str = "null") -> str:
        return (
            f'{HEAD}{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]{tail}'
        )

    wanted = [
        chunk('{"role":"assistant","content":"","refusal":null}'),
        chunk('{"content":"Hé\\n"}'),
        chunk('{"content":"llo"}'),
        chunk("{}", '"stop"'),
    ]
    if usage:
        numbers = json.dumps(USAGE, separators=(",", ":"))
        wanted.append(f'{HEAD}],"usage":{numbers}}}')
    assert events(got.text) == [*wanted, "[DONE]"]
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert got.headers["cache-control"] == "no-cache"
    assert "content-length" not in got.headers


async def test_legacy_stream_has_one_call(site: Site) -> None:
    """`function_call` holds one call; a second one must not run into it."""
    calls = [tool_call("f", '{"a":1}', id="a"), tool_call("g", '{"b":2}', id="b")]
    site.up.script(answer(completion(None, tool_calls=calls)), sse(chunks([], tool_calls=calls)))
    asked = ASKED | {"functions": [{"name": "f"}, {"name": "g"}]}
    call = {"name": "f", "arguments": '{"a":1}'}
    assert (await post(site, asked)).json()["choices"][0]["message"]["function_call"] == call
    got = events((await post(site, asked | {"stream": True})).text)[:-1]
    deltas = [json.loads(event)["choices"][0]["delta"].get("function_call") for event in got]
    said = [delta for delta in deltas if delta]
    assert [delta["name"] for delta in said if "name" in delta] == ["f"]
    assert "".join(delta["arguments"] for delta in said) == '{"a":1}'


# Failures.


def envelope(got: httpx.Response, status: int) -> Any:
    """The error inside an envelope that is exactly OpenAI's."""
    assert got.status_code == status, got.text
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-request-id"].startswith("req_")
    body = got.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["message"] and body["error"]["type"]
    return body["error"]


NO_SUCH_THINGS: list[Any] = [
    ("GET", "/v2", 404, "not_found"),
    ("GET", "/v1/nothing", 404, "not_found"),
    ("POST", "/v1/chat/completion", 404, "not_found"),
    ("GET", CHAT, 405, "method_not_allowed"),
    ("PUT", CHAT, 405, "method_not_allowed"),
    ("OPTIONS", CHAT, 405, "method_not_allowed"),
    ("POST", "/v1/models", 405, "method_not_allowed"),
    ("DELETE", "/v1/models/m", 405, "method_not_allowed"),
    ("GET", "/v1/models/nope", 404, "model_not_found"),
    ("GET", "/v1/model-catalog/nope", 404, "model_not_found"),
]


async def test_no_such_thing(site: Site, subtests: pytest.Subtests) -> None:
    for method, path, status, code in NO_SUCH_THINGS:
        with subtests.test(method=method, path=path):
            async with site.gateway.http() as http:
                got = await http.request(method, path)
            found = envelope(got, status)
            assert (found["code"], found["type"]) == (code, "invalid_request_error")
            if status == 405:
                assert "POST" in got.headers["allow"] or "GET" in got.headers["allow"]


USER = b'"messages":[{"role":"user","content":"x"}]'
TEXT_ONLY = b'{"model":"m","messages":[{"role":"user","content":"x"}],'


BAD_BODIES: list[Any] = [
    (b"", None, "empty"),
    (b" \n", None, "empty"),
    (b'{"model":\n "m",}', None, "line 2, column"),
    (b'{"model":"m"', None, "not valid JSON"),
    (b'{"model":"\xff",' + USER + b"}", None, "UTF-8"),
    (TEXT_ONLY + b'"x":"\xff"}', None, "UTF-8"),
    (TEXT_ONLY + b'"audio":{"voice":{"id":"\xff"},"format":"wav"}}', None, "UTF-8"),
    (TEXT_ONLY + b'"tool_choice":{"type":"\xff"}}', None, "UTF-8"),
    (b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', None, "JSON"),
    (b"[" * 100_000, None, "JSON"),
    (b"[]", None, "JSON object"),
    (b'"x"', None, "JSON object"),
    (b"null", None, "JSON object"),
    (b"{}", "model", "is required"),
    (b'{"model":"m"}', "messages", "is required"),
    (b"{" + USER + b"}", "model", "is required"),
    (b'{"model":7,' + USER + b"}", "model", "expected `str`, got `int`"),
    (b'{"model":"m","messages":{}}', "messages", "expected `array`"),
    (b'{"model":"m","messages":[]}', "messages", ""),
    (b'{"model":"m","messages":[{"content":"x"}]}', "messages[0].role", "is required"),
    (b'{"model":"m","messages":[{"role":"user"}]}', "messages[0].content", "is required"),
    (b'{"model":"m","messages":[{"role":"user","content":[{"type":7,"video":1}]}]}',
     "messages[0].content[0].type", "expected `str`"),
    (b'{"model":"m","messages":[{"role":"user","content":[{"video":1}]}]}',
     "messages[0].content[0].type", "is required"),
    (b'{"model":"m","messages":[{"role":"user","content":[{"type":"video"}]},{"role":"x"}]}',
     "messages[1].role", "invalid value 'x'"),
    (b'{"model":"m","messages":[{"role":"user","content":[{"type":"video"}]},7]}',
     "messages[0].content[0].type", "video"),
    (b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url"}]}]}',
     "messages[0].content[0].image_url", "is required"),
    (b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url",'
     b'"image_url":{"url":"/etc/passwd"}}]}]}', "messages[0].content[0].image_url.url", "URL"),
    (b'{"model":"m","messages":[{"role":"tool","content":"x"}]}',
     "messages[0].tool_call_id", "is required"),
    (b'{"model":"m","messages":[{"role":"tool","tool_call_id":"","content":"x"}]}',
     "messages[0].tool_call_id", "is required"),
    (b'{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio",'
     b'"input_audio":{"data":"%%%","format":"wav"}}]}]}',
     "messages[0].content[0].input_audio.data", "base64"),
    (TEXT_ONLY + b'"temperature":"hot"}', "temperature", "expected `float"),
    (TEXT_ONLY + b'"temperature":1e999}', "temperature", ""),
    (TEXT_ONLY + b'"stream":"yes"}', "stream", "expected `bool"),
    (TEXT_ONLY + b'"n":0}', "n", ">= 1"),
    (TEXT_ONLY + b'"n":129}', "n", "<= 128"),
    (TEXT_ONLY + b'"seed":9223372036854775808}', "seed", ""),
    (TEXT_ONLY + b'"max_tokens":1.5}', "max_tokens", ""),
    (TEXT_ONLY + b'"stop":[1]}', "stop[0]", ""),
    (TEXT_ONLY + b'"audio":{"voice":1,"format":"wav"}}', "audio.voice", ""),
    (TEXT_ONLY + b'"tools":[1]}', "tools[0]", ""),
    (TEXT_ONLY + b'"tools":[{"function":{"name":"f"}}]}', "tools[0].type", "is required"),
    (TEXT_ONLY + b'"tools":[{"type":"function"}]}', "tools[0].function", "is required"),
    (TEXT_ONLY + b'"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]}',
     "tools[0].function.parameters", "object"),
    (TEXT_ONLY + b'"tools":[{"type":"function","function":{"name":"f","params":{}}}]}',
     "tools[0].function.params", "not known"),
    (TEXT_ONLY + b'"tool_choice":"any"}', "tool_choice", ""),
    (TEXT_ONLY + b'"tool_choice":{"type":"function"}}', "tool_choice.function", "is required"),
    (TEXT_ONLY + b'"tool_choice":{"type":"function","function":{"name":"f"}}}',
     "tool_choice", "not in tools"),
    (TEXT_ONLY + b'"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":1}}}',
     "response_format.json_schema.schema", "object"),
    (TEXT_ONLY + b'"thinking":[1]}', "thinking", "object"),
    (TEXT_ONLY + b'"metadata":{"a":1}}', "metadata[...]", "expected `str`"),
]  # fmt: skip


async def test_bad_body(site: Site, subtests: pytest.Subtests) -> None:
    for body, param, words in BAD_BODIES:
        with subtests.test(body=body[-60:]):
            for stream in (False, True) if body.startswith(TEXT_ONLY) else (False,):
                sent = (
                    body[:-1] + b',"stream":true}' if stream and b'"stream"' not in body else body
                )
                found = envelope(await post(site, sent), 400)
                assert found["param"] == param, found
                assert words in found["message"]
                assert "jSON" not in found["message"] and "parts[" not in found["message"]
                assert "_json" not in found["message"]
                assert (found["type"], found["code"]) == ("invalid_request_error", None)
            assert not site.up.requests


async def test_unknown_bodies_of_the_upstream_are_faults_of_its_own(site: Site) -> None:
    site.up.script(answer(b"{}"), answer(b"[1]"), answer({"choices": []}))
    for _ in range(3):
        assert envelope(await post(site), 502)["code"] == "upstream_protocol"


@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 503, 504])
async def test_an_early_error_keeps_its_status_in_stream_mode(site: Site, status: int) -> None:
    site.up.script(error(status, "No."), error(status, "No."))
    whole, streamed = await post(site), await post(site, ASKED | {"stream": True})
    assert whole.status_code == streamed.status_code
    assert whole.json() == streamed.json()
    envelope(streamed, {401: 502, 500: 503}.get(status, status))


async def test_an_error_in_the_first_event_keeps_its_status(site: Site) -> None:
    failure = {"error": {"message": "Slow down.", "type": "rate_limit_error", "code": None}}
    site.up.script(sse([b": hello\n\n", failure], done=False))
    assert envelope(await post(site, ASKED | {"stream": True}), 429)["message"] == "Slow down."


async def test_a_defect_is_opaque(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.gateway.app.core.setup.router.resolve = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
    for asked in (ASKED, ASKED | {"stream": True}):
        found = envelope(await post(site, asked), 500)
        assert (found["type"], found["code"]) == ("server_error", "internal")
        assert "division" not in found["message"] and "req_" in found["message"]


# Sizes.


async def test_body_limit(site: Site) -> None:
    await site.open(facade=FacadeSettings(body_limit=1000))

    async def pieces(count: int) -> Any:
        for _ in range(count):
            yield b" " * 100

    head = json.dumps(ASKED).encode()
    assert (await post(site, head + b" " * (1000 - len(head)))).status_code == 200
    for body in (head + b" " * 1000, pieces(11), pieces(5000)):
        found = envelope(await post(site, body), 413)
        assert found["code"] == "payload_too_large" and "1000 bytes" in found["message"]
    assert len(site.up.requests) == 1


async def test_a_body_in_many_pieces(site: Site) -> None:
    async def pieces() -> Any:
        for byte in json.dumps(ASKED).encode():
            yield bytes([byte])

    assert (await post(site, pieces())).status_code == 200


# Headers.


@pytest.mark.parametrize("given", ["abc-1.2_3", "A" * 128])
async def test_request_id_in_and_out(site: Site, given: str) -> None:
    async with site.gateway.http(headers={"x-request-id": given}) as http:
        for got in (
            await http.post(CHAT, json=ASKED),
            await http.post(CHAT, json=ASKED | {"stream": True}),
            await http.post(CHAT, json={}),
            await http.get("/v1/models"),
            await http.get("/v1/models/nope"),
            await http.get("/nowhere"),
        ):
            assert got.headers["x-request-id"] == given
    assert {s.request_id for s in await site.gateway.settled(2)} == {given}


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "A" * 129, "x;y", "ÿ".encode()])
async def test_malformed_request_id_is_replaced(site: Site, given: Any) -> None:
    got = await post(site, headers={"x-request-id": given})
    assert got.status_code == 200
    assert got.headers["x-request-id"].startswith("req_")


async def test_the_headers_tell_who_answered(site: Site) -> None:
    for stream in (False, True):
        got = await post(site, ASKED | {"stream": stream})
        assert got.headers["x-headgate-provider"] == "up"
        assert got.headers["x-headgate-model"] == "upstream-m"
        assert got.headers["x-headgate-attempts"] == "1"
        assert "x-headgate-warnings" not in got.headers


async def test_no_cors_by_default(site: Site) -> None:
    got = await post(site, headers={"origin": "https://app.example"})
    assert not [name for name in got.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origins", [("https://app.example",), ("*",)])
async def test_cors(site: Site, origins: tuple[str, ...]) -> None:
    await site.open(facade=FacadeSettings(cors_origins=origins))
    origin = {"origin": "https://app.example"}
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    allowed = "*" if origins == ("*",) else "https://app.example"
    async with site.gateway.http() as http:
        got = await http.options(CHAT, headers=origin | preflight)
        assert got.status_code == 200
        assert got.headers["access-control-allow-origin"] == allowed
        assert "POST" in got.headers["access-control-allow-methods"]
        assert "x-stainless-lang" in got.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in got.headers
        for body in (ASKED, ASKED | {"stream": True}, {}):
            got = await http.post(CHAT, json=body, headers=origin)
            assert got.headers["access-control-allow-origin"] == allowed
            exposed = got.headers["access-control-expose-headers"]
            for name in (
                "x-request-id",
                "x-headgate-provider",
                "x-headgate-warnings",
                "retry-after",
            ):
                assert name in exposed
        other = {"origin": "https://evil.example"}
        got = await http.options(CHAT, headers=other | preflight)
        assert (got.status_code == 200) is (origins == ("*",))


# Quiet streams.


async def test_pings(site: Site) -> None:
    await site.open(facade=FacadeSettings(ping_interval=0.05))
    begun, rest = chunks(["Hel"], finish_reason=""), chunks(["lo"])[1:]
    site.up.script(sse([*begun, 0.3, *rest]))
    got = await post(site, ASKED | {"stream": True})
    assert 3 <= got.text.count(": ping\n\n") <= 6
    spoken = [event for event in events(got.text) if event != ": ping"]
    assert spoken[-1] == "[DONE]"
    text = "".join(
        json.loads(event)["choices"][0]["delta"].get("content") or "" for event in spoken[:-1]
    )
    assert text == "Hello"


async def test_no_pings_in_a_lively_stream(site: Site) -> None:
    await site.open(facade=FacadeSettings(ping_interval=0.2))
    script = [piece for chunk in chunks(["a"] * 20) for piece in (chunk, 0.02)]
    site.up.script(sse(script))
    got = await post(site, ASKED | {"stream": True})
    assert ": ping" not in got.text and got.text.endswith("data: [DONE]\n\n")


async def test_events_are_not_held_back(site: Site) -> None:
    go_on = asyncio.Event()
    begun, rest = chunks(["Hel"], finish_reason=""), chunks(["lo"])[1:]
    site.up.script(sse([*begun, go_on, *rest]))
    async with (
        site.gateway.http() as http,
        http.stream("POST", CHAT, json=ASKED | {"stream": True}) as got,
    ):
        seen = ""
        async for text in got.aiter_text():
            seen += text
            if '"Hel"' in seen and not go_on.is_set():
                go_on.set()
    assert '"lo"' in seen


@pytest.mark.parametrize("name", ["authorization", "traceparent", "tracestate"])
async def test_headers_that_are_not_ascii(site: Site, name: str) -> None:
    """Legal in HTTP, illegal in gRPC metadata: no reason for a defect on either path."""
    got = await post(site, headers={name: b"Bearer sk-\xff\xc3\xa9"})
    assert got.status_code == 200
    await site.open(
        extra="auth: {mode: keys, keys: [{name: a, key: abcdefghijklmnop, models: [m]}]}"
    )
    got = await post(site, headers={"authorization": b"Bearer sk-\xff\xc3\xa9"})
    assert envelope(got, 401)["code"] == "invalid_api_key"
