"""A data set's manifest: one YAML file under ``data_manifests/``, checked when it is read."""

import difflib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kg_targets.errors import ConfigError, DataError, ManifestError
from kg_targets.manifest.columns import CASE_PATTERN
from kg_targets.manifest.images import ImageFolder
from kg_targets.manifest.places import (
    Kind,
    SplitSpec,
    alternatives,
    content_digest,
    first_file,
    present_files,
    present_folder,
    split_names,
)
from kg_targets.manifest.question import LANGUAGES, Question, checked_questions
from kg_targets.manifest.ranges import RangeReader, range_reader
from kg_targets.manifest.readers import READERS, ReadRequest, tables
from kg_targets.manifest.record import ReadReport, Record, checked_records, safe_relative_path

MANIFEST_FOLDER = Path(__file__).resolve().parents[2] / "data_manifests"
_QUESTIONS_ONLY = {"expected_questions": True, "files": {"questions"}}
_NOT_OF_CAPTIONS: Any = {
    **dict.fromkeys(("holds", "language", "id_pattern"), True),
    "splits": {"__all__": _QUESTIONS_ONLY},
    "any_split": _QUESTIONS_ONLY,
}
"""The part of a manifest about questions, which does not decide whether a store is up to date."""


class Manifest(BaseModel):
    """A data set of captions, of questions, or of both: layout, splits, licence, citation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    format: str
    licence: str
    """Licence of the whole set; rows may state their own."""
    citation: str = ""
    how_to_get: str
    """One or two sentences for a person who does not have the files yet."""
    data_root: str = ""
    """Default data root; empty for ``data/<name>``."""
    fit_split: str = ""
    """Split on whose captions information content and idf are fitted; the others reuse them. Required for captions."""
    options: dict[str, str] = Field(default_factory=dict)
    """For the layout's reader."""
    label_concepts: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    """Label name to value to the CUIs that mean this value; only for evaluation."""
    splits: dict[str, SplitSpec] = Field(min_length=1)
    any_split: SplitSpec | None = None
    """Paths of a split that is not listed, with ``{split}`` in its paths; other folders are found by it."""
    holds: tuple[Kind, ...] = Field(default=("captions",), min_length=1)
    """Contents of its files: captions, questions, or both."""
    language: str = "en"
    """Language of the questions, ``en`` or ``zh``."""
    id_pattern: str = ""
    """Regular expression for the part of an image id by which other data sets name the same image; empty for none."""

    @model_validator(mode="before")
    @classmethod
    def _reader_means_questions(cls, content: Any) -> Any:
        """Manifests of questions written before both kinds were one: ``reader``, ``expected_rows`` of questions."""
        if not isinstance(content, dict) or "reader" not in content or "format" in content:
            return content
        content = {"holds": ["questions"], **content, "format": content["reader"]}
        del content["reader"]
        splits = content.get("splits")
        if isinstance(splits, dict):
            names = {"expected_rows": "expected_questions"}
            content["splits"] = {
                split: {names.get(key, key): value for key, value in spec.items()}
                if isinstance(spec, dict)
                else spec
                for split, spec in splits.items()
            }
        return content

    @classmethod
    def load(cls, name_or_path: str | Path, kind: Kind | None = "captions") -> "Manifest":
        """Read a manifest by the data set's name (``"demo"``) or from a YAML file's path.

        Args:
            name_or_path: a path ends in .yaml or .yml.
            kind: what is wanted of the data set; ``None`` for any.

        Raises:
            ManifestError: no such manifest, not YAML, or a key is wrong; the message names file and key.
        """
        path = _find(str(name_or_path), kind)
        manifest = cls._read(path)
        if kind is not None and kind not in manifest.holds:
            raise ManifestError(
                f"{path}: holds: the data set has no {kind}, only {', '.join(manifest.holds)}"
            )
        return manifest

    @classmethod
    def _read(cls, path: Path) -> "Manifest":
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            manifest = cls.model_validate(content)
        except OSError as error:
            raise ManifestError(f"{path} cannot be read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "(top level)"
            raise ManifestError(f"{path}: {key}: {first['msg']}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # numbers, dates, too deeply nested
            raise ManifestError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        manifest._check(str(path))
        return manifest

    def _check(self, where: str) -> None:
        if self.format not in READERS:
            raise ManifestError(f"{where}: format: {unknown_name('layout', self.format, list(READERS))}")
        for kind in self.holds:
            if getattr(READERS[self.format], kind) is None:
                raise ManifestError(f"{where}: holds: layout {self.format} has no {kind}")
        if "captions" in self.holds and self.fit_split not in self.splits:
            raise ManifestError(
                f"{where}: fit_split: {unknown_name('split', self.fit_split, list(self.splits))}"
            )
        if self.language not in LANGUAGES:
            raise ManifestError(
                f"{where}: language: {unknown_name('language', self.language, list(LANGUAGES))}"
            )
        _check_pattern(self.id_pattern, f"{where}: id_pattern")
        named = {f"splits.{name}": spec for name, spec in self.splits.items()}
        if self.any_split is not None:
            named["any_split"] = self.any_split
        for key, spec in named.items():
            if "captions" in self.holds and "captions" not in spec.files:
                raise ManifestError(f"{where}: {key}.files: captions is missing")
            if "questions" in self.holds and not spec.files_of("questions"):
                raise ManifestError(f"{where}: {key}.files: questions is missing")
            for role, paths in [*spec.files.items(), ("images", spec.images)]:
                for path in alternatives(paths):
                    safe_relative_path(path, f"{where}: {key}: {role}")
        self._check_options(where)

    def _check_options(self, where: str) -> None:
        known = sorted(READERS[self.format].options)
        for name in self.options:
            if name not in known:
                told = unknown_name("option", name, known) if known else "it has none: remove the key"
                raise ManifestError(f"{where}: options of layout {self.format}: {told}")
        _check_pattern(self.options.get(CASE_PATTERN, ""), f"{where}: options: {CASE_PATTERN}")

    @property
    def default_root(self) -> Path:
        """Data root of a command that is given none."""
        return Path(self.data_root) if self.data_root else Path("data") / self.name

    def present_splits(self, data_root: str | Path) -> list[str]:
        """Splits that are under ``data_root``: the listed ones in their order, then others by name.

        A split is there if its captions are; of a data set of questions only, if all its files are.
        """
        root = Path(data_root)
        if "captions" not in self.holds:
            return [
                name
                for name, spec in self.splits.items()
                if all(present_files(root, paths) for paths in spec.files.values())
            ]
        listed = [name for name, spec in self.splits.items() if present_files(root, spec.files["captions"])]
        if self.any_split is None:
            return listed
        others = split_names(root, self.any_split.files["captions"])
        return listed + [name for name in others if name not in self.splits]

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
        path = first_file(Path(data_root), self.split_spec(split, data_root).files["captions"])
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
        reader = READERS[self.format].captions
        if reader is None:
            raise ManifestError(f"{self.name}: layout {self.format} has no captions")
        request = self._request("captions", split, spec, data_root, report)

        def read(counted: ReadReport) -> Iterator[tuple[str, Record]]:
            return reader(replace(request, report=counted))

        return checked_records(read, licences, report, excluded)

    def range_reader(self, split: str, data_root: str | Path) -> RangeReader | None:
        """A reader of ranges of a split's files, for many processes; None where they are read from the front only.

        Raises:
            ManifestError: no such split, or the file is not there.
        """
        self.split_file(split, data_root)
        if READERS[self.format].captions is not tables.read:
            return None
        spec = self.split_spec(split, data_root)
        return range_reader(self._request("captions", split, spec, data_root, ReadReport()))

    def questions(
        self, split: str, data_root: str | Path, report: ReadReport | None = None
    ) -> list[Question]:
        """A split's questions in the order of its files.

        Args:
            report: filled while reading: rows read, rows skipped by reason.

        Raises:
            ConfigError: no such split.
            DataError: a file is missing or malformed, or two questions have the same id.
            ManifestError: an image path leaves the data root.
        """
        report = ReadReport() if report is None else report
        request = self._request("questions", split, self._question_spec(split), data_root, report)
        for path in request.files.values():
            if not path.is_file():
                raise DataError(
                    f"{path} does not exist. {self.how_to_get} Give --data-root if it is elsewhere."
                )
        reader = READERS[self.format].questions
        if reader is None:
            raise ManifestError(f"{self.name}: layout {self.format} has no questions")
        return list(checked_questions(reader(request), report))

    def questions_are_published(self, split: str, data_root: str | Path) -> bool | None:
        """Whether a split's questions are those the manifest describes; ``None`` where it has no digest of this file.

        Raises:
            ConfigError: no such split.
            DataError: a file cannot be read.
        """
        return self._question_spec(split).is_published("questions", Path(data_root))

    def prepared(self, split: str, data_root: str | Path) -> bytes:
        """Content of a split's question file in its usual form, from the form in which the data set is published.

        Raises:
            ConfigError: no such split, or the data set needs no preparation.
            DataError: the published file is missing or another, or other counts come out than must.
        """
        prepare, spec, root = READERS[self.format].prepare, self._question_spec(split), Path(data_root)
        if prepare is None:
            raise ConfigError(f"{self.name} needs no preparation: see kg-targets check {self.name}")
        published = spec.model_copy(
            update={"files": {"questions": alternatives(spec.files["questions"])[1:2]}}
        )
        request = self._request("questions", split, published, root, ReadReport())
        if not request.files["questions"].is_file():
            raise DataError(
                f"{request.files['questions']} does not exist. {self.how_to_get} Give --data-root if it is elsewhere."
            )
        return prepare(request)

    def _question_spec(self, split: str) -> SplitSpec:
        if split not in self.splits:
            raise ConfigError(f"{self.name}: {unknown_name('split', split, list(self.splits))}")
        return self.splits[split]

    def _request(
        self, kind: Kind, split: str, spec: SplitSpec, data_root: str | Path, report: ReadReport
    ) -> ReadRequest:
        root = Path(data_root)
        found = {role: present_files(root, paths) for role, paths in spec.files_of(kind).items()}
        return ReadRequest(
            split,
            {
                role: files[0] if files else first_file(root, spec.files[role])
                for role, files in found.items()
            },
            present_folder(root, spec.images),
            self.licence,
            self.options,
            self.language,
            report,
            ImageFolder(root),
            {role: tuple(files) for role, files in found.items() if len(files) > 1},
        )

    def split_digest(self, split: str, data_root: str | Path) -> str:
        """sha256 over the split's files: decides whether an existing store is still up to date.

        Raises:
            ManifestError: the split's captions are missing.
        """
        self.split_file(split, data_root)
        digest = hashlib.sha256(self.model_dump_json(exclude=_NOT_OF_CAPTIONS).encode())
        for role, paths in sorted(self.split_spec(split, data_root).files_of("captions").items()):
            found = present_files(Path(data_root), paths)
            digest.update(f"\n{role}:{','.join(map(content_digest, found)) or 'absent'}".encode())
        return digest.hexdigest()


def known_data_sets(kind: Kind | None = "captions") -> list[Manifest]:
    """Every manifest shipped under ``data_manifests/`` whose data set has ``kind`` (``None``: any), by name."""
    shipped = (Manifest._read(path) for path in sorted(MANIFEST_FOLDER.glob("*.yaml")))
    return [manifest for manifest in shipped if kind is None or kind in manifest.holds]


def unknown_name(what: str, given: str, known: list[str]) -> str:
    """One line for a name that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{what} {given!r} is not one of {', '.join(known)}{hint}"


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ManifestError(f"{where}: not a regular expression ({error})") from error


def _find(name_or_path: str, kind: Kind | None) -> Path:
    if name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    known = {path.stem: path for path in MANIFEST_FOLDER.glob("*.yaml")}
    if name_or_path in known and (kind is None or kind in Manifest._read(known[name_or_path]).holds):
        return known[name_or_path]
    names = [manifest.name for manifest in known_data_sets(kind)]
    raise ManifestError(f"{unknown_name('data set', name_or_path, names)}; a path must end in .yaml")
