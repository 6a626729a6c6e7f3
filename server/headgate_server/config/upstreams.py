"""The settings of providers: where they are, their credentials, limits and patience."""

from collections.abc import Mapping

from pydantic import Field

from headgate_server.config.fields import (
    BaseUrl,
    Count,
    CountOrZero,
    HeaderName,
    HeaderValue,
    Seconds,
    Secret,
    Text,
)
from headgate_server.config.section import Section


class TimeoutOverrides(Section):
    """Time limits of one provider or model; what is not given comes from the wider section.

    A model's limits win over its provider's, and those over the section timeouts.
    """

    connect: Seconds | None = Field(default=None, description="Seconds to open a connection.")
    first_byte: Seconds | None = Field(
        default=None, description="Seconds from the request to the first byte of the answer."
    )
    first_token: Seconds | None = Field(
        default=None, description="Seconds from the request to the first content of a stream."
    )
    idle: Seconds | None = Field(
        default=None,
        description="Longest silence, in seconds, within an answer; of a stream, between two pieces "
        "of content: comments and pings do not count.",
    )
    total: Seconds | None = Field(default=None, description="Seconds for a whole attempt.")


class ProviderKey(Section):
    """One of several keys for the same upstream account."""

    key: Secret = Field(description="The credential; best as ${VARIABLE}.")
    name: Text | None = Field(
        default=None, description="How logs and answers call it; key-1, key-2 and so on if null."
    )
    weight: float = Field(
        default=1.0, ge=0, description="Share of requests; 0 is used only if no other key is left."
    )


class Concurrency(Section):
    """How many requests run on a target at the same time, and what becomes of further ones."""

    limit: Count | None = Field(
        default=None,
        description="Most requests at a time; without adaptive, null means no limit. With adaptive, "
        "the limit to begin with (16 if null).",
    )
    adaptive: bool = Field(
        default=False,
        description="Whether the limit follows the latency: it grows while answers are as quick as "
        "usual, and shrinks when they slow down or the upstream says that it is overloaded.",
    )
    min: Count = Field(default=1, description="Lowest limit that adaptive may choose.")
    max: Count = Field(default=1000, description="Highest limit that adaptive may choose.")
    queue: CountOrZero = Field(
        default=32, description="Most requests that wait for a place when all targets are full."
    )
    queue_wait: Seconds = Field(
        default=1.0, description="Longest wait there; then the request is shed with a Retry-After."
    )


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
    api_keys: tuple[ProviderKey, ...] = Field(
        default=(),
        description="Several credentials instead of one: requests are spread over them by weight, and "
        "one that is refused or used up is benched while the others go on.",
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
    concurrency: Concurrency | None = Field(
        default=None, description="Requests at a time; the section concurrency if null."
    )
    options: LocalOptions | None = Field(
        default=None, description="How the embedded model runs (kind local only)."
    )


class Timeouts(Section):
    """Time limits of upstream calls: seconds, or text such as 500ms, 30s, 5m."""

    connect: Seconds = Field(default=10.0, description="Time to open a connection.")
    first_byte: Seconds = Field(
        default=600.0, description="Time from the request to the first byte of the answer."
    )
    first_token: Seconds = Field(
        default=600.0, description="Time from the request to the first content of a stream."
    )
    idle: Seconds = Field(
        default=300.0,
        description="Longest silence within an answer; of a stream, between two pieces of content: "
        "comments and pings do not count.",
    )
    total: Seconds = Field(default=3600.0, description="Time for a whole attempt.")
