"""Google's access tokens: fetched with real google-auth from a token server on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream, answer, hang, redirect, slow
from headgate.errors import (
    DeadlineExceeded,
    UpstreamRejectedUs,
    UpstreamUnavailable,
)
from headgate_server.config import ConfigError, Provider
from headgate_server.credentials import authorizer
from headgate_server.providers import vendor_of
from headgate_server.providers.base import HttpCall
from headgate_server.providers.runtime import Authorize

CALL = HttpCall("https://vertex.test/x", {"content-type": "application/json"}, b"{}")
ADDRESS = "gateway@acme.iam.gserviceaccount.com"
SECRET = "very-secret-thing"


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture
async def tokens() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as server:
        server.default(token("t0"))
        yield server


KeyFile = Callable[..., Path]


@pytest.fixture
def key_file(tokens: FakeUpstream, private_key: str, tmp_path: Path) -> KeyFile:
    def write(**changes: Any) -> Path:
        info = {
            "type": "service_account",
            "project_id": "acme",
            "private_key_id": "1",
            "private_key": private_key,
            "client_email": ADDRESS,
            "client_id": "7",
            "token_uri": f"{tokens.origin}/token",
        } | changes
        path = tmp_path / "key.json"
        path.write_text(json.dumps(info))
        return path

    return write


def token(value: str, seconds: int = 3600) -> Any:
    return answer({"access_token": value, "expires_in": seconds, "token_type": "Bearer"})


def authorize_with(path: Path | None, **settings: Any) -> Authorize:
    given = Provider(kind="vertex", credentials_file=path and str(path), **settings)
    found = authorizer(given, vendor_of("vertex", None))
    assert found is not None
    return found


async def bearer(authorize: Authorize, deadline: float | None = None) -> str:
    return (await authorize(CALL, deadline)).headers["authorization"]


async def test_a_token_is_put_into_the_call(tokens: FakeUpstream, key_file: KeyFile) -> None:
    authorize = authorize_with(key_file())
    call = await authorize(CALL, None)
    assert call.headers == {**CALL.headers, "authorization": "Bearer t0"}
    assert (call.url, call.body) == (CALL.url, CALL.body)
    assert "authorization" not in CALL.headers
    (asked,) = tokens.requests
    assert (asked.method, asked.path) == ("POST", "/token")
    form = parse_qs(asked.body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert form["assertion"]


async def test_a_token_is_kept(tokens: FakeUpstream, key_file: KeyFile) -> None:
    authorize = authorize_with(key_file())
    assert {await bearer(authorize) for _ in range(10)} == {"Bearer t0"}
    assert len(tokens.requests) == 1


async def test_callers_at_the_same_time_share_one_request(
    tokens: FakeUpstream, key_file: KeyFile
) -> None:
    tokens.script(slow(0.05, token("t1")))
    authorize = authorize_with(key_file())
    found = await asyncio.gather(*(bearer(authorize) for _ in range(30)))
    assert set(found) == {"Bearer t1"}
    assert len(tokens.requests) == 1


async def test_an_old_token_goes_on_to_be_used_while_it_is_renewed(
    tokens: FakeUpstream, key_file: KeyFile
) -> None:
    gate = asyncio.Event()
    tokens.script(token("old", 200), slow(gate, token("new")))
    authorize = authorize_with(key_file())
    assert await bearer(authorize) == "Bearer old"
    assert await bearer(authorize) == "Bearer old"  # starts the renewal
    await tokens.wait_for_requests(2)
    assert await bearer(authorize) == "Bearer old"
    gate.set()
    async with asyncio.timeout(5):
        while await bearer(authorize) != "Bearer new":
            await asyncio.sleep(0.005)
    assert len(tokens.requests) == 2


async def test_a_token_at_its_end_is_waited_for(tokens: FakeUpstream, key_file: KeyFile) -> None:
    tokens.script(token("t1", 5), token("t2", 5), token("t3"))
    authorize = authorize_with(key_file())
    assert [await bearer(authorize) for _ in range(4)] == [
        f"Bearer {name}" for name in ("t1", "t2", "t3", "t3")
    ]


async def test_an_old_token_survives_a_token_server_that_fails(
    tokens: FakeUpstream, key_file: KeyFile, caplog: pytest.LogCaptureFixture
) -> None:
    refused = answer({"error": "invalid_grant", "error_description": SECRET}, 400)
    tokens.script(token("old", 200))
    tokens.default(refused)
    authorize = authorize_with(key_file())
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert await bearer(authorize) == "Bearer old"
            await asyncio.sleep(0.03)
    assert len(tokens.requests) == 2  # the first, and one renewal: then there is a pause
    assert "invalid_grant" in caplog.text
    assert SECRET not in caplog.text


async def test_a_refusal_names_no_secrets(tokens: FakeUpstream, key_file: KeyFile) -> None:
    body = {"error": "invalid_grant", "error_description": f"Invalid JWT: {SECRET}"}
    tokens.default(answer(body, 400))
    authorize = authorize_with(key_file())
    with pytest.raises(UpstreamRejectedUs) as caught:
        await bearer(authorize)
    assert (
        caught.value.message == "Google does not accept the gateway's credentials (invalid_grant)"
    )
    shown = f"{caught.value!r} {caught.value.__cause__!r}"
    assert SECRET not in shown
    assert ADDRESS not in shown
    with pytest.raises(UpstreamRejectedUs):
        await bearer(authorize)  # and the next caller asks again
    assert len(tokens.requests) == 2


async def test_an_odd_refusal(tokens: FakeUpstream, key_file: KeyFile) -> None:
    tokens.default(answer({"error": {"secret": SECRET}}, 403))
    with pytest.raises(UpstreamRejectedUs) as caught:
        await bearer(authorize_with(key_file()))
    assert caught.value.message == "Google does not accept the gateway's credentials"


async def test_a_token_server_that_is_gone(tokens: FakeUpstream, key_file: KeyFile) -> None:
    path = key_file()
    await tokens.stop()
    with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
        await bearer(authorize_with(path))


async def test_a_redirect_is_not_followed(tokens: FakeUpstream, key_file: KeyFile) -> None:
    tokens.script(redirect(f"{tokens.origin}/elsewhere"))
    with pytest.raises(UpstreamRejectedUs):
        await bearer(authorize_with(key_file()))
    assert [record.path for record in tokens.requests] == ["/token"]


async def test_the_deadline_bounds_the_wait_of_one_caller(
    tokens: FakeUpstream, key_file: KeyFile
) -> None:
    gate = asyncio.Event()
    tokens.script(slow(gate, token("late")))
    authorize = authorize_with(key_file())
    patient = asyncio.create_task(bearer(authorize))
    await tokens.wait_for_requests(1)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await bearer(authorize, begun + 0.05)
    assert time.monotonic() - begun < 2
    gate.set()
    assert await patient == "Bearer late"
    assert len(tokens.requests) == 1


async def test_a_caller_that_goes_does_not_stop_the_renewal(
    tokens: FakeUpstream, key_file: KeyFile
) -> None:
    gate = asyncio.Event()
    tokens.script(slow(gate, token("t1")))
    authorize = authorize_with(key_file())
    first = asyncio.create_task(bearer(authorize))
    await tokens.wait_for_requests(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await bearer(authorize) == "Bearer t1"
    assert len(tokens.requests) == 1


async def test_the_loop_goes_on_while_google_is_asked(
    tokens: FakeUpstream, key_file: KeyFile
) -> None:
    tokens.script(hang())
    authorize = authorize_with(key_file())
    task = asyncio.create_task(bearer(authorize, time.monotonic() + 0.3))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 10
    with pytest.raises(DeadlineExceeded):
        await task
    await tokens.stop()  # lets the thread go


async def test_a_user_and_the_project_that_pays(
    tokens: FakeUpstream, key_file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT"  # not the file's to say
    monkeypatch.setattr(place, f"{tokens.origin}/token")
    path = key_file(
        type="authorized_user",
        client_secret=SECRET,
        refresh_token="r1",
        quota_project_id="payer",
    )
    call = await authorize_with(path)(CALL, None)
    assert call.headers["authorization"] == "Bearer t0"
    assert call.headers["x-goog-user-project"] == "payer"
    form = parse_qs(tokens.requests[0].body.decode())
    assert form["refresh_token"] == ["r1"]


async def test_a_workload_identity(tokens: FakeUpstream, key_file: KeyFile, tmp_path: Path) -> None:
    subject = tmp_path / "subject"
    subject.write_text("subject-token")
    path = key_file(
        type="external_account",
        audience="//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x",
        subject_token_type="urn:ietf:params:oauth:token-type:jwt",
        token_url=f"{tokens.origin}/sts",
        credential_source={"file": str(subject)},
    )
    body = {
        "access_token": "exchanged",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 3600,
    }
    tokens.default(answer(body))
    assert await bearer(authorize_with(path)) == "Bearer exchanged"
    form = parse_qs(tokens.requests[0].body.decode())
    assert form["subject_token"] == ["subject-token"]


async def test_application_default_credentials(
    tokens: FakeUpstream, key_file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file()))
    assert await bearer(authorize_with(None)) == "Bearer t0"


async def test_no_credentials_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(UpstreamRejectedUs, match="no Google credentials"):
        await bearer(authorize_with(None))


def test_whoever_has_a_key_needs_no_token() -> None:
    vendor = vendor_of("vertex", None)
    for given in (
        {"api_key": "k"},
        {"bearer_token": "t"},
        {"headers": {"Authorization": "Bearer t"}},
        {"headers": {"X-Goog-Api-Key": "k"}},
    ):
        assert authorizer(Provider(kind="vertex", **given), vendor) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot be read: No such file"),
        ("{", "expected a JSON file"),
        ("[]", "whose type is one of"),
        ('{"type": "tea_pot"}', "whose type is one of"),
        (f'{{"type": "service_account", "private_key": "{SECRET}"}}', "no usable credentials"),
        (
            json.dumps(
                {
                    "type": "service_account",
                    "private_key": SECRET,
                    "client_email": "a",
                    "token_uri": "http://127.0.0.1/t",
                }
            ),
            "no usable credentials of type service_account",
        ),
        (f'{{"type": "authorized_user", "client_secret": "{SECRET}"}}', "no usable credentials"),
    ],
)
def test_a_file_that_does_not_do(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "key.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        authorize_with(path)
    assert str(caught.value).startswith("provider kind vertex: credentials_file: ")
    assert complaint in str(caught.value)
    assert SECRET not in str(caught.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(ConfigError, match=r"pip install 'headgate\[vertex\]'"):
        authorize_with(None)


CONFIG = """
providers:
  up: {{kind: vertex, base_url: "{origin}", region: us-central1, project: acme,
       credentials_file: "{path}"}}
