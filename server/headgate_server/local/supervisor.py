"""The embedded model as a supervised child process: start, watch, restart, stop.

Owns the child's life (``child.py``) and what is known about it: its address, its key, its state.
One task per model does everything; it sleeps in reads and waits, never polls. Must not know HTTP,
weights or providers: a caller takes ``endpoint()`` for each request and answers "try again" while
that is ``None``.
"""

import asyncio
import contextlib
import json
import logging
import re
import secrets
import sys
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

from headgate_server.local.options import Endpoint, LocalModelOptions, State
from headgate_server.local.weights import LocalModelError

_CHILD = Path(__file__).with_name("child.py")
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 10.0
_STABLE_AFTER_S = 30.0
"""A child that lived this long after loading was healthy: its successor starts without delay."""
_TERM_WAIT_S = 2.0
_LINE_LIMIT = 1 << 20
_LAST_WORDS = 20
_LOG_STAMP = re.compile(r"^[\d.]+ [A-Z] +")

_log = logging.getLogger("headgate.local")


class LocalModel:
    """One embedded model in one child process. Several may run at once."""

    def __init__(self, options: LocalModelOptions) -> None:
        """Prepare; nothing runs before ``start``."""
        self._options = options
        self._state = State.STOPPED
        self._api_key = secrets.token_urlsafe(32)
        self._base_url: str | None = None
        self._port = 0
        self._pid: int | None = None
        self._restarts = 0
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._task: asyncio.Task[None] | None = None
        self._first_load: asyncio.Future[None] | None = None
        self._stopping = False

    @property
    def state(self) -> State:
        """Where the model is in its life."""
        return self._state

    @property
    def base_url(self) -> str | None:
        """``http://127.0.0.1:PORT/v1`` while ready; a restart keeps the port if it can."""
        return self._base_url

    @property
    def api_key(self) -> str:
        """The key that the loopback port asks for; random per start."""
        return self._api_key

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return self._pid

    @property
    def restarts(self) -> int:
        """How often a dead child was replaced since ``start``."""
        return self._restarts

    @property
    def last_words(self) -> str:
        """The last log lines of the latest child, for error messages."""
        return "\n".join(self._last_words)

    def endpoint(self) -> Endpoint | None:
        """Where to send a request now; ``None`` while the model is not ready."""
        if self._base_url is None:
            return None
        return Endpoint(self._base_url, self._api_key)

    async def start(self) -> None:
        """Return when the model answers; raise ``LocalModelError`` if its first load fails."""
        if self._task is None:
            self._state, self._restarts, self._stopping = State.LOADING, 0, False
            self._api_key = secrets.token_urlsafe(32)
            self._first_load = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._supervise(self._first_load), name="local-model")
        assert self._first_load is not None  # noqa: S101 - set together with the task
        try:
            await asyncio.shield(self._first_load)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the child and wait until it is gone. Any number of calls, from any state."""
        task = self._task
        if task is None:
            return
        if not self._stopping:  # a second cancel would break the ending that the first one began
            self._stopping = True
            task.cancel()
        await asyncio.wait({task})
        if self._task is task:
            self._task = None
            if self._state is not State.FAILED:
                self._state = State.STOPPED

    async def _supervise(self, first_load: asyncio.Future[None]) -> None:
        delay = _BACKOFF_FIRST_S
        try:
            while True:
                ready_at: float | None = None
                reason = "could not be started"
                try:
                    process = await self._spawn()
                except OSError as error:
                    reason = f"could not be started: {error}"
                else:
                    try:
                        if await self._loaded(process):
                            ready_at = time.monotonic()
                            if not first_load.done():
                                first_load.set_result(None)
                            await self._read_log(process)
                    finally:
                        self._base_url = None
                        if self._state is State.READY:
                            self._state = State.RESTARTING
                        await _end(process)
                        self._pid = None
                    reason = f"ended with code {process.returncode}"
                if not first_load.done():
                    self._state = State.FAILED
                    first_load.set_exception(self._load_error(reason))
                    first_load.exception()  # stop() may have been the only one to wait for it
                    return
                if ready_at is not None and time.monotonic() - ready_at >= _STABLE_AFTER_S:
                    delay = _BACKOFF_FIRST_S
                _log.warning(
                    "local model %s %s; next start in %.1f s. %s",
                    self._options.alias, reason, delay, self.last_words,
                )  # fmt: skip
                await asyncio.sleep(delay)
                delay = min(delay * 2, _BACKOFF_MAX_S)
                self._restarts += 1
        finally:
            if not first_load.done():
                first_load.set_exception(LocalModelError("the local model was stopped"))
                first_load.exception()

    async def _spawn(self) -> asyncio.subprocess.Process:
        options = self._options
        self._last_words.clear()
        # By path, not by -m: the child must load nothing of this package but itself.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(_CHILD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_LIMIT,
        )  # fmt: skip
        self._pid = process.pid
        settings = {
            "model": str(options.weights),
            "alias": options.alias,
            "n_ctx": options.context_tokens * options.slots,
            "slots": options.slots,
            "threads": options.threads,
            "http_threads": options.max_connections,
            "cache_mib": options.cache_mib,
            "api_key": self._api_key,
            "port": self._port,
            "verbosity": options.verbosity,
        }
        assert process.stdin is not None  # noqa: S101 - asked for above
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        return process  # stdin stays open: its end is what tells the child that we are gone

    async def _loaded(self, process: asyncio.subprocess.Process) -> bool:
        """Read until the child says where it listens; ``False`` if it ends or takes too long."""
        try:
            async with asyncio.timeout(self._options.load_timeout_s):
                while line := await _read_line(process):
                    if line.startswith(b'{"url"'):
                        url = json.loads(line)["url"]
                        self._base_url = f"{url}/v1"
                        # Kept for its successors, because other processes know the address, too.
                        self._port = urlsplit(url).port or 0
                        self._state = State.READY
                        return True
                    self._keep(line)
        except TimeoutError:
            self._last_words.append(f"not loaded within {self._options.load_timeout_s:g} s")
        self._port = 0  # perhaps somebody else has it now
        return False

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Keep the child's last lines until it closes its output, which it does by ending."""
        while line := await _read_line(process):
            self._keep(line)

    def _keep(self, line: bytes) -> None:
        text = _LOG_STAMP.sub("", line.decode(errors="replace")).strip()
        if not text:
            return
        if text not in self._last_words:  # llama.cpp repeats itself
            self._last_words.append(text)
        if self._options.verbosity > 1:
            _log.info("local model: %s", text)

    def _load_error(self, reason: str) -> LocalModelError:
        return LocalModelError(
            f"the local model did not load from {self._options.weights}: its process {reason}.\n"
            f"{self.last_words}"
        )


async def _read_line(process: asyncio.subprocess.Process) -> bytes:
    """The next line, or nothing at the end. Lines beyond the limit are skipped."""
    assert process.stdout is not None  # noqa: S101 - asked for at the start
    while True:
        with contextlib.suppress(ValueError):
            return await process.stdout.readline()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Terminate, then kill; return when the process is reaped."""
    assert process.stdout is not None  # noqa: S101 - asked for at the start
    try:
        # At the end of its output it is ending by itself: a signal now would cost its exit code.
        if not process.stdout.at_eof() or not await _reaped(process):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await _reaped(process)
    finally:  # also if stop() cancels one of these waits
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _reaped(process: asyncio.subprocess.Process) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_TERM_WAIT_S):
            await process.wait()
    return process.returncode is not None
