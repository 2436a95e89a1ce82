"""Draws docs/overview.png: three images, the concepts that their captions name, and the soft targets that follow.

python docs/overview.py [--store build/demo/test] [--data-root build/demo/data] [--out docs/overview.png]
"""

import argparse
from pathlib import Path
from textwrap import fill

import networkx as nx
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.text import Text
from PIL import Image

from kg_targets import TargetStore
from kg_targets.errors import StoreError
from kg_targets.inspect.plots import sample_rows
from kg_targets.losses import fixed_mass_policy, pair_structure

# Two cases whose findings are siblings, and an unrelated one whose caption also denies a finding.
IMAGES = ("demo_000533", "demo_000197", "demo_001876")
# Where a concept stands: column, and height in inches. Roots that nearly every image reaches are not drawn.
PLACES = {
    "Plain X-ray": (0, 5.15), "Pneumothorax": (0, 4.55), "Left": (0, 3.95), "Chest": (0, 3.35),
    "Pleural effusion": (0, 2.75), "Computed tomography": (0, 2.15),
    "Magnetic resonance imaging": (0, 1.45), "Brain": (0, 0.85),
    "Pleural disease": (1, 3.95), "Effusion": (1, 3.15), "Radiographic imaging": (1, 2.15),
    "Central nervous system": (1, 0.85),
    "Disease": (2, 3.95), "Diagnostic imaging": (2, 1.75),
}  # fmt: skip
COLUMNS = (4.27, 5.95, 7.35)  # inches
WIDTH, HEIGHT = 11.2, 6.25  # inches; 1,800 pixels wide, shown at half that; white, for dark pages too
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = {"modality": "#0072b2", "region": "#009e73", "organ": "#009e73", "finding": "#d55e00"}
OTHER, LINE, INK = "#7a7a7a", "#9a9a9a", "#222222"
EDGE = 3.38  # inches: right edge of the captions


def main() -> None:
    """Draw the picture from a store of the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("build/demo/test"))
    parser.add_argument("--data-root", type=Path, default=Path("build/demo/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/overview.png"))
    options = parser.parse_args()
    figure = draw(TargetStore.open(options.store), options.data_root)
    figure.savefig(options.out, facecolor="white", metadata={"Software": None})
    with Image.open(options.out) as picture:  # a palette halves the file
        small = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(options.out, optimize=True)


def draw(store: TargetStore, data_root: Path) -> Figure:
    """The whole picture; positions are in inches from the lower left corner."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=1800 / WIDTH)
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    page.set_axis_off()
    _say(page, (1.65, 5.93), "images and captions", fontsize=12.5, weight="bold")
    _say(page, (5.65, 5.93), "concepts, and their parents in the ontology", fontsize=12.5, weight="bold")
    _say(page, (9.6, 5.93), "image similarity", fontsize=12.5, weight="bold")
    _say(page, (1.65, 0.24), "struck out: negated, so not used", style="italic")
    _say(
        page,
        (5.65, 0.24),
        "thick border: shared by the upper two; %: its share of their similarity",
        style="italic",
    )
    rows = [store.row(image_id) for image_id in IMAGES]
    pictures = [np.asarray(Image.open(data_root / store.image_paths[row]).convert("L")) for row in rows]
    middles = (4.87, 3.05, 1.23)
    for row, picture, middle in zip(rows, pictures, middles, strict=True):
        _show(figure, picture, (0.2, middle - 0.7, 1.4, 1.4))
        _caption(page, store, row, (1.72, middle + 0.55))
        page.plot((EDGE, EDGE), (middle - 0.7, middle + 0.7), color=LINE, linewidth=1.0)
    _graph(page, store, rows, middles)
    _small_block(figure, store.block(rows), pictures)
    _batch(figure, page, store)
    return figure


def _say(page: Axes, place: tuple[float, float], text: str, **style: object) -> Text:
    plain = {"ha": "center", "va": "center", "fontsize": 10.5, "color": INK}
    return page.text(*place, text, **{**plain, **style})


def _show(figure: Figure, picture: np.ndarray, box: tuple[float, ...], **style: object) -> Axes:
    x, y, width, height = box
    axis = figure.add_axes((x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT))
    axis.imshow(picture, **{"cmap": "gray", "aspect": "auto", **style})
    axis.set_xticks([])
    axis.set_yticks([])
    return axis


