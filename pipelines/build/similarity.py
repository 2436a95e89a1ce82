"""Quantiles of the similarities between different cases: what a soft-target threshold is chosen from."""

from collections.abc import Sequence

import numpy as np

from kg_targets.scoring import Factors
from kg_targets.scoring.factors import pair_similarities

PAIRS = 1_000_000
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)


def off_diagonal_quantiles(factors: Factors, group_ids: Sequence[str]) -> dict[str, float]:
    """Quantiles of S_ij over one million random ordered pairs of known images of different cases, fixed seed.

    Pairs of one case are left out: training masks them, so they say nothing about what a threshold does. A data set
    with fewer than two known cases has no such pair: all quantiles are 0.
    """
    known = np.flatnonzero(factors.known)
    groups = np.unique(np.asarray(group_ids, dtype=object), return_inverse=True)[1]
    values = np.zeros(0)
    if len(np.unique(groups[known])) > 1:
        generator = np.random.default_rng(0)
        left, right = generator.choice(known, PAIRS), generator.choice(known, PAIRS)
        different = groups[left] != groups[right]
        values = pair_similarities(factors.matrix, left[different], right[different])
    return {f"p{round(100 * q)}": float(np.quantile(values, q)) if len(values) else 0.0 for q in QUANTILES}
