"""The configuration: YAML or the environment in, one validated and frozen `Config` out.

``source`` reads YAML, ``model`` says what can be written, ``checks`` compares the parts, ``load``
and ``environment`` are the ways in. Must not start, open or connect anything.
"""

from headgate_server.config.checks import KindInfo
from headgate_server.config.environment import (
    LOCAL_MODEL,
    LOCAL_PROVIDER,
    OVERRIDES,
    VendorInfo,
    apply_overrides,
    zero_config,
)
from headgate_server.config.load import load_config, parse_config
from headgate_server.config.model import (
    Auth,
    Catalog,
    ClientRule,
    ClientTls,
    Config,
    Cors,
    Facade,
    Limits,
    Listen,
    LocalOptions,
    Log,
    ModelRoute,
    Price,
    Provider,
    StaticKey,
    Target,
    TimeoutOverrides,
    Timeouts,
    Tls,
)
from headgate_server.config.problems import ConfigError, Problem
from headgate_server.config.values import Address, TcpAddress, UnixAddress, parse_address

__all__ = [
    "LOCAL_MODEL",
    "LOCAL_PROVIDER",
    "OVERRIDES",
    "Address",
    "Auth",
    "Catalog",
    "ClientRule",
    "ClientTls",
    "Config",
    "ConfigError",
    "Cors",
    "Facade",
    "KindInfo",
    "Limits",
    "Listen",
    "LocalOptions",
    "Log",
    "ModelRoute",
    "Price",
    "Problem",
    "Provider",
    "StaticKey",
    "Target",
    "TcpAddress",
    "TimeoutOverrides",
    "Timeouts",
    "Tls",
    "UnixAddress",
    "VendorInfo",
    "apply_overrides",
    "load_config",
    "parse_address",
    "parse_config",
    "zero_config",
]
