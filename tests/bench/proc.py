"""Processes under measurement: started on a core of their own, read from /proc, ended by their id.

Owns what Linux tells about CPU time and memory. Knows nothing of gateways or of load.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """Which core the target runs on and which all the rest; None: no pinning."""

    target: int | None
    rest: int | None

    @classmethod
    def pick(cls) -> Cores:
        """Two different cores, if this process may use two."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[1], allowed[0]) if len(allowed) >= 2 else cls(None, None)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Processes started inside inherit the pin, from their first instruction on."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def spawn(
    argv: Sequence[str], *, core: int | None, log: Path, env: Mapping[str, str], cwd: Path
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own; its output goes to the end of `log`."""
    with on_core(core), log.open("ab") as out:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End a process that `spawn` started, and its descendants: first politely."""
    family = tree(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    for pid in family if process.poll() is None else family[1:]:
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == process.pid:  # still ours, not a number used again
                os.kill(pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)


def tree(root: int) -> list[int]:
    """`root` and its living descendants, `root` first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_s(root: int) -> float:
    """CPU seconds of the tree so far, to the nanosecond; ended children count by the tick."""
    total = 0.0
    for pid in tree(root):
        with suppress(OSError):
            total += time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), all threads
        if fields := _stat(pid):
            total += (int(fields[13]) + int(fields[14])) / TICKS
    return total


@dataclass(frozen=True)
class Memory:
    """Of a whole tree, in MB. PSS counts shared pages once."""

    pss: float
    rss: float
    processes: int
    threads: int


def memory(root: int) -> Memory:
    """What the tree holds now."""
    pss = rss = 0.0
    family = tree(root)
    threads = 0
    for pid in family:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == "Pss":
                    pss += int(value.split()[0]) / 1024
                elif name == "Rss":
                    rss += int(value.split()[0]) / 1024
        if fields := _stat(pid):
            threads += int(fields[17])
    return Memory(pss, rss, len(family), threads)


def own_cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def machine_busy_s() -> float:
    """CPU seconds that anything on this machine used since it started, all cores together."""
    user, nice, system, _idle, _iowait, irq, softirq = _machine()[:7]
    return (user + nice + system + irq + softirq) / TICKS


def steal_s() -> float:
    """Seconds that the hypervisor gave our cores to others."""
    return _machine()[7] / TICKS


def _machine() -> list[int]:
    with Path("/proc/stat").open() as file:
        return [int(n) for n in file.readline().split()[1:]]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (state) on; the name before may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
