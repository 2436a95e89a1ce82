"""Factors K of a store's images: sparse over columns (concepts), dense, or both side by side, and their products.

All that is done with factors is bilinear, S = K·Kᵀ, so factors of both kinds are handled as the sum over their parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.store.block import finite, gram

PlainFactors: TypeAlias = sparse.csr_array | NDArray[np.float32]
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class MixedFactors:
    """K = [A | B]: sparse columns A and dense columns B of the same images."""

    sparse: sparse.csr_array
    """float32 [N, C]."""
    dense: NDArray[np.float32]
    """float32 [N, D]."""

    @property
    def shape(self) -> tuple[int, int]:
        """N and C + D."""
        return self.dense.shape[0], self.sparse.shape[1] + self.dense.shape[1]

    def __getitem__(self, rows: Any) -> "MixedFactors":
        return MixedFactors(self.sparse[rows], self.dense[rows])


AnyFactors: TypeAlias = PlainFactors | MixedFactors


def parts_of(factors: AnyFactors) -> tuple[PlainFactors, ...]:
    """The sparse and the dense columns of mixed factors; others are their only part. S is the sum over the parts."""
    return (factors.sparse, factors.dense) if isinstance(factors, MixedFactors) else (factors,)


def products(left: AnyFactors, right: AnyFactors | None = None) -> NDArray[np.float32]:
    """K_i·K_j of all rows of ``left`` [R, D] with all of ``right`` [C, D], or of ``left`` again: float32 [R, C]."""
    lefts = parts_of(left)
    rights = (None,) * len(lefts) if right is None else parts_of(right)
    block = _product(lefts[0], rights[0])
    for one, other in zip(lefts[1:], rights[1:], strict=True):
        block += _product(one, other)
    return block


def _product(left: PlainFactors, right: PlainFactors | None) -> NDArray[np.float32]:
    if sparse.issparse(left):
        return gram(left, right)
    return np.asarray(left @ (left if right is None else right).T, dtype=np.float32)


def similarities(left: AnyFactors, right: AnyFactors) -> NDArray[np.float64]:
    """The same in float64, [R, C], without the clipping and the diagonal of a block."""
    total = np.zeros((left.shape[0], right.shape[0]))
    for one, other in zip(parts_of(left), parts_of(right), strict=True):
        if not isinstance(one, np.ndarray):
            # Sparse times dense gives the dense block directly, without the indices of a sparse product.
            wide = np.ascontiguousarray(one.toarray().T, dtype=np.float64)
            total += np.asarray(other.astype(np.float64, copy=False) @ wide).T
        else:
            total += one.astype(np.float64, copy=False) @ other.astype(np.float64, copy=False).T
    return total


def lengths(factors: AnyFactors) -> NDArray[np.float64]:
    """‖K_i‖ of each row, float64 [N]; 0 where nothing is known. Some rows at a time: factors may be mapped files."""
    squares = np.zeros(factors.shape[0])
    for part in parts_of(factors):
        for start in range(0, len(squares), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            wide = part[rows].astype(np.float64)
            squares[rows] += np.asarray((wide * wide).sum(axis=1)).ravel()
    return np.sqrt(squares)


def as_float64(factors: AnyFactors) -> AnyFactors:
    """Factors in float64, for ``similarities`` of many pieces with the same others."""
    if isinstance(factors, MixedFactors):
        return MixedFactors(factors.sparse.astype(np.float64), factors.dense.astype(np.float64))
    wide: PlainFactors = factors.astype(np.float64)
    return wide


def sparse_matrix(factors: AnyFactors) -> sparse.csr_array | None:
    """The sparse columns; None if there are none."""
    first = parts_of(factors)[0]
    return sparse.csr_array(first) if sparse.issparse(first) else None


def dense_matrix(factors: AnyFactors) -> NDArray[np.float32] | None:
    """The dense columns; None if there are none."""
    last = parts_of(factors)[-1]
    return None if sparse.issparse(last) else np.asarray(last)


def factor_columns(factors: AnyFactors, start: int, stop: int) -> dict[str, pa.Array]:
    """Some rows' factors as columns of the table ``targets``: ``factor_index`` and ``factor_value``, ``factor``."""
    columns: dict[str, pa.Array] = {}
    for part in parts_of(factors):
        if sparse.issparse(part):
            matrix = sparse.csr_array(part[start:stop])
            offsets = pa.array(matrix.indptr, pa.int32())
            columns["factor_index"] = pa.ListArray.from_arrays(offsets, pa.array(matrix.indices, pa.int32()))
            columns["factor_value"] = pa.ListArray.from_arrays(offsets, pa.array(matrix.data, pa.float32()))
        else:
            columns["factor"] = vector_column(np.asarray(part[start:stop]))
    return columns


def vector_column(vectors: NDArray[np.float32]) -> pa.Array:
    """float32 ``[R, D]`` as a column of fixed lists."""
    flat = pa.array(np.ascontiguousarray(vectors).ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def read_factors(
    column: Callable[[str], pa.ChunkedArray],
    array: Callable[[str, Callable[[], NDArray[Any]]], NDArray[Any]],
    rows: int,
    width: int | None,
    dense: int | None,
    path: object,
) -> AnyFactors:
    """Factors from the columns that ``factor_columns`` makes.

    Args:
        column: gives a column of the table ``targets``.
        array: gives what a function makes, by a name under which it may be kept as a file.
        rows: N.
        width: sparse columns; None if there are none.
        dense: dense columns; None if there are none.
        path: of the store, for messages.

    Raises:
        StoreError: a value is not finite, or a column is missing.
    """

    def values(name: str) -> NDArray[np.float32]:
        def read() -> NDArray[np.float32]:
            flat = pc.list_flatten(column(name)).to_numpy()
            return finite(flat, f"{path}: column {name}")

        return array(name, read)

    def offsets() -> NDArray[Any]:
        ends = np.concatenate([[0], np.cumsum(pc.list_value_length(column("factor_index")).to_numpy())])
        return np.asarray(ends, dtype=np.int32 if ends[-1] < 2**31 else np.int64)

    vectors = np.zeros((rows, 0), np.float32) if dense is None else values("factor").reshape(rows, dense)
    if width is None:
        return vectors
    index = array("factor_index", lambda: pc.list_flatten(column("factor_index")).to_numpy())
    matrix = sparse.csr_array(
        (values("factor_value"), index, array("factor_offsets", offsets)), shape=(rows, width)
    )
    matrix.has_sorted_indices = True
    return matrix if dense is None else MixedFactors(matrix, vectors)


def read_vectors(table: pa.Table) -> dict[str, NDArray[np.float32]]:
    """Name to vector, of the table ``vectors``."""
    column = table.column("vector").combine_chunks()
    values = np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    pieces = np.split(values, column.offsets.to_numpy()[1:-1])
    return dict(zip(table.column("name").to_pylist(), pieces, strict=True))
