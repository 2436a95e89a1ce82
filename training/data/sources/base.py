"""Base of image sources: the image of a store row, and a digest of all of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.decode import decode
from training.errors import DataError


class ImageRows(Protocol):
    """As much of a target store as finding its images needs."""

    @property
    def image_ids(self) -> Sequence[str]:
        """One per row, each once."""
        ...

    @property
    def image_paths(self) -> Sequence[str]:
        """One per row, relative to the data root."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...


@dataclass(frozen=True)
class ImageListing:
    """Rows of images that are in no store."""

    image_ids: Sequence[str]
    image_paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.image_ids)


class ImageSource(ABC):
    """The images of one store, wherever they lie. Reading is safe from several threads."""

    kind: ClassVar[str]
    """Name of this kind of data root, for messages."""

    def __init__(self, root: Path, store: ImageRows) -> None:
        self.root, self.store = root, store

    @abstractmethod
    def present(self) -> NDArray[np.bool_]:
        """bool [N]: whether there is something to read for a store row, without reading it."""

    @abstractmethod
    def name(self, row: int) -> str:
        """Name of an image in messages, by which a person finds it."""

    @abstractmethod
    def encoded(self, row: int) -> bytes:
        """The image file's content.

        Raises:
            BrokenImage: it cannot be read.
        """

    @abstractmethod
    def digest(self) -> str:
        """sha256 that tells these images from others; below a limit by content, above it by sizes."""

    def locality(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [R]: rows with near numbers are cheaper to read one after the other."""
        return rows

    def read(self, row: int) -> Image.Image:
        """The decoded image, mode L or RGB.

        Raises:
            BrokenImage: it cannot be read or decoded.
            DataError: it is a DICOM file and pydicom is not installed.
        """
        return decode(self.encoded(row), self.name(row))

    def read_present(self, row: int) -> Image.Image | None:
        """The decoded image; ``None`` where this one is missing.

        Raises:
            DataError: all are missing.
            BrokenImage: it is there and cannot be read.
        """
        present = self.present()
        if not present.any():
            raise DataError(self._missing(np.flatnonzero(~present)))
        return self.read(row) if present[row] else None

    def check_present(self, max_broken: int, option: str = "data.max_broken") -> NDArray[np.int64]:
        """Store rows that have an image, int64 [M]: tells a wrong data root from a few missing images.

        Args:
            max_broken: images that may be missing.
            option: what ``max_broken`` is called where the user sets it, for the message.

        Raises:
            DataError: more are missing.
        """
        present = self.present()
        missing = np.flatnonzero(~present)
        if len(missing) > max_broken:
            raise DataError(
                f"{self._missing(missing)} To leave out images that are missing, allow for their number by {option}."
            )
        return np.flatnonzero(present).astype(np.int64)

    def _missing(self, rows: NDArray[np.int64]) -> str:
        return (
            f"{len(rows)} of {len(self.store)} images are not in {self.root} (the first: "
            f"{self.store.image_ids[rows[0]]}): is it the data root that the target store was built from?"
        )
