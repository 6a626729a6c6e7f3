"""What is measured: how each target is started, where it listens, and when it is ready.

Owns command lines and the gateway's configuration. Adding a target is one function and one line in
`TARGETS`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from bench import proc

TESTS = Path(__file__).resolve().parents[1]
HEADGATE = Path(sys.executable).with_name("headgate")
KEY = "bench-0123456789abcdef0123456789abcdef"
READY_WITHIN = 60.0

CONFIG = """\
listen: {{grpc: 127.0.0.1:{grpc}, rest: 127.0.0.1:{rest}}}
auth: {{mode: keys, keys: [{{name: bench, key: {key}}}]}}
providers:
  mock: {{kind: openai, base_url: "http://{upstream}/v1", api_key: x}}
models:
  m: {{targets: [{{provider: mock}}]}}
"""

# All that routing can do at once, but for the cache, which would leave nothing to measure.
EVERYTHING = """\
listen: {{grpc: 127.0.0.1:{grpc}, rest: 127.0.0.1:{rest}}}
auth: {{mode: keys, keys: [{{name: bench, key: {key}, tenant: bench}}]}}
providers:
  one:
    {{kind: openai, base_url: "http://{upstream}/v1", api_keys: [{{key: a, weight: 2}}, {{key: b}}]}}
  two:
    {{kind: openai, base_url: "http://{upstream}/v1", api_keys: [{{key: c}}, {{key: d}}]}}
  three: {{kind: openai, base_url: "http://{upstream}/v1", api_key: z}}
models:
  m:
    strategy: latency
    aliases: ["m-*"]
    targets: [{{provider: one}}, {{provider: two}}, {{provider: three}}]
    fallbacks: [spare]
    on_context_window: [spare]
    on_content_policy: [spare]
    timeouts: {{connect: 2s, first_token: 20s, idle: 20s}}
    retries: {{max: 3}}
    hedge: {{after: 10s}}
  spare: {{targets: [{{provider: three}}]}}
routes:
  - {{when: {{model: "other-*"}}, use: spare}}
  - {{when: {{headers: {{x-team: blue}}}}, use: spare}}
  - {{when: {{metadata: {{tier: gold}}}}, use: spare}}
  - {{when: {{tools: true}}, use: spare}}
  - {{when: {{modality: image}}, use: spare}}
  - {{when: {{tenant: nobody}}, shadow: spare}}
  - {{when: {{tokens: {{min: 500000}}}}, use: spare}}
  - {{name: canary, when: {{model: m}}, share: 0.000001, use: spare}}
concurrency: {{limit: 200, adaptive: true, min: 100}}
"""


class Unavailable(Exception):
    """A target that does not start; the others are measured all the same."""


@dataclass(frozen=True)
class Part:
    """One process of a target: ready when /readyz is 200, or else when its port is open."""

    name: str
    argv: list[str]
    address: str
    readyz: bool = True
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """One or more processes that together answer at `address`."""

    name: str
    parts: list[Part]
    protocol: Literal["rest", "grpc"] = "rest"
    is_upstream: bool = False

    @property
    def address(self) -> str:
        """Where the load goes: to the last part."""
        return self.parts[-1].address


def free_address() -> str:
    """A loopback address that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def mock_argv(address: str) -> list[str]:
    """The command line of the mock upstream."""
    return [sys.executable, "-m", "bench.mock", "--port", address.rpartition(":")[2]]


def _direct(upstream: str, work: Path) -> Target:
    address = free_address()
    return Target("direct", [Part("mock", mock_argv(address), address)], is_upstream=True)


def _floor(upstream: str, work: Path) -> Target:
    address = free_address()
    argv = [sys.executable, "-m", "uvicorn", "bench.floor:app", "--loop", "uvloop"]
    argv += ["--http", "httptools", "--log-level", "warning", "--no-access-log"]
    argv += ["--port", address.rpartition(":")[2]]
    part = Part("floor", argv, address, env={"BENCH_UPSTREAM": f"http://{upstream}/v1"})
    return Target("floor", [part])


