"""Which targets serve a model, and in which order. Pure but for the dice of `weighted`.

Owns the mapping from public names to targets. It asks nobody and remembers nothing: the core tries the
targets in the order given here.
"""

from __future__ import annotations

import fnmatch
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headgate.errors import ModelNotFound
from headgate_server.config import Config, ModelRoute
from headgate_server.providers.base import Target
from headgate_server.providers.runtime import Provider
from headgate_server.providers.vendors import family_of

# What the configuration may name today; the rest of the contract is refused when it is loaded.
STRATEGIES = ("priority", "weighted")
_WILDCARDS = re.compile(r"\[[^]]*\]|[*?]")  # of a glob


@dataclass(frozen=True, slots=True)
class Route:
    """A public model.

    Attributes:
        name: the public name.
        targets: in the order of the configuration.
        weights: of the targets; None means that the order is the priority.
        fallbacks: public names to try behind the targets.
        settings: the configuration behind it; None for a target addressed directly.
    """

    name: str
    targets: Sequence[Target]
    weights: Sequence[float] | None = None
    fallbacks: Sequence[str] = ()
    settings: ModelRoute | None = None


class Router:
    """Looks models up. Immutable; a new configuration gets a new router.

    Args:
        config: the models.
        providers: the providers, by name.
        natural_homes: whether a bare name such as ``gpt-5.4`` finds the configured vendor that it
            comes from; of several, the one that says it most exactly. So it is without a configuration
            file; a file lists its models itself.
        dice: returns a number from 0 to 1.
    """

    def __init__(
        self,
        config: Config,
        providers: Mapping[str, Provider],
        *,
        natural_homes: bool = False,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._providers = providers
        self._homes = _homes(providers) if natural_homes else []
        self._dice = dice
        self.routes = {
            name: self._configured(name, settings) for name, settings in config.models.items()
        }

    def route(self, model: str) -> Route:
        """The route of a public name, or of ``provider/model``. Raises `ModelNotFound`."""
        route = self.routes.get(model)
        if route is not None:
            return route
        provider_name, slash, upstream_name = model.partition("/")
        provider = self._providers.get(provider_name)
        if slash and upstream_name and provider is not None:
            return Route(model, [_target(provider, upstream_name)])
        for glob, home in self._homes:
            if fnmatch.fnmatchcase(model.lower(), glob):
                return Route(model, [_target(home, model)])
        raise not_found(model)

    def candidates(self, route: Route) -> list[Target]:
        """The targets of a route and of its fallbacks, in the order to try them."""
        found: dict[tuple[str, str], Target] = {}
        for tried in (route, *map(self.route, route.fallbacks)):
            for target in self._ordered(tried):
                # A target that was tried has nothing new to say.
                found.setdefault((target.provider, target.model), target)
        return list(found.values())

    def _ordered(self, route: Route) -> Sequence[Target]:
        if route.weights is None or len(route.targets) == 1:
            return route.targets
        # Weighted sampling without replacement (Efraimidis and Spirakis): the largest of
        # dice^(1/weight) comes first with a probability in proportion to its weight.
        keys = [
            (self._dice() ** (1 / weight) if weight > 0 else -1.0, target)
            for weight, target in zip(route.weights, route.targets, strict=True)
        ]
        keys.sort(key=lambda key: key[0], reverse=True)
        return [target for _, target in keys]

    def _configured(self, name: str, settings: ModelRoute) -> Route:
        targets = [
            _target(self._providers[entry.provider], entry.model or name, settings)
            for entry in settings.targets
        ]
        weighted = settings.strategy == "weighted"
        return Route(
            name,
            targets,
            [entry.weight for entry in settings.targets] if weighted else None,
            settings.fallbacks,
            settings,
        )


def _homes(providers: Mapping[str, Provider]) -> list[tuple[str, Provider]]:
    """The globs of model names and whose they are, those that say most first.

    ``o3-pro*`` says more than ``o3*``: what counts are the characters that stand for themselves. Between
    equals the order of the providers decides.
    """
    homes = [(glob, provider) for provider in providers.values() for glob in provider.vendor.models]
    return sorted(homes, key=lambda home: -len(_WILDCARDS.sub("", home[0])))


def not_found(model: str) -> ModelNotFound:
    """One wording for unknown and for forbidden models, so that nobody can tell them apart."""
    return ModelNotFound(
        f"the model {model[:256]!r} does not exist or this key may not use it; "
        "GET /v1/models (ListModels) tells which there are"
    )


def _target(provider: Provider, model: str, settings: ModelRoute | None = None) -> Target:
    return Target(
        provider=provider.name,
        kind=provider.kind,
        model=model,
        vendor=provider.vendor,
        family=family_of(model),
        policy=settings.unsupported if settings is not None else "drop",
        api_version=provider.api_version,
    )
