"""Columns and files of a target store; readable with plain pyarrow, pandas, DuckDB or HF datasets."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kg_targets.errors import StoreError

SCHEMA_VERSION = 1

MANIFEST = "manifest.json"
REPORT = "build_report.json"
CONCEPTS = "concepts.parquet"
IS_A = "is_a.parquet"
SUFFIX = ".parquet"

MENTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("cui", pa.string()),
        ("name", pa.string()),
        ("start", pa.int32()),  # Unicode code points into the caption; −1 for concepts shipped without a span
        ("end", pa.int32()),
        ("text", pa.string()),
        ("score", pa.float32()),
        ("negated", pa.bool_()),
        ("source", pa.string()),
    ]
)
IS_A_EDGES = pa.schema([("child", pa.string()), ("relation", pa.string()), ("parent", pa.string())])
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


def target_columns(labels: tuple[str, ...], dense: int | None) -> pa.Schema:
    """Schema of ``targets-*.parquet``.

    Args:
        labels: names of the data set's labels; each becomes a column ``label_<name>``.
        dense: width of dense factors, or ``None`` for sparse factors over concepts.
    """
    if dense is None:
        factors = [("factor_index", pa.list_(pa.int32())), ("factor_value", pa.list_(pa.float32()))]
    else:
        factors = [("factor", pa.list_(pa.float32(), dense))]
    return pa.schema(
        [
            ("row", pa.int64()),
            ("image_id", pa.string()),
            ("image_path", pa.string()),
            ("caption", pa.string()),
            ("group_id", pa.string()),
            ("licence", pa.string()),
            *((f"label_{name}", pa.string()) for name in labels),
            ("cuis", pa.list_(pa.string())),
            ("known", pa.bool_()),
            *factors,
            ("neighbor_rows", pa.list_(pa.int32())),
            ("neighbor_scores", pa.list_(pa.float32())),
        ]
    )


_NEEDED: dict[str, type | tuple[type, ...]] = {
    "dataset": str,
    "split": str,
    "rows": int,
    "labels": list,
    "config": dict,
    "factors": dict,
    "fit": dict,
    "similarity": dict,
    "files": list,
    "fingerprint": str,
}
_PLAIN_NAME = re.compile(r"[a-z_]+(-[0-9]+)?\.parquet")


def manifest_problem(manifest: Any) -> str:
    """What is wrong with the content of a ``manifest.json``, in words; empty if nothing is.

    File names are plain: nothing outside the store's own folder is ever opened.
    """
    if not isinstance(manifest, dict) or "schema_version" not in manifest:
        return "is not a store's manifest"
    if manifest["schema_version"] != SCHEMA_VERSION:
        return f"has store schema {manifest['schema_version']!r}, this version reads {SCHEMA_VERSION}"
    for key, kind in _NEEDED.items():
        if not isinstance(manifest.get(key), kind):
            return f"lacks a usable {key!r}"
    if not isinstance(manifest["similarity"].get("fit_p95"), float):
        return "lacks a usable 'similarity.fit_p95'"
    for entry in manifest["files"]:
        name = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name) or "sha256" not in entry:
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
        raise StoreError(
            f"{path} cannot be written ({reason}): free some space or choose another OUT"
        ) from error


def write_parquet(table: pa.Table, path: str) -> None:
    """Write one file with fixed settings, so that the same rows give the same bytes.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    with writing(Path(path)):
        pq.write_table(table, path, compression="zstd", version="2.6", use_dictionary=True, store_schema=True)
