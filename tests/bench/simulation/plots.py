"""Pictures of plays: for each scenario one, with every strategy in a pair of small panels.

Owns how it looks. Colours are Okabe and Ito's, which people tell apart who see colours differently; the
lines differ in width and dash, too. No date and no version is written into the files, so that the same
numbers give the same bytes (with the same matplotlib).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.simulation import measures
from bench.simulation.measures import Summary
from bench.simulation.play import Played
from bench.simulation.scenarios import Scenario

STEP = 2.0  # seconds of a point
_COLUMNS = 3
_BLUE, _VERMILLION, _GREEN, _GREY = "#0072B2", "#D55E00", "#007A5A", "#767676"
_SHADES = ("#F2E9D0", "#F9F5E9")
_TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32)
Curve = list[tuple[float, Summary]]


def draw(
    scenario: Scenario, plays: Mapping[str, Played], beside: Mapping[str, Played], path: Path
) -> None:
    """Writes the picture of a scenario.

    Args:
        scenario: for its title and phases.
        plays: by strategy.
        beside: the same with the settings of the contrast; empty if there is none.
        path: of the PNG file.
    """
    curves = {name: measures.curve(played, STEP) for name, played in plays.items()}
    others = {name: measures.curve(played, STEP) for name, played in beside.items()}
    rows = math.ceil(len(curves) / _COLUMNS)
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(11, 3.4 * rows + 1.0), dpi=110)
        # A pair of panels for each strategy, and air between the rows.
        heights = [height for _ in range(rows) for height in (1.0, 2.6, 0.55)][:-1]
        grid = figure.add_gridspec(
            len(heights), _COLUMNS, height_ratios=heights, hspace=0.1, wspace=0.1,
            left=0.085, right=0.985, top=1 - 0.92 / figure.get_figheight(),
            bottom=0.58 / figure.get_figheight(),
        )  # fmt: skip
        bounds = _bounds([*curves.values(), *others.values()])
        for index, (name, curve) in enumerate(curves.items()):
            row, column = divmod(index, _COLUMNS)
            above = figure.add_subplot(grid[3 * row, column])
            below = figure.add_subplot(grid[3 * row + 1, column], sharex=above)
            above.set_title(name, loc="left", fontweight="bold", fontsize=11, pad=4)
            _success(above, curve, others.get(name))
            _times(below, curve, others.get(name), bounds)
            for axes in (above, below):
                _phases(axes, scenario)
                axes.tick_params(labelleft=column == 0)
            above.tick_params(labelbottom=False)
            if column == 0:
                above.set_ylabel("answered")
                below.set_ylabel("time to whole answer")
            if index + _COLUMNS >= len(curves):
                below.set_xlabel("seconds")
        figure.suptitle(
            scenario.title, x=0.012, y=1 - 0.1 / figure.get_figheight(), ha="left", va="top",
            fontsize=14, fontweight="bold",
        )  # fmt: skip
        _legend(scenario, bool(others))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
        plt.close(figure)


def _success(axes: Axes, curve: Curve, other: Curve | None) -> None:
    if other is not None:
        axes.plot(*_line(other, "success"), color=_GREY, linewidth=1.2, linestyle=(0, (2, 1.5)))
    axes.plot(*_line(curve, "success"), color=_GREEN, linewidth=2)
    axes.set_ylim(-0.04, 1.06)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)


def _times(axes: Axes, curve: Curve, other: Curve | None, bounds: tuple[float, float]) -> None:
    axes.set_yscale("log")
    if other is not None:
        axes.plot(*_line(other, "p99"), color=_GREY, linewidth=1.2, linestyle=(0, (2, 1.5)))
    axes.plot(*_line(curve, "p99"), color=_VERMILLION, linewidth=2, linestyle=(0, (5, 1.2)))
    axes.plot(*_line(curve, "p50"), color=_BLUE, linewidth=2)
    axes.set_ylim(*bounds)
    axes.set_yticks([tick for tick in _TICKS if bounds[0] <= tick <= bounds[1]])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g} s"))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)


def _line(curve: Curve, field: str) -> tuple[list[float], list[float]]:
    return [at for at, _ in curve], [getattr(point, field) for _, point in curve]


def _bounds(curves: Sequence[Curve]) -> tuple[float, float]:
    """Of the times of all strategies, so that panels compare."""
    times = [
        time for curve in curves for _, point in curve for time in (point.p50, point.p99)
        if not math.isnan(time)
    ]  # fmt: skip
    return min(times) * 0.85, max(max(times) * 1.2, min(times) * 8)


def _phases(axes: Axes, scenario: Scenario) -> None:
    begin, shades = 0.0, iter(_SHADES)
    for phase in scenario.phases:
        if phase.label:
            axes.axvspan(begin, begin + phase.seconds, color=next(shades), zorder=0, linewidth=0)
        begin += phase.seconds
    axes.set_xlim(0, begin)
    axes.set_xticks(range(0, int(begin) + 1, 20))


def _legend(scenario: Scenario, contrasted: bool) -> None:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=_GREEN, linewidth=2, label="share answered"),
        Line2D([], [], color=_VERMILLION, linewidth=2, linestyle=(0, (5, 1.2)), label="p99"),
        Line2D([], [], color=_BLUE, linewidth=2, label="p50"),
    ]
    labels = [phase.label for phase in scenario.phases if phase.label]
    handles += [
        Patch(color=shade, label=label) for shade, label in zip(_SHADES, labels, strict=False)
    ]
    if contrasted:
        label = f"answered and p99 {scenario.contrast_label}"
        style = {"color": _GREY, "linewidth": 1.2, "linestyle": (0, (2, 1.5))}
        handles.append(Line2D([], [], label=label, **style))
    plt.gcf().legend(
        handles=handles, loc="upper left", ncols=len(handles), frameon=False,
        bbox_to_anchor=(0.004, 1 - 0.34 / plt.gcf().get_figheight()),
        handlelength=2.4, columnspacing=1.6, fontsize=10,
    )  # fmt: skip
