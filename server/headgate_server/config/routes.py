"""The settings of public models and of the rules in front of them: which target gets a request."""

from collections.abc import Mapping

from pydantic import Field

from headgate_server.config.fields import (
    AffinityKey,
    CallerHeader,
    Count,
    CountOrZero,
    Globs,
    Modalities,
    Modality,
    PositiveRatio,
    PublicName,
    Seconds,
    SecondsOrZero,
    Strategy,
    Text,
    UnsupportedPolicy,
)
from headgate_server.config.section import Section
from headgate_server.config.upstreams import Concurrency, TimeoutOverrides


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


class Target(Section):
    """One place where a public model can be served: a provider and its name for the model."""

    provider: Text = Field(description="Name of a provider from the section providers.")
    model: PublicName | None = Field(
        default=None, description="The provider's name for the model; the public name if null."
    )
    weight: float = Field(
        default=1.0,
        ge=0,
        description="Share of requests under the strategies weighted and affinity; 0 takes no share.",
    )
    price: Price | None = Field(
        default=None,
        description="What its tokens cost, for the strategy cost; from the catalogue if null.",
    )
    concurrency: Concurrency | None = Field(
        default=None, description="Requests at a time; the provider's if null."
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


class Affinity(Section):
    """What keeps requests on the same target, so that its prompt cache stays warm."""

    by: AffinityKey = Field(
        default="prompt",
        description="user: the field user; session: a header; prompt: how the conversation begins "
        "(system prompt, tools and first message).",
    )
    header: CallerHeader = Field(
        default="x-session-id", description="The header or metadata that names the session."
    )
    prefix: Count = Field(
        default=4096, description="Characters of the prompt's beginning that count (by prompt)."
    )
    load: float = Field(
        default=1.25,
        gt=1,
        description="How much above the average a target may be loaded before the next one is taken.",
    )


class Hedge(Section):
    """A second attempt beside one that is slow: the first to answer wins, the other is cancelled."""

    after: Seconds = Field(
        description="Wait for an answer, or for the first content of a stream, before it begins."
    )
    max: Count = Field(default=1, description="Most such attempts for a request.")


class CacheUse(Section):
    """How the exact cache keeps a model's answers."""

    ttl: Seconds | None = Field(
        default=None, description="How long an answer is kept; cache.ttl if null."
    )


class RetryOverrides(Section):
    """Retries of one model; what is not given comes from the section retries."""

    max: CountOrZero | None = Field(default=None, description="Most retries on the same target.")
    attempts: Count | None = Field(default=None, description="Most upstream calls of a request.")
    max_wait: SecondsOrZero | None = Field(
        default=None,
        description="Longest wait before a retry; a longer Retry-After is not waited for.",
    )


class ModelRoute(Section):
    """A public model: the targets that can serve it and how to choose between them."""

    strategy: Strategy = Field(
        default="priority",
        description="How to choose a target: priority (in the order written), weighted (by "
        "weight), least_busy (fewest requests in flight), latency (quickest lately, of two drawn), cost "
        "(cheapest for this request), affinity (the same target for the same key).",
    )
    affinity: Affinity | None = Field(
        default=None, description="What keeps requests together (strategy affinity only)."
    )
    aliases: tuple[PublicName, ...] = Field(
        default=(), description='Other names of the model, also as globs such as "gpt-4o-*".'
    )
    targets: tuple[Target, ...] = Field(
        min_length=1, description="Where the model can be served; at least one."
    )
    fallbacks: tuple[Text, ...] = Field(
        default=(), description="Public models to try, in order, when every target has failed."
    )
    on_context_window: tuple[Text, ...] = Field(
        default=(),
        description="Public models to try, in order, when the prompt does not fit the model.",
    )
    on_content_policy: tuple[Text, ...] = Field(
        default=(),
        description="Public models to try, in order, when a provider's content policy refuses.",
    )
    timeouts: TimeoutOverrides | None = Field(
        default=None, description="Time limits that differ from those of the providers."
    )
    retries: RetryOverrides | None = Field(
        default=None, description="Retries that differ from the section retries."
    )
    hedge: Hedge | None = Field(
        default=None,
        description="A second attempt beside one that is slow to answer; none if null.",
    )
    cache: CacheUse | None = Field(
        default=None, description="Keep this model's answers in the exact cache; not if null."
    )
    unsupported: UnsupportedPolicy = Field(
        default="drop",
        description="A tuning parameter that the target does not know: strict refuses the "
        "request, drop leaves it out with a warning, pass sends it as it is.",
    )
    catalog: Catalog | None = Field(
        default=None, description="What the model catalogue tells about this model."
    )


class TokenRange(Section):
    """How long a prompt is, by the gateway's estimate."""

    min: CountOrZero | None = Field(default=None, description="At least so many tokens.")
    max: CountOrZero | None = Field(default=None, description="At most so many tokens.")


class When(Section):
    """What a request must be like for a rule: every condition that is given must hold.

    Texts are globs; of several in a list, one must match.
    """

    model: Globs | None = Field(default=None, description="The public model that was asked for.")
    tenant: Globs | None = Field(default=None, description="The caller's tenant.")
    metadata: Mapping[Text, Globs] | None = Field(
        default=None, description="Members of the request's metadata."
    )
    headers: Mapping[CallerHeader, Globs] | None = Field(
        default=None, description="Headers (REST) or metadata (gRPC) that begin with x-."
    )
    tokens: TokenRange | None = Field(default=None, description="The prompt's estimated length.")
    modality: Modalities | None = Field(
        default=None, description="Kinds of input of which the request holds at least one."
    )
    tools: bool | None = Field(default=None, description="Whether the request offers tools.")


class RouteRule(Section):
    """A routing rule: requests that it matches go to another model, or a copy of them does."""

    name: Text | None = Field(
        default=None, description="How explanations call it; rule-1, rule-2 and so on if null."
    )
    when: When = Field(
        default_factory=When, description="Which requests it is for; all of them if empty."
    )
    share: PositiveRatio = Field(
        default=1.0,
        description="The share of them, for canaries. Sticky: the same user, else the same session, "
        "else the same caller, is always in or always out.",
    )
    use: Text | None = Field(default=None, description="The public model that serves them.")
    shadow: Text | None = Field(
        default=None,
        description="The public model that gets a copy; its answers are thrown away.",
    )
