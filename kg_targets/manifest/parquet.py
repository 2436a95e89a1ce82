"""Rows of Parquet files that hold captions, and mostly the images, too: the images' bytes are not read here."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from kg_targets.errors import ManifestError, printable
from kg_targets.manifest.record import ReadReport, unusable_text

BATCH_ROWS = 4096
IMAGES_AT_ONCE = 64
IN_FILE = "place of the image"
"""Key of a row's own place in its file, where the image is in it, too."""
PATH = ".path"
"""Ending of the column that stands for the path inside an image's struct."""


def is_parquet(path: Path) -> bool:
    """Whether a file is a Parquet file, by its name."""
    return path.suffix.lower() == ".parquet"


def parquet_header(path: Path) -> tuple[list[str], str]:
    """The columns that are read as text, lists or objects, and the one of image bytes (empty where there is none).

    Raises:
        ManifestError: the file cannot be read.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"{path} is not a readable Parquet file ({printable(str(error))[:200]}): download it again"
        ) from error
    twice = next((name for name, count in Counter(schema.names).items() if count > 1), None)
    if twice is not None:
        raise ManifestError(f"{path}: column {twice!r} is there twice: rename or remove one of them")
    names, image = [], ""
    for field in schema:
        if _is_bytes(field.type):
            image = image or field.name
        elif pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            image = image or field.name
            if field.type.get_field_index("path") >= 0:
                names.append(f"{field.name}{PATH}")
        else:
            names.append(field.name)
            if pa.types.is_struct(field.type):
                names += [f"{field.name}.{inner.name}" for inner in field.type]
    return names, image


def parquet_rows(
    path: Path, columns: list[str], place: str, report: ReadReport
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) in the order of the file; rows with unusable texts are counted in ``report`` and skipped.

    Args:
        path: the file.
        columns: those that are wanted; others are not read.
        place: path of the file relative to the data root where the images are in it, else empty: ``place/row`` then
            is the path of an image that has none of its own.
        report: filled while reading.

    Raises:
        ManifestError: the file is damaged.
    """
    number = -1
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                for row in zip(*(_column(batch, name) for name in columns), strict=True):
                    number += 1
                    where = f"{path.name} row {number}"
                    named = dict(zip(columns, row, strict=True))
                    texts = ((name, value) for name, value in named.items() if isinstance(value, str))
                    problem = next(
                        ((name, why) for name, text in texts if (why := unusable_text(text))), None
                    )
                    if problem is not None:
                        report.skip(f"{problem[0]} {problem[1]}", where)
                        continue
                    yield where, {**named, IN_FILE: f"{place}/{number}"} if place else named
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def _column(batch: pa.RecordBatch, name: str) -> list[Any]:
    if name in batch.schema.names:
        return list(batch.column(name).to_pylist())
    struct, _, inner = name.rpartition(".")
    column = batch.column(struct)
    return list(pa.compute.struct_field(column, inner).to_pylist())


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def image_digests(path: Path, column: str) -> Iterator[str]:
    """Digest of each row's image, the same for equal bytes; empty where a row has none.

    Raises:
        ManifestError: the file is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(IMAGES_AT_ONCE, columns=[column]):
                for value in batch.column(column).to_pylist():
                    data = value.get("bytes") if isinstance(value, dict) else value
                    yield hashlib.sha256(data).hexdigest()[:16] if data else ""
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ManifestError:
    return ManifestError(f"{path} is damaged ({printable(str(error))[:200]}): download it again")
