"""Images as files below a folder, by the store's ``image_path``."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kg_targets.manifest.images import ImageFolder, endings_text
from training.data.decode import read_bytes
from training.data.files import image_digest, inside, resolve
from training.data.sources.base import ImageRows, ImageSource
from training.errors import DataError


class FolderSource(ImageSource):
    """A folder that the store's image paths are relative to.

    Raises:
        DataError: the folder does not exist, or a path points outside it.
    """

    kind = "folder"

    def __init__(self, root: Path, store: ImageRows) -> None:
        super().__init__(root, store)
        if not root.is_dir():
            raise DataError(f"{root} does not exist: give the folder that holds the images as data root")
        self._folder = ImageFolder(root)
        named = [inside(path, f"data root {root}") for path in store.image_paths]
        found = [self._folder.find(path) for path in named]
        self._present = np.array([path is not None for path in found], dtype=bool)
        self._paths = [path or name for path, name in zip(found, named, strict=True)]

    def present(self) -> NDArray[np.bool_]:
        """bool [N]: whether the file is there."""
        return self._present

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
        beside = endings_text(self._folder.endings_beside(self._paths[row] for row in rows.tolist()))
        return (
            f"{len(rows)} of {len(self.store)} images are not below {self.root} (the first was looked for at "
            f"{self.name(int(rows[0]))} and with every other ending of images; these folders hold: {beside}): is it "
            "the data root that the target store was built from?"
        )
