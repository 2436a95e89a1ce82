"""How informative each concept is, counted once on the fit split (usually train) and reused for every other split.

IC(a) = −ln((n_a + 1)/(N + 1)), n_a = captions that assert a or a descendant of it, N = captions of the fit split.
idf(c) = −ln((d_c + 1)/(N + 1)), d_c = captions that assert c itself.
Source: docs/methods.md#ontology-scorer (our reconstruction; IC after Resnik 1995 with add-one smoothing). A concept
that the fit split never saw gets the largest value, ln(N + 1); one that every caption has gets 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
