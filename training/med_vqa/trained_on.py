"""What a model was fine-tuned on, kept beside its weights (``trained_on.json``), so that a copy of the folder tells it.

Questions and images are known again under any data set's name and in any cut, but not by their text: of each question
(image id and normalised wording) and of each image id the first 16 hexadecimal digits of a sha256 are kept.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from training.errors import CheckpointError
from training.med_vqa.config import FinetuneConfig, VQADataConfig
from training.med_vqa.handover import RECORD as PRETRAINING
from training.med_vqa.saving import model_folder, read_json, write_json
from training.vqa.between import asked
from training.vqa.items import Question
from training.vqa.protocols import Split

FILE = "trained_on.json"
DIGITS = 16


@dataclass(frozen=True)
class Digests:
    """Questions and images that can be known again."""

    questions: frozenset[str]
    images: frozenset[str]

    @classmethod
    def of(cls, questions: Iterable[Question]) -> "Digests":
        """Of questions and the images that they are about."""
        known = [asked(question) for question in questions]
        return cls(
            frozenset(_digest(image, wording) for image, wording in known),
            frozenset(_digest(image) for image, _ in known),
        )

    def __and__(self, other: "Digests") -> "Digests":
        return Digests(self.questions & other.questions, self.images & other.images)

    def __sub__(self, other: "Digests") -> "Digests":
        return Digests(self.questions - other.questions, self.images - other.images)

    def __or__(self, other: "Digests") -> "Digests":
        return Digests(self.questions | other.questions, self.images | other.images)


@dataclass(frozen=True)
class TrainedOn:
    """A fine-tuning."""

    dataset: str
    protocol: str
    split_seed: int
    validation_share: float
    images: str
    """``real``, or ``blank``."""
    seed: int
    """Of the training."""
    preset: str
    precision: str
    max_question_tokens: int
    digests: Digests | None
    """Of its training questions, and of those of the fine-tuning that it started from; None: not recorded."""

    @classmethod
    def of(cls, config: FinetuneConfig, split: Split) -> "TrainedOn":
        """Of a run on the train part of a split.

        Raises:
            CheckpointError: the record of the model that it starts from is damaged.
        """
        digests: Digests | None = Digests.of(split.train)
        if config.model.start is not None:
            digests = _with_those_of(model_folder(Path(config.model.start)), Digests.of(split.train))
        return cls.of_config(asdict(config), split.dataset, split.protocol, digests)

    @classmethod
    def of_config(
        cls, config: Mapping[str, Any], dataset: str, protocol: str, digests: Digests | None = None
    ) -> "TrainedOn":
        """Of a run's configuration, as its config.yaml holds it.

        Raises:
            CheckpointError: a value is of another type.
        """
        data, model = config.get("data") or {}, config.get("model") or {}
        usual = VQADataConfig
        content = {
            "dataset": dataset,
            "protocol": protocol,
            "split_seed": data.get("split_seed", usual.split_seed),
            "validation_share": data.get("validation_share", usual.validation_share),
            "images": data.get("images", usual.images),
            "seed": config.get("seed", 0),
            "preset": model.get("preset", "model"),
            "precision": model.get("precision", "fp32"),
            "max_question_tokens": data.get("max_question_tokens", usual.max_question_tokens),
        }
        return cls(**_checked(content, "the run's configuration"), digests=digests)


def save_trained_on(folder: Path, trained_on: TrainedOn) -> None:
    """Write the record into a model's folder.

    Raises:
        OSError: it cannot be written.
    """
    digests = trained_on.digests
    content = asdict(trained_on) | {
        "digests": digests and {"questions": sorted(digests.questions), "images": sorted(digests.images)}
    }
    write_json(folder / FILE, content)


def load_trained_on(folder: Path) -> TrainedOn | None:
    """The record in a model's folder; None where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    content = read_json(folder, FILE)
    where = f"{folder / FILE} is damaged"
    given = content.get("digests")
    digests = None
    if given is not None:
        questions, images = (_listed(given, name, where) for name in ("questions", "images"))
        digests = Digests(questions, images)
    return TrainedOn(**_checked(content, where), digests=digests)


def _listed(given: Any, name: str, where: str) -> frozenset[str]:
    values = given.get(name) if isinstance(given, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CheckpointError(f'{where}: "digests" does not list {name}')
    return frozenset(values)


def _with_those_of(start: Path, digests: Digests) -> Digests | None:
    """Those of a start, too; a pre-training asked no questions, and of an older fine-tuning they are not known."""
    before = load_trained_on(start)
    if before is None:
        return digests if (start / PRETRAINING).is_file() else None
    return None if before.digests is None else digests | before.digests


def _checked(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of ``TrainedOn`` but its digests."""
    names = {field.name: field.type for field in fields(TrainedOn) if field.name != "digests"}
    for name, kind in names.items():
        value = content.get(name)
        kinds: tuple[Any, ...] = (int, float) if kind is float else (kind,)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise CheckpointError(f'{where}: "{name}" is not {_KINDS[kind]}')
    return {name: content[name] for name in names}


_KINDS: dict[Any, str] = {str: "a string", int: "a whole number", float: "a number"}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGITS]
