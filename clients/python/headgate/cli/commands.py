"""The table of commands and their options. Each hands over to a module of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headgate.client import Tls

app = typer.Typer(
    name="headgate",
    help="A gateway to large language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="HEADGATE_CONFIG", help="The configuration file."),
]
GrpcOption = Annotated[
    str | None,
    typer.Option("--grpc", envvar="HEADGATE_GRPC", help="gRPC address: HOST:PORT or unix:/path."),
]
RestOption = Annotated[
    str | None,
    typer.Option("--rest", envvar="HEADGATE_REST", help="REST address: HOST:PORT or unix:/path."),
]
InsecureOption = Annotated[
    bool | None,
    typer.Option("--insecure", help="Allow addresses beyond loopback without authentication."),
]
LogLevelOption = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        envvar="HEADGATE_LOG_LEVEL",
        help="debug, info (a line for each call), warning, error.",
    ),
]
WorkersOption = Annotated[
    int, typer.Option("--workers", "-w", min=1, max=64, help="Processes that share the ports.")
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Never download the local model's weights.")
]


@app.command()
def serve(
    config: ConfigOption = None,
    grpc: GrpcOption = None,
    rest: RestOption = None,
    insecure: InsecureOption = None,
    log_level: LogLevelOption = None,
    workers: WorkersOption = 1,
    offline: OfflineOption = False,
) -> None:
    """Run the whole gateway in one process: gRPC and REST."""
    from headgate.cli import serving

    options = {"grpc": grpc, "rest": rest, "insecure": insecure, "log_level": log_level}
    serving.serve(config, options, processes=workers, offline=offline)


@app.command()
def core(
    config: ConfigOption = None,
    grpc: GrpcOption = None,
    insecure: InsecureOption = None,
    log_level: LogLevelOption = None,
    workers: WorkersOption = 1,
    offline: OfflineOption = False,
) -> None:
    """Run the gRPC core alone."""
    from headgate.cli import serving

    options = {"grpc": grpc, "insecure": insecure, "log_level": log_level}
    serving.serve_core(config, options, processes=workers, offline=offline)


@app.command()
def facade(
    core: Annotated[
        str,
        typer.Option("--core", envvar="HEADGATE_CORE", help="The core's gRPC address."),
    ] = "127.0.0.1:50051",
    config: ConfigOption = None,
    rest: RestOption = None,
    insecure: InsecureOption = None,
    log_level: LogLevelOption = None,
    workers: WorkersOption = 1,
    core_ca: Annotated[
        Path | None, typer.Option("--core-ca", help="PEM of who signed the core's certificate.")
    ] = None,
    core_cert: Annotated[
        Path | None, typer.Option("--core-cert", help="PEM of our client certificate.")
    ] = None,
    core_key: Annotated[
        Path | None, typer.Option("--core-key", help="PEM of that certificate's key.")
    ] = None,
    core_tls: Annotated[
        bool, typer.Option("--core-tls", help="TLS to the core, by the system's roots.")
    ] = False,
) -> None:
    """Run the REST front doors alone, in front of a core elsewhere."""
    from headgate.cli import serving

    options = {"rest": rest, "insecure": insecure, "log_level": log_level}
    tls = tls_options(core_ca, core_cert, core_key) if core_tls or core_ca or core_cert else None
    serving.serve_facade(config, options, core, processes=workers, tls=tls)


def tls_options(ca: Path | None, cert: Path | None, key: Path | None) -> Tls:
    """TLS towards a core, from PEM files."""
    from headgate.client import Tls

    def read(path: Path | None) -> bytes | None:
        return path.read_bytes() if path is not None else None

    return Tls(read(ca), read(key), read(cert))
