"""Several processes behind the same ports (SO_REUSEPORT), under one supervisor.

The supervisor reserves the ports, runs the local models once for all, starts the workers, replaces one
that dies, and passes signals on. A worker is the same command again, told what it is by its environment,
and given the texts of the configuration: what one begins with is what all others began with, whatever the
file says by then.
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
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import IO, TYPE_CHECKING, Any, TypeVar

from headgate.listening import bind

if TYPE_CHECKING:
    from headgate.cli.reloading import Reloader
    from headgate_server.config import Config

T = TypeVar("T")

_log = logging.getLogger("headgate")
_VARIABLE = "HEADGATE_WORKER"
_READY = b"ready\n"
_READY_TIMEOUT_SECONDS = 60.0
# A worker that dies sooner than this will not do better at once.
_HEALTHY_AFTER_SECONDS = 5.0
_MAX_BACKOFF_SECONDS = 10.0
_KNOCK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a worker gets from its supervisor.

    Attributes:
        addresses: where to listen.
        local_endpoints: (url, key) of each local model.
        began_with: the configuration file's text when the supervisor started; None without a file.
        newest: its text when it was last valid.
    """

    addresses: dict[str, str]
    local_endpoints: dict[str, tuple[str, str]]
    began_with: bytes | None
    newest: bytes | None


@cache
def inherited() -> Inherited | None:
    """What this process got; None if it is not a worker."""
    text = os.environ.get(_VARIABLE)
    if not text:
        return None
    value = json.loads(text)
    local = {name: (url, key) for name, (url, key) in value["local"].items()}
    began_with = newest = None
    if value["texts"] is not None:
        with os.fdopen(value["texts"], "rb") as file:
            file.seek(0)
            began_with, newest = file.read(value["length"]), file.read()
    return Inherited(value["addresses"], local, began_with, newest)


def report_ready() -> bool:
    """Tells the supervisor, if there is one, that this worker listens."""
    if inherited() is None:
        return False
    os.write(1, _READY)
    return True


def when_orphaned(stop: Callable[[], None]) -> None:
    """Stops this worker if its supervisor is gone, which holds the other end of its stdin."""
    if inherited() is None:
        return
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(0)
        stop()

    loop.add_reader(0, gone)


async def unless(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work returns; None if it had to be broken off because the process stops."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait({task})
    return None


async def supervise(
    count: int,
    config: Config,
    addresses: dict[str, str],
    *,
    offline: bool,
    reloader: Reloader | None,
    not_reloadable: str,
) -> None:
    """Runs the workers until a signal comes.

    Args:
        count: how many.
        config: what they begin with.
        addresses: where they listen.
        offline: never download a local model's weights.
        reloader: keeps the newest valid text of the configuration file.
        not_reloadable: why there is none, if so.
    """
    from headgate.cli.banner import loading, print_banner
    from headgate.cli.local_weights import local_model_options
    from headgate_server.local import LocalModel, LocalModelError

    for name, address in addresses.items():
        if address.startswith("unix:"):
            sys.exit(f"listen.{name}: several workers cannot share {address}; use HOST:PORT")
    reserved = {name: _reserve(address) for name, address in addresses.items()}
    addresses = {name: address for name, (_, address) in reserved.items()}
    workers = _Workers(count, reloader)
    workers.handle_signals(not_reloadable)
    options = await unless(workers.stopping, local_model_options(config, offline=offline)) or {}
    models = {name: LocalModel(option) for name, option in options.items()}

    async def load() -> None:
        try:
            with loading(models):
                await asyncio.gather(*(model.start() for model in models.values()))
        except LocalModelError as error:
            _log.error("the local model does not run: %s", error)

    try:
        if models:
            await unless(workers.stopping, load())
        endpoints = {name: model.endpoint() for name, model in models.items()}
        local = {name: (e.base_url, e.api_key) for name, e in endpoints.items() if e}
        await workers.run(
            {"addresses": addresses, "local": local}, lambda: print_banner(config, addresses)
        )
    finally:
        for model in models.values():
            await model.stop()
        for placeholder, _ in reserved.values():
            placeholder.close()
    if workers.status:
        sys.exit(workers.status)


def _unnamed_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):  # needs no writable folder
        return os.fdopen(os.memfd_create("headgate"), "w+b")
    return tempfile.TemporaryFile()


def _reserve(address: str) -> tuple[socket.socket, str]:
    """Binds without listening: the port is ours, and connections go to the workers alone."""
    try:
        placeholder, taken = bind(address, reuse_port=True)
    except OSError as error:
        sys.exit(f"cannot listen at {address}: {error.strerror}")
    if taken == address and _listened_at(placeholder.getsockname(), placeholder.family):
        placeholder.close()
        sys.exit(f"cannot listen at {address}: Address already in use")
    return placeholder, taken


