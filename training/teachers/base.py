"""The contract of teachers: a unit vector for every image and every caption, and a scale for their products."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.sources.base import ImageSource
from training.errors import DataError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Advance = Callable[[int], Any]
"""Told how many more images or captions are done."""

ENCODING = 1
"""Raised when the same teacher would give other vectors: stores and half-done builds of before are then made again."""


@dataclass(frozen=True)
class ImageTexts:
    """Images and captions by row, as a store has them."""

    image_ids: Sequence[str]
    captions: Sequence[str]
    source: ImageSource | None
    """Source of the images; None for a teacher that reads none."""


@dataclass(frozen=True)
class ImageVectors:
    """Some rows' images."""

    factors: FloatArray
    """float32 ``[R, D]``: unit vectors; zeros for an image that could not be read."""
    broken: dict[int, str]
    """Row to the problem with its image."""


class Teacher(ABC):
    """A frozen model, or embeddings of one; made from ``(source, name, device)``, see ``registry.open_teacher``.

    Attributes:
        name: what people call it; holds no path.
        kind: its entry in ``TEACHERS``.
        digest: sha256 of all that its vectors follow from, apart from images and captions: weights, architecture,
            tokenizer and preprocessing; empty if it says nothing (``none``).
        dim: D, width of the shared space; 0 if it says nothing (``none``).
        scale: exp of its logit scale, > 0.
        preprocessing: how images and captions are prepared, as JSON.
        reads_images: whether it needs the image files.
    """

    name: str
    kind: str
    digest: str
    dim: int
    scale: float
    preprocessing: dict[str, Any]
    reads_images: bool = True

    @abstractmethod
    def images(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> ImageVectors:
        """The images of some rows, not augmented.

        Raises:
            DataError: an embedding is missing, not finite or zero; the message names the image.
        """

    @abstractmethod
    def texts(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> FloatArray:
        """The captions of some rows, unit vectors, float32 ``[R, D]``.

        Raises:
            DataError: an embedding is missing, not finite or zero; the message names the image.
        """

    def metadata(self) -> dict[str, Any]:
        """Fields that a store's manifest keeps of the teacher."""
        return {
            "name": self.name,
            "kind": self.kind,
            "digest": self.digest,
            "dim": self.dim,
            "scale": float(self.scale),
            "preprocessing": self.preprocessing,
        }


def unit_vectors(
    features: NDArray[np.floating[Any]], what: str, image_ids: Sequence[str], name: str
) -> FloatArray:
    """Rows scaled to length 1.

    Args:
        features: ``[R, D]``.
        what: ``image`` or ``caption``, for the message.
        image_ids: length R.
        name: the teacher's.

    Raises:
        DataError: a row is not finite, or zero.
    """
    wide = np.asarray(features, dtype=np.float64)
    norms = np.sqrt((wide * wide).sum(axis=1))
    wrong = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(wrong):
        row = int(wrong[0])
        state = "zero" if norms[row] == 0 else "not finite"
        of = "" if what == "image" else " of image"
        raise DataError(
            f"teacher {name}: the embedding of {what}{of} {image_ids[row]} is {state}: look at the image and caption, "
            "and whether the teacher's weights are whole"
        )
    return np.asarray(wide / norms[:, None], dtype=np.float32)
