"""What the images are, told by their content: a run on other images is another run."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from training.data.images import resolve

HASHED_BYTES = 200_000_000
"""Up to this many bytes in all, files are read; reading more would delay every start, so sizes have to do."""


def image_digest(data_root: Path, relative_paths: Sequence[str], limit: int = HASHED_BYTES) -> str:
    """sha256 over path, size and, below ``limit`` bytes in all, content of every image.

    Times of change are left out: a copy of the same images is the same data. A file that cannot be read counts as
    absent; loading the images reports it.

    Args:
        data_root: folder that the paths are relative to.
        relative_paths: one per store row.
        limit: total size up to which contents are read, bytes.

    Raises:
        DataError: a path points outside the data root.
    """
    names = sorted(set(relative_paths))
    paths = [resolve(data_root, name) for name in names]
    sizes = [_size(path) for path in paths]
    digest = hashlib.sha256()
    if sum(size for size in sizes if size is not None) <= limit:
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            contents = list(pool.map(_content, paths))
    else:
        contents = [""] * len(paths)
    for line in zip(names, sizes, contents, strict=True):
        digest.update(repr(line).encode())
    return digest.hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _content(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
