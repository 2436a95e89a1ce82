"""A data set's manifest: one YAML file under ``data_manifests/``, checked when it is read."""

import difflib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kg_targets.errors import ManifestError
from kg_targets.manifest.csv_reader import read_csv
from kg_targets.manifest.record import ReadReport, Record, safe_relative_path, unique_records

MANIFEST_FOLDER = Path(__file__).resolve().parents[2] / "data_manifests"

Reader = Callable[[Path, str, ReadReport], Iterator[tuple[str, Record]]]
READERS: dict[str, Reader] = {"csv": read_csv}
"""Layout name to reader: (split's file, the set's licence, report) → (place, record) pairs."""


class SplitSpec(BaseModel):
    """Where one split's captions are."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str = Field(min_length=1)
    """Relative to the data root."""
    expected_rows: int | None = Field(default=None, ge=1)


class Manifest(BaseModel):
    """A data set as `kg-targets` sees it: layout, splits, licence, citation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    format: Literal["csv"]
    licence: str
    citation: str = ""
    how_to_get: str
    """One or two sentences for a person who does not have the files yet."""
    fit_split: str
    """Split on whose captions information content and idf are fitted; every other split reuses them."""
    splits: dict[str, SplitSpec] = Field(min_length=1)

    @classmethod
    def load(cls, name_or_path: str | Path) -> "Manifest":
        """Read a manifest by the data set's name (``"demo"``) or from a YAML file's path.

        Raises:
            ManifestError: no such manifest, not YAML, or a key is wrong; the message names file and key.
        """
        path = _find(str(name_or_path))
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            manifest = cls.model_validate(content)
        except OSError as error:
            raise ManifestError(f"{path} cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ManifestError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "(top level)"
            raise ManifestError(f"{path}: {key}: {first['msg']}") from error
        if manifest.fit_split not in manifest.splits:
            raise ManifestError(f"{path}: fit_split: {manifest.fit_split!r} is not one of {', '.join(manifest.splits)}")
        for split, spec in manifest.splits.items():
            safe_relative_path(spec.file, f"{path}: splits.{split}.file")
        return manifest

    def split_file(self, split: str, data_root: Path) -> Path:
        """Path of the file that holds a split's captions.

        Raises:
            ManifestError: no such split, or the file is not there.
        """
        if split not in self.splits:
            raise ManifestError(f"{self.name}: {unknown_name('split', split, list(self.splits))}")
        path = data_root / self.splits[split].file
        if not path.is_file():
            raise ManifestError(f"{path} does not exist. {self.how_to_get} Set DATA_ROOT if it is elsewhere.")
        return path

    def records(self, split: str, data_root: str | Path, report: ReadReport | None = None) -> Iterator[Record]:
        """Stream a split's records in the order of its file.

        Args:
            report: filled while reading: rows read, rows skipped by reason.

        Raises:
            ManifestError: the split or its file is missing or malformed.
            DataError: two rows share an image id, or no row is usable.
        """
        report = ReadReport() if report is None else report
        path = self.split_file(split, Path(data_root))
        return unique_records(READERS[self.format](path, self.licence, report), report)

    def split_digest(self, split: str, data_root: str | Path) -> str:
        """sha256 of the split's caption file: decides whether an existing store is still up to date."""
        with self.split_file(split, Path(data_root)).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def known_data_sets() -> list[Manifest]:
    """Every manifest shipped under ``data_manifests/``, by name."""
    return [Manifest.load(path) for path in sorted(MANIFEST_FOLDER.glob("*.yaml"))]


def unknown_name(what: str, given: str, known: list[str]) -> str:
    """One line for a name that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{what} {given!r} is not one of {', '.join(known)}{hint}"


def _find(name_or_path: str) -> Path:
    if name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    path = MANIFEST_FOLDER / f"{name_or_path}.yaml"
    if "/" in name_or_path or not path.is_file():
        known = sorted(path.stem for path in MANIFEST_FOLDER.glob("*.yaml"))
        raise ManifestError(f"{unknown_name('data set', name_or_path, known)}; a path must end in .yaml")
    return path
