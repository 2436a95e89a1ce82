"""Perceptual hashes: which images are the same picture under another name, size or compression.

dHash (Krawetz 2013, public): the grey image is averaged down to 17 x 16 pixels; a bit says whether a pixel is darker
than its right neighbour. 256 bits, not the usual 64: radiographs and axial slices are alike, and with 64 bits other
patients' images are as near as copies are (measured in docs/vqa_data.md).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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


def hash_images(paths: Iterable[tuple[str, Path]]) -> Hashes:
    """Hash image files, one in memory at a time.

    Args:
        paths: (name, file) of each.
    """
    from training.data.decode import BrokenImage, decode

    hashes = Hashes()
    for name, path in paths:
        if not path.is_file():
            hashes.missing.append(name)
            continue
        try:
            bits = dhash(decode(path.read_bytes(), name))
        except (BrokenImage, OSError):
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
