"""Every front door before every provider dialect: what goes in at one end comes out at the other.

The vendors and the clients are written by hand here, from their documentation, and know nothing of the
gateway. So N doors and M dialects are tested with N + M descriptions.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream
from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from square.doors import DOORS, Door, Talk, Told
from square.vendors import USAGE_IN, USAGE_OUT, VENDORS, Call, Reply, Seen, Vendor

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SYSTEM, QUESTION = "Be brief.", "How is the weather in Paris and in Rome? Zürich, too: ☂"
WEATHER = [
    Call("get_weather", {"city": "Paris"}, "call_a"),
    Call("get_weather", {"city": "Rome", "days": 2}, "call_b"),
]
PROOF = base64.b64encode(b"proof of thought, opaque to everybody").decode()
FINISHED = {
    "openai": ("stop", "tool_calls"),
    "anthropic": ("end_turn", "tool_use"),
    "gemini": ("STOP", "STOP"),
    "responses": ("completed", "completed"),
}


def config(up: FakeUpstream, vendor: Vendor) -> str:
    key = ", api_key: upstream-key" if vendor.kind != "bedrock" else ""
    address = f'base_url: "{up.origin}{vendor.path}"'
    return f"""
providers:
  {vendor.kind}: {{kind: {vendor.kind}, {address}{key}{vendor.settings}}}
models:
  m:
    targets: [{{provider: {vendor.kind}, model: "{vendor.model}"}}]
    catalog: {{input: [text, image], output: [text]}}
  blind:
    targets: [{{provider: {vendor.kind}, model: "{vendor.model}"}}]
    catalog: {{input: [text], output: [text]}}
"""


@dataclass
class Site:
    up: FakeUpstream
    gateway: Gateway
    http: httpx.AsyncClient


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.kind)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    found: Vendor = request.param
    return found


@pytest.fixture
async def site(vendor: Vendor) -> AsyncIterator[Site]:
    async with FakeUpstream() as up, Gateway(config(up, vendor)) as gateway, gateway.http() as http:
        yield Site(up, gateway, http)


@dataclass
class Pair:
    """One door before one vendor."""

    site: Site
    door: Door
    vendor: Vendor
    stream: bool

    async def turn(self, talk: Talk, reply: Reply) -> tuple[Seen, Told, httpx.Response]:
        vendor, door = self.vendor, self.door
        self.site.up.script(vendor.stream(reply) if self.stream else vendor.answer(reply))
        answered = await self.site.http.post(
            door.path("m", self.stream), json=door.ask("m", talk, self.stream)
        )
        assert answered.status_code == 200, answered.text
        seen = vendor.seen(self.site.up.requests[-1].json)
        told = (
            door.told_by_stream(answered.text)
            if self.stream
            else door.told(json.loads(answered.text))
        )
        return seen, told, answered


@pytest.fixture(params=[False, True], ids=["unary", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    found: Door = request.param
    return found


@pytest.fixture
def pair(site: Site, door: Door, vendor: Vendor, stream: bool) -> Pair:
    return Pair(site, door, vendor, stream)


async def test_text(pair: Pair) -> None:
    seen, told, answered = await pair.turn(Talk(SYSTEM, QUESTION), Reply("It rains. ☂"))
    assert (seen.system, seen.said, seen.image, seen.tools) == (SYSTEM, [QUESTION], None, [])
    assert (told.text, told.thinking, told.calls) == ("It rains. ☂", "", [])
    assert told.finish == FINISHED[pair.door.name][0]
    assert told.usage == (USAGE_IN, USAGE_OUT)
    assert answered.headers["x-headgate-provider"] == pair.vendor.kind
    (settled,) = await pair.site.gateway.settled()
    assert settled.outcome == "OK"
    assert settled.usage is not None
    assert (settled.usage.input_tokens, settled.usage.output_tokens) == (USAGE_IN, USAGE_OUT)


async def test_two_tools_at_once_and_their_results(pair: Pair) -> None:
    talk = Talk(SYSTEM, QUESTION, tools=True)
    seen, told, _ = await pair.turn(talk, Reply("Let me look.", calls=WEATHER))
    assert seen.tools == ["get_weather"]
    assert told.text == "Let me look."
    assert [(c.name, c.arguments) for c in told.calls] == [(c.name, c.arguments) for c in WEATHER]
    assert told.finish == FINISHED[pair.door.name][1]
    ids = [call.id for call in told.calls]
    assert len(set(ids)) == 2
    if pair.vendor.has_ids:
        assert ids == [call.id for call in WEATHER]

    results = dict(zip(ids, ["It is 18 C.", "It is 25 C."], strict=True))
    talk.answered, talk.results = told, results
    seen, told, _ = await pair.turn(talk, Reply("18 and 25."))
    assert seen.said == [QUESTION, "Let me look."]
    assert [(c.name, c.arguments) for c in seen.calls] == [(c.name, c.arguments) for c in WEATHER]
    assert [_plain(text) for _, text in seen.results] == ["It is 18 C.", "It is 25 C."]
    if pair.vendor.has_ids:
        assert [call for call, _ in seen.results] == [call.id for call in seen.calls]
    else:
        assert [call for call, _ in seen.results] == ["get_weather"] * 2
    assert told.text == "18 and 25."


def _plain(text: str) -> str:
    """Gemini's clients wrap results in an object; what counts is that nothing is lost."""
    try:
        inner = json.loads(text)
    except ValueError:
        return text
    return str(inner["result"]) if isinstance(inner, dict) else text


