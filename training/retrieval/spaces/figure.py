"""The figure of learned similarity: mean cosine against S, a line for each model, with the pairs below."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from training.retrieval.pictures import sheet_title
from training.retrieval.spaces.pairs import ALL
from training.retrieval.spaces.similarity import MIN_PAIRS, Similarity, shown_bins
from training.retrieval.spaces.starts import START

COLOURS = ("#1f5fbf", "#c8352b", "#2a9d4a", "#8e44ad", "#e0a100", "#0e8c8c", "#7a4a21", "#d1478f")
START_COLOUR = "#777777"


def similarity_figure(path: Path, similarities: Mapping[str, Similarity], title: str) -> None:
    """Draw a column for each kind of cosines.

    Args:
        path: PNG to write.
        similarities: kind to what is drawn; bins of fewer than ``MIN_PAIRS`` pairs are left out.
        title: above, several lines.
    """
    figure = Figure(figsize=(6.2 * len(similarities) + 0.4, 6.4), facecolor="white")
    sheet_title(figure, title)
    grid = figure.add_gridspec(
        2, len(similarities), height_ratios=[3.4, 1], left=0.065, right=0.985, bottom=0.085, top=0.83,
        wspace=0.2, hspace=0.08,
    )  # fmt: skip
    for column, (kind, similarity) in enumerate(similarities.items()):
        upper = figure.add_subplot(grid[0, column])
        lower = figure.add_subplot(grid[1, column], sharex=upper)
        bins = shown_bins(similarity)
        places = [bin_.similarity for bin_ in bins]
        whole = similarity.sections[ALL].correlations
        trained = iter(COLOURS * (1 + len(whole) // len(COLOURS)))
        for name, kinds in whole.items():
            estimates = [bin_.cosines[name] for bin_ in bins]
            means = np.array([estimate.value for estimate in estimates])
            lows, highs = (np.array([getattr(e, side) for e in estimates]) for side in ("low", "high"))
            colour = START_COLOUR if name == START else next(trained)
            correlation = kinds["spearman"].value
            label = _shortened(name) + (
                f" (Spearman {correlation:z.2f})" if correlation == correlation else ""
            )
            style = "--" if name == START else "-"
            upper.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)
            upper.plot(places, means, style, marker="o", markersize=3.5, color=colour, label=label)
        upper.set_title(kind.replace("-", " to "), fontsize=10, loc="left")
        upper.set_ylabel("mean cosine", fontsize=9)
        upper.legend(fontsize=8, loc="best", framealpha=0.85)
        upper.tick_params(labelbottom=False, labelsize=8)
        upper.grid(alpha=0.25)
        # Bars between the bins' edges: what a point of the upper panel rests on.
        lower.bar(
            [bin_.low for bin_ in bins], [bin_.pairs for bin_ in bins],
            [bin_.high - bin_.low for bin_ in bins], align="edge", color="#b8c2cc", edgecolor="white",
        )  # fmt: skip
        lower.set_yscale("log")
        lower.set_ylim(bottom=MIN_PAIRS / 2)
        lower.set_ylabel("pairs", fontsize=9)
        lower.set_xlabel("target similarity S of two images of different cases", fontsize=9)
        lower.tick_params(labelsize=8)
        lower.grid(alpha=0.25)
    figure.savefig(path, dpi=110)


def _shortened(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"
