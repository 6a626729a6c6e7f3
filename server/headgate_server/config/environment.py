"""What the environment says: a whole configuration without a file, and overrides of one with it.

Owns the names of the HEADGATE_* variables. Must not know any vendor: their table is passed in.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from headgate_server.config.model import Config
from headgate_server.config.problems import Path
from headgate_server.config.source import Mark, Source
from headgate_server.config.validate import validate

LOCAL_PROVIDER: Final = "local"
LOCAL_MODEL: Final = "smollm2-135m-instruct"


class VendorInfo(Protocol):
    """What zero configuration needs to know about a vendor."""

    @property
    def api_key_env(self) -> Sequence[str]:
        """The variables in which people keep its key, the most usual first."""
        ...

    @property
    def base_url(self) -> str | None:
        """Where it is; None if only the operator can know, so that a key alone is not enough."""
        ...


@dataclass(frozen=True, slots=True)
class Override:
    """A setting that an option or a variable can put in the place of the file's."""

    option: str
    variable: str
    path: Path

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return "--" + self.option.replace("_", "-")


OVERRIDES: Final = (
    Override("grpc", "HEADGATE_GRPC", ("listen", "grpc")),
    Override("rest", "HEADGATE_REST", ("listen", "rest")),
    Override("log_level", "HEADGATE_LOG_LEVEL", ("log", "level")),
    Override("insecure", "HEADGATE_INSECURE", ("auth", "insecure")),
)


def zero_config(
    env: Mapping[str, str], vendors: Mapping[str, VendorInfo], *, local_available: bool
) -> Config:
    """Return the configuration of a gateway that was started without a file.

    Every vendor whose usual variable is set becomes a provider named as its kind, and the embedded
    model joins them if it can run. No other model is listed: the router knows their natural homes.

    Args:
        env: The environment.
        vendors: The vendors, by kind.
        local_available: Whether the embedded model can run.

    Raises:
        ConfigError: When a variable holds something that cannot be a key.
    """
    source = Source("environment")
    providers: dict[str, object] = {}
    models: dict[str, object] = {}
    for kind, vendor in vendors.items():
        variable = next((name for name in vendor.api_key_env if env.get(name)), None)
        if variable is None or vendor.base_url is None:
            continue
        providers[kind] = {"kind": kind, "api_key": env[variable]}
        source.values[("providers", kind, "api_key")] = Mark(variable)
    if local_available:
        providers[LOCAL_PROVIDER] = {"kind": "local"}
        models[LOCAL_MODEL] = {"targets": [{"provider": LOCAL_PROVIDER}]}
    source.data = {"providers": providers, "models": models}
    return validate(source)


def apply_overrides(
    config: Config, options: Mapping[str, object], *, env: Mapping[str, str] | None = None
) -> Config:
    """Return a configuration with options and HEADGATE_* variables in place, validated anew.

    `load_config` does this by itself; this is for a configuration that came from elsewhere.

    Raises:
        ConfigError: Naming the option or the variable.
    """
    source = Source("configuration", data=config.model_dump(exclude_unset=True))
    override(source, options, os.environ if env is None else env)
    return validate(source)


def override(source: Source, options: Mapping[str, object], env: Mapping[str, str]) -> None:
    """Put options, or else variables, in the place of what a source says."""
    unknown = _unknown(options)
    if unknown:
        msg = f"not an option of the configuration: {', '.join(unknown)}"
        raise TypeError(msg)
    for setting in OVERRIDES:
        if (given := options.get(setting.option)) is not None:
            source.override(setting.path, given, setting.flag)
            if isinstance(given, str):
                source.written[setting.path] = given
        elif env.get(setting.variable):
            source.override(setting.path, env[setting.variable], setting.variable)


def _unknown(options: Mapping[str, object]) -> Iterable[str]:
    return sorted(set(options) - {setting.option for setting in OVERRIDES})
