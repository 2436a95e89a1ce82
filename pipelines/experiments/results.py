"""The comparisons of a retrieval grid, fixed before any number is seen, and the statistics that answer them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product, starmap

from pipelines.experiments.retrieval_grid import Table
from training.statistics.intervals import Interval, seed_sd
from training.statistics.seed_variance import SeedVariance


@dataclass(frozen=True)
class Contrast:
    """Two rows: ``row`` minus ``baseline``."""

    row: str
    baseline: str


@dataclass(frozen=True)
class Hypothesis:
    """A contrast in one measure, tested against no difference from both sides."""

    contrast: Contrast
    measure: str

    @property
    def question(self) -> tuple[frozenset[str], str]:
        """Key of the question; the test gives the same p value whichever row is the baseline."""
        return frozenset((self.contrast.row, self.contrast.baseline)), self.measure


@dataclass(frozen=True)
class Design:
    """The comparisons, named before any number is seen."""

    tables: tuple[Table, ...]
    """Every row stands in at least one."""
    primary: Hypothesis
    """The one test without correction."""
    secondary: tuple[str, ...]
    """Measures tested besides the primary one."""
    against: tuple[str, ...] | None = None
    """Rows that the primary row is tested against besides its baseline; ``None``: all others."""
    draws: int = 2000
    """Bootstrap samples, at least 1."""
    seed: int = 0
    """Seed of bootstrap and sign flips, >= 0."""

    @property
    def rows(self) -> tuple[str, ...]:
        """All rows, each once, in the tables' order."""
        return tuple(dict.fromkeys(row for table in self.tables for row in table.rows))

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that are tested, the primary one first."""
        return tuple(dict.fromkeys((self.primary.measure, *self.secondary)))

    @property
    def against_baseline(self) -> tuple[Contrast, ...]:
        """Every row against its table's baseline."""
        contrasts = [
            Contrast(row, table.baseline)
            for table in self.tables
            for row in table.rows
            if row != table.baseline
        ]
        return tuple(dict.fromkeys(contrasts))

    @property
    def against_controls(self) -> tuple[Contrast, ...]:
        """The primary row against the rows of ``against``, but not its own baseline."""
        best, baseline = self.primary.contrast.row, self.primary.contrast.baseline
        others = self.rows if self.against is None else self.against
        return tuple(Contrast(best, row) for row in others if row not in (best, baseline))

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """All pairs of rows that are compared, the primary one first."""
        return tuple(dict.fromkeys((self.primary.contrast, *self.against_controls, *self.against_baseline)))

    @property
    def family(self) -> tuple[Hypothesis, ...]:
        """Hypotheses that Holm corrects together; a pair of rows counts once, whichever of them is the baseline."""
        found: dict[tuple[frozenset[str], str], Hypothesis] = {}
        for one in starmap(Hypothesis, product(self.contrasts, self.measures)):
            found.setdefault(one.question, one)
        found.pop(self.primary.question, None)
        return tuple(found.values())


@dataclass(frozen=True)
class Difference:
    """One measure of one contrast."""

    interval: Interval
    """Mean difference over the queries that both rows have scored: with seed variance where there are several seeds
    (``paired_test``; NaN bounds: not estimable), else given these models (bootstrap over cases)."""
    folds: Mapping[str, float]
    """Mean difference within each fold; NaN where it has no query."""
    noise: SeedVariance | None = None
    """Variance components of the interval; ``None`` with one seed, and where it is not estimable."""
    p: float | None = None
    """t test that contains seed variance; None where nothing was to be tested, and with one seed; NaN where it is not
    estimable (two seeds, or fewer than ten cases)."""
    p_holm: float | None = None
    """Corrected over the family; None outside it."""
    p_models: float | None = None
    """Given these models: paired sign-flip test over cases, blind to seed variance; None with several seeds, and where
    nothing was to be tested."""
    p_models_holm: float | None = None
    """``p_models`` corrected over the family; None outside it."""

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
        return seed_sd(self.seed_means.get(measure, ()))

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
        """Whether rows were trained from several seeds, so that intervals and tests contain seed variance."""
        return len(self.seeds) > 1
