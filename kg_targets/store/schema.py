"""Tables, columns and files of a target store; readable with pyarrow, pandas, DuckDB, polars or HF datasets."""

import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kg_targets.errors import StoreError

SCHEMA_VERSION = 2
"""Layout that is written: one folder per table, ``targets/part-00000.parquet``."""
READABLE = (1, SCHEMA_VERSION)

TARGETS, MENTIONS, CONCEPTS, EDGES = TABLES = ("targets", "mentions", "concepts", "edges")
"""Tables, each a folder of the store; a teacher's store has targets only."""
NEIGHBOR_COLUMNS = ("neighbor_rows", "neighbor_scores")
"""Columns of the table ``targets`` that a store with ``top_k`` 0 is without."""
VECTORS = "vectors"
"""One more table, of scorers that fit vectors on the fit split."""
ALL_TABLES = (*TABLES, VECTORS)
_FILES_OF_SCHEMA_1 = {
    TARGETS: "targets-",
    MENTIONS: "mentions-",
    CONCEPTS: "concepts.parquet",
    EDGES: "is_a.parquet",
    VECTORS: "vectors-",
}
"""First characters of a table's file names before there were folders."""
MANIFEST = "manifest.json"
REPORT = "build_report.json"
CARD = "README.md"
KNOWLEDGE = "knowledge"
TEACHER = "teacher"
KINDS = (KNOWLEDGE, TEACHER)
SUFFIX = ".parquet"

