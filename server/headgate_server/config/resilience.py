"""The settings for what goes wrong: retries, breakers, benches; and for answers that are kept."""

from pydantic import Field

from headgate_server.config.fields import (
    ByteCount,
    Count,
    CountOrZero,
    PositiveRatio,
    Ratio,
    Seconds,
    SecondsOrZero,
)
from headgate_server.config.section import Section


class Retries(Section):
    """What is tried again, as long as nothing has been sent to the caller."""

    max: CountOrZero = Field(
        default=2, description="Most retries on the same target; 0 turns retries off."
    )
    attempts: Count = Field(
        default=8,
        description="Most upstream calls of a request, all targets and fallbacks together.",
    )
    base: Seconds = Field(
        default=0.2,
        description="Longest first wait; it doubles with each retry, and is drawn at random.",
    )
    max_wait: SecondsOrZero = Field(
        default=2.0,
        description="Longest wait before a retry; when a provider asks for more (Retry-After), the "
        "caller gets the error instead.",
    )
    budget: Ratio = Field(
        default=0.1,
        description="Retries and hedges of a provider, as a share of its requests of the last ten "
        "seconds, so that an outage is not made worse.",
    )
    budget_min: CountOrZero = Field(
        default=10, description="Retries of a provider in ten seconds that are free of that share."
    )


class Breaker(Section):
    """When a target that keeps failing is left alone. Faults of callers never count."""

    enabled: bool = Field(default=True, description="Whether there is one.")
    window: Seconds = Field(default=30.0, description="How far back it looks.")
    min_requests: Count = Field(
        default=10,
        description="It does not open before so many requests in the window; as many failures in a row "
        "open it whatever was before.",
    )
    failure_ratio: PositiveRatio = Field(
        default=0.5, description="The share of failures in the window at which it opens."
    )
    open_for: Seconds = Field(
        default=5.0, description="How long it stays open; doubles each time that a probe fails."
    )
    max_open: Seconds = Field(default=120.0, description="Longest time that it stays open.")
    probes: Count = Field(
        default=3, description="Half open: so many successes close it, one failure opens it again."
    )


class Outliers(Section):
    """Ejects a target for a while that fails much more often than the others of its model."""

    enabled: bool = Field(default=True, description="Whether that is done.")
    interval: Seconds = Field(default=10.0, description="How often targets are compared.")
    min_requests: Count = Field(
        default=20, description="Requests of a target in the window before it is compared."
    )
    deviations: float = Field(
        default=1.9, gt=0, description="Standard deviations below the mean rate of success."
    )
    eject_for: Seconds = Field(
        default=10.0, description="For how long; times the number of ejections in a row."
    )
    max_share: Ratio = Field(
        default=0.5, description="Share of a model's targets that may be ejected at a time."
    )


class Keys(Section):
    """How the keys of providers are rested."""

    bench: Seconds = Field(
        default=60.0,
        description="How long a key is not used after the provider refused it (401, 402, 403).",
    )


class Cache(Section):
    """The exact cache: the answer to the same request again.

    Used by models that say so, and by requests that ask for it (header x-headgate-cache).
    """

    max_bytes: ByteCount = Field(
        default=64 * 2**20, description="Memory for answers; the least recently used go first."
    )
    max_entry_bytes: ByteCount = Field(default=2**20, description="Largest answer that is kept.")
    ttl: Seconds = Field(default=300.0, description="How long an answer is kept.")
    on_request: bool = Field(
        default=True,
        description="Whether x-headgate-cache: on works where the model does not say so.",
    )


class Idempotency(Section):
    """Answers that are kept for a repeated Idempotency-Key."""

    ttl: Seconds = Field(default=600.0, description="How long an answer is kept.")
    max_bytes: ByteCount = Field(
        default=64 * 2**20, description="Memory for answers; the oldest go first."
    )


class Shadows(Section):
    """Copies of requests that are sent to a second model."""

    max_in_flight: Count = Field(
        default=32, description="Copies under way at a time; further ones are not sent."
    )
    timeout: Seconds = Field(default=120.0, description="Longest time for one.")
