"""The one import direction, over every import statement of the three packages, also those in functions.

::

    headgate_facade -> headgate <- headgate_server        headgate.cli -> all (the composition root)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOTS = {
    "headgate": REPOSITORY / "clients/python/headgate",
    "headgate_server": REPOSITORY / "server/headgate_server",
    "headgate_facade": REPOSITORY / "facade/headgate_facade",
}
# The libraries that speak HTTP to upstreams, and the modules whose job that is.
UPSTREAM_LIBRARIES = {"aiohttp", "httptools", "pyreqwest", "requests", "urllib3", "niquests"}
UPSTREAM_MODULES = {"headgate_server.upstream", "headgate_server.http1"}
# Slow, and good for everything that does not run once for each request.
CONTROL_PLANE_LIBRARIES = {"httpx", "httpx2"}
INPUT_AND_OUTPUT = {
    *("asyncio", "concurrent", "ftplib", "grpc", "http", "multiprocessing", "os", "select"),
    *("selectors", "shutil", "socket", "ssl", "subprocess", "tempfile", "threading", "time"),
    *("urllib.request", "uvloop"),
    *UPSTREAM_LIBRARIES,
    *CONTROL_PLANE_LIBRARIES,
}
# A dialect is a package; the modules beside them are the seam, the data, and what dialects share. The
# local model's is one module, around another dialect.
PACKAGES = {
    root: {path.parent.name for path in (ROOTS[root] / folder).glob("*/__init__.py")}
    for root, folder in (("headgate_server", "providers"), ("headgate_facade", "."))
}
PROVIDER_DIALECTS = PACKAGES["headgate_server"] | {"local"}


@dataclass(frozen=True)
class Import:
    """One name that a module imports, as an absolute path."""

    module: str
    target: str
    line: int

    def is_in(self, *packages: str) -> bool:
        return any(self.target == name or self.target.startswith(f"{name}.") for name in packages)

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def imports_of(source: str, module: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(module, name.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            for name in node.names:  # `from a import b` may mean the module a.b
                yield Import(module, f"{node.module}.{name.name}", node.lineno)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func)
            in (
                "import_module",
                "importlib.import_module",
                "__import__",
            )
            and isinstance(node.args[0], ast.Constant)
        ):
            yield Import(module, str(node.args[0].value), node.lineno)


def module_name(root: str, path: Path) -> str:
    parts = path.relative_to(ROOTS[root]).with_suffix("").parts
    return ".".join((root, *parts)).removesuffix(".__init__")


def load(root: str) -> list[Import]:
    found: list[Import] = []
    for path in sorted(ROOTS[root].rglob("*.py")):
        if "_pb2" not in path.name:
            found += imports_of(path.read_text(), module_name(root, path))
    return found


COMMAND = [each for each in load("headgate") if f"{each.module}.".startswith("headgate.cli.")]
LIBRARY = [each for each in load("headgate") if each not in COMMAND]
SERVER = load("headgate_server")
FACADE = load("headgate_facade")
EVERYTHING = LIBRARY + COMMAND + SERVER + FACADE
PROVIDERS = "headgate_server.providers."
DIALECTS = [
    each
    for each in SERVER
    if each.module.startswith(PROVIDERS) and each.module.split(".")[2] in PROVIDER_DIALECTS
]


def wrong(found: list[Import], *packages: str) -> list[str]:
    return [str(each) for each in found if each.is_in(*packages)]


def test_there_is_something_to_look_at() -> None:
    for found in (LIBRARY, COMMAND, SERVER, FACADE, DIALECTS):
        assert len(found) > 20
    assert any(each.is_in("headgate_server") for each in COMMAND)
    assert wrong(FACADE, "headgate.core")
    assert wrong(SERVER, "headgate.errors")


def test_the_walk_sees_every_kind_of_import() -> None:
    source = """
import a.b
from c import d as e
def f():
    from g.h import i
    if True:
        import j
