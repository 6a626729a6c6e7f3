"""The real command as a process: started, read, signalled, ended, always within some seconds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import TracebackType

START_SECONDS = 30.0
END_SECONDS = 15.0


class Process:
    """``headgate ARGUMENTS``, once it has told its addresses.

    Attributes:
        grpc, rest: the addresses of the banner; rest without the scheme, unless it is a path.
        banner: its lines so far.
        started_in: seconds from the start to the banner.
    """

    def __init__(self, *arguments: str, listens: Sequence[str] = ("gRPC", "REST")) -> None:
        self._arguments = arguments
        self._wanted = set(listens)
        self.grpc = ""
        self.rest = ""
        self.banner: list[str] = []
        self.started_in = 0.0

    async def __aenter__(self) -> Process:
        began = time.monotonic()
        self._process = await spawn(*self._arguments)
        self._written = bytearray()
        self._stderr = asyncio.ensure_future(self._read_stderr())
        self._stdout: asyncio.Future[bytes] | None = None
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._read_banner()
        except BaseException:
            self._process.kill()
            await self._process.wait()
            raise
        self.started_in = time.monotonic() - began
        self._stdout = asyncio.ensure_future(_drain(self._process.stdout))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self.stderr()
        if self._stdout is not None:
            await self._stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    async def ended(self, within: float = END_SECONDS) -> int:
        """Waits for the end; the exit status."""
        async with asyncio.timeout(within):
            return await self._process.wait()

    async def stderr(self) -> str:
        """What it wrote to stderr, once it has ended."""
        await self._stderr
        return self._written.decode()

    async def says(self, text: str, times: int = 1, within: float = 10) -> str:
        """Waits until it has written the text to stderr so many times; all that it has written."""
        async with asyncio.timeout(within):
            while self._written.count(text.encode()) < times:
                await asyncio.sleep(0.02)
        return self._written.decode()

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while piece := await self._process.stderr.read(65536):
            self._written += piece

    async def _read_banner(self) -> None:
        assert self._process.stdout is not None
        found: dict[str, str] = {}
        while self._wanted - set(found):
            line = (await self._process.stdout.readline()).decode()
            if not line:
                status = await self._process.wait()
                raise AssertionError(f"ended with {status}: {await self.stderr()}")
            self.banner.append(line.rstrip())
            words = line.split()
            if len(words) == 2 and words[0] in ("gRPC", "REST"):
                found[words[0]] = words[1]
        self.grpc = found.get("gRPC", "")
        self.rest = found.get("REST", "").removeprefix("http://").removeprefix("https://")


async def spawn(*arguments: str) -> asyncio.subprocess.Process:
    """Starts the command."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headgate.cli",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )


async def run(*arguments: str, within: float = END_SECONDS) -> tuple[int, str, str]:
    """Runs the command to its end: exit status, stdout, stderr."""
    process = await spawn(*arguments)
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def _drain(stream: asyncio.StreamReader | None) -> bytes:
    assert stream is not None
    return await stream.read()
