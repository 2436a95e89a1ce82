"""Shards of a store, written by worker processes from the staged parts of the stage before."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kg_targets.scoring import Factors
from kg_targets.scoring.neighbors import NONE, Neighbors
from kg_targets.store import StoreWriter, TargetStore, schema
from kg_targets.store.digest import file_sha256
from kg_targets.store.factors import dense_matrix, factor_columns, sparse_matrix
from pipelines.build.executors import bar, map_in_order
from pipelines.build.extract import staged_mentions, staged_rows


class Piece(NamedTuple):
    """Rows of a part."""

    part: int
    start: int
    stop: int


@dataclass(frozen=True)
class Shards:
    """What all shards of a store are made of."""

    folder: Path
    """Folder of the staged parts and of the shards."""
    pieces: list[list[Piece]]
    """Of each shard."""
    mentions: list[NDArray[np.int32]]
    """Number of mentions of each image, by part."""
    labels: tuple[str, ...]
    factors: Factors
    neighbors: Neighbors | None
    rows: int
    """Rows of each shard but the last."""
    first: tuple[int, int] = (0, 0)
    """Numbers of the first shard and its first row: what is before them is of the store that is extended."""


class Written(NamedTuple):
    """One shard's files."""

    rows: int
    rows_sha256: str
    mentions: int
    mentions_sha256: str


def pieces_of_shards(rows: Sequence[int], size: int) -> list[list[Piece]]:
    """The parts' rows in runs of ``size``: of rows that were skipped, parts are shorter than shards."""
    shards: list[list[Piece]] = [[]]
    free = size
    for part, count in enumerate(rows):
        start = 0
        while start < count:
            if not free:
                shards.append([])
                free = size
            stop = min(count, start + free)
            shards[-1].append(Piece(part, start, stop))
            free, start = free - (stop - start), stop
    return shards


def write_shards(writer: StoreWriter, shards: Shards, workers: int) -> None:
    """Write the tables ``targets`` and ``mentions``, and record their files."""
    done = map_in_order(_write, range(len(shards.pieces)), workers, _initialise, (shards,))
    for index, written in enumerate(bar(len(shards.pieces), "shards", " shard", done), shards.first[0]):
        writer.adopt(schema.part(schema.TARGETS, index), written.rows, written.rows_sha256)
        writer.adopt(schema.part(schema.MENTIONS, index), written.mentions, written.mentions_sha256)


_shards: Shards


def _initialise(shards: Shards) -> None:
    global _shards
    _shards = shards


def _write(index: int) -> Written:
    """Write one shard."""
    folder, pieces, first = _shards.folder, _shards.pieces[index], _shards.first
    tables = [
        pq.read_table(folder / staged_rows(piece.part)).slice(piece.start, piece.stop - piece.start)
        for piece in pieces
    ]
    rows = pa.concat_tables([with_labels(table, _shards.labels) for table in tables])
    targets = folder / schema.part(schema.TARGETS, first[0] + index)
    start = first[1] + index * _shards.rows
    schema.write_parquet(
        targets_table(rows, _shards.labels, _shards.factors, _shards.neighbors, start), str(targets)
    )
    mentions = folder / schema.part(schema.MENTIONS, first[0] + index)
    counts = [_shards.mentions[piece.part] for piece in pieces]
    if len(pieces) == 1 and len(counts[0]) == pieces[0].stop - pieces[0].start:
        os.replace(folder / staged_mentions(pieces[0].part), mentions)
    else:
        found = [
            pq.read_table(folder / staged_mentions(piece.part)).slice(
                int(count[: piece.start].sum()), int(count[piece.start : piece.stop].sum())
            )
            for piece, count in zip(pieces, counts, strict=True)
        ]
        schema.write_parquet(pa.concat_tables(found).combine_chunks(), str(mentions))
    total = sum(
        int(count[piece.start : piece.stop].sum()) for piece, count in zip(pieces, counts, strict=True)
    )
    return Written(rows.num_rows, file_sha256(targets), total, file_sha256(mentions))


