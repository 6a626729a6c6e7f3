"""`serve`, `core` and `facade`: the composition roots, and the life of the process.

The one place where server and facade meet. Order of a start: load local models, listen, tell. Order of an
end (SIGTERM, SIGINT): say NOT_SERVING, take nothing new, let running calls end within `drain`, close. A
second signal ends at once. SIGHUP reads the configuration again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from headgate.cli import reloading, workers
from headgate.listening import TlsFiles

if TYPE_CHECKING:
    from headgate.cli.reloading import Reloader
    from headgate.client import Tls
    from headgate_facade.settings import FacadeSettings
    from headgate_server.app import App
    from headgate_server.config import Config, Problem
    from headgate_server.config.changes import Point
    from headgate_server.local import LocalModelOptions

Options = Mapping[str, object]
Stop = Callable[[float], Awaitable[None]]
T = TypeVar("T")

_NO_FILE = "the process was started without a configuration file"
_FACADE_ALONE = "what `headgate facade` is set to is decided at its start; restart it"


class Start(NamedTuple):
    """What a composition root begins with.

    Attributes:
        config: validated.
        path, text: the file that it came from, and what that said; None without one.
        options: of the command line, which win over the file.
    """

    config: Config
    path: Path | None
    text: bytes | None
    options: Options

    def reloader(
        self, current: Callable[[], Config], use: reloading.Use, *, quiet: bool = False
    ) -> Reloader | None:
        """What reads the file again, if there is one."""
        if self.path is None or self.text is None:
            return None
        return reloading.Reloader(
            self.path, self.options, self.text, current=current, use=use, quiet=quiet
        )


def serve(path: Path | None, options: Options, *, processes: int, offline: bool) -> None:
    """Both halves in one process, or in each of several."""
    start = _start(path, options)
    listen = start.config.listen
    addresses = {"grpc": listen.grpc, "rest": listen.rest}
    _run_in(processes, _serve(start, addresses, offline=offline), start, addresses, offline=offline)


def serve_core(path: Path | None, options: Options, *, processes: int, offline: bool) -> None:
    """The gRPC core."""
    start = _start(path, options)
    addresses = {"grpc": start.config.listen.grpc}
    _run_in(processes, _serve(start, addresses, offline=offline), start, addresses, offline=offline)


def serve_facade(
    path: Path | None, options: Options, core: str, *, processes: int, tls: Tls | None
) -> None:
    """The REST front doors, in front of a core elsewhere."""
    from headgate.cli.loading import facade_configuration

    config = _or_exit(lambda: facade_configuration(path, options))
    _log_to_stderr(config)
    addresses = {"rest": config.listen.rest}
    root = _serve_facade(config, addresses, core, tls)
    start = Start(config, None, None, options)
    _run_in(processes, root, start, addresses, offline=True, not_reloadable=_FACADE_ALONE)


def _start(path: Path | None, options: Options) -> Start:
    # A reload that is asked for too early changes nothing; it need not be the end. Imports take time.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from headgate.cli.loading import configuration
    from headgate_server.config.load import read_config

    worker = workers.inherited()
    text = worker.began_with if worker is not None else None
    if path is not None and text is None:
        text = _or_exit(lambda: read_config(path))
    config = _or_exit(lambda: configuration(path, options, text))
    _log_to_stderr(config)
    return Start(config, path, text, options)


def _or_exit(load: Callable[[], T]) -> T:
    from headgate_server.config import ConfigError

    try:
        return load()
    except ConfigError as error:
        sys.exit(str(error))


async def _serve(start: Start, addresses: dict[str, str], *, offline: bool) -> None:
    from headgate.cli.local_weights import local_model_options
    from headgate_server.admin import Admin
    from headgate_server.app import App
    from headgate_server.grpc_server import GrpcServer

    asked = asyncio.Event()
    known = start.text is not None
    stopping = _stop_on_signals(asked.set if known else reloading.not_reloadable(_NO_FILE))
    config = start.config
    worker = workers.inherited()
    addresses = {**addresses, **(worker.addresses if worker else {})}
    endpoints = worker.local_endpoints if worker else {}
    local: dict[str, LocalModelOptions] = {}
    if worker is None:
        found = await workers.unless(stopping, local_model_options(config, offline=offline))
        local = found or {}
    files = config.listen.tls
    stops: list[Stop] = []
    # A file can be right, and still name credentials that cannot be read here.
    made = _or_exit(
        lambda: App(
            config,
            local_options=local,
            local_endpoints=endpoints,
            natural_homes=start.path is None,
        )
    )
    async with made as app, _stopped_at_last(stops):
        # Before anything listens, so that what answers at all is ready for every model; and before
        # gRPC runs, whose fork handlers complain about child processes.
        await workers.unless(stopping, _load_local_models(app))
        async with _reloaded(start, app, asked):
            admin = Admin(app.core)
            grpc = GrpcServer(
                app.core,
                addresses["grpc"],
                max_message_bytes=config.limits.message_bytes,
                routes=admin,
                tls=TlsFiles(files.cert_file, files.key_file, files.client_ca_file)
                if files
                else None,
                reuse_port=worker is not None,
            )
            stops.append(grpc.stop)
            addresses["grpc"] = await _listen(addresses["grpc"], grpc.start())
            if "rest" in addresses:
                from headgate_facade.app import create_app

                rest = create_app(app.core, _facade_settings(config), routes=admin)
                stop, addresses["rest"] = await _start_rest(rest, addresses["rest"], config)
                stops.append(stop)
            await _until_stopped(stopping, lambda: app.config, addresses, app.core.drain, stops)


@contextlib.asynccontextmanager
async def _reloaded(start: Start, app: App, asked: asyncio.Event) -> AsyncGenerator[None, None]:
    """Keeps the configuration up to date, while inside."""
    from headgate_server.config import ConfigError

    async def use(config: Config, point: Point) -> Sequence[Problem]:
        logged = app.config.log
        waiting = await app.reload(config, point)
        if app.config.log != logged:
            _log_to_stderr(app.config)
        return waiting

    reloader = start.reloader(lambda: app.config, use)
    if reloader is None:
        yield
        return
    worker = workers.inherited()
    if worker is not None and worker.newest and worker.newest != start.text:
        # What the others have come to meanwhile. If it cannot be used here, the file may be better.
        with contextlib.suppress(ConfigError):
            await reloader.take(worker.newest)
    watching = asyncio.create_task(reloader.watch(asked))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _serve_facade(
    config: Config, addresses: dict[str, str], core: str, tls: Tls | None
) -> None:
    from headgate.client import Client
    from headgate_facade.app import create_app

    class Elsewhere(Client):
        """The core, as far as this process is concerned: not ready once we stop."""

        async def ready(self) -> bool:
            return not stopping.is_set() and await super().ready()

    stopping = _stop_on_signals(reloading.not_reloadable(_FACADE_ALONE))
    worker = workers.inherited()
    addresses = {**addresses, **(worker.addresses if worker else {})}
    async with Elsewhere(core, tls=tls, max_message_bytes=config.limits.message_bytes) as client:
        app = create_app(client, _facade_settings(config), routes=client)
        stop, addresses["rest"] = await _start_rest(app, addresses["rest"], config)
        await _until_stopped(stopping, lambda: config, addresses, lambda: None, [stop])


@contextlib.asynccontextmanager
async def _stopped_at_last(stops: list[Stop]) -> AsyncGenerator[None, None]:
    """Whatever went wrong in between: what listens is stopped. For the second time, mostly."""
    try:
        yield
    finally:
        for stop in stops:
            await stop(0)


async def _start_rest(app: Any, address: str, config: Config) -> tuple[Stop, str]:
    from headgate_facade.rest_server import RestServer

    files = config.listen.tls
    server = RestServer(
        app,
        address,
        tls=TlsFiles(files.cert_file, files.key_file, files.client_ca_file) if files else None,
        reuse_port=workers.inherited() is not None,
    )
    return server.stop, await _listen(address, server.start())


async def _listen(address: str, start: Coroutine[Any, Any, str]) -> str:
    try:
        return await start
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        sys.exit(f"cannot listen at {address}: {reason or error}")


async def _load_local_models(app: Any) -> None:
    from headgate_server.local import LocalModelError

    if not app.local_models:
        return
    from headgate.cli.banner import loading

    try:
        with loading(app.local_models):
            await app.start_local_models()
    except LocalModelError as error:
        # The rest of the gateway is worth having; calls to this model get 503 with the reason.
        logging.getLogger("headgate").error("the local model does not run: %s", error)


def _stop_on_signals(reload: Callable[[], None]) -> asyncio.Event:
    """Set by the first signal; the second ends the process. SIGHUP reloads instead."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            os._exit(130)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    reloading.on_hangup(on_signal, reload)
    workers.when_orphaned(stopping.set)
    return stopping


