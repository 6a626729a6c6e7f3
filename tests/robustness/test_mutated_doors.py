"""Requests with something wrong at every front door: 4xx with the field named, or an answer.

And requests that only gRPC can make, before every dialect under each policy: `InvalidRequest`, or a body.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.gateway import Gateway
from fakes.upstream import Answer, Exchange, FakeUpstream
from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate_server.providers import dialect_of, vendor_of
from headgate_server.providers.base import Dialect, Endpoint, Target, TokenCounter
from headgate_server.providers.vendors import family_of
from headgate_server.validate import validate
from robustness.fronts import FRONTS, Front
from robustness.hostile import BY_KIND, KINDS, TEXT, pieces_of, provider, streamed
from robustness.junk import BROKEN, JUNK, count_of, dumped, variant
from unit.test_door_golden import ROOT
from unit.test_provider_golden import CASES

# What is a value somewhere in one of the APIs, and wrong in most places.
WORDS: list[Any] = [
    "text", "user", "image", "object", "auto", "data:image/png;base64,aGk=", "https://x.test/a.png",
    {"type": "image"}, {"type": "tool_use"}, {"text": "x"}, [{"type": "text", "text": "x"}], 5,
]  # fmt: skip
ALL_JUNK = [*JUNK, *WORDS]
COMPLETION: dict[str, Any] = {
    "model": "m", "prompt": ["a", "b"], "suffix": "s", "max_tokens": 5, "temperature": 1, "n": 2,
    "logprobs": 3, "echo": True, "stop": ["x"], "logit_bias": {"1": 2}, "best_of": 3, "user": "u",
    "seed": 1, "stream_options": {"include_usage": True}, "presence_penalty": 0.1, "surprise": [1],
}  # fmt: skip
COUNT_TEXTS = (b"count", b"input_tokens")


async def obliging(exchange: Exchange) -> None:
    """Answers as whichever vendor it is taken for."""
    record = exchange.record
    path = record.path
    if path.partition("?")[0].endswith(
        ("count_tokens", ":countTokens", "count-tokens", "input_tokens")
    ):
        body = {"input_tokens": 7, "totalTokens": 7, "inputTokens": 7}
        await Answer([json.dumps(body).encode()])(exchange)
        return
    if path == "/v1/completions":
        choice = {"index": 0, "text": "x", "finish_reason": "stop", "logprobs": None}
        body = {"id": "c", "created": 1, "model": "m", "choices": [choice]}
        text = json.dumps(body).encode()
        stream = record.json.get("stream")
        pieces = [b"data: " + text + b"\n\n", b"data: [DONE]\n\n"]
        await (streamed(BY_KIND["openai"], pieces) if stream else Answer([text]))(exchange)
        return
    marks = {
        "/chat/completions": "openai", "/messages": "anthropic", "enerateContent": "gemini",
        "/converse": "bedrock", "/v2/chat": "cohere", "/api/chat": "ollama",
        "/responses": "openai_responses",
    }  # fmt: skip
    kind = next(kind for mark, kind in marks.items() if mark in path)
    vendor = BY_KIND[kind]
    asked = record.json
    stream = "treamGenerate" in path or "converse-stream" in path or asked.get("stream")
    await (streamed(vendor, pieces_of(vendor, TEXT)) if stream else vendor.answer(TEXT))(exchange)


class Running:
    """A gateway kept running between examples; a model for each kind."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.runner.run(self._start())

    async def _start(self) -> None:
        self.up = await FakeUpstream().__aenter__()
        self.up.default(obliging)
        lines = ["providers:", *(provider(v, self.up.origin) for v in BY_KIND.values()), "models:"]
        lines += [
            f'  {v.kind}: {{targets: [{{provider: {v.kind}, model: "{v.model}"}}]}}'
            for v in BY_KIND.values()
        ]
        self.gateway = await Gateway("\n".join(lines)).__aenter__()
        self.http = self.gateway.http()

    def post(self, path: str, content: bytes, headers: Any = None) -> httpx.Response:
        self.up.requests.clear()
        return self.runner.run(self.http.post(path, content=content, headers=headers))

    def close(self) -> None:
        async def stop() -> None:
            await self.http.aclose()
            await self.gateway.__aexit__(None, None, None)
            await self.up.__aexit__(None, None, None)

        self.runner.run(stop())
        self.runner.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


