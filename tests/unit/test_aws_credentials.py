"""Signatures for AWS: right by an independent check, and never in the way of the event loop."""

from __future__ import annotations

import asyncio
import datetime
import logging
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.credentials import Credentials, RefreshableCredentials

from fakes.aws import given_signature, signature_of
from headgate.errors import DeadlineExceeded, UpstreamRejectedUs
from headgate_server.config import ConfigError, Provider
from headgate_server.credentials import authorizer, aws
from headgate_server.providers.base import HttpCall
from headgate_server.providers.runtime import Authorize
from headgate_server.providers.vendors import vendors

KEY, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI+bPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdz=="
URL = "https://bedrock-runtime.us-east-1.amazonaws.com/model/a.b-v1%3A0/converse"
CALL = HttpCall(URL, {"content-type": "application/json"}, '{"messages":["é"]}'.encode())
VENDOR = vendors()["bedrock"]


@pytest.fixture(autouse=True)
def no_keys_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(sys.modules["os"].environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def settings(**fields: Any) -> Provider:
    return Provider.model_validate({"kind": "bedrock", "region": "us-east-1", **fields})


def signer(**fields: Any) -> Authorize:
    found = authorizer(settings(**fields), VENDOR)
    assert found is not None
    return found


KEYS = {"access_key_id": KEY, "secret_access_key": SECRET}


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_signatures_are_right(token: str | None) -> None:
    sign = signer(**KEYS, **({"session_token": token} if token else {}))
    call = HttpCall(URL, {"content-type": "application/json", "x-own": " a  b "}, CALL.body)
    signed = await sign(call, None)
    assert given_signature(signed.headers) == signature_of(signed.headers, URL, CALL.body, SECRET)
    assert signed.headers.get("x-amz-security-token") == token
    assert signed.headers["x-own"] == " a  b "
    assert (signed.url, signed.body, signed.warnings) == (call.url, call.body, call.warnings)
    assert "authorization" not in call.headers
    assert all(name == name.lower() for name in signed.headers)


async def test_a_changed_body_needs_another_signature() -> None:
    signed = await signer(**KEYS)(CALL, None)
    assert given_signature(signed.headers) != signature_of(signed.headers, URL, b"{}", SECRET)
    assert given_signature(signed.headers) != signature_of(signed.headers, URL, CALL.body, "x")


@pytest.mark.parametrize(
    "model",
    [
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-x-v1:0",
    ],
)
async def test_boto3_signs_the_same(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        aws_session_token=TOKEN,
    )
    sent: list[Any] = []

    class Body:
        def stream(self) -> list[bytes]:
            return [b"{}"]

    def keep(request: Any, **_: object) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 200, {}, Body())

    client.meta.events.register("before-send.bedrock-runtime", keep)
    client.converse(modelId=model, messages=[{"role": "user", "content": [{"text": "é"}]}])
    (theirs,) = sent
    moment = theirs.headers["X-Amz-Date"].decode()
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime",
        lambda: datetime.datetime.strptime(f"{moment}+0000", "%Y%m%dT%H%M%SZ%z"),
    )
    call = HttpCall(theirs.url, {"content-type": "application/json"}, theirs.body)
    signed = await signer(**KEYS, session_token=TOKEN)(call, None)
    assert signed.headers["authorization"] == theirs.headers["Authorization"].decode()


