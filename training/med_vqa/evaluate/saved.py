"""A saved Med-VQA model with what tells it from others, and what is known of the run that trained it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from training.engine.checkpoint import CHECKPOINT, CONFIG, FINISHED
from training.errors import CheckpointError
from training.med_vqa.build import Answers, MedVQA, load_answers, load_med_vqa
from training.med_vqa.config import VQADataConfig


@dataclass(frozen=True)
class Saved:
    """A model folder, loaded."""

    folder: Path
    """Where its files are."""
    med_vqa: MedVQA
    answers: Answers
    record: dict[str, Any]
    """The configuration of the finished run that the folder belongs to; empty for a folder by itself."""

    @classmethod
    def of(cls, folder: Path) -> "Saved":
        """Load a run's checkpoint, or a model folder.

        Raises:
            CheckpointError: it is neither, is damaged, or the run is not finished.
        """
        model = model_folder(folder)
        return cls(model, load_med_vqa(model), load_answers(model), _record(model.absolute().parent))

    @cached_property
    def digest(self) -> str:
        """sha256 over the folder's files."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            if path.is_file():
                digest.update(f"{path.name}\n".encode())
                with path.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """What predictions of its kind are called: the preset, the same for every seed and for a blank training."""
        return str(self.record.get("model", {}).get("preset", "model"))

    @property
    def seed(self) -> int | None:
        """Of the training, where it is known."""
        return self.record.get("seed")

    @property
    def trained_on(self) -> str:
        """``real`` or ``blank`` images, ``unknown`` without a run."""
        return str(self.record.get("data", {}).get("images", "unknown"))

    @property
    def precision(self) -> str:
        """Of the training; fp32 where it is not known."""
        return str(self.record.get("model", {}).get("precision", "fp32"))

    @property
    def max_question_tokens(self) -> int:
        """Word pieces of a question that the training read, at most; its default where it is not known."""
        return int(self.record.get("data", {}).get("max_question_tokens", VQADataConfig.max_question_tokens))


def model_folder(folder: Path) -> Path:
    """``folder`` itself, or the checkpoint of the run in it.

    Raises:
        CheckpointError: there is no such folder, or the run in it has not finished.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder: name a run of training/run.py or its checkpoint")
    if not (folder / CONFIG).is_file():
        return folder
    if not (folder / FINISHED).is_file():
        raise CheckpointError(
            f"{folder} is an unfinished run (no {FINISHED}): run its training again, it goes on where it was"
        )
    return folder / CHECKPOINT


def _record(run: Path) -> dict[str, Any]:
    if not (run / FINISHED).is_file():
        return {}
    try:
        return dict(yaml.safe_load((run / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{run / CONFIG} is missing or damaged: train the run again") from error
