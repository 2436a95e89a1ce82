"""What the statistics of a grid consist of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.tables.design import Contrast
from training.statistics.intervals import Interval, seed_sd
from training.statistics.seed_variance import SeedVariance


@dataclass(frozen=True)
class Difference:
    """One measure of one contrast."""

    interval: Interval
    """Of the mean difference over the queries that both rows have scored: with training noise where there are several
    seeds (``seed_variance.t_test``), else given these models (bootstrap over cases)."""
    folds: Mapping[str, float]
    """Mean difference within each fold; NaN where it has no query."""
    noise: SeedVariance | None = None
    """What the interval rests on; ``None`` with one seed."""
    p: float | None = None
    """t test that contains training noise; None where nothing was to be tested, and with one seed."""
    p_holm: float | None = None
    """Corrected over the family; None outside it."""
    p_models: float | None = None
    """Given these models: paired sign-flip test over cases, blind to training noise; None where nothing was to be
    tested."""
    p_models_holm: float | None = None
    """That one corrected over the family; None outside it."""

    @property
    def decisive_p(self) -> float | None:
        """The p value that counts: corrected in the family, plain for the primary hypothesis; never one seed's."""
        return self.p if self.p_holm is None else self.p_holm


@dataclass(frozen=True)
class RowResult:
    """One row of a table (or chance)."""

    intervals: Mapping[str, Interval]
    """Measure to mean over queries, of the scores averaged over seeds; bootstrap over cases, given these models."""
    seed_means: Mapping[str, tuple[float, ...]]
    """Measure to each seed's mean over all folds; empty for chance."""

    def seed_sd(self, measure: str) -> float | None:
        """Standard deviation of the seeds' means (S − 1 in the denominator); None for a single seed."""
        means = self.seed_means.get(measure, ())
        return seed_sd(means)

    def seed_gap(self, measure: str) -> float | None:
        """Largest difference between two seeds' means, A against A; None for a single seed."""
        means = self.seed_means.get(measure, ())
        return max(means) - min(means) if len(means) > 1 else None


@dataclass(frozen=True)
class Subset:
    """The primary contrast on some cases only, in every tested measure."""

    images: int
    cases: int
    differences: Mapping[str, Difference]
    """Measure to difference; outside the family, so without a correction."""


@dataclass(frozen=True)
class Results:
    """Everything that the tables say."""

    sections: Mapping[str, Sequence[str]]
    """Heading to its measures."""
    images: int
    cases: int
    folds: Mapping[str, int]
    """Fold to its number of queries."""
    seeds: tuple[int, ...]
    """Training seeds, the same for every row."""
    chance: RowResult
    rows: Mapping[str, RowResult]
    differences: Mapping[Contrast, Mapping[str, Difference]]
    subsets: Mapping[str, Subset]
    tested: bool
    """Whether there are tests: not where rows of the design are left out."""
    flips: int
    """Random sign assignments of each test given these models."""

    @property
    def repeated(self) -> bool:
        """Whether rows were trained from several seeds, so that intervals and tests contain training noise."""
        return len(self.seeds) > 1
