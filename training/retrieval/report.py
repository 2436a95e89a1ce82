"""The comparison of runs: computed once, shown as text, Markdown and JSON under a header that tells the protocol."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

from training import rendering
from training.data.captions import FittedCaptions
from training.retrieval.config import EvalConfig
from training.retrieval.features import RetrievalSet
from training.retrieval.measures import Measures, mean_of, mean_over_seeds
from training.retrieval.runs import CHANCE, RunGroup
from training.retrieval.zero_shot import Task
from training.statistics.intervals import FEW_CASES, Interval, case_interval, seed_sd
from training.statistics.paired_tests import (
    MIN_FLIPS,
    Difference,
    Pair,
    compare_all,
    holm,
    p_text,
    shared_seeds,
)
from training.statistics.seed_variance import paired_test

T = TypeVar("T")


@dataclass(frozen=True)
class Report:
    """Intervals of every run and measure, and every run against the first."""

    header: dict[str, Any]
    primary: str
    """The endpoint named beforehand."""
    sections: dict[str, list[str]]
    """Heading to the measures below it."""
    intervals: dict[str, dict[str, Interval]]
    """Run name (and ``chance``) to measure to interval; of several seeds, of the scores averaged over them."""
    seed_means: dict[str, dict[str, list[float]]]
    """Run name to measure to each seed's mean."""
    comparisons: dict[str, dict[str, Difference]]
    """Run name to measure to its difference from the first run."""
    holm: dict[str, dict[str, float]]
    """Holm-corrected p values over all comparisons, the primary endpoint excepted."""

    keys: Mapping[str, Sequence[str]]
    """Run name to the key of each trained model."""
    captions: Mapping[str, FittedCaptions] = field(default_factory=dict)
    """Run name to the captions as its text tower got them, where texts are compared."""

    @property
    def corrected(self) -> int:
        """Number of comparisons that Holm's correction counts; one without a query in common is none."""
        return sum(p == p for values in self.holm.values() for p in values.values())

    @property
    def runs(self) -> list[str]:
        """Names of the runs, the baseline first."""
        return [run for run in self.intervals if run != CHANCE]

    def seed_deviation(self, run: str, measure: str) -> float | None:
        """Standard deviation of the seeds' means (S − 1 in the denominator); None for a single seed."""
        return seed_sd(self.seed_means[run][measure])


def make_report(
    header: dict[str, Any],
    data: RetrievalSet,
    scores: Mapping[str, Sequence[Measures]],
    chance: Measures,
    draws: int,
    seed: int,
    primary: str,
    keys: Mapping[str, Sequence[str]],
    seeds: Mapping[str, Sequence[int]],
    flips: int = MIN_FLIPS,
    captions: Mapping[str, FittedCaptions] | None = None,
) -> Report:
    """Bootstrap every measure and compare every run with the first.

    Intervals of means are those of the scores averaged over a run's seeds. A run that has two training seeds or more in
    common with the first is compared by ``paired_test`` on them (with two nothing is estimable); others by sign flips
    over cases on the averaged scores, which hold for these runs only.

    Args:
        header: what is printed above the table (data, split, protocol).
        data: queries and their cases.
        scores: per-query measures of each run, one entry per seed, the baseline first.
        chance: per-query expectation under random order.
        draws: bootstrap samples.
        seed: of bootstrap and sign flips.
        primary: the endpoint that Holm's correction leaves out.
        keys: key of each run's trained models, kept with the numbers.
        seeds: training seed of each run's trained models, in the order of its scores.
        flips: random sign assignments of each test, see ``flips_for``.
        captions: of each run, as its text tower got them.
    """
    means = {run: mean_over_seeds(models) for run, models in scores.items()}
    intervals = {
        run: {
            name: case_interval(one.values, data.cases, draws, seed, one.classes)
            for name, one in measures.items()
        }
        for run, measures in {CHANCE: chance, **means}.items()
    }
    baseline, *others = scores
    tested = [(run, name) for run in others for name in means[run]]
    partners = {run: shared_seeds(seeds[run], seeds[baseline]) for run in others}
    alone = [(run, name) for run, name in tested if len(partners[run]) < 2]
    pairs = [
        Pair(means[run][name].values, means[baseline][name].values, means[run][name].classes)
        for run, name in alone
    ]
    compared = map(Difference.of, compare_all(pairs, data.cases, draws, flips, seed))
    results = dict(zip(alone, compared, strict=True))
    for run, name in (one for one in tested if one not in results):
        both = partners[run].values()
        by_seed = [
            scores[run][one][name].values - scores[baseline][other][name].values for one, other in both
        ]
        test = paired_test(
            np.stack(by_seed), data.cases, np.zeros_like(data.cases), classes=means[run][name].classes
        )
        results[run, name] = Difference.of(test, partners[run])
    secondary = [(run, name) for run, name in tested if name != primary]
    corrected = dict(zip(secondary, holm([results[one].p_value for one in secondary]), strict=True))
    seed_means = {
        run: {name: [mean_of(measures[name]) for measures in models] for name in models[0]}
        for run, models in scores.items()
    }
    sections: dict[str, list[str]] = {}
    for name, scored in chance.items():
        sections.setdefault(scored.section, []).append(name)
    return Report(
        header,
        primary,
        sections,
        intervals,
        seed_means,
        _by_run(others, results),
        _by_run(others, corrected),
        keys,
        captions or {},
    )


