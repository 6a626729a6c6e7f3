"""The server's composition root: a configuration in, a running core out.

Owns the wiring and the lifetimes: providers with their connections, embedded models, the core. Nothing
else constructs these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from headgate.client import Client, Tls
from headgate.errors import Overloaded, UpstreamUnavailable
from headgate_server.auth import authenticator
from headgate_server.config import Config
from headgate_server.config import Provider as ProviderSettings
from headgate_server.core import Core
from headgate_server.credentials import authorizer
from headgate_server.execute import Executor
from headgate_server.local import DEFAULT_SLOTS, LocalModel, LocalModelOptions, State
from headgate_server.providers import dialect_of, endpoint_of, vendor_of
from headgate_server.providers.base import Endpoint, Timeouts
from headgate_server.providers.remote import Patience, RemoteProvider
from headgate_server.providers.runtime import Gate, HttpProvider, Provider
from headgate_server.routing import Router
from headgate_server.settlement import Hook, log_settlement
from headgate_server.upstream import Upstream

# Calls that may queue for an embedded model before further ones are told to come back.
_MAX_WAITING = 64
_GRPC_PORT = 50051


class App:
    """A core and all that it runs on. An async context manager: leaving it closes everything.

    Args:
        config: validated.
        local_options: how to run each provider of kind local, by name.
        local_endpoints: (base URL, key) of local models that another process runs.
        natural_homes: see `Router`.
        hooks: further settlement hooks, behind the access log.
    """

    def __init__(
        self,
        config: Config,
        *,
        local_options: Mapping[str, LocalModelOptions] | None = None,
        local_endpoints: Mapping[str, tuple[str, str]] | None = None,
        natural_homes: bool = False,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.local_models = {
            name: LocalModel(options) for name, options in (local_options or {}).items()
        }
        self._local_endpoints = dict(local_endpoints or {})
        self._upstreams: list[Upstream] = []
        self._clients: list[Client] = []
        providers: dict[str, Provider] = {
            name: self._provider(name, settings, config)
            for name, settings in config.providers.items()
        }
        self.core = Core(
            authenticator(config.auth),
            Router(config, providers, natural_homes=natural_homes),
            Executor(providers),
            [log_settlement, *hooks],
        )

    async def start_local_models(self) -> None:
        """Loads the embedded models; returns when all are ready. Raises `LocalModelError`."""
        await asyncio.gather(*(model.start() for model in self.local_models.values()))

    async def __aenter__(self) -> App:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for upstream in self._upstreams:
            await upstream.close()
        for client in self._clients:
            await client.close()
        for model in self.local_models.values():
            await model.stop()

    def _local_endpoint(self, name: str) -> Callable[[], Endpoint]:
        if name in self._local_endpoints:
            elsewhere = _bearer(*self._local_endpoints[name])
            return lambda: elsewhere
        model = self.local_models.get(name)

        def endpoint() -> Endpoint:
            found = model.endpoint() if model is not None else None
            if found is not None:
                return _bearer(found.base_url, found.api_key)
            if model is None or model.state is State.FAILED:
                raise UpstreamUnavailable(f"the local model of provider {name!r} does not run")
            doing = "restarting" if model.state is State.RESTARTING else "loading"
            raise Overloaded(f"the local model of provider {name!r} is {doing}", retry_after=1.0)

        return endpoint

    def _remote(self, name: str, settings: ProviderSettings, config: Config) -> Provider:
        """Another gateway."""
        client = gateway_client(settings, config)
        self._clients.append(client)
        limits = _timeouts(settings, config)
        key = settings.api_key.get_secret_value() if settings.api_key else None
        return RemoteProvider(
            name=name,
            vendor=vendor_of(settings.kind, settings.base_url),
            core=client,
            patience=Patience(limits.first_byte, limits.idle, limits.total),
            secrets=(key,) if key else (),
        )

    def _provider(self, name: str, settings: ProviderSettings, config: Config) -> Provider:
        if settings.kind == "headgate":
            return self._remote(name, settings, config)
        vendor = vendor_of(settings.kind, settings.base_url)
        upstream = Upstream(
            name, _timeouts(settings, config), max_body_bytes=config.limits.upstream_response_bytes
        )
        self._upstreams.append(upstream)
        secrets = [value.get_secret_value() for value in settings.headers.values()]
        for secret in (
            settings.api_key,
            settings.bearer_token,
            settings.secret_access_key,
            settings.session_token,
        ):
            if secret:
                secrets.append(secret.get_secret_value())
        if settings.kind == "local":
            endpoint = self._local_endpoint(name)
        else:
            fixed = endpoint_of(settings, vendor)

            def endpoint() -> Endpoint:
                return fixed

        return HttpProvider(
            name=name,
            kind=settings.kind,
            vendor=vendor,
            dialect=dialect_of(settings.kind, vendor, config.limits.sse_line_bytes),
            upstream=upstream,
            endpoint=endpoint,
            authorize=authorizer(settings, vendor),
            always_stream=settings.kind == "local",
            gate=Gate(_local_slots(settings), _MAX_WAITING) if settings.kind == "local" else None,
            api_version=settings.api_version,
            secrets=tuple(secrets),
        )


def _local_slots(settings: ProviderSettings) -> int:
    given = settings.options.slots if settings.options is not None else None
    return given or DEFAULT_SLOTS


def _bearer(base_url: str, key: str) -> Endpoint:
    return Endpoint(
        base_url,
        {
            "content-type": "application/json",
            "authorization": f"Bearer {key}",
            # It says keep-alive and closes all the same.
            "connection": "close",
        },
    )


def gateway_client(settings: ProviderSettings, config: Config) -> Client:
    """A client of another gateway (kind headgate), not yet connected."""
    target, tls = _grpc_address(settings)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return Client(target, api_key=key, tls=tls, max_message_bytes=config.limits.message_bytes)


def _grpc_address(settings: ProviderSettings) -> tuple[str, Tls | None]:
    """Where another gateway listens, and how its connection is secured."""
    url = urlsplit(settings.base_url or "")
    host = f"[{url.hostname}]" if url.hostname and ":" in url.hostname else url.hostname
    target = f"{host}:{url.port or _GRPC_PORT}"
    if url.scheme != "https":
        return target, None
    files = settings.tls

    def read(path: str | None) -> bytes | None:
        return Path(path).read_bytes() if path else None

    if files is None:
        return target, Tls()
    return target, Tls(
        root_certificates=read(files.ca_file),
        private_key=read(files.key_file),
        certificate_chain=read(files.cert_file),
        server_name=files.server_name,
    )


def _timeouts(settings: ProviderSettings, config: Config) -> Timeouts:
    own = settings.timeouts
    values = {
        field: (getattr(own, field) if own is not None else None) or getattr(config.timeouts, field)
        for field in ("connect", "first_byte", "first_token", "idle", "total")
    }
    return Timeouts(**values)