def _config(upstream: str, work: Path, template: str = CONFIG) -> tuple[list[str], str, str]:
    if not HEADGATE.exists():
        raise Unavailable(f"there is no {HEADGATE.name} command beside {Path(sys.executable).name}")
    grpc, rest = free_address(), free_address()
    ports = {"grpc": grpc.rpartition(":")[2], "rest": rest.rpartition(":")[2]}
    path = work / "headgate.yaml"
    path.write_text(template.format(**ports, key=KEY, upstream=upstream))
    return ["--config", str(path)], grpc, rest


def _one_process(upstream: str, work: Path) -> Target:
    config, _grpc, rest = _config(upstream, work)
    return Target("one process", [Part("serve", [str(HEADGATE), "serve", *config], rest)])


def _everything(upstream: str, work: Path) -> Target:
    config, _grpc, rest = _config(upstream, work, EVERYTHING)
    return Target("everything", [Part("serve", [str(HEADGATE), "serve", *config], rest)])


def _apart(upstream: str, work: Path) -> Target:
    config, grpc, rest = _config(upstream, work)
    core = Part("core", [str(HEADGATE), "core", *config], grpc, readyz=False)
    facade = Part("facade", [str(HEADGATE), "facade", "--core", grpc, "--rest", rest], rest)
    return Target("apart", [core, facade])


def _grpc(upstream: str, work: Path) -> Target:
    config, grpc, _rest = _config(upstream, work)
    core = Part("core", [str(HEADGATE), "core", *config], grpc, readyz=False)
    return Target("gRPC", [core], protocol="grpc")


TARGETS: dict[str, Callable[[str, Path], Target]] = {
    "direct": _direct,
    "floor": _floor,
    "one process": _one_process,
    "everything": _everything,
    "apart": _apart,
    "gRPC": _grpc,
}


class Running:
    """A target while it runs: `with Running(target, core, work) as running`."""

    def __init__(self, target: Target, core: int | None, work: Path) -> None:
        self.target = target
        self.core = core
        self.work = work
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ready_ms: dict[str, float] = {}

    def __enter__(self) -> Self:
        try:
            for part in self.target.parts:
                self._start(part)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes.values()):
            proc.stop(process)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far of each part, with its children."""
        return {name: proc.cpu_s(process.pid) for name, process in self.processes.items()}

    def memory(self) -> dict[str, proc.Memory]:
        """Memory now of each part, with its children."""
        return {name: proc.memory(process.pid) for name, process in self.processes.items()}

    def _start(self, part: Part) -> None:
        # Nothing of ours leaks in: PYTHONDONTWRITEBYTECODE alone would distort the start-up time.
        ours = ("PYTHON", "HEADGATE_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        log = self.work / f"{self.target.name} {part.name}.log".replace(" ", "-")
        log.write_bytes(b"")
        begun = time.monotonic()
        process = proc.spawn(part.argv, core=self.core, log=log, env=env | part.env, cwd=TESTS)
        self.processes[part.name] = process
        while not is_ready(part.address, http=part.readyz):
            if process.poll() is not None:
                raise Unavailable(f"{part.name} ended with {process.returncode}: {_tail(log)}")
            if time.monotonic() - begun > READY_WITHIN:
                raise Unavailable(f"{part.name} not ready in {READY_WITHIN:g} s: {_tail(log)}")
            time.sleep(0.005)
        self.ready_ms[part.name] = 1e3 * (time.monotonic() - begun)


def is_ready(address: str, *, http: bool) -> bool:
    """Whether the port takes connections, and over HTTP whether /readyz is 200."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1) as sock:
            if not http:
                return True
            sock.sendall(f"GET /readyz HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " | ".join(lines[-3:]) or "it said nothing"
