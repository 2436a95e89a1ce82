"""Inputs and output of a scorer, and nearest neighbours.

Nearest neighbours are exact and never hold N×N: memory is O(N·k). Row i's are ordered by

    S_ij + ½·10⁻⁶·cos(θ_i − φ_j)      θ, φ: two angles that each image's id is hashed to

so that equal scores are broken by both ids, and so may be scores that differ by less than 1e-6, which float32 factors
cannot tell apart. By row, the first of many equal images would be neighbours of all the others; here each of them
prefers others. One total order for sparse and dense factors, for any order of rows and thread count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sparse_dot_topn import sp_matmul_topn

from kg_targets.errors import ConfigError
from kg_targets.graph import ConceptGraph
from kg_targets.scoring.statistics import ConceptStatistics
from kg_targets.store.digest import shuffle_key
from kg_targets.store.factors import AnyFactors, as_float64, parts_of, similarities, sparse_matrix

_PAIRS_AT_ONCE = 65_536

Vectors = Mapping[str, NDArray[np.float32]]


class _Silent:
    """A progress bar that nobody sees."""

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, done: int) -> None:
        """Take note of nothing."""

    def set_postfix_str(self, text: str) -> None:
        """Show nothing."""


def _no_encoder(
    texts: Sequence[str], image_ids: Sequence[str], advance: Callable[[int], Any]
) -> NDArray[np.float32]:
    raise ConfigError("this scorer needs an encoder of captions: build with --scorer embedding")


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
    blocks: tuple[float, ...] = ()
    """Weights of the ontology scorer's blocks, sum 1 (``ontology.parse_blocks``); empty for one vector over all."""
    kinds: Sequence[str] = ()
    """Kind of each concept of the graph, length C; only blocks ask for them."""
    seed: int = 0
    """For the scorers that draw random numbers."""
    options: Any = None
    """The scorer's own settings, of the class that ``scoring.SETTINGS`` names for it; None for a scorer without any."""
    captions: Callable[[], Sequence[str]] = tuple
    """Gives the captions, length N, in the row order of the graph; read when it is called."""
    fitted: Vectors | None = None
    """``Factors.vectors`` of the fit split; None where this is the fit split itself."""
    encode: Callable[[Sequence[str], Sequence[str], Callable[[int], Any]], NDArray[np.float32]] = _no_encoder
    """Texts, the id of an image of each, and what is told how many more are done, to unit vectors, float32 [T, D]."""
    state: Path | None = None
    """Folder, not there yet, where a long fit may keep what it needs to resume; removed once the store is whole."""
    say: Callable[[str], None] = lambda line: None
    """Receives one line at a time for the person watching."""
    progress: Callable[[int, str, str], Any] = lambda total, description, unit: _Silent()
    """Makes a progress bar of a total, a description and a unit: a context manager with ``update(done)`` and
    ``set_postfix_str(text)``."""


@dataclass(frozen=True)
class Factors:
    """One vector K_i per known image, norm 1 or, with shrinkage or blocks, less; zeros where nothing is known."""

    matrix: AnyFactors
    """float32 [N, D]: sparse over concepts, dense, or both."""
    known: NDArray[np.bool_]
    """[N]; unknown images are similar to themselves only."""
    vectors: Vectors = field(default_factory=dict)
    """Name to float32 vector: what was fitted, kept in the store's table ``vectors`` and handed to the other splits."""


def normalise_rows(matrix: sparse.csr_array, shrinkage: float = 0.0) -> sparse.csr_array:
    """Rows u scaled to u/√(‖u‖² + shrinkage²), norm 1 without shrinkage; rows of zeros stay zeros. float64 [R, D]."""
    norms = np.sqrt(matrix.multiply(matrix).sum(axis=1) + shrinkage**2)
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ matrix)


def pair_similarities(
    factors: AnyFactors, left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float64]:
    """K_i·K_j of listed pairs of rows, float64 [P]; some pairs at a time, so that memory stays bounded."""
    pieces = [np.zeros(0)]
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        rows, columns = left[start : start + _PAIRS_AT_ONCE], right[start : start + _PAIRS_AT_ONCE]
        total = np.zeros(len(rows))
        for part in parts_of(factors):
            if sparse.issparse(part):
                products = part[rows].astype(np.float64).multiply(part[columns]).sum(axis=1)
            else:
                products = np.einsum("nd,nd->n", part[rows].astype(np.float64), part[columns])
            total += np.asarray(products, dtype=np.float64).ravel()
        pieces.append(total)
    return np.concatenate(pieces)


