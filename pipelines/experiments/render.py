"""Pages from templates, their figures in per cent, and their pictures; written whole or not at all."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from training.folders import whole_file
from training.statistics.intervals import Interval
from training.statistics.paired_tests import p_text

LEVEL = 0.05
"""Below it a p value counts as a difference."""
NOTHING = "–"
COLOURS = ("#1f5fbf", "#c8352b", "#2a9d4a", "#8e44ad")
_APART = 0.12  # units of the axis, between lines that would hide each other


def percent(share: float) -> str:
    """A share of 1, in per cent."""
    return NOTHING if math.isnan(share) else f"{100 * share:.1f}"


def interval(one: Interval, signed: bool = False) -> str:
    """A mean with its bounds, per cent."""
    if math.isnan(one.mean):
        return NOTHING
    return f"{100 * one.mean:{'+' if signed else ''}.1f}" + bounds(one, signed)


def bounds(one: Interval, signed: bool = False) -> str:
    """Nothing where they cannot be estimated: too few cases for a t interval."""
    sign = "+" if signed else ""
    return "" if math.isnan(one.low) else f" [{100 * one.low:{sign}.1f}, {100 * one.high:{sign}.1f}]"


def span(values: Iterable[float]) -> str:
    """From the least to the largest."""
    found = list(values)
    low, high = f"{min(found):,.0f}", f"{max(found):,.0f}"
    return low if low == high else f"{low} to {high}"


def number(value: float | None, digits: int = 0) -> str:
    """With so many digits; nothing where it is not known."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def cells(texts: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(str(cell).strip().replace("|", "\\|") for cell in texts) + " |"


def header(names: Sequence[str], left: int = 1) -> str:
    """The first two lines of a Markdown table; all columns but the first ``left`` are aligned to the right."""
    return f"{cells(names)}\n{cells('---' if place < left else '---:' for place in range(len(names)))}"


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("pipelines.experiments"), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    found.filters |= {
        "percent": percent, "interval": interval, "bounds": bounds, "p": p_text, "span": span, "number": number
    }  # fmt: skip
    found.tests["known"] = lambda value: not math.isnan(value)
    found.globals |= {"cells": cells, "header": header, "level": LEVEL}
    return found


def render(template: str, **content: Any) -> str:
    """A page."""
    return _templates().get_template(f"{template}.md.j2").render(content)


def paragraphs(template: str, **content: Any) -> list[str]:
    """Its paragraphs, each on one line."""
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
            values = sorted(line)
            shift = _APART * (rank - (len(panel.lines) - 1) / 2)
            axes.errorbar(
                [places[value] + shift for value in values],
                [100 * line[value].mean for value in values],
                yerr=_bars([line[value] for value in values]),
                color=COLOURS[rank % len(COLOURS)], marker="o", markersize=4, linewidth=1.4, elinewidth=0.8,
                capsize=2, label=name,
            )  # fmt: skip
        grey: dict[str, Any] = {"color": "#999999", "linewidth": 1}
        if panel.baseline is not None:
            axes.axhline(100 * panel.baseline, linestyle="--", label="best floor", **grey)
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


def _bars(intervals: Sequence[Interval]) -> list[list[float]]:
    """Lengths below and above the means, per cent; none where there is no interval."""
    known = [(100 * (one.mean - one.low), 100 * (one.high - one.mean)) for one in intervals]
    return [[0.0 if math.isnan(length) else length for length in side] for side in zip(*known, strict=True)]
