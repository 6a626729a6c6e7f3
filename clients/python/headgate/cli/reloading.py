"""A configuration that changes while the process runs: SIGHUP, and a file that is not what it was.

Owns when a file is read again, and what is said about it; what becomes of a new configuration is the
server's business. The file itself is looked at, twice a second, instead of asking the kernel to tell:
that also sees what is never told (a file that is mounted alone into a container, a network file system, a
link that leads elsewhere, a folder that is replaced as a whole), and costs next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate_server.config import Config, Problem
    from headgate_server.config.changes import Point

_log = logging.getLogger("headgate")

_LOOK_SECONDS = 0.5
# Editors write in several steps; a file is read when it has been quiet for so long.
_QUIET_SECONDS = 0.1

Use = Callable[["Config", "Point"], Awaitable[Sequence["Problem"]]]
"""Puts a configuration to use; returns what waits for a restart. Raises `ConfigError` if it cannot."""


class Reloader:
    """Reads the file again, on request and when it changes, and puts it to use if it is valid.

    Args:
        path: the file.
        options: of the command line, which win over it.
        text: what it said when it was last read.
        current: the configuration in use.
        use: see `Use`.
        quiet: whether somebody else tells about it.

    Attributes:
        text: of the newest valid configuration.
    """

    def __init__(
        self,
        path: Path,
        options: Mapping[str, object],
        text: bytes,
        *,
        current: Callable[[], Config],
        use: Use,
        quiet: bool = False,
    ) -> None:
        self.text = text
        self._path = path
        self._options = options
        self._current = current
        self._use = use
        self._quiet = quiet
        # It may have changed since it was read: the first look takes it for new, and compares.
        self._seen: object = None
        self._tried: bytes | None = text
        self._one_at_a_time = asyncio.Lock()

    async def watch(self, asked: asyncio.Event) -> None:
        """Reloads whenever asked, and when the file has changed if `reload` is on. Never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await asked.wait()
            if asked.is_set():
                asked.clear()
                await self.read()
            elif self._current().reload and await self._changed():
                await self.read(only_if_new=True)

    async def read(self, *, only_if_new: bool = False) -> None:
        """Reads the file and puts it to use, or says why not."""
        from headgate_server.config import ConfigError
        from headgate_server.config.load import read_config

        self._seen = await asyncio.to_thread(_stamp, self._path)
        text: bytes | None = None
        try:
            text = await asyncio.to_thread(read_config, self._path)
            if only_if_new and text == self._tried:
                return
            await self.take(text)
        except ConfigError as error:
            self._tell_refused(error.problems)
        except Exception:
            # Whatever is wrong with the new one, the old one runs, and the next one must be heard.
            _log.exception("configuration NOT reloaded, the old one stays: %s", self._path)
        finally:
            self._tried = text

    async def take(self, text: bytes) -> None:
        """Puts what the file says to use. Raises `ConfigError`."""
        from headgate.cli.loading import configuration, problem_in
        from headgate_server.config.changes import changes

        async with self._one_at_a_time:
            # In a thread: a large file takes longer than calls should wait.
            config = await asyncio.to_thread(configuration, self._path, self._options, text)
            before = self._current()
            waiting = await self._use(config, functools.partial(problem_in, self._path, text))
            self.text = text
        if self._quiet:
            return
        different = changes(before, self._current())
        _log.warning("configuration reloaded: %s: %s", self._path, different)
        for problem in waiting:
            _log.warning("%s", problem)

    async def _changed(self) -> bool:
        """Whether the file is not the one last read; waits until it is quiet."""
        found = await asyncio.to_thread(_stamp, self._path)
        if found == self._seen:
            return False
        while True:
            before = found
            await asyncio.sleep(_QUIET_SECONDS)
            found = await asyncio.to_thread(_stamp, self._path)
            if found == before:
                return True

    def _tell_refused(self, problems: Sequence[Problem]) -> None:
        if not self._quiet:
            for problem in problems:
                _log.error("configuration NOT reloaded, the old one stays: %s", problem)


def _stamp(path: Path) -> object:
    """Differs when a file was written, replaced, or removed."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        return str(error)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def on_hangup(stop: Callable[[], None], then: Callable[[], None]) -> None:
    """SIGHUP does something, instead of ending the process.

    Args:
        stop: called if it means that the terminal is gone in which the process was started.
        then: called otherwise.
    """
    terminals = [number for number in range(3) if os.isatty(number)]

    def hang_up() -> None:
        if all(map(os.isatty, terminals)):  # one that was closed is none
            then()
        else:
            stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)


def not_reloadable(reason: str) -> Callable[[], None]:
    """What SIGHUP does where there is nothing to be read again: it says so."""
    return lambda: _log.warning("SIGHUP changes nothing here: %s", reason)
