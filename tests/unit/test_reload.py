"""A new configuration: what a running gateway follows, when a file is read again, what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import pytest

from headgate.cli import reloading
from headgate.cli.loading import configuration
from headgate.cli.reloading import Reloader
from headgate_server.config import Config, ConfigError, Problem, parse_config
from headgate_server.config.changes import Point, changes, follow
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES

BASE = """
providers:
  a: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: "secret-of-a"}
models:
  m: {targets: [{provider: a}]}
"""
KEYS = 'auth: {mode: keys, keys: [{name: ci, key: "a-key-of-many-letters"}]}\n'


def parsed(text: str) -> Config:
    return parse_config(text, "test.yaml", kinds=kinds(), strategies=STRATEGIES, env={})


# -- what a running gateway follows ---------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        "retries: {max: 5}\n",
        "timeouts: {total: 5s}\n",
        "limits: {sse_line_bytes: 1MiB}\n",
        "drain: 1s\n",
        "log: {level: info}\n",
        "cache: {ttl: 1s}\n",
        "reload: false\n",
        KEYS,
    ],
)
def test_nearly_everything_is_followed(more: str) -> None:
    new = parsed(BASE + more)
    assert follow(parsed(BASE), new) == (new, [])


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("listen: {grpc: '127.0.0.1:1'}\n", "listen"),
        ("listen: {tls: {cert_file: c, key_file: k}}\n", "listen"),
        ("facade: {body_limit: 1MiB}\n", "facade"),
        ("limits: {message_bytes: 1MiB, sse_line_bytes: 1MiB}\n", "limits.message_bytes"),
    ],
)
def test_what_was_decided_at_the_start_waits(more: str, path: str) -> None:
    started = parsed(BASE)
    new = parsed(BASE + more + "retries: {max: 7}\n")
    config, waiting = follow(started, new)
    assert [problem.path for problem in waiting] == [path]
    assert "restart" in waiting[0].message
    assert config.listen == started.listen
    assert config.facade == started.facade
    assert config.limits.message_bytes == started.limits.message_bytes
    assert config.limits.sse_line_bytes == new.limits.sse_line_bytes
    assert config.retries.max == 7


def test_embedded_models_stay_as_they_began() -> None:
    one = BASE.replace("providers:", "providers:\n  tiny: {kind: local, options: {slots: 1}}")
    started = parsed(one)
    assert follow(started, parsed(one)).waiting == []
    assert "tiny" not in follow(started, parsed(BASE)).config.providers
    config, waiting = follow(started, parsed(one.replace("slots: 1", "slots: 2")))
    assert [problem.path for problem in waiting] == ["providers.tiny"]
    assert config.providers["tiny"] == started.providers["tiny"]
    for before in (BASE, BASE.replace("providers:", "providers:\n  tiny: {kind: ollama}")):
        with pytest.raises(ConfigError, match=r"providers\.tiny: a local model cannot be added"):
            follow(parsed(before), started)


def test_listeners_that_stay_are_never_left_unguarded() -> None:
    """The file is right by itself: it listens at loopback. But that change has to wait."""
    started = parsed(BASE + KEYS + "listen: {grpc: '0.0.0.0:50051'}\n")
    with pytest.raises(ConfigError) as caught:
        follow(started, parsed(BASE))
    assert [problem.path for problem in caught.value.problems] == ["listen.grpc"]
    assert "0.0.0.0:50051" in str(caught.value)
    assert follow(started, parsed(BASE + KEYS)).config.auth == started.auth

    tls = "listen: {tls: {cert_file: c, key_file: k, client_ca_file: a}}\n"
    with pytest.raises(ConfigError, match=r"auth\.mode: mtls needs listen\.tls"):
        follow(parsed(BASE), parsed(BASE + tls + "auth: {mode: mtls}\n"))
    # Where listeners stay as they are, the file has been checked.
    public = "listen: {grpc: '0.0.0.0:50051'}\n"
    opened = parsed(BASE + public + "auth: {mode: none, insecure: true}\n")
    assert follow(parsed(BASE + public + KEYS), opened).config.auth == opened.auth


def test_changes_are_told_by_name_and_never_by_value() -> None:
    before = parsed(BASE)
    assert changes(before, parsed(BASE + "# a word\n")) == "nothing is different"
    after = parsed(
        """
providers:
  a: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: "another-secret"}
  b: {kind: openai, base_url: "http://127.0.0.1:2/v1", api_key: "third-secret"}
models:
  n: {targets: [{provider: b}]}
