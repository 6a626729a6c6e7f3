"""The gRPC listener: transport options, TLS, health, reflection, and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from headgate.admin.v1 import route_service_pb2, route_service_pb2_grpc
from headgate.core import ChatCore, RouteCore
from headgate.listening import TlsFiles, bind, remove_stale
from headgate.v1 import (
    chat_service_pb2,
    chat_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)
from headgate_server.grpc_api import ChatServicer, ModelServicer, RouteServicer

_SERVICES = (
    chat_service_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)
_ROUTE_SERVICE = route_service_pb2.DESCRIPTOR.services_by_name["RouteService"].full_name

_TELL_SECONDS = 1.0


class GrpcServer:
    """Serves a core at one address.

    Args:
        core: what to serve.
        address: ``HOST:PORT`` (port 0: any free one) or ``unix:/path``.
        max_message_bytes: the largest message either way.
        routes: what operators are told about routing; None: they are not.
        tls: None means plaintext.
        reuse_port: whether other processes may listen at the same port.
    """

    def __init__(
        self,
        core: ChatCore,
        address: str,
        *,
        max_message_bytes: int,
        routes: RouteCore | None = None,
        tls: TlsFiles | None = None,
        reuse_port: bool = False,
    ) -> None:
        self._core = core
        self._routes = routes
        self._address = address
        self._tls = tls
        self._reuse_port = reuse_port
        self._options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.so_reuseport", int(reuse_port)),
            # Clients may ping as often as every ten seconds, so that they notice a dead gateway.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # And the gateway notices dead clients, whose calls would run on for nobody.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # A connection that never says anything would hold up the end for two minutes.
            ("grpc.server_handshake_timeout_ms", 5_000),
        ]
        self._server: grpc.aio.Server | None = None
        self._endless = _Endless()
        self._health = _Health(self._endless)

    async def start(self) -> str:
        """Begins to serve; returns the address with the port really taken.

        Raises:
            OSError: the address is taken or not ours, or a TLS file cannot be read.
        """
        server = grpc.aio.server(options=self._options)
        chat_service_pb2_grpc.add_ChatServiceServicer_to_server(ChatServicer(self._core), server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(self._core), server)
        services: tuple[str, ...] = _SERVICES
        if self._routes is not None:
            services = (*services, _ROUTE_SERVICE)
            route_service_pb2_grpc.add_RouteServiceServicer_to_server(
                RouteServicer(self._routes), server
            )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for service in ("", *services):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            _Reflection(self._endless, names), server
        )
        try:
            port = self._bind(server)
        except RuntimeError as error:
            raise OSError("it is taken, or not an address of this machine") from error
        await server.start()
        self._server = server
        host, colon, _ = self._address.rpartition(":")
        return self._address if self._address.startswith("unix:") else f"{host}{colon}{port}"

    async def stop(self, grace_seconds: float) -> None:
        """Says NOT_SERVING, takes no new calls, lets running ones end, then ends them."""
        if self._server is None:
            return
        server, self._server = self._server, None
        stopping = asyncio.ensure_future(server.stop(grace_seconds))
        # A watcher who does not read must not hold up the end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._health.enter_graceful_shutdown(), _TELL_SECONDS)
        self._endless.end()
        await stopping

    def _bind(self, server: grpc.aio.Server) -> int:
        # For the system's OSError, which says more than gRPC does; and gRPC would replace the socket
        # file of somebody who listens there.
        if self._address.startswith("unix:"):
            remove_stale(self._address.removeprefix("unix:"))
        else:
            bind(self._address, reuse_port=self._reuse_port)[0].close()
        if self._tls is None:
            return server.add_insecure_port(self._address)
        self._tls.check()
        pair = (_read(self._tls.key_file), _read(self._tls.cert_file))
        client_ca = self._tls.client_ca_file
        credentials = grpc.ssl_server_credentials(
            [pair],
            root_certificates=_read(client_ca) if client_ca else None,
            require_client_auth=client_ca is not None,
        )
        return server.add_secure_port(self._address, credentials)


class _Endless:
    """Calls that go on until their caller leaves; a server that stops must end them itself."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended = False

    @contextlib.contextmanager
    def until_end(self) -> Iterator[None]:
        """Leaves the block, quietly, at the end."""
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - gRPC always runs us in one
            raise RuntimeError("not in a task")
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._ended:
                raise
            task.uncancel()
        finally:
            self._tasks.discard(task)

    def end(self) -> None:
        self._ended = True
        for task in self._tasks:
            task.cancel()


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # its package has no types
    def __init__(self, endless: _Endless) -> None:
        super().__init__()
        self._endless = endless

    async def Watch(self, request: Any, context: Any) -> None:
        """The states of a service, as they change."""
        with self._endless.until_end():
            await super().Watch(request, context)


class _Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]  # likewise
    def __init__(self, endless: _Endless, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._endless = endless

    async def ServerReflectionInfo(
        self, request_iterator: Any, context: Any
    ) -> AsyncGenerator[Any, None]:
        """Answers as long as the caller asks."""
        with self._endless.until_end():
            async for answer in super().ServerReflectionInfo(request_iterator, context):
                yield answer


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
