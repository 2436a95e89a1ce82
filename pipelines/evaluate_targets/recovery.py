"""Can the neighbours of an image tell a concept that was hidden from it? Needs no labels.

One concept is hidden (see ``hiding``), the factor is recomputed from what is left, and concepts are ranked by the
similarity-weighted votes of the k nearest images of other cases:

    votes(c) = Σ_{j ∈ top-k} max(S_ij, 0)·[j asserts c]

Candidates are the concepts of the hidden one's group that the image does not assert anyway (the "filtered" ranking of
link prediction; Bordes et al. 2013). hit@m and MRR are expected values over the orders of tied concepts; images that
tie at the k-th place each vote with their probability of being in. Baseline: concepts by their frequency in other cases.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.store import TargetStore
from pipelines.evaluate_targets.hiding import HiddenConcepts, factors_without, hide_concepts
from pipelines.evaluate_targets.report import Section, Table
from pipelines.evaluate_targets.rescore import is_additive, recomputation_error
from pipelines.evaluate_targets.settings import HITS, EvaluationSettings
from pipelines.evaluate_targets.similarity import best_with_ties, similarity_chunks
from pipelines.evaluate_targets.statistics import cells, measure
from pipelines.evaluate_targets.subjects import Subjects

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TITLE = "Hidden concepts recovered from neighbours"
METRICS = (*(f"hit@{m}" for m in HITS), "MRR")
_TOLERANCE = 1e-6
_CHUNK = 512


def recovery_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """hit@1/5/10 and MRR per group of concepts, for every store and for the frequency baseline."""
    for store in subjects.stores:
        if is_additive(store) and (error := recomputation_error(store)) > _TOLERANCE:
            reason = f"{store.path}: recomputed factors differ from the stored ones by {error:.1e}"
            return Section("recovery", TITLE, [f"left out: {reason}; build the store again"])
    questions = hide_concepts(subjects, settings.seed)
    if not len(questions.rows):
        return Section("recovery", TITLE, ["left out: no image has a concept that could be hidden and found again"])
    cases = subjects.cases
    scores = [
        _per_question(store_votes(store, questions, cases, settings.neighbors), questions)
        for store in subjects.stores
    ]
    baseline = _per_question(_frequency_votes(questions, cases), questions)
    measured = [
        measure(
            group,
            metric,
            [score[metric][asked] for score in scores],
            baseline[metric][asked],
            cases[questions.rows[asked]],
            settings,
        )
        for group in questions.groups
        if (asked := questions.names == group).any()
        for metric in METRICS
    ]
    lines = _lines(subjects, questions, settings)
    header = ["hidden", "metric ×100", "frequency", *(f"[{n}]" for n in range(1, len(subjects.stores) + 1))]
    data = {"questions": len(questions.rows), "unanswerable": questions.unanswerable}
    measures = [row.as_json() for row in measured]
    return Section(
        "recovery",
        TITLE,
        lines,
        Table(header, cells(measured), left=2),
        data={**data, "neighbors": settings.neighbors, "measures": measures},
    )


def _lines(subjects: Subjects, questions: HiddenConcepts, settings: EvaluationSettings) -> list[str]:
    groups = ", ".join(
        f"{name} {int((questions.names == name).sum()):,} (of {len(members)} concepts)"
        for name, members in questions.groups.items()
    )
    lines = [
        f"questions: {groups}; {questions.unanswerable:,} not asked: the concept occurs in no other case",
        f"votes of the {settings.neighbors} nearest images of other cases; a concept's is_a relatives are hidden with it",
    ]
    fixed = [f"[{n}]" for n, store in enumerate(subjects.stores, 1) if not is_additive(store)]
    if fixed:
        lines.append(f"{', '.join(fixed)}: not derived from the image's own concepts, so its stored neighbours vote")
    return lines


def store_votes(
    store: TargetStore, questions: HiddenConcepts, cases: IntArray, neighbors: int
) -> FloatArray:
    """Votes for every concept in answer to every question, float32-sized rows computed chunk by chunk, [Q, V]."""
    votes = sparse.lil_array((0, 0))
    parts = []
    for span, block in similarity_chunks(factors_without(store, questions), store.factors):
        rows = questions.rows[span]
        block[cases[rows, None] == cases[None, :]] = -np.inf
        weights = np.zeros_like(block)
        for weight, line in zip(weights, block, strict=True):
            ranking = best_with_ties(line, neighbors)
            share = ranking.inclusion(neighbors)
            weight[ranking.columns] = share * np.maximum(line[ranking.columns], 0.0)
        parts.append(sparse.csr_array(weights) @ questions.asserted)
    return votes if not parts else sparse.vstack(parts, format="csr")
