"""Inputs and output of a scorer, and nearest neighbours.

Nearest neighbours are exact and never hold N×N: memory is O(N·k). Rows are ordered by score − row·(1e-6/N): equal
scores are broken by row, and so may be scores that differ by less than 1e-6, which float32 factors cannot tell apart.
One total order for sparse and dense factors, for any thread count.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sparse_dot_topn import sp_matmul_topn

from kg_targets.graph import ConceptGraph
from kg_targets.scoring.statistics import ConceptStatistics

_PAIRS_AT_ONCE = 65_536


@dataclass(frozen=True)
class ScoringInput:
    """Everything a scorer may look at."""

    graph: ConceptGraph
    statistics: ConceptStatistics
    """Counts on the fit split, reused unchanged for every other split."""
    image_ids: list[str]
    """Length N, in the row order of the graph."""
    shrinkage: float = 0.0
    """λ ≥ 0 of the ontology scorer, nats: evidence below which an image counts as little known."""
    flat_ancestors: bool = False
    """Give every ancestor the same weight instead of its information content."""
    seed: int = 0
    """For the scorers that draw random numbers."""


@dataclass(frozen=True)
class Factors:
    """One unit vector K_i per known image; a row of zeros for an image about which nothing is known."""

    matrix: sparse.csr_array | NDArray[np.float32]
    """float32 [N, D]: sparse over concepts, or dense."""
    known: NDArray[np.bool_]
    """[N]; unknown images are similar to themselves only."""

    @property
    def is_sparse(self) -> bool:
        """Whether the columns are concepts (sparse) or abstract dimensions (dense)."""
        return bool(sparse.issparse(self.matrix))


def normalise_rows(matrix: sparse.csr_array, shrinkage: float = 0.0) -> sparse.csr_array:
    """Rows u scaled to u/√(‖u‖² + shrinkage²), norm 1 without shrinkage; rows of zeros stay zeros. float64 [R, D]."""
    norms = np.sqrt(matrix.multiply(matrix).sum(axis=1) + shrinkage**2)
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ matrix)


def pair_similarities(
    factors: sparse.csr_array | NDArray[np.float32], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float64]:
    """K_i·K_j of listed pairs of rows, float64 [P]; some pairs at a time, so that memory stays bounded."""
    parts = [np.zeros(0)]
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        rows, columns = left[start : start + _PAIRS_AT_ONCE], right[start : start + _PAIRS_AT_ONCE]
        if sparse.issparse(factors):
            products = factors[rows].astype(np.float64).multiply(factors[columns]).sum(axis=1)
        else:
            products = np.einsum("nd,nd->n", factors[rows].astype(np.float64), factors[columns])
        parts.append(np.asarray(products, dtype=np.float64).ravel())
    return np.concatenate(parts)


TIE_RESOLUTION = 1e-6
_CHUNK_BYTES = 64 * 2**20

Neighbors = tuple[NDArray[np.int32], NDArray[np.float32]]


def nearest(factors: Factors, k: int, chunk_rows: int = 4096, threads: int = 1) -> Iterator[list[Neighbors]]:
    """For each chunk of rows, each row's (neighbour rows int32, scores float32), best first.

    An image is not its own neighbour, and images of no similarity (≤ 1e-6) are
    nobody's: lists may be shorter than ``k``.
    """
    if sparse.issparse(factors.matrix):
        return _nearest_sparse(sparse.csr_array(factors.matrix), k, chunk_rows, threads)
    return _nearest_dense(np.asarray(factors.matrix), k, chunk_rows)


def _nearest_sparse(
    matrix: sparse.csr_array, k: int, chunk_rows: int, threads: int
) -> Iterator[list[Neighbors]]:
    images = matrix.shape[0]
    penalty = np.arange(images) * (TIE_RESOLUTION / max(images, 1))
    # An extra dimension carries the penalty through the product, so that the library's own heap breaks ties by row.
    left = sparse.csr_matrix(sparse.hstack([matrix.astype(np.float64), np.ones((images, 1))], format="csr"))
    right = sparse.csr_matrix(sparse.vstack([matrix.astype(np.float64).T, -penalty[None, :]], format="csr"))
    for start in range(0, images, chunk_rows):
        best = sp_matmul_topn(
            left[start : start + chunk_rows], right, top_n=k + 1, threshold=0.0, sort=True, n_threads=threads
        )
        chunk = []
        for offset in range(best.shape[0]):
            span = slice(best.indptr[offset], best.indptr[offset + 1])
            rows, keys = best.indices[span], best.data[span]
            kept = np.flatnonzero(rows != start + offset)[:k]
            rows, scores = rows[kept], keys[kept] + penalty[rows[kept]]
            positive = scores > 0
            chunk.append((rows[positive].astype(np.int32), scores[positive].astype(np.float32)))
        yield chunk


def _nearest_dense(matrix: NDArray[np.float32], k: int, chunk_rows: int) -> Iterator[list[Neighbors]]:
    images = len(matrix)
    penalty = np.arange(images) * (TIE_RESOLUTION / max(images, 1))
    inner = max(1, _CHUNK_BYTES // (8 * max(images, 1)))
    wide = matrix.astype(np.float64)
    for start in range(0, images, chunk_rows):
        chunk: list[Neighbors] = []
        for row in range(start, min(start + chunk_rows, images), inner):
            stop = min(row + inner, start + chunk_rows, images)
            keys = wide[row:stop] @ wide.T - penalty
            keys[np.arange(stop - row), np.arange(row, stop)] = -np.inf
            chunk.extend(_best_of(line, penalty, k) for line in keys)
        yield chunk


def _best_of(keys: NDArray[np.float64], penalty: NDArray[np.float64], k: int) -> Neighbors:
    candidates = np.argpartition(-keys, k)[:k] if k < len(keys) else np.arange(len(keys))
    order = candidates[np.argsort(-keys[candidates], kind="stable")]
    scores = keys[order] + penalty[order]
    positive = scores > 0
    return order[positive].astype(np.int32), scores[positive].astype(np.float32)
