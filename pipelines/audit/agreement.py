"""Do the nearest images of a store carry the same labels? Labels play no part in building it.

    P@K    = share of the K nearest images that carry the query's label
    NDCG@K = Σ_{r ≤ K} rel_r/log2(r + 1) over its largest value, rel_r ∈ {0, 1}   (Järvelin and Kekäläinen 2002)

    J@K    = mean over the K nearest of |A ∩ B| / |A ∪ B|, where a label is a set of terms joined by "+" (Jaccard 1901)

Queries and gallery are the images that have the label(s); the query's own case is never in its gallery. Equal
similarities are not ordered: both measures are expected values over all orders of the ties, in closed form. So an
image about which nothing is known, whose list is one great tie, scores exactly what chance does.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from kg_targets.store.factors import AnyFactors
from pipelines.audit.report import Section, Table, cells, measure
from pipelines.audit.similarity import Ranking, best_with_ties, mean_of_nearest, similarity_chunks
from pipelines.audit.subjects import EvaluationSettings, Subjects, in_half
from training.retrieval.metrics import label_codes, pair_codes, sizes
from training.statistics.intervals import FloatArray, IntArray

Scores = dict[str, FloatArray]
"""Metric name, such as ``P@5``, to one value per image; NaN where it does not apply."""

DEPTHS = (5, 10, 30)
"""The K of P@K and NDCG@K: the papers' own."""
TITLE = "Neighbours that carry the same label"


def agreement_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """P@K and NDCG@K of every label column and of every pair of them, for every store."""
    criteria = _criteria(subjects)
    if not criteria:
        return Section("agreement", TITLE, ["left out: the data set has no label column with values"])
    codes = list(criteria.values())
    scores = [label_agreement(store.factors, subjects.cases, codes, DEPTHS) for store in subjects.stores]
    chance = [agreement_by_chance(code, subjects.cases, DEPTHS) for code in codes]
    measured = [
        measure(name, metric, [found[index][metric] for found in scores], baseline, subjects.cases, settings)
        for index, name in enumerate(criteria)
        for metric, baseline in chance[index].items()
    ]
    for name in subjects.reference.labels:
        terms = term_matrix(subjects.reference.label(name))
        if terms is not None:
            shared = [shared_terms(store.factors, subjects.cases, terms, DEPTHS) for store in subjects.stores]
            expected = shared_terms(np.zeros((len(terms), 1), np.float32), subjects.cases, terms, DEPTHS)
            measured += [
                measure(
                    name,
                    metric,
                    [found[metric] for found in shared],
                    expected[metric],
                    subjects.cases,
                    settings,
                )
                for metric in expected
            ]
    header = ["label", "metric ×100", "chance", *subjects.columns]
    inside = in_half(subjects.cases, settings.half)
    lines = [
        "own case excluded; expected value over the orders of tied neighbours; a pair of labels (+) must agree in both",
        "queries: "
        + ", ".join(f"{name} {int(((code >= 0) & inside).sum()):,}" for name, code in criteria.items()),
    ]
    return Section(
        "agreement",
        TITLE,
        lines,
        Table(header, cells(measured), left=2),
        data={"measures": [asdict(row) for row in measured]},
    )


def label_agreement(
    factors: AnyFactors, cases: IntArray, codes: Sequence[IntArray], depths: Sequence[int]
) -> list[Scores]:
    """P@K and NDCG@K of every image under every criterion.

    Args:
        factors: unit vectors or zeros, [N, D]; S_ij = K_i·K_j.
        cases: case of each image, int64 [N].
        codes: per criterion, the label of each image, int64 [N]; −1 = missing.
        depths: the Ks.

    Returns:
        Per criterion, ``P@K`` and ``NDCG@K``, float64 [N] in [0, 1]; NaN for images without the label, and where the
        gallery is empty; NDCG also where the gallery has nothing to find.
    """
    found = [_empty(len(cases), depths) for _ in codes]
    relevant_count = [_relevant(code, cases)[0] for code in codes]
    galleries: dict[bytes, list[int]] = {}  # criteria of the same images share each query's ranking
    for index, code in enumerate(codes):
        galleries.setdefault((code >= 0).tobytes(), []).append(index)
    for rows, block in similarity_chunks(factors, factors):
        block[cases[rows, None] == cases[None, :]] = -np.inf
        for members in galleries.values():
            labelled = codes[members[0]] >= 0
            block_of_gallery = np.where(labelled[None, :], block, -np.inf)
            for offset in np.flatnonzero(labelled[rows]):
                query = rows.start + int(offset)
                ranking = best_with_ties(block_of_gallery[offset], max(depths))
                for index in members:
                    _score(found[index], query, ranking, codes[index], int(relevant_count[index][query]))
    return found


