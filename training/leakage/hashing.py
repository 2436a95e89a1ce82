"""Perceptual hashes: which images are the same picture under another name, size or compression.

dHash (Krawetz 2013, public): the grey image is averaged down to 17 x 16 pixels; a bit says whether a pixel is darker
than its right neighbour. 256 bits, not the usual 64: radiographs and axial slices are alike, and with 64 bits other
patients' images are as near as copies are (measured in docs/vqa_data.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SIDE = 16
BITS = SIDE * SIDE
RADIUS = 16
"""Images with at most so many differing bits count as the same picture."""
_FLAT = 2
"""Grey levels between the darkest and the brightest of the averaged pixels at which an image says nothing."""
_ROWS_AT_A_TIME = 1024

Signs = NDArray[np.float32]


@dataclass
class Hashes:
    """Hashes of images, and how many images have none."""

    names: list[str] = field(default_factory=list)
    bits: list[NDArray[np.bool_]] = field(default_factory=list)
    """One of ``[256]`` for each name."""
    missing: list[str] = field(default_factory=list)
    """Names of images that are not there."""
    unreadable: list[str] = field(default_factory=list)
    """Names of images that cannot be decoded."""
    flat: list[str] = field(default_factory=list)
    """Names of images of one grey: all of these would be alike."""
    problem: str = ""
    """Why none could be looked at, where a data root cannot be used."""

    def signs(self) -> Signs:
        """+1 and −1 for the bits, float32 ``[N, 256]``."""
        if not self.bits:
            return np.zeros((0, BITS), dtype=np.float32)
        return np.where(np.stack(self.bits), np.float32(1), np.float32(-1))


def dhash(image: "Image.Image") -> NDArray[np.bool_] | None:
    """The hash of an image, bool ``[256]``; ``None`` for an image of one grey.

    Args:
        image: of any mode and size.
    """
    from PIL import Image

    small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    if grey.max() - grey.min() <= _FLAT:
        return None
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def hash_images(root: Path, names: Sequence[str], paths: Sequence[str]) -> Hashes:
    """Hash the images of a data root, whatever form they have there (files, Parquet, tars), one in memory at a time.

    Args:
        root: the data root.
        names: of the images.
        paths: where each is, relative to the root.
    """
    from training.data.decode import BrokenImage
    from training.data.sources import ImageListing, open_source

    hashes = Hashes()
    if not names:
        return hashes
    try:
        source = open_source(root, ImageListing(names, paths))
    except DataError as error:
        return Hashes(missing=list(names), problem=str(error))
    for row, (name, present) in enumerate(zip(names, source.present().tolist(), strict=True)):
        if not present:
            hashes.missing.append(name)
            continue
        try:
            bits = dhash(source.read(row))
        except BrokenImage:
            hashes.unreadable.append(name)
            continue
        if bits is None:
            hashes.flat.append(name)
        else:
            hashes.names.append(name)
            hashes.bits.append(bits)
    return hashes


def near(one: Hashes, other: Hashes, radius: int = RADIUS) -> Iterator[tuple[str, str, int]]:
    """(name, name, differing bits) of every pair within ``radius``, in the order of the names given."""
    left, right = one.signs(), other.signs()
    for start in range(0, len(left), _ROWS_AT_A_TIME):
        # Signs agree in (256 + product) / 2 places; float32 holds these integers exactly.
        distances = (BITS - left[start : start + _ROWS_AT_A_TIME] @ right.T) / 2
        for row, column in zip(*np.nonzero(distances <= radius), strict=True):
            yield one.names[start + row], other.names[column], int(distances[row, column])