@cache
def bodies(name: str) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Good bodies of a door, and the headers that go with them."""
    if name == "completions":
        return [(COMPLETION, {})]
    folder = ROOT / {"messages": "door_anthropic"}.get(name, f"door_{name}")
    found = []
    for case in sorted(folder.iterdir()):
        try:
            body = json.loads((case / "http_request.json").read_text())
        except (OSError, ValueError):
            continue
        http = case / "http.json"
        headers = json.loads(http.read_text()).get("headers", {}) if http.exists() else {}
        if isinstance(body, dict):
            found.append((body, headers))
    return found


@st.composite
def dice(draw: st.DrawFn) -> random.Random:
    """Draws numbers of their own come out small too often for places in large bodies."""
    return random.Random(draw(st.integers(0, 2**64)))


MANY = settings(
    max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
DOORS = [front for front in FRONTS if front.name != "chat"]


def check(front: Front, response: httpx.Response, note: str) -> None:
    if response.status_code == 200:
        return
    assert response.status_code in (400, 404, 413), f"{note}: {response.text}"
    told = front.told(response.json())
    assert told.message, note
    assert told.status in (None, response.status_code)
    # Of a body that is no object at all there is no field to be named.
    if response.status_code == 400 and not told.message.startswith("the body"):
        assert told.field and " " not in told.field, f"{note}: {told}"
        assert "messages[" not in told.field or front.name == "messages", f"{note}: {told}"
        assert ".parts[" not in told.field or front.name == "gemini", f"{note}: {told}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("front", DOORS, ids=lambda front: front.name)
@MANY
@given(rng=dice())
def test_mutated_bodies(running: Running, front: Front, rng: random.Random) -> None:
    body, headers = rng.choice(bodies(front.name))
    notes = []
    for _ in range(rng.randint(1, 3)):
        if isinstance(body, dict):
            note, body = variant(body, rng.randrange(count_of(body, ALL_JUNK)), ALL_JUNK)
            notes.append(note)
    kind = rng.choice(KINDS) if front.name != "completions" else "openai"
    stream = rng.random() < 0.5
    if isinstance(body, dict):
        body = dict(body)
        if body.get("model"):
            body["model"] = kind
        if front.name != "gemini":
            body.setdefault("stream", stream)
    response = running.post(front.path(kind, stream), dumped(body), headers)
    check(front, response, f"{kind}: {notes}: {body}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["messages", "gemini", "responses"])
@MANY
@given(rng=dice())
def test_mutated_bodies_to_count(running: Running, name: str, rng: random.Random) -> None:
    (front,) = [front for front in FRONTS if front.name == name]
    body, headers = rng.choice(bodies(name))
    kind = rng.choice(KINDS)
    if name == "gemini" and rng.random() < 0.5:
        body = {"generateContentRequest": {"model": f"models/{kind}", **body}}
    note, body = variant(body, rng.randrange(count_of(body, ALL_JUNK)), ALL_JUNK)
    if isinstance(body, dict):
        body = dict(body)
        if body.get("model"):
            body["model"] = kind
        if name != "gemini":
            body.pop("stream", None)
            body.pop("max_tokens", None)
    path = {
        "messages": "/v1/messages/count_tokens",
        "gemini": f"/v1beta/models/{kind}:countTokens",
        "responses": "/v1/responses/input_tokens",
    }[name]
    response = running.post(path, dumped(body), headers)
    if response.status_code == 200:
        answer = response.json()
        assert isinstance(answer.get("input_tokens", answer.get("totalTokens")), int)
    check(front, response, f"{kind}: {note}: {body}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("front", DOORS, ids=lambda front: front.name)
@settings(MANY, max_examples=200)
@given(rng=dice())
def test_mutated_bytes(running: Running, front: Front, rng: random.Random) -> None:
    body, headers = rng.choice(bodies(front.name))
    text = bytearray(json.dumps(body).encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        how = rng.choice(["flip", "cut", "insert"])
        if how == "flip" and at < len(text):
            text[at] = rng.randrange(256)
        elif how == "cut":
            del text[at:]
        else:
            text[at:at] = rng.randbytes(rng.randint(1, 8))
    response = running.post(front.path("openai", False), bytes(text), headers)
    check(front, response, repr(bytes(text)))


@pytest.mark.parametrize("front", DOORS, ids=lambda front: front.name)
def test_bytes_that_are_no_utf8_wherever_they_stand(running: Running, front: Front) -> None:
    """In each text and each member's name of a body with everything."""
    asked = 0
    for body, headers in bodies(front.name)[:: 1 if front.name == "completions" else 5]:
        for number in range(count_of(body, [BROKEN, {BROKEN: 1}])):
            note, changed = variant(body, number, [BROKEN, {BROKEN: 1}])
            if "missing" in note or not isinstance(changed, dict) or number % 2:
                continue
            response = running.post(front.path("anthropic", False), dumped(changed), headers)
            assert response.status_code == 400, f"{note}: {response.text}"
            check(front, response, note)
            asked += 1
    assert asked > 10


