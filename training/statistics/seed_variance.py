"""Paired test of two configurations that holds for other cases and for other training seeds.

All cases are scored by the same few trained models, so a test over cases takes the seed variance of these models for a
property of the configuration: two seeds of one configuration come out as different. Training runs from several seeds
tell how large it is. docs/statistics.md has the model in words and what the test keeps to in simulations.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from training.errors import DataError
from training.statistics.intervals import FloatArray, IntArray, Interval, influences, is_estimable, per_case

MIN_SEEDS = 3
"""With two, one degree of freedom of seed variance is left: intervals would be twelve standard errors wide."""

_FOLDS_APART = 1000


@dataclass(frozen=True)
class SeedVariance:
    """Parts of the standard error of a difference: sqrt(se_cases² + se_training²)."""

    se_cases: float
    """Part from cases, given these trained models: sqrt(V_cases), shares of 1."""
    se_training: float
    """Part from seeds beyond what other cases would change as well: sqrt(max(V_seeds − V_both, 0)), shares of 1."""
    degrees: float
    """Degrees of freedom of t, Welch–Satterthwaite, > 0."""
    by_training: Mapping[str, tuple[float, ...]]
    """Fold to D_s + Σ_{c∈f} u_sc / Σ_{c∈f} w_c, the difference of each seed's models there; folds with a query."""

    def agreeing(self, mean: float) -> tuple[int, int]:
        """In how many pairs of training runs the difference has the sign of ``mean``, and how many there are."""
        values = [value for fold in self.by_training.values() for value in fold]
        return sum(value * mean > 0 for value in values), len(values)


@dataclass(frozen=True)
class PairedTest:
    """Mean difference with its 95 % interval and p value; bounds and p are NaN where they are not estimable."""

    mean: float
    """NaN where there is no query."""
    low: float
    high: float
    p: float
    """Two-sided, of t = mean/SE; where all differences are the same there is no interval: 1 if they are 0, else NaN."""
    queries: int
    cases: int
    error: SeedVariance | None
    """The parts of SE; ``None`` where it is not estimable: fewer than ``MIN_SEEDS`` seeds, or ``MIN_CASES`` cases (of a
    class)."""

    @property
    def interval(self) -> Interval:
        """Mean and bounds."""
        return Interval(self.mean, self.low, self.high, self.queries, self.cases)


class Error(NamedTuple):
    """Standard errors and degrees of freedom of many differences at once, ``[…]`` each."""

    cases: FloatArray
    """V_cases."""
    training: FloatArray
    """max(V_seeds − V_both, 0)."""
    degrees: FloatArray

    def p(self, means: FloatArray) -> FloatArray:
        """Two-sided p values of t = mean/SE; NaN where SE is 0 and the mean is not."""
        error = np.sqrt(self.cases + self.training)
        # A handful of answers that are all right and all wrong have no spread, which is not certainty.
        flat = np.where(means == 0, 1.0, np.nan)
        safe = np.where(error > 1e-12 * np.abs(means), error, np.nan)
        return np.where(np.isnan(safe), flat, 2 * stdtr(self.degrees, -np.abs(means) / safe))

    @property
    def reach(self) -> FloatArray:
        """Half the width of the 95 % interval."""
        return np.asarray(stdtrit(self.degrees, 0.975) * np.sqrt(self.cases + self.training))


def crossed_error(by_seed: FloatArray, parts: FloatArray, weights: FloatArray) -> Error:
    """Error of mean_s D_s under crossed random cases and seeds; see ``paired_test``.

    Args:
        by_seed: D_s, the mean of each seed's differences, ``[…, S]``.
        parts: u_sc, what each case adds to D_s, centred so that they sum to 0, ``[…, S, C]``.
        weights: w_c, each case's share of the mean, ``[C]``, sum 1.
    """
    seeds, size = parts.shape[-2], float((weights**2).sum())
    mean = parts.mean(axis=-2)
    of_cases = (mean**2).sum(axis=-1) / (1 - size)
    own = parts - mean[..., None, :]
    both = (own**2).sum(axis=(-2, -1)) / (seeds * (seeds - 1) * (1 - size))
    of_seeds = by_seed.var(axis=-1, ddof=1) / seeds
    training = np.maximum(of_seeds - both, 0)
    spare = min(1 / size - 1, 2 * (seeds - 1) ** 2)
    spread = of_seeds**2 / (seeds - 1) + of_cases**2 / spare
    degrees = np.divide((of_cases + training) ** 2, spread, out=np.full_like(spread, spare), where=spread > 0)
    return Error(of_cases, training, np.maximum(degrees, seeds - 1))


