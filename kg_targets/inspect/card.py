"""The target card: one HTML page, without scripts or outside files, that shows what a store holds."""

import base64
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from PIL import Image

from kg_targets.errors import StoreError
from kg_targets.graph import coverage
from kg_targets.inspect.plots import block_figure, sample_rows, similarity_histogram
from kg_targets.store import TargetStore

EXAMPLES = 6
NEIGHBORS = 4
_THUMBNAIL = 160
_MOST_TICKS = 16


@dataclass(frozen=True)
class _Picture:
    image_id: str
    caption: str
    source: str
    """``data:`` address, or empty where the image is not at hand."""
    detail: str = ""


ReadImage = Callable[[int], Image.Image | None]
"""The image of a store row; ``None`` where there is none."""


def write_card(store: TargetStore, out: str | Path, read: ReadImage | None = None, seed: int = 0) -> Path:
    """Write the page atomically.

    Args:
        store: what the page shows.
        out: HTML file.
        read: gives the images, wherever they lie; without it the page shows captions only.
        seed: which images are shown.

    Raises:
        StoreError: ``out`` cannot be written.
    """
    environment = Environment(loader=PackageLoader("kg_targets.inspect"), autoescape=True)
    page = environment.get_template("card.html").render(_content(store, read, seed))
    out = Path(out)
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, out)
    except OSError as error:
        raise StoreError(f"{out} cannot be written ({error.strerror}): choose another --out") from error
    return out


def _content(store: TargetStore, read: ReadImage | None, seed: int) -> dict[str, Any]:
    agreement = _label_agreement(store)
    order_by = _ordering(store, agreement)
    rows = sample_rows(store, 96, seed, order_by)
    ticks = [store.label(order_by[0])[row] for row in rows] if order_by else []
    top = store.concepts.sort_values(["images", "cui"], ascending=[False, True]).head(20)
    title = f"{len(rows)} images of different cases" + (
        f", ordered by {', '.join(order_by)}" if order_by else ""
    )
    return {
        "store": store,
        "manifest": store.manifest,
        "coverage": coverage(store.cui_matrix(), store.concepts["kind"]),
        "unknown": int((~store.known).sum()),
        "block": _data_address(block_figure({title: store.block(rows)}, ticks, width=7.0)),
        "histogram": _data_address(similarity_histogram(store, seed=seed)),
        "concepts": top.to_dict("records"),
        "examples": _examples(store, read, seed),
        "agreement": agreement,
    }


def _ordering(store: TargetStore, agreement: list[dict[str, Any]]) -> list[str]:
    """The two labels of few values that neighbours agree on most, beyond chance: those whose squares show."""
    few = [line for line in agreement if 2 <= len(set(store.label(line["label"]))) <= _MOST_TICKS]
    few.sort(key=lambda line: (line["chance"] - line["agree"], line["label"]))
    return [str(line["label"]) for line in few[:2]]


def _label_agreement(store: TargetStore) -> list[dict[str, Any]]:
    """Share of nearest neighbours from other cases with the query's label, beside the share expected by chance."""
    nearest = store.column("neighbor_rows").to_pylist() if store.kept_neighbors else []
    groups = store.group_ids
    result = []
    for name in store.labels:
        values = np.asarray(store.label(name), dtype=object)
        hits, chance = [], []
        counts = {value: int((values == value).sum()) for value in set(values)}
        for row, found in enumerate(nearest):
            others = [other for other in found if groups[other] != groups[row]][:10]
            if values[row] and others:
                hits.append(float(np.mean(values[others] == values[row])))
                chance.append((counts[values[row]] - 1) / max(1, len(store) - 1))
        if hits:
            result.append(
                {
                    "label": name,
                    "queries": len(hits),
                    "agree": float(np.mean(hits)),
                    "chance": float(np.mean(chance)),
                }
            )
    return result


def _examples(store: TargetStore, read: ReadImage | None, seed: int) -> list[dict[str, Any]]:
    if not store.kept_neighbors:
        return []
    candidates = np.random.default_rng(seed + 1).permutation(np.flatnonzero(store.known))
    examples = []
    for row in candidates:
        query = store.image_ids[row]
        found = (
            store.neighbors(query, store.kept_neighbors, exclude_case=True)
            .drop_duplicates("group_id")
            .head(NEIGHBORS)
        )
        if len(found) < NEIGHBORS:
            continue
        neighbors = []
        for other, score in zip(found["image_id"], found["score"], strict=True):
            pair = store.explain(query, other)
            shares = [f"{concept.name} {concept.share:.0%}" for concept in pair.shared[:3]]
            shares += [f"{part.name} {part.share:.2f}" for part in pair.parts]
            detail = f"S = {score:.2f}; " + ", ".join(shares)
            neighbors.append(_picture(store, store.row(other), read, detail))
        examples.append({"query": _picture(store, int(row), read), "neighbors": neighbors})
        if len(examples) == EXAMPLES:
            break
    return examples


def _picture(store: TargetStore, row: int, read: ReadImage | None, detail: str = "") -> _Picture:
    image = None if read is None else read(row)
    source = "" if image is None else _thumbnail(image)
    return _Picture(store.image_ids[row], store.captions[row], source, detail)


def _thumbnail(image: Image.Image) -> str:
    buffer = io.BytesIO()
    small = image.convert("L")
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    small.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _data_address(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