MENTION_COLUMNS = pa.schema(
    [
        ("image_id", pa.string()),
        ("cui", pa.string()),
        ("name", pa.string()),
        ("start", pa.int32()),  # Unicode code points into the caption; −1 for concepts shipped without a span
        ("end", pa.int32()),
        ("text", pa.string()),
        ("score", pa.float32()),
        ("negated", pa.bool_()),
        ("uncertain", pa.bool_()),
        ("hypothetical", pa.bool_()),
        ("historical", pa.bool_()),
        ("family", pa.bool_()),
        ("source", pa.string()),
    ]
)
EDGE_COLUMNS = pa.schema([("child", pa.string()), ("relation", pa.string()), ("parent", pa.string())])
VECTOR_COLUMNS = pa.schema([("name", pa.string()), ("vector", pa.list_(pa.float32()))])
CONCEPT_COLUMNS = pa.schema(
    [
        ("concept", pa.int32()),  # column index of sparse factors
        ("cui", pa.string()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("semantic_types", pa.list_(pa.string())),
        ("images", pa.int64()),  # images of this split that assert the concept itself
        ("fit_asserted", pa.int64()),  # d_c on the fit split
        ("fit_covered", pa.int64()),  # n_a on the fit split
        ("ic", pa.float64()),
        ("idf", pa.float64()),
    ]
)


def complete_mentions(found: pd.DataFrame) -> pd.DataFrame:
    """The table with every column: a status that an older store does not have is False throughout."""
    for place, name in enumerate(MENTION_COLUMNS.names):
        if name not in found:
            found.insert(place, name, False)
    return found


def target_columns(
    labels: tuple[str, ...], dense: int | None, mixed: bool = False, neighbors: bool = True
) -> pa.Schema:
    """Columns of the table ``targets``.

    Args:
        labels: names of the data set's labels; each becomes a column ``label_<name>``.
        dense: width of dense factors, or ``None`` for sparse factors over concepts.
        mixed: whether there are sparse factors beside the dense ones.
        neighbors: whether the store keeps neighbours.
    """
    factors: list[tuple[str, pa.DataType]] = []
    if dense is None or mixed:
        factors += [("factor_index", pa.list_(pa.int32())), ("factor_value", pa.list_(pa.float32()))]
    if dense is not None:
        factors += [("factor", pa.list_(pa.float32(), dense))]
    if neighbors:
        kinds = (pa.int32(), pa.float32())
        factors += [(name, pa.list_(kind)) for name, kind in zip(NEIGHBOR_COLUMNS, kinds, strict=True)]
    return pa.schema(
        [
            *_described(labels),
            ("cuis", pa.list_(pa.string())),
            ("known", pa.bool_()),
            *factors,
        ]
    )


def teacher_columns(labels: tuple[str, ...], dim: int) -> pa.Schema:
    """Columns of the table ``targets`` of a teacher's store.

    Args:
        labels: as for ``target_columns``.
        dim: width of the teacher's shared space; 0 for a teacher that has none, and then no factor columns.
    """
    names = ("image_factor", "text_factor") if dim else ()
    factors = [(name, pa.list_(pa.float32(), dim)) for name in names]
    return pa.schema([*_described(labels), ("known", pa.bool_()), *factors])


def _described(labels: tuple[str, ...]) -> list[tuple[str, pa.DataType]]:
    """The columns that say which image and caption a row is."""
    names = (
        "image_id",
        "image_path",
        "caption",
        "group_id",
        "licence",
        *(f"label_{name}" for name in labels),
    )
    return [("row", pa.int64()), *((name, pa.string()) for name in names)]


_NEEDED: dict[str, type] = {
    "dataset": str,
    "split": str,
    "rows": int,
    "labels": list,
    "config": dict,
    "files": list,
    "fingerprint": str,
}
_NEEDED_OF = {
    KNOWLEDGE: {"factors": dict, "fit": dict, "similarity": dict, "similarity.fit_p95": float},
    TEACHER: {
        "teacher": dict,
        "teacher.name": str,
        "teacher.kind": str,
        "teacher.digest": str,
        "teacher.dim": int,
        "teacher.scale": float,
    },
}
_RANGES: dict[str, Callable[[Any], bool]] = {
    "teacher.dim": lambda dim: dim >= 0,
    "teacher.scale": lambda scale: 0.0 < scale < math.inf,
}
_PLAIN_NAME = re.compile(rf"([a-z_]+(-[0-9]+)?|({'|'.join(ALL_TABLES)})/part-[0-9]+)\.parquet")


def part(table: str, index: int) -> str:
    """File of a table's rows, relative to the store's folder."""
    return f"{table}/part-{index:05d}{SUFFIX}"


def table_files(manifest: Mapping[str, Any], table: str) -> dict[str, int]:
    """A table's files in row order, relative to the store's folder, and their rows; of either layout."""
    first = _FILES_OF_SCHEMA_1[table] if manifest["schema_version"] == 1 else f"{table}/"
    files = sorted(manifest["files"], key=lambda entry: file_order(entry["file"]))
    return {entry["file"]: entry["rows"] for entry in files if entry["file"].startswith(first)}


def file_order(name: str) -> list[str | int]:
    """Sort key of file names: numbers by value, of any number of digits, the rest as text."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"([0-9]+)", name)]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of a store's ``manifest.json``, every file of which is there.

    Raises:
        StoreError: there is no store, it was written by a newer version, or a file is missing.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{folder} is not a target store (no {MANIFEST}): run `kg-targets build`") from error
    except ValueError as error:
        raise StoreError(f"{folder / MANIFEST} is damaged: build the store again") from error
    if problem := _manifest_problem(manifest):
        raise StoreError(f"{folder / MANIFEST} {problem}: build the store again")
    for entry in manifest["files"]:
        if not (folder / entry["file"]).is_file():
            raise StoreError(f"{folder / entry['file']} is missing: build the store again")
    return dict(manifest)


def _manifest_problem(manifest: Any) -> str:
    """Problem of a manifest, in words; empty if there is none.

    File names are plain: nothing outside the store's own folder is ever opened.
    """
    if not isinstance(manifest, dict) or "schema_version" not in manifest:
        return "is not a store's manifest"
    if manifest["schema_version"] not in READABLE:
        read = " and ".join(map(str, READABLE))
        return f"has store schema {manifest['schema_version']!r}, this version reads {read}"
    kind = manifest.get("kind", KNOWLEDGE)
    if kind not in KINDS:
        return f"has kind {kind!r}, this version reads {' and '.join(KINDS)} stores"
    for key, needed in {**_NEEDED, **_NEEDED_OF[kind]}.items():
        group, _, field = key.rpartition(".")
        value = (manifest[group] if group else manifest).get(field)
        if not isinstance(value, needed) or (key in _RANGES and not _RANGES[key](value)):
            return f"lacks a usable {key!r}"
    for entry in manifest["files"]:
        name = entry.get("file") if isinstance(entry, dict) else None
        if (
            not isinstance(name, str)
            or not _PLAIN_NAME.fullmatch(name)
            or not {"rows", "sha256"} <= entry.keys()
        ):
            return f"names a file that is none of the store's: {name!r}"
    return ""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full disk or a folder without permission into one line.

    Raises:
        StoreError: the block could not write ``path``.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        space = "free some space or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise StoreError(f"{path} cannot be written ({reason}): {space}choose another OUT") from error


def replace_folder(partial: Path, target: Path, retired: Path) -> None:
    """Move ``partial`` to the place of ``target``, which goes to ``retired``, or stays as it was if that fails.

    Raises:
        StoreError: the folders cannot be renamed.
    """
    with writing(target):
        try:
            if target.exists():
                os.replace(target, retired)
            os.replace(partial, target)
        except BaseException:
            if retired.exists() and not target.exists():
                os.replace(retired, target)
            raise


def write_parquet(table: pa.Table, path: str) -> None:
    """Write one file with fixed settings, so that the same rows give the same bytes.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    options = {"compression": "zstd", "version": "2.6", "use_dictionary": True, "store_schema": True}
    with writing(Path(path)), pq.ParquetWriter(path, table.schema, **options) as writer:
        if table.num_rows:  # Hugging Face datasets fails at a row group without rows
            writer.write_table(table)
