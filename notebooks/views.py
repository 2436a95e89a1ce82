"""How the notebooks show captions, images and blocks: drawing only, no number is made here."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from IPython.display import HTML
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from kg_targets import TargetStore
from kg_targets.inspect.captions import COLOURS, group, marked_caption
from kg_targets.inspect.plots import sample_rows


def captions(store: TargetStore, image_ids: Sequence[str]) -> HTML:
    """Captions with their mentions marked, one under the other, and what the colours mean."""
    legend = " &nbsp; ".join(
        f"<span style='border-bottom:2px solid {colour};background:{colour}2e;padding:0 4px'>{name}</span>"
        for name, colour in COLOURS.items()
    )
    lines = "".join(f"<p style='margin:.45em 0'>{marked_caption(store, name)}</p>" for name in image_ids)
    legend = f"<p style='font-size:90%;margin-top:1em'>{legend} &nbsp; <s style='opacity:.7'>denied</s></p>"
    return HTML(f"<div style='max-width:60em'>{lines}{legend}</div>")


def cards(
    store: TargetStore, data_root: Path, image_ids: Sequence[str], notes: Sequence[str] = (), width: int = 172
) -> HTML:
    """Images side by side, each with a note and its marked caption; without an image file only the text."""
    cells = "".join(
        f"<div style='width:{width}px;margin:0 14px 10px 0;vertical-align:top;display:inline-block;"
        "white-space:normal;font-size:90%;line-height:1.4'>"
        f"{_thumbnail(data_root / store.image_paths[store.row(name)], width)}"
        f"<div style='margin:.3em 0'><b>{html.escape(note)}</b></div>"
        f"<div style='max-height:14em;overflow-y:auto'>{marked_caption(store, name)}</div></div>"
        for name, note in zip(image_ids, notes or image_ids, strict=True)
    )
    return HTML(f"<div style='white-space:nowrap;overflow-x:auto;text-align:left'>{cells}</div>")


def _thumbnail(path: Path, size: int) -> str:
    if not path.is_file():
        return ""
    with Image.open(path) as image:
        small = image.convert("L")
    small.thumbnail((2 * size, 2 * size))  # twice the shown size, for sharp screens
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"width:{size}px;height:{size}px;object-fit:contain;background:black;border-radius:3px"
    return f"<img style='{style}' src='data:image/png;base64,{data}'>"


def sorted_sample(store: TargetStore, size: int) -> tuple[NDArray[np.int64], list[str]]:
    """One image per case in an order that shows structure, and each one's tick label.

    Sorted by the labels of place and modality, or others that there are; a data set without labels is sorted by the
    most frequent modality and anatomy that each caption names.
    """
    names = [name for name in ("region", "organ", "modality") if name in store.labels] or store.labels[:2]
    if names:
        rows = sample_rows(store, size, order_by=names)
        columns = [store.label(name) for name in names]
        return rows, [" · ".join(column[row] or "–" for column in columns) for row in rows]
    concepts = store.concepts.sort_values("images")  # rising: more frequent names replace rarer ones below
    order = {cui: place for place, cui in enumerate(concepts["cui"])}
    named = {concept.cui: (group(concept.kind), concept.name) for concept in concepts.itertuples()}
    keyed = []
    for row in sample_rows(store, size):
        found = dict(named[cui] for cui in sorted(store.cuis[row], key=order.__getitem__))
        keyed.append((found.get("modality", "no modality"), found.get("anatomy", "–"), int(row)))
    keyed.sort()
    return np.array([row for *_, row in keyed]), [modality for modality, *_ in keyed]


def stretched_blocks(blocks: dict[str, NDArray[np.float32]]) -> Figure:
    """Similarities or target rows [B, B] side by side; the colours are stretched so that small values show."""
    figure = Figure(figsize=(3.2 * len(blocks) + 0.8, 3.4), layout="constrained")
    axes = figure.subplots(1, len(blocks), squeeze=False)[0]
    for axis, (title, block) in zip(axes, blocks.items(), strict=True):
        scale = PowerNorm(0.4, 0.0, 1.0)
        shown = axis.imshow(np.maximum(block, 0.0), norm=scale, cmap="viridis", interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=list(axes), shrink=0.85, ticks=[0, 0.01, 0.1, 0.3, 0.7, 1])
    return figure
