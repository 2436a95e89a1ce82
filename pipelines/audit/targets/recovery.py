"""Can the neighbours of an image tell a concept that was hidden from it? Needs no labels.

One concept is hidden (see ``hiding``), the factor is recomputed from what is left, and concepts are ranked by the
similarity-weighted votes of the k nearest images of other cases:

    votes(c) = Σ_{j ∈ top-k} max(S_ij, 0)·[j asserts c]

Concepts with equal votes (most have none) are ordered by frequency, the number of images of other cases that assert
them. So a store that knows nothing (``identity``) scores exactly what the last column, *frequency*, does, and the
difference is what a store adds. What still ties is not ordered: hit@m and MRR are expected values over the orders, and
images that tie at the k-th place each vote with their probability of being in. Candidates are the concepts of the
hidden one's group that the image does not assert anyway ("filtered" ranking; Bordes et al. 2013).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.store import TargetStore
from pipelines.audit.targets.hiding import (
    HiddenConcepts,
    factors_without,
    hide_concepts,
    images_of_other_cases,
)
from pipelines.audit.targets.report import Section, Table
from pipelines.audit.targets.rescore import is_additive, recomputation_error
from pipelines.audit.targets.settings import HITS, EvaluationSettings
from pipelines.audit.targets.similarity import best_with_ties, similarity_chunks
from pipelines.audit.targets.statistics import Measured, cells, measure
from pipelines.audit.targets.subjects import Subjects

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TITLE = "Hidden concepts recovered from neighbours"
METRICS = {**{f"hit@{m}": m for m in HITS}, "MRR": 0}
"""Metric to the rank it looks down to; 0 for all ranks."""
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
        return Section(
            "recovery", TITLE, ["left out: no image has a concept that could be hidden and found again"]
        )
    measured = _measured(subjects, questions, settings)
    header = ["hidden", "metric ×100", *(f"[{n}]" for n in range(1, len(subjects.stores) + 1)), "frequency"]
    data = {"questions": len(questions.rows), "unanswerable": questions.unanswerable}
    measures = [row.as_json() for row in measured]
    columns = [*(str(store.path) for store in subjects.stores), "frequency"]
    return Section(
        "recovery",
        TITLE,
        _lines(subjects, questions, settings),
        Table(header, [row[:2] + row[3:] for row in cells(measured)], left=2),
        data={**data, "neighbors": settings.neighbors, "columns": columns, "measures": measures},
    )


def _measured(subjects: Subjects, questions: HiddenConcepts, settings: EvaluationSettings) -> list[Measured]:
    """Every group and metric, for the stores and, last, for frequency."""
    cases = subjects.cases
    scores = [store_scores(store, questions, cases, settings.neighbors) for store in subjects.stores]
    scores.append(frequency_scores(questions, cases))
    return [
        measure(
            group,
            metric,
            [score[metric][asked] for score in scores],
            None,
            cases[questions.rows[asked]],
            settings,
        )
        for group, members in questions.groups.items()
        if (asked := questions.names == group).any()
        for metric, depth in METRICS.items()
        if depth < len(members)  # among five concepts, hit@5 is 1 for everyone
    ]


def _lines(subjects: Subjects, questions: HiddenConcepts, settings: EvaluationSettings) -> list[str]:
    groups = ", ".join(
        f"{name} {int((questions.names == name).sum()):,} (of {len(members)} concepts)"
        for name, members in questions.groups.items()
    )
    lines = [
        f"questions: {groups}; {questions.unanswerable:,} not asked: the concept occurs in no other case",
        f"votes of the {settings.neighbors} nearest images of other cases, equal votes by frequency; "
        "a concept's is_a relatives are hidden with it",
    ]
    fixed = [f"[{n}]" for n, store in enumerate(subjects.stores, 1) if not is_additive(store)]
    if fixed:
        lines.append(
            f"{', '.join(fixed)}: not derived from the image's own concepts, so its stored neighbours vote"
        )
    return lines


def store_scores(
    store: TargetStore, questions: HiddenConcepts, cases: IntArray, neighbors: int
) -> dict[str, FloatArray]:
    """hit@m and MRR of every question by the votes of the nearest images, float64 [Q] each."""
    scores = _empty(questions)
    for span, block in similarity_chunks(factors_without(store, questions), store.factors):
        block[cases[questions.rows[span], None] == cases[None, :]] = -np.inf
        votes = (_voters(block, neighbors) @ questions.asserted).toarray()
        _score(scores, span, votes, questions, cases)
    return scores


def frequency_scores(questions: HiddenConcepts, cases: IntArray) -> dict[str, FloatArray]:
    """The same where nobody votes: concepts ranked by how many images of other cases assert them."""
    scores = _empty(questions)
    for start in range(0, len(questions.rows), _CHUNK):
        span = slice(start, min(start + _CHUNK, len(questions.rows)))
        votes = np.zeros((span.stop - span.start, len(questions.cuis)))
        _score(scores, span, votes, questions, cases)
    return scores


def _voters(block: FloatArray, neighbors: int) -> sparse.csr_array:
    """Each row's vote weights: similarity × probability of being among the nearest, float64 [chunk, N], sparse."""
    columns, weights, counts = [np.zeros(0, np.int64)], [np.zeros(0)], [0]
    for line in block:
        ranking = best_with_ties(line, neighbors)
        columns.append(ranking.columns)
        weights.append(ranking.inclusion(neighbors) * np.maximum(line[ranking.columns], 0.0))
        counts.append(len(ranking.columns))
    parts = (np.concatenate(weights), np.concatenate(columns), np.cumsum(counts))
    return sparse.csr_array(parts, shape=block.shape)


def _score(
    scores: dict[str, FloatArray], span: slice, votes: FloatArray, questions: HiddenConcepts, cases: IntArray
) -> None:
    """Rank the hidden concepts of a chunk of questions by ``votes``, float64 [chunk, V], then by frequency."""
    each, hidden = np.arange(len(votes)), questions.hidden[span]
    candidates = questions.asserted[questions.rows[span]].toarray() == 0
    for group, members in questions.groups.items():
        outside = np.setdiff1d(np.arange(votes.shape[1]), members)
        candidates[np.ix_(questions.names[span] == group, outside)] = False
    candidates[each, hidden] = True
    frequency = images_of_other_cases(questions.asserted, cases, questions.rows[span])
    lead, more = votes - votes[each, hidden][:, None], frequency - frequency[each, hidden][:, None]
    level = np.abs(lead) <= _TOLERANCE
    better = (((lead > _TOLERANCE) | (level & (more > 0))) & candidates).sum(axis=1)
    tied = (level & (more == 0) & candidates).sum(axis=1)  # the hidden concept itself included
    for m in HITS:
        scores[f"hit@{m}"][span] = np.clip((m - better) / tied, 0.0, 1.0)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, votes.shape[1] + 1))])
    scores["MRR"][span] = (harmonic[better + tied] - harmonic[better]) / tied


def _empty(questions: HiddenConcepts) -> dict[str, FloatArray]:
    return {metric: np.zeros(len(questions.rows)) for metric in METRICS}
