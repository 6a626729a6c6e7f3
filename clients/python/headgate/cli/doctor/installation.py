"""`doctor`: the machine and the packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

from headgate.cli.doctor.check import Check

_NEEDED = {
    "fastapi": "fastapi",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "httpx": "httpx",
    "msgspec": "msgspec",
    "google.protobuf": "protobuf",
    "pydantic": "pydantic",
    "uvicorn": "uvicorn",
    "yaml": "pyyaml",
}
_FAST = {"uvloop": "uvloop", "httptools": "httptools"}
_ENOUGH_FILES = 4096


def versions() -> Iterator[Check]:
    """Python and the packages that `serve` needs."""
    version = platform.python_version()
    yield Check("python", "ok", f"{version} on {platform.system()} {platform.machine()}")
    missing = [package for module, package in _NEEDED.items() if not _installed(module)]
    if missing:
        finding = f"not installed: {', '.join(missing)}"
        yield Check("packages", "fail", finding, "pip install 'headgate[all]'")
    else:
        names = ("headgate", "grpcio", "protobuf", "fastapi", "uvicorn", "pydantic")
        yield Check("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in names))
    slow = [package for module, package in _FAST.items() if not _installed(module)]
    if slow:
        finding = f"not installed: {', '.join(slow)}; everything works, but slower"
        yield Check("speed", "warn", finding, f"pip install {' '.join(slow)}")
    else:
        yield Check("speed", "ok", ", ".join(f"{name} {_version(name)}" for name in _FAST))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(unknown version)"


def files_limit() -> Iterator[Check]:
    """Whether enough files, and so connections, may be open."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _ENOUGH_FILES:
        yield Check("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"{soft}")
        return
    # A call holds two sockets: the caller's and the upstream's.
    finding = f"limited to {soft}: about {max(soft - 50, 0) // 2} calls at the same time"
    most = "" if hard == resource.RLIM_INFINITY else f" (at most {hard} here)"
    advice = f"Fine for development; otherwise raise it{most} with `ulimit -n 65536`."
    yield Check("open files", "warn", finding, advice)
