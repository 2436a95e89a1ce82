"""Can the neighbours of an image tell a concept that was hidden from it? Needs no labels.

One concept is hidden, the factor is recomputed from what is left, and concepts are ranked by the
similarity-weighted votes of the k nearest images of other cases:

    votes(c) = Σ_{j ∈ top-k} max(S_ij, 0)·[j asserts c]

Concepts with equal votes (most have none) are ordered by frequency, the number of images of other cases that assert
them. So a store that knows nothing (``identity``) scores exactly what the last column, *frequency*, does, and the
difference is what a store adds. What still ties is not ordered: hit@m and MRR are expected values over the orders, and
images that tie at the k-th place each vote with their probability of being in. Candidates are the concepts of the
hidden one's group that the image does not assert anyway ("filtered" ranking; Bordes et al. 2013).

A concept's ancestors and descendants, as far as any of the stores knows them, are taken away with it:
"effusion" left standing would give "pleural effusion" away without any knowledge of medicine. All stores get
the same questions: only concepts that every store asserts of the image are hidden or voted for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.ontology.concept import KIND_GROUPS
from kg_targets.store import TargetStore
from kg_targets.store.factors import AnyFactors
from kg_targets.store.mixture import MIXTURE
from pipelines.audit.report import Measured, Section, Table, cells, measure
from pipelines.audit.rescoring import Hidden, ancestors, factors_without, is_a_edges, recomputation_error
from pipelines.audit.similarity import best_with_ties, similarity_chunks
from pipelines.audit.subjects import EvaluationSettings, Subjects
from training.statistics.intervals import FloatArray, IntArray

TITLE = "Hidden concepts recovered from neighbours"
HITS = (1, 5, 10)
"""The m of hit@m."""
METRICS = {**{f"hit@{m}": m for m in HITS}, "MRR": 0}
"""Metric to the rank it looks down to; 0 for all ranks."""
_TOLERANCE = 1e-6
_SAME_FACTORS = 1e-5  # float32, by an encoder in batches of another make-up
_CHUNK = 512


@dataclass(frozen=True)
class HiddenConcepts:
    """The questions: at most one per image and group of concepts (modality, anatomy, finding)."""

    cuis: list[str]
    """V concepts, ascending: every concept of any store."""
    asserted: sparse.csr_array
    """float64 [N, V]: 1 where every store asserts the concept of the image."""
    related: sparse.csr_array
    """float64 [V, V]: 1 where the column is the row itself, an ancestor or a descendant of it."""
    groups: dict[str, IntArray]
    """Group to those of its concepts (columns) that some image asserts."""
    rows: IntArray
    """int64 [Q]: the image of each question."""
    hidden: IntArray
    """int64 [Q]: the concept hidden (a column)."""
    names: NDArray[np.object_]
    """[Q]: the hidden concept's group."""
    unanswerable: int
    """Questions left out because no image of another case asserts the concept."""

    @property
    def taken(self) -> Hidden:
        """What each question hides: the concept, its ancestors and its descendants."""
        return Hidden(self.rows, self.cuis, sparse.csr_array(self.related[self.hidden]))


def recovery_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """hit@1/5/10 and MRR per group of concepts, for every store and for the frequency baseline."""
    questions = hide_concepts(subjects, settings.seed)
    if not len(questions.rows):
        reason = "left out: no image has a concept that could be hidden and found again"
        return Section("recovery", TITLE, [reason])
    factors, reasons = factors_without(subjects.stores, questions.taken)
    for place, store in enumerate(subjects.stores):
        whole = place in reasons or MIXTURE in store.manifest
        if not whole and (error := recomputation_error(store)) > _SAME_FACTORS:
            reason = f"{store.path}: recomputed factors differ from the stored ones by {error:.1e}"
            return Section("recovery", TITLE, [f"left out: {reason}; build the store again"])
    measured = _measured(subjects, questions, factors, settings)
    header = ["hidden", "metric ×100", *subjects.columns, "frequency"]
    data = {"questions": len(questions.rows), "unanswerable": questions.unanswerable}
    measures = [asdict(row) for row in measured]
    columns = [*(str(store.path) for store in subjects.stores), "frequency"]
    return Section(
        "recovery",
        TITLE,
        _lines(subjects.stores, questions, reasons, settings),
        Table(header, [row[:2] + row[3:] for row in cells(measured)], left=2),
        data={**data, "neighbors": settings.neighbors, "columns": columns, "measures": measures},
    )