def _listened_at(address: tuple[object, ...], family: int) -> bool:
    """Whether somebody else shares the port already; SO_REUSEPORT would let us in beside them."""
    host = str(address[0])
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to knock, not to bind
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_KNOCK_SECONDS)
        return probe.connect_ex((anywhere.get(host, host), address[1])) == 0


class _Workers:
    """The processes, and what to do when one ends.

    Attributes:
        stopping: set when all are to end.
        status: the exit status that the supervisor owes.
    """

    def __init__(self, count: int, reloader: Reloader | None) -> None:
        self.stopping = asyncio.Event()
        self.status = 0
        self._count = count
        self._reloader = reloader
        self._began_with = reloader.text if reloader is not None else None
        self._reload = asyncio.Event()
        self._reloads = 0
        self._told: Mapping[str, object] = {}
        self._began = False  # one was ready once
        self._processes: dict[asyncio.subprocess.Process, bool] = {}  # whether it is ready

    def handle_signals(self, not_reloadable: str) -> None:
        """The first signal lets them drain, the second ends them at once; SIGHUP reloads."""
        from headgate.cli import reloading

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        known = self._reloader is not None
        reloading.on_hangup(
            self._stop, self._pass_on if known else reloading.not_reloadable(not_reloadable)
        )

    async def run(self, told: Mapping[str, object], tell: Callable[[], None]) -> None:
        """Runs them until they are to end. Gives up if the first to end was never ready."""
        self._told = told
        loop = asyncio.get_running_loop()
        watching = None
        if self._reloader is not None:
            watching = loop.create_task(self._reloader.watch(self._reload))
        ready = [loop.create_future() for _ in range(self._count)]
        keepers = [loop.create_task(self._keep(future)) for future in ready]
        everyone = asyncio.gather(*ready)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(everyone), _READY_TIMEOUT_SECONDS)
            tell()
        await asyncio.gather(*keepers)
        everyone.cancel()
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})

    def _stop(self) -> None:
        again = self.stopping.is_set()
        if again:
            self.status = 130
        self.stopping.set()
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL if again else signal.SIGTERM)

    def _pass_on(self) -> None:
        self._reload.set()
        self._reloads += 1
        for process, ready in self._processes.items():
            if ready and process.returncode is None:  # one that still starts would die of it
                process.send_signal(signal.SIGHUP)

    @contextlib.contextmanager
    def _inheritance(self) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
        """The environment of a worker, and the file that it is to be given, by its number."""
        told = {**self._told, "texts": None}
        if self._reloader is None or self._began_with is None:
            yield {**os.environ, _VARIABLE: json.dumps(told)}, ()
            return
        # The environment is too small for it, and others could read it there.
        with _unnamed_file() as file:
            file.write(self._began_with + self._reloader.text)
            file.flush()
            told |= {"texts": file.fileno(), "length": len(self._began_with)}
            yield {**os.environ, _VARIABLE: json.dumps(told)}, (file.fileno(),)

    async def _start(self) -> asyncio.subprocess.Process:
        with self._inheritance() as (environment, files):
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headgate.cli",
                *sys.argv[1:],
                env=environment,
                pass_fds=files,
                stdin=asyncio.subprocess.PIPE,  # never written to; see when_orphaned
                stdout=asyncio.subprocess.PIPE,
                # A Ctrl-C in a terminal goes to the whole group; the supervisor passes it on.
                start_new_session=True,
            )

    async def _keep(self, ready: asyncio.Future[None]) -> None:
        """Keeps one worker alive."""
        backoff = 0.1
        while not self.stopping.is_set():
            began = time.monotonic()
            reloads = self._reloads
            process = await self._start()
            self._processes[process] = False
            if self.stopping.is_set():
                process.terminate()
            if process.stdout is not None:
                line = await process.stdout.readline()
                if line == _READY:
                    self._began = True
                    self._processes[process] = True
                    if reloads != self._reloads:
                        process.send_signal(signal.SIGHUP)
                    if not ready.done():
                        ready.set_result(None)
            status = await process.wait()
            del self._processes[process]
            if self.stopping.is_set():
                if not ready.done():
                    ready.cancel()
                return
            if not self._began:  # it has said why
                self.status = 1
                self._stop()
                ready.cancel()
                return
            lived = time.monotonic() - began
            backoff = (
                0.1 if lived > _HEALTHY_AFTER_SECONDS else min(backoff * 2, _MAX_BACKOFF_SECONDS)
            )
            _log.error("a worker ended with status %s; starting another", status)
            try:
                await asyncio.wait_for(self.stopping.wait(), backoff)
            except TimeoutError:
                continue
