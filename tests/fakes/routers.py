"""Routers over providers that are never called, for tests of decisions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, cast

from headgate.core import CallContext
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.auth import Caller
from headgate_server.config import Config
from headgate_server.faults import Fault
from headgate_server.health import Board, TargetHealth
from headgate_server.providers import dialect_of, keyring_of, vendor_of
from headgate_server.providers.base import Endpoint
from headgate_server.providers.runtime import HttpProvider
from headgate_server.routing import Plan, Route, Router
from headgate_server.upstream import Upstream

KINDS = {
    "openai": "openai",
    "ds": "deepseek",
    "groq": "groq",
    "az": "azure",
    "or": "openrouter",
    "resp": "openai_responses",
}
NOW = 1000.0
NOBODY = CallContext(request_id="r")
ANYBODY = Caller()


def provider(name: str, kind: str, settings: Any = None) -> HttpProvider:
    """One that has no connection."""
    vendor = vendor_of(kind, None)
    return HttpProvider(
        name=name,
        kind=kind,
        vendor=vendor,
        dialect=dialect_of(kind, vendor, 1 << 20),
        upstream=cast("Upstream", None),
        endpoint=lambda: Endpoint("https://api.example/v1", {}),
        api_version="v9" if kind == "azure" else None,
        keyring=keyring_of(settings, vendor) if settings is not None else None,
    )


def router(
    models: Mapping[str, Any] | None = None,
    *,
    seed: int = 1,
    dice: Callable[[], float] | None = None,
    providers: Mapping[str, Any] | None = None,
    sections: Mapping[str, Any] | None = None,
    **options: Any,
) -> Router:
    """A router and its board over `KINDS`.

    Args:
        models: as in the configuration.
        seed: of the dice.
        dice: instead of them.
        providers: settings of some of the providers.
        sections: further sections of the configuration.
        **options: of the router.
    """
    given = {
        name: {"kind": kind, "api_key": "k", **(providers or {}).get(name, {})}
        for name, kind in KINDS.items()
    }
    given["az"]["base_url"] = "https://r.example"
    for settings in given.values():
        if "api_keys" in settings:
            del settings["api_key"]
    config = Config.model_validate({"providers": given, "models": models or {}, **(sections or {})})
    made = {name: provider(name, kind, config.providers[name]) for name, kind in KINDS.items()}
    return Router(config, made, Board(config), dice=dice or random.Random(seed).random, **options)


def asked(model: str = "m", text: str = "Hello", **fields: Any) -> chat_pb2.ChatRequest:
    """A request with one message of the user."""
    said = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text=text)])
    return chat_pb2.ChatRequest(model=model, messages=[said], **fields)


def planned(found: Router, route: Route, **fields: Any) -> Plan:
    """The plan of a route for an ordinary request."""
    return found.plan(route, asked(route.name, **fields), NOBODY, ANYBODY, NOW)


def names(plan: Plan) -> list[str]:
    """The candidates of a plan as ``provider/model``."""
    return [f"{each.target.provider}/{each.target.model}" for each in plan.candidates]


def order(found: Router, model: str, **fields: Any) -> list[str]:
    """The targets of a model in the order in which they would be tried."""
    return names(planned(found, found.route(model), **fields))


def health(found: Router, model: str, place: int = 0) -> TargetHealth:
    """How a target of a model is."""
    return found.route(model).candidates[place].health


def break_down(target: TargetHealth, now: float = NOW) -> None:
    """Fails until the breaker opens (with the usual settings)."""
    for _ in range(12):
        target.begin(now)
        target.end(Fault.PROVIDER, 0.1, now)
