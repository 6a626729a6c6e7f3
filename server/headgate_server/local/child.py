"""The process that holds the embedded model: llama.cpp's HTTP server on a loopback port.

Owns the one use of ``xllamacpp``. It is started by ``supervisor.py`` by its path (so that nothing
else of headgate is loaded into it) and runs by hand too: ``python -m headgate_server.local.child``.

Protocol: the first line of stdin is one JSON object with the settings (see ``Settings``; the API
key comes this way because a command line is public); when the model is loaded, one line
``{"url": "http://127.0.0.1:PORT"}`` goes to stdout, among the log lines of llama.cpp. The process
lives until SIGTERM, or until its stdin ends, which happens even if the parent is killed with -9.

Must not import anything of headgate, nor decide anything: restarts are the supervisor's matter.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import TypedDict


class Settings(TypedDict):
    """What the parent sends; all of it is required."""

    model: str
    alias: str
    n_ctx: int
    """Tokens of context for all slots together: llama.cpp divides it by ``slots``."""
    slots: int
    threads: int
    http_threads: int
    cache_mib: int
    """Bound of the prompt cache in memory; llama.cpp's own default is 8 GiB."""
    api_key: str
    port: int
    """0 for any free one."""
    verbosity: int


def main() -> None:
    """Read the settings, load the model, announce the address, wait for the end."""
    # Ctrl-C reaches the whole process group of a terminal, but the end is the parent's decision.
    # A termination needs no handler: nothing is worth saving, and the default action also works
    # while the model is being loaded, when a Python handler would have to wait.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    line = sys.stdin.buffer.readline()
    if not line.strip():
        sys.exit("no settings on stdin; this process is started by the gateway")
    settings: Settings = json.loads(line)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        url = serve(settings)
    except (ImportError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")  # llama.cpp has printed the cause before it
    # One write with its own line break in front: log lines of other threads cannot mix with it.
    os.write(1, f"\n{json.dumps({'url': url})}\n".encode())
    while True:
        time.sleep(86_400)


def serve(settings: Settings) -> str:
    """Load the model and return the address once it answers; the server lives with the process."""
    import xllamacpp  # late: only this process may load it, and only once it has its settings

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = settings["port"]
    params.api_keys = [settings["api_key"]]
    params.n_ctx = settings["n_ctx"]
    params.n_parallel = settings["slots"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.n_threads_http = settings["http_threads"]
    params.cache_ram_mib = settings["cache_mib"]
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.cors_origins = ""
    # A hang-up and the other slots are looked after between batches only; larger ones gain 5 %.
    params.n_batch = params.n_ubatch = 128
    params.fit_params = False  # fitting to a GPU loads the model twice
    params.verbosity = settings["verbosity"]
    server = xllamacpp.Server(params)
    _alive.append(server)
    return str(server.listening_address)


_alive: list[object] = []
"""Keeps the server from being collected, which would stop it."""


def _exit_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
