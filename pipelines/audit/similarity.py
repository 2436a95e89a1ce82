"""Similarities of images, and rankings by them in which ties are not broken.

Targets tie often: two captions that assert the same concepts have the same factor. Any fixed order among ties (by row,
say) would favour images that happen to stand together in the file, such as neighbouring cases. So nothing here
breaks ties: measures take the expected value over all orders of each group of ties, in closed form (McSherry and
Najork 2008, "Computing information retrieval performance measures efficiently in the presence of tied scores").
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kg_targets.scoring.neighbors import TIE_RESOLUTION
from kg_targets.store.factors import AnyFactors, as_float64, similarities
from training.statistics.intervals import FloatArray, IntArray

_CHUNK_BYTES = 32 * 2**20


def similarity_chunks(
    queries: AnyFactors, gallery: AnyFactors, width: int = 0
) -> Iterator[tuple[slice, FloatArray]]:
    """Similarities of all queries with the whole gallery, some queries at a time.

    Args:
        queries: unit vectors or zeros, [Q, D], sparse, dense or both.
        gallery: the same, [N, D].
        width: of other factors that are gone through in step with these, where they are wider.

    Yields:
        The chunk's rows and their similarities, float64 [chunk, N]; never [Q, N] at once.
    """
    rows, own = queries.shape
    chunk = max(1, _CHUNK_BYTES // (8 * max(gallery.shape[0], own, width, 1)))
    right = as_float64(gallery)
    for start in range(0, rows, chunk):
        block = similarities(queries[start : start + chunk], right)
        yield slice(start, start + len(block)), block


@dataclass(frozen=True)
class Ranking:
    """The best of one row; groups of ties are whole, so there may be more columns than wanted."""

    columns: IntArray
    """int64 [M], best first."""
    starts: IntArray
    """int64 [T]: where each group of ties begins in ``columns``."""

    @property
    def sizes(self) -> IntArray:
        """int64 [T]: members of each group."""
        return np.diff(np.append(self.starts, len(self.columns)))

    def expected(self, values: FloatArray, depth: int) -> FloatArray:
        """Mean of ``values`` (float64 [M]) at each of the first ``depth`` ranks, over all orders of the ties."""
        if not len(self.columns):
            return np.zeros(0)
        means = np.add.reduceat(values, self.starts) / self.sizes
        return np.repeat(means, self.sizes)[:depth]

    def inclusion(self, depth: int) -> FloatArray:
        """Probability of each column to be among the first ``depth``, float64 [M]."""
        share = np.clip((depth - self.starts) / np.maximum(self.sizes, 1), 0.0, 1.0)
        return np.repeat(share, self.sizes)


def best_with_ties(scores: FloatArray, depth: int) -> Ranking:
    """The ``depth`` best columns of a row and whatever ties with the last of them.

    Scores closer than 1e-6 in order count as equal, which float32 factors cannot tell apart; −inf marks columns that
    do not take part.

    Args:
        scores: float64 [N].
        depth: ranks wanted, ≥ 1.
    """
    present = np.flatnonzero(scores > -np.inf)
    if len(present) > depth:
        least = np.partition(scores[present], len(present) - depth)[len(present) - depth]
        present = present[scores[present] >= least - TIE_RESOLUTION]
    order = present[np.argsort(-scores[present], kind="stable")]
    gaps = -np.diff(scores[order]) > TIE_RESOLUTION
    starts = np.flatnonzero(np.concatenate([[True], gaps])) if len(order) else np.zeros(0, np.int64)
    return Ranking(order.astype(np.int64), starts.astype(np.int64))


def mean_of_nearest(
    factors: AnyFactors,
    cases: IntArray,
    taking_part: NDArray[np.bool_],
    alike: Callable[[int, IntArray], FloatArray],
    depths: Sequence[int],
) -> dict[int, FloatArray]:
    """Mean likeness of every image to its K nearest of other cases, in expectation over the orders of ties.

    Args:
        factors: unit vectors or zeros, [N, D]; with all zeros every image ties, which gives the expectation by chance.
        cases: case of each image, int64 [N].
        taking_part: bool [N]: queries, and what neighbours are chosen from.
        alike: likeness of one image to others (columns, int64 [M]), float64 [M].
        depths: the Ks.

    Returns:
        For each K, float64 [N]; NaN for images that take no part, and where the gallery is empty.
    """
    means = {depth: np.full(len(cases), np.nan) for depth in depths}
    for rows, block in similarity_chunks(factors, factors):
        block[(cases[rows, None] == cases[None, :]) | ~taking_part[None, :]] = -np.inf
        for offset in np.flatnonzero(taking_part[rows]):
            query = rows.start + int(offset)
            ranking = best_with_ties(block[offset], max(depths))
            if len(ranking.columns):
                values = alike(query, ranking.columns)
                for depth in depths:
                    means[depth][query] = ranking.expected(values, depth).mean()
    return means