retries: {max: 5}
"""
    )
    said = changes(before, after)
    assert said == "providers: b added, a changed; models: n added, m removed; retries"
    many = BASE + "".join(f"  x{n}: {{targets: [{{provider: a}}]}}\n" for n in range(500))
    assert len(changes(before, parsed(many))) < 200


# -- when a file is read again ----------------------------------------------------------------------


class Served:
    """What a gateway would do with configurations: remember them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = configuration(path, {})
        self.count = 0
        self.asked = asyncio.Event()

    async def use(self, config: Config, point: Point) -> Sequence[Problem]:
        if "refused" in config.models:
            raise ConfigError([point(("models", "refused"), "is refused")])
        if "broken" in config.models:
            raise RuntimeError("a defect")
        self.count += 1
        self.now = config
        return [point(("models",), "is told")] if "told" in config.models else []

    async def until(self, wanted: Callable[[Config], bool]) -> None:
        async with asyncio.timeout(5):
            while not wanted(self.now):
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def served(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Served, None]:
    monkeypatch.setattr(reloading, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(reloading, "_QUIET_SECONDS", 0.02)
    found = Served(path)
    reloader = Reloader(path, {}, path.read_bytes(), current=lambda: found.now, use=found.use)
    task = asyncio.create_task(reloader.watch(found.asked))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


def model(name: str) -> str:
    return BASE.replace("  m:", f"  {name}:")


def has(name: str) -> Callable[[Config], bool]:
    return lambda config: name in config.models


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "headgate.yaml"
    path.parent.mkdir()
    path.write_text(BASE)
    return path


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What has been told since the last look."""
    caplog.set_level(logging.WARNING, "headgate")

    def take() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return take


def write_in_place(path: Path, text: str) -> None:
    path.write_text(text)


def rename_over(path: Path, text: str) -> None:
    """As editors and Ansible do."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.rename(path)


def delete_first(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def new_folder(path: Path, text: str) -> None:
    path.parent.rename(path.parent.with_name("old"))
    path.parent.mkdir()
    path.write_text(text)


@pytest.mark.parametrize("write", [write_in_place, rename_over, delete_first, new_folder])
async def test_every_way_of_writing_a_file_is_seen(
    file: Path, write: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(file, monkeypatch) as found:
        for name in ("x", "y"):
            if write is new_folder and name == "y":
                break
            write(file, model(name))
            await found.until(has(name))


async def test_a_swapped_folder_behind_a_link_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kubernetes does with a ConfigMap: headgate.yaml -> ..data/headgate.yaml, ..data -> v1."""
    for version, name in (("v1", "m"), ("v2", "x")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "headgate.yaml").write_text(model(name))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "headgate.yaml").symlink_to("..data/headgate.yaml")
    async with served(tmp_path / "headgate.yaml", monkeypatch) as found:
        assert has("m")(found.now)
        (tmp_path / "..new").symlink_to("v2")
        os.replace(tmp_path / "..new", tmp_path / "..data")
        await found.until(has("x"))


async def test_nothing_new_is_nothing_to_tell(
    file: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    async with served(file, monkeypatch) as found:
        os.utime(file, (1, 1))
        rename_over(file, BASE)
        await asyncio.sleep(0.2)
        assert found.count == 0
        assert told() == []
        found.asked.set()  # who asks is told
        async with asyncio.timeout(5):
            while not found.count:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        assert told() == [f"configuration reloaded: {file}: nothing is different"]


async def test_a_bad_file_is_told_with_its_lines_and_the_next_good_one_is_taken(
    file: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    async def until_told(count: int) -> list[str]:
        found: list[str] = []
        async with asyncio.timeout(5):
            while len(found) < count:
                await asyncio.sleep(0.005)
                found += told()
        return found

    not_reloaded = "configuration NOT reloaded, the old one stays: "
    async with served(file, monkeypatch) as found:
        file.write_text(BASE + "modles: {}\nretries: {max: many}\n")
        said = await until_told(2)
        assert said[0].startswith(f"{not_reloaded}{file}:6:1: modles: ")
        assert said[1].startswith(f"{not_reloaded}{file}:7:16: retries.max: ")
        assert 'did you mean "models"' in said[0]
        assert "retries.max" in said[1]

        file.unlink()
        assert await until_told(1) == [
            f"{not_reloaded}{file}: cannot read the configuration file: No such file or directory"
        ]
        file.write_text(model("refused"))
        assert await until_told(1) == [f"{not_reloaded}{file}:5:3: models.refused: is refused"]
        file.write_text(model("broken"))
        assert await until_told(1) == [f"{not_reloaded}{file}"]
        assert found.count == 0
        assert has("m")(found.now)

        file.write_text(model("told"))
        assert await until_told(2) == [
            f"configuration reloaded: {file}: models: told added, m removed",
            f"{file}:4:1: models: is told",
        ]
        await asyncio.sleep(0.1)
        assert told() == []


async def test_a_file_is_left_alone_until_it_is_quiet(
    file: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    async with served(file, monkeypatch) as found:
        monkeypatch.setattr(reloading, "_QUIET_SECONDS", 0.15)
        whole = model("x")
        for end in range(0, len(whole), 10):  # nearly every part of it is no valid file
            file.write_text(whole[:end])
            await asyncio.sleep(0.01)
        file.write_text(whole)
        await found.until(has("x"))
        assert found.count == 1
        assert len(told()) == 1


async def test_reload_false_waits_to_be_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(BASE + "reload: false\n")
    async with served(file, monkeypatch) as found:
        file.write_text(model("x"))
        await asyncio.sleep(0.15)
        assert found.count == 0
        found.asked.set()
        await found.until(has("x"))
        file.write_text(model("y"))  # the new one says nothing against it
        await found.until(has("y"))


async def test_the_environment_is_looked_at_again_and_options_still_win(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE", "http://127.0.0.1:7/v1")
    found = Served(file)
    reloader = Reloader(file, {"log_level": "error"}, b"", current=lambda: found.now, use=found.use)
    text = BASE.replace("http://127.0.0.1:1/v1", "${WHERE}") + "log: {level: info}\n"
    for where in ("http://127.0.0.1:7/v1", "http://127.0.0.1:8/v1"):
        monkeypatch.setenv("WHERE", where)
        await reloader.take(text.encode())
        assert found.now.providers["a"].base_url == where
        assert found.now.log.level == "error"
    assert reloader.text == text.encode()
    with pytest.raises(ConfigError):
        await reloader.take(b"modles: {}")
    assert reloader.text == text.encode()
