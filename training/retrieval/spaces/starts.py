"""The untrained models that runs started from: built again from the runs' configurations and seeds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from accelerate.utils import set_seed

from training.clip.load import build_clip, write_model_folder
from training.config import TrainConfig
from training.engine.checkpoint import CHECKPOINT
from training.errors import CheckpointError, ConfigError
from training.folders import writing
from training.options import build, read_options
from training.retrieval.runs import RunGroup

START = "before training"
"""Name of the untrained models among the runs."""


@dataclass(frozen=True)
class Configured:
    """A group of runs with the configuration that they share but for the seed (here the first run's)."""

    group: RunGroup
    config: TrainConfig


def read_configs(groups: Sequence[RunGroup]) -> list[Configured]:
    """The configuration of each group.

    Raises:
        CheckpointError: a run's config.yaml is not one of this version.
        ConfigError: a run has the name of the untrained models.
    """
    found = []
    for group in groups:
        if group.name == START:
            raise ConfigError(f'--run: "{START}" is no name for a run: write NAME=FOLDER')
        path = group.folders[0] / "config.yaml"
        try:
            config = build(TrainConfig, read_options(TrainConfig, ["--config", str(path)]))
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}: train the run again with this version") from error
        found.append(Configured(group, config))
    return found


def check_one_start(runs: Sequence[Configured]) -> None:
    """Refuse runs that started from different models.

    Raises:
        ConfigError: their ``model`` configurations differ.
    """
    for run in runs[1:]:
        if run.config.model != runs[0].config.model:
            raise ConfigError(
                f"--start: {run.group.name} started from another model than {runs[0].group.name}: leave --start out, "
                "or compare runs of one model configuration"
            )


@contextmanager
def untrained(runs: Sequence[Configured]) -> Iterator[RunGroup]:
    """The models before their first step, one for each training seed, as folders that read like those of runs.

    Weights are drawn as training draws them: the seed is set, then the model is built.

    Args:
        runs: of one model configuration, see ``check_one_start``.

    Raises:
        ConfigError: weights to start from are not installed any more.
    """
    seeds = tuple(sorted({seed for run in runs for seed in run.group.seeds}))
    with TemporaryDirectory(prefix="starts-") as made_in:
        folders = tuple(Path(made_in) / f"seed{seed}" for seed in seeds)
        for seed, folder in zip(seeds, folders, strict=True):
            set_seed(seed)
            clip = build_clip(runs[0].config.model)
            with writing(folder, "--start: the temporary folder"):
                write_model_folder(folder / CHECKPOINT, clip.model, clip)
        yield RunGroup(START, folders, seeds, tuple(f"start {seed}" for seed in seeds))
