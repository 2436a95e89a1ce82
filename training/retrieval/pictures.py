"""Pictures to look at: what each run finds for a few queries, and what a batch's targets look like."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from kg_targets.losses.policies import evidence_policy, fixed_mass_policy, pair_structure, softmax_policy
from kg_targets.store import TargetStore
from training.data.decode import BrokenImage
from training.data.sources import ImageSource
from training.errors import DataError
from training.retrieval.evaluation import RankedLists
from training.retrieval.features import RetrievalSet

RIGHT, PART, WRONG, QUERY = "#2a9d4a", "#e0a100", "#c8352b", "#222222"
OWN = "#1f5fbf"
"""Frame and marker of the query's own counterpart."""
_CAPTIONS, _LINES, _WIDTH = 4, 2, 84  # captions per query, lines of each, characters per line


def choose_queries(labels: NDArray[np.int64], count: int, seed: int = 0) -> list[int]:
    """Queries of as many different labels as possible, drawn by seed; never chosen by how well a run does."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(np.flatnonzero(labels >= 0))
    _, first = np.unique(labels[shuffled], return_index=True)
    distinct = shuffled[np.sort(first)]
    rest = shuffled[~np.isin(shuffled, distinct)]
    return [int(row) for row in np.concatenate([distinct, rest])[:count]]


@dataclass(frozen=True)
class Sheet:
    """A page with a row per query and what each run finds for it; each drawing writes a PNG."""

    data: RetrievalSet
    source: ImageSource
    shown: Mapping[str, RankedLists]
    """Run name to its lists; they and ``queries`` count in the rows of ``data``."""
    queries: Sequence[int]
    labels: Sequence[str]
    """Colours of results: green where all of these agree with the query, amber where some do, red where none does."""
    title: str
    """Above, one or two lines."""
    depth: int = 5
    """Images per run."""

    def image_to_image(self, path: Path) -> None:
        """Draw the query, then each run's first images."""
        columns = 1 + len(self.shown) * (self.depth + 0.35)
        size = 1.18 * columns + 0.2, 1.64 * len(self.queries) + 1.1  # inches; the last row has captions too
        figure, grid = self._page(*size, self._ratios(1), left=0.005, hspace=0.42)
        for line, query in enumerate(self.queries):
            self._query(figure.add_subplot(grid[line, 0]), line, query)
            for name, place, axes, row in self._places(figure, grid, line, query):
                self._panel(axes, row, self._colour(query, row), name if line == 0 and place == 0 else "")
        figure.savefig(path, dpi=110)

    def image_to_text(self, path: Path) -> None:
        """Draw the query's image, then the first captions that each run finds for it."""
        size = 1.7 + 4.4 * len(self.shown), 1.75 * len(self.queries) + 0.9  # inches
        ratios = [1.35, *[4.4] * len(self.shown)]
        figure, grid = self._page(*size, ratios, bottom=0.3, wspace=0.04, hspace=0.42)
        for line, query in enumerate(self.queries):
            self._query(figure.add_subplot(grid[line, 0]), line, query)
            for column, (name, lists) in enumerate(self.shown.items(), start=1):
                axes = figure.add_subplot(grid[line, column])
                self._captions(axes, lists, query)
                rank = (
                    f"own caption at rank {lists.own_ranks[query]:,}" if lists.own_ranks is not None else ""
                )
                axes.set_title(f"{name}: {rank}", fontsize=8, loc="left", pad=3, parse_math=False)
        figure.savefig(path, dpi=110)

    def text_to_image(self, path: Path) -> None:
        """Draw the query's caption, then the first images that each run finds for it, its own in a blue frame."""
        size = 2.6 + 1.18 * len(self.shown) * (self.depth + 0.35), 1.75 * len(self.queries) + 0.9  # inches
        figure, grid = self._page(*size, self._ratios(2.2), hspace=0.5)
        for line, query in enumerate(self.queries):
            axes = figure.add_subplot(grid[line, 0])
            axes.axis("off")
            text = f"{_wrapped(self.data.captions[query], 48, 7)}\n\n{_caption(self._values, query)}"
            axes.text(0, 0.5, text, va="center", fontsize=6.8, linespacing=1.2, parse_math=False)
            for name, place, axes, row in self._places(figure, grid, line, query):
                ranks = self.shown[name].own_ranks
                rank = f" {ranks[query]:,}" if ranks is not None else ""
                self._panel(axes, row, self._colour_or_own(query, row), "")
                head = "" if place else f"{name}: own image at rank{rank}"
                axes.set_title(head, fontsize=8, loc="left", pad=3, parse_math=False)
        figure.savefig(path, dpi=110)

    @cached_property
    def _values(self) -> list[list[str]]:
        return [self.data.label(name) for name in self.labels]

    def _ratios(self, first: float) -> list[float]:
        return [first, *([0.35] + [1] * self.depth) * len(self.shown)]

    def _page(
        self, width: float, height: float, ratios: Sequence[float], *, left: float = 0.01, bottom: float = 0.45,
        wspace: float = 0.06, hspace: float,
    ) -> tuple[Figure, GridSpec]:  # fmt: skip
        """A white page (sizes in inches) with its title, wrapped to its width, and a grid for the queries."""
        figure = Figure(figsize=(width, height), facecolor="white")
        grid = figure.add_gridspec(
            len(self.queries), len(ratios), width_ratios=ratios, left=left, right=0.995, bottom=bottom / height,
            top=1 - 0.72 / height, wspace=wspace, hspace=hspace,
        )  # fmt: skip
        characters = int(15 * figure.get_figwidth())  # of this size in an inch
        text = [part for line in self.title.splitlines() for part in textwrap.wrap(line, characters)]
        figure.text(0.005, 0.995, "\n".join(text), va="top", fontsize=9, parse_math=False)
        return figure, grid

    def _places(
        self, figure: Figure, grid: GridSpec, line: int, query: int
    ) -> Iterator[tuple[str, int, Axes, int]]:
        """Run, place, axes and row of each image found for the query; axes without an image stay empty."""
        for number, (name, lists) in enumerate(self.shown.items()):
            for place, row in enumerate(lists.order[query, : self.depth].tolist()):
                axes = figure.add_subplot(grid[line, 2 + number * (self.depth + 1) + place])
                if row < 0:
                    axes.axis("off")
                else:
                    yield name, place, axes, row

    def _query(self, axes: Axes, line: int, query: int) -> None:
        self._panel(axes, query, QUERY, "" if line else "query")

    def _panel(self, axes: Axes, row: int, colour: str, head: str) -> None:
        """One image in a frame of ``colour``, with its labels below and a heading above.

        Raises:
            DataError: the image cannot be read any more.
        """
        try:
            image = self.source.read(int(self.data.rows[row]))
        except BrokenImage as error:
            raise DataError(f"{error}: it could be read before; are the images being changed?") from error
        grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.mode == "L" else {}
        axes.imshow(np.asarray(image), **grey)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=2.6)
        axes.set_xlabel(_caption(self._values, row), fontsize=6.2, labelpad=2.5, parse_math=False)
        if head:
            axes.set_title(head, fontsize=9, loc="left", fontweight="bold", pad=4, parse_math=False)

    def _captions(self, axes: Axes, lists: RankedLists, query: int) -> None:
        """The captions found, each beside a bar of the colour of its agreement; the own one in blue."""
        axes.axis("off")
        axes.set(xlim=(0, 1), ylim=(_CAPTIONS, 0))
        for place, row in enumerate(lists.order[query, :_CAPTIONS].tolist()):
            if row < 0:
                continue
            colour = self._colour_or_own(query, row)
            axes.add_patch(Rectangle((0, place + 0.08), 0.012, 0.84, color=colour, linewidth=0))
            axes.text(
                0.025, place + 0.5, f"{place + 1}. {_wrapped(self.data.captions[row], _WIDTH, _LINES)}",
                va="center", fontsize=6.6, color=OWN if colour == OWN else "#222222", linespacing=1.15,
                parse_math=False,
            )  # fmt: skip

    def _colour_or_own(self, query: int, row: int) -> str:
        own = self.data.caption_codes[row] == self.data.caption_codes[query]
        return OWN if own else self._colour(query, row)

    def _colour(self, query: int, row: int) -> str:
        """Colour of a frame: do all labels agree, some, or none; neutral without labels."""
        if not self._values:
            return QUERY
        agree = sum(value[row] == value[query] for value in self._values)
        return RIGHT if agree == len(self._values) else PART if agree else WRONG


