"""Retrieval measures of labels and pairs per query, as pure functions of ranked lists (methods.md §1.5).

P@K (S): the share of the first K rows found that have the query's label. The gallery holds labelled rows only, and a
query without the label has no P@K: it is NaN and drops out of the mean, so P@K of two labels may rest on different
numbers of queries (the report prints each).

Recall@K (R, usual for CLIP models): 1 where the query's own counterpart is among the first K, else 0.

Lists hold −1 where the gallery had run out; K is then the number of rows there are. A query with nothing to find has
no score: NaN. CUI@K is in ``training.retrieval.concepts``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from training.statistics.intervals import FloatArray, IntArray

Scores = dict[int, FloatArray]
"""For each K, float64 ``[N]``."""


def precision_at(order: IntArray, labels: IntArray, depths: Sequence[int]) -> Scores:
    """P@K of every query.

    Args:
        order: ranked rows, int64 ``[N, >= max(depths)]``, −1 = none left.
        labels: label code per row, −1 where missing; an unlabelled gallery row is a miss.
        depths: the Ks.

    Returns:
        For each K, float64 ``[N]``; NaN where the query has no label or no list.
    """
    present = order >= 0
    right = present & (labels[order] == labels[:, None]) & (labels[:, None] >= 0)
    scores = {}
    for k in depths:
        found = present[:, :k].sum(axis=1)
        scores[k] = ratio(right[:, :k].sum(axis=1), np.where(labels >= 0, found, 0))
    return scores


def precision_by_chance(labels: IntArray, groups: IntArray) -> FloatArray:
    """Expected P@K, at any K, of all labelled rows in random order, the query's group excluded; float64 ``[N]``."""
    labelled = labels >= 0
    same_label = sizes(labels, labelled)
    relevant = same_label - sizes(pair_codes(groups, labels), labelled)
    gallery = labelled.sum() - sizes(groups, labelled)
    return ratio(relevant, np.where(labelled, gallery, 0))


def recall_at(ranks: IntArray, depths: Sequence[int]) -> Scores:
    """Recall@K of every query: whether its own counterpart stands at rank K or before.

    Args:
        ranks: of the counterpart, int64 ``[N]``, 1 is best; see ``training.retrieval.ranking.pair_ranks``.
        depths: the Ks.
    """
    return {k: (ranks <= k).astype(np.float64) for k in depths}


def recall_by_chance(captions: IntArray, groups: IntArray, depths: Sequence[int]) -> Scores:
    """Expected Recall@K of a random order: 1 − C(G − R, K) / C(G, K).

    G is the query's gallery (all rows of other groups, and its own), R the rows among them with its caption.

    Args:
        captions: code of each row's caption.
        groups: case of each row, or its own row.
        depths: the Ks.
    """
    everyone = np.ones(len(captions), dtype=bool)
    gallery = len(captions) - sizes(groups, everyone) + 1
    right = sizes(captions, everyone) - sizes(pair_codes(groups, captions), everyone) + 1
    return {k: 1 - none_of(gallery, right, k) for k in depths}


def none_of(gallery: ArrayLike, right: ArrayLike, k: int) -> FloatArray:
    """Probability that K rows drawn without replacement hold none of the right ones: C(G − R, K) / C(G, K).

    K counts only as far as the gallery reaches. From logarithms of factorials: exact to about 1e-9.

    Args:
        gallery: G, ``[P]``.
        right: R, ``[P]``, at most G.
        k: K.
    """
    size, relevant = (np.asarray(value, dtype=np.float64) for value in (gallery, right))
    drawn = np.minimum(k, size)
    wrong = size - relevant
    possible = drawn <= wrong
    wrong = np.where(possible, wrong, drawn)  # any value that the logarithms accept
    log = gammaln(wrong + 1) - gammaln(wrong - drawn + 1) - gammaln(size + 1) + gammaln(size - drawn + 1)
    return np.where(possible, np.exp(log), 0.0)


def label_codes(*columns: Sequence[str]) -> IntArray:
    """One integer per distinct combination of labels; −1 where any of them is missing (an empty string)."""
    combined = np.array(["\x1f".join(values) for values in zip(*columns, strict=True)], dtype=object)
    missing = np.array([not all(values) for values in zip(*columns, strict=True)], dtype=bool)
    codes: IntArray = np.unique(combined, return_inverse=True)[1].astype(np.int64)
    codes[missing] = -1
    return codes


def caption_codes(captions: Sequence[str]) -> IntArray:
    """One integer per distinct caption; letter case and white space do not make another caption."""
    plain = [" ".join(caption.split()).casefold() for caption in captions]
    return np.asarray(np.unique(np.array(plain, dtype=object), return_inverse=True)[1], dtype=np.int64)


def pair_codes(first: IntArray, second: IntArray) -> IntArray:
    """One integer per distinct pair of codes."""
    return np.unique(np.stack([first, second]), axis=1, return_inverse=True)[1].ravel()


def sizes(codes: IntArray, counted: NDArray[np.bool_]) -> IntArray:
    """For each row, how many counted rows share its code."""
    _, inverse = np.unique(codes, return_inverse=True)
    return np.bincount(inverse, weights=counted)[inverse].astype(np.int64)


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> FloatArray:
    """``part / whole``, NaN where ``whole`` is 0; float64 ``[N]``."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
