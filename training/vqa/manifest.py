"""A Med-VQA data set's manifest: one YAML file under ``data_manifests/vqa/``, checked when it is read."""

import hashlib
import re
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kg_targets.manifest import ReadReport
from kg_targets.manifest.model import unknown_name
from kg_targets.manifest.record import safe_relative_path, unusable_text
from training.errors import ConfigError, DataError
from training.vqa.items import Question
from training.vqa.normalise import LANGUAGES
from training.vqa.readers import READERS, ReadRequest

MANIFEST_FOLDER = Path(__file__).resolve().parents[2] / "data_manifests" / "vqa"
TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
ALL = "all"
"""The only split of a data set without official ones."""


class VQASplit(BaseModel):
    """Where one official split's files are, relative to the data root."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    files: dict[str, str] = Field(min_length=1)
    """Role to path; which roles there are depends on the reader."""
    images: str = ""
    """Folder of the images; empty where the data set comes without."""
    expected_rows: int | None = Field(default=None, ge=1)
    """Questions in the published files."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the files, one after the other in the order listed."""


class VQAManifest(BaseModel):
    """A Med-VQA data set: reader, language, official splits, licence, citation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    reader: str
    language: str = "en"
    licence: str
    citation: str = ""
    how_to_get: str
    """One or two sentences for a person who does not have the files yet."""
    data_root: str = ""
    """Where the files are looked for when no data root is given; empty for ``data/<name>``."""
    id_pattern: str = ""
    """Regular expression for the part of an image id by which other data sets name the same image; empty for none."""
    splits: dict[str, VQASplit] = Field(min_length=1)
    """``train``, ``validation`` and ``test``, or the single ``all`` of a set without official splits."""

    @property
    def default_root(self) -> Path:
        """Where the files are looked for when no data root is given."""
        return Path(self.data_root) if self.data_root else Path("data") / self.name

    def paths(self, split: str, data_root: str | Path) -> dict[str, Path]:
        """Role to path of a split's files, whether they are there or not.

        Raises:
            ConfigError: no such split.
        """
        if split not in self.splits:
            raise ConfigError(f"{self.name}: {unknown_name('split', split, list(self.splits))}")
        return {role: Path(data_root) / path for role, path in self.splits[split].files.items()}

    def present_splits(self, data_root: str | Path) -> list[str]:
        """Splits whose files are all under ``data_root``."""
        return [
            split
            for split in self.splits
            if all(path.is_file() for path in self.paths(split, data_root).values())
        ]

    def read(self, split: str, data_root: str | Path, report: ReadReport | None = None) -> list[Question]:
        """A split's questions in the order of its files.

        Args:
            report: filled while reading: rows read, rows skipped by reason.

        Raises:
            ConfigError: no such split.
            DataError: a file is missing or malformed, or two questions have the same id.
            ManifestError: an image path leaves the data root.
        """
        report = ReadReport() if report is None else report
        files = self.paths(split, data_root)
        for path in files.values():
            if not path.is_file():
                raise DataError(
                    f"{path} does not exist. {self.how_to_get} Give --data-root if it is elsewhere."
                )
        request = ReadRequest(split, files, self.splits[split].images, self.language, report)
        questions, places = [], dict[str, str]()
        for where, question in READERS[self.reader](request):
            problem = _problem(question)
            if problem:
                report.skip(problem, where)
                continue
            safe_relative_path(question.image_path, where)
            if question.id in places:
                raise DataError(
                    f"{where}: question id {question.id!r} was already given at {places[question.id]}: "
                    "ids must be unique, rename or remove one of them"
                )
            places[question.id] = where
            questions.append(question)
        report.read += len(questions)
        return questions

    def is_published(self, split: str, data_root: str | Path) -> bool | None:
        """Whether a split's files are those the manifest describes; ``None`` where it has no digest.

        Raises:
            ConfigError: no such split.
            DataError: a file cannot be read.
        """
        expected = self.splits[split].sha256 if split in self.splits else None
        digest = hashlib.sha256()
        for path in self.paths(split, data_root).values():
            try:
                digest.update(path.read_bytes())
            except OSError as error:
                raise DataError(f"{path} cannot be read ({error.strerror}): check the data root") from error
        return None if expected is None else digest.hexdigest() == expected


def find_vqa_manifest(name_or_path: str | Path) -> VQAManifest:
    """Read a manifest by the data set's name (``"vqa_rad"``) or from a YAML file's path.

    Raises:
        ConfigError: no such manifest, not YAML, or a key is wrong; the message names file and key.
    """
    given = str(name_or_path)
    path = Path(given) if given.endswith((".yaml", ".yml")) else MANIFEST_FOLDER / f"{given}.yaml"
    if not given.endswith((".yaml", ".yml")) and ("/" in given or not path.is_file()):
        known = sorted(file.stem for file in MANIFEST_FOLDER.glob("*.yaml"))
        raise ConfigError(f"{unknown_name('data set', given, known)}; a path must end in .yaml")
    try:
        manifest = VQAManifest.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        raise ConfigError(f"{path}: {key}: {first['msg']}") from error
    _check(manifest, str(path))
    return manifest


def known_vqa_data_sets() -> list[VQAManifest]:
    """Every manifest shipped under ``data_manifests/vqa/``, by name."""
    return [find_vqa_manifest(path) for path in sorted(MANIFEST_FOLDER.glob("*.yaml"))]


def _check(manifest: VQAManifest, where: str) -> None:
    if manifest.reader not in READERS:
        raise ConfigError(f"{where}: reader: {unknown_name('layout', manifest.reader, list(READERS))}")
    if manifest.language not in LANGUAGES:
        raise ConfigError(
            f"{where}: language: {unknown_name('language', manifest.language, list(LANGUAGES))}"
        )
    try:
        re.compile(manifest.id_pattern)
    except re.error as error:
        raise ConfigError(f"{where}: id_pattern: not a regular expression ({error})") from error
    for name, split in manifest.splits.items():
        for role, path in split.files.items():
            safe_relative_path(path, f"{where}: splits.{name}.files.{role}")
        safe_relative_path(split.images, f"{where}: splits.{name}.images")


def _problem(question: Question) -> str | None:
    """Why a row cannot be kept."""
    if not question.image_id:
        return "names no image"
    if not question.id:
        return "has no question id"
    fields = {"image": question.image_id, "question": question.question, "answer": question.answer}
    return next((f"{name} {why}" for name, value in fields.items() if (why := unusable_text(value))), None)
