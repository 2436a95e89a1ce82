"""Are images of one case more similar than images of different cases? The case is never told to the store.

    AUROC = P(S of a same-case pair > S of a different-case pair) + ½·P(equal)      (Mann and Whitney 1947)

All same-case pairs (or a random sample of them) against a random sample of pairs of different cases. Intervals resample
the cases of the same-case pairs; the sampled different-case pairs are held fixed.
"""

import numpy as np
from numpy.typing import NDArray

from kg_targets.scoring.factors import pair_similarities
from pipelines.audit.targets.report import Section, Table
from pipelines.audit.targets.settings import EvaluationSettings
from pipelines.audit.targets.statistics import cells, measure
from pipelines.audit.targets.subjects import Subjects

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Pairs = tuple[IntArray, IntArray]

TITLE = "Images of one case against images of different cases"
_DECIMALS = 6  # similarities that agree to here are ties: float32 factors cannot tell them apart


def separation_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """Mean similarity within and between cases, and the AUROC of similarity for "same case"."""
    cases = subjects.cases
    generator = np.random.default_rng([settings.seed, 4])
    within = same_case_pairs(cases, settings.sampled_pairs, generator)
    if not len(within[0]):
        return Section("separation", TITLE, ["left out: no case has two images"])
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
    header = ["pairs", "metric ×100", "chance", *(f"[{n}]" for n in range(1, len(subjects.stores) + 1))]
    data = {
        "same_case_pairs": len(of_pair),
        "different_case_pairs": len(between[0]),
        "same_caption_share": float(copied.mean()),
        "different_cases_mean": [float(values.mean()) for values in outside],
        "measures": [row.as_json() for row in measured],
    }
    return Section("separation", TITLE, lines, Table(header, rows, left=2), data=data)


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
