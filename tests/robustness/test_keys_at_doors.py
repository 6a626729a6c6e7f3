"""Keys at every front door: where clients put them, what a wrong one gets, and that none is ever told."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from fakes.gateway import Gateway
from fakes.upstream import Answer, FakeUpstream
from robustness.fronts import FRONTS, Front, counting
from robustness.hostile import BY_KIND, SECRET, TEXT, pieces_of, provider, streamed

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL_KEY, SOME_KEY, WRONG_KEY = (
    "key-of-all-0123456789",
    "key-of-some-012345678",
    "wrong-key-0123456789",
)
# name -> (headers, query) with the key.
PLACES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "Authorization": ({"authorization": "Bearer KEY"}, {}),
    "authorization in lower case": ({"authorization": "bearer KEY"}, {}),
    "x-api-key": ({"x-api-key": "KEY"}, {}),
    "x-goog-api-key": ({"x-goog-api-key": "KEY"}, {}),
    "api-key": ({"api-key": "KEY"}, {}),
    "query": ({}, {"key": "KEY"}),
    "beside Basic": ({"authorization": "Basic eDp5", "x-api-key": "KEY"}, {}),
}


class Locked:
    """A gateway that wants keys, in one process and apart."""

    def __init__(self, https: dict[str, httpx.AsyncClient], up: FakeUpstream) -> None:
        self.https = https
        self.up = up

    async def post(
        self, http: httpx.AsyncClient, path: str, body: Any, place: str, key: str
    ) -> httpx.Response:
        headers, query = PLACES[place]
        return await http.post(
            httpx.URL(path).copy_merge_params({k: v.replace("KEY", key) for k, v in query.items()}),
            json=body,
            headers={name: value.replace("KEY", key) for name, value in headers.items()},
        )


def config(origin: str) -> str:
    lines = ["providers:", provider(BY_KIND["openai"], origin)]
    lines += [
        "models:",
        "  m: {targets: [{provider: openai, model: deepseek-reasoner}]}",
        "  other: {targets: [{provider: openai, model: deepseek-reasoner}]}",
        "auth:",
        "  mode: keys",
        "  keys:",
        f'  - {{name: all, key: {ALL_KEY}, models: ["*"]}}',
        f"  - {{name: some, key: {SOME_KEY}, models: [m]}}",
    ]
    return "\n".join(lines)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def locked() -> AsyncIterator[Locked]:
    async with FakeUpstream() as up:
        async with (
            Gateway(config(up.origin)) as together,
            Gateway(config(up.origin), apart=True) as apart,
            together.http() as first,
            apart.http() as second,
        ):
            yield Locked({"one process": first, "apart": second}, up)


@pytest.fixture(params=FRONTS, ids=lambda front: front.name)
def front(request: pytest.FixtureRequest) -> Front:
    found: Front = request.param
    return found


@pytest.fixture(params=["one process", "apart"])
def http(request: pytest.FixtureRequest, locked: Locked) -> httpx.AsyncClient:
    return locked.https[request.param]


@pytest.fixture(autouse=True)
def nothing_told(caplog: pytest.LogCaptureFixture, locked: Locked) -> Any:
    """No key, ours or a caller's, in any log at any level."""
    caplog.set_level(logging.DEBUG)
    # The test's own client logs the addresses that it asks.
    for name in ("httpx", "httpcore"):
        caplog.set_level(logging.CRITICAL, logger=name)
    yield
    for key in (ALL_KEY, SOME_KEY, WRONG_KEY, SECRET):
        assert key not in caplog.text
        for request in locked.up.requests:
            assert (
                key == SECRET or key not in f"{request.path} {request.headers.raw} {request.body!r}"
            )


def requests_of(front: Front, model: str) -> list[tuple[str, Any, bool]]:
    """Every request of the door that asks a model something."""
    found = [(front.path(model, s), front.body(model, s), s) for s in (False, True)]
    if front.name in ("messages", "gemini"):
        found.append((*counting(front, model), False))
    return found


