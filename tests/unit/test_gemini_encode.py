"""Requests to the Gemini API and to Vertex AI: addresses, policies, counting. Bodies are golden cases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from headgate.errors import GatewayError, InvalidRequest, ModelNotFound, UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate_server.config import Provider
from headgate_server.providers import dialect_of, endpoint_of, vendor_of
from headgate_server.providers.base import Endpoint, HttpCall, Target, TokenCounter
from headgate_server.providers.gemini import GeminiDialect
from headgate_server.providers.vendors import family_of

DIALECT = GeminiDialect(1 << 20)
GEMINI = Endpoint("https://generativelanguage.googleapis.com", {"x-goog-api-key": "k"})
VERTEX = Endpoint(
    "https://us-central1-aiplatform.googleapis.com",
    {"authorization": "Bearer t"},
    "us-central1",
    "acme",
)


def target(model: str = "gemini-2.5-flash", kind: str = "gemini", **facts: Any) -> Target:
    return Target("mine", kind, model, vendor_of(kind, None), family_of(model), **facts)


def request(**fields: Any) -> chat_pb2.ChatRequest:
    usual = {"model": "m", "messages": [{"role": "ROLE_USER", "parts": [{"text": "Hi"}]}]}
    return json_format.ParseDict(usual | fields, chat_pb2.ChatRequest())


def encode(at: Target, endpoint: Endpoint = GEMINI, **fields: Any) -> HttpCall:
    return DIALECT.encode(request(**fields), at, endpoint, stream=False)


def body(call: HttpCall) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call.body)
    return found


def test_the_registry_has_it() -> None:
    for kind in ("gemini", "vertex"):
        found = dialect_of(kind, vendor_of(kind, None), 1 << 20)
        assert found.name == "gemini"
        assert isinstance(found, TokenCounter)


@pytest.mark.parametrize("kind", ["gemini", "vertex"])
def test_a_streamed_call_differs_in_the_address_only(kind: str) -> None:
    at = target(kind=kind)
    endpoint = GEMINI if kind == "gemini" else VERTEX
    asked = request(temperature=1.0, tools=[{"function": {"name": "f"}}])
    whole = DIALECT.encode(asked, at, endpoint, stream=False)
    stream = DIALECT.encode(asked, at, endpoint, stream=True)
    assert whole.body == stream.body
    assert whole.headers == stream.headers
    method = ":generateContent"
    assert whole.url.endswith(method)
    assert stream.url == whole.url.removesuffix(method) + ":streamGenerateContent?alt=sse"


# Addresses.


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://a.test", "https://a.test/v1beta"),
        ("https://a.test/", "https://a.test/v1beta"),
        ("https://a.test/v1beta", "https://a.test/v1beta"),
        ("https://a.test/v1", "https://a.test/v1beta"),
        ("https://a.test/v1beta/", "https://a.test/v1beta"),
        ("https://a.test/google", "https://a.test/google/v1beta"),
    ],
)
def test_base_addresses(base: str, expected: str) -> None:
    url = encode(target(), Endpoint(base, {})).url
    assert url == f"{expected}/models/gemini-2.5-flash:generateContent"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("models/gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("tunedModels/x-1", "tunedModels/x-1"),
        ("a/b", "models/a%2Fb"),
        ("x:countTokens?key=1#", "models/x%3AcountTokens%3Fkey%3D1%23"),
        ("ü", "models/%C3%BC"),
    ],
)
def test_names_of_models(model: str, expected: str) -> None:
    assert encode(target(model)).url == f"{GEMINI.base_url}/v1beta/{expected}:generateContent"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gemini-2.5-flash", "projects/acme/locations/us-central1/publishers/google/models/{}"),
        ("models/gemini-2.5-pro", "projects/acme/locations/us-central1/publishers/google/{}"),
        ("google/x", "projects/acme/locations/us-central1/publishers/google/models/x"),
        ("meta/llama", "projects/acme/locations/us-central1/publishers/meta/models/llama"),
        ("publishers/google/models/x@1", "projects/acme/locations/us-central1/{}"),
        ("endpoints/42", "projects/acme/locations/us-central1/{}"),
        ("projects/p/locations/l/endpoints/42", "{}"),
        ("projects/p/locations/l/endpoints/4:x?y", "projects/p/locations/l/endpoints/4%3Ax%3Fy"),
    ],
)
def test_names_of_models_on_vertex(model: str, expected: str) -> None:
    url = encode(target(model, "vertex"), VERTEX).url
    assert url == f"{VERTEX.base_url}/v1/{expected.format(model)}:generateContent"


@pytest.mark.parametrize("kind", ["gemini", "vertex"])
@pytest.mark.parametrize("model", ["", "..", "models/..", "projects/p/../q", "a//b", "."])
def test_names_that_are_none(kind: str, model: str) -> None:
    with pytest.raises(ModelNotFound):
        encode(target(model, kind), VERTEX)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_hosts_of_vertex(region: str, host: str) -> None:
    settings = Provider(kind="vertex", region=region, project="acme", bearer_token="t")
    endpoint = endpoint_of(settings, vendor_of("vertex", None))
    call = encode(target(kind="vertex"), endpoint)
    path = f"projects/acme/locations/{region}/publishers/google/models/gemini-2.5-flash"
    assert call.url == f"https://{host}/v1/{path}:generateContent"
    assert call.headers["authorization"] == "Bearer t"


def test_a_key_on_vertex_is_express_mode() -> None:
    settings = Provider(kind="vertex", region="us-central1", project="acme", api_key="k")
    endpoint = endpoint_of(settings, vendor_of("vertex", None))
    call = encode(target(kind="vertex"), endpoint)
    model = "publishers/google/models/gemini-2.5-flash"
    assert call.url == f"https://aiplatform.googleapis.com/v1/{model}:generateContent"
    assert call.headers["x-goog-api-key"] == "k"
    assert "authorization" not in call.headers


def test_an_address_of_ones_own_on_vertex() -> None:
    settings = Provider(kind="vertex", base_url="http://10.0.0.1:80/v1/", bearer_token="t")
    endpoint = endpoint_of(settings, vendor_of("vertex", settings.base_url))
    call = encode(target(kind="vertex"), endpoint)
    model = "publishers/google/models/gemini-2.5-flash"
    assert call.url == f"http://10.0.0.1:80/v1/{model}:generateContent"


def test_the_version_can_be_chosen() -> None:
    url = encode(target(api_version="v1alpha")).url
    assert url == f"{GEMINI.base_url}/v1alpha/models/gemini-2.5-flash:generateContent"


# What goes by the policy.

SMALL_SEARCH = {"web_search_options": {"search_context_size": "low"}}
OTHER_EXTRAS = {
    "messages": [{"role": "ROLE_USER", "parts": [{"text": "x"}], "extra_json": '{"prompt_id": 1}'}]
}


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("parallel_tool_calls", {"parallel_tool_calls": False}),
        ("verbosity", {"verbosity": "low"}),
        ("user", {"user": "u"}),
        ("metadata", {"metadata": {"a": "b"}}),
        ("reasoning.effort", {"reasoning": {"effort": "extreme"}}),
        ("web_search_options.search_context_size", SMALL_SEARCH),
        ("audio.format", {"audio": {"voice": "Kore", "format": "mp3"}}),
        ("messages[0].prompt_id", OTHER_EXTRAS),
        ("tool_choice.provider_choice_json", {"tool_choice": {"provider_choice_json": "{}"}}),
        ("top_a", {"extra_body_json": '{"top_a": 1}'}),
    ],
)
def test_tuning_that_is_lacking(field: str, fields: dict[str, Any]) -> None:
    call = encode(target(), **fields)
    assert [warning.field for warning in call.warnings] == [field]
    with pytest.raises(InvalidRequest) as caught:
        encode(target(policy="strict"), **fields)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    "fields",
    [
        {"parallel_tool_calls": True},
        {"n": 1},
        {"service_tier": "auto"},
        {"store": False},
        {"logprobs": False},
        {"response_format": {"json_schema": {"name": "x", "strict": True}}},
        {"tools": [{"function": {"name": "f", "strict": False}, "cache_control": {"ttl": "1h"}}]},
    ],
)
def test_what_is_no_news_needs_no_word(fields: dict[str, Any]) -> None:
    assert not encode(target(policy="strict"), **fields).warnings


@pytest.mark.parametrize(
    ("tier", "gemini", "vertex"),
    [
        ("auto", None, None),
        ("default", "standard", None),
        ("flex", "flex", "flex"),
        ("priority", "priority", "priority"),
    ],
)
def test_tiers(tier: str, gemini: str | None, vertex: str | None) -> None:
    assert body(encode(target(), service_tier=tier)).get("serviceTier") == gemini
    call = encode(target(kind="vertex"), VERTEX, service_tier=tier)
    assert "serviceTier" not in body(call)
    assert call.headers.get("x-vertex-ai-llm-shared-request-type") == vertex
    assert not call.warnings


def test_a_configured_tier_wins() -> None:
    name = "x-vertex-ai-llm-shared-request-type"
    endpoint = Endpoint(VERTEX.base_url, {name: "priority"}, "us-central1", "acme")
    call = encode(target(kind="vertex"), endpoint, service_tier="flex")
    assert call.headers[name] == "priority"
    assert endpoint.headers == {name: "priority"}


def image(detail: str | None = None) -> dict[str, Any]:
    media = {"data": "AAAA", "media_type": "image/png"}
    return {"image": media | ({"detail": detail} if detail else {})}


@pytest.mark.parametrize(
    ("details", "resolution", "warned"),
    [
        ([None], None, False),
        (["auto", None], None, False),
        (["high", "high"], "MEDIA_RESOLUTION_HIGH", False),
        (["low", "high"], None, True),
        (["low", None], None, True),
        (["ultra"], None, True),
    ],
)
def test_details(details: list[str | None], resolution: str | None, warned: bool) -> None:
    messages = [{"role": "ROLE_USER", "parts": [image(detail) for detail in details]}]
    call = encode(target(), messages=messages)
    assert body(call).get("generationConfig", {}).get("mediaResolution") == resolution
    assert bool(call.warnings) is warned


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:image/png;base64,AAAA", {"mimeType": "image/png", "data": "AAAA"}),
        ("data:;base64,AAAA", {"mimeType": "text/plain", "data": "AAAA"}),
        (
            "data:text/plain;charset=utf-8,a%20b",
            {"mimeType": "text/plain;charset=utf-8", "data": "YSBi"},
        ),
        ("data:,x", {"mimeType": "text/plain", "data": "eA=="}),
    ],
)
def test_data_urls(url: str, expected: dict[str, str]) -> None:
    messages = [{"role": "ROLE_USER", "parts": [{"file": {"url": url}}]}]
    (content,) = body(encode(target(), messages=messages))["contents"]
    assert content["parts"] == [{"inlineData": expected}]


def test_a_data_url_without_a_comma() -> None:
    messages = [{"role": "ROLE_USER", "parts": [{"file": {"url": "data:image/png"}}]}]
    with pytest.raises(InvalidRequest) as caught:
        encode(target(), messages=messages)
    assert [violation.field for violation in caught.value.violations] == [
        "messages[0].parts[0].file.url"
    ]


# Counting.

FULL = {
    "messages": [
        {"role": "ROLE_SYSTEM", "parts": [{"text": "Be brief."}]},
        {"role": "ROLE_USER", "parts": [{"text": "Hi"}]},
    ],
    "tools": [{"function": {"name": "f"}}],
    "temperature": 1.0,
    "verbosity": "low",
    "extra_dialect": "gemini",
    "extra_body_json": '{"cachedContent": "cachedContents/1", "contents": [], "safetySettings": []}',
}
CONTENTS = [{"role": "user", "parts": [{"text": "Hi"}]}]
TOOLS = [{"functionDeclarations": [{"name": "f"}]}]
SYSTEM = {"parts": [{"text": "Be brief."}]}


def test_counting() -> None:
    call = DIALECT.encode_count(request(**FULL), target(policy="strict"), GEMINI)
    assert call.url == f"{GEMINI.base_url}/v1beta/models/gemini-2.5-flash:countTokens"
    assert body(call) == {
        "generateContentRequest": {
            "model": "models/gemini-2.5-flash",
            "contents": CONTENTS,
            "systemInstruction": SYSTEM,
            "tools": TOOLS,
            "cachedContent": "cachedContents/1",
        }
    }
    assert not call.warnings


def test_counting_on_vertex() -> None:
    call = DIALECT.encode_count(request(**FULL), target(kind="vertex"), VERTEX)
    path = "projects/acme/locations/us-central1/publishers/google/models/gemini-2.5-flash"
    assert call.url == f"{VERTEX.base_url}/v1/{path}:countTokens"
    assert body(call) == {"contents": CONTENTS, "systemInstruction": SYSTEM, "tools": TOOLS}


def test_counting_refuses_what_encoding_refuses() -> None:
    messages = [{"role": "ROLE_ASSISTANT", "parts": [{"audio": {"id": "a"}}]}]
    with pytest.raises(InvalidRequest):
        DIALECT.encode_count(request(messages=messages), target(), GEMINI)


def test_counts() -> None:
    answer = b'{"totalTokens": 31, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 31}]}'
    assert DIALECT.decode_count(answer) == 31


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"{}", UpstreamProtocol),
        (b"[", UpstreamProtocol),
        (b"\xff", UpstreamProtocol),
        (b'{"totalTokens": "many"}', UpstreamProtocol),
        (b'{"error": {"code": 404, "message": "models/x is not found"}}', ModelNotFound),
    ],
)
def test_counts_that_are_none(answer: bytes, kind: type[GatewayError]) -> None:
    with pytest.raises(kind):
        DIALECT.decode_count(answer)
