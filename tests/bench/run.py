"""The benchmark: CPU per request and per chunk of Headgate, beside baselines, in one run.

    python tests/bench/run.py                      every target and scenario, three rounds
    python tests/bench/run.py --quick              one short round, to see that all is well
    python tests/bench/run.py --only floor,gRPC,burst-c16

Owns the order of things, the measurements and the tables. How to read them: README.md beside this.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script: tests/ is the root

from bench import proc
from bench.load import Load
from bench.targets import (
    KEY,
    TARGETS,
    TESTS,
    Running,
    Unavailable,
    free_address,
    is_ready,
    mock_argv,
)

CHUNKS = 64
NOISY = 0.2  # cores used by others; a row above it is measured again, then marked
Row = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One kind of load."""

    name: str
    what: str
    connections: int
    stream: bool = False
    large: bool = False
    delay_ms: int = 0


SCENARIOS = [
    Scenario("unary-c1", "550 B requests, one at a time", 1),
    Scenario("unary-c16", "550 B requests, 16 at a time", 16),
    Scenario("large-c4", "200 KB requests, 4 at a time", 4, large=True),
    Scenario("burst-c16", "streams of 64 chunks without a pause, 16 at a time", 16, stream=True),
    Scenario("paced-c16", "streams of 64 chunks, 20 ms apart, 16 at a time", 16, True, delay_ms=20),
    Scenario("paced-c200", "the same, 200 at a time", 200, True, delay_ms=20),
]


class Bench:
    """The mock upstream, and measurements of one target at a time."""

    patient = True  # measure again, once, what others disturbed

    def __init__(self, work: Path, cores: proc.Cores, upstream: str, mock_pid: int) -> None:
        self.work = work
        self.cores = cores
        self.upstream = upstream
        self.mock_pid = mock_pid

    def round(self, name: str, scenarios: list[Scenario], seconds: float) -> Iterator[Row]:
        """Start the target afresh, measure it, stop it."""
        target = TARGETS[name](self.upstream, self.work)
        with Running(target, self.cores.target, self.work) as running:
            for kind in (False, True):  # both paths once, before memory is called idle
                seen = self.drive(running, stream=kind, requests=1, seconds=10)
                if seen["errors"] or not seen["requests"]:
                    raise Unavailable(f"wrong answer: {' | '.join(seen['error_samples'])}")
            time.sleep(0.5)
            yield {"scenario": "ready", "ready_ms": running.ready_ms, **self.memory(running)}
            self.control(running, "/_mock/set?chunks=64&delay_ms=0")
            self.drive(running, connections=16, seconds=seconds / 2)
            self.drive(running, connections=16, seconds=seconds / 4, stream=True)
            for scenario in scenarios:
                row = self.measure(running, scenario, seconds)
                if row["foreign_cores"] > NOISY and self.patient:
                    again = self.measure(running, scenario, seconds)
                    row = min(row, again, key=lambda r: float(r["foreign_cores"]))
                yield {"scenario": scenario.name, **row}
            yield {"scenario": "after", **self.memory(running)}

    def measure(self, running: Running, scenario: Scenario, seconds: float) -> Row:
        """One scenario: CPU before and after, and what the driver saw in between."""
        self.control(running, f"/_mock/set?chunks={CHUNKS}&delay_ms={scenario.delay_ms}")
        self.settle(running)
        steal, begun = proc.steal_s(), time.monotonic()
        busy, own, mock = proc.machine_busy_s(), proc.own_cpu_s(), proc.cpu_s(self.mock_pid)
        before = running.cpu_s()
        seen = self.drive(
            running,
            connections=scenario.connections,
            stream=scenario.stream,
            large=scenario.large,
            stagger=scenario.delay_ms / 1000,
            seconds=seconds,
        )
        self.settle(running)
        parts = {name: cpu - before[name] for name, cpu in running.cpu_s().items()}
        mock, own = proc.cpu_s(self.mock_pid) - mock, proc.own_cpu_s() - own
        cpu, elapsed = sum(parts.values()), time.monotonic() - begun
        foreign = proc.machine_busy_s() - busy - cpu - mock - own
        done = seen["requests"] or 1
        work = done * (CHUNKS if scenario.stream else 1)
        return {
            "unit": "chunk" if scenario.stream else "request",
            "cpu_us": 1e6 * cpu / work,
            "cpu_us_parts": {name: 1e6 * value / work for name, value in parts.items()},
            "rate": work / seen["seconds"],
            "target_cores": cpu / seen["seconds"],
            "load_cores": (mock + seen["driver_cpu_s"]) / seen["seconds"],
            "foreign_cores": max(0.0, foreign) / elapsed,
            "steal_s": proc.steal_s() - steal,
            **seen,
        }

    def drive(self, running: Running, **options: Any) -> Row:
        """Run a load driver on the core that the target does not use."""
        target = running.target
        load = replace(Load(target.protocol, target.address, KEY), **options)
        argv = [sys.executable, "-m", "bench.load", json.dumps(asdict(load))]
        with proc.on_core(self.cores.rest):
            ended = subprocess.run(
                argv, cwd=TESTS, capture_output=True, text=True, timeout=load.seconds + 90
            )
        if ended.returncode:
            raise Unavailable(f"the load driver failed: {ended.stderr[-600:]}")
        result: Row = json.loads(ended.stdout)
        return result

    def settle(self, running: Running) -> None:
        """Wait until no stream is open and the target works off nothing any more (at most 5 s)."""
        before = sum(running.cpu_s().values())
        for _ in range(50):
            time.sleep(0.1)
            now = sum(running.cpu_s().values())
            if now - before < 0.003 and not self.control(running, "/_mock/stats")["open"]:
                return
            before = now

    def control(self, running: Running, path: str) -> Row:
        """Ask the mock that serves this target."""
        target = running.target
        address = target.address if target.is_upstream else self.upstream
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            result: Row = json.load(answer)
        return result

    def memory(self, running: Running) -> Row:
        """What each part holds now."""
        return {"memory": {name: asdict(held) for name, held in running.memory().items()}}