models:
  m: {{targets: [{{provider: up, model: gemini-2.5-flash}}]}}
"""
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "Hi!"}]}, "finishReason": "STOP"}
    ],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3},
}


async def test_a_gateway_gets_its_token_once(tokens: FakeUpstream, key_file: KeyFile) -> None:
    async with FakeUpstream() as up:
        up.default(answer(ANSWER))
        config = CONFIG.format(origin=up.origin, path=key_file())
        async with Gateway(config) as gateway, gateway.http() as http:
            for _ in range(3):
                found = await http.post("/v1/chat/completions", json=ASK)
                assert found.status_code == 200, found.text
                assert found.json()["choices"][0]["message"]["content"] == "Hi!"
        assert [record.path for record in up.requests] == [
            "/v1/projects/acme/locations/us-central1/publishers/google/models/"
            "gemini-2.5-flash:generateContent"
        ] * 3
        assert {record.headers["authorization"] for record in up.requests} == {"Bearer t0"}
        assert len(tokens.requests) == 1


async def test_a_gateway_without_a_token_says_so(tokens: FakeUpstream, key_file: KeyFile) -> None:
    tokens.default(answer({"error": "invalid_grant", "error_description": SECRET}, 400))
    async with FakeUpstream() as up:
        config = CONFIG.format(origin=up.origin, path=key_file())
        async with Gateway(config) as gateway, gateway.http() as http:
            found = await http.post("/v1/chat/completions", json=ASK)
        assert found.status_code == 502
        assert SECRET not in found.text
        assert not up.requests
