"""Nearest neighbours: exact, or among candidates that share what weighs most; N×N is never held, memory is O(N·k).

Row i's neighbours are ordered by

    S_ij + ½·10⁻⁶·cos(θ_i − φ_j)      θ, φ: two angles that each image's id is hashed to

so that equal scores are broken by both ids, and so may be scores that differ by less than 1e-6, which float32 factors
cannot tell apart. By row, the first of many equal images would be neighbours of all the others; here each of them
prefers others. One total order for sparse and dense factors, for any order of rows and number of processes.

Captions repeat, and so do factors: products are taken between distinct rows only, and each list of rows is expanded to
images afterwards. Of many images with one factor only those whose φ is next to θ_i can be among the nearest k.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sparse_dot_topn import sp_matmul_topn

from kg_targets.errors import ConfigError
from kg_targets.scoring.candidates import Candidates, Ints, mixed
from kg_targets.scoring.factors import Factors
from kg_targets.store.digest import shuffle_key
from kg_targets.store.factors import (
    AnyFactors,
    as_float64,
    dense_matrix,
    parts_of,
    similarities,
    sparse_matrix,
)

TIE_RESOLUTION = 1e-6
NONE = -1
"""Fills a row's places behind its last neighbour."""
EXACT_UP_TO = 100_000
"""Distinct rows up to which ``auto`` is exact: about 3 minutes of one core; measured, see docs/scale.md."""
SAMPLED = 256
"""Distinct rows whose exact neighbours an approximate search is compared with."""
_QUERIES = 1024  # distinct rows of a task: a few seconds of work
_SPARE = 63  # rows beyond k that are asked for at once, for those that tie with the last
_CHUNK_BYTES = 64 * 2**20
_KEYS_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 65_536
_SALT = 0x9E3779B97F4A7C15

Neighbors = tuple[NDArray[np.int32], NDArray[np.float32]]
Found = tuple[Ints, NDArray[np.int32], NDArray[np.float32]]
"""Images [M], their neighbours int32 [M, k] (``NONE`` behind the last), and the scores float32 [M, k]."""


class _Best(NamedTuple):
    """The most similar rows of each query, best first: those of query q are ``[starts[q]:starts[q + 1]]``."""

    starts: Ints
    rows: Ints
    scores: NDArray[np.float64]


def nearest(
    factors: Factors, k: int, image_ids: Sequence[str], chunk_rows: int = 4096, threads: int = 1
) -> Iterator[list[Neighbors]]:
    """For each chunk of rows, each row's exact (neighbour rows int32, scores float32), best first.

    An image is not its own neighbour, and images of no similarity (≤ 1e-6) are nobody's: lists may be shorter than
    ``k``. Ties are broken by the ids, [N].
    """
    search = NeighborSearch(factors, k, id_angles(image_ids), threads)
    rows, scores = search.empty()
    for queries in search.parts():
        images, found, theirs = search.find(queries)
        rows[images], scores[images] = found, theirs
    for start in range(0, len(rows), chunk_rows):
        here = slice(start, start + chunk_rows)
        yield [
            (line[line != NONE], score[line != NONE])
            for line, score in zip(rows[here], scores[here], strict=True)
        ]


def id_angles(image_ids: Sequence[str]) -> NDArray[np.float64]:
    """θ and φ of each image, [N, 2], in [0, 2π)."""
    digests = b"".join(shuffle_key(0, image_id)[:16] for image_id in image_ids)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2) * (2 * np.pi / 2.0**64)


