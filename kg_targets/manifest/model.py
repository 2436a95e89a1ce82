"""A data set's manifest: one YAML file under ``data_manifests/``, checked when it is read."""

import difflib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kg_targets.digest import file_sha256
from kg_targets.errors import ManifestError
from kg_targets.manifest.readers import READERS, ReadRequest
from kg_targets.manifest.record import ReadReport, Record, checked_records, safe_relative_path

MANIFEST_FOLDER = Path(__file__).resolve().parents[2] / "data_manifests"


class SplitSpec(BaseModel):
    """Where one split's files are, relative to the data root."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    files: dict[str, str] = Field(min_length=1)
    """Role to path; ``captions`` is required, what else there may be depends on the layout."""
    images: str = ""
    """Folder of the images, for layouts whose rows name only an id."""
    expected_rows: int | None = Field(default=None, ge=1)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the captions file."""

    def named(self, split: str) -> "SplitSpec":
        """The same spec with ``{split}`` filled in."""
        files = {role: path.replace("{split}", split) for role, path in self.files.items()}
        return self.model_copy(update={"files": files, "images": self.images.replace("{split}", split)})


class Manifest(BaseModel):
    """A data set as `kg-targets` sees it: layout, splits, licence, citation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    format: str
    licence: str
    """Of the whole set; rows may state their own."""
    citation: str = ""
    how_to_get: str
    """One or two sentences for a person who does not have the files yet."""
    data_root: str = ""
    """Where the files are looked for when no data root is given; empty for ``data/<name>``."""
    fit_split: str
    """Split on whose captions information content and idf are fitted; every other split reuses them."""
    options: dict[str, str] = Field(default_factory=dict)
    """For the layout's reader."""
    label_concepts: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    """Label name to value to the CUIs that mean this value; only for evaluation."""
    splits: dict[str, SplitSpec] = Field(min_length=1)
    any_split: SplitSpec | None = None
    """Where a split that is not listed would be, with ``{split}`` in its paths; other folders are found by it."""

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
        manifest._check(str(path))
        return manifest

    def _check(self, where: str) -> None:
        if self.format not in READERS:
            raise ManifestError(f"{where}: format: {unknown_name('layout', self.format, list(READERS))}")
        if self.fit_split not in self.splits:
            raise ManifestError(
                f"{where}: fit_split: {unknown_name('split', self.fit_split, list(self.splits))}"
            )
        named = {f"splits.{name}": spec for name, spec in self.splits.items()}
        if self.any_split is not None:
            named["any_split"] = self.any_split
        for key, spec in named.items():
            if "captions" not in spec.files:
                raise ManifestError(f"{where}: {key}.files: captions is missing")
            for role, path in spec.files.items():
                safe_relative_path(path, f"{where}: {key}.files.{role}")
            safe_relative_path(spec.images, f"{where}: {key}.images")

    @property
    def default_root(self) -> Path:
        """Where the files are looked for when no data root is given."""
        return Path(self.data_root) if self.data_root else Path("data") / self.name

    def present_splits(self, data_root: str | Path) -> list[str]:
        """Splits whose captions are under ``data_root``: the listed ones in their order, then others by name."""
        root = Path(data_root)
        listed = [name for name, spec in self.splits.items() if (root / spec.files["captions"]).is_file()]
        if self.any_split is None:
            return listed
        before, _, after = self.any_split.files["captions"].partition("{split}")
        found = (
            path.relative_to(root).as_posix() for path in root.glob(f"{before}*{after}") if path.is_file()
        )
        names = {path.removeprefix(before).removesuffix(after) for path in found}
        return listed + sorted(name for name in names if name not in self.splits and "/" not in name)

    def split_spec(self, split: str, data_root: str | Path) -> SplitSpec:
        """The spec of a listed split, or of another one that is present.

        Raises:
            ManifestError: no such split.
        """
        if split in self.splits:
            return self.splits[split]
        present = self.present_splits(data_root)
        if self.any_split is None or split not in present:
            names = list(dict.fromkeys([*self.splits, *present]))
            raise ManifestError(f"{self.name}: {unknown_name('split', split, names)}")
        return self.any_split.named(split)

    def split_file(self, split: str, data_root: str | Path) -> Path:
        """Path of the file that holds a split's captions.

        Raises:
            ManifestError: no such split, or the file is not there.
        """
        path = Path(data_root) / self.split_spec(split, data_root).files["captions"]
        if not path.is_file():
            raise ManifestError(f"{path} does not exist. {self.how_to_get} Set DATA_ROOT if it is elsewhere.")
        return path

    def records(
        self,
        split: str,
        data_root: str | Path,
        report: ReadReport | None = None,
        licences: frozenset[str] | None = None,
        excluded: frozenset[str] = frozenset(),
    ) -> Iterator[Record]:
        """Stream a split's records in the order of its file.

        Args:
            report: filled while reading: rows read, rows skipped by reason, cases left out.
            licences: keep only rows under these licences.
            excluded: leave out the rows of these cases (``group_id``).

        Raises:
            ManifestError: the split or its file is missing or malformed.
            DataError: two rows share an image id.
        """
        report = ReadReport() if report is None else report
        self.split_file(split, data_root)
        spec = self.split_spec(split, data_root)
        files = {role: Path(data_root) / path for role, path in spec.files.items()}
        request = ReadRequest(split, files, spec.images, self.licence, self.options, report)
        return checked_records(READERS[self.format](request), licences, report, excluded)

    def split_digest(self, split: str, data_root: str | Path) -> str:
        """sha256 over the split's files: decides whether an existing store is still up to date.

        Raises:
            ManifestError: the split's captions are missing.
        """
        self.split_file(split, data_root)
        digest = hashlib.sha256(self.model_dump_json().encode())
        for role, name in sorted(self.split_spec(split, data_root).files.items()):
            path = Path(data_root) / name
            digest.update(f"\n{role}:{file_sha256(path) if path.is_file() else 'absent'}".encode())
        return digest.hexdigest()


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
