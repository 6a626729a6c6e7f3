"""Configuration for commands: from a file, or from the environment when there is none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from headgate_server.config import (
    Config,
    Problem,
    apply_overrides,
    load_config,
    parse_config,
    zero_config,
)
from headgate_server.config.problems import Path as Place
from headgate_server.config.source import read_source
from headgate_server.providers import kinds
from headgate_server.providers.vendors import vendors
from headgate_server.routing import STRATEGIES


def configuration(
    path: Path | None, options: Mapping[str, object], text: bytes | None = None
) -> Config:
    """The configuration, options and HEADGATE_* variables applied. Raises `ConfigError`.

    Args:
        path: the file; None means the environment.
        options: of the command line.
        text: what the file says, if it was read already.
    """
    if path is not None and text is not None:
        name = os.fspath(path)
        return parse_config(text, name, kinds=kinds(), strategies=STRATEGIES, options=options)
    if path is not None:
        return load_config(path, kinds=kinds(), strategies=STRATEGIES, options=options)
    found = zero_config(os.environ, vendors(), local_available=local_available())
    return apply_overrides(found, options)


def facade_configuration(path: Path | None, options: Mapping[str, object]) -> Config:
    """The configuration of a facade alone; without a file, only defaults and overrides."""
    if path is not None:
        return load_config(path, kinds=kinds(), strategies=STRATEGIES, options=options)
    return apply_overrides(zero_config({}, {}, local_available=False), options)


def problem_in(path: Path, text: bytes, place: Place, message: str) -> Problem:
    """A problem with what stands at a place of a file that could be read."""
    return read_source(text, os.fspath(path), os.environ).problem(place, message)


def local_available() -> bool:
    """Whether the embedded model's engine is installed."""
    from importlib.util import find_spec

    return find_spec("xllamacpp") is not None
