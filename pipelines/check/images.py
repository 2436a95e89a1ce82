"""Images of a split for `kg-targets check`: how many are there, in which form, and what to do about those missing."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from kg_targets.errors import DataError
from kg_targets.manifest.images import ImageFolder, endings_text, shown_ending, without_ending
from training.data.sources import ImageListing, open_source

SEARCHED = 200_000
"""Folders that are looked at for a missing image elsewhere below the data root."""
KEPT = 1000
"""Missing paths whose folders are described."""


class ImageCounts:
    """Images of one split below a data root, which may hold Parquet files or tar shards, too.

    Args:
        root: as training takes it.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, ImageFolder(root)
        self._rows, self._missing, self._endings = 0, list[str](), Counter[str]()
        self._present, self._form, self._problem = 0, "folder", ""

    def add(self, path: str) -> None:
        """Look for a row's image among the files."""
        self._rows += 1
        found = self._folder.find(path) if path else None
        if found is not None:
            self._endings[shown_ending(found)] += 1
        elif path and len(self._missing) < KEPT:
            self._missing.append(path)

    def found(self, named: Callable[[], Iterable[tuple[str, str]]]) -> dict[str, Any]:
        """Count the images, in shards where no file is one.

        Args:
            named: starts to give the rows' (image id, path) anew.

        Returns:
            ``images``, ``images_present``, ``image_form`` and ``image_endings``.
        """
        self._present = self._endings.total()
        if self._rows and not self._present:
            try:
                ids, paths = (list(values) for values in zip(*named(), strict=True))
                source = open_source(self._root, ImageListing(ids, paths))
                self._present, self._form = int(source.present().sum()), source.kind
            except DataError as error:
                self._problem = f"images: {error}"
        return {
            "images": self._rows,
            "images_present": self._present,
            "image_form": self._form if self._present else "",
            "image_endings": dict(self._endings.most_common()),
        }

    def remarks(self) -> list[str]:
        """Lines for a person about images that are missing, and what to do."""
        absent = self._rows - self._present
        if not absent or not self._missing:
            return [self._problem] if self._problem else []
        if self._form != "folder" and self._present:
            return [f"{absent:,} images are missing from the {self._form}: {_allow(absent)}"]
        first = self._missing[0]
        beside = endings_text(self._folder.endings_beside(self._missing))
        lines = [
            f"first missing image: {first}, nor with another ending of images (its folder holds: {beside})"
        ]
        if self._present:
            return [*lines, f"{absent:,} images are missing: {_allow(absent)}"]
        lines += _where(self._root, first)
        lines += [self._problem] if self._problem and "are not below" not in self._problem else []
        lines.append(
            "without images targets and text baselines can be made; teachers, training and evaluation need them"
        )
        return lines


def _allow(absent: int) -> str:
    return f"training leaves them out with data.max_broken {absent} or more"


def _where(root: Path, path: str) -> list[str]:
    """Advice about an image that is not where its path says."""
    if "://" in path:
        return ["these paths are addresses: download the images, and write their paths below the data root"]
    found, folder = _alike(root, path), PurePosixPath(path).parent
    if found is None:
        return []
    if found.parent.as_posix().lower() == folder.as_posix().lower():
        return [f"{found} is there, in other capitals: rename it, or the path"]
    return [
        f"an image of this name is in {found.parent}/: move or link that folder to {folder}, or write images: "
        f"{found.parent} into a manifest of your own"
    ]


def _alike(root: Path, path: str) -> PurePosixPath | None:
    """A file below the root with this name, whatever its ending and capitals."""
    wanted = without_ending(PurePosixPath(path).name).lower()
    for place, _, files in islice(os.walk(root), SEARCHED):
        for name in files:
            if without_ending(name).lower() == wanted:
                return PurePosixPath(Path(place, name).relative_to(root).as_posix())
    return None