def _by_run(runs: Sequence[str], values: Mapping[tuple[str, str], T]) -> dict[str, dict[str, T]]:
    return {run: {name: value for (of, name), value in values.items() if of == run} for run in runs}


def as_json(report: Report) -> dict[str, Any]:
    """The whole report as plain JSON values, shares of 1."""
    return {
        **report.header,
        "primary": report.primary,
        "sections": report.sections,
        "runs": {
            run: {
                **({"keys": list(report.keys[run])} if run != CHANCE else {}),
                **_captions(report, run),
                "measures": {
                    name: {**asdict(interval), **_seeds(report, run, name)}
                    for name, interval in measures.items()
                },
                "against_first": {
                    name: {
                        **asdict(result.interval),
                        "p": result.p_value,
                        "p_holm": report.holm[run].get(name),
                        "seeds": result.seeds,
                        "noise": None if result.noise is None else asdict(result.noise),
                    }
                    for name, result in report.comparisons.get(run, {}).items()
                },
            }
            for run, measures in report.intervals.items()
        },
    }


def _captions(report: Report, run: str) -> dict[str, Any]:
    """How many captions are longer than the run's text tower reads, what it read instead, and how many lost an end."""
    if run not in report.captions:
        return {}
    read = report.captions[run]
    counts = {"longer": read.longer, "truncated": read.truncated, "captions": len(read.texts)}
    return {"long_captions": {"mode": read.mode, **counts}}


def as_text(report: Report) -> str:
    """Header and aligned table for a terminal."""
    head = _head(report)
    body = {section: [_cells(report, name) for name in names] for section, names in report.sections.items()}
    rows = [head, *(row for rows in body.values() for row in rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]

    def line(cells: list[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    lines = [*_header_lines(report), "", line(head), line(["-" * width for width in widths])]
    for section, cells in body.items():
        lines += [f"[{section}]", *map(line, cells)]
    return "\n".join(lines) + "\n"


def as_markdown(report: Report) -> str:
    """Header and one table per section as Markdown."""
    head = _head(report)
    lines = ["# Retrieval", "", *(f"- {_escaped(line)}" for line in _header_lines(report))]
    for section, names in report.sections.items():
        lines += ["", f"## {section[0].upper()}{section[1:]}", "", rendering.header(head, len(head))]
        lines += [rendering.cells(_cells(report, name)) for name in names]
    return "\n".join(lines) + "\n"


def _escaped(line: str) -> str:
    """A star at the front would begin a list."""
    return "\\" + line if line.startswith("* ") else line


def _head(report: Report) -> list[str]:
    head = ["measure (%)", "queries", CHANCE, *report.runs]
    for run in report.comparisons:
        head += [f"{run} − {report.runs[0]}", "p", "p Holm"]
    return head


def _cells(report: Report, name: str) -> list[str]:
    by_chance = report.intervals[CHANCE][name]
    queries = report.intervals[report.runs[0]][name].queries
    cells = [name + (" *" if name == report.primary else ""), f"{queries:,}", f"{100 * by_chance.mean:.1f}"]
    for run in report.runs:
        deviation = report.seed_deviation(run, name)
        spread = "" if deviation is None else f" ±{100 * deviation:.1f}"
        cells.append(rendering.interval(report.intervals[run][name]) + spread)
    for run, results in report.comparisons.items():
        result = results[name]
        corrected = report.holm[run].get(name)
        cells += [rendering.interval(result.interval, signed=True), p_text(result.p_value), p_text(corrected)]
    return cells


def _seeds(report: Report, run: str, name: str) -> dict[str, Any]:
    """Each seed's mean and their spread, for a run of several seeds."""
    if run == CHANCE or len(report.seed_means[run][name]) < 2:
        return {}
    return {"seed_means": report.seed_means[run][name], "seed_sd": report.seed_deviation(run, name)}


def _header_lines(report: Report) -> Iterator[str]:
    yield from (f"{name}: {value}" for name, value in report.header.items())
    yield from (f"captions of {run}: {read}" for run, read in report.captions.items() if read.longer)
    if report.comparisons:
        runs = "" if len(report.comparisons) == 1 else f" of {len(report.comparisons)} runs together"
        yield f"* primary endpoint; Holm corrects all {report.corrected} other comparisons{runs}"
    else:
        yield "* primary endpoint"


def describe(
    data: RetrievalSet, groups: Sequence[RunGroup], config: EvalConfig, tasks: Sequence[Task], flips: int
) -> dict[str, str]:
    """Header of a report: what its numbers rest on, one line each."""
    _, copies = np.unique(data.caption_codes, return_counts=True)
    text = rendering.render(
        "training.retrieval", "header.j2", data=data, groups=groups, config=config, tasks=tasks, flips=flips,
        cases=len(np.unique(data.cases)), by_case=config.group_exclusion == "case",
        shared=int(copies[copies > 1].sum()), prompts=dict(config.prompts),
        counts=sorted({len(group.seeds) for group in groups}), few=FEW_CASES,
    )  # fmt: skip
    return dict(line.split(": ", 1) for line in text.splitlines() if line)
