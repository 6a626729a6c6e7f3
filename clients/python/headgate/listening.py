"""What every listener does, whatever it speaks: bind addresses, look after socket files, check TLS files.

Used by the server and the facade, which do not know each other. Standard library only.
"""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a listener; a client CA makes client certificates mandatory."""

    cert_file: str
    key_file: str
    client_ca_file: str | None = None

    def check(self) -> None:
        """Raises OSError that says what is wrong, where a listener would only say that it cannot."""
        try:
            purpose = ssl.Purpose.CLIENT_AUTH
            context = ssl.create_default_context(purpose, cafile=self.client_ca_file)
            context.load_cert_chain(self.cert_file, self.key_file)
        except ssl.SSLError as error:
            raise OSError(f"the TLS files are not usable: {error.reason or error}") from error


def bind(address: str, *, reuse_port: bool = False) -> tuple[socket.socket, str]:
    """A bound socket that does not listen yet, and the address with the port really taken.

    Args:
        address: ``HOST:PORT``, ``[IPV6]:PORT`` (port 0: any free one) or ``unix:/path``.
        reuse_port: whether other processes may bind the same port.

    Raises:
        OSError: the address is taken, or not one of this machine.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        remove_stale(path)
        with_path = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        return _bound(with_path, path), address
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    # The protocol is named because asyncio switches Nagle's algorithm off only where it is.
    listener = socket.socket(found[0][0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bound(listener, found[0][4])
    return listener, f"{host}:{listener.getsockname()[1]}"


def remove_stale(path: str) -> None:
    """Removes the socket file of a process that is gone.

    Raises:
        OSError: somebody listens there.
    """
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        else:
            raise OSError(errno.EADDRINUSE, "somebody listens there already")


def _bound(listener: socket.socket, address: object) -> socket.socket:
    try:
        listener.bind(address)  # type: ignore[arg-type]  # its type depends on the family
    except OSError:
        listener.close()
        raise
    return listener