def test_a_key_for_bedrock_or_own_credentials_need_no_signature() -> None:
    assert authorizer(settings(api_key="bedrock-api-key-1"), VENDOR) is None
    assert authorizer(settings(headers={"Authorization": "Bearer x"}), VENDOR) is None
    assert authorizer(settings(), vendors()["openai"]) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"access_key_id": KEY}, "access_key_id without secret_access_key"),
        ({"secret_access_key": SECRET}, "secret_access_key without access_key_id"),
        ({"session_token": TOKEN}, "session_token without access_key_id"),
        ({"region": None, "base_url": "http://127.0.0.1:1", **KEYS}, "needs a region"),
        ({"region": None, "base_url": "http://127.0.0.1:1", "profile": "nobody"}, "nobody"),
    ],
)
def test_half_a_configuration_is_refused_at_the_start(fields: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        signer(**fields)
    assert SECRET not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    with pytest.raises(ConfigError, match=r"pip install headgate\[bedrock\]"):
        signer(**KEYS)


@pytest.mark.parametrize(
    ("base_url", "region"),
    [
        ("https://bedrock-runtime.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://vpce-0a-1b.bedrock-runtime.us-west-2.vpce.amazonaws.com", "us-west-2"),
        ("https://proxy.example/bedrock", "ap-south-1"),  # of the environment
    ],
)
async def test_the_region_of_the_address(
    base_url: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    signed = await signer(region=None, base_url=base_url, **KEYS)(CALL, None)
    assert f"/{region}/bedrock/aws4_request" in signed.headers["authorization"]


async def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDFROMENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    signed = await signer()(CALL, None)
    assert "Credential=AKIDFROMENV/" in signed.headers["authorization"]
    assert given_signature(signed.headers) == signature_of(signed.headers, URL, CALL.body, SECRET)


async def test_keys_of_a_profile(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = X\naws_secret_access_key = Y\n"
        f"[team]\naws_access_key_id = AKIDOFTEAM\naws_secret_access_key = {SECRET}\n"
    )
    signed = await signer(profile="team")(CALL, None)
    assert "Credential=AKIDOFTEAM/" in signed.headers["authorization"]
    with pytest.raises(UpstreamRejectedUs, match="profile"):
        await signer(profile="nobody")(CALL, None)


async def test_no_keys_at_all_says_what_to_set(caplog: pytest.LogCaptureFixture) -> None:
    sign = signer()
    with pytest.raises(UpstreamRejectedUs, match="access_key_id and secret_access_key") as first:
        await sign(CALL, None)
    # A moment later nobody asks again; each caller gets an error of its own.
    with pytest.raises(UpstreamRejectedUs) as second:
        await sign(CALL, None)
    assert first.value is not second.value
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# Keys that expire.


class Vault:
    """Where temporary keys come from: slowly, if told so, and not always."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, life: float) -> None:
        self.life = life
        self.asked = 0
        self.delay = 0.0
        self.broken = False
        vault = self

        class Session:
            def __init__(self, profile: str | None = None) -> None:
                self.profile = profile

            def get_credentials(self) -> Credentials:
                return RefreshableCredentials.create_from_metadata(
                    vault.fetch(), vault.fetch, "vault"
                )

        monkeypatch.setattr("botocore.session.Session", Session)

    def fetch(self) -> dict[str, str]:
        time.sleep(self.delay)
        if self.broken:
            raise OSError("the vault is closed")
        self.asked += 1
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.life)
        return {
            "access_key": f"AKID{self.asked}",
            "secret_key": SECRET,
            "token": TOKEN,
            "expiry_time": end.isoformat(),
        }


def key_of(call: HttpCall) -> str:
    return call.headers["authorization"].partition("Credential=")[2].partition("/")[0]


async def test_keys_that_hold_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vault = Vault(monkeypatch, life=3600)
    sign = signer()
    calls = await asyncio.gather(*(sign(CALL, None) for _ in range(20)))
    assert {key_of(call) for call in calls} == {"AKID1"}
    assert key_of(await sign(CALL, None)) == "AKID1"
    assert vault.asked == 1


async def test_keys_are_renewed_in_the_background_before_they_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aws, "_PAUSE_SECONDS", 0.0)
    vault = Vault(monkeypatch, life=120)  # less than the five minutes that we want
    sign = signer()
    first, asked = key_of(await sign(CALL, None)), vault.asked
    vault.life, vault.delay = 3600, 0.2
    began = time.monotonic()
    assert key_of(await sign(CALL, None)) == first  # they still hold, so nobody waits
    assert time.monotonic() - began < 0.1
    await asyncio.sleep(0.4)
    assert key_of(await sign(CALL, None)) != first
    await asyncio.sleep(0.3)
    assert vault.asked == asked + 1


async def test_a_failing_renewal_is_no_trouble_while_the_keys_hold(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aws, "_PAUSE_SECONDS", 0.0)
    vault = Vault(monkeypatch, life=120)
    sign = signer()
    first = key_of(await sign(CALL, None))
    vault.broken = True
    for _ in range(3):
        assert key_of(await sign(CALL, None)) == first
        await asyncio.sleep(0.05)
    assert "the vault is closed" in caplog.text
    assert SECRET not in caplog.text


async def test_expired_keys_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "_PAUSE_SECONDS", 0.0)
    vault = Vault(monkeypatch, life=20)  # below what is worth using
    sign = signer()
    with pytest.raises(UpstreamRejectedUs):
        await sign(CALL, None)
    vault.life = 3600
    assert key_of(await sign(CALL, None)) == f"AKID{vault.asked}"


async def test_finding_keys_does_not_block_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    vault = Vault(monkeypatch, life=3600)
    vault.delay = 0.3
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    await signer()(CALL, None)
    ticker.cancel()
    assert ticks >= 10


async def test_a_deadline_bounds_the_wait_and_others_go_on_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vault = Vault(monkeypatch, life=3600)
    vault.delay = 0.4
    sign = signer()
    patient = asyncio.create_task(sign(CALL, None))
    gone = asyncio.create_task(sign(CALL, None))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await sign(CALL, time.monotonic() + 0.1)
    assert time.monotonic() - began < 0.3
    gone.cancel()
    assert key_of(await patient) == "AKID1"
    assert vault.asked == 1


async def test_signing_writes_no_tokens_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await signer(**KEYS, session_token=TOKEN)(CALL, None)
    assert TOKEN not in caplog.text
    assert SECRET not in caplog.text
    assert "Signature" not in caplog.text


async def test_signing_is_cheap() -> None:
    sign = signer(**KEYS)
    await sign(CALL, None)
    began = time.process_time()
    for _ in range(200):
        await sign(CALL, None)
    # Measured: 65 µs. The bound is for slow machines, and finds a key derived by asking somebody.
    assert (time.process_time() - began) / 200 < 0.002
