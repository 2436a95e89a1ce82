"""Retrieval measures per query, as pure functions of ranked lists (methods.md §1.5).

P@K (S): the share of the first K images that have the query's label. The gallery holds labelled images only, and a
query without the label has no P@K: it is NaN and drops out of the mean, so P@K of two labels may rest on different
numbers of queries (retrieval.json gives each).

CUI@K (R): Σ_k n(q, r_k) divided by the largest value that any K images of the gallery could reach, where r_k is the
k-th image found for query q and n(q, r) counts the concepts that the captions of both assert. The supplement does
not define the measure. Ours counts each retrieved image's overlap (that of their union is another variant, *union
coverage*), so the best K images are exactly those with the K largest overlaps, and a perfect ranking scores 1 at
every K.

Lists hold −1 where the gallery had run out; K is then the number of images there are. A query with nothing to find
(no label, or no gallery image that shares a concept) has no score: NaN.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

IntArray = NDArray[np.int64]
Scores = dict[int, NDArray[np.float64]]


def precision_at(order: IntArray, labels: IntArray, depths: Sequence[int]) -> Scores:
    """P@K of every query.

    Args:
        order: ranked rows, int64 ``[N, >= max(depths)]``, −1 = none left.
        labels: label code per image, −1 where missing; an unlabelled gallery image is a miss.
        depths: the Ks.

    Returns:
        For each K, float64 ``[N]``; NaN where the query has no label or no list.
    """
    present = order >= 0
    right = present & (labels[order] == labels[:, None]) & (labels[:, None] >= 0)
    scores = {}
    for k in depths:
        found = present[:, :k].sum(axis=1)
        scores[k] = _ratio(right[:, :k].sum(axis=1), np.where(labels >= 0, found, 0))
    return scores


def precision_by_chance(labels: IntArray, cases: IntArray) -> NDArray[np.float64]:
    """Expected P@K, at any K, of a gallery of all labelled images in random order; float64 ``[N]``."""
    labelled = labels >= 0
    same_label = _sizes(labels, labelled)
    pairs = np.unique(np.stack([cases, labels]), axis=1, return_inverse=True)[1].ravel()
    relevant = same_label - _sizes(pairs, labelled)
    gallery = labelled.sum() - _sizes(cases, labelled)
    return _ratio(relevant, np.where(labelled, gallery, 0))


def cui_overlap_at(
    order: IntArray, cuis: sparse.csr_array, cases: IntArray, depths: Sequence[int], chunk: int = 512
) -> Scores:
    """Oracle-normalised CUI@K of every query.

    Args:
        order: ranked rows, int64 ``[N, >= max(depths)]``, −1 = none left.
        cuis: image × concept, 0 or 1, ``[N, C]``.
        cases: case of each image; the oracle may not use the query's own case either.
        depths: the Ks.
        chunk: queries scored at a time.

    Returns:
        For each K, float64 ``[N]`` in [0, 1]; NaN where no gallery image shares a concept with the query.
    """
    scores = {k: np.full(order.shape[0], np.nan) for k in depths}
    for start, overlap in _overlaps(cuis, cases, chunk):
        rows = slice(start, start + len(overlap))
        retrieved = np.take_along_axis(overlap, np.maximum(order[rows], 0), axis=1) * (order[rows] >= 0)
        best = -np.sort(-np.maximum(overlap, 0), axis=1)
        for k in depths:
            scores[k][rows] = _ratio(retrieved[:, :k].sum(axis=1), best[:, :k].sum(axis=1))
    return scores


def cui_overlap_by_chance(
    cuis: sparse.csr_array, cases: IntArray, depths: Sequence[int], chunk: int = 512
) -> Scores:
    """Expected CUI@K of a random order: K times the gallery's mean overlap, over the oracle's; float64 ``[N]``."""
    scores = {k: np.full(cuis.shape[0], np.nan) for k in depths}
    for start, overlap in _overlaps(cuis, cases, chunk):
        rows = slice(start, start + len(overlap))
        size = (overlap >= 0).sum(axis=1)
        best = -np.sort(-np.maximum(overlap, 0), axis=1)
        mean = np.maximum(overlap, 0).sum(axis=1) / np.maximum(size, 1)
        for k in depths:
            scores[k][rows] = _ratio(mean * np.minimum(size, k), best[:, :k].sum(axis=1))
    return scores


def label_codes(*columns: Sequence[str]) -> IntArray:
    """One integer per distinct combination of labels; −1 where any of them is missing (an empty string)."""
    combined = np.array(["\x1f".join(values) for values in zip(*columns, strict=True)], dtype=object)
    missing = np.array([not all(values) for values in zip(*columns, strict=True)], dtype=bool)
    codes: IntArray = np.unique(combined, return_inverse=True)[1].astype(np.int64)
    codes[missing] = -1
    return codes


def _overlaps(
    cuis: sparse.csr_array, cases: IntArray, chunk: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Start row and chunk of |C_q ∩ C_r|, float32 ``[chunk, N]``, −1 where r is of q's case."""
    transposed = cuis.T.tocsr()
    for start in range(0, cuis.shape[0], chunk):
        overlap = (cuis[start : start + chunk] @ transposed).toarray()
        overlap[cases[start : start + chunk, None] == cases[None, :]] = -1
        yield start, overlap


def _sizes(codes: IntArray, counted: NDArray[np.bool_]) -> IntArray:
    """For each image, how many counted images share its code."""
    _, inverse = np.unique(codes, return_inverse=True)
    sizes: IntArray = np.bincount(inverse, weights=counted)[inverse].astype(np.int64)
    return sizes


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
