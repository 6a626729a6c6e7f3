"""`doctor`: whether each provider is reachable and takes our key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

    from headgate_server.config import Config, Provider
    from headgate_server.providers.base import Endpoint
    from headgate_server.providers.vendors import Vendor

from headgate.cli.doctor.check import Check, State

_CONNECT_SECONDS, _ANSWER_SECONDS, _PROVIDER_SECONDS = 4.0, 6.0, 12.0
_MAX_LIST_BYTES = 8 * 2**20


async def provider(name: str, settings: Provider, config: Config) -> list[Check]:
    """Whether a provider is reachable and takes our keys, each of them; costs nothing there."""
    from headgate_server.providers import endpoint_of, keyring_of, vendor_of

    label = f"provider {name}"
    try:
        vendor = vendor_of(settings.kind, settings.base_url)
    except KeyError:
        return [Check(label, "warn", f"how to examine kind {settings.kind} is not known")]
    endpoint = endpoint_of(settings, vendor)
    if settings.kind == "headgate":
        return [await _gateway(label, endpoint.base_url, name, settings, config)]
    if not vendor.models_path:
        return [await _cloud(label, endpoint, settings, vendor)]
    keyring = keyring_of(settings, vendor)
    if keyring is None or len(keyring.keys) == 1:
        return [await _examined(label, endpoint, settings, vendor)]
    return await asyncio.gather(
        *(
            _examined(f"{label}, key {key.name}", key.endpoint, settings, vendor)
            for key in keyring.keys
        )
    )


async def _examined(label: str, endpoint: Endpoint, settings: Provider, vendor: Vendor) -> Check:
    """Whether a provider that lists its models does so for one key."""
    import httpx

    base, headers = endpoint.base_url, dict(endpoint.headers)
    if vendor.dialect == "anthropic":
        # https://docs.claude.com/en/api/versioning
        headers.setdefault("anthropic-version", "2023-06-01")
    url = base
    if settings.kind == "azure":
        # https://learn.microsoft.com/azure/ai-foundry/openai/reference-preview-latest
        url = base if base.endswith("/openai/v1") else f"{base}/openai/v1"
    try:
        async with (
            asyncio.timeout(_PROVIDER_SECONDS),
            httpx.AsyncClient(
                timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
                follow_redirects=False,
                trust_env=False,
                verify=ssl.create_default_context(),
            ) as client,
        ):
            path = f"{url}{vendor.models_path}"
            status, listed, location = await _listing(client, path, headers, vendor)
            public: int | None = None
            if status == 200 and _has_key(settings):
                # A list that everybody gets says nothing about the key.
                with contextlib.suppress(httpx.HTTPError):
                    public, _, _ = await _listing(client, path, {}, vendor)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Check(label, "fail", f"{base}: {_reason(error)}", _reach_advice(error))
    return _judged(label, base, status, listed, location, public, settings)


def _has_key(settings: Provider) -> bool:
    return bool(settings.api_key or settings.api_keys)


async def _gateway(label: str, base: str, name: str, settings: Provider, config: Config) -> Check:
    """Another gateway: whether it lists its models for our key."""
    from headgate.core import CallContext
    from headgate.errors import GatewayError, PermissionDenied, Unauthenticated
    from headgate.v1 import model_service_pb2
    from headgate_server.app import gateway_client

    async with gateway_client(settings, config) as client:
        try:
            listed = await client.list_models(
                model_service_pb2.ListModelsRequest(), CallContext.with_timeout(_ANSWER_SECONDS)
            )
        except (Unauthenticated, PermissionDenied):
            return Check(label, "fail", f"{base}: reachable, but the key is refused",
                         "Renew or correct it.")  # fmt: skip
        except GatewayError as error:
            return Check(label, "fail", f"{base}: {error.message}",
                         "base_url is the other gateway's gRPC address; does it run?")  # fmt: skip
    return Check(label, "ok", f"{base}: reachable, {len(listed.models)} models")


async def _cloud(label: str, endpoint: Endpoint, settings: Provider, vendor: Vendor) -> Check:
    """A cloud without a list that costs nothing: whether it answers, and we have credentials."""
    import httpx

    from headgate.errors import GatewayError
    from headgate_server.config import ConfigError
    from headgate_server.credentials import authorizer
    from headgate_server.providers.base import HttpCall

    base = endpoint.base_url
    try:
        sign = authorizer(settings, vendor)
        if sign is not None:
            async with asyncio.timeout(_PROVIDER_SECONDS):
                await sign(HttpCall(f"{base}/", endpoint.headers, b"{}"), None)
    except (GatewayError, ConfigError, TimeoutError) as error:
        return Check(label, "fail", f"no credentials: {error}", "See the setting's description.")
    try:
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False) as client:
            await client.get(base)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Check(label, "fail", f"{base}: {_reason(error)}", _reach_advice(error))
    return Check(label, "ok", f"{base}: reachable, credentials found (not tested)")


async def _listing(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], vendor: Vendor
) -> tuple[int, int | None, str]:
    """Status of GET /models, how many models it lists (None: no such list), where it redirects."""
    body = bytearray()
    async with client.stream("GET", url, headers=headers, params=vendor.query or None) as answer:
        if answer.status_code == 200:
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _MAX_LIST_BYTES:
                    break
    target = urlsplit(answer.headers.get("location", ""))
    location = f"{target.scheme}://{target.hostname}{target.path}" if target.hostname else ""
    try:
        found = json.loads(body)
    except ValueError:
        return answer.status_code, None, location
    models = found.get("data", found.get("models")) if isinstance(found, dict) else found
    return answer.status_code, len(models) if isinstance(models, list) else None, location


def _judged(
    label: str,
    base: str,
    status: int,
    listed: int | None,
    location: str,
    public: int | None,
    settings: Provider,
) -> Check:
    def check(state: State, finding: str, advice: str = "") -> Check:
        return Check(label, state, f"{base}: {finding}", advice)

    if status == 200:
        if listed is None:
            return check("warn", "answers, but not with a list of models", "Is base_url right?")
        key = ""
        if public is not None:
            key = "key not tested (the list is public), " if public == 200 else "key accepted, "
        return check("ok", f"reachable, {key}{listed} models")
    if status in (401, 403):
        advice = "Renew or correct it."
        if not _has_key(settings) and not settings.headers:
            return check("fail", f"reachable, but wants a key ({status})", "Give it an api_key.")
        return check("fail", f"reachable, but the key is refused ({status})", advice)
    if 300 <= status < 400:
        advice = "Redirects are never followed: make base_url the final address."
        return check("fail", f"redirects ({status}) to {location or 'elsewhere'}", advice)
    if status == 429:
        return check("warn", "reachable, but limits us now (429)", "Check its quota and billing.")
    if status >= 500:
        return check("warn", f"reachable, but failing ({status})", "Look at its status page.")
    finding = f"reachable, cannot list models ({status}), so the key was not tested"
    if settings.base_url is not None:
        return check("warn", finding, "Does base_url lack its last part, such as /v1?")
    return check("ok", finding)


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        if isinstance(current, BaseExceptionGroup):
            current = current.exceptions[0]
        else:
            current = current.__cause__ or current.__context__


def _reason(error: BaseException) -> str:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "its name cannot be resolved (DNS)"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS failed: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or cause}"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection is refused"
    if any(isinstance(c, TimeoutError) or "Timeout" in type(c).__name__ for c in causes):
        return "no answer in time"
    return str(error) or type(error).__name__


def _reach_advice(error: BaseException) -> str:
    reason = _reason(error)
    if "DNS" in reason:
        return "Check base_url, the network and DNS."
    if "TLS" in reason:
        return "Check that base_url says http or https as the server does, and whom we trust."
    return "Check that the server runs and that base_url and the firewall are right."
