"""The simulation: every scenario with every strategy, in virtual time; tables and pictures.

    python tests/bench/simulation/run.py                    the tables, to standard output
    python tests/bench/simulation/run.py --only slow,outage
    python tests/bench/simulation/run.py --write            docs/simulation.md and its pictures anew

Owns the command line and the tables. Of the document it owns what stands between its marks; the words
around them are written by hand.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script: tests/ is the root

from bench.simulation import measures
from bench.simulation.play import Played, play
from bench.simulation.scenarios import BY_NAME, SCENARIOS, STRATEGIES, Scenario

SEED = 1
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "simulation.md"
_HEAD = (
    "strategy",
    "answered",
    "mean",
    "p50",
    "p99",
    "upstream calls a request",
    "share of calls at `a`",
    "last failure",
    "no breaker open",
)


def plays_of(
    scenario: Scenario, pool: ProcessPoolExecutor, seed: int
) -> tuple[dict[str, Played], dict[str, Played]]:
    """The scenario with each strategy, and the same with its contrast, if it has one."""
    jobs = {name: pool.submit(play, scenario, name, seed) for name in STRATEGIES}
    contrasts = {}
    if scenario.contrast:
        other = scenario.contrasted()
        contrasts = {name: pool.submit(play, other, name, seed) for name in STRATEGIES}
    return (
        {name: job.result() for name, job in jobs.items()},
        {name: job.result() for name, job in contrasts.items()},
    )


def table(scenario: Scenario, plays: Mapping[str, Played], beside: Mapping[str, Played]) -> str:
    """The numbers of a scenario, as Markdown."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    lines += [_row(f"`{name}`", played) for name, played in plays.items()]
    lines += [
        _row(f"`{name}` {scenario.contrast_label}", played) for name, played in beside.items()
    ]
    return "\n".join(lines)


def _row(label: str, played: Played) -> str:
    begin, end = played.phase("trouble")
    trouble = measures.summary(played, begin, end)
    calls = played.calls_in(begin, end)
    share = played.calls_in(begin, end, "a") / calls if calls else measures.NONE
    cells = [
        label,
        _percent(trouble.success),
        _seconds(trouble.mean),
        _seconds(trouble.p50),
        _seconds(trouble.p99),
        f"{trouble.calls:.2f}",
        _percent(share),
        _after(measures.seconds_to_recover(played)),
        _after(measures.seconds_to_close(played)),
    ]
    return "| " + " | ".join(cells) + " |"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def _seconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds:.2f} s"


def _after(seconds: float) -> str:
    if math.isnan(seconds):
        return "not yet"
    return "-" if seconds == 0 else f"+{seconds:.1f} s"


def rewritten(document: str, name: str, between: str) -> str:
    """The document with other text between the marks of a scenario."""
    marks = re.compile(rf"(<!-- simulation: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marks.search(document):
        raise SystemExit(f"the document has no place for the scenario {name!r}")
    return marks.sub(lambda found: f"{found[1]}{between}\n{found[2]}", document)


def main() -> None:
    """Plays what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="scenarios, separated by commas")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--write", action="store_true", help="write the document's part anew")
    options = parser.parse_args()
    chosen = [BY_NAME[name] for name in options.only.split(",") if name] or list(SCENARIOS)
    with ProcessPoolExecutor() as pool:
        for scenario in chosen:
            plays, beside = plays_of(scenario, pool, options.seed)
            found = table(scenario, plays, beside)
            print(f"\n{scenario.title} ({scenario.name})\n\n{found}", flush=True)
            if options.write:
                from bench.simulation import plots  # takes a second

                picture = f"img/simulation-{scenario.name}.png"
                plots.draw(scenario, plays, beside, DOCUMENT.parent / picture)
                part = f"![{scenario.title}: {', '.join(plays)}]({picture})\n\n{found}"
                text = DOCUMENT.read_text(encoding="utf-8")
                DOCUMENT.write_text(rewritten(text, scenario.name, part), encoding="utf-8")


if __name__ == "__main__":
    main()
