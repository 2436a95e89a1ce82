"""What a model was fine-tuned on, kept beside its weights (``trained_on.json``), so that a copy of the folder tells it.

Questions and images are known again under any data set's name and in any cut, but not by their text: of each question
(image id and normalised wording) and of each image id the first 16 hexadecimal digits of a sha256 are kept.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.errors import CheckpointError
from training.leakage.between import asked
from training.med_vqa.finetune.config import FinetuneConfig, VQADataConfig
from training.med_vqa.model.handover import RECORD as PRETRAINING
from training.med_vqa.model.handover import read_record
from training.med_vqa.model.pretrained_on import FIELD, UNRECORDED, History, from_json
from training.med_vqa.model.saving import model_folder, plain_fields, read_json, write_json
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
    pretrainings: History
    """That the model went through before it."""
    digests: Digests | None
    """Of its training questions, and of those of the fine-tunings before it; None: not recorded."""

    @classmethod
    def of(cls, config: FinetuneConfig, split: Split) -> "TrainedOn":
        """Of a run on the train part of a split.

        Raises:
            CheckpointError: a record of the model that it starts from is damaged.
        """
        past = Past.of(config.model.start)
        digests = past.and_then(Digests.of(split.train))
        return replace(
            cls.of_config(asdict(config), split.dataset, split.protocol, digests),
            pretrainings=past.pretrainings,
        )

    @classmethod
    def of_config(
        cls, config: Mapping[str, Any], dataset: str, protocol: str, digests: Digests | None = None
    ) -> "TrainedOn":
        """Of a run's configuration, as its config.yaml holds it; of what its start went through, that tells nothing.

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
        return cls(
            **plain_fields(cls, content, "the run's configuration"),
            pretrainings=() if model.get("start") is None else UNRECORDED,
            digests=digests,
        )


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
    return TrainedOn(
        **plain_fields(TrainedOn, content, where),
        pretrainings=from_json(content.get(FIELD), where),
        digests=digests,
    )


def _listed(given: Any, name: str, where: str) -> frozenset[str]:
    values = given.get(name) if isinstance(given, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CheckpointError(f'{where}: "digests" does not list {name}')
    return frozenset(values)


@dataclass(frozen=True)
class Past:
    """What the model that a training starts from has been through."""

    pretrainings: History = ()
    fine_tuned: bool = False
    fine_tuning: TrainedOn | None = None
    """The last one, with the questions of those before it; None: there was none, or it is not recorded."""

    @classmethod
    def of(cls, start: str | None) -> "Past":
        """Of ``model.start``, a finished run or a model folder; without a start there is no past.

        A pre-training records whether a fine-tuning came before it, and keeps its record; any other model was
        fine-tuned.

        Raises:
            CheckpointError: the start is neither, or a record of it is damaged.
        """
        if start is None:
            return cls()
        folder = model_folder(Path(start))
        fine_tuning = load_trained_on(folder)
        if (folder / PRETRAINING).is_file():
            record = read_record(folder)
            pretrainings = from_json(record.get(FIELD), f"{folder / PRETRAINING} is damaged")
            fine_tuned = fine_tuning is not None or record.get("fine_tuned", False) is not False
            return cls(pretrainings, fine_tuned, fine_tuning)
        return cls(UNRECORDED if fine_tuning is None else fine_tuning.pretrainings, True, fine_tuning)

    def and_then(self, digests: Digests) -> Digests | None:
        """Those of a fine-tuning and of all before it; None: of one before it they are not known."""
        if not self.fine_tuned:
            return digests
        before = None if self.fine_tuning is None else self.fine_tuning.digests
        return None if before is None else digests | before


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGITS]
