"""The shape of the configuration: what can be written, its defaults, and what each setting means.

Owns the fields; their descriptions are published as JSON Schema and as documentation. Must not read
files or the environment, and must not compare one section with another (``checks.py`` does).
"""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, model_validator

from headgate_server.config.fields import (
    AuthMode,
    BaseUrl,
    ByteCount,
    Count,
    HeaderName,
    HeaderValue,
    Level,
    ListenAddress,
    LogFormat,
    Modality,
    Origin,
    ProviderName,
    PublicName,
    Seconds,
    SecondsOrZero,
    Secret,
    Strategy,
    Text,
    UnsupportedPolicy,
)


class Section(BaseModel):
    """A mapping of the file with a fixed set of keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: object) -> object:
        # A key whose lines below it are all commented out is YAML's null.
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if v is not None or k not in cls.model_fields}


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


class ClientRule(Section):
    """Which models the holder of a client certificate may use."""

    name: Text = Field(
        description="Glob for the certificate's common name or URI SAN (such as a SPIFFE id)."
    )
    models: tuple[Text, ...] = Field(
        default=("*",),
        description='Public model names that the client may use, as globs; "*" is every model.',
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


class TimeoutOverrides(Section):
    """Time limits of one provider; what is not given comes from the section timeouts."""

    connect: Seconds | None = Field(default=None, description="Seconds to open a connection.")
    first_byte: Seconds | None = Field(
        default=None, description="Seconds from the request to the first byte of the answer."
    )
    idle: Seconds | None = Field(
        default=None, description="Longest silence, in seconds, within an answer."
    )
    total: Seconds | None = Field(default=None, description="Seconds for a whole attempt.")


class LocalOptions(Section):
    """How the embedded local model runs (kind local only)."""

    weights: Text | None = Field(
        default=None, description="GGUF file to load instead of the bundled model."
    )
    threads: Count | None = Field(
        default=None, description="CPU threads; as many as the machine offers if null."
    )
    slots: Count | None = Field(default=None, description="Requests that run at the same time.")
    context_tokens: Count | None = Field(
        default=None, description="Context window of one slot, in tokens."
    )


class ClientTls(Section):
    """The certificates of a connection to another gateway."""

    ca_file: Text | None = Field(
        default=None, description="PEM file with the authorities to trust; the system's if null."
    )
    cert_file: Text | None = Field(
        default=None, description="PEM file with our certificate, for a gateway that asks for one."
    )
    key_file: Text | None = Field(
        default=None, description="PEM file with the private key of our certificate."
    )
    server_name: Text | None = Field(
        default=None, description="Name to expect in the gateway's certificate."
    )


class Provider(Section):
    """One upstream account: which API it speaks, where it is, and the credential for it."""

    kind: Text = Field(
        description="The API it speaks: a dialect (openai, anthropic, gemini, azure, bedrock, "
        "vertex, cohere, ollama, headgate, local, ...) or a known vendor (groq, deepseek, ...).",
        examples=["openai", "anthropic", "gemini", "deepseek", "groq", "ollama", "local"],
    )
    base_url: BaseUrl | None = Field(
        default=None,
        description="Where the API is, as the vendor's own SDK takes it; the vendor's public "
        "address if null.",
    )
    api_key: Secret | None = Field(
        default=None, description="The credential for the upstream; best as ${VARIABLE}."
    )
    api_version: Text | None = Field(
        default=None, description="Version of the API, for kinds that ask for one (azure)."
    )
    region: Text | None = Field(
        default=None, description="Cloud region, for kinds that ask for one (bedrock, vertex)."
    )
    organization: Text | None = Field(
        default=None, description="Organization that the upstream bills (openai)."
    )
    project: Text | None = Field(
        default=None, description="Project that the upstream bills (openai, vertex)."
    )
    bearer_token: Secret | None = Field(
        default=None,
        description="An access token, sent as Authorization: Bearer (azure with Entra ID, vertex).",
    )
    access_key_id: Text | None = Field(
        default=None,
        description="AWS access key (bedrock); the machine's usual AWS credentials if null.",
    )
    secret_access_key: Secret | None = Field(
        default=None, description="Secret of that AWS access key (bedrock)."
    )
    session_token: Secret | None = Field(
        default=None, description="Session token of a temporary AWS access key (bedrock)."
    )
    profile: Text | None = Field(
        default=None, description="Profile of the machine's AWS configuration (bedrock)."
    )
    credentials_file: Text | None = Field(
        default=None,
        description="JSON file with Google credentials, such as a service account's key (vertex); "
        "the machine's application default credentials if null.",
    )
    tls: ClientTls | None = Field(
        default=None, description="Certificates for the connection (headgate)."
    )
    headers: Mapping[HeaderName, HeaderValue] = Field(
        default_factory=dict,
        description="Headers added to every request to this upstream; values are kept secret.",
    )
    timeouts: TimeoutOverrides | None = Field(
        default=None, description="Time limits that differ from the section timeouts."
    )
    options: LocalOptions | None = Field(
        default=None, description="How the embedded model runs (kind local only)."
    )


class Target(Section):
    """One place where a public model can be served: a provider and its name for the model."""

    provider: Text = Field(description="Name of a provider from the section providers.")
    model: PublicName | None = Field(
        default=None, description="The provider's name for the model; the public name if null."
    )
    weight: float = Field(
        default=1.0,
        ge=0,
        description="Share of requests under the strategy weighted; 0 takes no share.",
    )


class Price(Section):
    """Prices in US dollars for one million tokens."""

    input: float = Field(ge=0, description="Prompt tokens.")
    output: float = Field(ge=0, description="Answer tokens.")
    cached_input: float | None = Field(
        default=None, ge=0, description="Prompt tokens read from the provider's cache."
    )
    cache_write: float | None = Field(
        default=None, ge=0, description="Prompt tokens written to the provider's cache."
    )


class Catalog(Section):
    """What the catalogue tells about a model; overrides what is known about it otherwise."""

    input: tuple[Modality, ...] | None = Field(default=None, description="Kinds of input it reads.")
    output: tuple[Modality, ...] | None = Field(
        default=None, description="Kinds of output it makes."
    )
    context_window: Count | None = Field(
        default=None, description="Most tokens of input and output together."
    )
    max_output_tokens: Count | None = Field(default=None, description="Most tokens of output.")
    tools: bool | None = Field(default=None, description="Whether it can call tools.")
    structured_output: bool | None = Field(
        default=None, description="Whether it can keep to a JSON Schema."
    )
    reasoning: bool | None = Field(
        default=None, description="Whether it reasons before it answers."
    )
    family: Text | None = Field(default=None, description="Model family, such as gpt or claude.")
    price: Price | None = Field(default=None, description="What its tokens cost.")


class ModelRoute(Section):
    """A public model: the targets that can serve it and how to choose between them."""

    strategy: Strategy = Field(
        default="priority",
        description="How to choose a target: priority (in the order written), weighted (by "
        "weight), least_busy (fewest requests in flight), latency, cost.",
    )
    targets: tuple[Target, ...] = Field(
        min_length=1, description="Where the model can be served; at least one."
    )
    fallbacks: tuple[Text, ...] = Field(
        default=(), description="Public models to try, in order, when every target has failed."
    )
    unsupported: UnsupportedPolicy = Field(
        default="drop",
        description="A tuning parameter that the target does not know: strict refuses the "
        "request, drop leaves it out with a warning, pass sends it as it is.",
    )
    catalog: Catalog | None = Field(
        default=None, description="What the model catalogue tells about this model."
    )


class Timeouts(Section):
    """Time limits of upstream calls: seconds, or text such as 500ms, 30s, 5m."""

    connect: Seconds = Field(default=10.0, description="Time to open a connection.")
    first_byte: Seconds = Field(
        default=600.0, description="Time from the request to the first byte of the answer."
    )
    idle: Seconds = Field(default=300.0, description="Longest silence within an answer.")
    total: Seconds = Field(default=3600.0, description="Time for a whole attempt.")


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
    facade: Facade = Field(default_factory=Facade, description="The REST front door.")
    limits: Limits = Field(default_factory=Limits, description="Sizes that the gateway accepts.")
    drain: SecondsOrZero = Field(
        default=30.0, description="How long a stopping gateway lets running requests finish."
    )
    log: Log = Field(default_factory=Log, description="What the gateway writes about itself.")