TIE_RESOLUTION = 1e-6
_CHUNK_BYTES = 64 * 2**20

Neighbors = tuple[NDArray[np.int32], NDArray[np.float32]]


def nearest(
    factors: Factors, k: int, image_ids: Sequence[str], chunk_rows: int = 4096, threads: int = 1
) -> Iterator[list[Neighbors]]:
    """For each chunk of rows, each row's (neighbour rows int32, scores float32), best first.

    An image is not its own neighbour, and images of no similarity (≤ 1e-6) are
    nobody's: lists may be shorter than ``k``. Ties are broken by the ids, [N].
    """
    ties = _tie_vectors(image_ids)
    if sparse.issparse(factors.matrix):
        return _nearest_sparse(sparse.csr_array(factors.matrix), k, ties, chunk_rows, threads)
    return _nearest_dense(factors.matrix, k, ties, chunk_rows)


def _tie_vectors(image_ids: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of θ_i and of φ_j on the circle, both [N, 2], whose products are ½·cos(θ_i − φ_j)·1e-6."""
    digests = b"".join(shuffle_key(0, image_id)[:16] for image_id in image_ids)
    angles = np.frombuffer(digests, dtype="<u8").reshape(-1, 2) * (2 * np.pi / 2.0**64)
    left, right = (np.stack([np.cos(angle), np.sin(angle)], axis=1) for angle in angles.T)
    return left, right * (TIE_RESOLUTION / 2)


def _nearest_sparse(
    matrix: sparse.csr_array,
    k: int,
    ties: tuple[NDArray[np.float64], NDArray[np.float64]],
    chunk_rows: int,
    threads: int,
) -> Iterator[list[Neighbors]]:
    # Two extra dimensions carry the ties through the product, so that the library's own heap breaks them.
    left = sparse.csr_matrix(sparse.hstack([matrix.astype(np.float64), ties[0]], format="csr"))
    right = sparse.csr_matrix(sparse.vstack([matrix.astype(np.float64).T, ties[1].T], format="csr"))
    for start in range(0, matrix.shape[0], chunk_rows):
        best = sp_matmul_topn(
            left[start : start + chunk_rows],
            right,
            top_n=k + 1,
            threshold=TIE_RESOLUTION / 2,
            sort=True,
            n_threads=threads,
        )
        chunk = []
        for offset in range(best.shape[0]):
            span = slice(best.indptr[offset], best.indptr[offset + 1])
            rows, keys = best.indices[span], best.data[span]
            kept = np.flatnonzero(rows != start + offset)[:k]
            rows = rows[kept]
            scores = keys[kept] - ties[1][rows] @ ties[0][start + offset]
            chunk.append((rows.astype(np.int32), scores.astype(np.float32)))
        yield chunk


def _nearest_dense(
    matrix: AnyFactors, k: int, ties: tuple[NDArray[np.float64], NDArray[np.float64]], chunk_rows: int
) -> Iterator[list[Neighbors]]:
    images, narrow = matrix.shape[0], sparse_matrix(matrix)
    widest = max(images, 1 if narrow is None else narrow.shape[1], 1)
    inner = max(1, _CHUNK_BYTES // (8 * widest))
    wide = as_float64(matrix)
    for start in range(0, images, chunk_rows):
        chunk: list[Neighbors] = []
        for row in range(start, min(start + chunk_rows, images), inner):
            stop = min(row + inner, start + chunk_rows, images)
            shifts = ties[0][row:stop] @ ties[1].T
            keys = similarities(wide[row:stop], wide) + shifts
            keys[np.arange(stop - row), np.arange(row, stop)] = -np.inf
            chunk.extend(_best_of(line, shift, k) for line, shift in zip(keys, shifts, strict=True))
        yield chunk


def _best_of(keys: NDArray[np.float64], shift: NDArray[np.float64], k: int) -> Neighbors:
    candidates = np.argpartition(-keys, k)[:k] if k < len(keys) else np.arange(len(keys))
    order = candidates[np.argsort(-keys[candidates], kind="stable")]
    order = order[keys[order] > TIE_RESOLUTION / 2]
    return order.astype(np.int32), (keys[order] - shift[order]).astype(np.float32)
