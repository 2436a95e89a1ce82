"""Pictures of retrieval between images and texts: what each run finds for a few queries, in words and images."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from training.data.sources import ImageSource
from training.retrieval.evaluation import Shown
from training.retrieval.features import RetrievalSet
from training.retrieval.pictures import QUERY, _caption, agreement, panel, sheet_title

OWN = "#1f5fbf"
"""Frame and marker of the query's own counterpart."""
_CAPTIONS, _LINES, _WIDTH = 4, 2, 84  # captions per query, lines of each, characters per line


def text_sheet(
    path: Path,
    data: RetrievalSet,
    source: ImageSource,
    shown: Mapping[str, Shown],
    queries: Sequence[int],
    labels: Sequence[str],
    title: str,
) -> None:
    """Image to text: one row per query, the image and then the first captions that each run finds for it.

    Args:
        path: PNG to write.
        data: images; ``shown`` and ``queries`` count in its rows.
        source: where the images are read.
        shown: run name to its lists.
        queries: rows to show.
        labels: a caption is green where all of them agree with the query, amber where some do, red where none does.
        title: above, one or two lines.
    """
    values = [data.label(name) for name in labels]
    height = 1.75 * len(queries) + 0.9  # inches
    figure = Figure(figsize=(1.7 + 4.4 * len(shown), height), facecolor="white")
    grid = figure.add_gridspec(
        len(queries), 1 + len(shown), width_ratios=[1.35, *[4.4] * len(shown)],
        left=0.01, right=0.995, bottom=0.3 / height, top=1 - 0.72 / height, wspace=0.04, hspace=0.42,
    )  # fmt: skip
    sheet_title(figure, title)
    for line, query in enumerate(queries):
        head = "" if line else "query"
        place = figure.add_subplot(grid[line, 0])
        panel(place, data, source, query, QUERY, _caption(values, query), head)
        for column, (name, lists) in enumerate(shown.items(), start=1):
            axes = figure.add_subplot(grid[line, column])
            _captions(axes, data, lists, query, values)
            rank = f"own caption at rank {lists.own_ranks[query]:,}" if lists.own_ranks is not None else ""
            axes.set_title(f"{name}: {rank}", fontsize=8, loc="left", pad=3, parse_math=False)
    figure.savefig(path, dpi=110)


def _captions(
    axes: Axes, data: RetrievalSet, lists: Shown, query: int, values: Sequence[Sequence[str]]
) -> None:
    """The captions found, each beside a bar of the colour of its agreement; the own one in blue."""
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(_CAPTIONS, 0))
    for place, row in enumerate(lists.order[query, :_CAPTIONS].tolist()):
        if row < 0:
            continue
        own = data.caption_codes[row] == data.caption_codes[query]
        colour = OWN if own else agreement(values, query, row)
        axes.add_patch(_bar(place, colour))
        axes.text(
            0.025, place + 0.5, f"{place + 1}. {_wrapped(data.captions[row], _WIDTH, _LINES)}",
            va="center", fontsize=6.6, color=OWN if own else "#222222", linespacing=1.15, parse_math=False,
        )  # fmt: skip


def image_sheet(
    path: Path,
    data: RetrievalSet,
    source: ImageSource,
    shown: Mapping[str, Shown],
    queries: Sequence[int],
    labels: Sequence[str],
    title: str,
    depth: int = 5,
) -> None:
    """Text to image: one row per query, the caption and then the first images that each run finds for it.

    Args are those of ``text_sheet``; ``depth`` images per run, the caption's own in a blue frame.
    """
    values = [data.label(name) for name in labels]
    height = 1.75 * len(queries) + 0.9
    figure = Figure(figsize=(2.6 + 1.18 * len(shown) * (depth + 0.35), height), facecolor="white")
    grid = figure.add_gridspec(
        len(queries), 1 + len(shown) * (depth + 1), width_ratios=[2.2, *([0.35] + [1] * depth) * len(shown)],
        left=0.01, right=0.995, bottom=0.45 / height, top=1 - 0.72 / height, wspace=0.06, hspace=0.5,
    )  # fmt: skip
    sheet_title(figure, title)
    for line, query in enumerate(queries):
        axes = figure.add_subplot(grid[line, 0])
        axes.axis("off")
        text = f"{_wrapped(data.captions[query], 48, 7)}\n\n{_caption(values, query)}"
        axes.text(0, 0.5, text, va="center", fontsize=6.8, linespacing=1.2, parse_math=False)
        for number, (name, lists) in enumerate(shown.items()):
            for place, row in enumerate(lists.order[query, :depth].tolist()):
                axes = figure.add_subplot(grid[line, 2 + number * (depth + 1) + place])
                if row < 0:
                    axes.axis("off")
                    continue
                own = data.caption_codes[row] == data.caption_codes[query]
                colour = OWN if own else agreement(values, query, row)
                rank = f" {lists.own_ranks[query]:,}" if lists.own_ranks is not None else ""
                head = "" if place else f"{name}: own image at rank{rank}"
                panel(axes, data, source, row, colour, _caption(values, row), "")
                axes.set_title(head, fontsize=8, loc="left", pad=3, parse_math=False)
    figure.savefig(path, dpi=110)


def _wrapped(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def _bar(place: int, colour: str) -> Rectangle:
    return Rectangle((0, place + 0.08), 0.012, 0.84, color=colour, linewidth=0)
