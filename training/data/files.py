"""A data set's files: paths that stay inside the folder or archive they belong to, and digests of the content."""

import hashlib
import os
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kg_targets.store.digest import file_sha256
from training.errors import DataError


def inside(relative: str, place: str) -> str:
    """``relative`` in its shortest form.

    Args:
        relative: a path of a store or archive, with slashes.
        place: what it belongs to, for the message.

    Raises:
        DataError: the path is absolute or climbs out.
    """
    path = posixpath.normpath(relative)
    if posixpath.isabs(path) or path.split("/")[0] == ".." or "\0" in path:
        raise DataError(f'image path "{relative}" points outside the {place}: correct the data set')
    return path


def resolve(data_root: Path, relative: str) -> Path:
    """``data_root / relative``.

    Raises:
        DataError: the path is absolute or climbs out of the data root.
    """
    return data_root / inside(relative, f"data root {data_root}")


HASHED_BYTES = 200_000_000
"""Up to this many bytes in all, files are read; reading more would delay every start, so sizes have to do."""
HASHED_ENDS = 1 << 20
"""Bytes read at either end of a Parquet file or tar where the whole would be too much."""


def image_digest(root: Path, relative_paths: Sequence[str], limit: int = HASHED_BYTES, ends: int = 0) -> str:
    """sha256 over path, size and, below ``limit`` bytes in all, content of every image.

    Times of change are left out: a copy of the same images is the same data. A file that cannot be read counts as
    absent; loading the images reports it.

    Args:
        root: folder that the paths are relative to.
        relative_paths: one per store row.
        limit: total size up to which contents are read, bytes.
        ends: above ``limit``, so many bytes at either end of each file are read.

    Raises:
        DataError: a path points outside the data root.
    """
    names = sorted(set(relative_paths))
    paths = [resolve(root, name) for name in names]
    sizes = [_size(path) for path in paths]
    whole = sum(size for size in sizes if size is not None) <= limit
    contents: list[str | None] = [""] * len(paths)
    if whole or ends:
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            contents = list(pool.map(lambda path: _content(path, None if whole else ends), paths))
    digest = hashlib.sha256()
    for line in zip(names, sizes, contents, strict=True):
        digest.update(repr(line).encode())
    return digest.hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _content(path: Path, ends: int | None) -> str | None:
    try:
        if ends is None:
            return file_sha256(path)
        with path.open("rb") as stream:
            digest = hashlib.sha256(stream.read(ends))
            stream.seek(max(ends, path.stat().st_size - ends))
            digest.update(stream.read(ends))
            return digest.hexdigest()
    except OSError:
        return None
