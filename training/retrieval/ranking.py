"""Nearest images or captions by cosine, chunk by chunk: no N×N matrix is ever held, and no query finds its own case.

Row i of the queries and row i of the gallery belong to image i: its features, or those of its caption.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.errors import DataError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
Device = torch.device | str

CHUNK = 512
"""Queries scored at a time."""


def rank(
    queries: FloatArray,
    gallery: FloatArray,
    groups: IntArray,
    k: int,
    allowed: NDArray[np.bool_] | None = None,
    *,
    keep_own: bool = False,
    chunk: int = CHUNK,
    device: Device = "cpu",
) -> IntArray:
    """The ``k`` nearest gallery rows of every query.

    Args:
        queries: unit vectors, float32 ``[N, D]``.
        gallery: unit vectors, float32 ``[N, D]``; similarity is their dot product.
        groups: rows of the query's group are not retrieved, int64 ``[N]``: the case of each image, or its own row.
        k: list length.
        allowed: gallery rows that may be retrieved, bool ``[N]``; all by default.
        keep_own: let a query find its own row (an image its own caption), but still no other of its group.
        chunk: queries scored at a time.
        device: where the products are computed.

    Returns:
        int64 ``[N, k]``: rows, best first, ties by row; −1 where the gallery has run out.
    """
    columns = np.flatnonzero(allowed) if allowed is not None else np.arange(len(gallery))
    order = np.full((len(queries), k), -1, dtype=np.int64)
    kept = min(k, len(columns))
    if not kept:
        return order
    pool = gallery if allowed is None else gallery[columns]
    members = GroupMembers(groups, columns)
    for start, scores in score_chunks(queries, pool, chunk, device):
        rows, places = members.of(groups[start : start + len(scores)])
        if keep_own:
            other = columns[places] != rows + start
            rows, places = rows[other], places[other]
        scores[torch.as_tensor(rows), torch.as_tensor(places)] = -torch.inf
        values, found = (part.cpu().numpy() for part in _top(scores, kept))
        order[start : start + len(found), :kept] = np.where(np.isneginf(values), -1, columns[found])
    return order


def score_chunks(
    queries: FloatArray, gallery: FloatArray, chunk: int = CHUNK, device: Device = "cpu"
) -> Iterator[tuple[int, Tensor]]:
    """First query and scores of each chunk, float32 ``[<= chunk, G]``.

    Raises:
        DataError: a feature is not finite: it would be neither near to nor far from anything.
    """
    if not (np.isfinite(queries).all() and np.isfinite(gallery).all()):
        raise DataError("features to rank hold values that are not finite: encode the images again")
    left = torch.as_tensor(queries).to(device)
    right = torch.as_tensor(gallery).to(device).T
    for start in range(0, len(left), chunk):
        yield start, left[start : start + chunk] @ right


class GroupMembers:
    """Columns of a gallery by group.

    Args:
        groups: group of every row, int64 ``[N]``.
        columns: the gallery: rows, in its order.
    """

    def __init__(self, groups: IntArray, columns: IntArray | None = None) -> None:
        members = groups if columns is None else groups[columns]
        self._places = np.argsort(members, kind="stable")
        self._groups = members[self._places]

    def of(self, groups: IntArray) -> tuple[IntArray, IntArray]:
        """All pairs (position in ``groups``, column of that group), int64 ``[P]`` each."""
        first = np.searchsorted(self._groups, groups, side="left")
        counts = np.searchsorted(self._groups, groups, side="right") - first
        positions = np.repeat(np.arange(len(groups)), counts)
        within = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
        return positions, self._places[np.repeat(first, counts) + within]


def pair_ranks(
    queries: FloatArray,
    gallery: FloatArray,
    groups: IntArray,
    captions: IntArray,
    chunk: int = CHUNK,
    device: Device = "cpu",
    right: Callable[[slice], tuple[IntArray, IntArray]] | None = None,
) -> IntArray:
    """Rank of every query's own counterpart: 1 + the wrong gallery rows that score at least as much.

    Own are the query's row and the rows with an equal caption, which nothing can tell from it; the best of them
    counts. A wrong row of equal score stands before it: a model that maps everything to one point finds nothing.
    Other rows of the query's group are neither right nor wrong: they are not in its gallery.

    Args:
        queries: unit vectors, float32 ``[N, D]``.
        gallery: unit vectors, float32 ``[N, D]``.
        groups: case of each row, or its own row to exclude nothing.
        captions: code of each row's caption; equal captions have equal codes.
        chunk: queries scored at a time.
        device: where the products are computed.
        right: gives rows of queries further right rows of other groups: (position among them, gallery row).

    Returns:
        int64 ``[N]``, 1 is best.
    """
    ranks = np.empty(len(queries), dtype=np.int64)
    in_group, equal = GroupMembers(groups), GroupMembers(captions)
    for start, scores in score_chunks(queries, gallery, chunk, device):
        part = slice(start, start + len(scores))
        rows, places = in_group.of(groups[part])
        other = places != rows + start
        scores[torch.as_tensor(rows[other]), torch.as_tensor(places[other])] = -torch.inf
        pairs = [equal.of(captions[part]), *([right(part)] if right else [])]
        pair = tuple(
            torch.as_tensor(np.concatenate(index), device=scores.device) for index in zip(*pairs, strict=True)
        )
        best = torch.full_like(scores[:, 0], -torch.inf).scatter_reduce(0, pair[0], scores[pair], "amax")
        scores[pair] = -torch.inf
        ranks[part] = 1 + (scores >= best[:, None]).sum(dim=1).cpu().numpy()
    return ranks


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the ``k`` best of each row, ``[B, k]``, best first, ties by column.

    ``topk`` is exact in the values and leaves open which of equal scores it takes: rows with equal scores in the
    list, or across its end, are settled afterwards.
    """
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().ravel()
    values, columns = values[:, :k], columns[:, :k]
    if len(tied):
        values[tied], columns[tied] = _top_of_tied(scores[tied], values[tied], columns[tied])
    return values, columns


def _top_of_tied(scores: Tensor, values: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The same for rows with equal scores: those above the k-th best score, then the first columns that equal it."""
    k = values.shape[1]
    last = values[:, -1:]
    place = torch.arange(scores.shape[1], dtype=torch.float64, device=scores.device)
    at_last, first = torch.where(scores == last, -place, -torch.inf).topk(k, dim=1)
    values = torch.cat(
        [values.where(values > last, -torch.inf), last.where(at_last > -torch.inf, -torch.inf)], 1
    )
    columns, by_column = torch.cat([columns, first], dim=1).sort(dim=1, stable=True)
    values, by_value = values.gather(1, by_column).sort(dim=1, descending=True, stable=True)
    return values[:, :k], columns.gather(1, by_value)[:, :k]
