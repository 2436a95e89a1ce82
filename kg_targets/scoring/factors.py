"""What a scorer is given and what it returns.

How informative each concept is, counted once on the fit split (usually train) and reused for every other split.

IC(a) = −ln((n_a + 1)/(N + 1)), n_a = captions that assert a or a descendant of it, N = captions of the fit split.
idf(c) = −ln((d_c + 1)/(N + 1)), d_c = captions that assert c itself.
Source: docs/methods.md#ontology-scorer (our reconstruction; IC after Resnik 1995 with add-one smoothing). A concept
that the fit split never saw gets the largest value, ln(N + 1); one that every caption has gets 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.graph import ConceptGraph, representatives


@dataclass(frozen=True)
class ConceptStatistics:
    """Counts of the fit split."""

    captions: int
    """N, all captions of the fit split, those without any concept included."""
    asserted: Mapping[str, int] = field(default_factory=dict)
    """CUI to d_c."""
    covered: Mapping[str, int] = field(default_factory=dict)
    """CUI to n_a."""

    @classmethod
    def fit(cls, graph: ConceptGraph) -> "ConceptStatistics":
        """Count over a graph of the fit split; one pass over its non-zeros."""
        direct = np.asarray(graph.has_attribute.sum(axis=0)).astype(np.int64)
        reached = graph.has_attribute @ graph.closure
        covered = np.bincount(reached.indices[reached.data > 0], minlength=len(graph.concepts))
        # CUIs of equal meaning share the column, and so the count, of the first of them.
        covered = covered[representatives(graph.concepts, graph.edges)]
        names = graph.concepts
        return cls(
            captions=graph.images,
            asserted=dict(zip(names, direct.tolist(), strict=True)),
            covered=dict(zip(names, covered.tolist(), strict=True)),
        )

    def information_content(self, cuis: Sequence[str]) -> NDArray[np.float64]:
        """IC of each CUI, nats, [len(cuis)]."""
        return self._surprise([self.covered.get(cui, 0) for cui in cuis])

    def inverse_document_frequency(self, cuis: Sequence[str]) -> NDArray[np.float64]:
        """Idf of each CUI, nats, [len(cuis)]."""
        return self._surprise([self.asserted.get(cui, 0) for cui in cuis])

    def _surprise(self, counts: list[int]) -> NDArray[np.float64]:
        # abs turns the −0.0 of a concept that every caption has into 0.0.
        ratio = (np.asarray(counts, dtype=np.float64) + 1.0) / (self.captions + 1.0)
        surprise: NDArray[np.float64] = np.abs(np.log(ratio))
        return surprise


_PAIRS_AT_ONCE = 65_536


@dataclass(frozen=True)
class ScoringInput:
    """Everything a scorer may look at."""

    graph: ConceptGraph
    statistics: ConceptStatistics
    """Counts on the fit split, reused unchanged for every other split."""
    image_ids: list[str]
    """Length N, in the row order of the graph."""
    shrinkage: float = 0.0
    """λ ≥ 0 of the ontology scorer, nats: evidence below which an image counts as little known."""
    flat_ancestors: bool = False
    """Give every ancestor the same weight instead of its information content."""
    seed: int = 0
    """For the scorers that draw random numbers."""


@dataclass(frozen=True)
class Factors:
    """One unit vector K_i per known image; a row of zeros for an image about which nothing is known."""

    matrix: sparse.csr_array | NDArray[np.float32]
    """float32 [N, D]: sparse over concepts, or dense."""
    known: NDArray[np.bool_]
    """[N]; unknown images are similar to themselves only."""

    @property
    def is_sparse(self) -> bool:
        """Whether the columns are concepts (sparse) or abstract dimensions (dense)."""
        return bool(sparse.issparse(self.matrix))


def normalise_rows(matrix: sparse.csr_array, shrinkage: float = 0.0) -> sparse.csr_array:
    """Rows u scaled to u/√(‖u‖² + shrinkage²), norm 1 without shrinkage; rows of zeros stay zeros. float64 [R, D]."""
    norms = np.sqrt(matrix.multiply(matrix).sum(axis=1) + shrinkage**2)
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ matrix)


def pair_similarities(
    factors: sparse.csr_array | NDArray[np.float32], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float64]:
    """K_i·K_j of listed pairs of rows, float64 [P]; some pairs at a time, so that memory stays bounded."""
    parts = [np.zeros(0)]
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        rows, columns = left[start : start + _PAIRS_AT_ONCE], right[start : start + _PAIRS_AT_ONCE]
        if sparse.issparse(factors):
            products = factors[rows].astype(np.float64).multiply(factors[columns]).sum(axis=1)
        else:
            products = np.einsum("nd,nd->n", factors[rows].astype(np.float64), factors[columns])
        parts.append(np.asarray(products, dtype=np.float64).ravel())
    return np.concatenate(parts)
