"""The grid's plot: accuracy over a quantity that differs between rows, a panel for each protocol."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pipelines.vqa_tables.grid import Plot
from training.statistics.intervals import Interval

COLOURS = ("#1f5fbf", "#c8352b", "#2a9d4a", "#8e44ad")
_APART = 0.12  # units of the axis, between lines that would hide each other


@dataclass(frozen=True)
class Panel:
    """One protocol."""

    title: str
    lines: dict[str, dict[float, Interval]]
    """Line to x to accuracy, shares of 1."""
    floor: float | None
    """Accuracy of the best floor."""


def draw(path: Path, panels: Sequence[Panel], title: str, plot: Plot) -> None:
    """Write a PNG.

    The values of x stand at equal distances, in ascending order: 0 and powers of ten have no scale in common.

    Args:
        path: the file.
        panels: from left to right.
        title: above them.
        plot: what is on the axis, and which value gets a line of its own.
    """
    figure = Figure(figsize=(4.9 * len(panels) + 0.5, 5.0), facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=11)
    every = sorted({value for panel in panels for line in panel.lines.values() for value in line})
    places = {value: float(place) for place, value in enumerate(every)}
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for number, (name, line) in enumerate(panel.lines.items()):
            values = sorted(line)
            shift = _APART * (number - (len(panel.lines) - 1) / 2)
            axes.errorbar(
                [places[value] + shift for value in values],
                [100 * line[value].mean for value in values],
                yerr=_bars([line[value] for value in values]),
                color=COLOURS[number % len(COLOURS)],
                marker="o",
                markersize=4,
                linewidth=1.4,
                elinewidth=0.8,
                capsize=2,
                label=name,
            )
        if panel.floor is not None:
            axes.axhline(100 * panel.floor, color="#999999", linewidth=1, linestyle="--", label="best floor")
        if plot.marked in places:
            axes.axvline(
                places[plot.marked], color="#999999", linewidth=1, linestyle=":", label="the paper's choice"
            )
        axes.set_xticks(list(places.values()), [f"{value:g}" for value in every])
        axes.set_xlabel(plot.x)
        axes.set_ylabel("" if place else "overall accuracy, % (bars: 95 %, these trained models)", fontsize=9)
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        if not place:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=9)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _bars(intervals: Iterable[Interval]) -> list[list[float]]:
    """Lengths below and above the means, per cent; none where there is no interval."""
    below, above = list[float](), list[float]()
    for one in intervals:
        known = one.low == one.low
        below.append(100 * (one.mean - one.low) if known else 0.0)
        above.append(100 * (one.high - one.mean) if known else 0.0)
    return [below, above]
