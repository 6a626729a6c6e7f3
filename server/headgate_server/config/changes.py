"""What a running gateway makes of a new configuration: what it follows, what waits for a restart.

Pure comparison of two configurations. Whatever was decided at the start of the process (its listeners,
its front door, its embedded models) is compared with that start, never with what came between, so that a
gateway that saw every change and one that saw only the last agree. Must not show a value: only names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from headgate_server.config.checks import Finding, Parts, check
from headgate_server.config.model import Config
from headgate_server.config.problems import ConfigError, Path, Problem, listing, path_text

Point = Callable[[Path, str], Problem]
"""Writes a problem with the setting at a path, with its place in the file if it has one."""

_AT_A_RESTART = "takes effect at a restart; until then the old value stays"


def nowhere(path: Path, message: str) -> Problem:
    """The `Point` of a configuration that came out of no file."""
    return Problem("", None, None, path_text(path), message)


class Followed(NamedTuple):
    """A new configuration, as far as a running gateway can follow it.

    Attributes:
        config: with the old values of what needs a restart.
        waiting: what those are.
    """

    config: Config
    waiting: list[Problem]


def follow(started: Config, new: Config, point: Point = nowhere) -> Followed:
    """What becomes of a valid new configuration.

    Args:
        started: what the process began with.
        new: valid by itself.
        point: see `Point`.

    Raises:
        ConfigError: it cannot be used before a restart.
    """
    waiting: list[Path] = []
    refused: list[Finding] = []
    update: dict[str, object] = {}
    for section in ("listen", "facade"):
        if getattr(new, section) != getattr(started, section):
            update[section] = getattr(started, section)
            waiting.append((section,))
    if new.limits.message_bytes != started.limits.message_bytes:
        kept = {"message_bytes": started.limits.message_bytes}
        update["limits"] = new.limits.model_copy(update=kept)
        waiting.append(("limits", "message_bytes"))
    providers = dict(new.providers)
    for name, settings in new.providers.items():
        before = started.providers.get(name)
        if settings.kind != "local" or settings == before:
            continue
        if before is not None and before.kind == "local":
            providers[name] = before
            waiting.append(("providers", name))
        else:
            message = "a local model cannot be added while the gateway runs; restart it"
            refused.append(Finding(("providers", name), message))
    config = new.model_copy(update={**update, "providers": providers})
    if config.listen != new.listen:
        refused.extend(_unguarded(config))
    if refused:
        raise ConfigError([point(found.path, found.message) for found in refused])
    return Followed(config, [point(path, _AT_A_RESTART) for path in waiting])


def _unguarded(config: Config) -> list[Finding]:
    """What is wrong between the new `auth` and the listeners that stay, which nobody has checked."""
    parts = Parts(config.listen, config.auth, None, None, None, (), ())
    shown: dict[Path, str] = {
        ("listen", "grpc"): config.listen.grpc,
        ("listen", "rest"): config.listen.rest,
    }
    return [
        Finding(
            found.path,
            found.message.replace("{found}", shown.get(found.path, "this address"), 1)
            + " (listen changes only at a restart, so this is about the old value)",
        )
        for found in check(parts, None, None)
    ]


def changes(old: Config, new: Config) -> str:
    """What differs, for people: ``providers: b added; models: fast changed; retries``."""
    said: list[str] = []
    for section in Config.model_fields:
        before, after = getattr(old, section), getattr(new, section)
        if before == after:
            continue
        if isinstance(before, Mapping):
            said.append(f"{section}: {_entries(before, after)}")
        else:
            said.append(section)
    return "; ".join(said) or "nothing is different"


def _entries(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    groups = {
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "changed": [name for name in after if name in before and after[name] != before[name]],
    }
    return ", ".join(f"{listing(names, 10)} {what}" for what, names in groups.items() if names)
