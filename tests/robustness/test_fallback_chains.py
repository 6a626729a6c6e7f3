"""Models that stand in for others, rules in front of them, and copies: over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from contract.doors import until
from fakes.bodies import chunks
from fakes.steps import Answer, answer, chat, error, hang, reset, slow, sse
from fakes.upstream import FakeUpstream
from fakes.wire import Exchange, Step
from robustness.callers import Callers, asking
from robustness.ground import NOWHERE

both = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])

QUICK = "retries: {max: 0}\nbreaker: {enabled: false}\n"


def plays(up: FakeUpstream, **steps: Step) -> None:
    """Lets the upstream do this for each of its models; others are well."""

    async def play(exchange: Exchange) -> None:
        await steps.get(exchange.record.json["model"], chat())(exchange)

    up.default(play)


def asked(up: FakeUpstream) -> list[str]:
    """The upstream's models in the order in which they were asked."""
    return [each.json["model"] for each in up.requests]


class Rest:
    """REST with any body, at the door in front of the core and at the one apart by turns."""

    def __init__(self, found: Callers) -> None:
        self.found = found
        self._turn = 0

    async def __call__(
        self, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and text."""
        self._turn += 1
        url = self.found.urls[("rest", "rest apart")[self._turn % 2]]
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
        async with self.found.http.post(url, json=body, headers=headers or {}) as response:
            return response.status, response.headers, await response.text()


# -- chains ---------------------------------------------------------------------------------------------

CHAINS = """
  m:
    targets: [{provider: PROVIDER, model: first}]
    fallbacks: [f1, f2]
    on_context_window: [long]
    on_content_policy: [bold]
  f1: {targets: [{provider: up}], fallbacks: [never]}
  f2: {targets: [{provider: up}]}
  long: {targets: [{provider: up}]}
  bold: {targets: [{provider: up}]}
  never: {targets: [{provider: up}]}
"""
OPENAI = CHAINS.replace("PROVIDER", "up")
CLAUDE = CHAINS.replace("PROVIDER", "claude")


def claude(status: int, kind: str, message: str) -> Answer:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return answer(body, status)


TOO_LONG = (
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 130553 "
    "tokens. Please reduce the length of the messages."
)
FLAGGED = "The prompt triggered Azure OpenAI's content management policy. Please modify it."
INVALID = "invalid_request_error"
# Models, what the first says, and the models that are asked after it.
CASES: dict[str, tuple[str, Step, list[str]]] = {
    "500": (OPENAI, error(500), ["f1"]),
    "broken off": (OPENAI, answer(stop_after=0, ending="rst"), ["f1"]),
    "429": (OPENAI, error(429, "slow down", code="rate_limit_exceeded"), ["f1"]),
    "401": (OPENAI, error(401, "wrong key"), ["f1"]),
    "OpenAI's context": (
        OPENAI,
        error(400, TOO_LONG, type=INVALID, code="context_length_exceeded", param="messages"),
        ["long"],
    ),
    "Azure's filter": (
        OPENAI,
        error(400, FLAGGED, type=INVALID, code="content_filter", param="prompt"),
        ["bold"],
    ),
    "a caller's mistake": (OPENAI, error(400, "temperature: too hot", type=INVALID), []),
    "no such model": (OPENAI, error(404, "no such model", code="model_not_found"), []),
    "Anthropic's context": (
        CLAUDE,
        claude(400, INVALID, "prompt is too long: 213462 tokens > 200000 maximum"),
        ["long"],
    ),
    "Anthropic's filter": (
        CLAUDE,
        claude(400, INVALID, "Output blocked by content filtering policy"),
        ["bold"],
    ),
    "Anthropic's limits": (
        CLAUDE,
        claude(400, INVALID, "You have reached your specified API usage limits."),
        ["f1"],
    ),
    "Anthropic's load": (CLAUDE, claude(529, "overloaded_error", "Overloaded"), ["f1"]),
    "Anthropic's word for a mistake": (CLAUDE, claude(400, INVALID, "max_tokens: required"), []),
}


@both
@pytest.mark.parametrize("name", CASES)
async def test_who_stands_in(name: str, stream: bool) -> None:
    models, step, then = CASES[name]
    claudes = {"claude": "kind: anthropic, api_key: upstream-secret-key"}
    allowed = ["rejected the gateway's credentials"]
    async with asking(models, QUICK, providers=claudes, allowed=allowed) as (found, up):
        for way in Callers.ways:
            up.requests.clear()
            for each in found.app.core.setup.board.all():  # as if it was the first time
                each._cooling_until = 0.0
            plays(up, first=step)
            told = await found.ask(way, "m", "hi", stream=stream)
            assert asked(up) == ["first", *then], told
            assert told.attempts == 1 + len(then)
            assert told.whole is bool(then)
            assert bool(told.error) is not bool(then)


@both
async def test_the_chain_is_followed_to_its_end(stream: bool) -> None:
    async with asking(OPENAI, QUICK) as (found, up):
        plays(up, first=error(500), f1=error(503), f2=error(529, "the last of them"))
        told = await found.ask("rest", "m", "hi", stream=stream)
        assert asked(up) == ["first", "f1", "f2"]  # not f1's own fallback
        assert "the last of them" in told.message
        assert [fault for _, fault, _ in told.tried] == ["PROVIDER", "OVERLOAD", "OVERLOAD"]
        plays(up, first=error(500), f1=reset())
        status, headers, _ = await Rest(found)(stream=stream)
        assert (status, headers["x-headgate-route"], headers["x-headgate-model"]) == (
            200,
            "f2",
            "f2",
        )


@both
async def test_a_mistake_at_a_fallback_ends_it(stream: bool) -> None:
    async with asking(OPENAI, QUICK) as (found, up):
        plays(up, first=error(500), f1=error(400, "no such tool", type=INVALID))
        told = await found.ask("rest", "m", "hi", stream=stream)
        assert asked(up) == ["first", "f1"]
        assert "no such tool" in told.message


async def test_a_stream_that_has_begun_falls_back_to_nobody() -> None:
    async with asking(OPENAI, QUICK) as (found, up):
        plays(up, first=sse(chunks(["Hel", "lo"]), stop_after=3, ending="rst"))
        for way in Callers.ways:
            told = await found.ask(way, "m", "hi", stream=True)
            assert told.text == "Hello" and told.error and not told.whole
        assert set(asked(up)) == {"first"}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ABLE = """
  m: {targets: [{provider: up, model: first}], catalog: {input: [text, image]}, fallbacks: [FALLBACK, f2]}
  plain: {targets: [{provider: up}], catalog: {input: [text], tools: false, context_window: 50}}
  f2: {targets: [{provider: up}], catalog: {input: [text, image], tools: true, context_window: 99999}}
"""
LACKS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "plain"),
    "images": ({"messages": [{"role": "user", "content": [IMAGE]}]}, "f2"),
    "tools": ({"tools": [TOOL]}, "f2"),
    "room": ({"messages": [{"role": "user", "content": "word " * 200}]}, "f2"),
}


@pytest.mark.parametrize("what", LACKS)
async def test_who_cannot_take_the_request_is_not_asked(what: str) -> None:
    fields, who = LACKS[what]
    async with asking(ABLE.replace("FALLBACK", "plain"), QUICK) as (found, up):
        plays(up, first=error(500))
        for _ in range(2):
            up.requests.clear()
            status, headers, text = await Rest(found)(**fields)
            assert status == 200, text
            assert asked(up) == ["first", who]
            assert headers["x-headgate-route"] == who


# -- rules -------------------------------------------------------------------------------------------

RULES = """
routes:
  - {when: {headers: {x-team: "blue*"}}, use: by-header}
  - {when: {metadata: {plan: [gold, silver]}}, use: by-metadata}
  - {when: {tenant: acme}, use: by-tenant}
  - {when: {tools: true}, use: by-tools}
  - {when: {modality: image}, use: by-image}
  - {when: {tokens: {min: 300}}, use: by-length}
  - {when: {model: "old-*"}, use: by-model}
auth:
  mode: keys
  keys:
    - {name: a, key: key-of-a-0123456789}
    - {name: b, key: key-of-b-0123456789, tenant: acme}
"""
BY = ["header", "metadata", "tenant", "tools", "image", "length", "model"]
RULED = "\n".join(
    ["  m: {targets: [{provider: up}], catalog: {input: [text, image]}, aliases: [old-m]}"]
    + [
        f"  by-{each}: {{targets: [{{provider: up}}], catalog: {{input: [text, image]}}}}"
        for each in BY
    ]
)
TEXT = {"role": "user", "content": "hi"}
ASKED: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({}, {}, "m"),
    ({"x-team": "blue-1"}, {}, "by-header"),
    ({"X-Team": "blue"}, {}, "by-header"),
    ({"x-team": "red"}, {}, "m"),
    ({}, {"metadata": {"plan": "silver"}}, "by-metadata"),
    ({}, {"metadata": {"plan": "iron"}}, "m"),
    ({"authorization": "Bearer key-of-b-0123456789"}, {}, "by-tenant"),
    ({}, {"tools": [TOOL]}, "by-tools"),
    ({}, {"messages": [{"role": "user", "content": [IMAGE]}]}, "by-image"),
    ({}, {"messages": [{"role": "user", "content": "word " * 400}]}, "by-length"),
    ({}, {"model": "old-m"}, "by-model"),
    # The first that matches decides.
    ({"x-team": "blue"}, {"tools": [TOOL], "metadata": {"plan": "gold"}}, "by-header"),
]


async def test_rules_look_at_all_of_it() -> None:
    async with asking(RULED, RULES) as (found, up):
        rest = Rest(found)
        key = {"authorization": "Bearer key-of-a-0123456789"}
        for headers, fields, model in ASKED:
            for stream in (False, True):
                for _ in range(2):  # both doors
                    status, told, text = await rest(key | headers, stream=stream, **fields)
                    assert status == 200, text
                    assert told["x-headgate-route"] == model, (headers, fields)
        assert Counter(asked(up)) == {
            model: 4 * count for model, count in Counter(each[2] for each in ASKED).items()
        }
        for way in ("direct", "grpc"):
            told_there = await found.ask(
                way, "m", "hi", stream=True, headers=key | {"x-team": "blue"}
            )
            assert told_there.whole
            assert asked(up)[-1] == "by-header"


async def test_a_canary_keeps_its_users() -> None:
    models = "  m: {targets: [{provider: up}]}\n  canary: {targets: [{provider: up}]}"
    async with asking(models, "routes: [{share: 0.3, use: canary}]") as (found, up):
        rest = Rest(found)
        for _ in range(3):
            for user in range(60):
                await rest(user=f"user-{user}")
        for session in range(30):
            for _ in range(2):
                await rest({"x-session-id": f"session-{session}"})
        users: dict[str, set[str]] = {}
        for record in up.requests[:180]:
            users.setdefault(record.json["user"], set()).add(record.json["model"])
        assert all(len(models) == 1 for models in users.values())
        assert 8 <= sum(models == {"canary"} for models in users.values()) <= 29
        sessions = asked(up)[180:]
        assert sessions[::2] == sessions[1::2]
        assert set(sessions) == {"m", "canary"}


# -- copies -------------------------------------------------------------------------------------------

SHADOWED = """
  m: {targets: [{provider: up}]}
  s: {targets: [{provider: SHADOW}]}
  t: {targets: [{provider: by}], fallbacks: [s]}
"""
SHADOWS: dict[str, tuple[str, Step]] = {
    "well": ("by", chat("the copy's")),
    "slow": ("by", slow(0.4, chat())),
    "failing": ("by", error(500)),
    "refusing us": ("by", error(401)),
    "resetting": ("by", reset()),
    "hanging": ("by", hang()),
    "not there": ("gone", chat()),
}


@pytest.mark.parametrize("how", SHADOWS)
async def test_a_copy_changes_nothing_for_the_caller(how: str) -> None:
    provider, step = SHADOWS[how]
    gone = {"gone": f'kind: openai, base_url: "{NOWHERE}/v1"'}
    allowed = ["rejected the gateway's credentials"]
    extra = "routes: [{when: {model: m}, shadow: s}]\nshadows: {timeout: 700ms}"
    models = SHADOWED.replace("SHADOW", provider)
    async with asking(models, extra, providers=gone, allowed=allowed) as (found, up):
        plays(up, m=slow(0.02, chat("the answer")), s=step)
        for way in Callers.ways:
            for stream in (False, True):
                began = time.monotonic()
                told = await found.ask(way, "m", "hi", stream=stream)
                assert time.monotonic() - began < 0.65
                assert (told.text, told.whole, told.attempts) == ("the answer", True, 1)
                assert told.provider == "up"
        await until(lambda: len(found.settled) == 8)
        assert {each.attempts for each in found.settled} == {1}
        assert {each.route for each in found.settled} == {"m"}
        if provider == "by":
            await until(lambda: asked(up).count("s") >= 8)
        assert asked(up).count("m") == 8
        shadows = found.app.core.setup.shadows
        await until(lambda: not shadows._tasks, 3)
        assert (shadows.sent, shadows.dropped) == (8, 0)
        for record in up.requests:  # the copies of streams are whole answers
            assert record.json["model"] == "m" or not record.json.get("stream")


async def test_the_rule_for_copies_of_some() -> None:
    extra = "routes: [{when: {headers: {x-mirror: yes}}, shadow: s}]\n"
    async with asking(SHADOWED.replace("SHADOW", "by"), extra.replace("yes", '"yes"')) as (
        found,
        up,
    ):
        rest = Rest(found)
        await rest()
        await rest({"x-mirror": "yes"})
        await until(lambda: Counter(asked(up)) == {"m": 2, "s": 1})


async def test_copies_are_bounded() -> None:
    """Copies that hang hold up nobody, and no more than so many of them are under way."""
    extra = "routes: [{shadow: s}]\nshadows: {max_in_flight: 3, timeout: 300ms}"
    async with asking(SHADOWED.replace("SHADOW", "by"), extra) as (found, up):
        plays(up, s=hang())
        told = await asyncio.gather(
            *(found.ask(Callers.ways[n % 4], "m", "hi", stream=n % 2 == 0) for n in range(20))
        )
        assert all(each.whole for each in told)
        await until(lambda: asked(up).count("s") == 3)
        shadows = found.app.core.setup.shadows
        assert (shadows.sent, shadows.dropped) == (3, 17)
        copies = [each for each in up.requests if each.json["model"] == "s"]
        for copy in copies:
            await copy.wait_closed(1.5)


async def test_copies_say_whose_they_are() -> None:
    """They get what the request says, and the caller's answer is told nothing of them."""
    async with asking(SHADOWED.replace("SHADOW", "by"), "routes: [{shadow: s}]") as (found, up):
        rest = Rest(found)
        status, headers, _ = await rest(temperature=0.25, user="u1")
        assert status == 200
        await until(lambda: len(up.requests) == 2)
        bodies = {each.json["model"]: each.json for each in up.requests}
        assert bodies["s"] == bodies["m"] | {"model": "s"}
        assert json.dumps(dict(headers)).find('"s"') < 0
        assert headers["x-headgate-route"] == "m"
