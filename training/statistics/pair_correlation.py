"""Correlation of a model's cosines with the targets' similarities over pairs of images, with intervals.

x_p is S of pair p, y_p a model's cosine, s(p) the pair's stratum (one for all pairs, or the value of a label that
both images have), w_p a weight. Spearman and Pearson are pooled within strata, so that differences between the strata
(all mammograms are alike, in S and in any model) do not count:

    r = Σ_p w_p x̃_p ỹ_p / √(Σ_p w_p x̃_p² · Σ_p w_p ỹ_p²),   x̃_p = x_p − mean of x over the stratum of p

for Pearson; for Spearman x and y are first replaced by their mid-ranks within the stratum, as shares of its size.

**Intervals.** Images of one case are not independent and neither are pairs that share a case: cases are drawn with
replacement and a pair weighs the product of how often its two cases were drawn (copies of one case form no pair of
different cases). Ranks are computed anew in each draw. Models see the same draws, so differences are paired. A run of
several seeds is the mean of their correlations.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.statistics.intervals import FloatArray, IntArray, case_weights

Cosines = Mapping[str, Sequence[FloatArray]]
"""Model to the cosines of all pairs by each of its seeds, ``[P]``."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % percentile interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: FloatArray) -> "Estimate":
        """Interval from the statistic of the data, then of every sample, ``[1 + draws]``; NaN samples are left out."""
        samples = draws[1:][~np.isnan(draws[1:])]
        low, high = np.quantile(samples, [0.025, 0.975]) if len(samples) else (np.nan, np.nan)
        return cls(float(draws[0]), float(low), float(high))


class PairWeights:
    """Weights of pairs in the data and in bootstrap samples of cases.

    Args:
        first: case code of each pair's first image, ``[P]``.
        second: case code of each pair's second image, ``[P]``.
        draws: bootstrap samples.
        seed: of the samples.
    """

    def __init__(self, first: IntArray, second: IntArray, draws: int, seed: int) -> None:
        cases, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
        self._first, self._second = np.split(codes, 2)
        self._drawn = case_weights(len(cases), draws, seed) if len(cases) else np.zeros((draws, 0), np.uint16)

    def __len__(self) -> int:
        return 1 + len(self._drawn)

    def of(self, chosen: IntArray) -> Iterator[FloatArray]:
        """Weights of the pairs ``chosen``: 1 for the data, then those of each sample; float64 ``[len(chosen)]``."""
        first, second = self._first[chosen], self._second[chosen]
        yield np.ones(len(chosen))
        for row in self._drawn:
            times = row.astype(np.float64)
            yield times[first] * times[second]


def correlate(
    similarity: FloatArray, cosines: Cosines, strata: IntArray, weights: PairWeights
) -> dict[str, dict[str, FloatArray]]:
    """Spearman's and Pearson's correlation of S with each model's cosines.

    Args:
        similarity: S, ``[P]``.
        cosines: of each model.
        strata: of each pair, −1 where it takes no part, ``[P]``.
        weights: of the same pairs.

    Returns:
        Model to ``spearman`` and ``pearson``: of the data, then of each sample, float64 ``[1 + draws]``; NaN where
        nothing varies.
    """
    chosen = np.flatnonzero(strata >= 0)
    strata = np.unique(strata[chosen], return_inverse=True)[1]
    seeds = [(name, values[chosen]) for name, group in cosines.items() for values in group]
    variables = [similarity[chosen], *(values for _, values in seeds)]
    rankers = [_ranker(values, strata) for values in variables]
    found = np.full((2, len(weights), len(seeds)), np.nan)
    for draw, weight in enumerate(weights.of(chosen) if len(chosen) else ()):
        sizes = np.maximum(np.bincount(strata, weight), 1)
        ranked = [ranks(weight, sizes) for ranks in rankers]
        found[0, draw] = _correlations(ranked, weight, sizes, strata)
        found[1, draw] = _correlations(variables, weight, sizes, strata)
    return {
        name: {
            kind: found[row][:, [at for at, (owner, _) in enumerate(seeds) if owner == name]].mean(axis=1)
            for row, kind in enumerate(("spearman", "pearson"))
        }
        for name in cosines
    }


def mean_in_bins(bins: IntArray, count: int, cosines: Cosines, weights: PairWeights) -> dict[str, FloatArray]:
    """Mean cosine of the pairs in each bin, of each model (mean of its seeds).

    Args:
        bins: of each pair, in [0, count), ``[P]``.
        count: number of bins.
        cosines: of each model.
        weights: of the same pairs.

    Returns:
        Model to the means of the data, then of each sample, float64 ``[1 + draws, count]``; NaN in an empty bin.
    """
    values = [np.mean(seeds, axis=0) for seeds in cosines.values()]
    found = np.full((len(cosines), len(weights), count), np.nan)
    for draw, weight in enumerate(weights.of(np.arange(len(bins)))):
        sizes, *sums = (np.bincount(bins, weight * one, count) for one in (1.0, *values))
        found[:, draw] = np.where(sizes > 0, np.stack(sums) / np.maximum(sizes, 1), np.nan)
    return dict(zip(cosines, found, strict=True))


def _correlations(
    variables: Sequence[FloatArray], weight: FloatArray, sizes: FloatArray, strata: IntArray
) -> list[float]:
    """Pearson's correlation of the first variable with each of the others; NaN where nothing varies."""
    x, *others = (values - (np.bincount(strata, weight * values) / sizes)[strata] for values in variables)
    weighted = weight * x
    spread = float(weighted @ x)
    found = []
    for y in others:
        spreads = spread * float((weight * y) @ y)
        found.append(float(weighted @ y) / spreads**0.5 if spreads > 1e-24 else float("nan"))
    return found


def _ranker(values: FloatArray, strata: IntArray) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """A function from a sample's weights and the strata's sizes in it to ranks as shares of these sizes, ``[P]``.

    Values are sorted here, once: mid-ranks of a sample are sums then.
    """
    distinct, codes = np.unique(
        strata * len(values) + np.unique(values, return_inverse=True)[1], return_inverse=True
    )
    owner = distinct // len(values)

    def ranks(weight: FloatArray, sizes: FloatArray) -> FloatArray:
        held = np.bincount(codes, weight)
        middle = np.cumsum(held) - held / 2 - (np.cumsum(sizes) - sizes)[owner]
        return np.asarray((middle / sizes[owner])[codes])

    return ranks
