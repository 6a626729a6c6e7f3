"""Several keys for one provider: one that is refused rests at once, and no caller hears of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fakes.bodies import USAGE
from fakes.steps import answer, chat, error, rate_limited
from fakes.upstream import FakeUpstream
from fakes.wire import Exchange, Headers, Step
from headgate.admin.v1 import route_service_pb2
from headgate.core import CallContext
from headgate_server.admin import Admin
from robustness.callers import Callers, Told, asking

EU, US = "eu-secret-key-4711", "us-secret-key-0815"
KEYS = f"[{{name: eu, key: {EU}, weight: 1000000}}, {{name: us, key: {US}, weight: 0.000001}}]"
ALLOWED = ("rejected the gateway's credentials", "benched")


MODELS = "  m: {targets: [{provider: keyed}]}\n  n: {targets: [{provider: keyed}]}"


class Keyed:
    """A gateway whose provider `keyed` has two keys, of which `eu` is taken first.

    Attributes:
        refusals: what the upstream does with each key, by the key; others are well.
    """

    def __init__(self, found: Callers, up: FakeUpstream) -> None:
        self.found = found
        self.up = up
        self.refusals: dict[str, Step] = {}
        self.well: Step = chat()
        up.default(self._play)

    async def _play(self, exchange: Exchange) -> None:
        await self.refusals.get(key_of(exchange.record.headers), self.well)(exchange)

    async def ask(self, way: str = "direct", model: str = "m", *, stream: bool = False) -> Told:
        return await self.found.ask(way, model, "hi", stream=stream)

    @property
    def used(self) -> list[str]:
        """The keys of the requests so far, in order."""
        names = {EU: "eu", US: "us"}
        return [names[key_of(each.headers)] for each in self.up.requests]


def key_of(headers: Headers) -> str:
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


@asynccontextmanager
async def opened(
    extra: str = "", *, models: str = MODELS, keys: str = KEYS, kind: str = "openai"
) -> AsyncIterator[Keyed]:
    """See `Keyed`."""
    providers = {"keyed": f"kind: {kind}, api_keys: {keys}"}
    async with asking(models, extra, allowed=ALLOWED, providers=providers) as (found, up):
        yield Keyed(found, up)


# What a vendor says of a key, and the fault that is told.
REFUSED: dict[str, tuple[Step, str]] = {
    "401": (
        error(401, f"Incorrect API key provided: {EU}.", code="invalid_api_key"),
        "CREDENTIAL",
    ),
    "402": (error(402, "Insufficient Balance", type="unknown_error"), "QUOTA"),
    "403": (error(403, "You are not allowed to do this.", type="permission_error"), "CREDENTIAL"),
    "used up": (
        error(429, "You exceeded your current quota.", type="insufficient_quota"),
        "QUOTA",
    ),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("how", REFUSED)
async def test_a_refused_key_is_benched_within_the_request(
    how: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    way = Callers.ways[(list(REFUSED).index(how) + stream) % 4]
    step, fault = REFUSED[how]
    async with opened() as keyed:
        keyed.refusals[EU] = step
        told = await keyed.ask(way, stream=stream)
        assert told.whole and not told.error
        assert [each[1] for each in told.tried] == [fault, "OK"]
        assert keyed.used == ["eu", "us"]
        for _ in range(3):
            assert (await keyed.ask(way, stream=stream)).attempts == 1
        assert keyed.used[2:] == ["us"] * 3
    alerts = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(alerts) == 1
    said = alerts[0].getMessage()
    assert "keyed" in said and "eu" in said.split("key ")[1]
    assert EU not in caplog.text and US not in caplog.text


@pytest.mark.parametrize("way", Callers.ways)
async def test_all_keys_benched_says_so_and_calls_nobody(way: str) -> None:
    async with opened() as keyed:
        keyed.refusals = {EU: REFUSED["401"][0], US: REFUSED["402"][0]}
        for stream in (False, True):
            told = await keyed.ask(way, stream=stream)
            assert told.error in ("UPSTREAM_REJECTED_US", "upstream_rejected_us"), told
            assert "all 2 keys of provider 'keyed' are benched" in told.message
            assert "eu: CREDENTIAL" in told.message and "us: QUOTA" in told.message
            assert told.attempts == (0 if stream else 2)
        assert keyed.used == ["eu", "us"]
        assert EU not in told.message and US not in told.message


async def test_the_status_is_502() -> None:
    async with opened() as keyed:
        keyed.refusals = {EU: REFUSED["401"][0], US: REFUSED["403"][0]}
        for _ in range(2):
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            url = keyed.found.urls["rest"]
            async with keyed.found.http.post(url, json=body) as response:
                assert response.status == 502
                assert "benched" in (await response.json())["error"]["message"]
                assert 0 < int(response.headers["retry-after"]) <= 60
        assert len(keyed.used) == 2


@pytest.mark.parametrize("way", ["rest", "grpc"])
async def test_a_rate_limited_key_comes_back(way: str) -> None:
    async with opened() as keyed:
        keyed.refusals[EU] = rate_limited(1)
        told = await keyed.ask(way)
        began = time.monotonic()
        assert told.whole
        assert [each[1] for each in told.tried] == ["RATE_LIMIT", "OK"]
        assert (await keyed.ask(way)).attempts == 1
        # For that model alone.
        assert (await keyed.ask(way, "n")).attempts == 2
        assert keyed.used == ["eu", "us", "us", "eu", "us"]
        del keyed.refusals[EU]
        while time.monotonic() - began < 1.1:
            await asyncio.sleep(0.05)
        assert (await keyed.ask(way)).whole
        assert keyed.used[5:] == ["eu"]


async def test_a_limit_without_a_time_doubles() -> None:
    async with opened() as keyed:
        keyed.refusals[EU] = error(429, "Rate limit reached.", code="rate_limit_exceeded")
        keyring = keyed.found.app.core.setup.providers["keyed"].keyring
        assert keyring is not None
        for seconds in (1.0, 2.0):
            assert (await keyed.ask()).attempts == 2
            (bench,) = keyring.benches(0.0)
            assert bench.until - time.monotonic() == pytest.approx(seconds, abs=0.3)
            assert (await keyed.ask()).attempts == 1
            while seconds == 1.0 and bench.until > time.monotonic():
                await asyncio.sleep(0.02)


async def test_all_keys_limited_is_a_rate_limit() -> None:
    async with opened("retries: {max: 0}") as keyed:
        keyed.refusals = {EU: rate_limited(7), US: rate_limited(5)}
        for way in Callers.ways:
            told = await keyed.ask(way)
            assert told.error in ("RATE_LIMITED", "rate_limit_exceeded"), told
        assert keyed.used[:2] == ["eu", "us"]


async def test_a_key_without_permission_for_one_model_serves_others() -> None:
    async with opened() as keyed:
        keyed.refusals[EU] = REFUSED["403"][0]
        await keyed.ask()
        del keyed.refusals[EU]
        await keyed.ask()
        await keyed.ask(model="n")
        assert keyed.used == ["eu", "us", "us", "eu"]


async def test_a_bench_ends() -> None:
    async with opened("keys: {bench: 300ms}") as keyed:
        keyed.refusals[EU] = REFUSED["401"][0]
        await keyed.ask()
        del keyed.refusals[EU]
        await keyed.ask()
        await asyncio.sleep(0.35)
        await keyed.ask()
        assert keyed.used == ["eu", "us", "us", "eu"]


async def test_many_at_once_meet_a_refused_key() -> None:
    """Each of them goes on with another, however late it learns of it."""
    async with opened() as keyed:
        keyed.refusals[EU] = REFUSED["401"][0]
        told = await asyncio.gather(
            *(keyed.ask(Callers.ways[n % 4], stream=n % 8 > 3) for n in range(48))
        )
        assert all(each.whole for each in told)
        assert sum(each.attempts for each in told) == len(keyed.used)
        assert Counter(keyed.used)["us"] == 48


async def test_the_next_target_answers_when_all_keys_rest() -> None:
    models = """
  m: {targets: [{provider: keyed}, {provider: by}]}
  n: {targets: [{provider: keyed}], fallbacks: [o]}
  o: {targets: [{provider: by}]}
