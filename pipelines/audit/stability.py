"""Do two stores name the same neighbours? Build one again with another seed or fewer mentions, and see.

    overlap@K = Σ_j p_j·q_j / K,  p_j, q_j = probability of image j to be among the K nearest of each store

An image of the own case is nobody's neighbour here. Where similarities tie at the K-th place, each of the tied is in
with the same probability, so a store with ties shares less than all of its neighbours with itself: the first column.
"""

from dataclasses import asdict

import numpy as np

from kg_targets.store.factors import AnyFactors
from pipelines.audit.report import Section, Table, cells, measure
from pipelines.audit.similarity import best_with_ties, similarity_chunks
from pipelines.audit.subjects import EvaluationSettings, Subjects
from training.statistics.intervals import FloatArray, IntArray

DEPTH = 10
"""K: neighbours compared."""
TITLE = "Neighbours in common with [1]"


def stability_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """Share of the ten nearest images of other cases that each store has in common with the first."""
    if len(subjects.stores) < 2:
        return Section("stability", TITLE, ["left out: it compares two stores or more"])
    first, known = subjects.reference, np.logical_and.reduce([store.known for store in subjects.stores])
    shares = [
        np.where(known, overlap(first.factors, store.factors, subjects.cases, DEPTH), np.nan)
        for store in subjects.stores
    ]
    measured = measure("neighbours", f"overlap@{DEPTH}", shares, None, subjects.cases, settings)
    lines = [
        "images known to all stores; built again with --seed or --drop-mentions: how stable are its neighbours?"
    ]
    table = Table(["", "metric ×100", "–", *subjects.columns], cells([measured]), left=2)
    return Section("stability", TITLE, lines, table, data={"depth": DEPTH, "measure": asdict(measured)})


def overlap(one: AnyFactors, other: AnyFactors, cases: IntArray, depth: int) -> FloatArray:
    """overlap@depth of every image, float64 [N] in [0, 1]; NaN where there is no image of another case.

    Args:
        one, other: unit vectors or zeros, [N, D] each, of any two widths.
        cases: case of each image, int64 [N].
        depth: K ≥ 1.
    """
    shares = np.full(len(cases), np.nan)
    chunks = zip(similarity_chunks(one, one), similarity_chunks(other, other), strict=True)
    for (rows, left), (_, right) in chunks:
        same = cases[rows, None] == cases[None, :]
        for offset, query in enumerate(range(rows.start, rows.stop)):
            wanted = min(depth, int((~same[offset]).sum()))
            if wanted:
                inside = [
                    _inclusion(np.where(same[offset], -np.inf, block[offset]), wanted)
                    for block in (left, right)
                ]
                shares[query] = inside[0] @ inside[1] / wanted
    return shares


def _inclusion(scores: FloatArray, depth: int) -> FloatArray:
    """Probability of each image to be among the ``depth`` nearest, float64 [N]; −inf takes no part."""
    ranking, found = best_with_ties(scores, depth), np.zeros(len(scores))
    found[ranking.columns] = ranking.inclusion(depth)
    return found
