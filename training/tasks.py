"""The registry of what ``training/run.py`` trains: a task's name to its configuration and what runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from training.checks import one_of
from training.config import TrainConfig
from training.engine.config import RunConfig
from training.med_vqa.finetune.config import FinetuneConfig
from training.med_vqa.pretrain.config import PretrainConfig
from training.options import last_given

Train = Callable[[Any, Callable[[str], Any]], int]
"""The task's configuration and how to tell a person something, to the exit code."""


@dataclass(frozen=True)
class TaskEntry:
    """One task."""

    config: type[RunConfig]
    load: Callable[[], Train]
    """Imports and returns its ``train``: torch and the models' libraries take seconds, too long for ``--help``."""


def _nb_clip() -> Train:
    from training.nb_clip.train import train

    return train


def _med_vqa_finetune() -> Train:
    from training.med_vqa.finetune.task import train

    return train


def _med_vqa_pretrain() -> Train:
    from training.med_vqa.pretrain.train import train

    return train


TASKS = {
    "nb_clip": TaskEntry(TrainConfig, _nb_clip),
    "med_vqa_finetune": TaskEntry(FinetuneConfig, _med_vqa_finetune),
    "med_vqa_pretrain": TaskEntry(PretrainConfig, _med_vqa_pretrain),
}
"""By ``task`` of the configuration."""
DEFAULT = "nb_clip"
"""Where no task is named."""


def find_task(arguments: Sequence[str]) -> TaskEntry:
    """The task that a command names, by ``--task`` or by ``task:`` in a YAML file; the last one counts.

    Raises:
        ConfigError: there is no such task, or a YAML file is missing or malformed.
    """
    name = last_given("task", arguments)
    name = DEFAULT if name is None else str(name)
    one_of("task", name, tuple(TASKS))
    return TASKS[name]
