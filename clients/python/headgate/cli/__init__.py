"""The command `headgate`.

Owns the composition roots and the terminal. Commands import what they need when they run, so that
`headgate chat` works where only the client is installed and nothing slows the start of another.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The entry point."""
    # gRPC's fork handlers are of no use here, where children are new programs, and they warn.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        from headgate.cli.commands import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        sys.exit("the command needs more than the base install: pip install 'headgate[all]'")
    app()
