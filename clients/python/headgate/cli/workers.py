"""Several processes behind the same ports (SO_REUSEPORT), under one supervisor.

The supervisor reserves the ports, runs the local models once for all, starts the workers, replaces one
that dies, and passes the end on. A worker is the same command again, told what it is by its environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate_server.config import Config

_log = logging.getLogger("headgate")
_VARIABLE = "HEADGATE_WORKER"
_READY = b"ready\n"
_READY_TIMEOUT_SECONDS = 60.0
# A worker that dies sooner than this will not do better at once.
_HEALTHY_AFTER_SECONDS = 5.0
_MAX_BACKOFF_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a worker gets from its supervisor: addresses, and (url, key) of each local model."""

    addresses: dict[str, str]
    local_endpoints: dict[str, tuple[str, str]]


@cache
def inherited() -> Inherited | None:
    """What this process got; None if it is not a worker."""
    text = os.environ.get(_VARIABLE)
    if not text:
        return None
    value = json.loads(text)
    local = {name: (url, key) for name, (url, key) in value["local"].items()}
    return Inherited(value["addresses"], local)


def report_ready() -> bool:
    """Tells the supervisor, if there is one, that this worker listens."""
    if inherited() is None:
        return False
    os.write(1, _READY)
    return True


async def supervise(
    count: int, config: Config, addresses: dict[str, str], *, offline: bool
) -> None:
    """Runs the workers until a signal comes."""
    from headgate_server.local import LocalModel, LocalModelError

    from headgate.cli.banner import loading, print_banner
    from headgate.cli.local_weights import local_model_options

    for name, address in addresses.items():
        if address.startswith("unix:"):
            sys.exit(f"listen.{name}: several workers cannot share {address}; use HOST:PORT")
    reserved = {name: _reserve(address) for name, address in addresses.items()}
    addresses = {name: address for name, (_, address) in reserved.items()}
    options = await local_model_options(config, offline=offline)
    models = {name: LocalModel(option) for name, option in options.items()}
    try:
        if models:
            try:
                with loading(models):
                    await asyncio.gather(*(model.start() for model in models.values()))
            except LocalModelError as error:
                _log.error("the local model does not run: %s", error)
        endpoints = {name: model.endpoint() for name, model in models.items()}
        local = {name: (e.base_url, e.api_key) for name, e in endpoints.items() if e}
        environment = {
            **os.environ,
            _VARIABLE: json.dumps({"addresses": addresses, "local": local}),
        }
        await _Workers(count, environment, config.drain).run(
            lambda: print_banner(config, addresses)
        )
    finally:
        for model in models.values():
            await model.stop()
        for placeholder, _ in reserved.values():
            placeholder.close()


def _reserve(address: str) -> tuple[socket.socket, str]:
    """Binds without listening: the port is ours, and connections go to the workers alone."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    placeholder = socket.socket(family, socket.SOCK_STREAM)
    placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        placeholder.bind((host.strip("[]"), int(port)))
    except OSError as error:
        sys.exit(f"cannot listen at {address}: {error.strerror}")
    return placeholder, f"{host}:{placeholder.getsockname()[1]}"


class _Workers:
    """The processes, and what to do when one ends."""

    def __init__(self, count: int, environment: dict[str, str], drain: float) -> None:
        self._count = count
        self._environment = environment
        self._drain = drain
        self._stopping = asyncio.Event()
        self._processes: set[asyncio.subprocess.Process] = set()

    async def run(self, tell: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        ready = [loop.create_future() for _ in range(self._count)]
        keepers = [loop.create_task(self._keep(future)) for future in ready]
        everyone = asyncio.gather(*ready)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(everyone), _READY_TIMEOUT_SECONDS)
            tell()
        await asyncio.gather(*keepers)
        everyone.cancel()

    def _stop(self) -> None:
        again = self._stopping.is_set()
        self._stopping.set()
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL if again else signal.SIGTERM)

    async def _keep(self, ready: asyncio.Future[None]) -> None:
        """Keeps one worker alive."""
        backoff = 0.1
        while not self._stopping.is_set():
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headgate.cli",
                *sys.argv[1:],
                env=self._environment,
                stdout=asyncio.subprocess.PIPE,
                # A Ctrl-C in a terminal goes to the whole group; the supervisor passes it on.
                start_new_session=True,
            )
            self._processes.add(process)
            if self._stopping.is_set():
                process.terminate()
            if process.stdout is not None:
                line = await process.stdout.readline()
                if line == _READY and not ready.done():
                    ready.set_result(None)
            status = await process.wait()
            self._processes.discard(process)
            if self._stopping.is_set():
                if not ready.done():
                    ready.cancel()
                return
            lived = time.monotonic() - began
            backoff = (
                0.1 if lived > _HEALTHY_AFTER_SECONDS else min(backoff * 2, _MAX_BACKOFF_SECONDS)
            )
            _log.error("a worker ended with status %s; starting another", status)
            try:
                await asyncio.wait_for(self._stopping.wait(), backoff)
            except TimeoutError:
                continue
