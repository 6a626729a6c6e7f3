"""Prices in the catalogue: the package's, and the configuration's own."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream
from headgate.core import CallContext
from headgate.v1 import model_service_pb2
from headgate_server.catalog import describe
from headgate_server.config import ModelRoute
from headgate_server.prices import Prices
from headgate_server.providers import vendor_of
from headgate_server.providers.base import Target
from headgate_server.providers.vendors import family_of
from headgate_server.routing import Candidate, Route


def target(kind: str, model: str) -> Target:
    return Target("p", kind, model, vendor_of(kind, None), family_of(model))


async def loaded() -> Prices:
    prices = Prices()
    await prices.load()
    return prices


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "gpt-4o"),
        ("openai_responses", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.5-flash"),
        ("vertex", "gemini-2.5-flash"),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("azure", "gpt-4o"),
        ("deepseek", "deepseek-chat"),
        ("xai", "grok-4"),
        ("mistral", "mistral-large-latest"),
        ("cohere", "command-a"),
        ("groq", "llama-3.3-70b-versatile"),
    ],
)
async def test_known_models_have_a_price(kind: str, model: str) -> None:
    price = (await loaded()).of(target(kind, model))
    assert price is not None
    assert 0 < price.input_per_million_usd <= price.output_per_million_usd < 200


async def test_a_price_in_detail() -> None:
    price = (await loaded()).of(target("anthropic", "claude-sonnet-4-5"))
    # https://docs.claude.com/en/docs/about-claude/pricing
    assert price == model_service_pb2.Price(
        input_per_million_usd=3, output_per_million_usd=15,
        cached_input_per_million_usd=0.3, cache_write_per_million_usd=3.75,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "model"), [("vllm", "gpt-4o"), ("ollama", "llama3"), ("openai", "no-such-model")]
)
async def test_what_has_no_known_price_has_none(kind: str, model: str) -> None:
    assert (await loaded()).of(target(kind, model)) is None


async def test_rates_are_the_price_in_short() -> None:
    prices = Prices()
    sonnet, unknown = target("anthropic", "claude-sonnet-4-5"), target("openai", "no-such-model")
    assert prices.rates(sonnet, 0.0) is None
    await prices.load()  # what was asked before does not count
    kept = prices.rates(sonnet, 0.0)
    assert kept == prices.rates(sonnet, 61.0) == (3, 15)
    assert prices.rates(sonnet, 100.0) is prices.rates(sonnet, 61.0)  # looked up once a minute
    assert prices.rates(sonnet, 100.0) is not kept
    assert prices.rates(unknown, 0.0) is None


async def test_the_configuration_wins() -> None:
    own = {"input": 1.5, "output": 2, "cached_input": 0.25}
    settings = ModelRoute.model_validate(
        {"targets": [{"provider": "p"}], "catalog": {"price": own}}
    )
    nothing = cast("Any", None)
    route = Route("m", [Candidate(target("openai", "gpt-4o"), nothing, nothing)], settings)
    price = describe(route, await loaded()).price
    assert price.input_per_million_usd == 1.5
    assert price.output_per_million_usd == 2
    assert price.cached_input_per_million_usd == 0.25
    assert not price.HasField("cache_write_per_million_usd")


async def test_the_price_is_in_the_catalogue_and_in_the_list() -> None:
    async with FakeUpstream() as up:
        config = f"""
providers: {{openai: {{kind: openai, base_url: "{up.base_url}", api_key: k}}}}
models: {{gpt-4o: {{targets: [{{provider: openai}}]}}}}
"""
        async with Gateway(config) as gateway, gateway.http() as http, gateway.client() as client:
            entry = (await http.get("/v1/model-catalog/gpt-4o")).json()
            listed = await client.list_models(None, CallContext())
    assert entry["price"]["input_per_million_usd"] == listed.models[0].price.input_per_million_usd
    assert entry["price"]["input_per_million_usd"] > 0
    assert entry["family"] == "gpt-4o"
    assert entry["providers"] == ["openai"]
