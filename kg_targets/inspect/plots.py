"""Figures of a store: similarity blocks and histograms, returned as matplotlib figures to show or save."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kg_targets.store import TargetStore


def sample_rows(
    store: "TargetStore", size: int = 96, seed: int = 0, order_by: Sequence[str] = ()
) -> NDArray[np.int64]:
    """Random known rows, one image per case, sorted by the given labels so that structure shows as squares.

    Returns:
        int64 [≤ size] row numbers.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(np.flatnonzero(store.known))
    groups = np.asarray(store.group_ids, dtype=object)[shuffled]
    _, first = np.unique(groups, return_index=True)
    rows = np.sort(shuffled[np.sort(first)[:size]])
    keys = [np.asarray(store.label(name), dtype=str)[rows] for name in reversed(order_by)]
    return rows[np.lexsort([rows, *keys])] if keys else rows


def block_figure(
    blocks: dict[str, NDArray[np.float32]], tick_labels: Sequence[str] = (), width: float = 5.2
) -> Figure:
    """Similarity blocks side by side on one colour scale.

    Args:
        blocks: title to square block [B, B].
        tick_labels: length B, shown where the value changes (rows must be sorted by it).
        width: inches per block.
    """
    figure = Figure(figsize=(width * len(blocks) + 1.2, 0.9 * width), layout="constrained")
    axes = figure.subplots(1, len(blocks), squeeze=False)[0]
    for axis, (title, block) in zip(axes, blocks.items(), strict=True):
        shown = (
            block if block.size else np.full((1, 1), np.nan, np.float32)
        )  # no image about which something is known
        axis.imshow(shown, vmin=0.0, vmax=1.0, cmap="viridis", interpolation="nearest")
        axis.set_title(title, fontsize=10, parse_math=False)  # names may hold $
        axis.set_xticks([])
        axis.set_yticks([])
    if tick_labels:
        starts = [i for i, name in enumerate(tick_labels) if i == 0 or name != tick_labels[i - 1]]
        stops = [*starts[1:], len(tick_labels)]
        middles = [(start + stop - 1) / 2 for start, stop in zip(starts, stops, strict=True)]
        # A group narrower than its label's line of text goes without, so that labels do not overlap.
        rows_per_line = 0.016 * 5.2 / width * len(tick_labels)
        wide = [index for index in range(len(starts)) if stops[index] - starts[index] >= rows_per_line]
        names = [tick_labels[starts[index]] for index in wide]
        axes[0].set_yticks([middles[index] for index in wide], names, fontsize=8, parse_math=False)
        for axis in axes:
            for start in starts[1:]:
                axis.axhline(start - 0.5, color="white", linewidth=0.5)
                axis.axvline(start - 0.5, color="white", linewidth=0.5)
    figure.colorbar(axes[0].images[0], ax=list(axes), shrink=0.8, label="similarity S")
    return figure


def similarity_histogram(store: "TargetStore", size: int = 1024, seed: int = 0) -> Figure:
    """Similarities between images of different cases, with the threshold θ of the ``evidence`` policy marked."""
    rows = sample_rows(store, size, seed)
    block = store.block(rows)
    values = block[np.triu_indices(len(rows), k=1)]
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axis = figure.subplots()
    axis.hist(values, bins=60, range=(min(0.0, float(values.min(initial=0.0))), 1.0), color="#4477aa")
    axis.axvline(
        store.threshold,
        color="#cc3311",
        linewidth=1.2,
        label=f"θ = {store.threshold:.3f} (p95 of the fit split)",
    )
    if values.size:
        axis.set_yscale("log")
    axis.set_xlabel("similarity S between images of different cases")
    axis.set_ylabel("pairs (log scale)")
    axis.legend(frameon=False, fontsize=8)
    return figure
