"""The registry of what ``training/run.py`` trains: a task's name to its configuration and the module that runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from training.arguments import last_given
from training.checks import one_of
from training.engine.config import RunConfig
from training.med_vqa.finetune.config import FinetuneConfig
from training.med_vqa.pretrain.config import PretrainConfig
from training.nb_clip.config import TrainConfig


@dataclass(frozen=True)
class TaskEntry:
    """One task."""

    config: type[RunConfig]
    module: str
    """Its ``prepare_run`` takes the configuration and finds the data, its ``outline`` says what it would need."""

    def load(self, name: str = "prepare_run") -> Callable[[Any], Any]:
        """Import one of the two: torch and the models' libraries take seconds, too long for ``--help``."""
        function: Callable[[Any], Any] = getattr(import_module(self.module), name)
        return function


TASKS = {
    "nb_clip": TaskEntry(TrainConfig, "training.nb_clip.run"),
    "med_vqa_finetune": TaskEntry(FinetuneConfig, "training.med_vqa.finetune.run"),
    "med_vqa_pretrain": TaskEntry(PretrainConfig, "training.med_vqa.pretrain.run"),
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
