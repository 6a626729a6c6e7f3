"""A configured provider at work: its dialect, its address, its connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headgate_server.providers.base import Dialect, Endpoint
from headgate_server.providers.vendors import Vendor
from headgate_server.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Provider:
    """One entry of the section `providers`.

    Attributes:
        name: in the configuration.
        kind: its kind there.
        vendor: facts of that kind.
        dialect: its wire format.
        upstream: its connections.
        endpoint: where it is now; raises `Overloaded` while it is nowhere (a model that loads).
        always_stream: whole answers are asked for as streams, too, and folded; for servers that
            notice only on a stream that the caller has gone.
        secrets: texts that must not reach a caller, whatever the upstream quotes.
    """

    name: str
    kind: str
    vendor: Vendor
    dialect: Dialect
    upstream: Upstream
    endpoint: Callable[[], Endpoint]
    always_stream: bool = False
    api_version: str | None = None
    secrets: tuple[str, ...] = ()
