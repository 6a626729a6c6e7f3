"""How a name finds its route, and what the route is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.routers import order, provider, router
from headgate.errors import ModelNotFound
from headgate_server.config import Config
from headgate_server.health import Board
from headgate_server.providers import vendor_of
from headgate_server.providers.base import Timeouts
from headgate_server.routing import Router


def one(provider: str = "openai", **more: Any) -> dict[str, Any]:
    return {"targets": [{"provider": provider, **more}]}


def test_the_upstream_name_defaults_to_the_public_one() -> None:
    (target,) = router({"gpt-5.4": one()}).route("gpt-5.4").targets
    assert (target.provider, target.kind, target.model) == ("openai", "openai", "gpt-5.4")
    assert (target.family.name, target.vendor.name) == ("gpt-5.4", "OpenAI")
    assert (target.policy, target.api_version) == ("drop", None)
    assert (target.timeouts, target.weight, target.price, target.concurrency) == (
        None, 1.0, None, None,
    )  # fmt: skip


def test_settings_reach_the_target() -> None:
    settings = {
        "targets": [
            {
                "provider": "az",
                "model": "dep",
                "weight": 3,
                "price": {"input": 1, "output": 2},
                "concurrency": {"limit": 7},
            }
        ],
        "unsupported": "strict",
        "catalog": {"price": {"input": 5, "output": 5}},
    }
    (target,) = router({"m": settings}).route("m").targets
    assert (target.policy, target.api_version, target.kind) == ("strict", "v9", "azure")
    assert target.weight == 3
    assert target.price is not None
    assert (target.price.input, target.price.output) == (1, 2)
    assert target.concurrency is not None
    assert target.concurrency.limit == 7
    del settings["targets"][0]["price"]  # type: ignore[attr-defined]
    (target,) = router({"m": settings}).route("m").targets
    assert target.price is not None
    assert target.price.input == 5


def test_a_models_timeouts_win_over_its_providers() -> None:
    found = router(
        {"m": {**one(), "timeouts": {"idle": 3}}, "n": one()},
        providers={"openai": {"timeouts": {"idle": 4, "total": 40}}},
        sections={"timeouts": {"connect": 5}},
    )
    (target,) = found.route("m").targets
    assert target.timeouts == Timeouts(connect=5, first_byte=600, first_token=600, idle=3, total=40)
    assert found.route("n").targets[0].timeouts is None


def test_targets_are_shared_between_routes() -> None:
    found = router({"m": one(model="x"), "n": one(model="x")})
    first, second, direct = (found.route(name) for name in ("m", "n", "openai/x"))
    assert first.candidates[0].health is second.candidates[0].health
    assert first.candidates[0].health is direct.candidates[0].health


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-5.4", "openai/gpt-5.4"),
        ("or/meta-llama/llama-3", "or/meta-llama/llama-3"),
        ("az/my deployment", "az/my deployment"),
    ],
)
def test_provider_and_model_address_a_target(model: str, expected: str) -> None:
    found = router()
    route = found.route(model)
    assert route.name == model
    assert route.settings is None
    assert order(found, model) == [expected]
    assert found.chain(route, "general") == ()


@pytest.mark.parametrize(
    "model", ["", "nothing", "openai", "openai/", "/gpt", "other/gpt-5.4", "OPENAI/gpt", "gpt-5.4"]
)
def test_unknown_models(model: str) -> None:
    found = router()
    with pytest.raises(ModelNotFound):
        found.route(model)
    assert found.canonical(model) == model


# --- aliases and globs ----------------------------------------------------------------------------

PRECEDENCE = {
    "openai/exact": one("ds", model="configured"),
    "a": {**one("groq", model="aliased"), "aliases": ["openai/alias", "openai/glob-*", "other"]},
    "openai/*": one("groq", model="glob"),
    "gpt-*": one("groq", model="short"),
    "gpt-4*": one("groq", model="long"),
    "gpt-5*": one("groq", model="first"),
    "g?t-5*": one("groq", model="fewer"),
}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/exact", "ds/configured"),
        ("openai/alias", "groq/aliased"),
        ("openai/glob-1", "openai/glob-1"),  # an address wins over globs
        ("other", "groq/aliased"),
        ("gpt-3", "groq/short"),
        ("gpt-4", "groq/long"),
        ("gpt-4o", "groq/long"),
        ("gpt-5", "groq/first"),
        ("gqt-5", "groq/fewer"),
        ("gpt-", "groq/short"),
    ],
)
def test_which_name_wins(model: str, expected: str) -> None:
    assert order(router(PRECEDENCE), model) == [expected]


def test_a_glob_wins_over_a_natural_home() -> None:
    found = router({"gpt-5*": one("groq")}, natural_homes=True)
    assert order(found, "gpt-5.4") == ["groq/gpt-5.4"]
    assert order(found, "gpt-4o") == ["openai/gpt-4o"]


def test_an_alias_is_the_model_itself() -> None:
    found = router({"m": {**one(), "aliases": ["n", "o-*"]}})
    for alias in ("n", "o-1", "o-"):
        assert found.route(alias) is found.route("m")
        assert found.canonical(alias) == "m"
    assert found.canonical("m") == "m"
    assert list(found.routes) == ["m"]
    with pytest.raises(ModelNotFound):
        found.route("xo-1")


@pytest.mark.parametrize(
    ("name", "model", "asked", "upstream"),
    [
        ("claude-*", None, "claude-opus-4-6", "claude-opus-4-6"),
        ("claude-*", "anthropic/claude-*", "claude-opus", "anthropic/claude-opus"),
        ("claude-*", "fixed", "claude-opus", "fixed"),
        ("mine/*", "*", "mine/a/b", "a/b"),
        ("*-x-*", "*/*", "a-x-b", "a/b"),
        ("*-x-*", "*", "a-x-b", "a"),
        ("v[12]-*", "*", "v2-z", "z"),
        ("v?", None, "v7", "v7"),
        ("m-*", "*", "m-*", "*"),
        ("m-*", "a-*-b", "m-", "a--b"),
    ],
)
def test_what_the_upstream_is_asked_for(
    name: str, model: str | None, asked: str, upstream: str
) -> None:
    settings = one() if model is None else one(model=model)
    found = router({name: settings})
    route = found.route(asked)
    assert route.name == asked
    assert route.settings is not None
    assert order(found, asked) == [f"openai/{upstream}"]
    assert found.routes == {}


def test_globs_are_case_sensitive_and_whole() -> None:
    found = router({"claude-*": one(), "v[ab]": one()})
    for model in ("Claude-3", "xclaude-3", "vc", "vab", "claude"):
        with pytest.raises(ModelNotFound):
            found.route(model)


def test_a_name_that_looks_like_a_glob_stands_for_itself() -> None:
    found = router({"sonnet[1m]": one(model="big"), "sonnet*": one(model="small")})
    assert order(found, "sonnet[1m]") == ["openai/big"]


def test_routes_that_are_made_on_demand_are_kept_but_not_without_bound() -> None:
    found = router({"m-*": one()})
    first = found.route("m-0")
    assert found.route("m-0") is first
    direct = found.route("openai/x")
    assert found.route("openai/x") is direct
    for number in range(1030):
        found.route(f"m-{number}")
    assert found.route("openai/x") is not direct
    long = "openai/" + "x" * 300
    assert found.route(long) is not found.route(long)


def test_instances_of_a_glob_have_peers_and_fallbacks() -> None:
    found = router(
        {
            "m-*": {
                "targets": [{"provider": "openai"}, {"provider": "ds"}],
                "fallbacks": ["z"],
            },
            "z": one(),
        }
    )
    route = found.route("m-1")
    assert len({id(each.health) for each in route.candidates}) == 2
    assert [each.name for each in found.chain(route, "general")] == ["z"]


# --- chains ---------------------------------------------------------------------------------------


def test_each_chain_has_its_own_models() -> None:
    found = router(
        {
            "a": {
                **one(),
                "fallbacks": ["b", "or/x/y", "nick"],
                "on_context_window": ["c-long"],
                "on_content_policy": ["b"],
            },
            "b": {**one(), "aliases": ["nick"]},
            "c-*": one(),
        }
    )
    route = found.route("a")
    assert [each.name for each in found.chain(route, "general")] == ["b", "or/x/y", "b"]
    assert [each.name for each in found.chain(route, "on_context_window")] == ["c-long"]
    assert [each.name for each in found.chain(route, "on_content_policy")] == ["b"]
    assert list(found.chain(found.route("b"), "general")) == []


# --- natural homes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "home"),
    [
        ("gpt-5.4", "openai"),
        ("GPT-5.4", "openai"),
        ("o3-mini", "openai"),
        ("o3", "openai"),
        ("gpt-5", "openai"),
        ("gpt-4o", "openai"),
        ("gpt-5-pro", "resp"),
        ("gpt-5.2-pro-2025-12-11", "resp"),
        ("gpt-5-codex", "resp"),
        ("gpt-5.1-codex-max", "resp"),
        ("GPT-5.3-Codex", "resp"),
        ("o1-pro", "resp"),
        ("o3-pro-2025-06-10", "resp"),
        ("o3-deep-research", "resp"),
        ("o4-mini-deep-research-2025-06-26", "resp"),
        ("codex-mini-latest", "resp"),
        ("computer-use-preview", "resp"),
        ("sonar-deep-research", None),
        ("deepseek-chat", "ds"),
        ("gpt-oss-120b", None),
        ("claude-sonnet-4-6", None),
        ("mistral-large", None),
        ("xgpt-5", None),
    ],
)
def test_natural_homes(model: str, home: str | None) -> None:
    found = router(natural_homes=True)
    if home is None:
        with pytest.raises(ModelNotFound):
            found.route(model)
    else:
        assert order(found, model) == [f"{home}/{model}"]


@pytest.mark.parametrize(
    ("globs", "home"),
    [
        (["a-*", "a-b*"], "second"),
        (["a-b*", "a-*"], "first"),
        (["a-*", "a-*"], "first"),
        (["?-?-?*", "a-*"], "first"),
        (["[a-z]-[a-z]*", "*-b-c"], "second"),
        (["*", "[a-z]*"], "first"),
        (["a-[!b]*", "*"], "second"),
    ],
)
def test_the_home_that_says_most_wins(globs: list[str], home: str) -> None:
    providers = {
        name: dataclasses.replace(
            provider(name, "openai"),
            vendor=msgspec.structs.replace(vendor_of("openai", None), models=(glob,)),
        )
        for name, glob in zip(("first", "second"), globs, strict=True)
    }
    found = Router(Config(), providers, Board(Config()), natural_homes=True)
    assert order(found, "a-b-c") == [f"{home}/a-b-c"]


def test_the_words_for_unknown_and_forbidden_do_not_grow() -> None:
    with pytest.raises(ModelNotFound) as caught:
        router().route("x" * 100_000)
    assert len(caught.value.message) < 500


@given(st.text(min_size=1, max_size=300))
def test_any_name_is_found_or_refused(model: str) -> None:
    try:
        found = ROUTER.route(model)
    except ModelNotFound:
        assert not model.startswith(("openai/", "gpt-"))
    else:
        assert found.name in (model, "a")


ROUTER = router(PRECEDENCE, natural_homes=True)
