"""Belief: none. Every image gets a random direction: the paper's "noise" row, random vectors instead of knowledge.

K_i is uniform on the sphere in 512 dimensions (the paper's embedding width), drawn from the image's id and the seed
alone, so that it depends neither on row order nor on the split.
Images without concepts stay unknown, as with knowledge.
"""

import numpy as np

from kg_targets.scoring.factors import Factors, ScoringInput
from kg_targets.store.digest import shuffle_key

DIMENSIONS = 512


def score(data: ScoringInput) -> Factors:
    """Dense factors, float32 [N, 512]."""
    known = np.diff(data.graph.has_attribute.indptr) > 0
    matrix = np.zeros((data.graph.images, DIMENSIONS), dtype=np.float32)
    for row in np.flatnonzero(known):
        digest = shuffle_key(data.seed, data.image_ids[row])
        generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "big")))
        vector = generator.standard_normal(DIMENSIONS)
        matrix[row] = vector / np.linalg.norm(vector)
    return Factors(matrix, known)
