"""The comparison of runs: computed once, then shown as text, JSON and Markdown (``training.retrieval.tables``)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.retrieval.features import RetrievalSet
from training.retrieval.measures import Measures, Scored, mean_of, mean_over_seeds
from training.retrieval.runs import CHANCE
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
        run: {name: interval(scored, data, draws, seed) for name, scored in measures.items()}
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


def interval(scored: Scored, data: RetrievalSet, draws: int, seed: int) -> Interval:
    """A measure's mean over queries, bootstrapped over cases."""
    return case_interval(scored.values, data.cases, draws, seed, scored.classes)
