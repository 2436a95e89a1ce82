"""The concept graph: image –has_attribute→ CUI –is_a→ CUI, held as sparse matrices.

Source: NB-CLIP supplement (nodes and edges); hops are our own option, see docs/methods.md#graph. The paper's ablations
are reached from here: the full graph, ``has_attribute`` only (``ontology=None``), and noise (a scorer).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from kg_targets.ontology import Ontology
from kg_targets.ontology.concept import KIND_GROUPS

Edge = tuple[str, str, str]


@dataclass(frozen=True)
class ConceptGraph:
    """Images, the concepts their captions assert, and everything those concepts are.

    Shapes: N images, C concepts (asserted ones and their ancestors).
    """

    concepts: list[str]
    """CUIs in ascending order; the column order of every matrix here and of sparse factors."""
    has_attribute: sparse.csr_array
    """float64 [N, C]: 1 where the image's caption asserts the concept (negated mentions do not assert), or the weight
    of what it holds possible."""
    closure: sparse.csr_array
    """float64 [C, C]: 1 where the column is the row's concept itself or, for asserted concepts, an ancestor."""
    edges: list[Edge]
    """(child, relation, parent) between concepts of the graph, sorted."""

    @property
    def images(self) -> int:
        """N, the number of images."""
        return int(self.has_attribute.shape[0])

    @cached_property
    def meanings(self) -> NDArray[np.int64]:
        """int64 [C]: for each concept, the first column of its group of equal meaning."""
        return representatives(self.concepts, self.edges)

    @cached_property
    def attributes(self) -> sparse.csr_array:
        """``has_attribute`` with CUIs of equal meaning as one concept, at the first one's column and largest weight."""
        if np.array_equal(self.meanings, np.arange(len(self.concepts))):
            return self.has_attribute
        entries, size = self.has_attribute.tocoo(), max(len(self.concepts), 1)
        keys, group = np.unique(
            entries.row.astype(np.int64) * size + self.meanings[entries.col], return_inverse=True
        )
        weights = np.zeros(len(keys))
        np.maximum.at(weights, group.reshape(-1), entries.data)
        return sparse.csr_array((weights, (keys // size, keys % size)), shape=self.has_attribute.shape)

    @classmethod
    def build(
        cls,
        asserted: Sequence[Sequence[str]],
        ontology: Ontology | None,
        max_hops: int | None = None,
        relations: Sequence[str] = ("is_a",),
        halved: Sequence[Collection[str]] | None = None,
    ) -> "ConceptGraph":
        """Graph of the images' concepts with their ancestors.

        Args:
            asserted: for each image, the CUIs its caption asserts; order and repetition do not matter.
            ontology: where ``is_a`` comes from; ``None`` keeps ``has_attribute`` only ("UMLS without ontology").
            max_hops: longest path followed, in edges; ``None`` takes the whole ancestor closure.
            relations: that lead to ancestors: ``is_a``, or ``part_of`` as well.
            halved: for each image, those of its CUIs that weigh ½; ``None`` for none.
        """
        used = sorted({cui for cuis in asserted for cui in cuis})
        if ontology is None:
            concepts, hops, edges = used, sparse.eye_array(len(used), format="csr"), []
        else:
            concepts, hops = ontology.ancestor_matrix(used, max_hops, relations)
            edges = ontology.edges(concepts, relations)
        column = {cui: index for index, cui in enumerate(concepts)}
        return cls(
            concepts, _incidence(asserted, column, halved), _closure(used, concepts, hops, edges), edges
        )


def _incidence(
    asserted: Sequence[Sequence[str]], column: dict[str, int], halved: Sequence[Collection[str]] | None
) -> sparse.csr_array:
    rows = [sorted({column[cui] for cui in cuis}) for cuis in asserted]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    indices = np.fromiter((index for row in rows for index in row), dtype=np.int64, count=int(indptr[-1]))
    weights = np.ones(len(indices))
    for row, cuis in enumerate(halved or ()):
        if cuis:
            part = slice(indptr[row], indptr[row + 1])
            weights[part][np.isin(indices[part], [column[cui] for cui in cuis])] = 0.5
    return sparse.csr_array((weights, indices, indptr), shape=(len(rows), len(column)))


def _closure(
    used: list[str], concepts: list[str], hops: sparse.csr_array, edges: list[Edge]
) -> sparse.csr_array:
    """Square [C, C] from hops [len(used), C]: ancestors that no caption asserts have their own column only.

    CUIs that mean the same (``same_as``) share the column of the first of them, so that a term to which its source gave
    eighteen CUIs does not count eighteen times.
    """
    placed = np.searchsorted(concepts, used)
    rest = np.setdiff1d(np.arange(len(concepts)), placed)
    pairs = hops.tocoo()
    rows = np.concatenate([placed[pairs.row], rest]).astype(np.int64)
    columns = representatives(concepts, edges)[np.concatenate([pairs.col, rest])]
    rows, columns = np.unique(np.stack([rows, columns]), axis=1)
    shape = (len(concepts), len(concepts))
    closure = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    closure.sort_indices()
    return closure


def representatives(concepts: list[str], edges: list[Edge]) -> NDArray[np.int64]:
    """For each concept, the first column of its group of equal meaning; int64 [C]."""
    pairs = [(child, parent) for child, relation, parent in edges if relation == "same_as"]
    ends = np.searchsorted(concepts, np.asarray(pairs, dtype=str).reshape(-1, 2))
    shape = (len(concepts), len(concepts))
    links = sparse.csr_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=shape)
    _, group = sparse.csgraph.connected_components(links, directed=False)
    _, first = np.unique(group, return_index=True)
    return np.asarray(first[group], dtype=np.int64)


def coverage(has_attribute: sparse.csr_array, kinds: ArrayLike) -> dict[str, float]:
    """Share of images, in [0, 1], that assert a concept of each group of kinds, of any group, and of all three.

    Args:
        has_attribute: [N, C], not 0 where the image asserts the concept.
        kinds: kind of each concept, length C.
    """
    columns = {group: np.flatnonzero(np.isin(kinds, members)) for group, members in KIND_GROUPS.items()}
    has = {group: has_attribute[:, chosen].sum(axis=1) > 0 for group, chosen in columns.items()}
    stacked = np.stack(list(has.values()))
    told = {**has, "any of them": stacked.any(axis=0), "all three": stacked.all(axis=0)}
    return {name: float(images.mean()) for name, images in told.items()}
