"""`kg-targets build --scorer mixture`: finished stores of the same rows → one store per split.

No caption is read and nothing is scored again: rows, mentions and labels are those of the first part that has concepts,
concepts and edges the union of all parts'.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

import kg_targets
from kg_targets.errors import DataError
from kg_targets.manifest import Manifest
from kg_targets.scoring import Factors
from kg_targets.scoring.mixture import mix
from kg_targets.scoring.neighbors import id_angles
from kg_targets.store import StoreWriter, TargetStore, TeacherStore, schema
from kg_targets.store.block import case_codes
from kg_targets.store.digest import json_sha256
from kg_targets.store.extension import EXTENSIONS, origin
from kg_targets.store.mixture import MIXTURE, part_entry
from pipelines.build import write
from pipelines.build.config import BuildConfig
from pipelines.build.executors import Say, Stopwatch
from pipelines.build.neighbors import APPROXIMATE, find_neighbors
from pipelines.build.shards import targets_table
from pipelines.build.summary import summary_lines

_OWN = ("schema_version", "kind", "encoder", "files", "fingerprint", "inputs", "neighbors", EXTENSIONS)
"""Entries of a part's manifest that are not the mixture's."""
_SIZES = ("top_k", "rows_per_shard", "neighbors")
"""Options of a part's that are not the mixture's."""


def mixture_stores(config: BuildConfig, manifest: Manifest, say: Say) -> Iterator[TargetStore]:
    """The mixture of each wanted split, the fit split first; those that are up to date are left alone.

    Raises:
        KGTargetsError: a part is missing, a teacher's or a mixture itself, or its rows, its fit split or
            what it was fitted on are others.
    """
    folders, weights = config.parts, config.weights
    say(
        "mixture: "
        + ", ".join(f"{weight:.3f} · {part}" for weight, part in zip(weights, folders, strict=True))
    )
    present = [name for name in manifest.splits if (folders[0] / name / schema.MANIFEST).is_file()]
    wanted = present if config.split == "all" else [config.split]
    if not wanted:
        raise DataError(f"{folders[0]} holds no store of a split of {manifest.name}: build the parts first")
    first = _parts(folders, wanted[0], manifest)
    dense = [str(store.path) for store in first if store.manifest["factors"]["dense"] is not None]
    if config.neighbors == APPROXIMATE and config.top_k and dense:
        raise DataError(
            f"--neighbors approximate is for sparse factors, those of {dense[0]} are dense: take exact, or "
            "--top-k 0 for none"
        )
    fit_splits = list(dict.fromkeys(str(store.manifest["fit"]["split"]) for store in first))
    if len(fit_splits) > 1:
        raise DataError(
            f"the parts are fitted on {' and '.join(fit_splits)}: build them with one --fit-split"
        )
    fitted: TargetStore | None = None
    fit_parts: list[TargetStore] = []
    for name in dict.fromkeys([fit_splits[0], *wanted]):
        parts = first if name == wanted[0] else _parts(folders, name, manifest)
        fit_parts = fit_parts or parts
        _check_fit(folders, fit_parts, parts)
        target = (config.out or Path("build") / f"{manifest.name}-mixture") / name
        if any(target.resolve() == part.path.resolve() for part in parts):
            raise DataError(
                f"{target} is a part of the mixture: it will not be replaced, choose another --out"
            )
        store = _mixture_store(config, parts, weights, target, fitted, say)
        fitted = fitted or store
        yield store


def _parts(folders: list[Path], split: str, manifest: Manifest) -> list[TargetStore]:
    """One split's store in each folder."""
    found: list[TargetStore] = []
    for folder in folders:
        path = folder / split
        if not (path / schema.MANIFEST).is_file():
            raise DataError(f"--mix: {folder} holds no store of the split {split}: build it first")
        store = TargetStore.open(path)
        if isinstance(store, TeacherStore):
            raise DataError(
                f"--mix: {path} is a teacher's store, whose images and captions have factors of their own: a mixture "
                "takes stores of knowledge (for a teacher's view of captions: --scorer embedding)"
            )
        if MIXTURE in store.manifest:
            raise DataError(f"--mix: {path} is a mixture itself: name its parts instead")
        if store.dataset != manifest.name:
            raise DataError(f"--mix: {path} is a store of {store.dataset}, not of {manifest.name}")
        found.append(store)
    for store in found[1:]:
        store.check_matches(found[0].image_ids, found[0].captions, str(found[0].path))
    return found


def _check_fit(folders: list[Path], fit_parts: list[TargetStore], parts: list[TargetStore]) -> None:
    """Were one split's stores fitted on the fit split's stores that lie beside them now?"""
    for folder, fit, part in zip(folders, fit_parts, parts, strict=True):
        if fit.split != part.split and part.manifest["inputs"]["fitted_on"] != origin(fit):
            raise DataError(
                f"--mix: {folder}: the split {part.split} was not fitted on the store of {fit.split} that is there "
                "now: build its splits together again"
            )