class NeighborSearch:
    """The nearest ``k`` images of every image.

    Args:
        factors: of N images.
        k: at least 1.
        angles: of ``id_angles``, [N, 2].
        threads: of one task, where factors are sparse.
    """

    def __init__(self, factors: Factors, k: int, angles: NDArray[np.float64], threads: int = 1) -> None:
        self.k, self.threads, self.images = k, threads, len(angles)
        first, of_image = _distinct(factors.matrix)
        self.distinct: AnyFactors = factors.matrix[first]
        self._members: Ints = np.lexsort((angles[:, 1], of_image))
        """Images by their distinct row, and by φ within."""
        self._starts: Ints = np.concatenate([[0], np.cumsum(np.bincount(of_image))])
        self._angles = angles
        self._left, self._right = (np.stack([np.cos(angle), np.sin(angle)], axis=1) for angle in angles.T)
        self._right *= TIE_RESOLUTION / 2
        self._right_side: AnyFactors | None = None
        self._candidates: Candidates | None = None

    def __len__(self) -> int:
        return len(self._starts) - 1

    def empty(self) -> Neighbors:
        """Arrays for the result, [N, k]."""
        shape = (self.images, self.k)
        return np.full(shape, NONE, dtype=np.int32), np.zeros(shape, dtype=np.float32)

    def parts(self) -> list[Ints]:
        """The work in parts, none of which has to wait for another: distinct rows whose images' neighbours to find."""
        starts = range(0, len(self), _QUERIES)
        return [np.arange(start, min(start + _QUERIES, len(self))) for start in starts]

    def members(self, queries: Ints) -> Ints:
        """The images of some distinct rows that follow each other."""
        return self._members[self._starts[queries[0]] : self._starts[queries[-1] + 1]]

    def prepare(self, exact: bool) -> None:
        """Make what all parts need, before processes that share it are forked.

        Raises:
            ConfigError: an approximate search of factors that are not sparse.
        """
        if exact:
            self._right_side = _turned(self.distinct)
        elif sparse.issparse(self.distinct):
            self._candidates = Candidates(sparse.csr_array(self.distinct))
        else:
            raise ConfigError(
                "--neighbors approximate is for scorers with sparse factors: take exact, or --top-k 0 for none"
            )

    def find(self, queries: Ints) -> Found:
        """The neighbours of all images of some distinct rows: exact, unless it was prepared otherwise."""
        found: list[Found] = []
        if self._candidates is not None:
            for query, (rows, scores) in zip(queries, self._candidates.similar(queries), strict=True):
                needed = self._needed(self._starts[rows + 1] - self._starts[rows], scores)
                found.extend(self._expanded(int(query), rows[:needed], scores[:needed]))
        else:
            found = self._exact(queries)
        images, lines, scored = zip(*found, strict=True)
        return np.concatenate(images), np.concatenate(lines), np.concatenate(scored)

    def _exact(self, queries: Ints) -> list[Found]:
        if self._right_side is None:
            self.prepare(exact=True)
        sizes = np.diff(self._starts)
        pending, count = np.arange(len(queries)), self.k + 1 + _SPARE
        found: list[Found] = []
        while len(pending):
            best = _best(self.distinct[queries[pending]], self._right_side, count, self.threads)
            incomplete = []
            for place, number in enumerate(pending):
                span = slice(best.starts[place], best.starts[place + 1])
                rows, scores = best.rows[span], best.scores[span]
                needed = self._needed(sizes[rows], scores)
                if needed == len(rows) == count < len(self):
                    incomplete.append(number)  # more may tie with the last
                else:
                    found.extend(self._expanded(int(queries[number]), rows[:needed], scores[:needed]))
            pending, count = np.array(incomplete, dtype=np.int64), 4 * count
        return found

    def recall(self, rows: NDArray[np.int32], sample: int = SAMPLED) -> float:
        """Share of the exact neighbours of some images that approximate lists ``rows`` [N, k] have.

        Args:
            rows: of all images.
            sample: distinct rows that are looked at, evenly spread; all their images count.
        """
        chosen = np.unique(np.linspace(0, len(self) - 1, sample).astype(np.int64))
        found, hits = self._exact(chosen), 0
        images, exact = (
            np.concatenate([part[0] for part in found]),
            np.concatenate([part[1] for part in found]),
        )
        for image, line in zip(images, exact, strict=True):
            hits += len(np.intersect1d(line[line != NONE], rows[image]))
        return float(hits / max(int((exact != NONE).sum()), 1))

    def _needed(self, sizes: Ints, scores: NDArray[np.float64]) -> int:
        """How many of a query's rows, best first, can have one of its k nearest images, itself not counted."""
        enough = int(np.searchsorted(np.cumsum(sizes), self.k + 1))
        if enough >= len(scores):
            return len(scores)
        return int(np.searchsorted(-scores, -(scores[enough] - 1.001 * TIE_RESOLUTION), side="right"))

    def _expanded(self, query: int, rows: Ints, scores: NDArray[np.float64]) -> Iterator[Found]:
        """The neighbours of a distinct row's images, by the distinct rows that may have them."""
        images = self._members[self._starts[query] : self._starts[query + 1]]
        begins, sizes = self._starts[rows], self._starts[rows + 1] - self._starts[rows]
        window = 2 * (self.k + 1)
        small = sizes <= window
        lengths = sizes[small]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        all_of = self._members[np.repeat(begins[small], lengths) + within]
        their = np.repeat(scores[small], lengths)
        width = len(all_of) + window * int((~small).sum())
        step = max(1, _KEYS_AT_ONCE // max(width, 1))
        for start in range(0, len(images), step):
            some = images[start : start + step]
            others = [np.broadcast_to(all_of, (len(some), len(all_of)))]
            similar = [their]
            for begin, size, score in zip(begins[~small], sizes[~small], scores[~small], strict=True):
                members = self._members[begin : begin + size]
                places = np.searchsorted(self._angles[members, 1], self._angles[some, 0])
                around = (places[:, None] + np.arange(-self.k - 1, self.k + 1)) % size
                others.append(members[around])
                similar.append(np.full(window, score))
            yield self._chosen(some, np.concatenate(others, axis=1), np.concatenate(similar))

    def _chosen(self, images: Ints, others: Ints, similar: NDArray[np.float64]) -> Found:
        """The k best of each image's candidates, [M, C], whose similarities are [C]."""
        left, right = self._left[images], self._right
        # The order of these two sums is that of a product with two more columns.
        keys = similar + left[:, :1] * right[others, 0]
        keys += left[:, 1:] * right[others, 1]
        keys[others == images[:, None]] = -np.inf
        if keys.shape[1] > self.k:
            few = np.argpartition(-keys, self.k - 1, axis=1)[:, : self.k]
            keys, others = np.take_along_axis(keys, few, 1), np.take_along_axis(others, few, 1)
        order = np.argsort(-keys, axis=1, kind="stable")
        keys, others = np.take_along_axis(keys, order, 1), np.take_along_axis(others, order, 1)
        shifts = left[:, :1] * right[others, 0] + left[:, 1:] * right[others, 1]
        near = keys > TIE_RESOLUTION / 2
        rows = np.full((len(images), self.k), NONE, dtype=np.int32)
        scores = np.zeros((len(images), self.k), dtype=np.float32)
        rows[:, : keys.shape[1]] = np.where(near, others, NONE)
        scores[:, : keys.shape[1]] = np.where(near, keys - shifts, 0.0)
        return images, rows, scores


def _turned(factors: AnyFactors) -> AnyFactors:
    """Factors in float64 as the right side of a product; sparse ones are transposed."""
    matrix = _only_sparse(factors)
    return as_float64(factors) if matrix is None else sparse.csr_matrix(matrix.astype(np.float64).T)


def _only_sparse(factors: AnyFactors) -> sparse.csr_array | None:
    """Factors without any dense column; None for others."""
    return None if dense_matrix(factors) is not None else sparse_matrix(factors)


def _best(left: AnyFactors, right: AnyFactors, count: int, threads: int) -> _Best:
    """Of each row of ``left``, the ``count`` rows of ``right`` (of ``_turned``) with the largest products above 0."""
    matrix = _only_sparse(left)
    if matrix is not None:
        doubles = sparse.csr_matrix(matrix.astype(np.float64))
        found = sp_matmul_topn(doubles, right, count, threshold=0.0, sort=True, n_threads=threads)
        return _Best(found.indptr.astype(np.int64), found.indices.astype(np.int64), found.data)
    wide, lengths, rows, scores = as_float64(left), [0], [], []
    step = max(1, _CHUNK_BYTES // (8 * max(right.shape)))
    for start in range(0, left.shape[0], step):
        for line in similarities(wide[start : start + step], right):
            few = np.argpartition(-line, count - 1)[:count] if count < len(line) else np.arange(len(line))
            few = np.sort(few)
            few = few[np.argsort(-line[few], kind="stable")]
            few = few[line[few] > 0]
            lengths.append(len(few))
            rows.append(few)
            scores.append(line[few])
    return _Best(np.cumsum(lengths), np.concatenate(rows), np.concatenate(scores))


def _distinct(factors: AnyFactors) -> tuple[Ints, Ints]:
    """First image of each distinct row, [D], in the order of a hash of its content; and each image's distinct row, [N].

    Of the content 128 bits count: of a billion different rows two share them with chance 10⁻²⁰.
    """
    keys = np.zeros((2, factors.shape[0]), dtype=np.uint64)
    for start in range(0, factors.shape[0], _ROWS_AT_ONCE):
        here = slice(start, start + _ROWS_AT_ONCE)
        for number, part in enumerate(parts_of(factors)):
            matrix = sparse.csr_array(part[here])
            matrix.sort_indices()
            place = matrix.indices.astype(np.uint64) << np.uint64(32)
            bits = place | np.ascontiguousarray(matrix.data, dtype=np.float32).view(np.uint32)
            for half in range(2):
                words = mixed(bits ^ np.uint64(_SALT * (2 * number + half + 1) % 2**64))
                sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words, dtype=np.uint64)])
                keys[half, here] += sums[matrix.indptr[1:]] - sums[matrix.indptr[:-1]]
    order = np.lexsort(keys)
    new = np.ones(len(order), dtype=bool)
    new[1:] = (keys[:, order[1:]] != keys[:, order[:-1]]).any(axis=0)
    of_image = np.empty(len(order), dtype=np.int64)
    of_image[order] = np.cumsum(new) - 1
    return order[new], of_image
