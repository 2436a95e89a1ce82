"""P values that hold for other training seeds, too: a t test with seed variance in its error.

All cases of a fold are scored by the same two models, so a test over cases takes the seed variance of these models for
a property of the rows: two seeds of one row come out as different. Training runs from several seeds tell how large it
is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from training.errors import DataError
from training.statistics.intervals import FloatArray, IntArray, Interval


@dataclass(frozen=True)
class SeedVariance:
    """Parts of the standard error of a difference: sqrt(se_cases² + se_training²)."""

    se_cases: float
    """Part from cases: the same models on other cases, without what a model makes of single cases; shares of 1."""
    se_training: float
    """Part from seeds: other seeds on the same cases, what they make of single cases included; shares of 1."""
    degrees: float
    """Degrees of freedom of t, Welch–Satterthwaite, > 0."""
    by_training: Mapping[str, tuple[float, ...]]
    """Fold to D_fs, the difference that each seed's two models have there; folds with a query."""

    def agreeing(self, mean: float) -> tuple[int, int]:
        """In how many pairs of training runs the difference has the sign of ``mean``, and how many there are."""
        values = [value for fold in self.by_training.values() for value in fold]
        return sum(value * mean > 0 for value in values), len(values)


@dataclass(frozen=True)
class Estimate:
    """A mean difference with seed variance in its interval and its p value."""

    interval: Interval
    """D and D ± t·SE, 95 %."""
    p: float
    """Two-sided, of t = D/SE; NaN where SE cannot be estimated, or is 0 and D is not."""
    noise: SeedVariance | None
    """``None`` where there is no query, or no fold with two cases."""


def t_test(
    differences: FloatArray,
    cases: IntArray,
    folds: IntArray,
    names: Sequence[str],
    classes: IntArray | None = None,
) -> Estimate:
    """Two-sided t test of no difference whose standard error contains cases and training runs.

    With query i's weight a_i in the pooled mean (1/N; for a mean of K classes' means 1/(K·n_class)), fold weights
    w_f = Σ_{i∈f} a_i (= n_f/N) and d_is, the difference by seed s's two models::

        D_fs     = Σ_{i∈f} a_i d_is / w_f           D_f = mean_s D_fs           D = Σ_f w_f D_f
        V_seed  = Σ_f w_f² var_s(D_fs) / S
        V_case  = C/(C − F) · Σ_c u_c²                        u_c  = Σ_{i∈c} a_i (mean_s d_is − D_f)
        V_both  = C/(C − F) · Σ_c Σ_s r_cs² / (S(S − 1))      r_cs = Σ_{i∈c} a_i (d_is − mean_s d_is − D_fs + D_f)
        V_train = max(V_seed, V_both)                         ν_train = (S − 1)·(Σ w_f²)² / Σ w_f⁴
        V_cases = max(V_case − V_both, 0)                     ν_cases = C − F
        SE²     = V_train + V_cases                           ν = SE⁴ / (V_train²/ν_train + V_cases²/ν_cases)

    (C cases, F folds, var_s with S − 1.) V_seed is s² Σ w_f²/S with the pooled variance s², and ν_train is F(S − 1),
    where folds have equal weights; where they have not (a subset of cases), small folds are noisier, and pooling
    would charge the large ones for it. V_case is the exact cluster-robust variance rather than a bootstrap's: it needs
    no draws, centres within folds, where a model is shared, and has a counterpart for V_both. That is what single
    models make of single cases, and it is expected in V_case and in V_seed: as in multi-reader studies (Hillis 2007,
    Stat. Med. 26:596), with training runs for readers, it is taken out of the cases' part, lest it count twice. V_seed,
    from few training runs, can miss it by chance; the much surer V_both then bounds it, so that SE is never below
    sqrt(V_case), the error given these models. For means of classes, u_c is the linearised ratio. R (ours).

    The level holds in simulations; with an official split (F = 1) and two seeds, ν_train is 1, and it is 0.1 instead
    of 0.05. No part contains other folds, nor that the training parts of folds overlap.

    Args:
        differences: row minus baseline, each from the same seed, float64 ``[S, N]``, S >= 2; a query is NaN with every
            seed or with none, and takes no part then.
        cases: case of each query, int64 ``[N]``; a case lies in one fold.
        folds: fold of each query, int64 ``[N]``, places in ``names``.
        names: of the folds.
        classes: class of each query, int64 ``[N]``, where the mean is the mean of the classes' means.

    Raises:
        DataError: there is one seed only.
    """
    seeds = len(differences)
    if seeds < 2:
        raise DataError("one seed says nothing about seed variance: train at least two")
    known = ~np.isnan(differences).any(axis=0)
    if not known.any():
        nan = float("nan")
        return Estimate(Interval(nan, nan, nan, 0, 0), nan, None)
    by_query = differences[:, known]
    present, fold = np.unique(folds[known], return_inverse=True)
    found, case = np.unique(cases[known], return_inverse=True)
    kind = np.zeros(len(fold), dtype=np.int64)
    if classes is not None:
        kind = np.unique(classes[known], return_inverse=True)[1]
    sizes = np.bincount(kind)
    weights = 1 / (len(sizes) * sizes[kind])
    shares = np.bincount(fold, weights)

    by_fold = np.stack([np.bincount(fold, weights * one) for one in by_query]) / shares
    of_fold = by_fold.mean(axis=0)
    mean, queries = float(shares @ of_fold), int(known.sum())
    spare = len(found) - len(present)
    if spare < 1:
        return Estimate(Interval(mean, float("nan"), float("nan"), queries, len(found)), float("nan"), None)

    averaged = by_query.mean(axis=0)
    centred = averaged - (np.bincount(kind, averaged) / sizes)[kind]
    centred -= (np.bincount(fold, weights * centred) / shares)[fold]
    own = by_query - averaged - (by_fold - of_fold)[:, fold]
    of_case = np.bincount(case, weights * centred)
    both = sum(float((np.bincount(case, weights * one) ** 2).sum()) for one in own) / (seeds * (seeds - 1))
    both *= len(found) / spare
    of_cases = max(len(found) / spare * float(of_case @ of_case) - both, 0.0)
    training = max(float(shares**2 @ by_fold.var(axis=0, ddof=1)) / seeds, both)

    noise = SeedVariance(
        math.sqrt(of_cases),
        math.sqrt(training),
        _degrees(
            (training, (seeds - 1) * float((shares**2).sum() ** 2 / (shares**4).sum())), (of_cases, spare)
        ),
        {names[code]: tuple(by_fold[:, place].tolist()) for place, code in enumerate(present)},
    )
    error = math.sqrt(of_cases + training)
    reach = float(stats.t.ppf(0.975, noise.degrees)) * error
    if error > 1e-12 * abs(mean):
        p = 2 * float(stats.t.sf(abs(mean) / error, noise.degrees))
    else:  # a handful of answers that are all right and all wrong: no spread, which is not certainty
        p = float("nan") if mean else 1.0
    return Estimate(Interval(mean, mean - reach, mean + reach, queries, len(found)), p, noise)


def _degrees(*parts: tuple[float, float]) -> float:
    """Welch–Satterthwaite: of a sum of variances, each given with its own degrees of freedom."""
    total = sum(variance for variance, _ in parts)
    if not total:
        return min(degrees for _, degrees in parts)
    return 1 / sum((variance / total) ** 2 / degrees for variance, degrees in parts)
