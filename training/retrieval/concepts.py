"""CUI@K of every query in its named variants (methods.md §1.5): do the images found speak of the query's concepts?

The supplement (S) names the measure and does not define it: all variants are ours (R). C are the concepts that a
caption asserts, n(q, r) = |C_q ∩ C_r|, r_1 … r_K the images found, G the size of the query's gallery (its own group
excluded, for the best possible list as well); where fewer than K are left, K is their number.

name    measure                                                      expected of a random order
oracle  Σ_k n(q, r_k) / the largest such sum of any K images         K·mean_r n(q, r) / the same
hits    mean_k [n(q, r_k) > 0]                                       share of the gallery with n(q, r) > 0
share   mean_k n(q, r_k) / |C_q|                                     mean_r n(q, r) / |C_q|
jaccard mean_k n(q, r_k) / |C_q ∪ C_{r_k}|                           mean_r of the same
union   |C_q ∩ (C_{r_1} ∪ … ∪ C_{r_K})| / |C_q|                      mean_{c ∈ C_q} 1 − C(G − m_c, K) / C(G, K)
ndcg    Σ_k n(q, r_k)/log₂(k + 1) / the same of the best possible    mean_r n(q, r)·Σ_k 1/log₂(k + 1) / the same
        order

m_c: gallery images that assert c. ``oracle`` is the default: it is 1 for a perfect list at every K, and rises with K
as the paper's does. A query that shares no concept with any gallery image has no score in any variant: NaN, so that
all variants rest on the same queries.

What the variants need of n(q, r) is kept small: the counts of the images found, and for the whole gallery how many
images share at least t concepts, t = 1, 2, …. A sum over the K largest counts is Σ_t min(K, #{r: n(q, r) ≥ t}), so
nothing is ever sorted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.retrieval.metrics import Scores, none_of, ratio
from training.retrieval.ranking import CHUNK, GroupMembers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Measure = Callable[["Overlaps", int], FloatArray]


@dataclass(frozen=True)
class Concepts:
    """Which image asserts which concept, and which images are in no gallery of a query's."""

    matrix: sparse.csr_array
    """float32 ``[N, C]``, 0 or 1."""
    groups: IntArray
    """A query's group is not in its gallery; ``[N]``."""

    @cached_property
    def sizes(self) -> IntArray:
        """Concepts of each image, ``[N]``."""
        return np.diff(self.matrix.indptr).astype(np.int64)

    @cached_property
    def transposed(self) -> sparse.csr_array:
        """``[C, N]``."""
        return self.matrix.T.tocsr()

    @cached_property
    def members(self) -> GroupMembers:
        """Columns of each group."""
        return GroupMembers(self.groups)

    @cached_property
    def others(self) -> sparse.csr_array:
        """``[N, C]``: for every concept of an image, how many images outside its group assert it, plus 1.

        Plus 1 so that no stored entry is 0; the pattern is the matrix's.
        """
        _, codes = np.unique(self.groups, return_inverse=True)
        everyone = (np.ones(len(codes)), codes, np.arange(len(codes) + 1))
        in_group = sparse.csr_array(everyone, shape=(len(codes), codes.max(initial=0) + 1))
        own = sparse.csr_array((in_group @ (in_group.T @ self.matrix)).multiply(self.matrix))
        own.sort_indices()
        in_all = np.bincount(self.matrix.indices, minlength=self.matrix.shape[1])
        return sparse.csr_array(
            (in_all[own.indices] - own.data + 1, own.indices, own.indptr), shape=own.shape
        )

    def chunks(self, order: IntArray, chunk: int = CHUNK) -> Iterator["Overlaps"]:
        """Overlaps of ``order``'s queries, a chunk at a time.

        Args:
            order: ranked rows, int64 ``[N, K]``, −1 = none left; K may be 0.
            chunk: queries at a time.
        """
        for start in range(0, self.matrix.shape[0], chunk):
            yield Overlaps(self, slice(start, start + chunk), order[start : start + chunk])