def _caption(page: Axes, store: TargetStore, row: int, corner: tuple[float, float]) -> None:
    """Set a caption word by word: mentions in the colour of their kind, negated ones grey and struck through."""
    kinds = dict(zip(store.concepts["cui"], store.concepts["kind"], strict=True))
    found = store.mentions[store.mentions["image_id"] == store.image_ids[row]]
    caption, place, (x, y) = store.captions[row], 0, corner
    for word in caption.split():
        start = caption.index(word, place)
        place = start + len(word)
        hits = found[(found["start"] < place) & (found["end"] > start)]
        denied = len(hits) > 0 and bool(hits["negated"].iloc[0])
        named = len(hits) > 0 and not denied
        colour = COLOURS.get(kinds[hits["cui"].iloc[0]], OTHER) if named else OTHER if denied else INK
        weight = "bold" if named else "normal"
        text = _say(page, (x, y), word, ha="left", va="baseline", color=colour, weight=weight)
        width = text.get_window_extent().transformed(page.transData.inverted()).width
        if x + width > EDGE - 0.05:
            x, y = corner[0], y - 0.2
            text.set_position((x, y))
        if denied:
            page.plot((x, x + width), (y + 0.045, y + 0.045), color=OTHER, linewidth=1.1)
        x += width + 0.06


def _graph(page: Axes, store: TargetStore, rows: list[int], middles: tuple[float, ...]) -> None:
    concepts = store.concepts.set_index("cui")
    cui_of = {name: cui for cui, name in concepts["name"].items()}
    missing = sorted(set(PLACES) - set(cui_of))
    if missing:
        raise StoreError(f"{store.path} has no {', '.join(missing)}: adapt PLACES in docs/overview.py")
    explained = store.explain(IMAGES[0], IMAGES[1])
    shares = {concept.cui: concept.share for concept in explained.shared}
    boxes = {}
    for name, (column, y) in PLACES.items():
        cui = cui_of[name]
        colour = COLOURS.get(concepts.at[cui, "kind"], OTHER)
        share = f"\n{shares[cui]:.0%}" if cui in shares else ""
        box = {"boxstyle": "round,pad=0.3", "fc": _pale(colour), "ec": colour, "lw": 2.8 if share else 1.0}
        text = _say(page, (COLUMNS[column], y), fill(name, 17) + share, linespacing=1.05, zorder=3, bbox=box)
        boxes[cui] = text.get_window_extent().transformed(page.transData.inverted()).expanded(1.06, 1.0)
    for row, middle in zip(rows, middles, strict=True):
        for cui in store.cuis[row]:
            _line(page, (EDGE, middle), (boxes[cui].x0, PLACES[concepts.at[cui, "name"]][1]))
    edges = store.edges[store.edges["relation"] == "is_a"]
    edges = edges[edges["child"].isin(boxes) & edges["parent"].isin(boxes)]
    drawn = nx.transitive_reduction(nx.DiGraph(edges[["child", "parent"]].itertuples(index=False)))
    for child, parent in sorted(drawn.edges):
        heights = [PLACES[concepts.at[cui, "name"]][1] for cui in (child, parent)]
        _line(page, (boxes[child].x1, heights[0]), (boxes[parent].x0, heights[1]))


def _line(page: Axes, start: tuple[float, float], stop: tuple[float, float]) -> None:
    half = (start[0] + stop[0]) / 2
    curve = Curve([start, (half, start[1]), (half, stop[1]), stop], [1, 4, 4, 4])
    page.add_patch(PathPatch(curve, fc="none", ec=LINE, lw=1.0, zorder=1))


def _small_block(figure: Figure, block: np.ndarray, pictures: list[np.ndarray]) -> None:
    left, top, cell = 8.95, 5.0, 0.62
    for place, picture in enumerate(pictures):
        for x, y in ((left + cell * place, top), (left - cell, top - cell * (place + 1))):
            _show(figure, picture, (x + 0.06, y + 0.06, cell - 0.12, cell - 0.12))
    axis = _show(figure, block, (left, top - 3 * cell, 3 * cell, 3 * cell), cmap="viridis", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(block):
        ink = "black" if value > 0.6 else "white"
        _say(axis, (column, row), f"{value:.2f}", fontsize=11.5, weight="bold", color=ink)


def _batch(figure: Figure, page: Axes, store: TargetStore, size: int = 24) -> None:
    rows = sample_rows(store, size, order_by=("region", "modality"))
    block = store.block(rows)
    _say(page, (9.6, 2.66), f"targets of a batch of {len(block)}", weight="bold")
    known, cases = torch.as_tensor(store.known[rows]), np.asarray(store.group_ids)[rows]
    same_case = torch.as_tensor(cases[:, None] == cases)
    same_case.fill_diagonal_(False)
    similarity = torch.as_tensor(block)
    pairs = pair_structure(similarity, 0, known, known, same_case)
    blocks = {
        "CLIP: one-hot,\nonly its own\ncaption": np.eye(len(block)),
        "soft: captions of\nrelated images\nshare 30 %": fixed_mass_policy(similarity, pairs=pairs).numpy(),
    }
    for place, (text, values) in enumerate(blocks.items()):
        x = 8.2 + 1.47 * place
        _show(figure, values, (x, 1.17, 1.33, 1.33), cmap="viridis", vmin=0, vmax=1)
        _say(page, (x + 0.66, 1.08), text, va="top", fontsize=10, linespacing=1.15)


def _pale(colour: str) -> tuple[float, float, float]:
    red, green, blue = (1 - 0.22 * (1 - int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return red, green, blue


if __name__ == "__main__":
    main()
