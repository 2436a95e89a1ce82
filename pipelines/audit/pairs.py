"""Pairs of images: does similarity tell one case from others, and which pairs of different cases are most similar?

    AUROC = P(S of a same-case pair > S of a different-case pair) + ½·P(equal)      (Mann and Whitney 1947)

All same-case pairs (or a random sample of them) against a random sample of pairs of different cases. Intervals resample
the cases of the same-case pairs; the sampled different-case pairs are held fixed.

The most similar pairs of different cases would be trained to be nearly the same. The list is for a
person to judge, so it is not one cluster ten times over: each image appears once, and among equal similarities (there
are often thousands of pairs with S = 1) the choice is random, seeded. Captions go to the terminal and to JSON only.
"""

import heapq
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kg_targets.scoring.factors import pair_similarities
from kg_targets.scoring.neighbors import TIE_RESOLUTION
from kg_targets.store import TargetStore
from kg_targets.store.factors import lengths
from pipelines.audit.report import Section, Table, cells, measure
from pipelines.audit.similarity import similarity_chunks
from pipelines.audit.subjects import EvaluationSettings, Subjects
from training.statistics.intervals import FloatArray, IntArray

Pairs = tuple[IntArray, IntArray]

MOST_SIMILAR = "Most similar images of different cases"
SEPARATION = "Images of one case against images of different cases"
STRANGER = 0.99
"""Similarity above which two images are as good as identical to a store."""
_SHOWN_CONCEPTS = 5
_DECIMALS = 6  # similarities that agree to here are ties: float32 factors cannot tell them apart


def separation_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """Mean similarity within and between cases, and the AUROC of similarity for "same case"."""
    cases = subjects.cases
    generator = np.random.default_rng([settings.seed, 4])
    within = same_case_pairs(cases, settings.sampled_pairs, generator)
    if not len(within[0]):
        return Section("separation", SEPARATION, ["left out: no case has two images"])
    between = different_case_pairs(cases, settings.sampled_pairs, generator)
    captions = subjects.reference.captions
    copied = np.array([captions[i] == captions[j] for i, j in zip(*within, strict=True)])
    inside = [pair_similarities(store.factors, *within).round(_DECIMALS) for store in subjects.stores]
    outside = [pair_similarities(store.factors, *between).round(_DECIMALS) for store in subjects.stores]
    ranks = [placements(near, far) for near, far in zip(inside, outside, strict=True)]
    of_pair = cases[within[0]]
    differ = [np.where(copied, np.nan, rank) for rank in ranks]
    chance = np.full(len(of_pair), 0.5)
    measured = [
        measure("same case", "mean S", inside, None, of_pair, settings),
        measure("same case", "AUROC", ranks, chance, of_pair, settings),
        measure("same case, captions differ", "AUROC", differ, chance, of_pair, settings),
    ]
    rows = cells(measured)
    means = [f"{100 * values.mean():.1f}" for values in outside]
    rows.insert(1, ["different cases", "mean S", "–", *means])
    lines = [
        f"{len(of_pair):,} same-case pairs of {len(np.unique(of_pair)):,} cases, {len(between[0]):,} pairs of "
        f"different cases; {copied.mean():.1%} of the same-case pairs have one and the same caption",
    ]
    table = Table(["pairs", "metric ×100", "chance", *subjects.columns], rows, left=2)
    data = {
        "same_case_pairs": len(of_pair),
        "different_case_pairs": len(between[0]),
        "same_caption_share": float(copied.mean()),
        "different_cases_mean": [float(values.mean()) for values in outside],
        "measures": [asdict(row) for row in measured],
    }
    return Section("separation", SEPARATION, lines, table, data=data)


def placements(near: FloatArray, far: FloatArray) -> FloatArray:
    """For each value of ``near``, the share of ``far`` below it, ties counting half; their mean is the AUROC."""
    ordered = np.sort(far)
    below = np.searchsorted(ordered, near, side="left") + np.searchsorted(ordered, near, side="right")
    return below / (2.0 * len(far))


def same_case_pairs(cases: IntArray, limit: int, generator: np.random.Generator) -> Pairs:
    """All pairs i ≠ j of one case, or ``limit`` of them drawn with replacement if there are more; int64 [P] each."""
    order = np.argsort(cases, kind="stable")
    sizes = np.bincount(cases)
    starts = np.cumsum(sizes) - sizes
    counts = sizes * (sizes - 1) // 2
    if counts.sum() > limit:
        chosen = generator.choice(len(sizes), size=limit, p=counts / counts.sum())
        first = generator.integers(0, sizes[chosen])
        second = (first + generator.integers(1, sizes[chosen])) % sizes[chosen]
        return order[starts[chosen] + first], order[starts[chosen] + second]
    upper = [np.triu_indices(size, 1) for size in sizes]
    left = [starts[case] + first for case, (first, _) in enumerate(upper)]
    right = [starts[case] + second for case, (_, second) in enumerate(upper)]
    return order[np.concatenate(left).astype(np.int64)], order[np.concatenate(right).astype(np.int64)]


