"""Base of Parquet files and tars: several files, and an index from store rows to entries."""

import json
import os
import posixpath
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kg_targets.manifest.images import composed
from kg_targets.store.schema import MANIFEST
from training.data.decode import BrokenImage
from training.data.files import HASHED_ENDS, image_digest
from training.data.sources.base import ImageRows, ImageSource
from training.errors import DataError

MAX_MANIFEST_BYTES = 16 << 20
"""A target store's has some kilobytes; larger files are something else and not parsed."""


class Key(NamedTuple):
    """One way to tell which row an entry belongs to: equal text on both sides, read when the key is tried."""

    name: str
    """Name of what is compared, for messages."""
    entries: Iterable[str | None]
    """The text of every entry, in the archive's order; None: has none."""
    rows: Iterable[str]
    """The text of every store row."""


class ShardedSource(ImageSource):
    """Images inside files with one ending.

    Raises:
        DataError: there is no such file.
    """

    suffix: str
    entries: NDArray[np.int64]
    """int64 [N]: number of each row's entry, -1: there is none; set by ``match_rows``."""

    def __init__(self, root: Path, store: ImageRows) -> None:
        super().__init__(root, store)
        self.shards = [root] if root.is_file() else sorted(shards_below(root, self.suffix))
        if not self.shards:
            raise DataError(f"{root} holds no {self.suffix} file: give another data root")
        self._folder = root.parent if root.is_file() else root

    def relative(self, number: int) -> str:
        """Path of a file relative to the data root, with slashes."""
        return Path(os.path.relpath(self.shards[number], self._folder)).as_posix()

    def match_rows(self, keys: Sequence[Key], paths: Sequence[str]) -> None:
        """The entries by the first key that finds any row; entries of no row belong to other splits and are left aside.

        One key is used for all rows, so that an image that is missing by its path is not replaced by a namesake. A key
        that takes two images of the store for one is passed over.

        Args:
            keys: from the strictest to the loosest.
            paths: image path of every store row; rows with one path (captions of the same image) share an entry.

        Raises:
            DataError: two entries are the same row's.
        """
        self._matched_by = " or ".join(dict.fromkeys(key.name for key in keys))
        self.entries = np.full(len(paths), -1, dtype=np.int64)
        for key in keys:
            rows_of: dict[str, list[int]] = {}
            for row, text in enumerate(key.rows):
                rows_of.setdefault(composed(text), []).append(row)
            if any(paths[row] != paths[rows[0]] for rows in rows_of.values() for row in rows[1:]):
                continue
            for entry, name in enumerate(key.entries):
                for row in () if name is None else rows_of.get(composed(name), ()):
                    if self.entries[row] >= 0:
                        raise DataError(
                            f'{self.root} holds two images with {key.name} "{name}": remove or rename one of them'
                        )
                    self.entries[row] = entry
            if (self.entries >= 0).any():
                self._matched_by = key.name
                return

    def present(self) -> NDArray[np.bool_]:
        """bool [N]: whether an entry is the row's."""
        return np.asarray(self.entries >= 0)

    def name(self, row: int) -> str:
        """Where an image is, or its id if it is nowhere."""
        entry = int(self.entries[row])
        return self.place(entry) if entry >= 0 else self.store.image_ids[row]

    def entry(self, row: int) -> int:
        """Number of a row's entry.

        Raises:
            BrokenImage: it has none.
        """
        entry = int(self.entries[row])
        if entry < 0:
            raise BrokenImage(f"{self.name(row)} (not in the {self.suffix} files of {self.root})")
        return entry

    @abstractmethod
    def place(self, entry: int) -> str:
        """Where an entry is."""

    def locality(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [R]: entry numbers, in the order in which the files hold them."""
        return self.entries[rows]

    def digest(self) -> str:
        """sha256 over names and sizes of the files and their content, or above a limit the ends of it."""
        names = [self.relative(number) for number in range(len(self.shards))]
        return image_digest(self._folder, names, ends=HASHED_ENDS)

    def _missing(self, rows: NDArray[np.int64]) -> str:
        return (
            f"{len(rows)} of {len(self.store)} images are not in the {self.suffix} files of {self.root} by "
            f"{self._matched_by} (the first: {self.store.image_ids[rows[0]]}, {self.store.image_paths[rows[0]]}): "
            "is it the data root that the target store was built from?"
        )


def shards_below(folder: Path, suffix: str) -> Iterator[Path]:
    """Files with one ending at any depth, but for those of target stores, which are Parquet without images."""
    for place, folders, files in os.walk(folder):
        if MANIFEST in files and _is_store(Path(place, MANIFEST)):
            folders.clear()
            continue
        yield from (Path(place, name) for name in files if name.lower().endswith(suffix))


def _is_store(manifest: Path) -> bool:
    """Whether it is a target store's manifest, of whatever version, and not one of some data set."""
    try:
        if manifest.stat().st_size > MAX_MANIFEST_BYTES:
            return False
        content = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # what cannot be read says nothing about the files beside it
    return isinstance(content, dict) and content.keys() >= {"schema_version", "fingerprint"}


def stem(path: str) -> str:
    """``a/b.c.png`` to ``b.c``."""
    return posixpath.splitext(posixpath.basename(path))[0]