def _mixture_store(
    config: BuildConfig,
    parts: list[TargetStore],
    weights: list[float],
    target: Path,
    fitted: TargetStore | None,
    say: Say,
) -> TargetStore:
    """One split's mixture; ``fitted`` is the fit split's, None for that split itself."""
    base = next((part for part in parts if len(part.concepts)), parts[0])
    of_parts = {key: value for key, value in base.manifest["config"].items() if key not in _SIZES}
    stored = {**of_parts, "scorer": MIXTURE, "mix_weights": weights}
    stored |= {name: config.stored()[name] for name in _SIZES if name in config.stored()}
    stored.pop("scorer_options", None)
    inputs = {
        "config": stored,
        "parts": [part.fingerprint for part in parts],
        "fitted_on": fitted.fingerprint if fitted else None,
        "code_sha256": write.code_digest(),
    }
    if not config.force and (current := write.open_if_current(target, inputs, say)):
        return current
    watch = Stopwatch()
    states = target.with_name(f".{target.name}.state")
    with StoreWriter(target) as writer:
        with watch.stage("factors"):
            concepts = _concepts(parts, base)
            cuis = pd.Index(concepts["cui"])
            columns = [cuis.get_indexer(part.concepts["cui"]).astype(np.int64) for part in parts]
            matrix = mix([part.factors for part in parts], columns, weights, len(concepts))
            known = np.logical_or.reduce([part.known for part in parts])
            factors = Factors(matrix, known)
        with watch.stage("neighbours"):
            neighbors, told = find_neighbors(
                factors,
                id_angles(base.image_ids),
                k=config.top_k,
                way=config.neighbors,
                folder=writer.folder,
                state=states / json_sha256(inputs, str)[:16],
                workers=config.worker_count,
                say=say,
            )
        with watch.stage("shards"):
            for index, (start, rows) in enumerate(_rows(base, config.rows_per_shard)):
                table = targets_table(rows, base.labels, factors, neighbors, start)
                writer.write(schema.part(schema.TARGETS, index), table)
            _write_mentions(writer, base, config.rows_per_shard)
            _write_frame(writer, schema.part(schema.CONCEPTS, 0), concepts, schema.CONCEPT_COLUMNS)
            edges = pd.concat([part.edges for part in parts]).drop_duplicates()
            edges = edges.sort_values(schema.EDGE_COLUMNS.names, ignore_index=True)
            _write_frame(writer, schema.part(schema.EDGES, 0), edges, schema.EDGE_COLUMNS)
        with watch.stage("quantiles"):
            quantiles = write.off_diagonal_quantiles(factors, case_codes(base.group_ids))
        entries = [
            part_entry(part.manifest, weight, part.factors)
            for part, weight in zip(parts, weights, strict=True)
        ]
        content: dict[str, Any] = {
            **{key: value for key, value in base.manifest.items() if key not in _OWN},
            "config": stored,
            MIXTURE: entries,
            **told,
            "code_version": kg_targets.__version__,
            "factors": write.factor_shape(matrix, len(concepts)),
            "similarity": {
                "quantiles": quantiles,
                "fit_p95": quantiles["p95"] if fitted is None else fitted.threshold,
            },
            "inputs": inputs,
        }
        writer.finish(content, {"stages": watch.stages})
    shutil.rmtree(states, ignore_errors=True)
    store = TargetStore.open(target)
    say(f"{target}: {watch.total(len(store))}")
    for line in summary_lines(store):
        say(f"  {line}")
    return store


def _concepts(parts: list[TargetStore], base: TargetStore) -> pd.DataFrame:
    """The union of the parts' concepts, by CUI; each row is the first part's that has it, images counted anew."""
    found = pd.concat([part.concepts for part in (base, *parts)]).drop_duplicates("cui")
    found = found.sort_values("cui", ignore_index=True)
    counts = Counter(cui for cuis in base.cuis for cui in cuis)
    return found.assign(
        concept=np.arange(len(found), dtype=np.int32), images=[counts[cui] for cui in found["cui"]]
    )


def _rows(base: TargetStore, size: int) -> Iterator[tuple[int, pa.Table]]:
    """What the data set says of the images and their CUIs, ``size`` at a time, and the number of the first."""
    names = [name for name in schema.target_columns(base.labels, None).names if name not in _NOT_TEXT]
    table = pa.table({name: base.column(name) for name in names})
    for start in range(0, len(base), size):
        yield start, table.slice(start, size)


_NOT_TEXT = ("row", "known", "factor_index", "factor_value", *schema.NEIGHBOR_COLUMNS)


def _write_mentions(writer: StoreWriter, base: TargetStore, size: int) -> None:
    """The base's mentions, in shards of the same images as the table ``targets``."""
    rows: NDArray[np.int64] = base.rows(base.mentions["image_id"])
    for index, start in enumerate(range(0, len(base), size)):
        span = slice(*np.searchsorted(rows, [start, start + size]))
        _write_frame(
            writer, schema.part(schema.MENTIONS, index), base.mentions.iloc[span], schema.MENTION_COLUMNS
        )


def _write_frame(writer: StoreWriter, name: str, frame: pd.DataFrame, columns: pa.Schema) -> None:
    table = pa.Table.from_pandas(frame[columns.names], schema=columns, preserve_index=False)
    writer.write(name, table.replace_schema_metadata(None))