def paired_test(
    differences: FloatArray,
    cases: IntArray,
    folds: IntArray,
    names: Sequence[str] | None = None,
    classes: IntArray | None = None,
) -> PairedTest:
    """Two-sided t test of no difference whose standard error contains cases and training seeds.

    Cases and seeds are crossed random effects: every seed's models answer every case. With query i's weight a_i in the
    mean (1/N; for a mean of K classes' means 1/(K·n_class)), w_c = Σ_{i∈c} a_i, H = Σ_c w_c² and d_is the difference
    by seed s's two models::

        D_s     = Σ_i a_i d_is                       D = mean_s D_s
        u_sc    = Σ_{i∈c} a_i (d_is − D_s)           u_c = mean_s u_sc
        V_seeds = var_s(D_s) / S                     S − 1 degrees of freedom
        V_cases = Σ_c u_c² / (1 − H)                 ν_cases = min(1/H − 1, 2(S − 1)²)
        V_both  = Σ_sc (u_sc − u_c)² / (S(S − 1)(1 − H))
        SE²     = V_cases + max(V_seeds − V_both, 0)
        ν       = SE⁴ / (V_seeds²/(S − 1) + V_cases²/ν_cases), at least S − 1;     interval D ± t_ν·SE

    V_cases is the cluster-robust variance given these models, V_both the part of it that single models make of single
    cases. V_both is expected in V_cases and in V_seeds: as in multi-reader studies (Hillis 2007, Stat. Med. 26:596),
    with training seeds for readers, it is subtracted once; for balanced data this is the mixed model's REML estimate.
    H replaces 1/C for cases of unequal size. The bound 2(S − 1)² on ν_cases is ours, from the simulation (**R**):
    Satterthwaite's ν is too large where few seeds agree by chance. For means of classes, u_sc is the linearised ratio.

    D_s is taken over all folds: folds whose models act alike (equal seeds, or one pre-training) do not count as
    independent, at the price of S − 1 degrees of freedom for seeds, however many folds there are.

    Args:
        differences: row minus baseline, each from the same seed, float64 ``[S, N]``; a query that is NaN with any seed
            was not asked and takes no part.
        cases: case of each query, int64 ``[N]``; a case lies in one fold.
        folds: fold of each query, int64 ``[N]``, >= 0.
        names: of the folds, for ``by_training``; default: their numbers.
        classes: class of each query, int64 ``[N]``, where the mean is the mean of the classes' means.

    Raises:
        DataError: the shapes do not fit, a difference is infinite, a case lies in two folds, or a fold has no name.
    """
    shapes = [one.shape for one in (cases, folds, classes) if one is not None]
    if differences.ndim != 2 or set(shapes) != {differences.shape[1:]}:
        raise DataError(
            f"differences are [seeds, queries], cases and folds (and classes) [queries]; given {differences.shape} and "
            f"{shapes}"
        )
    last = len(names) - 1 if names is not None else folds.max(initial=0)
    if ((folds < 0) | (folds > last)).any():
        raise DataError(f"folds are numbered from 0 to {last}; given {folds.min()} to {folds.max()}")
    known = ~np.isnan(differences).any(axis=0)
    found, place, case = np.unique(cases[known], return_index=True, return_inverse=True)
    fold = folds[known][place]
    if (fold[case] != folds[known]).any():
        raise DataError("a case lies in two folds: its queries must be answered by the same models")
    nan, queries = math.nan, int(known.sum())
    if not queries or not len(differences):
        return PairedTest(nan, nan, nan, nan, 0, 0, None)
    strata = None if classes is None else classes[known]
    by_case = [per_case(one, cases[known], strata) for one in differences[:, known]]
    by_seed, parts, shares = influences(np.stack([sums for sums, _ in by_case]), by_case[0][1])
    mean = float(by_seed.mean())
    if len(differences) < MIN_SEEDS or not is_estimable(by_case[0][1]):
        return PairedTest(mean, nan, nan, nan, queries, len(found), None)
    error = crossed_error(by_seed, parts, shares)
    by_training = {}
    for code in np.unique(fold):
        within = by_seed + parts[:, fold == code].sum(axis=1) / shares[fold == code].sum()
        by_training[str(code) if names is None else names[code]] = tuple((within.round(12) + 0.0).tolist())
    variance = SeedVariance(
        math.sqrt(error.cases), math.sqrt(error.training), float(error.degrees), by_training
    )
    p = float(error.p(by_seed.mean()))
    reach = float(error.reach)
    if not reach > 1e-12 * abs(mean):
        reach = nan
    return PairedTest(mean, mean - reach, mean + reach, p, queries, len(found), variance)


def fold_seed(seed: int, fold: int) -> int:
    """Training seed of fold 0, 1, … where a grid says ``seed``, in [0, 1000): folds do not share what one seed does."""
    return seed + _FOLDS_APART * fold


def seed_of_grid(training_seed: int, fold: int) -> int:
    """Seed that a grid says, from a fold's training seed: the inverse of ``fold_seed``."""
    return training_seed - _FOLDS_APART * fold
