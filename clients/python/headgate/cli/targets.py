"""`targets`: how every target of a running gateway is, once or again and again.

Speaks gRPC through the public client only.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from google.protobuf import duration_pb2
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headgate.admin.v1 import route_service_pb2
from headgate.cli import models
from headgate.cli.models import clean
from headgate.core import CallContext
from headgate.errors import GatewayError
from headgate.plain import plain

if TYPE_CHECKING:
    from headgate.client import Client, Tls

State = route_service_pb2.TargetState

_SECONDS = 15.0
_WATCH_SECONDS = 1.0
_BREAKERS = {
    State.BREAKER_CLOSED: ("closed", "green"),
    State.BREAKER_OPEN: ("open", "red"),
    State.BREAKER_HALF_OPEN: ("half open", "yellow"),
}
_HEADERS = (
    *("TARGET", "MODELS", "BREAKER", "IN FLIGHT", "QUEUED", "FIRST TOKEN", "TOTAL"),
    *("ERRORS", "RESTS"),
)


def run(
    route: str | None,
    target: str,
    key: str | None,
    tls: Tls | None,
    *,
    as_json: bool,
    watch: bool,
) -> None:
    """Prints the states: a table for people, JSON for programs; one line of it each time to watch."""
    target = models.address(target)
    asked = route_service_pb2.ListTargetsRequest(route=route or "")
    try:
        asyncio.run(_run(asked, target, key, tls, as_json=as_json, watch=watch))
    except GatewayError as error:
        sys.exit(f"error: {models.explain(error, target)}")
    except KeyboardInterrupt:
        # The usual end of watching.
        sys.exit(0 if watch else 130)
    except BrokenPipeError:  # whoever read it has seen enough
        sys.stderr.close()
        sys.exit(0)


async def _run(
    asked: route_service_pb2.ListTargetsRequest,
    target: str,
    key: str | None,
    tls: Tls | None,
    *,
    as_json: bool,
    watch: bool,
) -> None:
    async with models.connect(target, key, tls) as client:
        found = await _ask(client, asked)
        if not watch:
            _print(found, as_json=as_json)
        elif as_json or not sys.stdout.isatty():
            while True:
                _print(found, as_json=as_json, indent=None)
                await asyncio.sleep(_WATCH_SECONDS)
                found = await _ask(client, asked)
        else:
            with Live(_table(found), auto_refresh=False) as live:
                while True:
                    await asyncio.sleep(_WATCH_SECONDS)
                    live.update(_table(await _ask(client, asked)), refresh=True)


async def _ask(client: Client, asked: route_service_pb2.ListTargetsRequest) -> Sequence[State]:
    return (await client.list_targets(asked, CallContext.with_timeout(_SECONDS))).targets


def _print(found: Sequence[State], *, as_json: bool, indent: int | None = 2) -> None:
    if as_json:
        print(json.dumps([plain(state) for state in found], indent=indent), flush=True)  # noqa: T201
    elif sys.stdout.isatty():
        Console().print(_table(found))
    else:
        for state in found:
            print("\t".join(cell.plain for cell in _row(state)), flush=True)  # noqa: T201


def _table(found: Sequence[State]) -> Table | Text:
    if not found:
        return Text("The gateway has no targets yet.")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in _HEADERS:
        table.add_column(header, overflow="fold")
    for state in found:
        table.add_row(*_row(state))
    return table


def _row(state: State) -> tuple[Text, ...]:
    breaker, colour = _BREAKERS.get(state.breaker, ("?", ""))
    if state.HasField("opens_for"):
        breaker += f", {_shown(state.opens_for)}"
    limit = f"/{state.limit}" if state.HasField("limit") else ""
    errors = f"{state.error_rate:.0%} of {state.window_calls}" if state.window_calls else "-"
    return (
        Text(clean(f"{state.provider}/{state.model}")),
        Text(clean(",".join(state.routes)) or "-"),
        Text(breaker, colour),
        Text(f"{state.in_flight}{limit}"),
        Text(str(state.queued)),
        Text(_shown(state.first_token) if state.HasField("first_token") else "-"),
        Text(_shown(state.total) if state.HasField("total") else "-"),
        Text(errors),
        Text(clean("; ".join(_rests(state))) or "-"),
    )


def _rests(state: State) -> list[str]:
    """What of it is not used for now, and for how long."""
    found = []
    if state.HasField("ejected_for"):
        found.append(f"ejected {_shown(state.ejected_for)}")
    if state.HasField("cooling_for"):
        found.append(f"cooling {_shown(state.cooling_for)}")
    for key in state.benched_keys:
        found.append(f"key {key.name} {key.fault} {_shown(key.remaining)}")
    return found


def _shown(duration: duration_pb2.Duration) -> str:
    seconds = duration.ToMicroseconds() / 1e6
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
