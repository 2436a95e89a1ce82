"""Semantic Recall@K: paired Recall@K that takes images of like concepts for right, too (R; beside the strict form).

    sR@K(q) = 1 if among the first K is q's own counterpart, one with an equal caption, or an r of another case with
              |C_q ∩ C_r| / |C_q ∪ C_r| ≥ θ,   else 0

C are the concepts that a caption asserts, θ in (0, 1]; at θ = 1 the sets are equal. Paired recall calls everything
wrong but the one true pair, also a caption that says the same of another patient; the difference between both is how
much of the misses that is. A query without concepts has its own counterpart only: sR@K ≥ Recall@K query by query.

The plausible matches are those of PMRP (Chun et al., Probabilistic Embeddings for Cross-Modal Retrieval, CVPR 2021),
which compares label vectors of COCO, with the Jaccard index in place of their number of differing labels: captions here
assert between none and dozens of concepts, so that a fixed number would mean different things. Ranks, ties and excluded
cases are those of ``training.retrieval.ranking.pair_ranks``.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.retrieval.metrics import Scores, none_of
from training.retrieval.ranking import CHUNK, GroupMembers

IntArray = NDArray[np.int64]
Alike = Callable[[slice], tuple[IntArray, IntArray]]
"""Rows of queries to pairs of (position among them, gallery row) that count as right."""
_ROUNDING = 1e-9


def alike(cuis: sparse.csr_array, threshold: float) -> Alike:
    """Images whose concepts overlap with a query's by at least ``threshold``, in the sense of Jaccard.

    Args:
        cuis: image × concept, 0 or 1, ``[N, C]``.
        threshold: θ, in (0, 1].
    """
    by_concept, sizes = cuis.T.tocsr(), np.diff(cuis.indptr).astype(np.float64)

    def pairs(rows: slice) -> tuple[IntArray, IntArray]:
        shared = sparse.coo_array(cuis[rows] @ by_concept)
        position, image = (np.asarray(index, dtype=np.int64) for index in shared.coords)
        union = sizes[rows][position] + sizes[image] - shared.data
        kept = (shared.data > 0) & (shared.data >= threshold * union - _ROUNDING)
        return position[kept], image[kept]

    return pairs


def semantic_recall_by_chance(
    captions: IntArray, groups: IntArray, right: Alike, depths: Sequence[int], chunk: int = CHUNK
) -> Scores:
    """Expected sR@K of a random order: 1 − C(G − R, K) / C(G, K), with R the right rows in the query's gallery of G.

    Args:
        captions: code of each row's caption, ``[N]``.
        groups: case of each row, or its own row, ``[N]``.
        right: see ``alike``.
        depths: the Ks.
        chunk: queries at a time.
    """
    count = len(captions)
    equal, members = GroupMembers(captions), GroupMembers(groups)
    answers, gallery = (np.empty(count, dtype=np.int64) for _ in range(2))
    for start in range(0, count, chunk):
        part = slice(start, min(start + chunk, count))
        found = [np.concatenate(both) for both in zip(equal.of(captions[part]), right(part), strict=True)]
        position, row = np.divmod(np.unique(found[0] * count + found[1]), count)
        elsewhere = groups[row] != groups[position + start]
        answers[part] = 1 + np.bincount(position[elsewhere], minlength=part.stop - start)
        own = np.bincount(members.of(groups[part])[0], minlength=part.stop - start)
        gallery[part] = count - own + 1
    return {k: 1 - none_of(gallery, answers, k) for k in depths}
