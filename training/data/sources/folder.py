"""Images as files below a folder, by the store's ``image_path``."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.data.decode import read_bytes
from training.data.files import image_digest, inside, resolve
from training.data.sources.base import ImageSource
from training.errors import DataError


class FolderSource(ImageSource):
    """A folder that the store's image paths are relative to.

    Raises:
        DataError: the folder does not exist, or a path points outside it.
    """

    def __init__(self, root: Path, store: TargetStore) -> None:
        super().__init__(root, store)
        if not root.is_dir():
            raise DataError(f"{root} does not exist: give the folder that holds the images as data root")
        self._paths = [inside(path, f"data root {root}") for path in store.image_paths]

    def present(self) -> NDArray[np.bool_]:
        """bool [N]: whether the file is there."""
        return np.array([os.path.isfile(self.root / path) for path in self._paths], dtype=bool)

    def holds_any(self, looked_at: int) -> bool:
        """Whether one of the first ``looked_at`` images is there."""
        return any(os.path.isfile(self.root / path) for path in self._paths[:looked_at])

    def name(self, row: int) -> str:
        """The file's path."""
        return str(resolve(self.root, self._paths[row]))

    def encoded(self, row: int) -> bytes:
        """The file's content.

        Raises:
            BrokenImage: it cannot be read.
        """
        return read_bytes(self.root / self._paths[row])

    def digest(self) -> str:
        """sha256 over path, size and (up to a limit in all) content of every image."""
        return image_digest(self.root, self._paths)

    def _missing(self, rows: NDArray[np.int64]) -> str:
        return (
            f"{len(rows)} of {len(self.store)} images are not below {self.root} (the first was looked for at "
            f"{self.name(int(rows[0]))}): is it the data root that the target store was built from?"
        )
