"""Configuration for commands: from a file, or from the environment when there is none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from headgate_server.config import (
    Config,
    apply_overrides,
    load_config,
    zero_config,
)
from headgate_server.providers import kinds
from headgate_server.providers.vendors import vendors
from headgate_server.routing import STRATEGIES


def configuration(path: Path | None, options: Mapping[str, object]) -> Config:
    """The configuration, options and HEADGATE_* variables applied. Raises `ConfigError`."""
    if path is not None:
        return load_config(path, kinds=kinds(), strategies=STRATEGIES, options=options)
    found = zero_config(os.environ, vendors(), local_available=local_available())
    return apply_overrides(found, options)


def facade_configuration(path: Path | None, options: Mapping[str, object]) -> Config:
    """The configuration of a facade alone; without a file, only defaults and overrides."""
    if path is not None:
        return load_config(path, kinds=kinds(), strategies=STRATEGIES, options=options)
    return apply_overrides(zero_config({}, {}, local_available=False), options)


def local_available() -> bool:
    """Whether the embedded model's engine is installed."""
    from importlib.util import find_spec

    return find_spec("xllamacpp") is not None