def _measured(
    subjects: Subjects, questions: HiddenConcepts, factors: Sequence[AnyFactors], settings: EvaluationSettings
) -> list[Measured]:
    """Every group and metric, for the stores and, last, for frequency."""
    cases = subjects.cases
    scores = [
        store_scores(store, own, questions, cases, settings.neighbors)
        for store, own in zip(subjects.stores, factors, strict=True)
    ]
    scores.append(frequency_scores(questions, cases))
    return [
        measure(group, metric, [score[metric][own] for score in scores], None, own_cases, settings)
        for group, members in questions.groups.items()
        if (own := questions.names == group).any()
        for own_cases in [cases[questions.rows[own]]]
        for metric, depth in METRICS.items()
        if depth < len(members)  # among five concepts, hit@5 is always 1
    ]


def _lines(
    stores: Sequence[TargetStore],
    questions: HiddenConcepts,
    reasons: dict[int, str],
    settings: EvaluationSettings,
) -> list[str]:
    groups = ", ".join(
        f"{name} {int((questions.names == name).sum()):,} (of {len(members)} concepts)"
        for name, members in questions.groups.items()
    )
    lines = [
        f"questions: {groups}; {questions.unanswerable:,} left out: the concept occurs in no other case",
        f"votes of the {settings.neighbors} nearest images of other cases, equal votes by frequency; "
        "a concept's ancestors and descendants are hidden with it",
    ]
    alike: dict[str, list[str]] = {}
    for place, reason in reasons.items():
        alike.setdefault(reason, []).append(f"[{place + 1}]")
    lines += [
        f"{', '.join(places)}: the stored neighbours vote: {reason}" for reason, places in alike.items()
    ]
    if seen := [f"[{number}]" for number, store in enumerate(stores, 1) if _knows_hidden_edges(store)]:
        lines.append(
            f"{', '.join(seen)}: fitted on these images, hidden concepts included: look at another split"
        )
    return lines


def _knows_hidden_edges(store: TargetStore) -> bool:
    """Whether TransE's vectors, of the store or of a mixture's part, were fitted on the images that are asked about."""
    scorers = {part["scorer"] for part in store.manifest.get(MIXTURE, [store.manifest["config"]])}
    return "transe" in scorers and store.manifest["fit"]["split"] == store.split


def store_scores(
    store: TargetStore, factors: AnyFactors, questions: HiddenConcepts, cases: IntArray, neighbors: int
) -> dict[str, FloatArray]:
    """hit@m and MRR of every question by the votes of the nearest images, float64 [Q] each.

    Args:
        factors: of the questions' images without what is hidden, [Q, D].
    """

    def votes() -> Iterator[tuple[slice, FloatArray]]:
        for span, block in similarity_chunks(factors, store.factors):
            block[cases[questions.rows[span], None] == cases[None, :]] = -np.inf
            yield span, (_voters(block, neighbors) @ questions.asserted).toarray()

    return _scores(votes(), questions, cases)


def frequency_scores(questions: HiddenConcepts, cases: IntArray) -> dict[str, FloatArray]:
    """The same without votes: concepts ranked by how many images of other cases assert them."""
    width = len(questions.cuis)
    none = ((span, np.zeros((span.stop - span.start, width))) for span in _spans(len(questions.rows)))
    return _scores(none, questions, cases)


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


