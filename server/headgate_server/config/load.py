"""The configuration file to a `Config`: read it, apply options and variables, validate.

The way in for the command line. Must not decide what is valid (``model.py``, ``checks.py``).
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from headgate_server.config.checks import KindInfo
from headgate_server.config.environment import override
from headgate_server.config.model import Config
from headgate_server.config.problems import ConfigError, Problem
from headgate_server.config.source import MAX_FILE_BYTES, read_source
from headgate_server.config.validate import validate


def load_config(
    path: str | os.PathLike[str],
    *,
    kinds: Mapping[str, KindInfo],
    strategies: Collection[str],
    env: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
) -> Config:
    """Load a configuration file.

    Args:
        path: The file.
        kinds: Every known kind of provider; those that are not available are refused by name.
        strategies: The strategies that the router has.
        env: The environment; the process's own if None. Its HEADGATE_* win over the file.
        options: Options of the command line (`environment.OVERRIDES`), which win over both.

    Raises:
        ConfigError: With every problem that was found.
    """
    text = read_config(path)
    return parse_config(
        text, os.fspath(path), kinds=kinds, strategies=strategies, env=env, options=options
    )


def read_config(path: str | os.PathLike[str]) -> bytes:
    """Return what a configuration file says, unparsed. Raises `ConfigError`."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a usable file name"
        message = f"cannot read the configuration file: {reason}"
        raise ConfigError([Problem(os.fspath(path), None, None, "", message)]) from None


def parse_config(
    text: str | bytes,
    name: str,
    *,
    kinds: Mapping[str, KindInfo],
    strategies: Collection[str],
    env: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
) -> Config:
    """Load a configuration from text; ``name`` stands for the file in messages."""
    env = os.environ if env is None else env
    source = read_source(text, name, env)
    override(source, options or {}, env)
    return validate(source, kinds=kinds, strategies=strategies)
