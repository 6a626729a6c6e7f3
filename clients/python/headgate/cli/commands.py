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


def _show_version(wanted: bool) -> None:
    if wanted:
        from headgate import __version__

        typer.echo(f"headgate {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """A gateway to large language models."""


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


TargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        "--server",
        envvar=["HEADGATE_TARGET", "HEADGATE_GRPC"],
        help="The gateway's gRPC address: HOST:PORT or unix:/path.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", envvar="HEADGATE_API_KEY", help="The key for the gateway."),
]
TlsOption = Annotated[bool, typer.Option("--tls", help="TLS, by the system's roots.")]
CaOption = Annotated[
    Path | None, typer.Option("--ca", help="TLS: PEM of who signed the gateway's certificate.")
]
CertOption = Annotated[
    Path | None, typer.Option("--cert", help="TLS: PEM of our client certificate.")
]
CertKeyOption = Annotated[
    Path | None, typer.Option("--cert-key", help="TLS: PEM of that certificate's key.")
]


@app.command()
def chat(
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="The question. Without it: a session, or all of stdin if it is a pipe."
        ),
    ] = None,
    target: TargetOption = "127.0.0.1:50051",
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", envvar="HEADGATE_MODEL", help="Default: the only one."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="Instructions.")] = None,
    key: KeyOption = None,
    temperature: Annotated[float | None, typer.Option("--temperature", "-t", min=0, max=2)] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Longest answer, thinking included.")
    ] = None,
    reasoning_effort: Annotated[
        str | None, typer.Option("--reasoning-effort", help="none, minimal, low, medium, high, ...")
    ] = None,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Ask for the answer in one piece.")
    ] = False,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertOption = None,
    cert_key: CertKeyOption = None,
) -> None:
    """Talk to a model in the terminal."""
    from headgate.cli import chat

    settings = chat.Settings(
        model, system, temperature, max_tokens, reasoning_effort, stream=not no_stream
    )
    chat.run(prompt, settings, target, key, client_tls(tls, ca, cert, cert_key))


@app.command()
def models(
    target: TargetOption = "127.0.0.1:50051",
    key: KeyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertOption = None,
    cert_key: CertKeyOption = None,
) -> None:
    """List the models of a running gateway."""
    from headgate.cli import models

    models.run(target, key, client_tls(tls, ca, cert, cert_key), as_json=as_json)


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="The model that would be asked for.")],
    message: Annotated[
        str | None, typer.Option("--message", help="The prompt. Default: a greeting.")
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(
            "--request", "-r", help="A file with a whole request as JSON, or - for stdin."
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", help="x-NAME=VALUE that would come with it; repeatable."),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Whose request it would be. Default: the key's.")
    ] = None,
    target: TargetOption = "127.0.0.1:50051",
    key: KeyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertOption = None,
    cert_key: CertKeyOption = None,
) -> None:
    """Say where a request would go and why, without sending it."""
    from headgate.cli import explain

    question = explain.Question(model, message, request, header or (), tenant)
    explain.run(question, target, key, client_tls(tls, ca, cert, cert_key), as_json=as_json)


@app.command()
def targets(
    route: Annotated[
        str | None, typer.Option("--route", help="Only targets of this public model.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again each second.")] = False,
    target: TargetOption = "127.0.0.1:50051",
    key: KeyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertOption = None,
    cert_key: CertKeyOption = None,
) -> None:
    """Tell how the targets of a running gateway are: breakers, latency, errors, benched keys."""
    from headgate.cli import targets

    client = client_tls(tls, ca, cert, cert_key)
    targets.run(route, target, key, client, as_json=as_json, watch=watch)


@app.command()
def check_config(
    config: ConfigOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema.")] = False,
) -> None:
    """Check a configuration file without starting anything."""
    from headgate.cli import check_config

    if schema:
        check_config.print_schema()
    else:
        check_config.run(config)


@app.command()
def doctor(
    config: ConfigOption = None,
    grpc: GrpcOption = None,
    rest: RestOption = None,
    insecure: InsecureOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
) -> None:
    """Find out what is configured, what is reachable, and what to do about the rest."""
    from headgate.cli import doctor

    options = {"grpc": grpc, "rest": rest, "insecure": insecure}
    doctor.run(config, options, as_json=as_json)


def client_tls(tls: bool, ca: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """TLS towards a gateway, if any option asks for it."""
    if bool(cert) != bool(key):
        raise typer.BadParameter("--cert and --cert-key go together")
    try:
        return tls_options(ca, cert, key) if tls or ca or cert else None
    except OSError as error:
        raise typer.BadParameter(f"cannot read {error.filename}: {error.strerror}") from error


def tls_options(ca: Path | None, cert: Path | None, key: Path | None) -> Tls:
    """TLS towards a core, from PEM files."""
    from headgate.client import Tls

    def read(path: Path | None) -> bytes | None:
        return path.read_bytes() if path is not None else None

    return Tls(read(ca), read(key), read(cert))
