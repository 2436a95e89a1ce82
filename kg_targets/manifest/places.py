"""The files of a data set below its data root: alternatives, several files by ``*``, and compressed ones.

A manifest names each file by a path, or by a list of paths of which the first that is there is taken: data sets are
published in more than one form. ``train-*.parquet`` stands for all files of such names, and ``x.csv`` for ``x.csv.gz``.
A data root may be one such file itself.
"""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from kg_targets.store.digest import container_sha256, file_sha256

Paths = str | tuple[str, ...]
"""A path relative to the data root, or alternatives."""
SPLIT = "{split}"
"""Placeholder of a split's name in paths of ``any_split``."""
GZIP = ".gz"


def alternatives(paths: Paths) -> tuple[str, ...]:
    """The paths of an entry, most wanted first."""
    return (paths,) if isinstance(paths, str) else paths


def present_files(root: Path, paths: Paths) -> list[Path]:
    """The files of an entry that are there, in the order of their names; none where nothing is."""
    return next(filter(None, (_matches(root, path) for path in alternatives(paths))), [])


def first_file(root: Path, paths: Paths) -> Path:
    """The first file of an entry, or where it would be."""
    found = present_files(root, paths)
    return found[0] if found else root / alternatives(paths)[0]


def present_folder(root: Path, paths: Paths) -> str:
    """The first folder of an entry that is there, or else its first."""
    names = alternatives(paths)
    return next((name for name in names if name and (root / name).is_dir()), names[0])


def content_digest(file: Path) -> str:
    """SHA-256 of a file of captions; of large files that hold images, too, by their ends.

    Raises:
        OSError: it cannot be read.
    """
    return container_sha256(file) if file.suffix in (".parquet", ".tar") else file_sha256(file)


def _matches(root: Path, path: str) -> list[Path]:
    if root.is_file():
        return [root] if fnmatchcase(root.name, PurePosixPath(path).name) else []
    if "*" in path:
        return sorted(file for file in root.glob(path) if file.is_file())
    return [file for file in (root / path, root / f"{path}{GZIP}") if file.is_file()][:1]


def split_names(root: Path, paths: Paths) -> Iterator[str]:
    """Names that ``{split}`` may stand for, of the first alternative that has any."""
    for path in alternatives(paths):
        parts = [re.escape(part).replace(r"\*", "[^/]*") for part in path.split(SPLIT)]
        name = re.compile("([^/]+)".join(parts[:2]) + "".join(rf"\1{part}" for part in parts[2:]))
        files = (file.relative_to(root).as_posix() for file in root.glob(path.replace(SPLIT, "*")))
        found = sorted({match[1] for file in files if (match := name.fullmatch(file))})
        if found:
            yield from found
            return
