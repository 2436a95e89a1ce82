"""The target card: one HTML page, without scripts or outside files, that shows what a store holds."""

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from kg_targets.errors import DataError, StoreError
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


def write_card(
    store_path: str | Path, out: str | Path, data_root: str | Path | None = None, seed: int = 0
) -> Path:
    """Write the page atomically.

    Args:
        data_root: folder that image paths are relative to; without it the page shows captions only.

    Raises:
        StoreError: the store cannot be read, or ``out`` cannot be written.
        DataError: ``data_root`` is no folder.
    """
    store = TargetStore.open(store_path)
    root = None if data_root is None else Path(data_root)
    if root is not None and not root.is_dir():
        raise DataError(
            f"--data-root {root} is not a folder: name the one that the image paths are relative to"
        )
    environment = Environment(loader=PackageLoader("kg_targets.inspect"), autoescape=True)
    page = environment.get_template("card.html").render(_content(store, root, seed))
    out = Path(out)
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, out)
    except OSError as error:
        raise StoreError(f"{out} cannot be written ({error.strerror}): choose another --out") from error
    return out


def _content(store: TargetStore, root: Path | None, seed: int) -> dict[str, Any]:
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
        "examples": _examples(store, root, seed),
        "agreement": agreement,
    }


def _ordering(store: TargetStore, agreement: list[dict[str, Any]]) -> list[str]:
    """The two labels of few values that neighbours agree on most, beyond chance: those whose squares show."""
    few = [line for line in agreement if 2 <= len(set(store.label(line["label"]))) <= _MOST_TICKS]
    few.sort(key=lambda line: (line["chance"] - line["agree"], line["label"]))
    return [str(line["label"]) for line in few[:2]]


def _label_agreement(store: TargetStore) -> list[dict[str, Any]]:
    """Share of nearest neighbours from other cases with the query's label, beside the share expected by chance."""
    nearest = store.column("neighbor_rows").to_pylist()
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


def _examples(store: TargetStore, root: Path | None, seed: int) -> list[dict[str, Any]]:
    candidates = np.random.default_rng(seed + 1).permutation(np.flatnonzero(store.known))
    examples = []
    for row in candidates:
        query = store.image_ids[row]
        kept = int(store.manifest["config"]["top_k"])
        found = store.neighbors(query, kept, exclude_case=True).drop_duplicates("group_id").head(NEIGHBORS)
        if len(found) < NEIGHBORS:
            continue
        neighbors = []
        for other, score in zip(found["image_id"], found["score"], strict=True):
            shared = store.explain(query, other).shared[:3]
            detail = f"S = {score:.2f}; " + ", ".join(
                f"{concept.name} {concept.share:.0%}" for concept in shared
            )
            neighbors.append(_picture(store, store.row(other), root, detail))
        examples.append({"query": _picture(store, int(row), root), "neighbors": neighbors})
        if len(examples) == EXAMPLES:
            break
    return examples


def _picture(store: TargetStore, row: int, root: Path | None, detail: str = "") -> _Picture:
    source = "" if root is None else _thumbnail(root, store.image_paths[row])
    return _Picture(store.image_ids[row], store.captions[row], source, detail)


def _thumbnail(root: Path, path: str) -> str:
    file = (root / path).resolve()
    if not file.is_relative_to(root.resolve()):
        raise StoreError(f"image path {path!r} leads outside {root}: it will not be opened")
    buffer = io.BytesIO()
    try:
        with Image.open(file) as image:
            small = image.convert("L")
            small.thumbnail((_THUMBNAIL, _THUMBNAIL))
            small.save(buffer, "PNG")
    except (OSError, UnidentifiedImageError) as error:
        raise StoreError(f"{file} cannot be shown ({error}): check --data-root") from error
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _data_address(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
