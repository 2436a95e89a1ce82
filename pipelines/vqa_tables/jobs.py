"""The jobs of a Med-VQA grid: stores, trainings, floors and scores, and what each of them is known by."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kg_targets.manifest import Manifest
from pipelines.tables.job import KeyedJob, TrainingJob
from pipelines.vqa_tables.grid import Part, Row
from pipelines.vqa_tables.read_grid import FINETUNE_TASK, PRETRAIN_TASK, training_config
from training.data.files import image_digest
from training.engine.checkpoint import FINISHED, run_key
from training.engine.config import RunConfig
from training.engine.session import Prepared
from training.med_vqa.answer.evaluation import FORMAT
from training.vqa import predictions
from training.vqa.floors import FLOORS
from training.vqa.protocols import Split, prepare

if TYPE_CHECKING:
    from pipelines.vqa_tables.plan import Plan

PREDICTIONS = "predictions.csv"


@dataclass(frozen=True)
class StoreJob(KeyedJob):
    """What a command of the grid makes."""

    place: Path = field(kw_only=True)
    """What it writes."""
    checks_itself: bool = field(kw_only=True)
    """Whether the command finds out by itself what is up to date."""

    @property
    def made(self) -> Path:
        """What it writes."""
        return self.place

    def key(self) -> str:
        """Of the command; the contents that it reads are not looked at."""
        return _sha256(self.command)

    def is_current(self) -> bool:
        """Whether it is there, by this very command."""
        return not self.checks_itself and super().is_current()


@dataclass(frozen=True)
class VQARun(TrainingJob):
    """A pre-training stage or a fine-tuning."""

    plan: "Plan" = field(kw_only=True)
    row: Row = field(kw_only=True)
    seed: int = field(kw_only=True)
    task: str = field(kw_only=True)
    base: Path = field(kw_only=True)
    settings: Mapping[str, Any] = field(kw_only=True)
    """Every field that the command gives, dotted name to value."""

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.settings["output"])

    def config(self) -> RunConfig:
        """What ``training/run.py`` makes of the command."""
        return training_config(self.base, self.task, self.settings)

    def key(self) -> str:
        """By which training knows this very run.

        Raises:
            KGTargetsError: data or a start are damaged, or not there.
        """
        config = self.config()
        return run_key(config, list(_fingerprints(_Asked.of(config))), self.plan.threads)


@dataclass(frozen=True)
class FinetuneJob(VQARun):
    """A fine-tuning on one part."""

    part: Part = field(kw_only=True)
    blank: bool = field(kw_only=True)
    """Whether it is the question-only twin."""


@dataclass(frozen=True)
class ScoreJob(KeyedJob):
    """Predictions of one fine-tuned model for the test questions of its part."""

    plan: "Plan" = field(kw_only=True)
    run: FinetuneJob = field(kw_only=True)
    shuffled: bool = field(kw_only=True)

    @property
    def made(self) -> Path:
        """The predictions' facts, which are written last."""
        return (self.plan.out / "scores" / self.name / PREDICTIONS).with_suffix(".json")

    def key(self) -> str:
        """Of the run, the test questions and their images, the options and the threads."""
        run = (self.run.folder / FINISHED).read_bytes().decode(errors="replace")
        options = [*self.plan.grid.evaluation, self.run.row.name, self.shuffled]
        return _sha256([FORMAT, run, *self.plan.test_digest(self.run.part), options, self.plan.threads])

    def is_current(self) -> bool:
        """Whether it was made from this run, which is current itself, and from the same questions in the same way."""
        return self.run.is_current() and super().is_current()


@dataclass(frozen=True)
class FloorsJob(KeyedJob):
    """The floors of one part."""

    plan: "Plan" = field(kw_only=True)
    part: Part = field(kw_only=True)

    @property
    def files(self) -> tuple[Path, ...]:
        """Predictions of each floor."""
        folder = self.plan.out / "scores" / self.name
        return tuple(folder / f"{self.part.protocol}-{floor}.csv" for floor in FLOORS)

    @property
    def made(self) -> Path:
        """The facts of the last one."""
        return self.files[-1].with_suffix(".json")

    def key(self) -> str:
        """Of the questions."""
        return _sha256([predictions.FORMAT, asdict(self.part), *self.plan.questions_digest(self.part)])


@cache
def split_of(dataset: str, data_root: Path, part: Part, validation_share: float) -> Split:
    """The data set under the protocol and cut of a part.

    Raises:
        KGTargetsError: files are missing or malformed.
    """
    return prepare(
        Manifest.load(dataset, "questions"),
        data_root,
        part.protocol,
        seed=part.cut,
        validation_share=validation_share,
    )


@cache
def test_digest(dataset: str, data_root: Path, part: Part, validation_share: float) -> tuple[str, str]:
    """Of the test questions and candidates of a part, and of their images."""
    split = split_of(dataset, data_root, part, validation_share)
    paths = sorted({question.image_path for question in split.test if question.image_path})
    content = [[asdict(question) for question in split.test], split.candidates]
    return _sha256(content), image_digest(data_root, paths)


@cache
def questions_digest(dataset: str, data_root: Path, part: Part, validation_share: float) -> tuple[str, ...]:
    """Of all questions of a part."""
    split = split_of(dataset, data_root, part, validation_share)
    parts = (split.train, split.validation, split.test)
    return (_sha256([[asdict(question) for question in one] for one in parts]),)


@dataclass(frozen=True)
class _Asked:
    """A configuration, the same one where what tells two apart plays no part in the data and starts."""

    text: str
    config: RunConfig = field(compare=False)

    @classmethod
    def of(cls, config: RunConfig) -> "_Asked":
        alike = replace(config, output="run", seed=0, optim=type(config.optim)())
        return cls(json.dumps(asdict(alike), sort_keys=True, default=str), config)


@cache
def _fingerprints(asked: _Asked) -> tuple[str, ...]:
    return tuple(_prepared(asked.config.task)(asked.config).fingerprints)


def forget() -> None:
    """Look at stores and runs again: a stage has made some."""
    _fingerprints.cache_clear()


def _prepared(task: str) -> Callable[[Any], Prepared]:
    """What finds the data and starts of a task."""
    from training.med_vqa.finetune import run as finetune
    from training.med_vqa.pretrain import run as pretraining

    found: dict[str, Callable[[Any], Prepared]] = {
        FINETUNE_TASK: finetune.prepare_run,
        PRETRAIN_TASK: pretraining.prepare_run,
    }
    return found[task]


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
