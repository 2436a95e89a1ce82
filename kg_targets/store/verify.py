"""Checks a store end to end: files against their checksums, and the invariants that training relies on."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from kg_targets.errors import StoreError, printable
from kg_targets.store.block import BLOCK_KINDS
from kg_targets.store.factors import parts_of
from kg_targets.store.mixture import MIXTURE
from kg_targets.store.reader import TargetStore
from kg_targets.store.teacher import TeacherStore

_SAMPLE = 512
_NORM_ERROR = 1e-4  # of float32 factors, relative


def verify_store(path: str | Path, seed: int = 0) -> list[str]:
    """Every check made, in words, in the order made.

    Raises:
        StoreError: the first check that fails, naming the file or the row.
    """
    store = TargetStore.open(path)
    if store.copies:
        store.copies.anew = True
    if isinstance(store, TeacherStore):
        checks: Iterator[str] = _teacher(store, seed)
    else:
        checks = chain(_knowledge(store), _blocks(store, seed))
    return [store.check_files(), _order(store), _paths(store), *checks, *_copies(store)]


def _order(store: TargetStore) -> str:
    rows = store.column("row").to_numpy()
    if not np.array_equal(rows, np.arange(len(store))):
        raise StoreError(
            f"{store.path}: rows are not numbered 0 to {len(store) - 1} in order: build the store again"
        )
    if len(set(store.image_ids)) != len(store):
        raise StoreError(f"{store.path}: image ids are not unique: build the store again")
    return f"{len(store):,} rows in order with unique image ids"


def _paths(store: TargetStore) -> str:
    """Image paths stay below the data root, whatever the shards' checksums say of who wrote them."""
    paths = store.column("image_path")
    leaves = r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:[/\\]"
    outside = pc.fill_null(pc.match_substring_regex(paths, leaves), True)
    if pc.any(outside).as_py():
        row = outside.index(True).as_py()
        raise StoreError(
            f"{store.path}: the image path of row {row}, {printable(str(paths[row]))}, leaves the data root: "
            "build the store again"
        )
    return "image paths stay below the data root"


def _copies(store: TargetStore) -> Iterator[str]:
    """Mapped copies of a large store, those that no other check has opened, too, against what is made anew."""
    if store.copies is None or store.copies.folder is None:
        return
    store.rows(store.image_ids[:1])
    made = [
        store.cases,
        *map(store.column, sorted(path.stem for path in store.copies.folder.glob("[!.]*.arrow"))),
    ]
    if store.copies.damaged:
        raise StoreError(
            f"{store.copies.damaged[0]} was not what the shards hold and has been made again: "
            "whatever was computed with it is to be computed again"
        )
    yield f"mapped copies are what the shards hold ({len(made)} columns)"


def _knowledge(store: TargetStore) -> Iterator[str]:
    filled = np.zeros(len(store), dtype=bool)
    for part in parts_of(store.factors):
        columns = np.zeros(0) if isinstance(part, np.ndarray) else part.indices
        if columns.min(initial=0) < 0 or columns.max(initial=-1) >= part.shape[1]:
            raise StoreError(f"{store.path}: a factor has a column that there is not: build the store again")
        filled |= part.any(axis=1) if isinstance(part, np.ndarray) else np.diff(part.indptr) > 0
    scorers = {
        store.manifest["config"]["scorer"],
        *(part["scorer"] for part in store.manifest.get(MIXTURE, ())),
    }
    empty = store.known & ~filled
    if (filled & ~store.known).any() or (
        empty.any() and "identity" not in scorers
    ):  # which has no factors at all
        raise StoreError(f"{store.path}: known does not say which images have factors: build the store again")
    unnamed = {cui for cuis in store.cuis for cui in cuis} - set(store.concepts["cui"])
    if unnamed:
        raise StoreError(
            f"{store.path}: {min(unnamed)} is asserted but not in the table concepts: build the store again"
        )
    yield "known images have factors, asserted concepts are listed"
    yield _mentions(store)
    yield _neighbors(store)


def _mentions(store: TargetStore) -> str:
    captions = dict(zip(store.image_ids, store.captions, strict=True))
    placed = store.mentions[store.mentions["start"] >= 0]
    columns = (placed[name].tolist() for name in ("image_id", "start", "end", "text"))
    for image_id, start, end, text in zip(*columns, strict=True):
        if captions.get(image_id, "")[start:end] != text:
            raise StoreError(
                f"{store.path}: a mention of {image_id} does not slice its caption: build it again"
            )
    return f"{len(placed):,} mentions slice their captions"