async def test_an_image(pair: Pair) -> None:
    seen, told, _ = await pair.turn(Talk(SYSTEM, "What is this?", image=PIXEL), Reply("A dot."))
    assert seen.image == PIXEL
    assert seen.said == ["What is this?"]
    assert told.text == "A dot."


async def test_thinking_and_the_turn_behind_it(pair: Pair) -> None:
    talk = Talk(SYSTEM, QUESTION, tools=True, thinks=True)
    thought = Reply("", thinking="Two cities, so two calls.", proof=PROOF, calls=WEATHER)
    seen, told, answered = await pair.turn(talk, thought)
    assert seen.thinks or "reasoning" in answered.headers.get("x-headgate-warnings", "")
    assert told.thinking == thought.thinking
    talk.answered = told
    talk.results = {call.id: "mild" for call in told.calls}
    seen, told, answered = await pair.turn(talk, Reply("Mild.", thinking="Both alike."))
    assert told.text == "Mild."
    if pair.vendor.proves:
        assert seen.proofs == [PROOF]
    if pair.vendor.remembers_thinking:
        assert seen.thinking == thought.thinking
    assert [(c.name, c.arguments) for c in seen.calls] == [(c.name, c.arguments) for c in WEATHER]


async def test_an_image_for_a_blind_model_is_refused_before_any_call(pair: Pair) -> None:
    talk = Talk(SYSTEM, "What is this?", image=PIXEL)
    answered = await pair.site.http.post(
        pair.door.path("blind", pair.stream), json=pair.door.ask("blind", talk, pair.stream)
    )
    assert answered.status_code == 400, answered.text
    assert "image" in answered.text
    assert not pair.site.up.requests


async def test_an_image_for_a_blind_model_is_refused_over_grpc_too(site: Site) -> None:
    message = content_pb2.Message(role=content_pb2.ROLE_USER)
    message.parts.add(text="What is this?")
    message.parts.add().image.CopyFrom(content_pb2.Media(data=PIXEL, media_type="image/png"))
    request = chat_pb2.ChatRequest(model="blind", messages=[message])
    async with site.gateway.client() as client:
        with pytest.raises(InvalidRequest, match="takes no image") as whole:
            await client.chat_complete(request)
        with pytest.raises(InvalidRequest, match="takes no image"):
            await client.chat_stream(request).next_batch()
    assert whole.value.violations[0].field == "messages[0].parts[1]"
    assert not site.up.requests
