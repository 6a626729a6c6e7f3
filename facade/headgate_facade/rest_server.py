"""The REST listener: uvicorn on a socket of ours, in a loop of ours, with signals left to the owner."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate.listening import TlsFiles, bind
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
            tls.check()
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


def _inode(address: str) -> int | None:
    """Which socket file lies at the address, if it is a path."""
    if not address.startswith("unix:"):
        return None
    try:
        return Path(address.removeprefix("unix:")).stat().st_ino
    except OSError:
        return None


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
