"""Draws docs/overview.png: three images, the concepts of their captions, and the soft targets that follow.

python docs/overview.py [--store build/demo/test] [--data-root build/demo/data] [--out docs/overview.png]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve
from PIL import Image

from kg_targets import TargetStore
from kg_targets.inspect.plots import sample_rows

# Two cases whose findings are siblings, and an unrelated one whose caption also denies a finding.
IMAGES = ("demo_000533", "demo_000197", "demo_001876")
BATCH = 24
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = {"modality": "#0072b2", "region": "#009e73", "organ": "#009e73", "finding": "#d55e00"}
OTHER, INK, FAINT = "#7a7a7a", "#222222", "#8a8a8a"
WIDTH, HEIGHT = 12.0, 6.5  # inches; saved at 150 dpi and shown at half that size
HOPS = 2  # columns of concepts beyond the asserted ones


def main() -> None:
    """Draw the picture from a store of the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("build/demo/test"))
    parser.add_argument("--data-root", type=Path, default=Path("build/demo/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/overview.png"))
    options = parser.parse_args()
    figure = draw(TargetStore.open(options.store), options.data_root)
    figure.savefig(options.out, dpi=150, transparent=True, metadata={"Software": None})
    with Image.open(options.out) as picture:  # few colours are in it: a palette keeps the file small
        small = picture.convert("RGBA").quantize(192, method=Image.Quantize.FASTOCTREE)
    small.save(options.out, optimize=True)


def draw(store: TargetStore, data_root: Path) -> Figure:
    """The whole picture; positions are in inches from the lower left corner."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    page.set_axis_off()
    # A white card, because the README may be shown on a dark page.
    card = FancyBboxPatch((0.1, 0.1), WIDTH - 0.2, HEIGHT - 0.2, boxstyle="round,pad=0,rounding_size=0.15")
    page.add_patch(card)
    card.set(fc="white", ec="#c8c8c8")
    heads = (("images and captions", 1.9), ("what they name → what that is", 5.85), ("how alike → soft targets", 10.25))
    for text, x in heads:
        page.text(x, HEIGHT - 0.4, text, ha="center", va="center", fontsize=12.5, weight="bold", color=INK)
    rows = [store.row(image_id) for image_id in IMAGES]
    middles = [HEIGHT - 1.65 - 1.85 * place for place in range(3)]
    for row, y in zip(rows, middles, strict=True):
        _picture(figure, store, data_root, row, (0.35, y - 0.7), 1.4)
        _caption(page, store, row, (1.87, y + 0.68))
    _graph(page, store, rows, middles)
    _blocks(figure, page, store, data_root, rows)
    return figure