"""
    async with opened(models=models) as keyed:
        keyed.refusals = {EU: REFUSED["401"][0], US: REFUSED["401"][0]}
        for model, attempts in (("m", 3), ("m", 1), ("n", 1)):
            told = await keyed.ask(model=model)
            assert (told.provider, told.attempts, told.whole) == ("by", attempts, True)


async def test_a_key_that_is_alone_is_always_tried() -> None:
    async with opened(keys=f"[{{key: {EU}}}]") as keyed:
        keyed.refusals[EU] = REFUSED["401"][0]
        for _ in range(3):
            told = await keyed.ask()
            assert told.error == "UPSTREAM_REJECTED_US"
            assert "benched" not in told.message
        assert keyed.used == ["eu"] * 3
        del keyed.refusals[EU]
        assert (await keyed.ask()).whole


async def test_keys_take_their_shares() -> None:
    keys = f"[{{key: {EU}, weight: 3}}, {{key: {US}, weight: 1}}]"
    async with opened(keys=keys) as keyed:
        await asyncio.gather(*(keyed.ask() for _ in range(200)))
        assert 114 < Counter(keyed.used)["eu"] < 186  # the mean is 150, a deviation is 6


async def test_a_key_of_no_weight_waits_for_the_others_to_rest() -> None:
    keys = f"[{{name: us, key: {US}, weight: 0}}, {{name: eu, key: {EU}}}]"
    async with opened(keys=keys) as keyed:
        for _ in range(20):
            await keyed.ask()
        keyed.refusals[EU] = REFUSED["402"][0]
        assert (await keyed.ask()).whole
        assert keyed.used == ["eu"] * 21 + ["us"]


@pytest.mark.parametrize(
    ("status", "way"), list(zip([400, 401, 402, 404, 429, 500], Callers.ways * 2, strict=False))
)
async def test_no_error_shows_a_key(
    status: int, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of them the upstream quotes, and wherever."""
    caplog.set_level(logging.DEBUG)
    async with opened("retries: {max: 0}") as keyed:
        quoted = f"{EU} and {US} are wrong: Bearer {EU}"
        keyed.refusals = dict.fromkeys(
            (EU, US), error(status, quoted, code=f"code-{US}", param=f"messages.{EU}", type=EU)
        )
        for stream in (False, True):
            told = await keyed.ask(way, stream=stream)
            assert told.error
            shown = repr(told)
            assert EU not in shown and US not in shown, shown
    assert EU not in caplog.text and US not in caplog.text


