"""The REST listener: uvicorn on a socket of ours, in a loop of ours, with signals left to the owner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Longer than the idle limit of usual load balancers (60 s), so that they close first.
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the listener; a client CA makes client certificates mandatory."""

    cert_file: str
    key_file: str
    client_ca_file: str | None = None


class RestServer:
    """Serves an ASGI app at one address.

    Args:
        app: what to serve.
        address: ``HOST:PORT`` (port 0: any free one) or ``unix:/path``.
        tls: None means plaintext.
        reuse_port: whether other processes may listen at the same port.
    """

    def __init__(
        self, app: Any, address: str, *, tls: TlsFiles | None = None, reuse_port: bool = False
    ) -> None:
        self._app = app
        self._address = address
        self._tls = tls
        self._reuse_port = reuse_port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Begins to serve; returns the address with the port really taken. Raises OSError."""
        listener, address = bind(self._address, reuse_port=self._reuse_port)
        tls = self._tls
        config = uvicorn.Config(
            self._app,
            loop="none",
            http=_PeerAwareProtocol if tls and tls.client_ca_file else HttpToolsProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            backlog=_BACKLOG,
            ssl_certfile=tls.cert_file if tls else None,
            ssl_keyfile=tls.key_file if tls else None,
            ssl_ca_certs=tls.client_ca_file if tls else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca_file else ssl.CERT_NONE,
        )
        self._server = server = _Server(config)
        self._serving = asyncio.create_task(server.serve(sockets=[listener]), name="rest")
        while not server.started:
            if self._serving.done():
                await self._serving
                raise OSError(f"the REST listener at {address} ended at once")
            await asyncio.sleep(0.005)
        return address

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new connections, lets running requests end, then ends them."""
        if self._server is None or self._serving is None:
            return
        self._server.config.timeout_graceful_shutdown = max(int(grace_seconds), 0)
        self._server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await self._serving
        if self._address.startswith("unix:"):
            _remove_stale(Path(self._address.removeprefix("unix:")))


def bind(address: str, *, reuse_port: bool = False) -> tuple[socket.socket, str]:
    """A bound socket, not yet listening, and the address with the port really taken."""
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        return listener, address
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
    except OSError:
        listener.close()
        raise
    return listener, f"{host}:{listener.getsockname()[1]}"


def _remove_stale(path: Path) -> None:
    """Removes the socket of a process that is gone; leaves one alone that somebody listens at."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(98, "address already in use", str(path))


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has one owner of signals, and it is not this."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _PeerAwareProtocol(HttpToolsProtocol):
    """Puts the names of the verified client certificate into the scope, where ASGI has no place."""

    def on_message_begin(self) -> None:
        """Called when a request begins; the scope is made here."""
        super().on_message_begin()
        tls = self.transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert() if tls is not None else None
        if certificate:
            self.scope["extensions"] = {"headgate.peer": {"names": certificate_names(certificate)}}


def certificate_names(certificate: dict[str, Any]) -> tuple[str, ...]:
    """Common name, then alternative names, as gRPC lists them."""
    names = [
        value
        for field in certificate.get("subject", ())
        for key, value in field
        if key == "commonName"
    ]
    names.extend(value for _, value in certificate.get("subjectAltName", ()))
    return tuple(dict.fromkeys(names))