@contextmanager
def bench(work: Path) -> Iterator[Bench]:
    """Start the mock upstream for all targets."""
    cores, address = proc.Cores.pick(), free_address()
    if cores.target is None:
        print("Fewer than two cores: nothing is pinned, and the numbers are rougher.")
    argv, log = mock_argv(address), work / "mock.log"
    mock = proc.spawn(argv, core=cores.rest, log=log, env={}, cwd=TESTS)
    try:
        give_up = time.monotonic() + 20
        while not is_ready(address, http=True):
            if mock.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"the mock upstream does not start: {log.read_text()[-600:]}")
            time.sleep(0.02)
        with proc.on_core(cores.rest):
            yield Bench(work, cores, address, mock.pid)
    finally:
        proc.stop(mock)


# -- tables -------------------------------------------------------------------------------------


def table(head: list[str], rows: Iterable[list[str]]) -> None:
    """Print columns, the first to the left and the others to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def report(rows: list[Row], names: list[str], scenarios: list[Scenario]) -> None:
    """Medians over the quiet rounds (or all, if none was), a table for each scenario."""

    def of(name: str, scenario: str) -> list[Row]:
        return [r for r in rows if r["target"] == name and r["scenario"] == scenario]

    def quiet(found: list[Row]) -> list[Row]:
        return [r for r in found if r["foreign_cores"] <= NOISY] or found

    def median(found: list[Row], field: str, digits: int = 2) -> str:
        return f"{statistics.median(r[field] for r in found):.{digits}f}"

    for scenario in scenarios:
        floor = [r["cpu_us"] for r in quiet(of("floor", scenario.name))]
        unit = "chunk" if scenario.stream else "request"
        print(f"\n{scenario.name}: {scenario.what}")
        lines = []
        for name in names:
            if not (every := of(name, scenario.name)):
                continue
            found = quiet(every)
            cpu = statistics.median(r["cpu_us"] for r in found)
            low, high = (f(r["cpu_us"] for r in found) for f in (min, max))
            ratio = f"{cpu / statistics.median(floor):.2f}" if floor else "-"
            noisy = max(r["foreign_cores"] for r in found)
            counts = [median(found, "rate", 0), median(found, "p50_ms"), median(found, "p99_ms")]
            first = median(found, "first_p50_ms") if scenario.stream else "-"
            cores = [median(found, "target_cores"), median(found, "load_cores")]
            mark = f"{noisy:.2f}" + ("!" if noisy > NOISY else "")
            errors = str(sum(r["errors"] for r in every))
            calm = sum(r["foreign_cores"] <= NOISY for r in every)
            used = [f"{low:.1f}-{high:.1f}", f"{calm}/{len(every)}"]
            lines.append([name, f"{cpu:.1f}", *used, ratio, *counts, first, *cores, mark, errors])
            for part in found[0]["cpu_us_parts"] if len(found[0]["cpu_us_parts"]) > 1 else ():
                share = statistics.median(r["cpu_us_parts"][part] for r in found)
                lines.append([f"  {part}", f"{share:.1f}", *[""] * 11])
        head = ["target", f"CPU us/{unit}", "min-max", "quiet", "x floor", f"{unit}s/s", "p50 ms"]
        table([*head, "p99 ms", "first ms", "target cores", "load", "foreign", "errors"], lines)

    print("\nstart-up and memory")
    lines = []
    for name in names:
        if not (idle := of(name, "ready")):
            continue
        after = of(name, "after") or idle
        for part in idle[0]["memory"]:
            ready = statistics.median(r["ready_ms"][part] for r in idle)
            line = [name if len(idle[0]["memory"]) == 1 else f"{name}: {part}", f"{ready:.0f}"]
            for found in (idle, after):
                for kind in ("pss", "rss"):
                    line.append(f"{statistics.median(r['memory'][part][kind] for r in found):.0f}")
            lines.append([*line, str(idle[0]["memory"][part]["threads"])])
    head = ["target", "ready ms", "PSS MB idle", "RSS idle", "PSS after", "RSS after", "threads"]
    table(head, lines)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--only", default="", help="targets and scenarios, with commas between")
    parser.add_argument("--quick", action="store_true", help="one round of short loads")
    parser.add_argument("--out", type=Path, default=Path(".cache/bench.jsonl"), help="JSON lines")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what we started is stopped
    seconds, rounds = (1.0, 1) if args.quick else (args.seconds, args.rounds)
    only = {word.strip() for word in args.only.split(",") if word.strip()}
    known = {*TARGETS, *(s.name for s in SCENARIOS)}
    if only - known:
        parser.error(f"unknown: {', '.join(sorted(only - known))}; known: {', '.join(known)}")
    names = [name for name in TARGETS if name in only] or list(TARGETS)
    scenarios = [s for s in SCENARIOS if s.name in only] or SCENARIOS
    rows: list[Row] = []
    missing: dict[str, str] = {}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, bench(Path(work)) as it, args.out.open("a") as out:
        it.patient = not args.quick
        for number in range(rounds):
            for name in names:
                print(f"round {number + 1}/{rounds}: {name}", file=sys.stderr)
                try:
                    for row in it.round(name, scenarios, seconds):
                        rows.append({"round": number, "target": name, "at": time.time(), **row})
                        out.write(json.dumps(rows[-1]) + "\n")
                except Unavailable as error:
                    missing[name] = str(error)
                    print(f"  not measured: {error}", file=sys.stderr)
    report(rows, names, scenarios)
    for name, why in missing.items():
        print(f"\nnot measured: {name}: {why}")


if __name__ == "__main__":
    main()
