"""What the documents name exists: files, links, tasks, commands, options, Python names, settings."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from headgate.cli.commands import app
from headgate_facade.app import create_app
from headgate_server.config import parse_config
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
# What else in backticks ends like a file, and where readers find or make it.
THEIR_FILES = {"server.pem", "server.key", "clients.pem", "ca.pem", "client.pem", "client.key"}
IN_GOLDEN_CASES = {"target.json", "request.json"}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(
    r"[\w./-]+\.(?:md|py|toml|yaml|proto|sh|json|lock|mjs|html|sse)|\.ci/run|Makefile"
)


@functools.cache
def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def fences(document: str, *languages: str) -> list[str]:
    found = _FENCE.findall(text(document))
    return [body for language, body in found if not languages or language in languages]


def spans(document: str) -> list[str]:
    """What stands in backticks, outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", text(document)))


@functools.cache
def files() -> frozenset[str]:
    hidden = re.compile(r"(^|/)(\.(?!ci/)[^/]*|__pycache__|node_modules|dist|build)/")
    paths = (p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if p.is_file())
    return frozenset(path for path in paths if not hidden.search(path))


def exists(name: str) -> bool:
    """A file, by its path from the root or by the end of it; or a folder, from the root."""
    if name in IN_GOLDEN_CASES:
        return any(re.fullmatch(rf"tests/golden/\w+/\w+/{name}", path) for path in files())
    return (ROOT / name).is_dir() or any(
        path == name or path.endswith(f"/{name}") for path in files()
    )


def named_paths(document: str) -> Iterator[str]:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for span in spans(document):
        first, slash, _ = span.partition("/")
        if _FILE.fullmatch(span) or (
            slash and first in folders and re.fullmatch(r"[\w./-]+", span)
        ):
            yield span


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_named_in_backticks_exist(document: str) -> None:
    missing = [
        name for name in named_paths(document) if name not in THEIR_FILES and not exists(name)
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", text(document))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


def test_the_check_of_files_finds_something() -> None:
    assert len(list(named_paths("ARCHITECTURE.md"))) > 30
    assert not exists("server/headgate_server/nothing.py")
    assert not exists("tests/nothing")


@functools.cache
def commands() -> Mapping[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def command_lines(document: str) -> Iterator[list[str]]:
    """Every use of the command `headgate`: a span, or a line of a shell block."""
    shell = "\n".join(fences(document, "sh", "")).replace("\\\n", " ").splitlines()
    for line in [*spans(document), *shell]:
        if found := re.match(r"(?:\$ )?headgate ([a-z].*)", line):
            yield found[1].split()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_options_exist(document: str) -> None:
    for name, *words in command_lines(document):
        assert name in commands(), f"headgate {name}"
        known = {option for p in commands()[name].params for option in (*p.opts, *p.secondary_opts)}
        unknown = [w for w in words if w.startswith("-") and w.partition("=")[0] not in known]
        assert not unknown, f"headgate {name} {words}"


def test_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| `headgate ([a-z-]+)", text("README.md"), re.MULTILINE)
    assert sorted(listed) == sorted(commands())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_tasks_exist(document: str) -> None:
    tasks = re.findall(r"^([a-z-]+):.*## ", text("Makefile"), re.MULTILINE)
    named = re.findall(r"(?:`|^|\$ )make ([a-z][a-z-]*)", text(document), re.MULTILINE)
    assert set(named) <= set(tasks)


def test_every_task_is_phony() -> None:
    """A file of a task's name would otherwise end it silently."""
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", text("Makefile"), re.MULTILINE)
    assert phony is not None
    tasks = re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE)
    assert set(tasks) == set(phony[1].replace("\\", "").split())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_names_exist(document: str) -> None:
    for span in spans(document):
        if not re.fullmatch(r"headgate(_server|_facade)?(\.\w+)+", span) or ".v1." in span:
            continue  # names below headgate.v1 are the proto's, see the next test
        assert resolves(span), span


def resolves(dotted: str) -> bool:
    module, _, name = dotted.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name) or bool(
            importlib.import_module(dotted)
        )
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("document", DOCUMENTS)
def test_services_exist(document: str) -> None:
    protos = "".join(path.read_text() for path in (ROOT / "proto/headgate/v1").glob("*.proto"))
    for service, method in re.findall(r"headgate\.v1\.([A-Z]\w+)(?:/(\w+))?", text(document)):
        assert f"service {service} " in protos or f"message {service} " in protos, service
        assert not method or f"rpc {method}(" in protos, method


def test_paths_of_the_rest_api_exist() -> None:
    unused: Any = None  # the routes are known before there is a core behind them
    site = create_app(unused, routes=object())  # type: ignore[arg-type]
    served = {
        (method.upper(), path) for path, ways in site.openapi()["paths"].items() for method in ways
    }
    served |= {("GET", getattr(route, "path", "")) for route in site.routes}
    served = {(method, re.sub(r"\{.*?\}", "{}", path)) for method, path in served}
    named = [re.fullmatch(r"(GET|POST) (/\S+)", span) for span in spans("README.md")]
    paths = {(found[1], re.sub(r"\{.*?\}", "{}", found[2])) for found in named if found}
    assert len(paths) > 5
    assert paths <= served


def test_configurations_in_the_readme_are_valid() -> None:
    blocks = fences("README.md", "yaml")
    assert len(blocks) == 2
    env = dict.fromkeys(re.findall(r"\$\{(\w+)\}", "".join(blocks)), "value-for-a-test")
    for block in blocks:
        parse_config(block, "README.md", kinds=kinds(), strategies=STRATEGIES, env=env)


def test_the_configuration_in_the_document_about_routing_is_valid() -> None:
    (block,) = fences("docs/routing.md", "yaml")
    env = dict.fromkeys(re.findall(r"\$\{(\w+)\}", block), "value-for-a-test")
    env["OPENAI_KEY_US"] = "another-value"
    parse_config(block, "docs/routing.md", kinds=kinds(), strategies=STRATEGIES, env=env)


def test_every_section_of_the_configuration_is_in_the_example() -> None:
    example = yaml.safe_load((ROOT / "examples/headgate.yaml").read_text())
    schema = yaml.safe_load((ROOT / "docs/headgate.schema.json").read_text())
    assert set(example) == set(schema["properties"])


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_are_hashed_and_name_no_address(lock: str) -> None:
    lines = text(lock).splitlines()
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    pins = re.findall(
        r"^[\w.-]+==\S+.*\n(?:    (?!--hash=sha256:).*\n)*(.*)", text(lock), re.MULTILINE
    )
    assert len(pins) > 30
    assert all(pin.startswith("    --hash=sha256:") for pin in pins)
