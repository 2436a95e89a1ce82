"""What a grid asks, fixed before any number is seen: which rows are compared in which measures, and what is tested."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contrast:
    """Two rows: ``row`` minus ``baseline``."""

    row: str
    baseline: str

    @property
    def pair(self) -> frozenset[str]:
        """The two, whichever is the baseline."""
        return frozenset((self.row, self.baseline))


@dataclass(frozen=True)
class Hypothesis:
    """A contrast in one measure, tested against no difference from both sides."""

    contrast: Contrast
    measure: str

    @property
    def question(self) -> tuple[frozenset[str], str]:
        """What is asked; the test gives the same p value whichever row is the baseline."""
        return self.contrast.pair, self.measure


@dataclass(frozen=True)
class TableDesign:
    """Rows of one table, its baseline among them."""

    rows: tuple[str, ...]
    baseline: str


@dataclass(frozen=True)
class Design:
    """What is compared, named before any number is seen."""

    tables: tuple[TableDesign, ...]
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
    """Of bootstrap and sign flips, >= 0."""

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
        """What Holm corrects together; a pair of rows counts once, whichever of them is the baseline."""
        pairs: dict[frozenset[str], Contrast] = {}
        for contrast in self.contrasts:
            pairs.setdefault(contrast.pair, contrast)
        hypotheses = [
            Hypothesis(contrast, measure) for contrast in pairs.values() for measure in self.measures
        ]
        return tuple(one for one in hypotheses if one.question != self.primary.question)
