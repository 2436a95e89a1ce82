"""What runs leave behind besides models: how long they took and how soft their targets were."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml

from kg_targets.losses.registry import LOSSES
from pipelines.tables.job import SECONDS
from training.engine.checkpoint import CONFIG, LOG


@dataclass(frozen=True)
class Timing:
    """One training run's time."""

    seconds: float
    """Wall time."""
    jobs: int
    """At most so many runs at once."""
    threads: int
    """CPU threads of each."""


@dataclass(frozen=True)
class Softness:
    """Targets of a row: means over both directions, all logged steps and all runs."""

    diagonal: float
    """Probability of an image's own caption, in [0, 1]."""
    entropy: float
    """H, nats."""
    positives: float
    """exp(H), the effective number of captions that an image is drawn to, its own included."""


def timing(run: Path) -> Timing | None:
    """Time of a run; ``None`` where nobody noted it or the note is damaged."""
    try:
        told = json.loads((run / SECONDS).read_text(encoding="utf-8"))
        return Timing(float(told["seconds"]), int(told["jobs"]), int(told["threads"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def softness(runs: Sequence[Path]) -> Softness | None:
    """How soft the targets of a row were, by the logs of its runs (``kg_targets.losses.contrastive.measure``).

    Returns:
        ``None`` for a loss whose targets are similarities (mse, sigmoid): they are no distributions, and the log has
        clamp(S, 0, 1) over its row sum for them, which no loss sees. Also where a log is missing or damaged.
    """
    try:
        steps = [step for run in runs for step in _measured(run)]
        means = {name: fmean(step[name] for step in steps) for name in ("diagonal", "entropy", "positives")}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    return Softness(**means)


def _measured(run: Path) -> list[dict[str, float]]:
    """Logged steps with targets.

    Raises:
        ValueError: the run's targets are no distributions, or its log is damaged.
    """
    loss = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))["loss"]["name"]
    if LOSSES[loss].targets == "similarity":
        raise ValueError(f"{loss} has no distributions")
    lines = (run / LOG).read_text(encoding="utf-8").splitlines()
    return [step for step in map(json.loads, lines) if "diagonal" in step]
