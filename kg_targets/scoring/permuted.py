"""Belief: the right similarities, about the wrong images. A control for soft targets without meaning.

The ontology scorer's factors are handed on along one random cycle through the known images: the spectrum of S is
untouched, no image keeps its own factor, and knowledge cannot help any more. Images are permuted, not cases: the
near-identical factors of one case end up in different cases, so similarities between cases are higher than before.
"""

import numpy as np
from scipy import sparse

from kg_targets.scoring import ontology
from kg_targets.scoring.factors import Factors, ScoringInput


def score(data: ScoringInput) -> Factors:
    """Sparse factors over concepts, float32 [N, C]; the ontology scorer's rows, permuted among known images."""
    original = ontology.score(data)
    order = np.random.default_rng(data.seed).permutation(np.flatnonzero(original.known))
    source = np.arange(data.graph.images)
    source[order] = np.roll(order, 1)
    return Factors(sparse.csr_array(original.matrix[source]), original.known)