import importlib
importlib.import_module("k.l")
"""
    found = {each.target for each in imports_of(source, "m")}
    assert found == {"a.b", "c.d", "g.h.i", "j", "importlib", "k.l"}
    with pytest.raises(AssertionError, match="relative"):
        list(imports_of("from . import x", "m"))


def test_the_library_imports_neither_root() -> None:
    assert not wrong(LIBRARY, "headgate_server", "headgate_facade", "headgate.cli")


def test_the_library_needs_no_more_than_the_base_install() -> None:
    allowed = {"headgate", "grpc", "google", *sys.stdlib_module_names}
    found = [
        str(each)
        for each in LIBRARY
        if each.target.split(".")[0] not in allowed
        and not (
            each.module == "headgate.wire" and each.is_in("msgspec")
        )  # front doors' and core's
    ]
    assert not found
    reached = {"headgate"}
    while True:
        more = {
            name
            for each in LIBRARY
            if each.module in reached
            for name in (each.target, each.target.rpartition(".")[0])
            if name.startswith("headgate.")
        }
        if more <= reached:
            break
        reached |= more
    assert "headgate.client" in reached
    assert "headgate.wire" not in reached


def test_server_and_facade_do_not_know_each_other() -> None:
    # The composition root hands the client to providers that are gateways themselves.
    others = [each for each in SERVER if each.module != "headgate_server.app"]
    assert not wrong(others, "headgate.client", "headgate.Client")
    assert not wrong(SERVER, "headgate_facade", "headgate.cli")
    assert not wrong(
        FACADE, "headgate_server", "headgate.cli", "headgate.client", "headgate.Client"
    )


def test_one_module_speaks_to_upstreams() -> None:
    found = [
        str(each)
        for each in EVERYTHING
        if each.is_in(*UPSTREAM_LIBRARIES) and each.module not in UPSTREAM_MODULES
    ]
    assert not found
    users = {each.module for each in SERVER if each.is_in(*UPSTREAM_MODULES)}
    assert users <= {
        "headgate_server.app",
        "headgate_server.providers.runtime",
        "headgate_server.upstream",
    }


def test_the_data_plane_does_without_httpx() -> None:
    assert not wrong(LIBRARY + SERVER + FACADE, *CONTROL_PLANE_LIBRARIES)


def test_grpc_stays_at_the_border() -> None:
    border = {"headgate_server.grpc_api", "headgate_server.grpc_server"}
    found = [
        each for each in SERVER + FACADE if each.is_in("grpc", "grpc_health", "grpc_reflection")
    ]
    assert {each.module for each in found} == border
    assert not wrong([each for each in SERVER if each.module not in border], *border)
    library = {each.module for each in LIBRARY if each.is_in("grpc")}
    assert library == {"headgate.client", "headgate.errors"}


def test_web_frameworks_stay_in_the_facade() -> None:
    assert not wrong(LIBRARY + SERVER + COMMAND, "fastapi", "starlette", "uvicorn")


def test_dialects_do_no_input_or_output() -> None:
    assert not wrong(DIALECTS, *INPUT_AND_OUTPUT, *UPSTREAM_MODULES)
    assert not wrong(
        DIALECTS, "headgate_server.app", "headgate_server.core", "headgate_server.execute"
    )


def dialect(module: str) -> str:
    """The dialect that a module is, or is a part of."""
    name = module.removeprefix(PROVIDERS).split(".")[0]
    return name if name in PROVIDER_DIALECTS else ""


def test_no_dialect_imports_another() -> None:
    assert {dialect(each.module) for each in DIALECTS} >= {"openai", "anthropic", "local"}
    found = [
        str(each)
        for each in DIALECTS
        if each.target.startswith(PROVIDERS)
        and dialect(each.target) not in ("", dialect(each.module))
    ]
    assert not found


def test_facade_dialects_do_not_import_each_other() -> None:
    def name(module: str) -> str:
        word = [*module.split("."), ""][1]
        return word if word in PACKAGES["headgate_facade"] else ""

    found = [
        str(each)
        for each in FACADE
        if each.is_in("headgate_facade")
        and name(each.module)
        and name(each.target) not in ("", name(each.module))
    ]
    assert not found
