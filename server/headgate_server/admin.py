"""What operators are told: where a request would go, and how the targets are.

`Admin` is the in-process `headgate.core.RouteCore`. Owns who may ask, and the live states as messages;
the decisions that it tells of are `routing`'s, the states `health`'s. Calls no provider.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from google.protobuf import duration_pb2

from headgate.admin.v1 import route_service_pb2
from headgate.core import CallContext
from headgate.errors import PermissionDenied
from headgate.metadata import callers_headers
from headgate_server.auth import Caller
from headgate_server.core import Core, Setup
from headgate_server.health import TargetHealth
from headgate_server.keyring import Bench
from headgate_server.providers.runtime import Provider
from headgate_server.routing import Router
from headgate_server.routing.explain import explain
from headgate_server.settlement import Settlement, Settling
from headgate_server.validate import validate


class Admin:
    """Satisfies `headgate.core.RouteCore` directly.

    Args:
        core: whose setup is told about.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def explain(
        self, request: route_service_pb2.ExplainRequest, context: CallContext
    ) -> route_service_pb2.ExplainResponse:
        """Where a request would go and why."""
        with _unsettled(context):
            setup = self._core.setup
            caller = _administrator(setup, context)
            validate(request.request)
            if request.HasField("tenant"):
                caller = replace(caller, tenant=request.tenant)
            headers = callers_headers((name.lower(), v) for name, v in request.headers.items())
            asked = replace(context, headers=headers)
            return explain(setup.router, request.request, asked, caller, time.monotonic())

    async def list_targets(
        self, request: route_service_pb2.ListTargetsRequest, context: CallContext
    ) -> route_service_pb2.ListTargetsResponse:
        """The live state of every target, by provider and model."""
        with _unsettled(context):
            setup = self._core.setup
            _administrator(setup, context)
            now = time.monotonic()
            routes = _routes_by_target(setup.router)
            found = {(each.provider, each.model): each for each in setup.board.all()}
            names = sorted(found)
            if request.route:
                targets = setup.router.route(request.route).targets
                wanted = {(target.provider, target.model) for target in targets}
                names = [name for name in names if name in wanted]
            return route_service_pb2.ListTargetsResponse(
                targets=[
                    _state(found[name], routes.get(name, ()), setup.providers.get(name[0]), now)
                    for name in names
                ]
            )


def _administrator(setup: Setup, context: CallContext) -> Caller:
    caller = setup.authenticator.authenticate(context)
    if not caller.admin:
        raise PermissionDenied(
            f"{caller.name or 'this caller'} is no administrator: the configuration does not say "
            "`admin: true` for it"
        )
    return caller


def _routes_by_target(router: Router) -> dict[tuple[str, str], list[str]]:
    """The public names that each target serves, sorted."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in sorted(router.routes):
        for target in router.routes[name].targets:
            found.setdefault((target.provider, target.model), []).append(name)
    return found


def _state(
    health: TargetHealth, routes: Iterable[str], provider: Provider | None, now: float
) -> route_service_pb2.TargetState:
    position, remaining = health.breaker(now)
    state = route_service_pb2.TargetState(
        provider=health.provider,
        model=health.model,
        routes=routes,
        breaker=int(position),  # type: ignore[arg-type]  # the same numbers
        opens_for=_if_any(remaining),
        ejected_for=_if_any(health.ejected_for(now)),
        cooling_for=_if_any(health.cooling_for(now)),
        in_flight=health.in_flight,
        limit=health.limit,
        queued=health.queued,
        first_token=_if_known(health.first_token(now)),
        total=_if_known(health.total(now)),
        error_rate=health.error_rate(now),
        window_calls=health.window_calls(now),
    )
    if provider is not None and provider.keyring is not None:
        state.benched_keys.extend(
            _benched(bench, now)
            for bench in provider.keyring.benches(now)
            if bench.model in ("", health.model)
        )
    return state


def _benched(bench: Bench, now: float) -> route_service_pb2.BenchedKey:
    return route_service_pb2.BenchedKey(
        name=bench.key.name, fault=bench.fault.name, remaining=_duration(bench.until - now)
    )


def _if_any(seconds: float) -> duration_pb2.Duration | None:
    return _duration(seconds) if seconds > 0 else None


def _if_known(seconds: float | None) -> duration_pb2.Duration | None:
    return None if seconds is None else _duration(seconds)


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def _unsettled(context: CallContext) -> Settling:
    """The care for errors that every call gets, without a settlement that any hook hears of."""
    return Settling(Settlement(context.request_id, "", streamed=False), ())
