"""The one way to find an image below a data root: by its path, whatever its ending, and in either Unicode form.

A file of exactly that path wins. Else folders and names are compared in Unicode's composed form (NFC): what one system
writes as two code points, another one writes as one. Else the ending may be another one that images have, in capitals
or not; of several files the first ending of ``IMAGE_ENDINGS`` wins. Each folder is listed once, when it is first asked
for, and nothing else is looked at: a million candidates cost one listing, not a million calls.
"""

import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

IMAGE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".dcm", ".dicom", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
"""Endings of the formats that are read, most wanted first."""
USUAL_ENDING = ".jpg"
"""Ending in the path of an image that is not there."""
NAMED = 4
"""Endings that a message names."""


def ending(path: str) -> str:
    """``.png`` of ``a/b.PNG``; empty where a path ends in none that images have."""
    suffix = posixpath.splitext(path)[1].lower()
    return suffix if suffix in IMAGE_ENDINGS else ""


def without_ending(path: str) -> str:
    """``a/b`` of ``a/b.PNG``; what follows another dot is a part of the name, as in ``1.2.840.113``."""
    return path[: -len(suffix)] if (suffix := ending(path)) else path


class ImageFolder:
    """The image files below a data root.

    Args:
        root: folder that paths are relative to; a missing one holds nothing.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._listings: dict[str, _Listing] = {}

    def find(self, path: str) -> str | None:
        """The file that a path with slashes, relative to the root, names; ``None`` where there is none.

        Args:
            path: with or without an ending; what leads out of the root is never looked for.
        """
        if path.startswith("/") or ".." in path.split("/"):
            return None
        folder, name = posixpath.split(path)
        listing = self._listing(folder)
        if name in listing.files:
            return path
        found = listing.alike(name)
        return None if found is None else posixpath.join(listing.folder, found)

    def endings_beside(self, paths: Iterable[str]) -> Counter[str]:
        """Endings of the files in the folders that ``paths`` lie in: what is there, where no image is."""
        folders = dict.fromkeys(posixpath.dirname(path) for path in paths)
        return Counter(shown_ending(name) for folder in folders for name in self._listing(folder).files)

    def _listing(self, folder: str) -> "_Listing":
        """A folder's files, by its path or one that is the same text."""
        known = self._listings.get(folder)
        if known is None:
            known = self._listings[folder] = self._read(folder)
        return known

    def _read(self, folder: str) -> "_Listing":
        try:
            with os.scandir(self.root / folder) as entries:
                # Links count if they lead to a file; only they cost a call each.
                return _Listing(folder, frozenset(entry.name for entry in entries if entry.is_file()))
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return self._same_text(folder)

    def _same_text(self, folder: str) -> "_Listing":
        """A folder that is not there by its own name, by its parent's entries."""
        parent, name = posixpath.split(folder)
        if not name:
            return _Listing(folder, frozenset())
        above = self._listing(parent).folder if parent else parent
        try:
            with os.scandir(self.root / above) as entries:
                alike = [
                    entry.name
                    for entry in entries
                    if entry.is_dir() and composed(entry.name) == composed(name)
                ]
        except (OSError, ValueError):
            alike = []
        actual = posixpath.join(above, min(alike, default=name))
        return self._read(actual) if alike and actual != folder else _Listing(folder, frozenset())


class _Listing:
    """The files of one folder; ``folder`` is its path as the file system has it."""

    def __init__(self, folder: str, files: frozenset[str]) -> None:
        self.folder, self.files = folder, files
        self._by_name: dict[str, list[str]] | None = None

    def alike(self, name: str) -> str | None:
        """The file with this name in another Unicode form or with another ending."""
        if not self.files:
            return None  # targets can be built where no image is
        if self._by_name is None:
            self._by_name = {}
            for file in self.files:
                for key in dict.fromkeys((composed(file), composed(without_ending(file)))):
                    self._by_name.setdefault(key, []).append(file)
        wanted = composed(name)
        exact = [file for file in self._by_name.get(wanted, ()) if composed(file) == wanted]
        images = [file for file in self._by_name.get(without_ending(wanted), ()) if ending(file)]
        return min(exact or images, key=_preference, default=None)


def _preference(file: str) -> tuple[int, str]:
    return (IMAGE_ENDINGS.index(ending(file)) if ending(file) else len(IMAGE_ENDINGS), file)


def composed(name: str) -> str:
    """The composed Unicode form (NFC): equal for names that read the same."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def shown_ending(name: str) -> str:
    """A file's ending for messages, ``.nii.gz`` as a whole."""
    bare = name.removesuffix(".gz")
    return posixpath.splitext(bare)[1] + name[len(bare) :] or "no ending"


def endings_text(counts: Counter[str]) -> str:
    """``.png 40, .txt 2``, for messages."""
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in shown[:NAMED]) or "no file"
