"""Candidates for approximate neighbours of sparse factors: rows that share what weighs most.

Rows that are similar have large products in common columns, and columns of large values are rare concepts: an inverted
index over each row's ``_COLUMNS`` largest columns finds nearly all neighbours in a few hundred rows. A column's list
grows with the number of rows, so a list of more than ``_LONGEST`` rows is not looked through; pairs of such columns
have lists of their own, triples of such pairs again, and of quadruples the first rows only. The work for a row
is so bounded, and that for all rows linear. How many of the exact neighbours are found is measured in every build.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sparse_dot_topn import sp_matmul_topn

_COLUMNS = 6
_LONGEST = 2_048
_LEVELS = 4
_FOUND = 768
_ROWS_AT_ONCE = 65_536

Ints = NDArray[np.int64]


class Candidates:
    """An inverted index of terms: columns, and combinations of columns that are too frequent by themselves.

    Args:
        rows: distinct factors, float32 [D, C]; their order must not follow from their content.
    """

    def __init__(self, rows: sparse.csr_array) -> None:
        self.rows = rows
        columns, values = _largest(rows)
        listed: list[tuple[Ints, Ints, NDArray[np.float32]]] = []
        shown: list[NDArray[np.bool_]] = []
        count = 0
        too_long: dict[tuple[int, ...], NDArray[np.bool_]] = {(): np.ones(rows.shape[0], dtype=bool)}
        for size in range(1, _LEVELS + 1):
            last, here = size == _LEVELS, []
            for combo in combinations(range(_COLUMNS), size):
                wanted = columns[:, combo[-1]] >= 0
                for part in combinations(combo, size - 1):
                    wanted &= too_long[part]
                too_long[combo] = np.zeros(rows.shape[0], dtype=bool)
                here.append((combo, np.flatnonzero(wanted)))
            keys = [_key(np.sort(columns[found][:, combo], axis=1)) for combo, found in here]
            _, terms, lengths = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
            places = np.split(terms.reshape(-1), np.cumsum([len(found) for _, found in here])[:-1])
            for (combo, found), term in zip(here, places, strict=True):
                long = lengths[term] > _LONGEST
                too_long[combo][found] = long
                kept = (lengths[term] > 1) & (last | ~long)
                weight = np.sqrt((values[found[kept]][:, combo] ** 2).sum(axis=1))
                listed.append((found[kept], term[kept] + count, weight.astype(np.float32)))
                shown.append(
                    _first_of(term, _LONGEST)[kept] if last else np.ones(int(kept.sum()), dtype=bool)
                )
            count += len(lengths)
        row, term, weight = (np.concatenate(parts) for parts in zip(*listed, strict=True))
        shape, inside = (rows.shape[0], max(count, 1)), np.concatenate(shown)
        self._terms = sparse.csr_matrix((weight, (row, term)), shape=shape)
        lists = (weight[inside], (term[inside], row[inside]))
        self._lists = sparse.csr_matrix(lists, shape=shape[::-1])

    def similar(self, queries: Ints) -> list[tuple[Ints, NDArray[np.float64]]]:
        """For each query the rows found, [F], with their exact products, best first."""
        terms = self._terms[queries]
        found = sp_matmul_topn(terms, self._lists, top_n=_FOUND, threshold=0.0, sort=False)
        line = np.zeros(self.rows.shape[1])
        result = []
        for place, query in enumerate(queries):
            others = np.sort(found.indices[found.indptr[place] : found.indptr[place + 1]]).astype(np.int64)
            own = slice(self.rows.indptr[query], self.rows.indptr[query + 1])
            line[self.rows.indices[own]] = self.rows.data[own]
            starts = self.rows.indptr[others].astype(np.int64)
            lengths = self.rows.indptr[others + 1] - starts
            owner = np.repeat(np.arange(len(others)), lengths)
            entries = np.arange(len(owner)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
            # One product after the other, in the order of columns: the very sums that an exact search makes.
            products = line[self.rows.indices[entries]] * self.rows.data[entries]
            scores = np.bincount(owner, products, len(others)).astype(np.float64)
            line[self.rows.indices[own]] = 0.0
            order = np.argsort(-scores, kind="stable")
            result.append((others[order], scores[order]))
        return result


def _largest(rows: sparse.csr_array) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The columns with each row's largest values, largest first, and those values, both [D, 6]; -1: none."""
    shape = (rows.shape[0], _COLUMNS)
    columns, values = np.full(shape, -1, dtype=np.int32), np.zeros(shape, dtype=np.float32)
    for start in range(0, rows.shape[0], _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, rows.shape[0])
        span = slice(rows.indptr[start], rows.indptr[stop])
        lengths = np.diff(rows.indptr[start : stop + 1])
        owner = np.repeat(np.arange(stop - start), lengths)
        order = np.lexsort((-rows.data[span], owner))
        place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        near = place < _COLUMNS
        where = (start + owner[near], place[near])
        columns[where], values[where] = rows.indices[span][order][near], rows.data[span][order][near]
    return columns, values


def _key(columns: NDArray[np.int32]) -> NDArray[np.uint64]:
    """64 bits for each row of columns, [R]."""
    keys = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        keys = mixed(keys ^ (column.astype(np.uint64) + np.uint64(1)))
    return keys


def mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number's bits, well mixed (the finaliser of SplitMix64; Steele et al. 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(31))


def _first_of(term: Ints, most: int) -> NDArray[np.bool_]:
    """Whether each entry is among the first ``most`` of its term."""
    order = np.argsort(term, kind="stable")
    lengths = np.bincount(term)
    lengths = lengths[lengths > 0]
    first = np.zeros(len(term), dtype=bool)
    first[order] = np.arange(len(term)) - np.repeat(np.cumsum(lengths) - lengths, lengths) < most
    return first
