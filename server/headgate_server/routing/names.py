"""From the name that a caller gives to a route.

In this order: a configured name, an alias, ``provider/model``, globs (names and aliases, those that say
most first), and the natural homes of well-known names.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from headgate.errors import ModelNotFound
from headgate_server.config import Config, ModelRoute
from headgate_server.globs import Glob, is_glob, literal_length
from headgate_server.providers.runtime import Provider
from headgate_server.routing.routes import Maker, Route

# Routes that are made when somebody asks for them are kept: so many, of names as long as public names
# may be. Callers choose these names, and must not be able to fill the memory with them.
_MOST_KEPT, _LONGEST_KEPT = 1024, 256


class _Pattern(NamedTuple):
    """A glob of the configuration, and the model that it is the name or an alias of."""

    glob: Glob
    name: str
    settings: ModelRoute


class Names:
    """Looks names up. Immutable.

    Args:
        config: the models.
        providers: by name.
        maker: makes the routes.
        natural_homes: see `Router`.

    Attributes:
        routes: the configured models, by name; those whose name is a glob are not among them.
    """

    def __init__(
        self,
        config: Config,
        providers: Mapping[str, Provider],
        maker: Maker,
        *,
        natural_homes: bool = False,
    ) -> None:
        self._providers = providers
        self._maker = maker
        self._homes = _homes(providers) if natural_homes else []
        models = config.models.items()
        self.routes = {
            name: maker.configured(name, settings) for name, settings in models if not is_glob(name)
        }
        self._aliases = {
            alias: route
            for name, route in self.routes.items()
            for alias in config.models[name].aliases
        }
        # `sonnet[1m]` looks like a glob, and is somebody's name for a model all the same.
        self._literal = {name: settings for name, settings in models if is_glob(name)}
        names = [_Pattern(Glob(name), name, each) for name, each in models if is_glob(name)]
        aliases = [
            _Pattern(Glob(alias), name, config.models[name])
            for name in self.routes
            for alias in config.models[name].aliases
            if is_glob(alias)
        ]
        self._patterns = sorted(
            (*names, *aliases), key=lambda each: -literal_length(each.glob.text)
        )
        self._kept: Callable[[str], Route] = functools.lru_cache(_MOST_KEPT)(self._made)

    def route(self, model: str) -> Route:
        """The route of a name. Raises `ModelNotFound`."""
        route = self.routes.get(model) or self._aliases.get(model)
        if route is not None:
            return route
        return self._kept(model) if len(model) <= _LONGEST_KEPT else self._made(model)

    def _made(self, model: str) -> Route:
        literal = self._literal.get(model)
        if literal is not None:
            return self._maker.configured(model, literal)
        provider_name, slash, upstream_name = model.partition("/")
        provider = self._providers.get(provider_name)
        if slash and upstream_name and provider is not None:
            return self._maker.direct(model, provider, upstream_name)
        for glob, name, settings in self._patterns:
            stars = glob.match(model)
            if stars is not None:
                known = self.routes.get(name)
                return known or self._maker.configured(model, settings, stars)
        for written, home in self._homes:
            if fnmatch.fnmatchcase(model.lower(), written):
                return self._maker.direct(model, home, model)
        raise not_found(model)


def _homes(providers: Mapping[str, Provider]) -> list[tuple[str, Provider]]:
    """The globs of model names and whose they are, those that say most first.

    Between equals the order of the providers decides.
    """
    homes = [(glob, provider) for provider in providers.values() for glob in provider.vendor.models]
    return sorted(homes, key=lambda home: -literal_length(home[0]))


def not_found(model: str) -> ModelNotFound:
    """One wording for unknown and for forbidden models, so that nobody can tell them apart."""
    return ModelNotFound(
        f"the model {model[:256]!r} does not exist or this key may not use it; "
        "GET /v1/models (ListModels) tells which there are"
    )
