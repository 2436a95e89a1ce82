"""How informative each concept is, counted once on the fit split (usually train) and reused for every other split.

    IC(a)  = −ln((n_a + 1)/(N + 1)), n_a = captions that assert a or a descendant of it, N = captions of the fit split
    idf(c) = −ln((d_c + 1)/(N + 1)), d_c = captions that assert c itself

CUIs of equal meaning (``same_as``) are one concept: a caption that asserts any of them counts, once.

A concept that the fit split never saw (n_a = 0) takes its IC from its place in the hierarchy: with L = ln(N + 1), the
value of a count of 0, and the intrinsic content h ∈ [0, 1] (``kg_targets.ontology.intrinsic``),

    IC(u) = max_s { L − (L − IC(s))·(1 − h(u))/(1 − h(s)) }, s = the ancestors of u that the fit split saw, and a root
                                                             above all with IC = h = 0

so that a leaf has L, a concept that tells as little as its seen ancestor has that one's IC, and nothing tells less
than what it is a kind of. With L for all of them, a small fit would give "disease" the weight of "meningioma" and find
all diseases alike.
idf(c) = max(IC(c), L·h(c)) where d_c = 0.

Sources: docs/methods.md#ontology-scorer (our reconstruction; IC after Resnik 1995 with add-one smoothing; intrinsic
content by Sánchez et al. 2011, its join with the counts is ours).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kg_targets.graph import ConceptGraph
from kg_targets.ontology import Ontology

Floats = NDArray[np.float64]

_ROWS_AT_ONCE = 65_536
TRUSTED_CAPTIONS = 400
"""Captions from which on a fit split is trusted: the IC of a concept that one caption in a hundred has is then known to
half a nat, its standard error being √((1 − p)/(N·p)) nats (delta method on the share p of N captions)."""


@dataclass(frozen=True)
class ConceptStatistics:
    """Counts of the fit split."""

    captions: int
    """N, all captions of the fit split, those without any concept included."""
    asserted: Mapping[str, int] = field(default_factory=dict)
    """CUI to d_c."""
    covered: Mapping[str, int] = field(default_factory=dict)
    """CUI to n_a."""
    unseen_ic: Mapping[str, float] = field(default_factory=dict)
    """CUI to IC, nats, read where n_a = 0; L for what is not listed."""
    unseen_idf: Mapping[str, float] = field(default_factory=dict)
    """CUI to idf, nats, read where d_c = 0; L for what is not listed."""

    @classmethod
    def fit(cls, graph: ConceptGraph) -> "ConceptStatistics":
        """Count over a graph of the fit split; one pass over its non-zeros, some rows at a time."""
        names, size = graph.concepts, len(graph.concepts)
        direct = np.bincount(graph.attributes.indices, minlength=size)
        covered = np.zeros(size, dtype=np.int64)
        for start in range(0, graph.images, _ROWS_AT_ONCE):
            reached = graph.attributes[start : start + _ROWS_AT_ONCE] @ graph.closure
            covered += np.bincount(reached.indices[reached.data > 0], minlength=size)
        # CUIs of equal meaning share the column, and so the count, of the first of them.
        return cls(
            captions=graph.images,
            asserted=dict(zip(names, direct[graph.meanings].tolist(), strict=True)),
            covered=dict(zip(names, covered[graph.meanings].tolist(), strict=True)),
        )

    @property
    def largest(self) -> float:
        """L = ln(N + 1), the IC and idf of a count of 0, nats."""
        return float(np.log(self.captions + 1.0))

    def with_unseen(
        self, graph: ConceptGraph, ontology: Ontology, relations: Sequence[str]
    ) -> "ConceptStatistics":
        """The same counts with IC and idf of the graph's concepts that the fit split never saw, by their place.

        Args:
            graph: of another split than the fit split, by the same ontology and relations.
            ontology: whose hierarchy places the concepts.
            relations: that the graph follows.
        """
        named = np.bincount(graph.has_attribute.indices, minlength=len(graph.concepts)) > 0
        wanted = [
            cui
            for cui, asserted in zip(graph.concepts, named, strict=True)
            if not self.covered.get(cui, 0) or (asserted and not self.asserted.get(cui, 0))
        ]
        if not wanted:
            return self
        nodes, hops = ontology.ancestor_matrix(wanted, None, relations)
        place = ontology.intrinsic_content(nodes, relations)
        content = self.information_content(nodes)
        seen = np.array([self.covered.get(cui, 0) > 0 for cui in nodes])
        itself, top = np.searchsorted(nodes, wanted), self.largest
        pairs = hops.tocoo()
        join = seen[pairs.col] & (place[pairs.col] < 1.0)
        row, ancestor = pairs.row[join], pairs.col[join]
        slack = (1.0 - place[itself[row]]) / (1.0 - place[ancestor])
        ic = top * place[itself]
        np.maximum.at(ic, row, top - (top - content[ancestor]) * slack)
        ic = np.where(seen[itself], content[itself], ic)
        idf = np.maximum(ic, top * place[itself])
        return replace(
            self,
            unseen_ic={**self.unseen_ic, **dict(zip(wanted, ic.tolist(), strict=True))},
            unseen_idf={**self.unseen_idf, **dict(zip(wanted, idf.tolist(), strict=True))},
        )

    def information_content(self, cuis: Sequence[str]) -> Floats:
        """IC of each CUI, nats, [len(cuis)]."""
        return self._surprise(cuis, self.covered, self.unseen_ic)

    def inverse_document_frequency(self, cuis: Sequence[str]) -> Floats:
        """Idf of each CUI, nats, [len(cuis)]."""
        return self._surprise(cuis, self.asserted, self.unseen_idf)

    def _surprise(
        self, cuis: Sequence[str], counts: Mapping[str, int], unseen: Mapping[str, float]
    ) -> Floats:
        found = np.array([counts.get(cui, 0) for cui in cuis], dtype=np.float64)
        # abs turns the −0.0 of a concept that every caption has into 0.0.
        surprise = np.abs(np.log((found + 1.0) / (self.captions + 1.0)))
        places = np.array([unseen.get(cui, self.largest) for cui in cuis], dtype=np.float64)
        return np.where(found > 0, surprise, places)
