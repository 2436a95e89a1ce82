"""Paths from data sets, which must stay inside the folder or archive that they belong to."""

import posixpath
from pathlib import Path

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
