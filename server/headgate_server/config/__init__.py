"""The configuration: YAML or the environment in, one validated and frozen `Config` out.

``source`` reads YAML, ``model`` says what can be written (with ``upstreams``, ``routes`` and
``resilience``), ``checks`` compares the parts, ``load``
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
    ClientRule,
    Config,
    Cors,
    Facade,
    Limits,
    Listen,
    Log,
    StaticKey,
    Tls,
)
from headgate_server.config.problems import ConfigError, Problem
from headgate_server.config.resilience import (
    Breaker,
    Cache,
    Idempotency,
    Keys,
    Outliers,
    Retries,
    Shadows,
)
from headgate_server.config.routes import (
    Affinity,
    Catalog,
    Hedge,
    ModelRoute,
    Price,
    RouteRule,
    Target,
    When,
)
from headgate_server.config.upstreams import (
    ClientTls,
    Concurrency,
    LocalOptions,
    Provider,
    ProviderKey,
    TimeoutOverrides,
    Timeouts,
)
from headgate_server.config.values import Address, TcpAddress, UnixAddress, parse_address

__all__ = [
    "LOCAL_MODEL",
    "LOCAL_PROVIDER",
    "OVERRIDES",
    "Address",
    "Affinity",
    "Auth",
    "Breaker",
    "Cache",
    "Catalog",
    "ClientRule",
    "ClientTls",
    "Concurrency",
    "Config",
    "ConfigError",
    "Cors",
    "Facade",
    "Hedge",
    "Idempotency",
    "Keys",
    "KindInfo",
    "Limits",
    "Listen",
    "LocalOptions",
    "Log",
    "ModelRoute",
    "Outliers",
    "Price",
    "Problem",
    "Provider",
    "ProviderKey",
    "Retries",
    "RouteRule",
    "Shadows",
    "StaticKey",
    "Target",
    "TcpAddress",
    "TimeoutOverrides",
    "Timeouts",
    "Tls",
    "UnixAddress",
    "VendorInfo",
    "When",
    "apply_overrides",
    "load_config",
    "parse_address",
    "parse_config",
    "zero_config",
]
