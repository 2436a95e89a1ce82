"""The comparison of runs: computed once, shown as text, Markdown and JSON under a header that tells the protocol."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.retrieval.config import AFTER, IMAGE_IMAGE, EvalConfig
from training.retrieval.features import RetrievalSet
from training.retrieval.measures import Measures, mean_of, mean_over_seeds
from training.retrieval.runs import CHANCE, RunGroup
from training.retrieval.zero_shot import Task
from training.statistics.intervals import Interval, case_interval, seed_sd
from training.statistics.paired_tests import MIN_FLIPS, Comparison, Pair, compare_all, holm


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
    comparisons: dict[str, dict[str, Comparison]]
    """Run name to measure to its difference from the first run."""
    holm: dict[str, dict[str, float]]
    """Holm-corrected p values over all comparisons, the primary endpoint excepted."""

    keys: Mapping[str, Sequence[str]]
    """Run name to the key of each trained model."""

    @property
    def corrected(self) -> int:
        """How many comparisons Holm's correction counts; one without a query in common is none."""
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
    flips: int = MIN_FLIPS,
) -> Report:
    """Bootstrap every measure and compare every run with the first.

    A query's score is first averaged over the seeds of a run; intervals and tests then resample cases as for one run.

    Args:
        header: what is printed above the table (data, split, protocol).
        data: queries and their cases.
        scores: per-query measures of each run, one entry per seed, the baseline first.
        chance: per-query expectation under random order.
        draws: bootstrap samples.
        seed: of bootstrap and sign flips.
        primary: the endpoint that Holm's correction leaves out.
        keys: key of each run's trained models, kept with the numbers.
        flips: random sign assignments of each test, see ``flips_for``.
    """
    means = {run: mean_over_seeds(seeds) for run, seeds in scores.items()}
    intervals = {
        run: {
            name: case_interval(one.values, data.cases, draws, seed, one.classes)
            for name, one in measures.items()
        }
        for run, measures in {CHANCE: chance, **means}.items()
    }
    baseline, *others = scores
    tested = [(run, name) for run in others for name in means[run]]
    pairs = [
        Pair(means[run][name].values, means[baseline][name].values, means[run][name].classes)
        for run, name in tested
    ]
    comparisons: dict[str, dict[str, Comparison]] = {run: {} for run in others}
    for (run, name), result in zip(tested, compare_all(pairs, data.cases, draws, flips, seed), strict=True):
        comparisons[run][name] = result
    secondary = [(run, name) for run in others for name in means[run] if name != primary]
    corrected = holm([comparisons[run][name].p_value for run, name in secondary])
    table: dict[str, dict[str, float]] = {run: {} for run in others}
    for (run, name), value in zip(secondary, corrected, strict=True):
        table[run][name] = value
    seed_means = {
        run: {name: [mean_of(measures[name]) for measures in seeds] for name in seeds[0]}
        for run, seeds in scores.items()
    }
    sections: dict[str, list[str]] = {}
    for name, scored in chance.items():
        sections.setdefault(scored.section, []).append(name)
    return Report(header, primary, sections, intervals, seed_means, comparisons, table, keys)


