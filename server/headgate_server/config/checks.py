"""What must hold between parts of the configuration, and what this build of the gateway can do.

Works on the parts that are valid by themselves, so that one run reports everything. Must not know
vendors, dialects or strategies: what is available is passed in.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from headgate_server.config.model import Auth, Facade
from headgate_server.config.parts import Finding, Parts
from headgate_server.config.problems import Path, did_you_mean, listing
from headgate_server.config.route_checks import check_concurrency, check_routes
from headgate_server.config.upstreams import Provider
from headgate_server.config.values import TcpAddress, parse_address

__all__ = ["Finding", "KindInfo", "Parts", "check"]

_MIN_KEY_LENGTH = 8
# Settings that mean something to some kinds only.
_OWNERS = {
    "bearer_token": ("azure", "vertex"),
    "access_key_id": ("bedrock",),
    "secret_access_key": ("bedrock",),
    "session_token": ("bedrock",),
    "profile": ("bedrock",),
    "credentials_file": ("vertex",),
    "tls": ("headgate",),
}
_CREDENTIAL_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key"})


@dataclass(frozen=True, slots=True)
class KindInfo:
    """What the configuration needs to know about one kind of provider."""

    needs_base_url: bool = False
    needs_api_key: bool = False
    available: bool = True
    api_key_env: str | None = None
    """The environment variable in which people usually keep its key."""
    requires: tuple[str, ...] = ()
    """Settings that must be given, unless there is a base_url."""


def check(
    parts: Parts, kinds: Mapping[str, KindInfo] | None, strategies: Collection[str] | None
) -> Iterator[Finding]:
    """Find everything that is wrong between the parts."""
    yield from _listeners(parts)
    yield from _keys(parts.auth)
    yield from _cors(parts.facade)
    for name, provider in (parts.providers or {}).items():
        if provider is None:
            continue
        if kinds is not None:
            yield from _provider(("providers", name), provider, kinds)
        yield from _provider_keys(("providers", name), provider)
        yield from check_concurrency(("providers", name, "concurrency"), provider.concurrency)
    yield from check_routes(parts, strategies)
    yield from check_concurrency(("concurrency",), parts.concurrency)
    yield from _sections(parts)


def _sections(parts: Parts) -> Iterator[Finding]:
    breaker, cache = parts.breaker, parts.cache
    if breaker is not None and breaker.open_for > breaker.max_open:
        yield Finding(
            ("breaker", "open_for"),
            "must not be longer than max_open; found {found}",
        )
    if cache is not None and cache.max_entry_bytes > cache.max_bytes:
        yield Finding(
            ("cache", "max_entry_bytes"),
            "must not be more than max_bytes; found {found}",
        )


def _listeners(parts: Parts) -> Iterator[Finding]:
    listen, auth = parts.listen, parts.auth
    if listen is None:
        return
    if listen.grpc == listen.rest and not listen.grpc.endswith(":0"):
        yield Finding(
            ("listen", "rest"), "the same address as listen.grpc; give each its own port or path"
        )
    if auth is None:
        return
    if auth.mode == "mtls" and (listen.tls is None or listen.tls.client_ca_file is None):
        yield Finding(
            ("auth", "mode"),
            "mtls needs listen.tls with cert_file, key_file and client_ca_file; add them",
        )
    if auth.mode != "none" or auth.insecure:
        return
    for name, text in (("grpc", listen.grpc), ("rest", listen.rest)):
        address = parse_address(text)
        if isinstance(address, TcpAddress) and not address.is_loopback:
            yield Finding(
                ("listen", name),
                "other machines can reach {found}, but auth.mode is none: set auth.mode to "
                "keys or mtls, listen on 127.0.0.1, or set auth.insecure: true "
                "(HEADGATE_INSECURE=true, --insecure)",
            )


def _keys(auth: Auth | None) -> Iterator[Finding]:
    if auth is None:
        return
    if auth.keys and auth.mode != "keys":
        yield Finding(
            ("auth", "keys"),
            f"keys have no effect with mode {auth.mode}; set auth.mode: keys, or remove them",
        )
    if auth.clients and auth.mode != "mtls":
        yield Finding(
            ("auth", "clients"),
            f"clients have no effect with mode {auth.mode}; set auth.mode: mtls, or remove them",
        )
    if auth.mode == "keys" and not auth.keys:
        yield Finding(("auth", "keys"), "mode keys needs at least one key: [{name: ..., key: ...}]")
    names: dict[str, int] = {}
    secrets: dict[str, int] = {}
    for index, key in enumerate(auth.keys):
        at: Path = ("auth", "keys", index)
        secret = key.key.get_secret_value()
        if (first := names.setdefault(key.name, index)) != index:
            yield Finding((*at, "name"), f"the same name as auth.keys[{first}]; give each its own")
        if (first := secrets.setdefault(secret, index)) != index:
            yield Finding((*at, "key"), f"the same key as auth.keys[{first}]; give each its own")
        if len(secret) < _MIN_KEY_LENGTH:
            yield Finding(
                (*at, "key"),
                f"expected a key of at least {_MIN_KEY_LENGTH} characters; found {len(secret)}",
            )
        if not key.models:
            yield Finding((*at, "models"), 'an empty list allows no model; write ["*"] for all')
    for index, client in enumerate(auth.clients):
        if not client.models:
            at = ("auth", "clients", index, "models")
            yield Finding(at, 'an empty list allows no model; write ["*"] for all')


def _cors(facade: Facade | None) -> Iterator[Finding]:
    cors = facade.cors if facade is not None else None
    if cors is not None and cors.allow_credentials and "*" in cors.origins:
        yield Finding(
            ("facade", "cors", "origins"),
            'browsers refuse "*" together with allow_credentials: true; list the origins',
        )


def _provider(at: Path, provider: Provider, kinds: Mapping[str, KindInfo]) -> Iterator[Finding]:
    kind = kinds.get(provider.kind)
    usable = sorted(name for name, info in kinds.items() if info.available)
    if kind is None:
        hint = did_you_mean(provider.kind, kinds)
        message = "unknown provider kind {found};" + f"{hint} expected one of {listing(usable)}"
        yield Finding((*at, "kind"), message)
        return
    if not kind.available:
        message = (
            "the provider kind {found} is planned but not available in this version; "
            f"available: {listing(usable)}"
        )
        yield Finding((*at, "kind"), message)
        return
    if kind.needs_base_url and provider.base_url is None:
        yield Finding(
            (*at, "base_url"), f"kind {provider.kind} needs a base_url: the address of its API"
        )
    # A base_url that the kind does not ask for means another server, which may need no key.
    elsewhere = provider.base_url is not None and not kind.needs_base_url
    has_key = (
        provider.api_key is not None
        or provider.api_keys
        or provider.bearer_token is not None
        or any(name.lower() in _CREDENTIAL_HEADERS for name in provider.headers)
    )
    if kind.needs_api_key and not has_key and not elsewhere:
        usual = kind.api_key_env or "YOUR_API_KEY"
        yield Finding(
            (*at, "api_key"),
            f'kind {provider.kind} needs an api_key; usually api_key: "${{{usual}}}"',
        )
    # With an API key, Vertex knows region and project by itself.
    keyed = provider.api_key is not None or bool(provider.api_keys)
    required = () if provider.kind == "vertex" and keyed else kind.requires
    for name in required:
        if getattr(provider, name) is None and provider.base_url is None:
            yield Finding((*at, name), f"kind {provider.kind} needs a {name}")
    for name, owners in _OWNERS.items():
        if getattr(provider, name) is not None and provider.kind not in owners:
            message = f"{name} belongs to kind {listing(owners)} only; remove it"
            yield Finding((*at, name), message)
    if provider.kind != "local" and provider.options is not None:
        yield Finding((*at, "options"), "options belong to kind local only; remove them")
    yield from _other_gateway(at, provider)
    if provider.kind == "local":
        remote = provider.model_fields_set - {"kind", "options", "timeouts", "concurrency"}
        for name in sorted(remote):
            if getattr(provider, name):
                message = f"kind local runs in this process, so {name} has no effect; remove it"
                yield Finding((*at, name), message)


def _provider_keys(at: Path, provider: Provider) -> Iterator[Finding]:
    keys = provider.api_keys
    if not keys:
        return
    if provider.api_key is not None:
        yield Finding(
            (*at, "api_keys"), "give either api_key or api_keys; move the one into the list"
        )
    if provider.bearer_token is not None:
        yield Finding(
            (*at, "api_keys"), "api_keys have no effect beside a bearer_token; remove one of them"
        )
    if provider.kind == "headgate":
        yield Finding(
            (*at, "api_keys"),
            "the key of another gateway belongs to the connection, so there can be only one; "
            "write it as api_key",
        )
    if not any(key.weight > 0 for key in keys):
        yield Finding((*at, "api_keys"), "every weight is 0; at least one must be above 0")
    names: dict[str, int] = {}
    secrets: dict[str, int] = {}
    for index, key in enumerate(keys):
        name, secret = key.name or f"key-{index + 1}", key.key.get_secret_value()
        for seen, field, value in ((names, "name", name), (secrets, "key", secret)):
            if (first := seen.setdefault(value, index)) != index:
                yield Finding(
                    (*at, "api_keys", index, field),
                    f"the same {field} as api_keys[{first}]; give each its own",
                )


def _other_gateway(at: Path, provider: Provider) -> Iterator[Finding]:
    if provider.kind != "headgate" or provider.base_url is None:
        return
    url = urlsplit(provider.base_url)
    if url.path:
        yield Finding(
            (*at, "base_url"), "expected http://HOST:PORT or https://HOST:PORT without a path"
        )
    tls = provider.tls
    if tls is None:
        return
    if url.scheme != "https":
        yield Finding((*at, "tls"), "tls needs a base_url that starts with https://")
    if (tls.cert_file is None) is not (tls.key_file is None):
        yield Finding((*at, "tls"), "cert_file and key_file belong together; give both or neither")
    for name in ("ca_file", "cert_file", "key_file"):
        path = getattr(tls, name)
        if path is not None and not os.access(path, os.R_OK):
            yield Finding(
                (*at, "tls", name), "there is no such file, or it cannot be read: {found}"
            )
