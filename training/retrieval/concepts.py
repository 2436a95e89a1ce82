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

Sums over whole galleries go by how many images share at least t concepts with the query, t = 1, 2, …: a sum over the
K largest n(q, r) is Σ_t min(K, #{r: n(q, r) ≥ t}), so nothing is ever sorted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.retrieval.metrics import Scores, none_of, ratio
from training.retrieval.ranking import CHUNK
from training.statistics.intervals import FloatArray, IntArray

Measure = Callable[["Overlaps", int], FloatArray]


@dataclass(frozen=True)
class Overlaps:
    """A chunk of B queries: the concepts they share with the images found, and with all N images."""

    concepts: sparse.csr_array
    """Which image asserts which concept: float32 ``[N, C]``, 0 or 1."""
    by_concept: sparse.csr_array
    """The transposed ``concepts``."""
    groups: sparse.csr_array
    """Which image belongs to which group: float32 ``[N, number of groups]``, 0 or 1."""
    sizes: FloatArray
    """|C_r| of every image, ``[N]``."""
    rows: slice
    """Rows of the queries among the images."""
    order: IntArray
    """Images found, ``[B, K]``, −1 = none left."""

    @cached_property
    def queries(self) -> sparse.csr_array:
        """Concepts of the queries, ``[B, C]``."""
        return self.concepts[self.rows]

    @cached_property
    def query_sizes(self) -> FloatArray:
        """|C_q|, ``[B]``."""
        return self.sizes[self.rows]

    @cached_property
    def found(self) -> NDArray[np.bool_]:
        """Filled places of the lists, ``[B, K]``."""
        return self.order >= 0

    @cached_property
    def own(self) -> sparse.csr_array:
        """Images of the query's own group, itself among them: ``[B, N]``, 0 or 1."""
        return self.groups[self.rows] @ self.groups.T

    @cached_property
    def gallery(self) -> IntArray:
        """G: images in each query's gallery, ``[B]``."""
        return len(self.sizes) - np.diff(self.own.indptr).astype(np.int64)

    @cached_property
    def all_shared(self) -> NDArray[np.float32]:
        """n(q, r) of every image in the query's gallery, ``[B, N]``; 0 for its own group."""
        counts: NDArray[np.float32] = (self.queries @ self.by_concept).toarray()
        counts[self.own.nonzero()] = 0
        return counts

    @cached_property
    def shared(self) -> FloatArray:
        """n(q, r_k) of the images found, ``[B, K]``; 0 where none is left."""
        counts = np.take_along_axis(self.all_shared, np.maximum(self.order, 0), axis=1)
        return np.where(self.found, counts, 0.0).astype(np.float64)

    @cached_property
    def in_gallery(self) -> tuple[IntArray, IntArray, IntArray]:
        """Query, image and n(q, r) of every image in the query's gallery that shares a concept; ``[P]`` each."""
        queries, images = np.nonzero(self.all_shared)
        return queries, images, self.all_shared[queries, images].astype(np.int64)

    @cached_property
    def at_least(self) -> IntArray:
        """#{r in the gallery: n(q, r) ≥ t}, ``[B, T]``, column t − 1; T is the largest count of the chunk."""
        queries, _, counts = self.in_gallery
        width = int(counts.max(initial=1)) + 1
        exactly = np.bincount(queries * width + counts, minlength=len(self.order) * width).reshape(-1, width)
        from_top: IntArray = np.cumsum(exactly[:, :0:-1], axis=1)
        return from_top[:, ::-1]


def overlaps(
    cuis: sparse.csr_array, groups: IntArray, order: IntArray, chunk: int = CHUNK
) -> Iterator[Overlaps]:
    """Overlaps of all queries, a chunk at a time.

    Args:
        cuis: image × concept, 0 or 1, ``[N, C]``.
        groups: a query's group is not in its gallery, ``[N]``.
        order: ranked rows, int64 ``[N, K]``, −1 = none left; K may be 0.
        chunk: queries at a time.
    """
    _, codes = np.unique(groups, return_inverse=True)
    ones = np.ones(len(codes), dtype=np.float32)
    member = sparse.csr_array((ones, codes, np.arange(len(codes) + 1)))
    by_concept, sizes = cuis.T.tocsr(), np.diff(cuis.indptr).astype(np.float64)
    for start in range(0, len(codes), chunk):
        rows = slice(start, start + chunk)
        yield Overlaps(cuis, by_concept, member, sizes, rows, order[rows])


@dataclass(frozen=True)
class Variant:
    """One reading of CUI@K."""

    title: str
    """Its name in a table, after "CUI@K"."""
    measure: Measure
    """Score of the lists found, ``[B]``."""
    chance: Measure
    """Its exact expectation under a random order, ``[B]``."""


def _jaccard(chunk: Overlaps, k: int) -> FloatArray:
    union = chunk.query_sizes[:, None] + chunk.sizes[chunk.order] - chunk.shared
    return _mean_found(chunk, chunk.shared / np.maximum(union, 1), k)


def _jaccard_by_chance(chunk: Overlaps, k: int) -> FloatArray:
    queries, images, counts = chunk.in_gallery
    union = chunk.query_sizes[queries] + chunk.sizes[images] - counts
    return ratio(np.bincount(queries, counts / union, minlength=len(chunk.order)), chunk.gallery)


def _union(chunk: Overlaps, k: int) -> FloatArray:
    queries, places = np.nonzero(chunk.found[:, :k])
    ones = np.ones(len(queries), dtype=np.float32)
    listed = sparse.csr_array(
        (ones, (queries, chunk.order[queries, places])), shape=(len(chunk.order), len(chunk.sizes))
    )
    covered = (listed @ chunk.concepts).multiply(chunk.queries).tocsr()
    return ratio(np.diff(covered.indptr), chunk.query_sizes)


def _union_by_chance(chunk: Overlaps, k: int) -> FloatArray:
    own = (
        (chunk.own @ chunk.concepts).multiply(chunk.queries).tocoo()
    )  # an entry for every concept of a query
    asserting = np.diff(chunk.by_concept.indptr)[own.col] - own.data
    covered = 1 - none_of(chunk.gallery[own.row], asserting, k)
    return ratio(np.bincount(own.row, covered, minlength=len(chunk.order)), chunk.query_sizes)


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
    "jaccard": Variant("Jaccard", _jaccard, _jaccard_by_chance),
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
        groups: images of the query's own group are not in its gallery, ``[N]``.
        depths: the Ks.
        variants: names in ``VARIANTS``.
        chunk: queries scored at a time.

    Returns:
        Variant to K to float64 ``[N]`` in [0, 1]; NaN where no gallery image shares a concept with the query.
    """
    measures = {name: VARIANTS[name].measure for name in variants}
    return _collect(overlaps(cuis, groups, order, chunk), len(order), depths, measures)


def cui_by_chance(
    cuis: sparse.csr_array,
    groups: IntArray,
    depths: Sequence[int],
    variants: Sequence[str] = ("oracle",),
    chunk: int = CHUNK,
) -> dict[str, Scores]:
    """Exact expectation of ``cui_at`` for a gallery in random order; no draw."""
    nothing = np.empty((cuis.shape[0], 0), dtype=np.int64)
    measures = {name: VARIANTS[name].chance for name in variants}
    return _collect(overlaps(cuis, groups, nothing, chunk), len(nothing), depths, measures)


def _collect(
    parts: Iterator[Overlaps], queries: int, depths: Sequence[int], measures: dict[str, Measure]
) -> dict[str, Scores]:
    scores = {name: {k: np.full(queries, np.nan) for k in depths} for name in measures}
    for part in parts:
        findable = part.at_least[:, 0] > 0
        for name, measure in measures.items():
            for k in depths:
                scores[name][k][part.rows] = np.where(findable, measure(part, k), np.nan)
    return scores


def _best_sum(chunk: Overlaps, k: int) -> FloatArray:
    return np.asarray(np.minimum(chunk.at_least, k).sum(axis=1), dtype=np.float64)


def _best_dcg(chunk: Overlaps, k: int) -> FloatArray:
    return np.asarray(_summed_discounts(k)[np.minimum(chunk.at_least, k)].sum(axis=1))


def _mean_shared(chunk: Overlaps) -> FloatArray:
    return ratio(chunk.at_least.sum(axis=1), chunk.gallery)


def _mean_found(chunk: Overlaps, values: NDArray[Any], k: int) -> FloatArray:
    return ratio((values * chunk.found)[:, :k].sum(axis=1), chunk.found[:, :k].sum(axis=1))


def _discounts(k: int) -> FloatArray:
    return np.asarray(1 / np.log2(np.arange(k) + 2))


def _summed_discounts(k: int) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(_discounts(k))])
