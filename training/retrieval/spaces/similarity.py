"""The learned similarity beside the targets': correlations, also among images of one label, and means in bins of S."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.retrieval.config import IMAGE_TEXT
from training.retrieval.spaces.correlate import Cosines, Estimate, PairWeights, correlate, mean_in_bins
from training.retrieval.spaces.pairs import Pairs, strata_of
from training.retrieval.spaces.reading import KINDS, Reading

FloatArray = NDArray[np.float64]
MIN_PAIRS = 20
"""A bin of fewer pairs is not shown in the figure."""


@dataclass(frozen=True)
class Section:
    """Correlations over all pairs, or within the values of a label."""

    pairs: int
    values: int
    """Strata: 1 for all pairs, or the values of the label that have pairs."""
    correlations: dict[str, dict[str, Estimate]]
    """Model to ``spearman`` and ``pearson``."""
    differences: dict[str, dict[str, Estimate]]
    """The same minus that of the first run, for every other model."""


@dataclass(frozen=True)
class Bin:
    """Pairs whose S lies between two edges."""

    low: float
    high: float
    pairs: int
    similarity: float
    """Mean S; NaN without pairs."""
    cosines: dict[str, Estimate]
    """Model to mean cosine."""


@dataclass(frozen=True)
class Similarity:
    """One kind of cosines beside S."""

    sections: dict[str, Section]
    bins: list[Bin]


def compare_similarities(reading: Reading, baseline: str, draws: int, seed: int) -> dict[str, Similarity]:
    """Kind of cosines to what they have to do with S.

    Args:
        reading: the models.
        baseline: name of the first run.
        draws: bootstrap samples.
        seed: of the samples.
    """
    found = {}
    for kind in KINDS:
        pairs = reading.pairs.both_ways if kind == IMAGE_TEXT else reading.pairs
        cases = reading.data.cases
        weights = PairWeights(cases[pairs.left], cases[pairs.right], draws, seed)
        cosines = {name: space.cosines[kind] for name, space in reading.spaces.items()}
        sections = {
            name: _section(pairs, cosines, strata, weights, baseline)
            for name, strata in strata_of(reading.data, pairs).items()
        }
        found[kind] = Similarity(sections, _bins(pairs, cosines, weights))
    return found


def shown_bins(similarity: Similarity) -> list[Bin]:
    """The bins that have enough pairs to be drawn."""
    return [bin_ for bin_ in similarity.bins if bin_.pairs >= MIN_PAIRS]


def _section(
    pairs: Pairs, cosines: Cosines, strata: NDArray[np.int64], weights: PairWeights, baseline: str
) -> Section:
    drawn = correlate(pairs.similarity, cosines, strata, weights)
    taken = strata[strata >= 0]
    return Section(
        len(taken),
        len(np.unique(taken)),
        {name: _estimates(kinds) for name, kinds in drawn.items()},
        {
            name: _estimates({kind: values - drawn[baseline][kind] for kind, values in kinds.items()})
            for name, kinds in drawn.items()
            if name != baseline
        },
    )


def _estimates(drawn: Mapping[str, FloatArray]) -> dict[str, Estimate]:
    return {kind: Estimate.of(values) for kind, values in drawn.items()}


def _bins(pairs: Pairs, cosines: Cosines, weights: PairWeights) -> list[Bin]:
    """Ten or so bins of round edges over the range of S; the upper edge belongs to the bin above, but for the last."""
    values = pairs.similarity
    ticks = MaxNLocator(nbins=12, steps=[1, 2, 5, 10]).tick_values(values.min(), values.max())
    edges = np.round(np.asarray(ticks, dtype=np.float64), 12)
    count = len(edges) - 1
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, count - 1).astype(np.int64)
    numbers = np.bincount(place, minlength=count)
    sums = np.bincount(place, values, minlength=count)
    means = mean_in_bins(place, count, cosines, weights)
    return [
        Bin(
            float(edges[at]),
            float(edges[at + 1]),
            int(numbers[at]),
            float(sums[at] / numbers[at]),
            {name: Estimate.of(drawn[:, at]) for name, drawn in means.items()},
        )
        for at in np.flatnonzero(numbers).tolist()
    ]