def test_deep_json(running: Running) -> None:
    """However deep, wherever: what one reader can bear may be too much for the next."""
    for front in FRONTS:
        for kind in KINDS:
            body = json.dumps(
                front.body(kind, False) | {"surprise": 0, "thinking": 1, "tools": [2]}
            )
            for mark in ('"surprise": 0', '"thinking": 1', "[2]"):
                for depth in (400, 965, 968, 971, 973, 974, 975, 976, 977, 978, 981, 50_000):
                    deep = '{"a":' * depth + "1" + "}" * depth
                    text = body.replace(
                        mark, mark[:-2] + f" {deep}" if mark[0] == '"' else f"[{deep}]"
                    )
                    response = running.post(front.path(kind, False), text.encode())
                    assert response.status_code in (200, 400), (front.name, kind, mark, depth)


# -- what only gRPC can ask ------------------------------------------------------------------------------

MODELS = {kind: [vendor.model] for kind, vendor in BY_KIND.items()} | {
    "openai": ["gpt-5.4", "deepseek-reasoner", "o3"],
    "anthropic": ["claude-sonnet-4-5", "claude-opus-4-6"],
    "gemini": ["gemini-3-pro-preview", "gemini-2.5-flash"],
    "bedrock": ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", "amazon.nova-pro-v1:0"],
    "local": ["local"],
}
PROTO_JUNK: list[Any] = [
    "", "x", "{}", "[]", "{", "null", "\x00", '{"a":1}', '"s"', '[{"type":"text","text":"t"}]', 0, -1,
    1, 3, 2**31 - 1, 1e308, "NaN", True, False, None, [], {}, "aGk=", "gemini", "anthropic",
    "openai_responses", "ROLE_TOOL", "ROLE_USER", "ROLE_ASSISTANT", "ROLE_SYSTEM", {"text": "x"},
    {"dialect": "anthropic", "json": "{}"}, {"dialect": "bedrock", "json": '{"text":1}'},
    {"dialect": "gemini", "json": '{"a":[]}'}, {"dialect": "openai_responses", "json": '{"type":7}'},
    {"data": "aGk=", "media_type": "image/png"}, {"other_json": "{"}, {"url": "https://x.test/a"},
]  # fmt: skip
ENCODED = 1500


def targets(kind: str) -> list[tuple[Dialect, Target]]:
    vendor = vendor_of(kind, "http://x.test" if kind == "openai" else None)
    return [
        (
            dialect_of(kind, vendor, 1 << 20),
            Target(kind, kind, model, vendor, family_of(model), policy),  # type: ignore[arg-type]
        )
        for model in MODELS[kind]
        for policy in ("strict", "drop", "pass")
    ]


@cache
def requests() -> list[Any]:
    """Golden requests, as JSON."""
    texts = {text for path in CASES if (text := _text(path / "request.json"))}
    return [json.loads(text) for text in sorted(texts)]


def _text(path: Any) -> str:
    return path.read_text() if path.exists() else ""


def drawn_requests(kind: str) -> Iterator[tuple[str, chat_pb2.ChatRequest]]:
    """Requests with one thing wrong that get past the validation."""
    rng = random.Random(kind)
    dialects = ["anthropic", "gemini", "openai", "openai_responses", "bedrock", "nobody", ""]
    count = 0
    while count < ENCODED:
        body = rng.choice(requests())
        note, changed = variant(body, rng.randrange(count_of(body, PROTO_JUNK)), PROTO_JUNK)
        try:
            if rng.random() < 0.3:
                changed["extra_dialect"] = rng.choice(dialects)
            request = json_format.ParseDict(changed, chat_pb2.ChatRequest())
        except (json_format.ParseError, TypeError, AttributeError, ValueError):
            continue  # cannot be said in protobuf
        count += 1
        try:
            validate(request)
        except InvalidRequest as error:
            assert error.violations
            continue
        yield f"{changed}: {note}", request


@pytest.mark.parametrize("kind", MODELS)
def test_mutated_requests_before_a_dialect(kind: str) -> None:
    rng = random.Random(kind)
    found = targets(kind)
    endpoint = Endpoint("http://x.test", {"authorization": "Bearer k"}, "us-east-1", None)
    for note, request in drawn_requests(kind):
        dialect, target = rng.choice(found)
        try:
            calls = [dialect.encode(request, target, endpoint, stream=rng.random() < 0.5)]
            if isinstance(dialect, TokenCounter):
                counted = dialect.encode_count(request, target, endpoint)
                calls += [] if counted is None else [counted]
        except InvalidRequest as error:
            assert error.violations, f"{note}: {error}"
            continue
        except Exception as defect:
            raise AssertionError(f"{target.model} {target.policy}: {note}: {defect!r}") from defect
        for call in calls:
            assert isinstance(json.loads(call.body), dict), note
            assert call.url.isascii() and not set(call.url) & set(" \r\n"), note
            for name, value in call.headers.items():
                assert not set(name + value) & set("\r\n"), note
            for warning in call.warnings:
                assert warning.field and warning.message, note
