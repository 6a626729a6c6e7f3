"""The server's composition root: a configuration in, a running core out.

Owns the wiring and the lifetimes: providers with their connections, embedded models, the core. Nothing
else constructs these. A new configuration is wired beside the running one and takes its place at once;
what it does not take over is closed when the calls that use it have ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from headgate.client import Client, Tls
from headgate.errors import Overloaded, UpstreamUnavailable
from headgate_server.answers import Answers
from headgate_server.auth import authenticator
from headgate_server.config import Config, Problem
from headgate_server.config import Provider as ProviderSettings
from headgate_server.config.changes import Point, follow, nowhere
from headgate_server.core import Core, Setup
from headgate_server.credentials import authorizer
from headgate_server.execute import Executor
from headgate_server.health import Board
from headgate_server.local import DEFAULT_SLOTS, LocalModel, LocalModelOptions, State
from headgate_server.prices import Prices
from headgate_server.providers import (
    dialect_of,
    endpoint_of,
    keyring_of,
    secrets_of,
    vendor_of,
)
from headgate_server.providers.base import Endpoint, Timeouts
from headgate_server.providers.remote import RemoteProvider
from headgate_server.providers.runtime import Gate, HttpProvider, Provider
from headgate_server.routing import Router
from headgate_server.settlement import Hook, log_settlement
from headgate_server.shadow import Shadows
from headgate_server.upstream import Upstream

T = TypeVar("T")

# Calls that may queue for an embedded model before further ones are told to come back.
_MAX_WAITING = 64
_GRPC_PORT = 50051
# How often a replaced configuration is asked whether its last call has ended.
_LOOK_SECONDS = 0.05


class _Held(msgspec.Struct, Generic[T], eq=False):
    """Something to be closed when the last configuration that uses it has ended.

    Attributes:
        settings: what it was made from; one that is made from the same can be taken over.
            None is like nothing else.
    """

    value: T
    close: Callable[[], Awaitable[None]]
    settings: object = None
    users: int = 0


class _Wiring(msgspec.Struct, eq=False):
    """A configuration at work, with what it holds."""

    config: Config
    setup: Setup
    providers: dict[str, _Held[Provider]]
    answers: _Held[Answers]
    shadows: _Held[Shadows]

    def held(self) -> list[_Held[Provider] | _Held[Answers] | _Held[Shadows]]:
        """All of it, in the order in which it is to be closed."""
        return [self.shadows, self.answers, *self.providers.values()]


class App:
    """A core and all that it runs on. An async context manager: leaving it closes everything.

    Args:
        config: validated.
        local_options: how to run each provider of kind local, by name.
        local_endpoints: (base URL, key) of local models that another process runs.
        natural_homes: see `Router`.
        hooks: further settlement hooks, behind the access log.

    Attributes:
        core: the same one from the beginning to the end.
        local_models: by the provider's name.
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
        self._natural_homes = natural_homes
        self._prices = Prices()
        self._started = config
        self._reloading = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], _Wiring] = {}
        self._now = self._wire(config, Board(config), None)
        self._adopt(self._now)
        self.core = Core(self._now.setup, [log_settlement, *hooks])

    @property
    def config(self) -> Config:
        """What it runs now: the last configuration, with the old values of what needs a restart."""
        return self._now.config

    async def start_local_models(self) -> None:
        """Loads the embedded models; returns when all are ready. Raises `LocalModelError`."""
        await asyncio.gather(*(model.start() for model in self.local_models.values()))

    async def reload(self, config: Config, point: Point = nowhere) -> list[Problem]:
        """Puts a new configuration in the place of the running one, without losing a call.

        Calls under way end with the old one, which gets `drain` seconds for that. What is known of
        targets, kept answers and the connections of unchanged providers are taken over.

        Args:
            config: validated.
            point: finds the places of its settings in a file.

        Returns:
            What takes effect only at a restart.

        Raises:
            ConfigError: it cannot be used, and nothing has changed.
        """
        async with self._reloading:
            followed, waiting = follow(self._started, config, point)
            old, board = self._now, Board(followed)
            board.adopt(old.setup.board)
            # In a thread: a thousand targets take longer than calls should wait.
            new = await asyncio.to_thread(self._wire, followed, board, old)
            await self._prepare(new)
            self._adopt(new)
            self.core.use(new.setup)
            if new.answers is not old.answers:
                new.answers.value.adopt(old.answers.value)
            self._now = new
            task = asyncio.create_task(self._retire(old))
            self._retiring[task] = old
            task.add_done_callback(self._retiring.pop)
            return waiting

    async def __aenter__(self) -> App:
        await self._prepare(self._now)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        wirings = [self._now, *self._retiring.values()]
        tasks = list(self._retiring)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for held in {id(held): held for wiring in wirings for held in wiring.held()}.values():
            await held.close()
        for model in self.local_models.values():
            await model.stop()

    async def _prepare(self, wiring: _Wiring) -> None:
        """What must be there before the first call."""
        if wiring.setup.router.needs_prices:
            await self._prices.load()

    async def _retire(self, wiring: _Wiring) -> None:
        """Closes what a replaced configuration holds alone, when its calls have ended."""
        ends = time.monotonic() + wiring.config.drain
        # No event instead: every call would have to set it, for the one in a million that is waited for.
        while wiring.setup.running and time.monotonic() < ends:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        await self._release(wiring)

    @staticmethod
    def _adopt(wiring: _Wiring) -> None:
        for held in wiring.held():
            held.users += 1

    @staticmethod
    async def _release(wiring: _Wiring) -> None:
        for held in wiring.held():
            held.users -= 1
            if not held.users:
                await held.close()

    def _wire(self, config: Config, board: Board, old: _Wiring | None) -> _Wiring:
        """Makes everything that a configuration decides, and touches nothing of the old one."""
        held = {
            name: self._provider(name, settings, config, old)
            for name, settings in config.providers.items()
        }
        providers = {name: one.value for name, one in held.items()}
        router = Router(
            config, providers, board, prices=self._prices, natural_homes=self._natural_homes
        )
        executor = Executor(router, board, config)
        answers = self._answers(config, old)
        shadows = Shadows(config, executor.complete)
        setup = Setup(
            authenticator=authenticator(config.auth),
            router=router,
            executor=executor,
            answers=answers.value,
            shadows=shadows,
            board=board,
            providers=providers,
            prices=self._prices,
        )
        return _Wiring(config, setup, held, answers, _Held(shadows, shadows.close))

    @staticmethod
    def _answers(config: Config, old: _Wiring | None) -> _Held[Answers]:
        # All that can make another answer out of the same request.
        settings = (
            config.cache, config.idempotency, config.models, config.providers, config.routes
        )  # fmt: skip
        if old is not None and old.answers.settings == settings:
            return old.answers
        answers = Answers(config)
        return _Held(answers, answers.close, settings)

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

    def _provider(
        self, name: str, settings: ProviderSettings, config: Config, old: _Wiring | None
    ) -> _Held[Provider]:
        """A provider, the old one if nothing about it has changed: its connections are warm."""
        limits = _timeouts(settings, config)
        made_from = (settings, limits, config.limits)
        known = old.providers.get(name) if old is not None else None
        if known is not None and known.settings == made_from:
            return known
        if settings.kind == "headgate":
            return self._remote(name, settings, config, limits)
        vendor = vendor_of(settings.kind, settings.base_url)
        upstream = Upstream(name, limits, max_body_bytes=config.limits.upstream_response_bytes)
        authorize = authorizer(settings, vendor)
        keyring = None
        if settings.kind == "local":
            endpoint = self._local_endpoint(name)
        else:
            fixed = endpoint_of(settings, vendor)
            keyring = keyring_of(settings, vendor)

            def endpoint() -> Endpoint:
                return fixed

        provider = HttpProvider(
            name=name,
            kind=settings.kind,
            vendor=vendor,
            dialect=dialect_of(settings.kind, vendor, config.limits.sse_line_bytes),
            upstream=upstream,
            endpoint=endpoint,
            authorize=authorize,
            always_stream=settings.kind == "local",
            gate=Gate(_local_slots(settings), _MAX_WAITING) if settings.kind == "local" else None,
            api_version=settings.api_version,
            secrets=secrets_of(settings),
            keyring=keyring,
        )
        # Credentials of a cloud come out of files, which may say something else by now.
        return _Held(provider, upstream.close, made_from if authorize is None else None)

    def _remote(
        self, name: str, settings: ProviderSettings, config: Config, limits: Timeouts
    ) -> _Held[Provider]:
        """Another gateway."""
        client = gateway_client(settings, config)
        provider = RemoteProvider(
            name=name,
            vendor=vendor_of(settings.kind, settings.base_url),
            core=client,
            patience=limits,
            secrets=secrets_of(settings),
        )
        made_from = (settings, limits, config.limits)
        # Certificates come out of files, as credentials do.
        return _Held(provider, client.close, made_from if settings.tls is None else None)


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
    secret = settings.api_keys[0].key if settings.api_keys else settings.api_key
    key = secret.get_secret_value() if secret else None
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