@pytest.mark.parametrize("place", PLACES)
async def test_each_place(
    locked: Locked, http: httpx.AsyncClient, front: Front, place: str
) -> None:
    vendor = BY_KIND["openai"]
    text = {"index": 0, "text": TEXT.text, "finish_reason": "stop", "logprobs": None}
    legacy = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [text]}
    for path, body, stream in requests_of(front, "m"):
        for key in (ALL_KEY, SOME_KEY):
            if front.name == "completions":
                locked.up.default(
                    streamed(vendor, [f"data: {json.dumps(legacy)}\n\ndata: [DONE]\n\n".encode()])
                    if stream
                    else Answer([json.dumps(legacy).encode()])
                )
            else:
                locked.up.default(
                    streamed(vendor, pieces_of(vendor, TEXT)) if stream else vendor.answer(TEXT)
                )
            response = await locked.post(http, path, body, place, key)
            assert response.status_code == 200, response.text
            assert key not in response.text
            assert key not in str(response.headers)


@pytest.mark.parametrize("place", PLACES)
async def test_a_wrong_key(
    locked: Locked, http: httpx.AsyncClient, front: Front, place: str
) -> None:
    asked = len(locked.up.requests)
    for path, body, _ in requests_of(front, "m"):
        for key in (WRONG_KEY, ALL_KEY[:-1], ALL_KEY + "0", ALL_KEY.upper()):
            response = await locked.post(http, path, body, place, key)
            refused(front, response)
            assert key not in response.text
    assert len(locked.up.requests) == asked


def refused(front: Front, response: httpx.Response) -> None:
    assert response.status_code == 401, response.text
    told = front.told(response.json())
    assert told.status in (None, 401)
    assert told.kind in ("invalid_api_key", "authentication_error", "UNAUTHENTICATED")


ODD: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "none": ({}, {}),
    "empty": ({"authorization": "Bearer"}, {}),
    "another scheme": ({"authorization": f"Token {ALL_KEY}"}, {}),
    "no scheme": ({"authorization": ALL_KEY}, {}),
    "no ASCII": ({"authorization": "Bearer sch\u00fcssel".encode("latin-1")}, {}),
    "control characters": ({}, {"key": "a\r\nx: y\x00"}),
    "another alphabet": ({}, {"key": "ключ\u0000"}),
    "very long": ({"x-api-key": "k" * 4_000}, {}),
    "twice in one": ({"authorization": f"Bearer {ALL_KEY} {ALL_KEY}"}, {}),
}


@pytest.mark.parametrize("name", ODD)
async def test_no_key_at_all(
    locked: Locked, http: httpx.AsyncClient, front: Front, name: str
) -> None:
    headers, query = ODD[name]
    for path, body, _ in requests_of(front, "m"):
        url = httpx.URL(path).copy_merge_params(query)
        refused(front, await http.post(url, json=body, headers=headers))


async def test_a_model_that_is_not_the_keys_does_not_exist(
    locked: Locked, http: httpx.AsyncClient, front: Front
) -> None:
    """Nor does one that nobody has: the two look alike."""
    for model in ("other", "openai/deepseek-reasoner", "nope"):
        texts = []
        for path, body, _ in requests_of(front, model):
            response = await locked.post(http, path, body, "x-api-key", SOME_KEY)
            assert response.status_code == 404, response.text
            told = front.told(response.json())
            assert told.kind in ("model_not_found", "not_found_error", "MODEL_NOT_FOUND")
            texts.append(told.message.replace(model, "MODEL"))
            assert SOME_KEY not in response.text
        assert len(set(texts)) == 1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1beta/models", "/v1/models/m", "/v1beta/models/m"]
)
async def test_lists_of_models(
    locked: Locked, http: httpx.AsyncClient, path: str, place: str
) -> None:
    headers, query = PLACES[place]
    for key, status in ((SOME_KEY, 200), (WRONG_KEY, 401)):
        response = await http.get(
            path,
            params={name: value.replace("KEY", key) for name, value in query.items()},
            headers={name: value.replace("KEY", key) for name, value in headers.items()},
        )
        assert response.status_code == status, response.text
        assert key not in response.text
        assert "other" not in response.text
    assert (await http.get(path)).status_code == 401
