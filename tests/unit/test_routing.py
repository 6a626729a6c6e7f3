"""Which targets serve a model, and in which order."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import Any, cast

import msgspec
import pytest

from headgate.errors import ModelNotFound
from headgate_server.config import Config
from headgate_server.providers import dialect_of, vendor_of
from headgate_server.providers.base import Endpoint
from headgate_server.providers.runtime import HttpProvider
from headgate_server.routing import Router
from headgate_server.upstream import Upstream


def provider(name: str, kind: str) -> HttpProvider:
    vendor = vendor_of(kind, None)
    return HttpProvider(
        name=name,
        kind=kind,
        vendor=vendor,
        dialect=dialect_of(kind, vendor, 1 << 20),
        upstream=cast("Upstream", None),
        endpoint=lambda: Endpoint("https://api.example/v1", {}),
        api_version="v9" if kind == "azure" else None,
    )


def router(models: dict[str, Any] | None = None, *, seed: int = 1, **options: Any) -> Router:
    kinds = {
        "openai": "openai",
        "ds": "deepseek",
        "groq": "groq",
        "az": "azure",
        "or": "openrouter",
        "resp": "openai_responses",
    }
    config = Config.model_validate({
        "providers": {name: {"kind": kind, "api_key": "k", "base_url": None if kind != "azure" else
                             "https://r.example"} for name, kind in kinds.items()},
        "models": models or {},
    })  # fmt: skip
    providers = {name: provider(name, kind) for name, kind in kinds.items()}
    return Router(config, providers, dice=random.Random(seed).random, **options)


def names(found: Router, model: str) -> list[str]:
    return [f"{t.provider}/{t.model}" for t in found.candidates(found.route(model))]


def test_the_upstream_name_defaults_to_the_public_one() -> None:
    found = router({"gpt-5.4": {"targets": [{"provider": "openai"}]}})
    (target,) = found.candidates(found.route("gpt-5.4"))
    assert (target.provider, target.kind, target.model) == ("openai", "openai", "gpt-5.4")
    assert (target.family.name, target.vendor.name) == ("gpt-5.4", "OpenAI")
    assert (target.policy, target.api_version) == ("drop", None)


def test_settings_reach_the_target() -> None:
    models = {"m": {"targets": [{"provider": "az", "model": "dep"}], "unsupported": "strict"}}
    (target,) = router(models).route("m").targets
    assert (target.policy, target.api_version, target.kind) == ("strict", "v9", "azure")


def test_priority_is_the_order_written() -> None:
    targets = [{"provider": "ds", "model": "a"}, {"provider": "openai", "model": "b"}]
    found = router({"m": {"strategy": "priority", "targets": targets}})
    assert all(names(found, "m") == ["ds/a", "openai/b"] for _ in range(20))


def test_weights_are_shares_of_the_first_place() -> None:
    targets = [
        {"provider": "openai", "weight": 3},
        {"provider": "ds", "weight": 1},
        {"provider": "groq", "weight": 0},
    ]
    found = router({"m": {"strategy": "weighted", "targets": targets}})
    orders = [names(found, "m") for _ in range(4000)]
    first = Counter(order[0] for order in orders)
    assert first["openai/m"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert first["ds/m"] / 4000 == pytest.approx(0.25, abs=0.03)
    assert all(order[-1] == "groq/m" for order in orders)
    assert all(len(set(order)) == 3 for order in orders)


def test_the_second_place_goes_by_weight_too() -> None:
    targets = [{"provider": p, "weight": w} for p, w in (("openai", 8), ("ds", 3), ("groq", 1))]
    found = router({"m": {"strategy": "weighted", "targets": targets}})
    orders = [names(found, "m") for _ in range(8000)]
    second = Counter(order[1] for order in orders if order[0] == "openai/m")
    assert second["ds/m"] / second.total() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("dice", [0.0, 1.0, 1e-300, 1 - 1e-16])
def test_no_throw_of_the_dice_fails(dice: float) -> None:
    targets = [
        {"provider": p, "weight": w} for p, w in (("openai", 1e-9), ("ds", 1e9), ("groq", 0))
    ]
    found = router({"m": {"strategy": "weighted", "targets": targets}})
    found._dice = lambda: dice
    assert len(names(found, "m")) == 3
    assert names(found, "m")[-1] == "groq/m"


def test_fallbacks_come_behind_every_target() -> None:
    found = router({
        "a": {"targets": [{"provider": "openai"}, {"provider": "ds"}],
              "fallbacks": ["b", "or/x/y"]},
        "b": {"targets": [{"provider": "groq"}], "fallbacks": ["a"]},
    })  # fmt: skip
    assert names(found, "a") == ["openai/a", "ds/a", "groq/b", "or/x/y"]


def test_no_target_is_tried_twice() -> None:
    found = router({
        "a": {"targets": [{"provider": "openai", "model": "x"}], "fallbacks": ["b", "b", "openai/x"]},
        "b": {"targets": [{"provider": "openai", "model": "x"}, {"provider": "ds", "model": "x"}]},
    })  # fmt: skip
    assert names(found, "a") == ["openai/x", "ds/x"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-5.4", "openai/gpt-5.4"),
        ("or/meta-llama/llama-3", "or/meta-llama/llama-3"),
        ("az/my deployment", "az/my deployment"),
    ],
)
def test_provider_and_model_address_a_target(model: str, expected: str) -> None:
    route = router().route(model)
    assert route.name == model
    assert route.settings is None
    assert [f"{t.provider}/{t.model}" for t in route.targets] == [expected]


def test_a_configured_name_wins_over_an_address() -> None:
    found = router({"openai/gpt-5.4": {"targets": [{"provider": "ds", "model": "x"}]}})
    assert names(found, "openai/gpt-5.4") == ["ds/x"]


@pytest.mark.parametrize(
    "model", ["", "nothing", "openai", "openai/", "/gpt", "other/gpt-5.4", "OPENAI/gpt", "gpt-5.4"]
)
def test_unknown_models(model: str) -> None:
    with pytest.raises(ModelNotFound):
        router().route(model)


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
        assert names(found, model) == [f"{home}/{model}"]


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
    found = Router(Config(), providers, natural_homes=True)
    assert names(found, "a-b-c") == [f"{home}/a-b-c"]


def test_the_words_for_unknown_and_forbidden_do_not_grow() -> None:
    with pytest.raises(ModelNotFound) as caught:
        router().route("x" * 100_000)
    assert len(caught.value.message) < 500
