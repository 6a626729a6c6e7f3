"""`doctor`: whether the addresses are free, or taken by a gateway that is well."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headgate.cli.check_config import served_certificate
from headgate.cli.models import all_models, connect, from_transport
from headgate.client import Tls as ClientTls
from headgate.errors import GatewayError

if TYPE_CHECKING:
    from headgate_server.config import Address, Config, Tls

from headgate.cli.doctor.check import Check

_PROBE_SECONDS = 3.0


async def listener(name: Literal["grpc", "rest"], config: Config) -> list[Check]:
    """Whether an address is free, or who has it."""
    from headgate_server.config import parse_address

    text = getattr(config.listen, name)
    label = f"listen.{name}"
    error = await asyncio.to_thread(_bind_error, parse_address(text))
    if error is None:
        return [Check(label, "ok", f"{text} is free; no gateway runs there")]
    if error.errno != errno.EADDRINUSE:
        advice = "Choose another address, or allow this one."
        return [Check(label, "fail", f"{text}: {error.strerror or error}", advice)]
    if config.listen.tls and config.listen.tls.client_ca_file:
        finding = f"{text} is taken by what may be a Headgate: it asks for a client certificate"
        advice = f"`headgate models --target {text} --ca ... --cert ...` asks with yours."
        return [Check(label, "warn", finding, advice if name == "grpc" else "")]
    probe = _grpc_state if name == "grpc" else _rest_state
    ready = await probe(config)
    if ready is None:
        advice = f"Stop it, or choose another address with --{name}."
        return [Check(label, "fail", f"{text} is taken, and no Headgate answers there", advice)]
    if not ready:
        advice = "It may be starting or stopping: its log tells."
        return [Check(label, "warn", f"a Headgate at {text} answers, but is not ready", advice)]
    return [Check(label, "ok", f"a Headgate is running and ready at {text}")]


def _bind_error(address: Address) -> OSError | None:
    """Why a gateway could not listen there now; None if it could."""
    from headgate_server.config import TcpAddress

    try:
        if isinstance(address, TcpAddress):
            family, kind, protocol, _, where = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM
            )[0]
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(where)
            return None
        path = Path(address.path)
        if path.exists() or path.is_symlink():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_PROBE_SECONDS)
                probe.connect(str(path))
            return OSError(errno.EADDRINUSE, "in use")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            return OSError(errno.EACCES, f"cannot create a socket in {path.parent}")
    except ConnectionRefusedError:
        # The socket of a gateway that is gone: the next one removes it.
        return (
            None
            if Path(str(address).removeprefix("unix:")).is_socket()
            else OSError(errno.EEXIST, "a file that is no socket is in the way")
        )
    except OSError as error:
        return error
    return None


def _reachable(text: str) -> str:
    """An address under which a listener answers on this machine."""
    host, colon, port = text.rpartition(":")
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host) + colon + port  # noqa: S104


async def _rest_state(config: Config) -> bool | None:
    """Whether the gateway behind listen.rest is ready; None if there is none."""
    import httpx

    address = config.listen.rest
    socket_path = address.removeprefix("unix:") if address.startswith("unix:") else None
    host = "localhost" if socket_path else _reachable(address)
    scheme = "https" if config.listen.tls else "http"
    # Our own listener, asked about its health: nothing secret goes there, so its name may differ.
    transport = httpx.AsyncHTTPTransport(uds=socket_path, verify=False)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=_PROBE_SECONDS) as client:
            health = await client.get(f"{scheme}://{host}/healthz")
            ready = await client.get(f"{scheme}://{host}/readyz")
            if health.json() != {"status": "ok"} or "status" not in ready.json():
                return None
            return ready.status_code == 200
    except (httpx.HTTPError, ValueError):
        return None


async def _grpc_state(config: Config) -> bool | None:
    """Whether the gateway behind listen.grpc is ready; None if there is none."""
    tls = _trusting(config.listen.tls) if config.listen.tls else None
    async with connect(_reachable(config.listen.grpc), None, tls) as client:
        if await client.ready():
            return True
        try:
            await all_models(client)
        except GatewayError as error:
            return None if from_transport(error) else False
        return False


def _trusting(files: Tls) -> ClientTls | None:
    """TLS that trusts the listener's own certificate, whatever name it bears."""
    try:
        names: Any = served_certificate(files.cert_file, files.key_file).get("subjectAltName")
        certificate = Path(files.cert_file).read_bytes()
    except (OSError, ValueError):
        return None
    return ClientTls(certificate, server_name=names[0][1] if names else None)
