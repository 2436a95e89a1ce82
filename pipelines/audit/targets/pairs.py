"""The most similar images of different cases: what a model would be told to treat as nearly the same.

The list is for a person to judge, so it is not one cluster ten times over: each image appears once, and among equal
similarities (there are often thousands of pairs with S = 1) the choice is random, seeded. Captions go to the terminal
and to JSON only.
"""

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.scoring.neighbors import TIE_RESOLUTION
from kg_targets.store import TargetStore
from pipelines.audit.targets.report import Section
from pipelines.audit.targets.settings import EvaluationSettings
from pipelines.audit.targets.similarity import similarity_chunks
from pipelines.audit.targets.subjects import Subjects

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TITLE = "Most similar images of different cases"
_SHOWN_CONCEPTS = 5


def pairs_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """How many pairs the first store calls identical, on how many concepts that rests, and the most similar pairs."""
    store, cases = subjects.reference, subjects.cases
    best, identical = survey(store, cases)
    total = sum(identical.values())
    lines = [f"of [1]; pairs of different cases with S = 1: {total:,}{_resting(identical, total)}"]
    found = most_similar_pairs(store, cases, best, settings.shown_pairs, settings.seed)
    shown = [_described(store, left, right, score) for left, right, score in found]
    private = [line for number, pair in enumerate(shown, 1) for line in _lines(number, pair)]
    data = {
        "identical_pairs": total,
        "identical_pairs_by_concepts": {str(count): n for count, n in sorted(identical.items())},
        "pairs": shown,
    }
    return Section("pairs", TITLE, lines, private=private, data=data)


def survey(store: TargetStore, cases: IntArray) -> tuple[FloatArray, dict[int, int]]:
    """One pass over all pairs, chunk by chunk.

    Returns:
        Each image's largest similarity to an image of another case, float64 [N]; and the number of unordered pairs of
        different cases with S = 1, by the smaller number of concepts that one of the two asserts.
    """
    best = np.full(len(store), -np.inf)
    concepts = np.diff(store.cui_matrix().indptr)
    identical: dict[int, int] = {}
    for rows, block in similarity_chunks(store.factors, store.factors):
        block[cases[rows, None] == cases[None, :]] = -np.inf
        best[rows] = block.max(axis=1)
        left, right = np.nonzero(block >= 1.0 - TIE_RESOLUTION)
        once = left + rows.start < right
        smaller = np.minimum(concepts[left[once] + rows.start], concepts[right[once]])
        for count, pairs in zip(*np.unique(smaller, return_counts=True), strict=True):
            identical[int(count)] = identical.get(int(count), 0) + int(pairs)
    return best, identical


def most_similar_pairs(
    store: TargetStore, cases: IntArray, best: FloatArray, count: int, seed: int
) -> list[tuple[int, int, float]]:
    """Greedily the most similar pairs of different cases, each image at most once, ties in random order.

    Args:
        best: each image's largest similarity to another case, float64 [N] (from `survey`): an upper bound that is
            lowered when its partner is used up, so that only a few rows are ever looked at again.

    Returns:
        Up to ``count`` triples (row, row, similarity), best first; only positive similarities.
    """
    luck = np.random.default_rng([seed, 5]).permutation(len(store))
    heap = [(-_level(score), int(luck[row]), row) for row, score in enumerate(best.tolist()) if score > 0]
    heapq.heapify(heap)
    used = np.zeros(len(store), dtype=bool)
    found: list[tuple[int, int, float]] = []
    while heap and len(found) < count:
        bound, _, row = heapq.heappop(heap)
        if used[row]:
            continue
        (_, block), *_ = similarity_chunks(store.factors[[row]], store.factors)
        scores = np.where(used | (cases == cases[row]), -np.inf, block[0])
        level = _level(float(scores.max()))
        if level < -bound:
            if level > 0:
                heapq.heappush(heap, (-level, int(luck[row]), row))
            continue
        tied = np.flatnonzero(scores >= scores.max() - TIE_RESOLUTION)
        other = int(tied[np.argmin(luck[tied])])
        used[[row, other]] = True
        found.append((min(row, other), max(row, other), float(scores[other])))
    return found


def _level(score: float) -> float:
    """Similarity on a grid of 1e-6, so that rounding does not decide between equals."""
    return round(score, 6)


def _described(store: TargetStore, left: int, right: int, similarity: float) -> dict[str, Any]:
    explanation = store.explain(store.image_ids[left], store.image_ids[right])
    return {
        "images": [explanation.first, explanation.second],
        "captions": [explanation.first_caption, explanation.second_caption],
        "similarity": similarity,
        "shared_concepts": [
            {"cui": concept.cui, "name": concept.name, "share": concept.share}
            for concept in explanation.shared[:_SHOWN_CONCEPTS]
        ],
        "note": explanation.note,
    }


def _lines(number: int, pair: dict[str, Any]) -> list[str]:
    concepts = ", ".join(f"{item['name']} {item['share']:.0%}" for item in pair["shared_concepts"])
    captions = [
        f"    {image}: {' '.join(caption.split())}"
        for image, caption in zip(pair["images"], pair["captions"], strict=True)
    ]
    return [f"{number}. S = {pair['similarity']:.3f}  {concepts or pair['note']}", *captions]


def _resting(identical: dict[int, int], total: int) -> str:
    if not total:
        return ""
    few = [identical.get(count, 0) / total for count in (1, 2)]
    return f" ({few[0]:.0%} rest on one concept, {few[1]:.0%} on two, {1 - sum(few):.0%} on more)"