def different_case_pairs(cases: IntArray, size: int, generator: np.random.Generator) -> Pairs:
    """``size`` ordered pairs drawn uniformly from all pairs of different cases, with replacement; int64 [size]."""
    order = np.argsort(cases, kind="stable")
    sizes = np.bincount(cases)
    starts = np.cumsum(sizes) - sizes
    own = sizes[cases]
    left = generator.choice(len(cases), size=size, p=(len(cases) - own) / (len(cases) - own).sum())
    place = generator.integers(0, len(cases) - own[left])
    # Images stand case by case in ``order``: a place at or after the own case is moved past it.
    place = place + np.where(place >= starts[cases[left]], own[left], 0)
    return left.astype(np.int64), order[place]


def pairs_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """Images with a stranger in each store; pairs identical to the first, by the concepts they rest on; its closest."""
    store, cases = subjects.reference, subjects.cases
    surveyed = [survey(other, cases) for other in subjects.stores]
    best, identical = surveyed[0].best, surveyed[0].identical
    strangers = [
        measure("images", f"% with {name} > {STRANGER:g}", scores, None, cases, settings)
        for name, found in (
            ("S", [one.best for one in surveyed]),
            ("cosine", [one.aligned for one in surveyed]),
        )
        for scores in [
            [
                np.where(other.known, nearest > STRANGER, np.nan)
                for other, nearest in zip(subjects.stores, found, strict=True)
            ]
        ]
    ]
    total = sum(identical.values())
    one, two = (identical.get(count, 0) / max(total, 1) for count in (1, 2))
    shares = (
        f" ({one:.0%} rest on one concept, {two:.0%} on two, {1 - one - two:.0%} on more)" if total else ""
    )
    lines = [
        f"a stranger is an image of another case that is as good as identical: S > {STRANGER:g}; known images",
        f"of [1]; pairs of different cases with S = 1: {total:,}{shares}",
    ]
    found = most_similar_pairs(store, cases, best, settings.shown_pairs, settings.seed)
    shown = [_described(store, left, right, score) for left, right, score in found]
    private = [line for number, pair in enumerate(shown, 1) for line in _lines(number, pair)]
    data = {
        "strangers": asdict(strangers[0]),
        "strangers_by_cosine": asdict(strangers[1]),
        "identical_pairs": total,
        "identical_pairs_by_concepts": {str(count): n for count, n in sorted(identical.items())},
        "pairs": shown,
    }
    table = Table(["strangers", "measure", "–", *subjects.columns], cells(strangers), left=2)
    return Section("pairs", MOST_SIMILAR, lines, table, private=private, data=data)


@dataclass(frozen=True)
class Survey:
    """What one pass over all pairs of different cases tells."""

    best: FloatArray
    """Each image's largest similarity to an image of another case, float64 [N]."""
    aligned: FloatArray
    """The same of cosines, K_i·K_j/(‖K_i‖·‖K_j‖): what shrinkage has taken from the length does not count."""
    identical: dict[int, int]
    """Unordered pairs with S = 1, by the smaller number of concepts that one of the two asserts."""


def survey(store: TargetStore, cases: IntArray) -> Survey:
    """One pass over all pairs, chunk by chunk."""
    best, aligned = np.full(len(store), -np.inf), np.full(len(store), -np.inf)
    length = lengths(store.factors)
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    concepts = np.diff(store.cui_matrix().indptr)
    identical: dict[int, int] = {}
    for rows, block in similarity_chunks(store.factors, store.factors):
        own, cosines = cases[rows, None] == cases[None, :], block * inverse[None, :] * inverse[rows, None]
        block[own] = cosines[own] = -np.inf
        best[rows], aligned[rows] = block.max(axis=1), cosines.max(axis=1)
        left, right = np.nonzero(block >= 1.0 - TIE_RESOLUTION)
        once = left + rows.start < right
        smaller = np.minimum(concepts[left[once] + rows.start], concepts[right[once]])
        for count, pairs in zip(*np.unique(smaller, return_counts=True), strict=True):
            identical[int(count)] = identical.get(int(count), 0) + int(pairs)
    return Survey(best, aligned, identical)


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
    tiebreak = np.random.default_rng([seed, 5]).permutation(len(store))
    # On a grid of 1e-6, so that rounding does not decide between equals.
    bounds = enumerate(best.round(_DECIMALS).tolist())
    heap = [(-bound, int(tiebreak[row]), row) for row, bound in bounds if best[row] > 0]
    heapq.heapify(heap)
    used = np.zeros(len(store), dtype=bool)
    found: list[tuple[int, int, float]] = []
    while heap and len(found) < count:
        bound, _, row = heapq.heappop(heap)
        if used[row]:
            continue
        (_, block), *_ = similarity_chunks(store.factors[[row]], store.factors)
        scores = np.where(used | (cases == cases[row]), -np.inf, block[0])
        level = round(float(scores.max()), _DECIMALS)
        if level < -bound:
            if level > 0:
                heapq.heappush(heap, (-level, int(tiebreak[row]), row))
            continue
        tied = np.flatnonzero(scores >= scores.max() - TIE_RESOLUTION)
        other = int(tied[np.argmin(tiebreak[tied])])
        used[[row, other]] = True
        found.append((min(row, other), max(row, other), float(scores[other])))
    return found


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
