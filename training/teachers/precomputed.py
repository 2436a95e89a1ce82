"""Teachers that are no models: precomputed embeddings in a Parquet file, or hard labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from kg_targets.store.digest import file_sha256
from kg_targets.store.teacher import MATCHED_LOGIT
from training.errors import CheckpointError, DataError
from training.teachers.base import (
    Advance,
    FloatArray,
    ImageTexts,
    ImageVectors,
    IntArray,
    Teacher,
    unit_vectors,
)

COLUMNS = ("image_id", "image_embedding", "text_embedding")
SCALE = 100.0
"""Without a column ``scale``: where CLIP's learned logit scale is clamped (R)."""


class ParquetTeacher(Teacher):
    """Columns image_id, image_embedding and text_embedding (lists of one width), and optionally scale (one number).

    Vectors need not have length 1. Rows of other images are left aside; equal captions are given the first one's.

    Raises:
        CheckpointError: the file is missing or lacks a column, widths differ, or an image is there twice.
    """

    kind = "parquet"
    reads_images = False

    def __init__(self, source: str, name: str, device: torch.device) -> None:
        path = Path(source)
        table = _read(path)
        ids = table.column("image_id").cast(pa.string()).to_pylist()
        self._row = {image_id: row for row, image_id in enumerate(ids)}
        if len(self._row) < len(ids):
            raise CheckpointError(f"{path}: an image_id occurs twice: keep one row for each image")
        self._vectors = {column: _matrix(table, column, path) for column in COLUMNS[1:]}
        widths = {column: found.shape[1] for column, found in self._vectors.items()}
        if len(set(widths.values())) > 1:
            raise CheckpointError(
                f"{path}: {' and '.join(f'{column} is {width} wide' for column, width in widths.items())}: they must "
                "share one space"
            )
        self.name, self.dim = name, next(iter(widths.values()))
        self.scale = _scale(table, path)
        self.digest = file_sha256(path)
        self.preprocessing: dict[str, Any] = {}

    def images(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> ImageVectors:
        """See ``Teacher``; no image file is read."""
        return ImageVectors(self._of("image_embedding", "image", pairs, rows, advance), {})

    def texts(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> FloatArray:
        """See ``Teacher``."""
        return self._of("text_embedding", "the caption", pairs, rows, advance)

    def _of(
        self, column: str, what: str, pairs: ImageTexts, rows: IntArray, advance: Advance | None
    ) -> FloatArray:
        names = [pairs.image_ids[row] for row in rows.tolist()]
        for image_id in names:
            if image_id not in self._row:
                raise DataError(
                    f"teacher {self.name} has no embedding of image {image_id}: write the file for this split"
                )
        if advance is not None:
            advance(len(names))
        found = self._vectors[column][[self._row[image_id] for image_id in names]]
        return unit_vectors(found, what, names, self.name)


class NoTeacher(Teacher):
    """Says of every image that its own caption is like it and no other: hard labels, the first row of Table 5."""

    name = "none"
    kind = "none"
    digest = ""
    dim = 0
    scale = MATCHED_LOGIT
    reads_images = False

    def __init__(self, source: str, name: str, device: torch.device) -> None:
        self.preprocessing: dict[str, Any] = {}

    def images(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> ImageVectors:
        """Nothing, float32 ``[R, 0]``."""
        return ImageVectors(np.zeros((len(rows), 0), dtype=np.float32), {})

    def texts(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> FloatArray:
        """Nothing, float32 ``[R, 0]``."""
        return np.zeros((len(rows), 0), dtype=np.float32)


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise CheckpointError(f"teacher parquet:{path}: there is no such file")
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable Parquet file: {' '.join(str(error).split())}"
        ) from error
    for column in COLUMNS:
        if column not in table.column_names:
            raise CheckpointError(
                f"{path} has no column {column}: it needs {', '.join(COLUMNS)} and optionally scale"
            )
    if not table.num_rows:
        raise CheckpointError(f"{path} has no rows")
    return table


def _matrix(table: pa.Table, column: str, path: Path) -> FloatArray:
    values = table.column(column).combine_chunks()
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise CheckpointError(f"{path}: column {column} is {kind}: it must hold lists of numbers")
    lengths = np.unique(values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    flat = values.flatten()
    if len(lengths) != 1 or not lengths[0] or flat.null_count:
        raise CheckpointError(f"{path}: column {column} must hold lists of one width, without gaps")
    try:
        numbers = flat.cast(pa.float32()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise CheckpointError(f"{path}: column {column} must hold lists of numbers") from error
    return np.asarray(numbers, dtype=np.float32).reshape(len(values), int(lengths[0]))


def _scale(table: pa.Table, path: Path) -> float:
    if "scale" not in table.column_names:
        return SCALE
    found = {value.as_py() for value in table.column("scale").unique()}
    value = found.pop() if len(found) == 1 else None
    if not isinstance(value, int | float) or not 0.0 < value < float("inf"):
        raise CheckpointError(f"{path}: column scale must hold one positive number, the same in every row")
    return float(value)
