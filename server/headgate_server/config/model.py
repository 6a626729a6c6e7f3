"""The shape of the configuration: what can be written, its defaults, and what each setting means.

Owns the fields; their descriptions are published as JSON Schema and as documentation. Must not read
files or the environment, and must not compare one section with another (``checks.py`` does).
"""

from collections.abc import Mapping

from pydantic import Field

from headgate_server.config.fields import (
    AuthMode,
    ByteCount,
    Level,
    ListenAddress,
    LogFormat,
    Origin,
    ProviderName,
    PublicName,
    Seconds,
    SecondsOrZero,
    Secret,
    Text,
)
from headgate_server.config.resilience import (
    Breaker,
    Cache,
    Idempotency,
    Keys,
    Outliers,
    Retries,
    Shadows,
)
from headgate_server.config.routes import ModelRoute, RouteRule
from headgate_server.config.section import Section
from headgate_server.config.upstreams import Concurrency, Provider, Timeouts


class Tls(Section):
    """The certificate that the listeners show, and the authority that client certificates need."""

    cert_file: Text = Field(description="PEM file with the server's certificate chain.")
    key_file: Text = Field(description="PEM file with the private key of that certificate.")
    client_ca_file: Text | None = Field(
        default=None,
        description="PEM file with the authorities that sign client certificates; with it, "
        "clients must show a certificate.",
    )


class Listen(Section):
    """Where the gateway listens: HOST:PORT, [IPV6]:PORT or unix:/path; port 0 is any free one."""

    grpc: ListenAddress = Field(
        default="127.0.0.1:50051",
        description="Address of the gRPC API: HOST:PORT, [IPV6]:PORT or unix:/path.",
    )
    rest: ListenAddress = Field(
        default="127.0.0.1:8080",
        description="Address of the REST API: HOST:PORT, [IPV6]:PORT or unix:/path.",
    )
    tls: Tls | None = Field(default=None, description="TLS for both listeners; plain text if null.")


class StaticKey(Section):
    """One API key that is written in the configuration."""

    name: Text = Field(description="Name of the key's holder, as it appears in logs and usage.")
    key: Secret = Field(description="The secret, at least 8 characters; best as ${VARIABLE}.")
    models: tuple[Text, ...] = Field(
        default=("*",),
        description='Public model names that the key may use, as globs; "*" is every model.',
    )
    tenant: Text | None = Field(
        default=None,
        description="Whom the holder belongs to: tenants share no cache entry, and routing rules may "
        "ask for one; the key's name if null.",
    )
    admin: bool = Field(
        default=False, description="Whether the key may use the administration API."
    )


class ClientRule(Section):
    """Which models the holder of a client certificate may use."""

    name: Text = Field(
        description="Glob for the certificate's common name or URI SAN (such as a SPIFFE id)."
    )
    models: tuple[Text, ...] = Field(
        default=("*",),
        description='Public model names that the client may use, as globs; "*" is every model.',
    )
    tenant: Text | None = Field(
        default=None,
        description="Whom the client belongs to, as with keys; the certificate's name if null.",
    )
    admin: bool = Field(
        default=False, description="Whether the client may use the administration API."
    )


class Auth(Section):
    """Who may call the gateway."""

    mode: AuthMode = Field(
        default="none",
        description="none: everybody who reaches the address; keys: holders of an API key; "
        "mtls: holders of a client certificate.",
    )
    insecure: bool = Field(
        default=False,
        description="Allow mode none on addresses that other machines can reach.",
    )
    keys: tuple[StaticKey, ...] = Field(default=(), description="The API keys of mode keys.")
    clients: tuple[ClientRule, ...] = Field(
        default=(),
        description="Rules for client certificates in mode mtls, the first match wins; without "
        "any, every verified client may use every model.",
    )


class Cors(Section):
    """Which web pages may call the REST API from a browser."""

    origins: tuple[Origin, ...] = Field(
        default=(), description='Allowed origins, such as https://app.example.com, or "*".'
    )
    allow_credentials: bool = Field(
        default=False, description="Whether browsers may send cookies and credentials."
    )


class Facade(Section):
    """The REST front door."""

    cors: Cors | None = Field(default=None, description="Calls from browsers; none if null.")
    reasoning_in_unary: bool = Field(
        default=True,
        description="Whether unary answers carry reasoning_content; streams always do.",
    )
    body_limit: ByteCount = Field(
        default=64 * 2**20, description="Largest request body: bytes, or text such as 64MiB."
    )
    ping_interval: Seconds = Field(
        default=15.0, description="Silence after which a stream gets a comment ping."
    )


class Limits(Section):
    """Sizes that the gateway accepts: bytes, or text such as 64MiB."""

    message_bytes: ByteCount = Field(default=64 * 2**20, description="Largest gRPC message.")
    upstream_response_bytes: ByteCount = Field(
        default=64 * 2**20, description="Largest unary answer of an upstream."
    )
    sse_line_bytes: ByteCount = Field(
        default=16 * 2**20, description="Longest line of an upstream's event stream."
    )


class Log(Section):
    """What the gateway writes about itself."""

    level: Level = Field(default="warning", description="Least severe level that is written.")
    format: LogFormat = Field(default="text", description="text for people, json for machines.")


class Config(Section):
    """The configuration of a gateway."""

    listen: Listen = Field(default_factory=Listen, description="Where the gateway listens.")
    auth: Auth = Field(default_factory=Auth, description="Who may call the gateway.")
    providers: Mapping[ProviderName, Provider] = Field(
        default_factory=dict, description="The upstream accounts, by name."
    )
    models: Mapping[PublicName, ModelRoute] = Field(
        default_factory=dict, description="The public models, by name."
    )
    timeouts: Timeouts = Field(
        default_factory=Timeouts, description="Time limits of upstream calls."
    )
    routes: tuple[RouteRule, ...] = Field(
        default=(),
        description="Routing rules, looked at in this order before the models; the first that matches "
        "and names a model to use decides. Shadows do not end the search.",
    )
    retries: Retries = Field(default_factory=Retries, description="What is tried again.")
    breaker: Breaker = Field(
        default_factory=Breaker, description="When a target that keeps failing is left alone."
    )
    outliers: Outliers = Field(
        default_factory=Outliers, description="Ejects targets that are worse than the others."
    )
    concurrency: Concurrency = Field(
        default_factory=Concurrency, description="Requests at a time on each target."
    )
    keys: Keys = Field(default_factory=Keys, description="How the keys of providers are rested.")
    cache: Cache = Field(default_factory=Cache, description="The exact cache.")
    idempotency: Idempotency = Field(
        default_factory=Idempotency, description="Answers for a repeated Idempotency-Key."
    )
    shadows: Shadows = Field(
        default_factory=Shadows, description="Copies of requests for a second model."
    )
    reload: bool = Field(
        default=True,
        description="Whether a change of this file takes effect at once; SIGHUP always does that.",
    )
    facade: Facade = Field(default_factory=Facade, description="The REST front door.")
    limits: Limits = Field(default_factory=Limits, description="Sizes that the gateway accepts.")
    drain: SecondsOrZero = Field(
        default=30.0, description="How long a stopping gateway lets running requests finish."
    )
    log: Log = Field(default_factory=Log, description="What the gateway writes about itself.")
