"""The providers: which kinds there are, and which dialect each speaks.

To add a dialect: write its module, add its line to `DIALECTS`, add a golden folder. To add a vendor of
the OpenAI dialect: an entry in vendors.toml and a golden case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headgate_server.config import KindInfo, Provider
from headgate_server.providers.base import Dialect, Endpoint
from headgate_server.providers.local import LocalDialect
from headgate_server.providers.openai import OpenAIDialect
from headgate_server.providers.vendors import Vendor, vendors

# Kind -> a maker of its dialect, given the largest event of a stream in bytes. Kinds that are not
# here are vendors of vendors.toml and speak OpenAI's.
DIALECTS: Mapping[str, Callable[[int], Dialect]] = {
    "openai": OpenAIDialect,
    "local": lambda max_event_bytes: LocalDialect(OpenAIDialect(max_event_bytes)),
}

# Named by the design, spoken by a later version: known, so that the refusal can say so.
PLANNED = ("openai_responses", "anthropic", "gemini", "vertex", "bedrock", "cohere", "headgate")

# What `kind: openai` with a base_url of its own means: any server that speaks the dialect.
GENERIC = Vendor(name="OpenAI-compatible server", auth="none")

# The embedded model's own server.
LOCAL = Vendor(name="Embedded model", auth="none", usage_per_choice=True)


def kinds() -> dict[str, KindInfo]:
    """Every kind that the configuration may name, and what it needs there."""
    found = {
        kind: KindInfo(
            needs_base_url=vendor.base_url is None,
            needs_api_key=vendor.auth != "none",
            available=True,
            api_key_env=vendor.api_key_env[0] if vendor.api_key_env else None,
        )
        for kind, vendor in vendors().items()
    }
    found["local"] = KindInfo(needs_base_url=False, needs_api_key=False, available=True)
    for kind in PLANNED:
        found[kind] = KindInfo(needs_base_url=False, needs_api_key=False, available=False)
    return found


def vendor_of(kind: str, base_url: str | None) -> Vendor:
    """The facts of a configured provider's kind."""
    if kind == "local":
        return LOCAL
    if kind == "openai" and base_url is not None:
        return GENERIC
    return vendors()[kind]


def endpoint_of(settings: Provider, vendor: Vendor) -> Endpoint:
    """Where a configured provider is, and the headers that authenticate us there."""
    headers = {"content-type": "application/json"}
    if settings.api_key:
        key = settings.api_key.get_secret_value()
        if vendor.auth == "api-key":
            headers["api-key"] = key
        else:
            headers["authorization"] = f"Bearer {key}"
    for name, value in (
        ("openai-organization", settings.organization),
        ("openai-project", settings.project),
    ):
        if value:
            headers[name] = value
    headers |= {name.lower(): value.get_secret_value() for name, value in settings.headers.items()}
    return Endpoint(settings.base_url or vendor.base_url or "", headers)


def dialect_of(kind: str, max_event_bytes: int) -> Dialect:
    """The dialect that a kind speaks."""
    return DIALECTS.get(kind, DIALECTS["openai"])(max_event_bytes)