def _neighbors(store: TargetStore, sample: int = 64) -> str:
    """Stored neighbours of some rows against the block of those rows with all others."""
    if not store.kept_neighbors:
        return "no neighbours are kept (--top-k 0)"
    rows = np.linspace(0, len(store) - 1, min(sample, len(store))).astype(int)
    lists, scores = store.column("neighbor_rows"), store.column("neighbor_scores")
    approximate = store.manifest.get("neighbors")
    named = pc.min_max(pc.list_flatten(lists)).as_py()
    if named["min"] is not None and not 0 <= named["min"] <= named["max"] < len(store):
        raise StoreError(
            f"{store.path}: a row that there is not is named as a neighbour: build the store again"
        )
    for row in np.unique(rows):
        found, told = np.asarray(lists[int(row)].as_py(), np.int64), np.asarray(scores[int(row)].as_py())
        similarity = store.block([row], range(len(store)))[0]
        others = np.sort(np.delete(similarity, row))[::-1]
        # other images of the store, each once
        named = len({*found} - {row}) == len(found) and ((found >= 0) & (found < len(store))).all()
        scored = named and np.allclose(told, similarity[found], atol=1e-5)
        # Similarities up to 1e-6 count as none (see scoring.neighbors), rounding may move that edge a little.
        complete = len(found) >= min(store.kept_neighbors, int((others > 1e-5).sum()))
        nearest = complete and np.allclose(told, others[: len(found)], atol=1e-5)
        if not (scored and (nearest or approximate)):
            raise StoreError(
                f"{store.path}: the neighbours of row {row} are not its nearest, or have other scores: "
                "build the store again"
            )
    if approximate:
        recall = f"neighbours are approximate (recall {approximate['recall']:.1%})"
        return f"{recall}: those of {len(np.unique(rows))} rows have the scores stored"
    return f"neighbours of {len(np.unique(rows))} rows are their nearest"


def _blocks(store: TargetStore, seed: int) -> Iterator[str]:
    rows = np.sort(np.random.default_rng(seed).permutation(len(store))[:_SAMPLE])
    block = store.block(rows)
    unknown = ~store.known[rows]
    outside = block - np.eye(len(rows), dtype=np.float32)
    checks = {
        "is not finite": np.isfinite(block).all(),
        "is not symmetric": np.allclose(block, block.T, rtol=0, atol=1e-6),
        "has values outside [-1, 1]": np.abs(block).max(initial=0.0) <= 1.0,
        "has a diagonal that is not 1": np.array_equal(np.diag(block), np.ones(len(rows), np.float32)),
        "gives unknown images soft positives": not outside[unknown].any() and not outside[:, unknown].any(),
    }
    for problem, passed in checks.items():
        if not passed:
            raise StoreError(f"{store.path}: the similarity block of {len(rows)} sampled rows {problem}")
    yield f"block of {len(rows)} sampled rows: finite, symmetric, in [-1, 1], diagonal 1, unknown rows isolated"


def _teacher(store: TeacherStore, seed: int) -> Iterator[str]:
    if store.dim:
        for name, factors, there in (
            ("image", store.image_factors, store.known),
            ("caption", store.text_factors, np.ones(len(store), dtype=bool)),
        ):
            norms = np.linalg.norm(factors.astype(np.float64), axis=1)
            wrong = np.flatnonzero(~(np.abs(norms - there) <= _NORM_ERROR))  # so that NaN is wrong, too
            if len(wrong):
                raise StoreError(
                    f"{store.path}: the {name} factor of {store.image_ids[wrong[0]]} has length {norms[wrong[0]]:.4g}, "
                    f"not {int(there[wrong[0]])}: build the store again"
                )
        unknown = int((~store.known).sum())
        yield f"image and caption factors are {store.dim} wide and of length 1, {unknown} images unknown"
    rows = np.sort(np.random.default_rng(seed).permutation(len(store))[:_SAMPLE])
    for kind in BLOCK_KINDS:
        block = store.block(rows, kind=kind)
        if not np.isfinite(block).all() or np.abs(block).max(initial=0.0) > store.scale * (1 + _NORM_ERROR):
            raise StoreError(f"{store.path}: the {kind} block of {len(rows)} sampled rows exceeds the scale")
    yield f"blocks of {len(rows)} sampled rows: finite, within the scale {store.scale:.4g}"