@dataclass(frozen=True)
class Overlaps:
    """A chunk of B queries: what they share with the images found, and with the whole gallery."""

    concepts: Concepts
    rows: slice
    """Which queries."""
    order: IntArray
    """Images found, ``[B, K]``, −1 = none left."""

    @cached_property
    def query_sizes(self) -> FloatArray:
        """|C_q|, ``[B]``."""
        return self.concepts.sizes[self.rows].astype(np.float64)

    @cached_property
    def found(self) -> NDArray[np.bool_]:
        """Which places of the lists are filled, ``[B, K]``."""
        return self.order >= 0

    @cached_property
    def found_sizes(self) -> FloatArray:
        """|C_r| of the images found, ``[B, K]``."""
        return self.concepts.sizes[self.order].astype(np.float64)

    @cached_property
    def gallery(self) -> IntArray:
        """G: images in each query's gallery, ``[B]``."""
        own: IntArray = np.bincount(self._own[0], minlength=len(self.order))
        return self.concepts.sizes.size - own

    @cached_property
    def shared(self) -> FloatArray:
        """n(q, r_k) of the images found, ``[B, K]``; 0 where none is left."""
        counts = np.zeros(self.order.shape)
        counts[self.found] = np.bincount(self._in_both[0], minlength=int(self.found.sum()))
        return counts

    @cached_property
    def at_least(self) -> IntArray:
        """#{r in the gallery: n(q, r) ≥ t}, ``[B, T]``, column t − 1; T is the largest count of the chunk."""
        (queries, counts, _), (own_queries, own_counts, _) = self.entries, self.own_pairs
        top = int(counts.max(initial=1))
        exactly = np.bincount(queries * (top + 1) + counts, minlength=len(self.order) * (top + 1))
        exactly -= np.bincount(own_queries * (top + 1) + own_counts, minlength=len(exactly))
        from_top: IntArray = np.cumsum(exactly.reshape(-1, top + 1)[:, :0:-1], axis=1)
        return from_top[:, ::-1]

    @cached_property
    def entries(self) -> tuple[IntArray, IntArray, IntArray]:
        """Query, n(q, r) and r of every pair that shares a concept, those of the query's own group among them."""
        product = self._product
        queries = np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
        return queries, product.data.astype(np.int64), product.indices

    @cached_property
    def own_pairs(self) -> tuple[IntArray, IntArray, IntArray]:
        """The part of ``entries`` that is not in the gallery: query, n(q, r) and r of the query's own group."""
        queries, images = self._own
        pairs, _ = self._common(queries, images)
        return queries, np.bincount(pairs, minlength=len(queries)), images

    @cached_property
    def first_ranks(self) -> tuple[IntArray, IntArray]:
        """Query and first rank (from 1) of every concept of a query that an image found has, too; ``[P]`` each."""
        pairs, concepts = self._in_both
        queries, places = np.nonzero(self.found)
        width = self.concepts.matrix.shape[1]
        keys, first = np.unique(
            queries[pairs] * width + concepts, return_index=True
        )  # in the order of the ranks
        return keys // width, places[pairs][first] + 1

    @cached_property
    def concept_counts(self) -> tuple[IntArray, FloatArray]:
        """Query and number of gallery images that assert it, for every concept of a query; ``[P]`` each."""
        others = self.concepts.others[self.rows]
        return np.repeat(np.arange(others.shape[0]), np.diff(others.indptr)), others.data - 1

    @cached_property
    def _product(self) -> sparse.csr_array:
        return self.concepts.matrix[self.rows] @ self.concepts.transposed

    @cached_property
    def _in_both(self) -> tuple[IntArray, IntArray]:
        return self._common(np.nonzero(self.found)[0], self.order[self.found])

    def _common(self, queries: IntArray, images: IntArray) -> tuple[IntArray, IntArray]:
        """Number of the pair and concept, for every concept that both of a pair assert."""
        matrix = self.concepts.matrix
        starts, counts = matrix.indptr[images], self.concepts.sizes[images]
        pairs = np.repeat(np.arange(len(images)), counts)
        within = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
        concepts = matrix.indices[np.repeat(starts, counts) + within]
        both = self._asked[queries[pairs], concepts]
        return pairs[both], concepts[both]

    @cached_property
    def _asked(self) -> NDArray[np.bool_]:
        """Which query asserts which concept, ``[B, C]``."""
        return np.asarray(self.concepts.matrix[self.rows].astype(bool).toarray())

    @cached_property
    def _own(self) -> tuple[IntArray, IntArray]:
        return self.concepts.members.of(self.concepts.groups[self.rows])


@dataclass(frozen=True)
class Variant:
    """One reading of CUI@K."""

    title: str
    """What follows "CUI@K" in a table."""
    measure: Measure
    """Of the lists found, ``[B]``."""
    chance: Measure
    """Its exact expectation under a random order, ``[B]``."""


def _jaccard_by_chance(chunk: Overlaps, k: int) -> FloatArray:
    def total(queries: IntArray, counts: IntArray, images: IntArray) -> FloatArray:
        union = chunk.query_sizes[queries] + chunk.concepts.sizes[images] - counts
        summed = np.bincount(queries, counts / np.maximum(union, 1), minlength=len(chunk.order))
        return summed.astype(np.float64)

    return ratio(total(*chunk.entries) - total(*chunk.own_pairs), chunk.gallery)


def _union(chunk: Overlaps, k: int) -> FloatArray:
    queries, ranks = chunk.first_ranks
    return ratio(np.bincount(queries[ranks <= k], minlength=len(chunk.order)), chunk.query_sizes)


