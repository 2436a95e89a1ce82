"""Tables of a store: columns are read when they are first used, those of large stores from mapped copies."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kg_targets.errors import StoreError
from kg_targets.store import mapped, schema
from kg_targets.store.digest import file_sha256, fingerprint


def listed(name: str) -> "cached_property[Sequence[Any]]":
    """Attribute with a column, read on first use: a list, or of a large store a mapped column that reads like one."""
    return cached_property(lambda store: store.listed(name))


class Tables:
    """Files of a store and the columns in them.

    Args:
        path: folder of the store.
        manifest: its content, as ``schema.read_manifest`` gives it.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    @property
    def fingerprint(self) -> str:
        """sha256 of the store's content and configuration."""
        return str(self.manifest["fingerprint"])

    @property
    def kept_neighbors(self) -> int:
        """Neighbours that the store keeps of an image, at most; 0 where it was built without."""
        return int(self.manifest["config"].get("top_k", 0))

    def check_files(self) -> str:
        """Compare the manifest and every file that it names with their checksums.

        Returns:
            A line that says how many match.

        Raises:
            StoreError: the first that does not.
        """
        if fingerprint(self.manifest) != self.fingerprint:
            raise StoreError(f"{self.path}/manifest.json was changed after the build: build the store again")
        for entry in self.manifest["files"]:
            file = self.path / entry["file"]
            if file_sha256(file) != entry["sha256"]:
                raise StoreError(
                    f"{file} does not match its checksum: the file is damaged, build the store again"
                )
        return f"{len(self.manifest['files'])} files match their checksums"

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of the table ``targets`` in row order.

        Raises:
            StoreError: the store has no such column, or a file is damaged.
        """
        if name in schema.NEIGHBOR_COLUMNS and not self.kept_neighbors:
            raise StoreError(
                f"{self.path} keeps no neighbours (it was built with --top-k 0): build it with --top-k 64"
            )
        if self.copies is None:
            return self._stored(name)

        def pieces() -> Iterator[pa.ChunkedArray]:
            return (part.column(name) for part in self._parts(schema.TARGETS, [name]))

        return self._whole(self.copies.column(name, pieces))

    def _stored(self, name: str) -> pa.ChunkedArray:
        """The same, of a large store, too, in this process's memory."""
        return self._whole(self._table(schema.TARGETS, [name]).column(name))

    def _whole(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if len(column) != len(self):
            raise StoreError(
                f"{self.path}: shards hold {len(column):,} rows, not {len(self):,}: build the store again"
            )
        return column

    @cached_property
    def copies(self) -> mapped.MappedFiles | None:
        """Mapped copies of its columns, of a large store; None for others."""
        large = len(self) >= mapped.MAPPED_FROM
        return mapped.MappedFiles(self.path, self.fingerprint) if large else None

    def _array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What ``make`` gives, of a large store from a mapped file."""
        return make() if self.copies is None else self.copies.array(name, make)

    def listed(self, name: str) -> Sequence[Any]:
        """One column of the table ``targets`` as a list, or of a large store as something that reads like one."""
        column = self.column(name)
        return list(column.to_pylist()) if self.copies is None else mapped.Column(column)

    def _table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return pa.concat_tables(self._parts(name, columns))

    def _parts(self, name: str, columns: list[str] | None) -> Iterator[pa.Table]:
        for path in (self.path / file for file in schema.table_files(self.manifest, name)):
            try:
                found = pq.read_table(path, columns=columns, partitioning=None)
            except (pa.ArrowInvalid, OSError) as error:
                reason = " ".join(str(error).split())
                raise StoreError(f"{path} cannot be read ({reason}): build the store again") from error
            if columns and found.num_columns != len(columns):
                raise StoreError(f"{path} has no column {columns[0]!r}")
            yield found

    def _frame(self, table: str) -> pd.DataFrame:
        frame: pd.DataFrame = self._table(table).to_pandas()
        return frame
