"""Inputs and output of a scorer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.errors import ConfigError
from kg_targets.graph import ConceptGraph
from kg_targets.scoring.statistics import ConceptStatistics
from kg_targets.store.factors import AnyFactors, parts_of, sparse_matrix

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
    image_ids: Sequence[str]
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
    scratch: Path | None = None
    """Folder, there already, for files of factors that are too large for memory; None keeps all in memory."""
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


def stacked(
    pieces: Iterable[sparse.csr_array], shape: tuple[int, int], scratch: Path | None
) -> sparse.csr_array:
    """Sparse rows, piece after piece, as one float32 matrix.

    Args:
        pieces: some rows each.
        shape: of the whole.
        scratch: folder for files that the matrix is mapped from, so that it takes no private memory; None for memory.
    """
    kinds = (np.float32, np.int32)
    kept: tuple[list[NDArray[Any]], ...] = ([np.zeros(0, kinds[0])], [np.zeros(0, kinds[1])])
    lengths = [np.zeros(1, np.int64)]
    paths = [] if scratch is None else [scratch / "factor_values", scratch / "factor_columns"]
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("wb")) for path in paths]
        for piece in pieces:
            lengths.append(np.diff(piece.indptr))
            for number, part in enumerate((piece.data, piece.indices)):
                values = np.asarray(part, dtype=kinds[number])
                if files:
                    values.tofile(files[number])
                else:
                    kept[number].append(values)
    starts = np.cumsum(np.concatenate(lengths))
    found = [np.concatenate(parts) for parts in kept]
    if paths and starts[-1]:
        found = [np.memmap(path, kind, "r") for path, kind in zip(paths, kinds, strict=True)]
    starts = starts.astype(np.int32 if starts[-1] < 2**31 else np.int64)
    matrix = sparse.csr_array((found[0], found[1], starts), shape=shape)
    matrix.has_sorted_indices = True
    return matrix


def in_columns(matrix: AnyFactors, concepts: Sequence[str], cuis: Sequence[str]) -> AnyFactors:
    """Sparse factors over ``concepts``, [N, C], with the columns of ``cuis``, [N, D]; dense ones as they are."""
    own = sparse_matrix(matrix)
    if own is None:
        return matrix
    place = {cui: column for column, cui in enumerate(cuis)}
    columns = np.array([place[cui] for cui in concepts], dtype=np.int32)
    shape = (own.shape[0], len(cuis))
    moved = sparse.csr_array((own.data, columns[own.indices], own.indptr), shape=shape)
    moved.sort_indices()
    return moved


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
