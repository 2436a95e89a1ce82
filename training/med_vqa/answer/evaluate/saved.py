"""A saved Med-VQA model with what tells it from others, and what is known of the run that trained it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from training.engine.checkpoint import CONFIG, FINISHED
from training.errors import CheckpointError
from training.med_vqa.model.history import UNRECORDED, History, TrainedOn, load_trained_on
from training.med_vqa.model.saving import (
    Answers,
    MedVQA,
    folder_digest,
    load_answers,
    load_med_vqa,
    model_folder,
)


@dataclass(frozen=True)
class Saved:
    """A model folder, loaded."""

    folder: Path
    """Where its files are."""
    med_vqa: MedVQA
    answers: Answers
    training: TrainedOn | None
    """What it was trained on, by its own record or else by the run that the folder belongs to; None: not known."""

    @classmethod
    def of(cls, folder: Path) -> "Saved":
        """Load a run's checkpoint, or a model folder.

        Raises:
            CheckpointError: it is neither, is damaged, or the run is not finished.
        """
        model = model_folder(folder)
        answers = load_answers(model)
        training = load_trained_on(model) or _of_run(model.absolute().parent, answers)
        return cls(model, load_med_vqa(model), answers, training)

    @cached_property
    def digest(self) -> str:
        """sha256 over the folder's files."""
        return folder_digest(self.folder)

    @property
    def name(self) -> str:
        """What predictions of its kind are called: the preset, the same for every seed and for a blank training."""
        return "model" if self.training is None else self.training.preset

    @property
    def seed(self) -> int | None:
        """Of the training, where it is known."""
        return None if self.training is None else self.training.seed

    @property
    def trained_on(self) -> str:
        """``real`` or ``blank`` images; ``unknown`` where it is not recorded."""
        return "unknown" if self.training is None else self.training.images

    @property
    def pretrainings(self) -> History:
        """That the model went through."""
        return UNRECORDED if self.training is None else self.training.pretrainings

    @property
    def precision(self) -> str:
        """Of the training; fp32 where it is not known."""
        return "fp32" if self.training is None else self.training.precision

    @property
    def max_question_tokens(self) -> int:
        """Word pieces of a question that the training read, at most; its default where it is not known."""
        if self.training is None:
            return TrainedOn.max_question_tokens
        return self.training.max_question_tokens


def _of_run(run: Path, answers: Answers) -> TrainedOn | None:
    """What a finished run's configuration tells of a model without a record; its questions, nothing tells."""
    if not (run / FINISHED).is_file():
        return None
    try:
        config = dict(yaml.safe_load((run / CONFIG).read_text(encoding="utf-8")))
        return TrainedOn.of_config(config, answers.dataset, answers.protocol)
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{run / CONFIG} is missing or damaged: train the run again") from error
