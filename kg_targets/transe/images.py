"""Vectors of images from those of concepts: as a weighted sum, or as nodes placed among frozen concepts.

Inductive. h + r ≈ t for (image, has_attribute, concept) means image ≈ concept − r, hence for each seed

    u_i = norm(Σ_{c ∈ i} w_ic·(v_c − r)),  w_ic = idf(c), halved where the caption only holds c possible
    K_i = norm(u_i − ū),  ū = mean of the fit split's u

so that an image needs no fit of its own. r is longer than any v_c and common to all images: without centring the
median similarity of two MedPix images is .81, with it −.02. Transductive images are nodes (see ``placing``); their mean
is near 0 by itself, so they are left as they are.
A concept that the fit graph lacks gets the mean of its nearest ancestors there (CUIs of equal meaning count as
nearest), scaled to length 1; one without any such ancestor plays no part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.graph import ConceptGraph

Vectors = NDArray[np.float32]
CENTRE = "centre"
"""Name of ū among the fitted vectors; no CUI and no relation is called so."""
_NOTHING = 1e-6  # a length that is only rounding: of an image that is the mean itself


@dataclass(frozen=True)
class ConceptVectors:
    """A graph's concepts in the space of a fit."""

    matrix: Vectors
    """[C, seeds · dim]; rows of zeros for concepts without a vector."""
    borrowed: int
    """Concepts that images assert and that got their vector from ancestors."""
    missing: int
    """Concepts that images assert and that have none."""

    @classmethod
    def of(
        cls, graph: ConceptGraph, fitted: Mapping[str, Vectors], seeds: int, width: int
    ) -> "ConceptVectors":
        """Look concepts up by CUI, else borrow from ancestors; ``width`` is seeds · dim."""
        matrix = np.zeros((len(graph.concepts), width), dtype=np.float32)
        parents: dict[str, list[str]] = {}
        for child, _, parent in graph.edges:
            parents.setdefault(child, []).append(parent)
        borrowed = missing = 0
        asserted = np.bincount(graph.attributes.indices, minlength=len(graph.concepts)) > 0
        for column, cui in enumerate(graph.concepts):
            if cui in fitted:
                matrix[column] = fitted[cui]
            elif asserted[column]:
                if nearest := _nearest(cui, parents, fitted):
                    matrix[column] = unit_parts(np.stack([fitted[name] for name in nearest]).sum(0), seeds)
                borrowed, missing = borrowed + bool(nearest), missing + (not nearest)
        return cls(matrix, borrowed, missing)

    def sums(self, weights: sparse.csr_array, relation: Vectors, seeds: int) -> Vectors:
        """u, float32 [N, seeds · dim], not centred; zeros where no weighted concept has a vector.

        Args:
            weights: w, [N, C].
            relation: r of ``has_attribute``, [seeds · dim].
        """
        there = self.matrix.any(axis=1)
        moved = (self.matrix.astype(np.float64) - relation) * there[:, None]
        return unit_parts(np.asarray(weights @ moved), seeds)


def mean_of_known(sums: Vectors) -> Vectors:
    """ū over the rows that are not zeros, [seeds · dim]."""
    known = sums[sums.any(axis=1)]
    return np.asarray(known.sum(axis=0, dtype=np.float64) / max(len(known), 1), dtype=np.float32)


def centred(sums: Vectors, centre: Vectors, seeds: int) -> Vectors:
    """K of images, float32 [N, seeds · dim]; rows of zeros stay zeros."""
    moved = sums.astype(np.float64) - centre
    return unit_parts(moved * sums.any(axis=1)[:, None], seeds)


def unit_parts(vectors: NDArray[np.float32] | NDArray[np.float64], seeds: int) -> Vectors:
    """Rows [..., seeds · dim] whose parts have length 1/√seeds each; parts of zeros stay zeros."""
    parts = np.asarray(vectors, dtype=np.float64).reshape(*vectors.shape[:-1], seeds, -1)
    lengths = np.linalg.norm(parts, axis=-1, keepdims=True) * np.sqrt(seeds)
    scaled = np.divide(parts, lengths, out=np.zeros_like(parts), where=lengths > _NOTHING)
    return scaled.reshape(vectors.shape).astype(np.float32)


def _nearest(cui: str, parents: Mapping[str, Sequence[str]], fitted: Mapping[str, Vectors]) -> list[str]:
    """The known concepts on the first level above one that has any; none if there is no such level."""
    level, seen = [cui], {cui}
    while level:
        level = sorted({parent for child in level for parent in parents.get(child, ())} - seen)
        seen.update(level)
        if known := [name for name in level if name in fitted]:
            return known
    return []
