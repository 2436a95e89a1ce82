"""Parts of a similarity block: row numbers, cases, kinds, and the product of sparse factors."""

import difflib
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from kg_targets.errors import StoreError
from kg_targets.store.mapped import Column

BLOCK_KINDS = ("image_text", "image_image", "text_text")
"""Kinds of rows and columns of a block; knowledge about a pair does not tell an image from its caption."""
_FULL = 1 / 48
"""Share of the rows from which on a column is multiplied densely; measured, see benchmarks/README.md."""
_SEARCHED = 100_000  # ids that a misspelt one is compared with


def check_block_kind(kind: str) -> None:
    """Refuse an unknown kind of block.

    Raises:
        StoreError: it is none of ``BLOCK_KINDS``.
    """
    if kind not in BLOCK_KINDS:
        raise StoreError(f"a block's kind must be one of {', '.join(BLOCK_KINDS)}; got {kind!r}")


def row_numbers(
    images: ArrayLike,
    count: int,
    places: Callable[[list[str]], NDArray[np.int64]],
    image_ids: Callable[[], Sequence[str]],
    store: object,
) -> NDArray[np.int64]:
    """Row numbers of images that are named by their ids (``str``) or by row numbers (``int``), never by both at once.

    The type decides, not the look: ``"2"`` is an id and ``2`` a row, whatever the ids are.

    Args:
        images: one image, or any sequence of ids or of row numbers: list, range, numpy array, pandas Series or Index
            (in its order; the index of a Series plays no part). Repeats are allowed; nothing gives no rows.
        count: number of rows.
        places: gives the row of each id, -1 for one that is unknown; called only where there are ids to look up.
        image_ids: gives those of all rows, for a message.
        store: named in messages.

    Returns:
        int64 [R].

    Raises:
        StoreError: an id is unknown, a row number is negative or too large, or there is anything else than ids or
            integers: booleans, floats, missing values, both kinds together, or more than one dimension.
    """
    values = _as_array(images)
    if values.ndim != 1:
        raise StoreError(f"images must be one image or a flat sequence of them; got shape {values.shape}")
    if not values.size:
        return np.zeros(0, dtype=np.int64)
    if values.dtype.kind == "U" or all(isinstance(value, str) for value in values.flat):
        names = [str(name) for name in values.tolist()]
        rows = places(names)
        if len(unknown := np.flatnonzero(rows < 0)):
            raise _unknown(names[unknown[0]], image_ids(), store)
        return rows
    if values.dtype.kind not in "iu":
        _refuse_other_types(values)
    if not (values.min() >= 0 and values.max() < count):
        raise StoreError(f"row numbers must be between 0 and {count - 1}; got {values.min()}–{values.max()}")
    return values.astype(np.int64)


def _as_array(images: ArrayLike) -> NDArray[Any]:
    """The images, in one dimension at least; members of a list keep their types, where numpy makes text of all."""
    if isinstance(images, range):
        return np.arange(images.start, images.stop, images.step)
    try:
        array: NDArray[Any] = np.asarray(images, dtype=None if hasattr(images, "__array__") else object)
    except (TypeError, ValueError) as error:
        raise StoreError(f"images must be ids or row numbers: {error}") from error
    return array.reshape(1) if array.ndim == 0 else array


def _refuse_other_types(values: NDArray[Any]) -> None:
    """Raise unless all values are integers."""
    kinds = {type(value) for value in values.tolist()}
    if kinds & {bool, np.bool_}:
        raise StoreError("images must be ids or row numbers, not booleans: take numpy.flatnonzero(mask)")
    if not all(issubclass(kind, Integral) for kind in kinds):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise StoreError(f"images must be all ids (str) or all row numbers (int); got {names}")


def _unknown(name: str, known: Sequence[str], store: object) -> StoreError:
    near = difflib.get_close_matches(name, known[:_SEARCHED], n=1)
    if name.isdecimal() and int(name) < len(known):
        hint = f"row {int(name)} is the integer {int(name)}, not the text; its id is {known[int(name)]!r}"
    else:
        hint = (
            f"did you mean {near[0]!r}?" if near else f"its first is {known[0]!r}" if known else "it is empty"
        )
    return StoreError(f"{store} has no image {name!r} ({hint})")


def case_codes(group_ids: Sequence[str]) -> NDArray[np.int64]:
    """One integer per case, from 0, in the order of names; an image without ``group_id`` is a case of its own. [N]."""
    given = group_ids.values if isinstance(group_ids, Column) else pa.array(list(group_ids), pa.string())
    own = pc.binary_join_element_wise("\0", pc.cast(pa.array(np.arange(len(group_ids))), pa.string()), "")
    names = pc.if_else(pc.equal(given, ""), own, given).dictionary_encode()
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    order = pc.sort_indices(names.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return np.asarray(rank[names.indices.to_numpy()])


def finite(values: NDArray[Any], what: str) -> NDArray[np.float32]:
    """The values as float32; a store with others would give NaN as targets."""
    if not np.isfinite(values).all():
        raise StoreError(f"{what} has values that are not finite: build the store again")
    return np.asarray(values, dtype=np.float32)


def gram(left: sparse.csr_array, right: sparse.csr_array | None = None) -> NDArray[np.float32]:
    """Products of all rows of ``left`` [R, D] with all rows of ``right`` [C, D], or of ``left`` again: S = A·Bᵀ.

    A few broad ancestors ("Disease", "Anatomical structure") are in most rows: a sparse product spends most of its time
    on them, a dense one on the thousands of columns that are nearly empty. So the columns are split by how full
    they are in this batch: the full ones are multiplied as a dense matrix, the rest stays sparse.

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