def as_json(report: Report) -> dict[str, Any]:
    """The whole report as plain JSON values, shares of 1."""
    return {
        **report.header,
        "primary": report.primary,
        "sections": report.sections,
        "runs": {
            run: {
                **({"keys": list(report.keys[run])} if run != CHANCE else {}),
                "measures": {
                    name: {**asdict(interval), **_seeds(report, run, name)}
                    for name, interval in measures.items()
                },
                "against_first": {
                    name: {
                        **asdict(result.difference),
                        "p": result.p_value,
                        "p_holm": report.holm[run].get(name),
                    }
                    for name, result in report.comparisons.get(run, {}).items()
                },
            }
            for run, measures in report.intervals.items()
        },
    }


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
    lines = ["# Retrieval", "", *(f"- {_escaped(line)}" for line in _header_lines(report))]
    for section, names in report.sections.items():
        rows = [_head(report), ["---"] * len(_head(report)), *(_cells(report, name) for name in names)]
        lines += ["", f"## {section[0].upper()}{section[1:]}", ""]
        lines += ["| " + " | ".join(map(_escaped, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    """A bar would end a table's cell; a star at the front would begin a list."""
    text = cell.replace("|", "\\|")
    return "\\" + text if text.startswith("* ") else text


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
        cells.append(_interval_text(report.intervals[run][name]) + spread)
    for run, results in report.comparisons.items():
        result = results[name]
        corrected = report.holm[run].get(name)
        cells += [_interval_text(result.difference, signed=True), f"{result.p_value:.4f}"]
        cells.append("–" if corrected is None else f"{corrected:.4f}")
    return cells


def _seeds(report: Report, run: str, name: str) -> dict[str, Any]:
    """Each seed's mean and their spread, for a run of several seeds."""
    if run == CHANCE or len(report.seed_means[run][name]) < 2:
        return {}
    return {"seed_means": report.seed_means[run][name], "seed_sd": report.seed_deviation(run, name)}


def _header_lines(report: Report) -> Iterator[str]:
    yield from (f"{name}: {value}" for name, value in report.header.items())
    if report.comparisons:
        runs = "" if len(report.comparisons) == 1 else f" of {len(report.comparisons)} runs together"
        yield f"* primary endpoint; Holm corrects all {report.corrected} other comparisons{runs}"
    else:
        yield "* primary endpoint"


def _interval_text(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def header(
    data: RetrievalSet, groups: Sequence[RunGroup], config: EvalConfig, tasks: Sequence[Task], flips: int
) -> dict[str, Any]:
    """What the numbers below it rest on, one line each."""
    lines = {
        "data": f"{data.store.dataset}, split {data.store.split}, {len(data.rows):,} images of "
        f"{len(set(data.cases.tolist())):,} cases",
        "protocol": _protocol(config),
        "features": _features(config),
    }
    if config.recall:
        lines["pairs"] = _pairs(data, config)
    for task in tasks:
        own = len(dict(config.prompts).get(task.label, ()))
        given = f", {own} of them with prompts of their own" if own else ""
        lines[f"zero-shot {task.label}"] = (
            f"{len(task.classes)} classes{given}, {len(config.templates)} templates; chance is the answer that is "
            "always the most frequent class"
        )
    lines["training seeds"] = "; ".join(f"{g.name} {', '.join(map(str, g.seeds))}" for g in groups)
    lines["intervals"] = _intervals(groups, config, flips)
    return lines


def _protocol(config: EvalConfig) -> str:
    found = "its own case excluded" if config.group_exclusion == "case" else "only itself excluded"
    directions = ", ".join(direction.replace("-", " to ") for direction in config.directions)
    texts = "; a text stands for its image (concepts, labels, case)" if config.views[-1].crosses else ""
    return (
        f"{directions}; every image queries all others of the split, {found}{texts}; chance is the expectation of a "
        "random order; P@K: labelled images only, a query without the label drops out of the mean"
    )


def _features(config: EvalConfig) -> str:
    said = []
    if IMAGE_IMAGE in config.directions:
        kinds = [
            f"{kind} the projection" + (" (projected)" if kind == AFTER else "") for kind in config.features
        ]
        said.append(f"{' and '.join(kinds)}, image to image")
    if config.texts or config.zero_shot:
        said.append("after the projection wherever texts take part")
    return "; ".join(said)


def _pairs(data: RetrievalSet, config: EvalConfig) -> str:
    _, copies = np.unique(data.caption_codes, return_counts=True)
    shared = int(copies[copies > 1].sum())
    others = "those of other cases" if config.group_exclusion == "case" else "all others"
    return (
        f"Recall@K looks for the query's own caption or image among {others}; an equal caption is as right as its own "
        f"({shared:,} images share theirs); equal scores count against the model"
    )


def _intervals(groups: Sequence[RunGroup], config: EvalConfig, flips: int) -> str:
    text = (
        f"95 %, percentile bootstrap over cases, {config.draws} draws, seed {config.seed}; "
        f"p: paired sign-flip test over cases, {flips:,} flips; "
    )
    counts = {len(group.seeds) for group in groups}
    if counts == {1}:
        return text + "one trained model per run, so training noise is in neither"
    return text + (
        "scores averaged over a run's seeds before both: they tell how sure these trained models' mean is over cases, "
        "not what another seed would give; ± is the standard deviation between seeds"
        + (", none for a run of one seed" if 1 in counts else "")
    )
