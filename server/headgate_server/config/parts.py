"""What the checks between sections look at, and what they give back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headgate_server.config.model import Auth, Facade, Listen
from headgate_server.config.problems import Path
from headgate_server.config.resilience import Breaker, Cache
from headgate_server.config.routes import ModelRoute, RouteRule
from headgate_server.config.upstreams import Concurrency, Provider


@dataclass(frozen=True, slots=True)
class Parts:
    """The sections to compare; None stands for what is declared but broken in itself."""

    listen: Listen | None
    auth: Auth | None
    facade: Facade | None
    providers: Mapping[str, Provider | None] | None
    models: Mapping[str, ModelRoute | None] | None
    targets: Sequence[tuple[Path, str]]
    """Every provider that a target names, also in models that are broken otherwise."""
    references: Sequence[tuple[Path, str]]
    """Every model that a fallback or a rule names, likewise."""
    aliases: Sequence[tuple[Path, str]] = ()
    """Every alias, likewise."""
    rules: Sequence[RouteRule | None] = ()
    concurrency: Concurrency | None = None
    breaker: Breaker | None = None
    cache: Cache | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a path; the reporter puts what the file says there for ``{found}``."""

    path: Path
    message: str