def _caption(values: Sequence[Sequence[str]], row: int) -> str:
    parts = [value[row] or "–" for value in values]
    lines = [" · ".join(parts[:2]), *parts[2:]]
    # What fits below a panel at this font size: 22 characters a line, four lines.
    return "\n".join(_wrapped(line, 22, 2) for line in lines if line.strip())


def _wrapped(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def target_block(path: Path, store: TargetStore, label: str | None, batch: int = 64, seed: int = 0) -> None:
    """Draw one batch's similarity S and its targets P under three policies, rows ordered by a label.

    Args:
        path: PNG to write.
        store: targets; the batch is drawn by ``seed``, at most one image per case.
        label: label to order by; store order when None.
        batch: images, fewer if the store has fewer cases.
        seed: of the draw.
    """
    shuffled = np.random.default_rng(seed).permutation(len(store))
    _, first = np.unique(store.cases[shuffled], return_index=True)
    rows = np.sort(shuffled[np.sort(first)][:batch])
    names = store.label(label) if label else [""] * len(store)
    rows = np.array(sorted(rows, key=lambda row: (names[row], row)))
    similarity = torch.from_numpy(store.block(rows))
    known = torch.as_tensor(store.known[rows])
    pairs = pair_structure(similarity, 0, known, known)
    panels = {
        "softmax, τ = 1": softmax_policy(similarity, 1.0, pairs=pairs),
        "fixed_mass, α = 0.7, τ = 0.05": fixed_mass_policy(similarity, pairs=pairs),
        f"evidence, θ = {store.threshold:.2f}, α = 0.7": evidence_policy(
            similarity, store.threshold, pairs=pairs
        ),
    }
    figure = Figure(figsize=(16, 4.4), facecolor="white", layout="constrained")
    axes = figure.subplots(1, 4)
    shown = axes[0].imshow(similarity, cmap="viridis", vmin=0, vmax=1)
    axes[0].set_title(f"similarity S\n{len(rows)} images, one per case", fontsize=10)
    figure.colorbar(shown, ax=axes[0], shrink=0.75)
    for place, (title, target) in zip(axes[1:], panels.items(), strict=True):
        shown = place.imshow(target.clamp(min=1e-4), cmap="magma", norm=LogNorm(1e-4, 1))
        place.set_title(f"targets P: {title}\nmean diagonal {target.diagonal().mean():.2f}", fontsize=10)
    figure.colorbar(shown, ax=axes[-1], shrink=0.75, label="probability (log)")
    _mark_groups(axes, [names[row] for row in rows])
    figure.suptitle(
        f"{store.dataset}/{store.split}: what a batch is taught" + (f", ordered by {label}" if label else "")
    )
    figure.savefig(path, dpi=100)


def _mark_groups(axes: Sequence[Axes], names: Sequence[str]) -> None:
    """Name each run of equal labels at its middle; labels only on the first panel."""
    ends = [i for i in range(1, len(names) + 1) if i == len(names) or names[i] != names[i - 1]]
    starts = [0, *ends[:-1]]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    for index, place in enumerate(axes):
        place.set_xticks([])
        place.set_yticks(middles if index == 0 and names[0] else [])
        if index == 0 and names[0]:
            shown = [textwrap.shorten(names[start], 30, placeholder=" …") for start in starts]
            place.set_yticklabels(shown, fontsize=7, parse_math=False)