def term_matrix(labels: Sequence[str]) -> NDArray[np.float32] | None:
    """The terms of labels that are sets joined by "+", 0 or 1 [N, T]; None where no label has two terms."""
    sets = [set(filter(None, label.split("+"))) for label in labels]
    if max(map(len, sets), default=0) < 2:
        return None
    names = {term: column for column, term in enumerate(sorted(set().union(*sets)))}
    terms = np.zeros((len(sets), len(names)), dtype=np.float32)
    for row, own in enumerate(sets):
        terms[row, [names[term] for term in own]] = 1.0
    return terms


def shared_terms(
    factors: AnyFactors, cases: IntArray, terms: NDArray[np.float32], depths: Sequence[int]
) -> Scores:
    """J@K of every image: mean Jaccard index of its terms and those of its K nearest images of other cases.

    Args:
        factors: unit vectors or zeros, [N, D]; with all zeros every image ties, which gives the expectation by chance.
        cases: case of each image, int64 [N].
        terms: 0 or 1, [N, T]; a row without terms is no query and in no gallery.
        depths: the Ks.

    Returns:
        ``J@K``, float64 [N] in [0, 1]; NaN for images without terms, and where the gallery is empty.
    """
    sizes = terms.sum(axis=1)

    def jaccard(query: int, columns: IntArray) -> FloatArray:
        both = terms[columns] @ terms[query]
        return np.asarray(both / (sizes[columns] + sizes[query] - both), dtype=np.float64)

    found = mean_of_nearest(factors, cases, sizes > 0, jaccard, depths)
    return {f"J@{depth}": values for depth, values in found.items()}


def agreement_by_chance(codes: IntArray, cases: IntArray, depths: Sequence[int]) -> Scores:
    """Exact expectation of both measures for a gallery in random order; float64 [N], NaN as in `label_agreement`."""
    scores = _empty(len(cases), depths)
    relevant, gallery = _relevant(codes, cases)
    for query in np.flatnonzero((codes >= 0) & (gallery > 0)):
        share = relevant[query] / gallery[query]
        for depth in depths:
            gains = np.full(min(depth, int(gallery[query])), share)
            scores[f"P@{depth}"][query] = share
            scores[f"NDCG@{depth}"][query] = _ndcg(gains, int(relevant[query]), depth)
    return scores


def _criteria(subjects: Subjects) -> dict[str, IntArray]:
    """Label codes by name: every column, then every pair of the data set's; those that no image has are left out."""
    store = subjects.reference
    values = {name: store.label(name) for name in store.labels}
    names = [(name,) for name in values] + list(combinations(store.manifest["labels"], 2))
    codes = {" + ".join(parts): label_codes(*(values[part] for part in parts)) for parts in names}
    return {name: code for name, code in codes.items() if (code >= 0).any()}


def _score(scores: Scores, query: int, ranking: Ranking, codes: IntArray, relevant: int) -> None:
    if not len(ranking.columns):
        return
    hits = (codes[ranking.columns] == codes[query]).astype(np.float64)
    for name in scores:
        kind, depth = name.split("@")
        gains = ranking.expected(hits, int(depth))
        scores[name][query] = gains.mean() if kind == "P" else _ndcg(gains, relevant, int(depth))


def _ndcg(gains: FloatArray, relevant: int, depth: int) -> float:
    """Binary-gain NDCG of (expected) gains per rank, float64 [≤ depth]; NaN where there is nothing to find."""
    discounts = 1.0 / np.log2(np.arange(2, depth + 2))
    ideal = discounts[: min(relevant, len(gains))].sum()
    return float(gains @ discounts[: len(gains)] / ideal) if ideal > 0 else float("nan")


def _relevant(codes: IntArray, cases: IntArray) -> tuple[IntArray, IntArray]:
    """Per image: how many gallery images share its label, and how many there are; int64 [N] each."""
    labelled = codes >= 0
    relevant = sizes(codes, labelled) - sizes(pair_codes(cases, codes), labelled)
    return relevant, int(labelled.sum()) - sizes(cases, labelled)


def _empty(images: int, depths: Sequence[int]) -> Scores:
    return {f"{kind}@{depth}": np.full(images, np.nan) for kind in ("P", "NDCG") for depth in depths}
