"""The REST listener: uvicorn on a socket of ours, in a loop of ours, with signals left to the owner."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate_facade.connection import EXTENSION, ClientConnection, Coalescing

# Longer than the idle limit of usual load balancers (60 s), so that they close first.
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
_CLEAN_UP_SECONDS = 1.0
# The members that the clients of every dialect look for.
_STOPPED = (
    b'{"type":"error","error":{"message":"the gateway is stopping","type":"server_error",'
    b'"param":null,"code":"overloaded"}}'
)


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
        self._app = _cut_off_politely(app)
        self._address = address
        self._tls = tls
        self._reuse_port = reuse_port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._socket_file: int | None = None

    async def start(self) -> str:
        """Begins to serve; returns the address with the port really taken. Raises OSError."""
        tls = self._tls
        if tls is not None:
            _check_pair(tls)
        listener, address = bind(self._address, reuse_port=self._reuse_port)
        self._socket_file = _inode(self._address)
        config = uvicorn.Config(
            self._app,
            loop="none",
            http=_Protocol,
            ws="none",
            proxy_headers=False,
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
        server, self._server = self._server, None
        # Typed as whole seconds, used as seconds.
        server.config.timeout_graceful_shutdown = cast(int, max(grace_seconds, 0.0))
        server.should_exit = True
        server.leaving.set()
        self._remove_socket_file()
        with contextlib.suppress(asyncio.CancelledError):
            await self._serving
        # uvicorn cancels what is left when the time is up, but does not wait for it to end.
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=_CLEAN_UP_SECONDS)

    def _remove_socket_file(self) -> None:
        """Ours, not that of another process that has begun to listen there since."""
        if self._socket_file is not None and _inode(self._address) == self._socket_file:
            Path(self._address.removeprefix("unix:")).unlink(missing_ok=True)


def bind(address: str, *, reuse_port: bool = False) -> tuple[socket.socket, str]:
    """A bound socket, not yet listening, and the address with the port really taken."""
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
        except OSError:
            listener.close()
            raise
        return listener, address
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's algorithm off only where it is.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
    except OSError:
        listener.close()
        raise
    return listener, f"{host}:{listener.getsockname()[1]}"


def _inode(address: str) -> int | None:
    """Which socket file lies at the address, if it is a path."""
    if not address.startswith("unix:"):
        return None
    try:
        return Path(address.removeprefix("unix:")).stat().st_ino
    except OSError:
        return None


def _check_pair(tls: TlsFiles) -> None:
    """Raises OSError that tells what is wrong, where uvicorn's would not."""
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.client_ca_file)
        context.load_cert_chain(tls.cert_file, tls.key_file)
    except ssl.SSLError as error:
        raise OSError(f"the TLS files are not usable: {error.reason or error}") from error


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
            raise OSError(errno.EADDRINUSE, "somebody listens there already")


def _cut_off_politely(app: Any) -> Any:
    """The app, but a request that outlives the drain gets 503 if it has no answer yet.

    uvicorn would make it a plain 500, and log the cancellation as a defect of the app.
    """

    async def polite(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(_STOPPED)),
                (b"connection", b"close"),
            ]
            # RuntimeError: the answer has begun, and ends here.
            with contextlib.suppress(RuntimeError):
                await send({"type": "http.response.start", "status": 503, "headers": headers})
                await send({"type": "http.response.body", "body": _STOPPED})

    return polite


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has one owner of signals, and it is not this.

    And without its ten looks a second whether it should end: it is told.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.leaving = asyncio.Event()

    async def main_loop(self) -> None:
        """Ticks once a second, which keeps the date header right."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.leaving.wait(), 1.0)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with what ASGI has no place for: see `headgate_facade.connection`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(Coalescing(transport))  # type: ignore[arg-type]
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert() if tls is not None else None
        self.peer = ClientConnection(certificate_names(certificate) if certificate else ())

    def on_message_begin(self) -> None:
        """A request begins; the scope is made here."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self.peer}  # type: ignore[dict-item]

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        self.peer.lost()


def certificate_names(certificate: dict[str, Any]) -> tuple[str, ...]:
    """Common name, then DNS and URI names: what `headgate.core.CallContext.peer` holds."""
    names = [
        value
        for field in certificate.get("subject", ())
        for key, value in field
        if key == "commonName"
    ]
    for wanted in ("DNS", "URI"):
        names.extend(
            value for kind, value in certificate.get("subjectAltName", ()) if kind == wanted
        )
    return tuple(dict.fromkeys(names))
