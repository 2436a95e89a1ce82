"""Contact sheets of the queries whose score changed most: what two runs find for each, and what it has in common."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data.sources import ImageSource
from training.retrieval.features import RetrievalSet
from training.retrieval.pictures import QUERY, agreement, panel, sheet_title
from training.retrieval.spaces.changes import shown_labels

_WIDTH = 22  # characters below a panel at its font size


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    order: NDArray[np.int64]
    """Images found, ``[N, depth]``, −1 = none left."""
    score: NDArray[np.float64]
    """Of every query, ``[N]``."""


def change_sheet(
    path: Path,
    data: RetrievalSet,
    source: ImageSource,
    sides: Sequence[Side],
    queries: Sequence[int],
    measure: str,
    title: str,
) -> None:
    """Draw one row per query: the query and its caption, then what each run finds first.

    Args:
        path: PNG to write.
        data: images; orders and queries count in its rows.
        source: where the images are read.
        sides: the baseline and the run beside it.
        queries: rows to show; with none the sheet says so.
        measure: name of the score.
        title: above, several lines.

    Raises:
        DataError: an image cannot be read any more.
    """
    depth = sides[0].order.shape[1]
    columns = 2 + len(sides) * (depth + 1)
    ratios = [1.05, 1.7, *([0.2] + [1] * depth) * len(sides)]
    height = 1.92 * len(queries) + 1.35  # inches
    figure = Figure(figsize=(1.22 * sum(ratios), height), facecolor="white")
    sheet_title(figure, title)
    if not queries:
        figure.text(0.01, 0.25, "No query changed in this direction.", fontsize=10)
        figure.savefig(path, dpi=110)
        return
    grid = figure.add_gridspec(
        len(queries), columns, width_ratios=ratios,
        left=0.008, right=0.995, bottom=0.66 / height, top=1 - 0.98 / height, wspace=0.07, hspace=0.66,
    )  # fmt: skip
    values = [data.label(name) for name in shown_labels(data.store.labels)]
    for line, query in enumerate(queries):
        first = figure.add_subplot(grid[line, 0])
        panel(first, data, source, query, QUERY, _labels(values, query), "" if line else "query")
        first.set_anchor("N")
        _tell(figure.add_subplot(grid[line, 1]), data, sides, query, measure)
        for number, side in enumerate(sides):
            for place, row in enumerate(side.order[query].tolist()):
                axes = figure.add_subplot(grid[line, 3 + number * (depth + 1) + place])
                if row < 0:
                    axes.axis("off")
                    continue
                head = side.name if line == 0 and place == 0 else ""
                below = "\n".join(
                    [_labels(values, row), _shared(data, query, row), _short(data.captions[row])]
                )
                panel(axes, data, source, row, agreement(values, query, row), below, head)
                axes.set_anchor("N")
    figure.savefig(path, dpi=110)


def _tell(axes: Axes, data: RetrievalSet, sides: Sequence[Side], query: int, measure: str) -> None:
    """The query's caption and its score by either run."""
    axes.axis("off")
    scores = [f"{textwrap.shorten(s.name, 20, placeholder='…')}: {100 * s.score[query]:.1f}" for s in sides]
    change = 100 * (sides[1].score[query] - sides[0].score[query])
    lines = [f"{measure} {change:+.1f}", *scores, "", *textwrap.wrap(data.captions[query], 36, max_lines=9,
             placeholder=" …")]  # fmt: skip
    axes.text(0, 1, "\n".join(lines), va="top", fontsize=6.6, linespacing=1.25, parse_math=False)


def _labels(values: Sequence[Sequence[str]], row: int) -> str:
    text = " · ".join(value[row] or "–" for value in values)
    return "\n".join(textwrap.wrap(text, _WIDTH, max_lines=2, placeholder=" …"))


def _shared(data: RetrievalSet, query: int, row: int) -> str:
    both = int((data.cuis[[query]] @ data.cuis[[row]].T).sum())
    return f"shares {both} of {data.cuis[[query]].nnz} concepts"


def _short(caption: str) -> str:
    return "\n".join(textwrap.wrap(f"“{caption}”", _WIDTH, max_lines=2, placeholder=" …”"))
