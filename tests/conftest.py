"""For all tests: no network beyond this machine, and no settings from the developer's shell."""

from __future__ import annotations

import os
import socket

import pytest
import trustme

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to anywhere else fail at once."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise OSError(f"tests do not leave this machine: {address[0]}")
        real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with one certificate authority, of nobody."""
    path = tmp_path_factory.mktemp("authorities") / "one.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, one_authority: str) -> None:
    """No provider keys and no settings leak in."""
    # Each HTTP client reads all authorities of the world when it is made, which takes 50 ms.
    monkeypatch.setenv("SSL_CERT_FILE", one_authority)
    for name in list(os.environ):
        if (name.startswith("HEADGATE_") and name != "HEADGATE_CACHE") or name.endswith(
            ("_API_KEY", "_BASE_URL", "_PROXY", "_proxy")
        ):
            monkeypatch.delenv(name)
