"""What a start tells: the addresses, the models, and a command that works."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from headgate_server.config import Config

_MAX_MODELS = 20


@contextlib.contextmanager
def loading(models: Mapping[str, object]) -> Iterator[None]:
    """Shows that local models load, where somebody watches."""
    console = Console(stderr=True)
    names = ", ".join(models)
    with console.status(f"Loading the local model ({names}) ..."):
        yield


def print_banner(config: Config, addresses: Mapping[str, str]) -> None:
    """Prints to stdout, plain text, so that it can be copied and read by scripts."""
    from headgate_server.globs import is_glob

    lines = ["Headgate is ready."]
    scheme = "https" if config.listen.tls else "http"
    if "rest" in addresses:
        rest = addresses["rest"]
        lines.append(f"  REST  {rest if rest.startswith('unix:') else f'{scheme}://{rest}'}")
    if "grpc" in addresses:
        lines.append(f"  gRPC  {addresses['grpc']}")
    models = list(config.models)
    shown = ", ".join(models[:_MAX_MODELS]) + (", ..." if len(models) > _MAX_MODELS else "")
    if "grpc" in addresses:
        lines.append(f"Models: {shown or 'none configured'}")
        direct = [name for name in config.providers if name != "local"]
        if direct:
            lines.append(f"Also PROVIDER/MODEL, with the providers {', '.join(direct)}.")
    named = [name for name in models if not is_glob(name)]
    if "rest" in addresses and named:
        lines += ["Try:", "  " + curl(config, addresses["rest"], named[-1])]
    print("\n".join(lines), flush=True)  # noqa: T201 - the command's output


def curl(config: Config, rest: str, model: str) -> str:
    """A first request, as a command line."""
    scheme = "https" if config.listen.tls else "http"
    socket = ""
    if rest.startswith("unix:"):
        socket, rest = f"--unix-socket {shlex.quote(rest.removeprefix('unix:'))} ", "localhost"
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    key = "-H 'Authorization: Bearer YOUR_KEY' " if config.auth.mode == "keys" else ""
    return (
        f"curl {socket}{scheme}://{rest}/v1/chat/completions {key}"
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    )
