"""The files of a data set below its data root: alternatives, several files by ``*``, and compressed ones.

A manifest names each file by a path, or by a list of paths of which the first that is there is taken: data sets are
published in more than one form. ``train-*.parquet`` stands for all files of such names, and ``x.csv`` for ``x.csv.gz``.
A data root may be one such file itself.
"""

import hashlib
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kg_targets.errors import DataError
from kg_targets.store.digest import container_sha256, file_sha256


def _at_least_one(paths: object) -> object:
    if paths in ([], ()):
        raise ValueError("an empty list: name a path")
    return paths


Paths = Annotated[str | tuple[str, ...], BeforeValidator(_at_least_one)]
"""A path relative to the data root, or alternatives."""
SPLIT = "{split}"
"""Placeholder of a split's name in paths of ``any_split``."""
Kind = Literal["captions", "questions"]
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


class SplitSpec(BaseModel):
    """Paths of one split's files, relative to the data root."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    files: dict[str, Paths] = Field(min_length=1)
    """Role to path, or to several of which the first that is there is taken (see ``places``). Captions need
    ``captions``, what else there may be depends on the layout; every other role than ``captions`` holds questions
    where the data set has them."""
    images: Paths = ""
    """Folder of the images, or several of which the first that is there is taken, for rows that name only an id."""
    expected_rows: int | None = Field(default=None, ge=1)
    """Captions in the published files."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of the captions file, or of the files of questions, one after the other in the order listed."""
    expected_questions: int | None = Field(default=None, ge=1)
    """Questions in the published files."""

    def files_of(self, kind: Kind) -> dict[str, Paths]:
        """Role to path of the files that captions, or questions, are read from."""
        other = "questions" if kind == "captions" else "captions"
        return {role: path for role, path in self.files.items() if role != other}

    def named(self, split: str) -> "SplitSpec":
        """The same spec with ``{split}`` filled in."""

        def filled(paths: Paths) -> Paths:
            named = tuple(path.replace(SPLIT, split) for path in alternatives(paths))
            return named[0] if isinstance(paths, str) else named

        files = {role: filled(paths) for role, paths in self.files.items()}
        return self.model_copy(update={"files": files, "images": filled(self.images)})

    def is_published(self, kind: Kind, root: Path) -> bool | None:
        """Whether the files are those the manifest describes; ``None`` where it has no digest of the ones there are.

        Raises:
            DataError: a file cannot be read.
        """
        if self.sha256 is None:
            return None
        files = self.files_of(kind)
        named = [files["captions"]] if kind == "captions" else list(files.values())
        digest = hashlib.sha256()
        for paths in named:
            file = first_file(root, paths)
            if file != root / alternatives(paths)[0]:
                return None
            try:
                digest.update(file.read_bytes())
            except OSError as error:
                raise DataError(f"{file} cannot be read ({error.strerror}): check the data root") from error
        return digest.hexdigest() == self.sha256
