"""Columns of a large store as files that processes map and share, made of the Parquet files on first use.

Parquet is compressed, so that every process that reads it has a copy of its own. From ``MAPPED_FROM`` rows on, a column
is written once, uncompressed, into the folder ``.mapped`` of the store (or, where that cannot be written, into one for
temporary files) and mapped from there: it takes no private memory, nothing is read before it is asked for, and all
workers and ranks share its pages. Smaller stores are read as they are.

Beside each copy lies its sha256, written last. A process that opens a copy for the first time compares them (see
``remembered_sha256``), and makes one that is damaged, or another store's, again.
"""

import hashlib
import os
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kg_targets.errors import StoreError
from kg_targets.store.digest import file_sha256, remembered_sha256
from kg_targets.store.files import at_once

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

    anew = False
    """Whether every copy is made again when it is first opened, which shows those that hold something else."""

    def __init__(self, store: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.damaged: list[Path] = []
        """Copies that held something else than what was made anew."""
        self._opened: set[Path] = set()
        place: Path | None = store / FOLDER
        if not os.access(store, os.W_OK):
            place = _own_temporary_folder()
            if place is not None:
                place /= hashlib.sha256(str(store.resolve()).encode()).hexdigest()[:16]
        self.folder = place and place / fingerprint[:16]
        """Folder of the copies; None where there is no safe one, and all is read into memory."""

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

        if self.folder is None:
            return pa.chunked_array([chunk for piece in pieces() for chunk in piece.chunks])
        path = self._made(self.folder / f"{name}.arrow", write)
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(0)

    def array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """An array, mapped read-only; ``make`` gives it where there is no copy yet."""

        def write(path: Path) -> None:
            with path.open("wb") as stream:
                np.save(stream, make(), allow_pickle=False)

        if self.folder is None:
            return make()
        path = self._made(self.folder / f"{name}.npy", write)
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return found

    def _made(self, path: Path, write: Callable[[Path], None]) -> Path:
        """The file, sound; made if it is not."""
        try:
            if path not in self._opened or not path.is_file():
                if self.anew and path.is_file():
                    before = file_sha256(path)
                    if self._write(path, write) != before:
                        self.damaged.append(path)
                elif not self._is_sound(path):
                    self._write(path, write)
                self._opened.add(path)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written ({error.strerror or error}): a store of this size is mapped from there, "
                "free some space"
            ) from error
        return path

    def _is_sound(self, path: Path) -> bool:
        """Whether there is a copy whose content is what was written."""
        try:
            told = _note(path).read_text("utf-8").split()
            return told == [self.fingerprint, remembered_sha256(path, path.parent)]
        except (FileNotFoundError, ValueError):
            return False

    def _write(self, path: Path, write: Callable[[Path], None]) -> str:
        """Write the file, at once whole (another process may be doing the same), then its sha256, which is returned."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with at_once(path) as partial:
            write(partial)
            digest = file_sha256(partial)
        with at_once(_note(path)) as partial:
            partial.write_text(f"{self.fingerprint} {digest}\n", "utf-8")
        return digest


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _own_temporary_folder() -> Path | None:
    """A folder among the temporary ones that nobody else can write; None if somebody else has made one of its name."""
    folder = Path(tempfile.gettempdir()) / f"kg-targets-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(folder)  # of a link, not of what it leads to
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if own and stat.S_IMODE(found.st_mode) == 0o700:
            return folder
    warnings.warn(
        f"{folder} is not a folder that only you can use (mode 0700): the store is read into memory, remove the folder",
        stacklevel=2,
    )
    return None
