"""`check-config`: whether a configuration can be used, without starting anything.

The configuration package does the work; this tells the outcome: exit 0 and a summary on stdout, or exit 1
and one problem a line on stderr. The files that a configuration names may be on another machine and are
taken on trust; `doctor`, which runs beside the gateway, looks at them with `served_certificate`.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate_server.config import Config


def run(path: Path | None) -> None:
    """Checks one file, with the HEADGATE_* variables applied as `serve` would."""
    from headgate.cli.loading import configuration
    from headgate_server.config import ConfigError

    if path is None:
        sys.exit("name the file to check: headgate check-config --config FILE")
    try:
        config = configuration(path, {})
    except ConfigError as error:
        sys.exit(str(error))
    print(summary(path, config))  # noqa: T201 - the command's output


def print_schema() -> None:
    """Prints the JSON Schema of the file, for editors."""
    from headgate_server.config.schema import config_schema

    print(json.dumps(config_schema(), indent=2, ensure_ascii=False))  # noqa: T201


def summary(path: Path, config: Config) -> str:
    """One line about a configuration."""
    listen = config.listen
    rules = f"{_count(config.routes, 'routing rule')}, " if config.routes else ""
    return (
        f"{path} is valid: {_count(config.providers, 'provider')}, "
        f"{_count(config.models, 'model')}, {rules}gRPC {listen.grpc}, REST {listen.rest}, "
        f"TLS {'on' if listen.tls else 'off'}, auth {config.auth.mode}."
    )


def _count(things: object, noun: str) -> str:
    number = len(things)  # type: ignore[arg-type]
    return f"{number} {noun}{'' if number == 1 else 's'}"


def served_certificate(cert: str, key: str) -> Mapping[str, object]:
    """The certificate of a listener as a client sees it, out of a handshake in memory.

    Raises:
        ssl.SSLCertVerificationError: it has expired, or cannot be used by a server.
        OSError, ValueError: a file cannot be read, is no PEM, or the two do not belong together.
    """

    def refuse_password() -> str:
        raise ValueError("the key is encrypted, and a server has nobody to ask for its password")

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key, password=refuse_password)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cert)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_side=False),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(8):  # a handshake takes three turns
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].getpeercert() or {}
