"""Columns of a large store as files that processes map and share, made of the Parquet files on first use.

Parquet is compressed, so that every process that reads it has a copy of its own. From ``MAPPED_FROM`` rows on, a column
is written once, uncompressed, into the folder ``.mapped`` of the store (or, where that cannot be written, into one for
temporary files), beside its sha256, and mapped from there while it has that: it takes no private memory, nothing is
read before it is asked for, and all workers and ranks share its pages. Smaller stores are read as they are.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kg_targets.errors import StoreError
from kg_targets.store.digest import file_sha256, remembered_sha256

MAPPED_FROM = 65_536
"""Rows from which on columns are mapped: below, all of them take a few dozen MB."""
FOLDER = ".mapped"

Value = TypeVar("Value")


class Column(Sequence[Value]):
    """A column that reads like a list, whose values are made when they are asked for."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self.values.slice(start, max(stop - start, 0)).to_pylist()
            return [self[place] for place in range(start, stop, step)]
        return self.values[int(index)].as_py()

    def __iter__(self) -> Iterator[Value]:
        for chunk in self.values.chunks:
            yield from chunk.to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(list(self), dtype=dtype or object)


class MappedFiles:
    """Mapped copies of a store's columns.

    Args:
        store: its folder.
        fingerprint: of its content; copies of another content are never read.
    """

    def __init__(self, store: Path, fingerprint: str) -> None:
        self.folder = store / FOLDER / fingerprint[:16]
        if not os.access(store, os.W_OK):
            user = hashlib.sha256(str(store.resolve()).encode()).hexdigest()[:16]
            self.folder = Path(tempfile.gettempdir()) / f"kg-targets-{os.getuid()}" / user / fingerprint[:16]
        self._sound: set[str] = set()

    def column(self, name: str, pieces: Callable[[], Iterable[pa.ChunkedArray]]) -> pa.ChunkedArray:
        """A column, mapped.

        Args:
            name: of the column.
            pieces: reads it piece by piece, where there is no copy yet.
        """

        def write(path: Path) -> None:
            writer = None
            with pa.OSFile(str(path), "wb") as stream:
                for piece in pieces():
                    table = pa.table({name: piece})
                    writer = writer or pa.ipc.new_file(stream, table.schema)
                    writer.write_table(table)
                if writer is not None:
                    writer.close()

        path = self._made(f"{name}.arrow", write)
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(0)

    def array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """An array, mapped read-only; ``make`` gives it where there is no copy yet."""

        def write(path: Path) -> None:
            with path.open("wb") as stream:
                np.save(stream, make(), allow_pickle=False)

        found: NDArray[Any] = np.load(self._made(f"{name}.npy", write), mmap_mode="r", allow_pickle=False)
        return found

    def _made(self, name: str, write: Callable[[Path], None]) -> Path:
        """The file, at once whole if it is written now: another process may be doing the same."""
        path, digest = self.folder / name, self.folder / f"{name}.sha256"
        try:
            if name not in self._sound and not (
                path.is_file()
                and digest.is_file()
                and digest.read_text("utf-8") == remembered_sha256(path, self.folder)
            ):
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._replacing(path) as partial:
                    write(partial)
                    with self._replacing(digest) as noted:
                        noted.write_text(file_sha256(partial), "utf-8")
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written ({error.strerror or error}): a store of this size is mapped from there, "
                "free some space"
            ) from error
        self._sound.add(name)
        return path

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[Path]:
        """A file to write, which then takes the place of another."""
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=f".{path.name}.")
        os.close(handle)
        os.chmod(name, 0o644)  # others may read the store, too
        try:
            yield Path(name)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
