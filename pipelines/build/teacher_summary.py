"""What a person wants to know of a teacher's store at first: does the teacher find each image's own caption?"""

from dataclasses import dataclass

import numpy as np

from kg_targets.store import TeacherStore

SAMPLE = 1024
"""Images of different cases that are compared."""


@dataclass(frozen=True)
class Agreement:
    """Cosines and ranks among sampled images of different cases and their captions."""

    images: int
    own: float
    """Mean cosine of an image and its own caption."""
    other: tuple[float, float]
    """Median and 95th percentile of the cosines with other images' captions."""
    first: float
    """Share of images whose own caption is the nearest (or as near as the nearest)."""
    mass: float
    """Mean share of its own caption in softmax(scale·cosine) over the sample."""


def agreement(store: TeacherStore, sample: int = SAMPLE, seed: int = 0) -> Agreement | None:
    """Measured on up to ``sample`` readable images, one of each case; None if there are fewer than two."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(store.known))
    groups = np.asarray(store.group_ids, dtype=object)[order]
    rows = np.sort(order[np.sort(np.unique(groups, return_index=True)[1])][:sample])
    if len(rows) < 2 or not store.dim:
        return None
    logits = store.block(rows).astype(np.float64)
    own = np.diag(logits)
    others = logits[~np.eye(len(rows), dtype=bool)] / store.scale
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Agreement(
        images=len(rows),
        own=float(own.mean() / store.scale),
        other=(float(np.quantile(others, 0.5)), float(np.quantile(others, 0.95))),
        first=float((own >= logits.max(axis=1)).mean()),
        mass=float((np.diag(weights) / weights.sum(axis=1)).mean()),
    )


def agreement_lines(found: Agreement | None) -> list[str]:
    """The closing lines of a build."""
    if found is None:
        return ["no two images of different cases to compare"]
    return [
        f"cosine of image and caption, {found.images:,} images of different cases: own {found.own:.3f} on average, "
        f"others' median {found.other[0]:.3f}, p95 {found.other[1]:.3f}",
        f"the own caption is the nearest of {found.images:,} for {found.first:.1%} of the images; its mean share of "
        f"softmax(scale·cosine) is {found.mass:.1%}",
    ]
