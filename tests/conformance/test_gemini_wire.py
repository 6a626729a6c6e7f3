"""Paths, keys, headers and bytes of Gemini's door, as its documentation has them.

Source: https://ai.google.dev/api/generate-content and https://ai.google.dev/api/models. SDKs forgive
much of this; clients written from the documentation do not.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from conformance.conftest import HELLO, Site
from conformance.gemini_sdk import TEXT
from fakes.gateway import KEY
from fakes.upstream import answer, chunks, completion, sse, tool_call
from headgate_facade.settings import FacadeSettings

ASKED: dict[str, Any] = {"contents": [{"parts": [{"text": "Hello!"}]}]}
VERSIONS = ["/v1beta", "/v1"]
KEYS = f"""
auth: {{mode: keys, keys: [{{name: a, key: "{KEY}"}}]}}
"""
JSON = "application/json; charset=UTF-8"


async def send(site: Site, method: str, path: str, **options: Any) -> httpx.Response:
    async with site.gateway.http() as http:
        return await http.request(method, path, **options)


async def post(site: Site, path: str, body: Any = ASKED, **options: Any) -> httpx.Response:
    return await send(site, "POST", path, json=body, **options)


# Paths.


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_body(site: Site, version: str) -> None:
    site.up.script(answer(completion("Hi.", usage=None)))
    got = await post(site, f"{version}/models/m:generateContent")
    assert got.text == (
        '{"candidates":[{"content":{"parts":[{"text":"Hi."}],"role":"model"},'
        '"finishReason":"STOP","index":0}],"modelVersion":"m",'
        '"createTime":"2025-03-10T01:25:52Z",'
        '"responseId":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"}'
    )
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-headgate-provider"] == "up" and got.headers["x-headgate-attempts"] == "1"


@pytest.mark.parametrize("version", VERSIONS)
async def test_events(site: Site, version: str) -> None:
    site.up.script(sse(chunks(["Hé", "llo"])))
    got = await post(site, f"{version}/models/m:streamGenerateContent?alt=sse")
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert got.headers["cache-control"] == "no-cache"
    *events, rest = got.text.split("\r\n\r\n")
    assert rest == "" and all(event.startswith('data: {"candidates":[{') for event in events)
    assert events[0].startswith(
        'data: {"candidates":[{"content":{"parts":[{"text":"Hé"}],"role":"model"},"index":0}],'
    )
    assert json.loads(events[-1][6:])["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize("query", ["", "?alt=json"])
async def test_an_array(site: Site, query: str) -> None:
    got = await post(site, f"/v1beta/models/m:streamGenerateContent{query}")
    assert got.headers["content-type"] == JSON
    assert got.text.startswith('[{"candidates":') and "}\n,\r\n{" in got.text
    parts = [c["candidates"][0]["content"]["parts"][0] for c in json.loads(got.text)]
    assert "".join(part["text"] for part in parts) == TEXT


async def test_an_array_with_pings(site: Site) -> None:
    await site.open(facade=FacadeSettings(ping_interval=0.02))
    site.up.script(sse(chunks(["a", "b"]), delay=0.1))
    got = await post(site, "/v1beta/models/m:streamGenerateContent")
    assert "\n\n" in got.text and len(json.loads(got.text)) == 3
    assert got.text.startswith("[")


@pytest.mark.parametrize("path", ["up/llama3:8b", "up%2Fllama3%3A8b"])
async def test_names_with_slashes_and_colons(site: Site, path: str) -> None:
    for version in VERSIONS:
        got = await post(site, f"{version}/models/{path}:generateContent")
        assert got.status_code == 200, got.text
        assert site.sent["model"] == "llama3:8b"
        got = await post(site, f"{version}/models/{path}:countTokens")
        assert got.json()["totalTokens"] > 0
    got = await send(site, "GET", f"/v1beta/models/{path}")
    assert got.json()["name"] == "models/up/llama3:8b"


NO_SUCH_THINGS: list[Any] = [
    ("POST", "/v1beta/models/m"),
    ("POST", "/v1/models/m"),
    ("POST", "/v1beta/models/m:embedContent"),
    ("POST", "/v1/models/m:batchGenerateContent"),
    ("POST", "/v1beta/cachedContents"),
    ("GET", "/v1beta/files"),
    ("POST", "/v1beta/models"),
    ("DELETE", "/v1beta/models/m"),
    ("GET", "/v1beta/"),
]


async def test_no_such_thing(site: Site, subtests: pytest.Subtests) -> None:
    for method, path in NO_SUCH_THINGS:
        with subtests.test(method=method, path=path):
            got = await send(site, method, path)
            assert (got.status_code, got.headers["content-type"]) == (404, JSON)
            failed = got.json()["error"]
            assert list(failed) == ["code", "message", "status"]
            assert (failed["code"], failed["status"]) == (404, "NOT_FOUND")
            assert f"{method} {path}" in failed["message"]
            assert got.headers["x-request-id"].startswith("req_")


async def test_openai_keeps_its_paths(site: Site) -> None:
    """What is not Gemini's below /v1 is answered as before."""
    got = await send(site, "DELETE", "/v1/models/m")
    assert (got.status_code, got.json()["error"]["code"]) == (405, "method_not_allowed")
    for headers in ({}, {"authorization": f"Bearer {KEY}", "x-goog-api-key": KEY}):
        got = await send(site, "GET", "/v1/models", headers=headers)
        assert got.json()["object"] == "list"
        assert (await send(site, "GET", "/v1/models/m", headers=headers)).json()["id"] == "m"
    got = await post(site, "/v1/chat/completions", {"model": "m", "messages": HELLO})
    assert got.json()["object"] == "chat.completion"


