"""Nearest images by cosine, chunk by chunk: no N×N matrix is ever held, and no image finds its own case."""

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def rank_images(
    features: NDArray[np.float32],
    cases: IntArray,
    k: int,
    gallery: NDArray[np.bool_] | None = None,
    chunk: int = 512,
) -> IntArray:
    """The ``k`` nearest gallery images of every image.

    Args:
        features: unit vectors, float32 ``[N, D]``; similarity is their dot product.
        cases: case of each image; images of the query's case, itself included, are never retrieved.
        k: list length.
        gallery: images that may be retrieved, bool ``[N]``; all by default.
        chunk: queries scored at a time.

    Returns:
        int64 ``[N, k]``: rows, best first, ties by row; −1 where the gallery has run out.
    """
    candidates = np.flatnonzero(gallery) if gallery is not None else np.arange(len(features))
    order = np.full((len(features), k), -1, dtype=np.int64)
    if not len(candidates):
        return order
    pool = features[candidates]
    for start in range(0, len(features), chunk):
        stop = min(start + chunk, len(features))
        scores = features[start:stop] @ pool.T  # [chunk, G]
        scores[cases[start:stop, None] == cases[candidates][None, :]] = -np.inf
        order[start:stop] = _top(scores, candidates, k)
    return order


def _top(scores: NDArray[np.float32], candidates: IntArray, k: int) -> IntArray:
    """Rows of the ``k`` best columns; columns scored −inf count as absent."""
    kept = min(k, scores.shape[1])
    # Partition by the k-th best score, then order what is left: equal scores at the cut are settled by row as well.
    cut = -np.partition(-scores, kept - 1, axis=1)[:, kept - 1 : kept]
    best = np.full((len(scores), k), -1, dtype=np.int64)
    for index, (row, limit) in enumerate(zip(scores, cut[:, 0], strict=True)):
        columns = np.flatnonzero((row >= limit) & np.isfinite(row))
        columns = columns[np.lexsort((columns, -row[columns]))][:kept]
        best[index, : len(columns)] = candidates[columns]
    return best
