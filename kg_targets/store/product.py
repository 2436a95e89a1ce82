"""S = A·Bᵀ of sparse factors, for one batch.

A few broad ancestors ("Disease", "Anatomical structure") are in most rows: a sparse product spends nearly all of its
time on them, a dense one on the thousands of columns that are nearly empty. So the columns are split by how full they
are in this batch: the full ones are multiplied as a dense matrix, the rest stays sparse.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_FULL = 1 / 48
"""Share of the rows from which on a column is multiplied densely; measured, see benchmarks/README.md."""


def gram(left: sparse.csr_array, right: sparse.csr_array | None = None) -> NDArray[np.float32]:
    """Products of all rows of ``left`` [R, D] with all rows of ``right`` [C, D], or of ``left`` again.

    Returns:
        float32 [R, C]; without ``right`` symmetric up to float32 rounding.
    """
    counts = np.bincount(left.indices, minlength=left.shape[1])
    full = np.flatnonzero(counts > max(2.0, _FULL * left.shape[0]))
    place = np.full(left.shape[1], -1)
    place[full] = np.arange(len(full))
    left_dense, left_rest = _split(left, place, len(full))
    # The copy keeps numpy off its symmetric routine, which takes four times as long.
    right_dense, right_rest = (
        (left_dense.copy(), left_rest) if right is None else _split(right, place, len(full))
    )
    product = np.asarray(left_dense @ right_dense.T, dtype=np.float32)
    rest = sparse.csr_array(left_rest @ right_rest.T)
    starts = np.repeat(np.arange(rest.shape[0]) * rest.shape[1], np.diff(rest.indptr))
    product.reshape(-1)[starts + rest.indices] += rest.data
    return product


def _split(
    matrix: sparse.csr_array, place: NDArray[np.int64], width: int
) -> tuple[NDArray[np.float32], sparse.csr_array]:
    """The columns that have a place, dense [R, width], and the others, sparse [R, D]."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    columns = place[matrix.indices]
    taken = columns >= 0
    dense = np.zeros((matrix.shape[0], width), dtype=np.float32)
    dense[rows[taken], columns[taken]] = matrix.data[taken]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[~taken], minlength=matrix.shape[0]))])
    rest = sparse.csr_array((matrix.data[~taken], matrix.indices[~taken], indptr), shape=matrix.shape)
    return dense, rest
