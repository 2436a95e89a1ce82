"""Beyond scores: pairs of images of different cases, what the targets say of them and what a model does, and the
queries that changed most from one model to another.

Only images with concepts form pairs: S of the others is 0 by convention, which is no statement about them. How a
model's cosines follow S, with an interval over cases: ``training.statistics.pair_correlation``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.retrieval.features import RetrievalSet
from training.retrieval.measures import label_sets
from training.retrieval.metrics import label_codes
from training.statistics.intervals import FloatArray, IntArray

LIMIT = 2_000_000
"""Pairs looked at; of more, as many are drawn."""
ALL = "all pairs"
_CHUNK = 512
_PAIRS_AT_A_TIME = 1 << 16
EQUAL = 1e-9
"""Means over seeds of equal scores differ by rounding; that is no change."""


@dataclass(frozen=True)
class Pairs:
    """P pairs of known images of different cases."""

    left: IntArray
    """Image of each pair, a position in the retrieval set, ``[P]``."""
    right: IntArray
    similarity: FloatArray
    """S of each pair, ``[P]``."""
    population: int
    """Pairs before any were drawn, those within cases among them."""

    def __len__(self) -> int:
        return len(self.left)

    @cached_property
    def both_ways(self) -> "Pairs":
        """Each pair twice, the images in either order: image i with text j and image j with text i."""
        left, right = np.concatenate([self.left, self.right]), np.concatenate([self.right, self.left])
        return Pairs(left, right, np.tile(self.similarity, 2), 2 * self.population)

    def cosines(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> FloatArray:
        """Cosine of ``first[left]`` and ``second[right]``, float64 ``[P]``.

        Args:
            first: unit vectors, float32 ``[N, D]``.
            second: unit vectors, float32 ``[N, D]``.
        """
        found = np.empty(len(self))
        for start in range(0, len(self), _PAIRS_AT_A_TIME):
            part = slice(start, start + _PAIRS_AT_A_TIME)
            found[part] = np.einsum("pd,pd->p", first[self.left[part]], second[self.right[part]])
        return found


def pairs_of(data: RetrievalSet, seed: int = 0, limit: int = LIMIT) -> Pairs:
    """All pairs of known images of different cases, or those among ``limit`` pairs drawn at random.

    Args:
        data: the images.
        seed: of the draw.
        limit: pairs, those within cases among them.
    """
    known = np.flatnonzero(data.store.known[data.rows])
    count = len(known)
    first = np.arange(count, dtype=np.int64)
    starts = first * (2 * count - first - 1) // 2  # number of the first pair (i, j > i) of each image i
    population = count * (count - 1) // 2
    if population > limit:
        rng = np.random.default_rng(seed)
        numbers = np.sort(rng.choice(population, limit, replace=False, shuffle=False))
    else:
        numbers = np.arange(population, dtype=np.int64)
    i = np.searchsorted(starts, numbers, side="right") - 1
    j = numbers - starts[i] + i + 1
    left, right = known[i], known[j]
    apart = data.cases[left] != data.cases[right]
    left, right = left[apart], right[apart]
    return Pairs(left, right, _similarities(data, left, right), population)


def strata_of(data: RetrievalSet, pairs: Pairs) -> Mapping[str, IntArray]:
    """Groups of pairs to compare within: all pairs, then pairs of the same label; −1 where a pair takes no part.

    Returns:
        ``all pairs``, each label of the store, and the conjunction that evaluation reports, to int64 ``[P]``.
    """
    found = {ALL: np.zeros(len(pairs), dtype=np.int64)}
    for names in label_sets(data.store.labels, None):
        codes = label_codes(*(data.label(name) for name in names))
        left, right = codes[pairs.left], codes[pairs.right]
        found[f"same {'+'.join(names)}"] = np.where(left == right, left, -1)
    return found


def _similarities(data: RetrievalSet, left: IntArray, right: IntArray) -> FloatArray:
    """S of pairs whose ``left`` ascends, in blocks of some rows and all columns."""
    found = np.empty(len(left))
    for start in range(0, len(data.rows), _CHUNK):
        here = slice(*np.searchsorted(left, [start, start + _CHUNK]))
        block = data.store.block(data.rows[start : start + _CHUNK], data.rows)
        found[here] = block[left[here] - start, right[here]]
    return found


def largest(difference: FloatArray, cases: NDArray[np.int64], count: int) -> tuple[list[int], list[int]]:
    """Queries of the largest gains and of the largest losses, at most one of each case in either list.

    Args:
        difference: of each query, NaN without a score, ``[N]``.
        cases: of each query, ``[N]``.
        count: most queries in a list.

    Returns:
        Rows, the largest first, ties by row; only queries that do gain (lose).
    """
    return _first(difference, cases, count), _first(-difference, cases, count)


def _first(gain: FloatArray, cases: NDArray[np.int64], count: int) -> list[int]:
    rows = np.flatnonzero(gain > EQUAL)
    rows = rows[np.argsort(-gain[rows], kind="stable")]
    _, first = np.unique(cases[rows], return_index=True)
    return [int(row) for row in rows[np.sort(first)][:count]]