# Keys.


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"x-goog-api-key": KEY}},
        {"params": {"key": KEY}},
        {"headers": {"authorization": f"Bearer {KEY}"}},
    ],
    ids=["header", "query", "bearer"],
)
async def test_keys(site: Site, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("headgate", "headgate_facade", "headgate_server", "uvicorn", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    await site.open(extra=KEYS)
    for path in ("m:generateContent", "m:streamGenerateContent", "m:countTokens", "x:countTokens"):
        got = await post(site, f"/v1beta/models/{path}", **options)
        assert got.status_code == (404 if path.startswith("x") else 200), got.text
        assert KEY not in got.text + str(got.headers)
    for path in ("/v1beta/models", "/v1beta/models/m"):
        assert (await send(site, "GET", path, **options)).status_code == 200
    got = await post(site, "/v1beta/models/m:unknown", **options)
    assert got.status_code == 404 and KEY not in got.text
    # httpx is the client here, and logs its own addresses.
    said = [r.getMessage() for r in caplog.records if not r.name.startswith("http")]
    assert all(KEY not in text for text in said)
    assert all(KEY.encode() not in record.body for record in site.up.requests)
    assert all(KEY not in str(record.headers) for record in site.up.requests)


async def test_no_key(site: Site) -> None:
    await site.open(extra=KEYS)
    for method, path in (
        ("POST", "/v1beta/models/m:generateContent"),
        ("POST", "/v1beta/models/m:streamGenerateContent?alt=sse"),
        ("POST", "/v1beta/models/m:countTokens"),
        ("GET", "/v1beta/models"),
        ("GET", "/v1beta/models/m"),
        ("GET", "/v1/models?key=wrong-key-0123456789"),
    ):
        got = await send(site, method, path, json=ASKED if method == "POST" else None)
        failed = got.json()["error"]
        assert (got.status_code, failed["status"]) == (401, "UNAUTHENTICATED"), path
        assert "wrong-key" not in got.text


# Models.


async def test_models(site: Site) -> None:
    await site.open(
        models='  gpt-4.1: {targets: [{provider: up}]}\n  "x/y": {targets: [{provider: up}]}'
    )
    key = {"x-goog-api-key": KEY}
    first = (await send(site, "GET", "/v1beta/models?pageSize=2")).json()
    assert [model["name"] for model in first["models"]] == ["models/gpt-4.1", "models/m"]
    known, unknown = first["models"]
    assert known["displayName"] == "gpt-4.1" and known["thinking"] is False
    assert known["inputTokenLimit"] > known["outputTokenLimit"] > 1000
    assert set(known["supportedGenerationMethods"]) >= {"generateContent", "countTokens"}
    assert "inputTokenLimit" not in unknown
    token = first["nextPageToken"]
    for path, headers in (("/v1beta/models", {}), ("/v1/models", key)):
        rest = await send(site, "GET", f"{path}?page_size=2&page_token={token}", headers=headers)
        assert [model["name"] for model in rest.json()["models"]] == ["models/x/y"]
        assert "nextPageToken" not in rest.json()
    for path, headers in (("/v1beta", {}), ("/v1", key)):
        got = await send(site, "GET", f"{path}/models/gpt-4.1", headers=headers)
        assert got.json() == known and got.headers["content-type"] == JSON


@pytest.mark.parametrize(
    ("query", "field"),
    [("pageSize=x", "pageSize"), ("pageSize=-1", "pageSize"), ("pageToken=zzz", "pageToken")],
)
async def test_bad_pages(site: Site, query: str, field: str) -> None:
    got = await send(site, "GET", f"/v1beta/models?{query}")
    failed = got.json()["error"]
    assert (got.status_code, failed["status"]) == (400, "INVALID_ARGUMENT")
    assert failed["message"].startswith(f"{field}: ")


# Bodies.


async def test_count_of_a_whole_request(site: Site) -> None:
    body = {"model": "models/m", **ASKED, "systemInstruction": {"parts": [{"text": "word " * 50}]}}
    plain = (await post(site, "/v1beta/models/m:countTokens")).json()["totalTokens"]
    for wrapped in (
        {"generateContentRequest": body},
        {"generate_content_request": body | {"system_instruction": body["systemInstruction"]}},
        body,
    ):
        got = await post(site, "/v1beta/models/m:countTokens", wrapped)
        assert got.json()["totalTokens"] > plain + 40, got.text
        assert "estimated" in got.headers["x-headgate-warnings"]
    got = await post(site, "/v1beta/models/m:countTokens", {"generateContentRequest": body} | ASKED)
    assert got.status_code == 400
    assert (await post(site, "/v1beta/models/m:countTokens", {})).status_code == 400


async def test_warnings(site: Site) -> None:
    """What an upstream of another dialect cannot do is said, not swallowed."""
    body = ASKED | {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT"}]}
    got = await post(site, "/v1beta/models/m:generateContent", body)
    assert got.status_code == 200 and "safetySettings" not in site.sent
    assert "safetySettings" in got.headers["x-headgate-warnings"]


async def test_too_large(site: Site) -> None:
    await site.open(facade=FacadeSettings(body_limit=1000))
    body = {"contents": [{"parts": [{"text": "x" * 2000}]}]}
    for verb in ("generateContent", "countTokens"):
        got = await post(site, f"/v1beta/models/m:{verb}", body)
        assert got.status_code == 413
        assert got.json()["error"]["status"] == "RESOURCE_EXHAUSTED"


async def test_cross_origin(site: Site) -> None:
    await site.open(facade=FacadeSettings(cors_origins=("https://a.example",)))
    origin = {"origin": "https://a.example"}
    for version in VERSIONS:
        path = f"{version}/models/m:generateContent"
        asked = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-goog-api-key",
        }
        got = await send(site, "OPTIONS", path, headers=origin | asked)
        assert got.status_code == 200
        assert "x-goog-api-key" in got.headers["access-control-allow-headers"]
        got = await post(site, path, headers=origin)
        assert got.headers["access-control-allow-origin"] == "https://a.example"


async def test_calls_go_out_whole(site: Site) -> None:
    site.up.script(sse(chunks([], tool_calls=[tool_call("f", {"a": list(range(40))})])))
    got = await post(site, "/v1beta/models/m:streamGenerateContent")
    call, last = json.loads(got.text)
    assert call["candidates"][0]["content"]["parts"] == [
        {"functionCall": {"id": "call_1", "name": "f", "args": {"a": list(range(40))}}}
    ]
    assert last["candidates"][0]["finishReason"] == "STOP"
