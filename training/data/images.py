"""Reading images: paths that stay inside the data root, and a count of those that cannot be read."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from training.errors import DataError

logger = logging.getLogger(__name__)

_READ_ERRORS = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)


def resolve(data_root: Path, relative: str) -> Path:
    """``data_root / relative``.

    Raises:
        DataError: the path is absolute or climbs out of the data root.
    """
    inside = os.path.normpath(relative)
    if os.path.isabs(inside) or inside.split(os.sep)[0] == "..":
        raise DataError(
            f'image path "{relative}" points outside the data root {data_root}: correct the data set'
        )
    return data_root / inside


def read_uint8(path: Path, preprocess: Callable[[Image.Image], Tensor], mean: Tensor, std: Tensor) -> Tensor:
    """One image as evaluation will see it (resized and cropped by ``preprocess``), undone to uint8 [3, S, S]."""
    with Image.open(path) as image:
        normalised = preprocess(image)
    return ((normalised * std + mean) * 255.0).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class ImageTable:
    """Images of the rows that can be read."""

    rows: NDArray[np.int64]
    """Store rows, int64 [M], ascending."""
    pixels: Tensor
    """uint8 [M, 3, S, S]."""
    broken: list[str]
    """Paths that are missing or unreadable."""


def load_images(
    data_root: Path,
    relative_paths: Sequence[str],
    read: Callable[[Path], Tensor],
    max_broken: int = 0,
) -> ImageTable:
    """Decode all images once, in threads (decoding releases the interpreter lock).

    Args:
        data_root: folder that the paths are relative to.
        relative_paths: one per store row.
        read: file to uint8 [3, S, S].
        max_broken: unreadable images to tolerate; they are left out and reported.

    Raises:
        DataError: a path outside the root, more broken images than allowed, or none left.
    """
    if not data_root.is_dir():
        raise DataError(f"{data_root} does not exist: give the folder that holds the images as data root")
    paths = [resolve(data_root, relative) for relative in relative_paths]
    check_present(data_root, relative_paths, paths, max_broken)

    def attempt(path: Path) -> Tensor | str:
        try:
            return read(path)
        except _READ_ERRORS as error:
            return f"{path} ({' '.join(str(error).split()) or type(error).__name__})"

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(attempt, paths))
    broken = [result for result in results if isinstance(result, str)]
    if len(broken) > max_broken:
        raise DataError(
            f"{len(broken)} broken image(s), {max_broken} allowed (data.max_broken); the first: {broken[0]}"
        )
    if broken:
        logger.warning(
            "skipped %d of %d images that cannot be read: %s", len(broken), len(paths), "; ".join(broken[:3])
        )
    good = [(row, result) for row, result in enumerate(results) if isinstance(result, Tensor)]
    if not good:
        raise DataError(f"{data_root}: no image can be read")
    return ImageTable(
        rows=np.array([row for row, _ in good], dtype=np.int64),
        pixels=torch.stack([pixels for _, pixels in good]),
        broken=broken,
    )


def check_present(
    data_root: Path, relative_paths: Sequence[str], paths: Sequence[Path], max_broken: int
) -> None:
    """Tell a wrong data root from a few missing files, before anything is decoded.

    Raises:
        DataError: more files are missing than ``max_broken``.
    """
    missing = [relative for relative, path in zip(relative_paths, paths, strict=True) if not path.is_file()]
    if len(missing) > max_broken:
        raise DataError(
            f"{len(missing)} of {len(paths)} images are not below {data_root} (the first: {missing[0]}): "
            "is it the data root that the target store was built from?"
        )
