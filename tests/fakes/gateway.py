"""A whole gateway in the test's own process, over real sockets, with every settlement kept.

``apart=True`` puts gRPC between facade and core, as `headgate facade --core` does; otherwise the facade
calls the core directly, as `headgate serve` does. Tests that take both must not be able to tell.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Mapping
from types import TracebackType

import httpx
import uvicorn.server

from headgate import Client
from headgate.core import ChatCore, RouteCore
from headgate_facade.app import create_app
from headgate_facade.rest_server import RestServer
from headgate_facade.settings import FacadeSettings
from headgate_server.admin import Admin
from headgate_server.app import App
from headgate_server.config import Config, parse_config
from headgate_server.grpc_server import GrpcServer
from headgate_server.local import LocalModelOptions
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES
from headgate_server.settlement import Settlement

KEY = "test-key-0123456789"


async def _short_sleep(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.002))


# uvicorn looks every tenth of a second whether its connections have gone: minutes, over all tests.
uvicorn.server.asyncio = types.SimpleNamespace(**(vars(asyncio) | {"sleep": _short_sleep}))  # type: ignore[assignment]


def config_for(upstream_base_url: str, *, extra: str = "", model_extra: str = "") -> str:
    """The usual configuration: provider `up` at a fake upstream, model `m` on it."""
    return f"""
providers:
  up: {{kind: openai, base_url: "{upstream_base_url}", api_key: "upstream-secret-key"}}
models:
  m: {{targets: [{{provider: up, model: upstream-m}}]{model_extra}}}
{extra}
"""


class Gateway:
    """A gateway under test.

    Attributes:
        settlements: what the settlement hook got, in order.
        rest_url: such as ``http://127.0.0.1:1234``.
        grpc_address: such as ``127.0.0.1:1235``.
    """

    def __init__(
        self,
        config: str,
        *,
        apart: bool = False,
        env: Mapping[str, str] | None = None,
        facade: FacadeSettings | None = None,
        local_options: Mapping[str, LocalModelOptions] | None = None,
        natural_homes: bool = False,
    ) -> None:
        self._env = env or {}
        self.config = self._parsed(config)
        self.settlements: list[Settlement] = []
        self.app = App(
            self.config,
            local_options=local_options,
            natural_homes=natural_homes,
            hooks=[self.settlements.append],
        )
        self.apart = apart
        self.rest_url = ""
        self.grpc_address = ""
        self._facade = facade
        self._client: Client | None = None

    async def __aenter__(self) -> Gateway:
        await self.app.__aenter__()
        limit = self.config.limits.message_bytes
        routes: RouteCore = Admin(self.app.core)
        self._grpc = GrpcServer(
            self.app.core, "127.0.0.1:0", max_message_bytes=limit, routes=routes
        )
        self.grpc_address = await self._grpc.start()
        core: ChatCore = self.app.core
        if self.apart:
            self._client = core = routes = Client(self.grpc_address, max_message_bytes=limit)
        self._rest = RestServer(create_app(core, self._facade, routes), "127.0.0.1:0")
        self.rest_url = "http://" + await self._rest.start()
        if self.app.local_models:
            await self.app.start_local_models()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._rest.stop(1)
        if self._client is not None:
            await self._client.close()
        await self._grpc.stop(1)
        await self.app.__aexit__(exc_type, exc, traceback)

    async def reload(self, config: str) -> None:
        """What SIGHUP does with a file that says this."""
        await self.app.reload(self._parsed(config))

    def _parsed(self, config: str) -> Config:
        if "retries:" not in config:
            # What a test counts are the attempts that it is about.
            config += "\nretries: {max: 0}\n"
        return parse_config(
            config, "test.yaml", kinds=kinds(), strategies=STRATEGIES, env=self._env
        )

    def forget(self) -> None:
        """Every target is as if it had never been called, for tests that share a gateway."""
        for health in self.app.core.setup.board.all():
            health.__init__(health.provider, health.model, *health._settings)  # type: ignore[misc]
        for provider in self.app.core.setup.providers.values():
            if provider.keyring is not None:
                provider.keyring._benches.clear()

    def http(self, **options: object) -> httpx.AsyncClient:
        """An HTTP client for the REST side."""
        return httpx.AsyncClient(base_url=self.rest_url, timeout=30, **options)  # type: ignore[arg-type]

    def client(self, **options: object) -> Client:
        """A gRPC client."""
        return Client(self.grpc_address, **options)  # type: ignore[arg-type]

    async def settled(self, count: int = 1, within: float = 5.0) -> list[Settlement]:
        """Waits until so many calls were settled; returns them all."""
        async with asyncio.timeout(within):
            while len(self.settlements) < count:
                await asyncio.sleep(0.005)
        return self.settlements
