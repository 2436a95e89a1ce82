"""Pages from templates, their figures in per cent, and their pictures; written whole or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import training.rendering
from training.folders import whole_file
from training.statistics.intervals import Interval

LEVEL = 0.05
"""Below it a p value counts as a difference."""
COLOURS = ("#1f5fbf", "#c8352b", "#2a9d4a", "#8e44ad")
_APART = 0.12  # units of the axis, between lines that would hide each other


def render(template: str, **content: Any) -> str:
    """A page of this package's templates."""
    return training.rendering.render("pipelines.experiments", f"{template}.md.j2", level=LEVEL, **content)


def paragraphs(template: str, **content: Any) -> list[str]:
    """Paragraphs of a template, each on one line."""
    found = (" ".join(one.split()) for one in render(template, **content).split("\n\n"))
    return [one for one in found if one]


@dataclass(frozen=True)
class Panel:
    """One protocol of a plot."""

    title: str
    lines: Mapping[str, Mapping[float, Interval]]
    """Line to x to accuracy, shares of 1."""
    baseline: float | None
    """Accuracy of the best baseline."""


def draw(path: Path, panels: Sequence[Panel], title: str, x: str, marked: float | None, option: str) -> None:
    """Write a PNG of accuracy over a quantity that differs between rows, by atomic rename.

    The values of x stand at equal distances, in ascending order: 0 and powers of ten have no scale in common.

    Args:
        path: the file.
        panels: from left to right.
        title: above them.
        x: what is on the axis.
        marked: the value that gets a line of its own.
        option: of the command, that names the file.
    """
    figure = Figure(figsize=(4.9 * len(panels) + 0.5, 5.0), facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=11)
    every = sorted({value for panel in panels for line in panel.lines.values() for value in line})
    places = {value: float(place) for place, value in enumerate(every)}
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for rank, (name, line) in enumerate(panel.lines.items()):
            values, means = sorted(line), [line[value].mean for value in sorted(line)]
            shift = _APART * (rank - (len(panel.lines) - 1) / 2)
            ends = [[line[value].low for value in values], [line[value].high for value in values]]
            axes.errorbar(
                [places[value] + shift for value in values],
                100 * np.array(means),
                yerr=100 * np.nan_to_num(np.abs(np.subtract(ends, means))),  # no bar where there is no interval
                color=COLOURS[rank % len(COLOURS)], marker="o", markersize=4, linewidth=1.4, elinewidth=0.8,
                capsize=2, label=name,
            )  # fmt: skip
        grey: dict[str, Any] = {"color": "#999999", "linewidth": 1}
        if panel.baseline is not None:
            axes.axhline(100 * panel.baseline, linestyle="--", label="best baseline", **grey)
        if marked in places:
            axes.axvline(places[marked], linestyle=":", label="the paper's choice", **grey)
        axes.set_xticks(list(places.values()), [f"{value:g}" for value in every])
        axes.set_xlabel(x)
        axes.set_ylabel("" if place else "overall accuracy, % (bars: 95 %, these trained models)", fontsize=9)
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        if not place:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=9)
    with whole_file(path, option) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})
