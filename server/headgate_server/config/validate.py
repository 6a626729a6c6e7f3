"""One source to one `Config`, or to every problem it has.

Owns the order: YAML's problems, then each field by itself, then what must hold between fields. Must
not read files or the environment.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

from pydantic import ValidationError

from headgate_server.config.checks import KindInfo, check
from headgate_server.config.explain import explain, quoted
from headgate_server.config.model import Auth, Config, Facade, Listen
from headgate_server.config.parts import Finding, Parts
from headgate_server.config.problems import ConfigError, Path
from headgate_server.config.resilience import Breaker, Cache
from headgate_server.config.route_checks import CHAINS
from headgate_server.config.routes import ModelRoute, RouteRule
from headgate_server.config.section import Section
from headgate_server.config.source import Source
from headgate_server.config.upstreams import Concurrency, Provider

_S = TypeVar("_S", bound=Section)


def validate(
    source: Source,
    *,
    kinds: Mapping[str, KindInfo] | None = None,
    strategies: Collection[str] | None = None,
) -> Config:
    """Return the configuration that a source describes.

    Args:
        source: Plain data with positions.
        kinds: The kinds of provider that exist; None leaves kinds unchecked.
        strategies: The strategies that the router has; None leaves them unchecked.

    Raises:
        ConfigError: With every problem of the source.
    """
    problems = [problem for _, problem in source.problems]
    known = {path for path, _ in source.problems}
    config = None
    try:
        config = Config.model_validate(source.data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problem = explain(detail, source)
            known.add(detail["loc"])
            if problem is not None:
                problems.append(problem)
    for finding in check(_parts(source, config, known), kinds, strategies):
        if finding.path not in known:
            problems.append(source.problem(finding.path, _text(finding, source)))
    if config is None or problems:
        # Not chained: pydantic's own error would print the values.
        raise ConfigError(problems) from None
    return config


def _text(finding: Finding, source: Source) -> str:
    if finding.path in source.emptied:
        variable = source.emptied[finding.path]
        return f"{finding.message} (it comes out empty: {variable} is empty or not set)"
    shown = quoted(finding.path, source) or "this value"
    return finding.message.replace("{found}", shown, 1)


def _parts(source: Source, config: Config | None, known: Collection[Path]) -> Parts:
    """Return the sections that are valid by themselves, whatever is wrong with the others."""
    targets, references, aliases = _references(source.data)
    if config is not None and not known:
        return Parts(
            config.listen,
            config.auth,
            config.facade,
            config.providers,
            config.models,
            targets,
            references,
            aliases,
            config.routes,
            config.concurrency,
            config.breaker,
            config.cache,
        )
    data = source.data

    def section(kind: type[_S], value: object, path: Path) -> _S | None:
        if any(other[: len(path)] == path for other in known):
            return None
        try:
            return kind.model_validate(value)
        except ValidationError:
            return None

    def named(kind: type[_S], key: str) -> Mapping[str, _S | None] | None:
        entries = data.get(key)
        if entries is None:
            return {}
        if not isinstance(entries, Mapping):
            return None
        return {name: section(kind, value, (key, name)) for name, value in entries.items()}

    def single(kind: type[_S], key: str) -> _S | None:
        value = data.get(key)
        return section(kind, {} if value is None else value, (key,))

    return Parts(
        single(Listen, "listen"),
        single(Auth, "auth"),
        single(Facade, "facade"),
        named(Provider, "providers"),
        named(ModelRoute, "models"),
        targets,
        references,
        aliases,
        [section(RouteRule, rule, ("routes", index)) for index, rule in _items(data.get("routes"))],
        single(Concurrency, "concurrency"),
        single(Breaker, "breaker"),
        single(Cache, "cache"),
    )


_References = list[tuple[Path, str]]


def _references(
    data: Mapping[str, object],
) -> tuple[_References, _References, _References]:
    """Return the providers of targets, the models of fallbacks and rules, and the aliases.

    All with their paths, from data that may be of any shape.
    """
    targets: _References = []
    references: _References = []
    aliases: _References = []
    models = data.get("models")
    for name, route in models.items() if isinstance(models, Mapping) else ():
        entry = route if isinstance(route, Mapping) else {}
        for index, target in _items(entry.get("targets")):
            provider = target.get("provider") if isinstance(target, Mapping) else None
            if isinstance(provider, str):
                targets.append((("models", name, "targets", index, "provider"), provider))
        for key, found in (("aliases", aliases), *((chain, references) for chain in CHAINS)):
            for index, other in _items(entry.get(key)):
                if isinstance(other, str):
                    found.append((("models", name, key, index), other))
    for index, rule in _items(data.get("routes")):
        for key in ("use", "shadow"):
            other = rule.get(key) if isinstance(rule, Mapping) else None
            if isinstance(other, str):
                references.append((("routes", index, key), other))
    return targets, references, aliases


def _items(value: object) -> Iterator[tuple[int, object]]:
    yield from enumerate(value) if isinstance(value, list | tuple) else ()