CLAUDE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": USAGE["prompt_tokens"], "output_tokens": 3},
}
CLAUDES: dict[str, tuple[int, str, str, str]] = {
    "refused": (401, "authentication_error", "invalid x-api-key", "CREDENTIAL"),
    "used up": (
        400,
        "invalid_request_error",
        "You have reached your specified API usage limits. You will regain access on 2026-12-01 at "
        "00:00 UTC.",
        "QUOTA",
    ),
    "no credit": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API.",
        "QUOTA",
    ),
}


@pytest.mark.parametrize("how", CLAUDES)
async def test_another_vendors_words_for_it(how: str) -> None:
    status, kind, message, fault = CLAUDES[how]
    async with opened(kind="anthropic") as keyed:
        keyed.refusals[EU] = answer(
            {"type": "error", "error": {"type": kind, "message": message}}, status
        )
        keyed.well = answer(CLAUDE)
        told = await keyed.ask()
        assert told.whole
        assert [each[1] for each in told.tried] == [fault, "OK"]
        assert (await keyed.ask()).attempts == 1
        assert keyed.used == ["eu", "us", "us"]


async def test_a_callers_mistake_benches_nothing() -> None:
    async with opened() as keyed:
        keyed.refusals[EU] = error(400, "no such tool", type="invalid_request_error")
        for _ in range(2):
            told = await keyed.ask()
            assert (told.error, told.attempts) == ("INVALID_REQUEST", 1)
        assert keyed.used == ["eu", "eu"]


async def test_operators_see_the_benches() -> None:
    async with opened() as keyed:
        keyed.refusals[EU] = REFUSED["401"][0]
        await keyed.ask()
        admin = Admin(keyed.found.app.core)
        asked = route_service_pb2.ListTargetsRequest()
        listed = str(await admin.list_targets(asked, CallContext()))
        assert "eu" in listed and "CREDENTIAL" in listed
        assert EU not in listed and US not in listed