async def _until_stopped(
    stopping: asyncio.Event,
    config: Callable[[], Config],
    addresses: dict[str, str],
    drain: Callable[[], None],
    stops: list[Stop],
) -> None:
    from headgate.cli.banner import print_banner

    # What lives until now lives forever: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    if not stopping.is_set() and not workers.report_ready():
        print_banner(config(), addresses)
    await stopping.wait()
    drain()
    await asyncio.gather(*(stop(config().drain) for stop in stops))


def _facade_settings(config: Config) -> FacadeSettings:
    from headgate_facade.settings import FacadeSettings

    cors = config.facade.cors
    return FacadeSettings(
        body_limit=config.facade.body_limit,
        ping_interval=config.facade.ping_interval,
        reasoning_in_unary=config.facade.reasoning_in_unary,
        cors_origins=cors.origins if cors else (),
        cors_allow_credentials=cors.allow_credentials if cors else False,
    )


def _run_in(
    processes: int,
    root: Coroutine[Any, Any, None],
    start: Start,
    addresses: dict[str, str],
    *,
    offline: bool,
    not_reloadable: str = _NO_FILE,
) -> None:
    """Runs a composition root here, or a supervisor of several processes that each run it."""
    if processes > 1 and workers.inherited() is None:
        root.close()
        root = workers.supervise(
            processes,
            start.config,
            addresses,
            offline=offline,
            reloader=_checked_only(start),
            not_reloadable=not_reloadable,
        )
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(root)


def _checked_only(start: Start) -> Reloader | None:
    """Keeps the newest text that the workers can follow; they tell about it themselves."""
    from headgate_server.config.changes import follow

    current = start.config

    async def use(config: Config, point: Point) -> Sequence[Problem]:
        nonlocal current
        current, waiting = follow(start.config, config, point)
        return waiting

    return start.reloader(lambda: current, use, quiet=True)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _log_to_stderr(config: Config) -> None:
    from headgate.cli.logs import configure

    configure(config.log.level, config.log.format)
