"""The comparison of spaces as plain JSON values: header, similarity, targets, wins and losses."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.retrieval.spaces.changes import EQUAL, Group, changes_by_label, largest
from training.retrieval.spaces.config import SpacesConfig
from training.retrieval.spaces.pairs import LIMIT
from training.retrieval.spaces.reading import Reading
from training.retrieval.spaces.similarity import Similarity, compare_similarities
from training.retrieval.spaces.starts import START, Configured
from training.retrieval.spaces.targets import Coverage, Softness, coverage, default_policy, softness
from training.statistics.intervals import Interval, case_interval


@dataclass(frozen=True)
class Knowledge:
    """What one store has to teach."""

    store: str
    """Data set and split."""
    policy_of: str
    """The run whose policy, sampler and batch size are described."""
    coverage: Coverage
    softness: Softness


@dataclass(frozen=True)
class Change:
    """One model's scores beside those of the first run."""

    name: str
    difference: NDArray[np.float64]
    """Of each query, NaN without a score."""
    gained: int
    """Queries that score higher."""
    lost: int
    groups: list[Group]
    """All queries first."""
    wins: list[int]
    """Queries of the largest gains."""
    losses: list[int]


@dataclass(frozen=True)
class SpacesReport:
    """Everything that the command says."""

    header: dict[str, str]
    rows: NDArray[np.int64]
    """Store row of each query."""
    measure: str
    baseline: str
    similarities: dict[str, Similarity]
    knowledge: Knowledge
    scores: dict[str, Interval]
    """Model to its mean of the measure."""
    changes: list[Change]
    """Of every other run."""


def describe_targets(targets: TargetStore, runs: Sequence[Configured], config: SpacesConfig) -> Knowledge:
    """What a store has to teach under the policy of the runs, or another.

    Args:
        targets: the store.
        runs: with their configurations, the baseline first.
        config: policy and batch size, where they are not the runs'.

    Raises:
        ConfigError: the batch size or the policy does not fit the store.
    """
    described = default_policy([run.config for run in runs])
    return Knowledge(
        f"{targets.dataset}, split {targets.split}",
        next(run.group.name for run in runs if run.config is described),
        coverage(targets, config.seed),
        softness(targets, described, config.policy, config.batch_size, config.seed),
    )


def make_report(
    reading: Reading, knowledge: Knowledge, runs: Sequence[Configured], config: SpacesConfig
) -> SpacesReport:
    """Everything else that needs no image.

    Args:
        reading: the models on the retrieval set.
        knowledge: see ``describe_targets``.
        runs: with their configurations, the baseline first.
        config: what is shown.
    """
    data, baseline = reading.data, runs[0].group.name
    first = reading.spaces[baseline].score
    changes = []
    for name in [run.group.name for run in runs[1:]]:
        difference = reading.spaces[name].score - first
        groups = changes_by_label(data, difference, config.draws, config.seed)
        wins, losses = largest(difference, data.cases, config.queries)
        gained, lost = int((difference > EQUAL).sum()), int((difference < -EQUAL).sum())
        changes.append(Change(name, difference, gained, lost, groups, wins, losses))
    return SpacesReport(
        header=_header(reading, runs, config),
        rows=data.rows,
        measure=reading.measure,
        baseline=baseline,
        similarities=compare_similarities(reading, baseline, config.draws, config.seed),
        knowledge=knowledge,
        scores={
            name: case_interval(space.score, data.cases, config.draws, config.seed)
            for name, space in reading.spaces.items()
        },
        changes=changes,
    )


def as_json(report: SpacesReport) -> dict[str, Any]:
    """The report as plain JSON values, shares of 1; queries by their row in the store."""
    return {
        **report.header,
        "measure": report.measure,
        "baseline": report.baseline,
        "similarity": {
            kind: {
                "sections": {name: asdict(section) for name, section in one.sections.items()},
                "bins": [asdict(bin_) for bin_ in one.bins],
            }
            for kind, one in report.similarities.items()
        },
        "targets": asdict(report.knowledge),
        "scores": {name: asdict(interval) for name, interval in report.scores.items()},
        "changes": {
            change.name: {
                "gained": change.gained,
                "lost": change.lost,
                "groups": [asdict(group) for group in change.groups],
                "wins": _rows(report, change, change.wins),
                "losses": _rows(report, change, change.losses),
            }
            for change in report.changes
        },
    }


def _rows(report: SpacesReport, change: Change, queries: Sequence[int]) -> list[dict[str, Any]]:
    return [{"row": int(report.rows[at]), "difference": float(change.difference[at])} for at in queries]


def _header(reading: Reading, runs: Sequence[Configured], config: SpacesConfig) -> dict[str, str]:
    data, pairs = reading.data, reading.pairs
    known = int(data.store.known[data.rows].sum())
    drawn = f", among {LIMIT:,} pairs drawn at random" if pairs.population > LIMIT else ""
    seeds = "; ".join(f"{run.group.name} {', '.join(map(str, run.group.seeds))}" for run in runs)
    lines = {
        "data": f"{data.store.dataset}, split {data.store.split}, {len(data.rows):,} images of "
        f"{len(set(data.cases.tolist())):,} cases, {known:,} with concepts",
        "protocol": "every image queries all others of the split, its own case excluded; similarity: "
        f"{len(pairs):,} pairs of images with concepts of different cases{drawn}",
        "features": f"image to image {config.features} the projection, image to text after it",
        "training seeds": seeds,
    }
    if START in reading.spaces:
        untrained = reading.spaces[START].group.seeds
        lines[START] = f"the models that the runs started from, seeds {', '.join(map(str, untrained))}"
    lines["intervals"] = (
        f"95 %, percentile bootstrap over cases, {config.draws:,} draws, seed {config.seed}; of several training seeds "
        "the mean of their correlations and scores; what another training would give is in no interval; descriptive, "
        "no test"
    )
    return lines


def picture_title(
    report: SpacesReport, change: Change, config: SpacesConfig, labels: Sequence[str], gains: bool
) -> str:
    """The title of a contact sheet, with its protocol."""
    what, queries = ("gains", change.wins) if gains else ("losses", change.losses)
    shown = f"the {len(queries)} largest {what}" if queries else f"no {what}"
    frames = f"green: same {', '.join(labels)}; amber: one of them; red: none" if labels else "no labels"
    return (
        f"{report.header['data']}\n{shown} in {report.measure} of {change.name} against "
        f"{report.baseline}, at most one per case; chosen for their size, not typical\nfirst images found by the first "
        f"seed, features {config.features} the projection, own case excluded; {frames}; training seeds: "
        f"{report.header['training seeds']}"
    )