def keep_shards(writer: StoreWriter, store: TargetStore, shards: Shards, workers: int) -> None:
    """Put the shards of the store that is extended before the new ones: their files, and where a column changes a copy.

    Neighbours are those among all rows, and a label that only new rows have is empty; all else stays.
    """
    kept = schema.table_files(store.manifest, schema.TARGETS)
    same = shards.neighbors is None and shards.labels == store.labels
    anew = {*kept, *(schema.part(table, 0) for table in (schema.CONCEPTS, schema.EDGES))}
    for entry in store.manifest["files"]:
        if entry["file"] not in anew or (same and entry["file"] in kept):
            writer.link(store.path, entry)
    if same:
        return
    starts = np.cumsum([0, *kept.values()])[:-1].tolist()
    work = [(store.path, name, start) for name, start in zip(kept, starts, strict=True)]
    for name, written in zip(
        kept, map_in_order(_write_again, work, workers, _initialise, (shards,)), strict=True
    ):
        writer.adopt(name, *written)


def _write_again(given: tuple[Path, str, int]) -> tuple[int, str]:
    """Write one shard of the store that is extended: its rows, and the checksum of the file."""
    store, name, start = given
    table = pq.read_table(store / name, partitioning=None)
    said = [each for each in table.column_names if each.startswith("label_") or each in _DESCRIBED]
    rows = with_labels(table.select(said), _shards.labels)
    target = _shards.folder / name
    schema.write_parquet(
        targets_table(rows, _shards.labels, _shards.factors, _shards.neighbors, start), str(target)
    )
    return rows.num_rows, file_sha256(target)


_DESCRIBED = ("image_id", "image_path", "caption", "group_id", "licence", "cuis")


def with_labels(rows: pa.Table, labels: Sequence[str]) -> pa.Table:
    """The rows with a column for every label, in one order; a part may lack some."""
    columns = [name for name in rows.column_names if not name.startswith("label_")]
    empty = pa.repeat("", rows.num_rows)
    given = {f"label_{name}": empty for name in labels} | {
        name: rows.column(name) for name in rows.column_names
    }
    return pa.table({name: given[name] for name in [*columns, *(f"label_{name}" for name in labels)]})


def targets_table(
    rows: pa.Table, labels: Sequence[str], factors: Factors, neighbors: Neighbors | None, start: int
) -> pa.Table:
    """Some rows of the table ``targets``.

    Args:
        rows: what the data set says of the images (columns of text), and their CUIs.
        labels: names of the data set's labels.
        factors: of all images.
        neighbors: of all images; None for a store without.
        start: number of the first row.
    """
    stop, dense = start + rows.num_rows, dense_matrix(factors.matrix)
    width, mixed = None if dense is None else int(dense.shape[1]), sparse_matrix(factors.matrix) is not None
    columns = {
        **{name: rows.column(name) for name in rows.column_names},
        "row": pa.array(np.arange(start, stop), pa.int64()),
        "known": pa.array(factors.known[start:stop]),
        **factor_columns(factors.matrix, start, stop),
        **_neighbor_columns(neighbors, start, stop),
    }
    target = schema.target_columns(tuple(labels), width, mixed, neighbors is not None)
    return pa.table(columns).select(target.names).cast(target).combine_chunks()


def _neighbor_columns(neighbors: Neighbors | None, start: int, stop: int) -> dict[str, Any]:
    if neighbors is None:
        return {}
    rows, scores = (np.asarray(values[start:stop]) for values in neighbors)
    there = rows != NONE
    offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), pa.int32())
    return {
        "neighbor_rows": pa.ListArray.from_arrays(offsets, pa.array(rows[there], pa.int32())),
        "neighbor_scores": pa.ListArray.from_arrays(offsets, pa.array(scores[there], pa.float32())),
    }


class StagedColumn(Sequence[str]):
    """A column of the staged rows, read when it is first asked for: most scorers do not."""

    def __init__(self, folder: Path, parts: int, name: str, rows: int) -> None:
        self._paths, self._name, self._rows = (
            [folder / staged_rows(part) for part in range(parts)],
            name,
            rows,
        )
        self._values: list[str] = []

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: Any) -> Any:
        return self._read()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def _read(self) -> list[str]:
        if not self._values:
            tables = (pq.read_table(path, columns=[self._name]) for path in self._paths)
            self._values = [value for table in tables for value in table.column(self._name).to_pylist()]
        return self._values
