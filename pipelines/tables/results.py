"""What the statistics of a grid consist of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.tables.design import Contrast
from training.evaluate.bootstrap import Comparison, Interval


@dataclass(frozen=True)
class Difference:
    """One measure of one contrast."""

    interval: Interval
    """Of the mean difference over the queries that both rows have scored."""
    folds: Mapping[str, float]
    """Mean difference within each fold; NaN where it has no query."""
    p: float | None = None
    """Paired sign-flip test over cases; None where nothing was to be tested."""
    p_holm: float | None = None
    """Corrected over the family; None outside it."""

    @property
    def decisive_p(self) -> float | None:
        """The p value that counts: corrected in the family, plain for the primary hypothesis."""
        return self.p if self.p_holm is None else self.p_holm


@dataclass(frozen=True)
class RowResult:
    """One row of a table (or chance)."""

    intervals: Mapping[str, Interval]
    """Measure to mean over queries, of the scores averaged over seeds."""
    seed_means: Mapping[str, tuple[float, ...]]
    """Measure to each seed's mean over all folds; empty for chance."""

    def seed_sd(self, measure: str) -> float | None:
        """Standard deviation of the seeds' means (S − 1 in the denominator); None for a single seed."""
        means = self.seed_means.get(measure, ())
        return float(np.std(means, ddof=1)) if len(means) > 1 else None


@dataclass(frozen=True)
class Subset:
    """The primary contrast on some cases only, in every tested measure."""

    images: int
    cases: int
    differences: Mapping[str, Comparison]


@dataclass(frozen=True)
class Results:
    """Everything that the tables say."""

    sections: Mapping[str, Sequence[str]]
    """Heading to its measures."""
    images: int
    cases: int
    folds: Mapping[str, int]
    """Fold to its number of queries."""
    seeds: Mapping[str, tuple[int, ...]]
    """Row to its training seeds."""
    chance: RowResult
    rows: Mapping[str, RowResult]
    differences: Mapping[Contrast, Mapping[str, Difference]]
    subsets: Mapping[str, Subset]
    tested: bool
    """Whether there are tests: not where rows of the design are left out."""
    flips: int
    """Random sign assignments of each test."""
