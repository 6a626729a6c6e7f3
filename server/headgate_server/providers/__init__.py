"""The providers: which kinds there are, and which dialect each speaks.

To add a dialect: write its module, add its line to `DIALECTS` and its vendor to vendors.toml, add a
golden folder. To add a vendor of a known dialect: an entry in vendors.toml and a golden case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headgate_server.config import KindInfo, Provider
from headgate_server.keyring import Key, Keyring
from headgate_server.providers.anthropic import AnthropicDialect
from headgate_server.providers.base import Dialect, Endpoint
from headgate_server.providers.bedrock import BedrockDialect
from headgate_server.providers.cohere import CohereDialect
from headgate_server.providers.gemini import GeminiDialect
from headgate_server.providers.local import LocalDialect
from headgate_server.providers.ollama import OllamaDialect
from headgate_server.providers.openai import OpenAIDialect
from headgate_server.providers.responses import ResponsesDialect
from headgate_server.providers.vendors import Vendor, vendors

# Name -> a maker of the dialect, given the largest event of a stream in bytes. Which of them a kind
# speaks is said in vendors.toml.
DIALECTS: Mapping[str, Callable[[int], Dialect]] = {
    "anthropic": AnthropicDialect,
    "openai": OpenAIDialect,
    "gemini": GeminiDialect,
    "openai_responses": ResponsesDialect,
    "bedrock": BedrockDialect,
    "cohere": CohereDialect,
    "ollama": OllamaDialect,
    "local": lambda max_event_bytes: LocalDialect(OpenAIDialect(max_event_bytes)),
}

# What `kind: openai` with a base_url of its own means: any server that speaks the dialect.
GENERIC = Vendor(
    name="OpenAI-compatible server",
    auth="none",
    thought_signatures=True,
    assistant_images=True,
    completions=True,
)

# The embedded model's own server.
LOCAL = Vendor(
    name="Embedded model",
    auth="none",
    usage_per_choice=True,
    completions=True,
    unsupported=("suffix", "echo", "best_of"),
)


def kinds() -> dict[str, KindInfo]:
    """Every kind that the configuration may name, and what it needs there."""
    found = {
        kind: KindInfo(
            needs_base_url=vendor.base_url is None,
            needs_api_key=vendor.auth not in ("none", "aws", "google"),
            available=vendor.dialect in DIALECTS or kind == "headgate",
            api_key_env=vendor.api_key_env[0] if vendor.api_key_env else None,
            requires=vendor.requires,
        )
        for kind, vendor in vendors().items()
    }
    found["local"] = KindInfo(needs_base_url=False, needs_api_key=False, available=True)
    return found


def vendor_of(kind: str, base_url: str | None) -> Vendor:
    """The facts of a configured provider's kind."""
    if kind == "local":
        return LOCAL
    if kind == "openai" and base_url is not None:
        return GENERIC
    return vendors()[kind]


def endpoint_of(settings: Provider, vendor: Vendor) -> Endpoint:
    """Where a configured provider is, and the headers that authenticate us there.

    Of several keys it is the first: what is not told which to take, such as a check of the
    configuration, takes that.
    """
    secret = settings.api_keys[0].key if settings.api_keys else settings.api_key
    return _endpoint(settings, vendor, secret.get_secret_value() if secret else None)


def keyring_of(settings: Provider, vendor: Vendor) -> Keyring | None:
    """The keys of a configured provider; None if none of the configuration goes to the upstream.

    So it is for the embedded model, for servers that ask for no key, for clouds that sign or renew
    their tokens, and for another gateway, whose key belongs to its connection.
    """
    if settings.kind in ("local", "headgate") or settings.bearer_token:
        return None
    if settings.api_keys:
        named = [
            (each.name or f"key-{number}", each.weight, each.key)
            for number, each in enumerate(settings.api_keys, 1)
        ]
    elif settings.api_key:
        named = [("key", 1.0, settings.api_key)]
    else:
        return None
    return Keyring(
        [
            Key(name, weight, _endpoint(settings, vendor, secret.get_secret_value()))
            for name, weight, secret in named
        ]
    )


def secrets_of(settings: Provider) -> tuple[str, ...]:
    """Every text of a provider's settings that must not reach a caller or a log."""
    secrets = [
        *settings.headers.values(),
        *(each.key for each in settings.api_keys),
        settings.api_key,
        settings.bearer_token,
        settings.secret_access_key,
        settings.session_token,
    ]
    return tuple(secret.get_secret_value() for secret in secrets if secret)


def _endpoint(settings: Provider, vendor: Vendor, key: str | None) -> Endpoint:
    headers = {"content-type": "application/json"}
    if settings.bearer_token:
        headers["authorization"] = f"Bearer {settings.bearer_token.get_secret_value()}"
    elif key:
        name = _KEY_HEADERS.get(vendor.auth)
        headers |= {name: key} if name else {"authorization": f"Bearer {key}"}
    for name, value in (
        ("openai-organization", settings.organization),
        ("openai-project", settings.project if vendor.auth != "google" else None),
    ):
        if value:
            headers[name] = value
    headers |= {name.lower(): value.get_secret_value() for name, value in settings.headers.items()}
    base_url = settings.base_url
    if base_url is None:
        base_url = (vendor.base_url or "").format(
            region=settings.region or "", project=settings.project or ""
        )
    return Endpoint(base_url, headers, settings.region, settings.project)


_KEY_HEADERS = {
    "api-key": "api-key",
    "x-api-key": "x-api-key",
    "x-goog-api-key": "x-goog-api-key",
    "google": "x-goog-api-key",
}


def dialect_of(kind: str, vendor: Vendor, max_event_bytes: int) -> Dialect:
    """The dialect that a kind speaks."""
    name = "local" if kind == "local" else vendor.dialect
    return DIALECTS[name](max_event_bytes)
