"""What must hold within and between models and the rules in front of them.

Must not know what strategies do: which there are is passed in.
"""

import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import get_args

from headgate_server.config.fields import Strategy
from headgate_server.config.parts import Finding, Parts
from headgate_server.config.problems import Path, did_you_mean, listing, path_text
from headgate_server.config.routes import Affinity, ModelRoute, RouteRule
from headgate_server.config.upstreams import Concurrency
from headgate_server.globs import is_glob

CHAINS = ("fallbacks", "on_context_window", "on_content_policy")
_OF_AFFINITY = {"header": "session", "prefix": "prompt"}


def check_routes(parts: Parts, strategies: Collection[str] | None) -> Iterator[Finding]:
    """Find everything that is wrong with models and rules, and with what they name."""
    for name, route in (parts.models or {}).items():
        if route is not None:
            yield from _route(name, route, strategies)
    yield from _rules(parts.rules)
    yield from _targets(parts)
    if parts.models is not None:
        yield from _aliases(parts.aliases, parts.models)
        yield from _references(parts, parts.models)


def check_concurrency(at: Path, settings: Concurrency | None) -> Iterator[Finding]:
    """Find limits that leave nothing between them."""
    if settings is None:
        return
    if settings.min > settings.max:
        yield Finding((*at, "min"), "must not be above max; found {found}")
        return
    limit = settings.limit
    if settings.adaptive and limit is not None and not settings.min <= limit <= settings.max:
        yield Finding(
            (*at, "limit"),
            "expected a number from min to max, since adaptive begins with it; found {found}",
        )


def _route(name: str, route: ModelRoute, strategies: Collection[str] | None) -> Iterator[Finding]:
    at: Path = ("models", name)
    if strategies is not None and route.strategy not in strategies:
        usable = [s for s in get_args(Strategy) if s in strategies]
        message = (
            "the strategy {found} is planned but not available in this version; "
            f"available: {listing(usable)}"
        )
        yield Finding((*at, "strategy"), message)
    if route.targets and not any(target.weight > 0 for target in route.targets):
        yield Finding((*at, "targets"), "every weight is 0; at least one must be above 0")
    for index, target in enumerate(route.targets):
        if target.model is not None and target.model.count("*") > name.count("*"):
            yield Finding(
                (*at, "targets", index, "model"),
                "{found} has more * than the public name, which tells what to put there; write the "
                "upstream's name in full",
            )
        yield from check_concurrency((*at, "targets", index, "concurrency"), target.concurrency)
    if is_glob(name) and route.aliases:
        yield Finding(
            (*at, "aliases"),
            "a name with wildcards stands for many models, of which an alias cannot tell which is "
            "meant; give the alias as a model of its own",
        )
    yield from _affinity(at, route)
    yield from _hedge(at, route)
    for chain in CHAINS:
        names: Sequence[str] = getattr(route, chain)
        for index, other in enumerate(names):
            if other == name or other in route.aliases:
                yield Finding((*at, chain, index), "a model cannot fall back to itself; remove it")
            elif other in names[:index]:
                yield Finding((*at, chain, index), "this fallback is listed twice; remove one")


def _affinity(at: Path, route: ModelRoute) -> Iterator[Finding]:
    settings: Affinity | None = route.affinity
    if settings is None:
        return
    if route.strategy != "affinity":
        yield Finding(
            (*at, "affinity"),
            f"affinity has no effect with the strategy {route.strategy}; set strategy: affinity, or "
            "remove it",
        )
    for setting, by in _OF_AFFINITY.items():
        if setting in settings.model_fields_set and settings.by != by:
            yield Finding(
                (*at, "affinity", setting),
                f"{setting} has no effect with by: {settings.by}; set by: {by}, or remove it",
            )


def _hedge(at: Path, route: ModelRoute) -> Iterator[Finding]:
    if route.hedge is None or route.timeouts is None:
        return
    for limit in ("first_token", "total"):
        seconds = getattr(route.timeouts, limit)
        if seconds is not None and route.hedge.after >= seconds:
            yield Finding(
                (*at, "hedge", "after"),
                f"{{found}} is not shorter than the model's timeouts.{limit}, so that no hedge would "
                "ever begin; make it shorter",
            )
            return


def _rules(rules: Sequence[RouteRule | None]) -> Iterator[Finding]:
    names: dict[str, int] = {}
    for index, rule in enumerate(rules):
        if rule is None:
            continue
        at: Path = ("routes", index)
        if rule.use is None and rule.shadow is None:
            yield Finding(at, "a rule needs use or shadow: the public model that gets the requests")
        name = rule.name or f"rule-{index + 1}"
        if (first := names.setdefault(name, index)) != index:
            yield Finding(
                (*at, "name"),
                f"the same name as routes[{first}]; give each its own, since shares go by it",
            )
        tokens = rule.when.tokens
        if tokens is not None and tokens.max is not None and (tokens.min or 0) > tokens.max:
            yield Finding((*at, "when", "tokens", "min"), "must not be above max; found {found}")
        for condition in ("model", "tenant", "modality"):
            if getattr(rule.when, condition) == ():
                yield Finding(
                    (*at, "when", condition),
                    "an empty list matches nothing; remove it, or name something",
                )


def _targets(parts: Parts) -> Iterator[Finding]:
    if parts.providers is None:
        return
    for path, name in parts.targets:
        if name not in parts.providers:
            yield Finding(path, f"no provider {{found}}{_instead(name, parts.providers)}")


def _aliases(
    aliases: Sequence[tuple[Path, str]], models: Mapping[str, object]
) -> Iterator[Finding]:
    known: dict[str, Path] = {}
    for path, alias in aliases:
        owner = path[1]
        if alias in models:
            whose = "the model's own name" if alias == owner else "the name of another model"
            yield Finding(path, f"{{found}} is {whose}; remove it")
        elif (first := known.setdefault(alias, path)) != path:
            yield Finding(path, f"{{found}} stands at {path_text(first)}, too; remove one")


def _references(parts: Parts, models: Mapping[str, object]) -> Iterator[Finding]:
    aliases = [alias for _, alias in parts.aliases]
    globs = [name for name in (*models, *aliases) if is_glob(name)]
    for path, name in parts.references:
        if name in models or name in aliases:
            if "*" in name:
                yield Finding(path, "{found} stands for many models; name one of them")
            continue
        provider, slash, model = name.partition("/")
        if slash and model and (parts.providers is None or provider in parts.providers):
            continue
        if not any(fnmatch.fnmatchcase(name, glob) for glob in globs):
            yield Finding(path, f"no model {{found}}{_instead(name, models)}")


def _instead(name: str, declared: Collection[str]) -> str:
    known = sorted(declared)
    hint = did_you_mean(name, known)
    return f"{hint and ';'}{hint} (declared: {listing(known)})"
