"""How many concepts the captions of a query and of a gallery image share, a chunk of queries at a time.

n(q, r) = |C_q ∩ C_r|, C the concepts that a caption asserts. What the variants of CUI@K need of it is kept small:
the counts of the images found, and for the whole gallery how many images share at least t concepts, t = 1, 2, ….
A sum over the K largest counts is Σ_t min(K, #{r: n(q, r) ≥ t}), so nothing is ever sorted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.retrieval.retrieval import CHUNK, GroupMembers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


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
