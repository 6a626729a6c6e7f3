"""The front door beside the chat: models, probes, and the pages that describe the API."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from schemathesis.specs.openapi import definitions

from conformance.conftest import HELLO, Site
from conformance.test_members import CHUNKS, COMPLETION
from fakes.upstream import answer, sse
from headgate_facade.app import create_app

CHAT = "/v1/chat/completions"


async def get(site: Site, path: str, method: str = "GET") -> httpx.Response:
    async with site.gateway.http() as http:
        return await http.request(method, path)


# Models.


async def test_models(site: Site) -> None:
    body = (await get(site, "/v1/models")).json()
    assert list(body) == ["object", "data"] and body["object"] == "list"
    (model,) = body["data"]
    assert list(model) == ["id", "object", "created", "owned_by"]
    assert (model["id"], model["object"], model["owned_by"]) == ("m", "model", "up")
    assert (await get(site, "/v1/models/m")).json() == model


async def test_more_models_than_one_page_of_the_core(site: Site) -> None:
    names = [f"x{number:05}" for number in range(2500)]
    models = "\n".join(f"  {name}: {{targets: [{{provider: up}}]}}" for name in names)
    await site.open(models=models)
    listed = (await get(site, "/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == ["m", *names]


@pytest.mark.parametrize("path", ["org/team/model", "org%2Fteam%2Fmodel", "up/any/thing"])
async def test_model_ids_with_slashes(site: Site, path: str) -> None:
    await site.open(models="  org/team/model: {targets: [{provider: up}]}")
    wanted = path.replace("%2F", "/")
    for where in ("models", "model-catalog"):
        got = await get(site, f"/v1/{where}/{path}")
        assert got.status_code == 200 and got.json()["id"] == wanted
        assert got.headers["x-request-id"].startswith("req_")


async def test_catalog(site: Site) -> None:
    await site.open(models="  q: {targets: [{provider: up, model: qwen3.6-plus}]}")
    known = (await get(site, "/v1/model-catalog/q")).json()
    assert known["object"] == "model.catalog"
    assert known["modalities"]["input"] == ["text", "image", "video"]
    assert known["reasoning"] is True and known["context_window"] > 0
    unknown = (await get(site, "/v1/model-catalog/m")).json()
    assert unknown["modalities"] == {"input": None, "output": None}
    assert unknown["tools"] is None and unknown["price"] is None


# Methods and paths.


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/docs", "/v1/models", "/v1/models/m", "/v1/model-catalog/m"]
)
async def test_head(site: Site, path: str) -> None:
    whole, head = await get(site, path), await get(site, path, "HEAD")
    assert (whole.status_code, head.status_code, head.content) == (200, 200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


async def test_trailing_slash(site: Site) -> None:
    """Answered, not redirected: a redirect behind a TLS proxy would name the plain scheme."""
    async with site.gateway.http() as http:
        got = await http.post(CHAT + "/", json={"model": "m", "messages": HELLO})
        assert got.status_code == 200 and got.json()["object"] == "chat.completion"
        assert (await http.get("/v1/models/")).json()["object"] == "list"


# Probes.


async def test_probes(site: Site) -> None:
    assert (await get(site, "/healthz")).json() == {"status": "ok"}
    assert (await get(site, "/readyz")).json() == {"status": "ready"}


async def test_readyz_while_draining(site: Site) -> None:
    site.gateway.app.core.drain()
    if site.apart:
        await site.gateway._grpc.stop(0)
    got = await get(site, "/readyz")
    assert (got.status_code, got.json()) == (503, {"status": "not ready"})
    assert (await get(site, "/healthz")).status_code == 200


# The description.


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    nobody: Any = object()  # nothing is called
    return create_app(nobody, routes=nobody).openapi()


def checker(document: dict[str, Any], name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    )


async def test_openapi_is_served(site: Site, document: dict[str, Any]) -> None:
    assert (await get(site, "/openapi.json")).json() == json.loads(json.dumps(document))


def test_openapi_is_valid(document: dict[str, Any]) -> None:
    problems = [e.message for e in definitions.OPENAPI_31_VALIDATOR.iter_errors(document)]
    assert problems == []
    text = json.dumps(document)
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in document["components"]["schemas"]
    assert "\\u007f" not in text, "the slot of unknown members is nobody's business"
    assert "parsed" not in text and "422" not in text
    for name in document["components"]["schemas"]:
        checker(document, name)  # each compiles
    ids = re.findall(r'"operationId": "(\w+)"', text)
    assert len(ids) == len(set(ids))


def test_openapi_describes_every_path(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {
        CHAT, "/v1/models", "/v1/models/{model}", "/v1/model-catalog/{model}", "/healthz", "/readyz",
        "/v1/responses", "/v1/completions", "/v1/messages", "/v1/messages/count_tokens",
        "/v1beta/models/{model}:generateContent", "/v1beta/models/{model}:streamGenerateContent",
        "/v1beta/models/{model}:countTokens", "/admin/v1/explain", "/admin/v1/targets",
    }  # fmt: skip


async def test_answers_match_their_schema(site: Site, document: dict[str, Any]) -> None:
    whole, chunk = checker(document, "ChatCompletion"), checker(document, "ChatCompletionChunk")
    failure = checker(document, "Error")
    asked: dict[str, Any] = {"model": "m", "messages": HELLO}
    site.up.script(answer(COMPLETION), sse(CHUNKS))
    async with site.gateway.http() as http:
        for _ in range(2):
            streamed = asked | {"stream": True, "stream_options": {"include_usage": True}}
            whole.validate((await http.post(CHAT, json=asked)).json())
            *events, _ = (await http.post(CHAT, json=streamed)).text[:-2].split("\n\n")
            for event in events:
                chunk.validate(json.loads(event.removeprefix("data: ")))
            site.up.script()
        failure.validate((await http.post(CHAT, json={})).json())
        checker(document, "ModelList").validate((await http.get("/v1/models")).json())
        checker(document, "CatalogEntry").validate((await http.get("/v1/model-catalog/m")).json())
        explanation = (await http.post("/admin/v1/explain", json=asked)).json()
        checker(document, "Explanation").validate(explanation)
        checker(document, "Targets").validate((await http.get("/admin/v1/targets")).json())


GOOD: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5, "n": 2, "stop": "x", "vendor_extra": {"a": 1}},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
    {"audio": {"voice": "a", "format": "wav"}, "stream_options": {"include_usage": True}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}},
]
BAD: list[dict[str, Any]] = [
    {"model": 1},
    {"messages": []},
    {"messages": [{"role": "user"}]},
    {"messages": [{"role": "oracle", "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
    {"temperature": 3},
    {"n": 0},
    {"stream": "yes"},
    {"tools": [{"type": "function", "function": {}}]},
    {"tool_choice": "any"},
    {"thinking": [1]},
    {"response_format": {"type": "xml"}},
]


@pytest.mark.parametrize("site", [False], indirect=True)
async def test_the_schema_is_what_is_enforced(site: Site, document: dict[str, Any]) -> None:
    body = checker(document, "ChatBody")
    async with site.gateway.http() as http:
        for members, good in [(g, True) for g in GOOD] + [(b, False) for b in BAD]:
            asked = {"model": "m", "messages": HELLO} | members
            assert body.is_valid(asked) is good, members
            assert ((await http.post(CHAT, json=asked)).status_code == 200) is good, members


async def test_docs_need_no_other_host(site: Site) -> None:
    got = await get(site, "/docs")
    assert got.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", got.text)
    assert "//" not in re.sub(r"^\s*//.*$", "", got.text, flags=re.MULTILINE)
    assert (await get(site, "/redoc")).status_code == 404


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_docs_show_the_document(document: dict[str, Any], tmp_path: Path) -> None:
    """The page's own script, run by Node on the real document and on a hostile one."""
    import headgate_facade

    html = (Path(headgate_facade.__file__).parent / "docs.html").read_text()
    (script,) = re.findall(r"<script>(.*)</script>", html, flags=re.DOTALL)
    (tmp_path / "api.json").write_text(json.dumps(document))
    (tmp_path / "run.js").write_text(
        script + 'console.log(page(JSON.parse(require("fs").readFileSync("api.json"))));'
    )

    def shown() -> str:
        done = subprocess.run(
            ["node", "run.js"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    page = shown()
    for path in document["paths"]:
        assert path in page
    for word in ("temperature", "reasoning_content", "further members pass through", "curl"):
        assert word in page
    hostile = json.loads(json.dumps(document))
    hostile["info"]["title"] = "<img src=x onerror=alert(1)>"
    hostile["paths"]["/<script>"] = hostile["paths"].pop("/healthz")
    (tmp_path / "api.json").write_text(json.dumps(hostile))
    assert "<img" not in shown() and "<script" not in shown()
