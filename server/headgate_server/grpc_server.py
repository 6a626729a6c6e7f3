"""The gRPC listener: transport options, TLS, health, reflection, and a graceful end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from headgate.core import ChatCore
from headgate.v1 import (
    chat_service_pb2,
    chat_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)

from headgate_server.grpc_api import ChatServicer, ModelServicer

_SERVICES = (
    chat_service_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a listener; a client CA makes client certificates mandatory."""

    cert_file: str
    key_file: str
    client_ca_file: str | None = None


class GrpcServer:
    """Serves a core at one address.

    Args:
        core: what to serve.
        address: ``HOST:PORT`` (port 0: any free one) or ``unix:/path``.
        max_message_bytes: the largest message either way.
        tls: None means plaintext.
        reuse_port: whether other processes may listen at the same port.
    """

    def __init__(
        self,
        core: ChatCore,
        address: str,
        *,
        max_message_bytes: int,
        tls: TlsFiles | None = None,
        reuse_port: bool = False,
    ) -> None:
        self._core = core
        self._address = address
        self._tls = tls
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
        ]
        self._server: grpc.aio.Server | None = None
        self._health: health.aio.HealthServicer | None = None

    async def start(self) -> str:
        """Begins to serve; returns the address with the port really taken.

        Raises:
            OSError: the address is taken or not ours, or a TLS file cannot be read.
        """
        server = grpc.aio.server(options=self._options)
        chat_service_pb2_grpc.add_ChatServiceServicer_to_server(ChatServicer(self._core), server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(self._core), server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for service in ("", *_SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        try:
            port = self._bind(server)
        except RuntimeError as error:
            raise OSError(f"cannot listen at {self._address}") from error
        await server.start()
        self._server = server
        host, colon, _ = self._address.rpartition(":")
        return self._address if self._address.startswith("unix:") else f"{host}{colon}{port}"

    async def stop(self, grace_seconds: float) -> None:
        """Says NOT_SERVING, takes no new calls, lets running ones end, then ends them."""
        if self._server is None:
            return
        server, self._server = self._server, None
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
        await server.stop(grace_seconds)

    def _bind(self, server: grpc.aio.Server) -> int:
        if self._tls is None:
            return server.add_insecure_port(self._address)
        pair = (_read(self._tls.key_file), _read(self._tls.cert_file))
        client_ca = self._tls.client_ca_file
        credentials = grpc.ssl_server_credentials(
            [pair],
            root_certificates=_read(client_ca) if client_ca else None,
            require_client_auth=client_ca is not None,
        )
        return server.add_secure_port(self._address, credentials)


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
