"""Which entry of an archive is the image of which store row."""

import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError


@dataclass(frozen=True)
class Key:
    """One way to tell which row an entry belongs to: equal text on both sides."""

    name: str
    """What is compared, for messages."""
    entries: Callable[[], Iterable[str | None]]
    """The text of every entry, in the archive's order; None: has none."""
    rows: Callable[[], Iterable[str]]
    """The text of every store row."""


@dataclass(frozen=True)
class Match:
    """The entry of each row."""

    entries: NDArray[np.int64]
    """int64 [N]: number of the entry, -1: there is none."""
    by: str
    """What was compared."""


def match(keys: Sequence[Key], paths: Sequence[str], archive: str) -> Match:
    """The entries by the first key that finds any row; entries of no row belong to other splits and are left aside.

    One key is used for all rows, so that an image that is missing by its path is not replaced by a namesake. A key
    that takes two images of the store for one is passed over.

    Args:
        keys: from the strictest to the loosest.
        paths: image path of every store row; rows with one path (captions of the same image) share an entry.
        archive: what the entries are in, for messages.

    Raises:
        DataError: two entries are the same row's.
    """
    for key in keys:
        rows_of: dict[str, list[int]] = {}
        for row, text in enumerate(key.rows()):
            rows_of.setdefault(text, []).append(row)
        if any(paths[row] != paths[rows[0]] for rows in rows_of.values() for row in rows[1:]):
            continue
        found = np.full(len(paths), -1, dtype=np.int64)
        for entry, name in enumerate(key.entries()):
            for row in rows_of.get(name, ()) if name is not None else ():
                if found[row] >= 0:
                    raise DataError(
                        f'{archive} holds two images with {key.name} "{name}": remove or rename one of them'
                    )
                found[row] = entry
        if (found >= 0).any():
            return Match(found, key.name)
    names = dict.fromkeys(key.name for key in keys)
    return Match(np.full(len(paths), -1, dtype=np.int64), " or ".join(names))


def base_name(path: str) -> str:
    """``a/b.c.png`` to ``b.c.png``."""
    return posixpath.basename(path)


def stem(path: str) -> str:
    """``a/b.c.png`` to ``b.c``."""
    return posixpath.splitext(posixpath.basename(path))[0]


def sample_key(path: str) -> str:
    """``a/b.c.png`` to ``b``: webdataset's key of a sample, without its folder."""
    return posixpath.basename(path).split(".")[0]