def _union_by_chance(chunk: Overlaps, k: int) -> FloatArray:
    queries, counts = chunk.concept_counts
    covered = 1 - none_of(chunk.gallery[queries], counts, k)
    return ratio(np.bincount(queries, covered, minlength=len(chunk.order)), chunk.query_sizes)


VARIANTS = {  # the formulas stand at the top of this file, in this order
    "oracle": Variant(
        "",
        lambda c, k: ratio(c.shared[:, :k].sum(axis=1), _best_sum(c, k)),
        lambda c, k: ratio(_mean_shared(c) * np.minimum(k, c.gallery), _best_sum(c, k)),
    ),
    "hits": Variant(
        "hit share",
        lambda c, k: _mean_found(c, c.shared > 0, k),
        lambda c, k: ratio(c.at_least[:, 0], c.gallery),
    ),
    "share": Variant(
        "|q∩r|/|q|",
        lambda c, k: ratio(_mean_found(c, c.shared, k), c.query_sizes),
        lambda c, k: ratio(_mean_shared(c), c.query_sizes),
    ),
    "jaccard": Variant(
        "Jaccard",
        lambda c, k: _mean_found(
            c, c.shared / np.maximum(c.query_sizes[:, None] + c.found_sizes - c.shared, 1), k
        ),
        _jaccard_by_chance,
    ),
    "union": Variant("union coverage", _union, _union_by_chance),
    "ndcg": Variant(
        "NDCG",
        lambda c, k: ratio((c.shared[:, :k] * _discounts(k)).sum(axis=1), _best_dcg(c, k)),
        lambda c, k: ratio(_mean_shared(c) * _summed_discounts(k)[np.minimum(k, c.gallery)], _best_dcg(c, k)),
    ),
}


def cui_at(
    order: IntArray,
    cuis: sparse.csr_array,
    groups: IntArray,
    depths: Sequence[int],
    variants: Sequence[str] = ("oracle",),
    chunk: int = CHUNK,
) -> dict[str, Scores]:
    """CUI@K of every query.

    Args:
        order: ranked rows, int64 ``[N, >= max(depths)]``, −1 = none left.
        cuis: image × concept, 0 or 1, ``[N, C]``.
        groups: images of the query's group are in nobody's best list for it, either, ``[N]``.
        depths: the Ks.
        variants: names in ``VARIANTS``.
        chunk: queries scored at a time.

    Returns:
        Variant to K to float64 ``[N]`` in [0, 1]; NaN where no gallery image shares a concept with the query.
    """
    return _collect(order, cuis, groups, depths, {name: VARIANTS[name].measure for name in variants}, chunk)


def cui_by_chance(
    cuis: sparse.csr_array,
    groups: IntArray,
    depths: Sequence[int],
    variants: Sequence[str] = ("oracle",),
    chunk: int = CHUNK,
) -> dict[str, Scores]:
    """What ``cui_at`` is expected to give for a gallery in random order, exactly; no draw."""
    nothing = np.empty((cuis.shape[0], 0), dtype=np.int64)
    return _collect(nothing, cuis, groups, depths, {name: VARIANTS[name].chance for name in variants}, chunk)


def _collect(
    order: IntArray,
    cuis: sparse.csr_array,
    groups: IntArray,
    depths: Sequence[int],
    measures: dict[str, Measure],
    chunk: int,
) -> dict[str, Scores]:
    scores = {name: {k: np.full(len(order), np.nan) for k in depths} for name in measures}
    for part in Concepts(cuis, groups).chunks(order, chunk):
        findable = part.at_least[:, 0] > 0
        for name, measure in measures.items():
            for k in depths:
                scores[name][k][part.rows] = np.where(findable, measure(part, k), np.nan)
    return scores


def _best_sum(chunk: Overlaps, k: int) -> FloatArray:
    best: FloatArray = np.minimum(chunk.at_least, k).sum(axis=1).astype(np.float64)
    return best


def _best_dcg(chunk: Overlaps, k: int) -> FloatArray:
    best: FloatArray = _summed_discounts(k)[np.minimum(chunk.at_least, k)].sum(axis=1)
    return best


def _mean_shared(chunk: Overlaps) -> FloatArray:
    return ratio(chunk.at_least.sum(axis=1), chunk.gallery)


def _mean_found(chunk: Overlaps, values: NDArray[Any], k: int) -> FloatArray:
    return ratio((values * chunk.found)[:, :k].sum(axis=1), chunk.found[:, :k].sum(axis=1))


def _discounts(k: int) -> FloatArray:
    discounts: FloatArray = 1 / np.log2(np.arange(k) + 2)
    return discounts


def _summed_discounts(k: int) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(_discounts(k))])