def _scores(
    voted: Iterable[tuple[slice, FloatArray]], questions: HiddenConcepts, cases: IntArray
) -> dict[str, FloatArray]:
    """Rank the hidden concepts of each chunk of questions by its votes, float64 [chunk, V], then by frequency."""
    scores = {metric: np.zeros(len(questions.rows)) for metric in METRICS}
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, len(questions.cuis) + 1))])
    for span, votes in voted:
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
        scores["MRR"][span] = (harmonic[better + tied] - harmonic[better]) / tied
    return scores


def _spans(count: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]


def hide_concepts(subjects: Subjects, seed: int) -> HiddenConcepts:
    """Choose, for each image and group of kinds, one concept to hide, at random.

    An image takes part in a group if it asserts a concept besides the hidden one, its ancestors and descendants.
    """
    stores = subjects.stores
    cuis = sorted({cui for store in stores for cui in store.concepts["cui"]})
    asserted = _asserted_by_all(stores, cuis)
    up = ancestors(cuis, sorted({edge for store in stores for edge in is_a_edges(store)}))
    related = sparse.csr_array(((up + up.T) > 0).astype(np.float64))
    in_use = np.asarray(asserted.sum(axis=0)).ravel() > 0
    concepts = pd.concat([store.concepts for store in stores]).drop_duplicates("cui").set_index("cui")
    kinds = concepts.loc[cuis, "kind"]
    groups = {name: np.flatnonzero(np.isin(kinds, members) & in_use) for name, members in KIND_GROUPS.items()}
    rows, hidden, names = _choose(asserted, related, groups, np.random.default_rng([seed, 2]))
    kept = np.zeros(len(rows), dtype=bool)
    for span in _spans(len(rows)):
        elsewhere = images_of_other_cases(asserted, subjects.cases, rows[span])
        kept[span] = elsewhere[np.arange(len(elsewhere)), hidden[span]] > 0
    unanswerable = int((~kept).sum())
    return HiddenConcepts(
        cuis, asserted, related, groups, rows[kept], hidden[kept], names[kept], unanswerable
    )


def images_of_other_cases(asserted: sparse.csr_array, cases: IntArray, rows: IntArray) -> NDArray[np.float64]:
    """For each image in ``rows``, how many images outside its case assert each concept, float64 [rows, V]."""
    wanted, index = np.unique(cases[rows], return_inverse=True)
    member = sparse.csr_array((cases[None, :] == wanted[:, None]).astype(np.float64))
    within = (member @ asserted).toarray()
    return np.asarray(np.asarray(asserted.sum(axis=0)).ravel()[None, :] - within[index.ravel()])


def _choose(
    asserted: sparse.csr_array,
    related: sparse.csr_array,
    groups: dict[str, IntArray],
    generator: np.random.Generator,
) -> tuple[IntArray, IntArray, NDArray[np.object_]]:
    rows: list[int] = []
    hidden: list[int] = []
    names: list[str] = []
    for row in range(asserted.shape[0]):
        own = asserted.indices[asserted.indptr[row] : asserted.indptr[row + 1]]
        for name, members in groups.items():
            mine = np.intersect1d(own, members)
            eligible = [
                c for c in mine if not np.isin(own, related.indices[slice(*related.indptr[c : c + 2])]).all()
            ]
            if eligible:
                rows.append(row)
                hidden.append(int(eligible[generator.integers(len(eligible))]))
                names.append(name)
    return np.asarray(rows, np.int64), np.asarray(hidden, np.int64), np.asarray(names, object)


def _asserted_by_all(stores: Sequence[TargetStore], cuis: list[str]) -> sparse.csr_array:
    def wide(store: TargetStore) -> sparse.csr_array:
        matrix, columns = store.cui_matrix(), np.searchsorted(cuis, store.concepts["cui"].tolist())
        parts = (matrix.data.astype(np.float64), columns[matrix.indices], matrix.indptr)
        return sparse.csr_array(parts, shape=(matrix.shape[0], len(cuis)))

    return sparse.csr_array(reduce(lambda one, other: one.multiply(other), map(wide, stores)))
