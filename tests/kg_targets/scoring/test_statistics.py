"""IC and idf of concepts that the fit split never saw, against plain Python, and of concepts of equal meaning."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.graph import ConceptGraph
from kg_targets.ontology import Ontology
from kg_targets.ontology.closure import ParentLists
from kg_targets.ontology.intrinsic import intrinsic_content
from kg_targets.scoring import SCORERS, ConceptStatistics, ScoringInput
from tests.kg_targets.ontology.tiny import EQUAL_MEANING

SEED = Ontology.seed()
NAMES = {SEED.name(cui): cui for cui in SEED.cuis}
PNEUMONIA, MENINGIOMA, DISEASE = NAMES["Pneumonia"], NAMES["Meningioma"], NAMES["Disease"]
FEW = [
    NAMES[name] for name in ("Pneumonia", "Meningioma", "Disease", "Neoplasm", "Infection", "Lung disease")
]
IMAGING = [cui for cui in SEED.cuis if SEED[cui].kind == "modality"][:5]
captions = st.lists(st.lists(st.sampled_from(FEW + IMAGING[:2]), max_size=3), min_size=1, max_size=10)


def up(cui: str) -> set[str]:
    return {cui, *SEED.ancestors(cui)}


def places() -> dict[str, float]:
    """h of Sánchez et al. 2011 with sets of leaves; the seed has no cycle and no CUIs of equal meaning."""
    ancestors = {cui: up(cui) for cui in SEED.cuis}
    inner = {parent for cui in SEED.cuis for parent in SEED.parents(cui)}
    leaves = dict.fromkeys(SEED.cuis, 0)
    for leaf in set(SEED.cuis) - inner:
        for above in ancestors[leaf] - {leaf}:
            leaves[above] += 1
    total = len(SEED.cuis) - len(inner)
    return {
        cui: -math.log((leaves[cui] / len(ancestors[cui]) + 1) / (total + 1)) / math.log(total + 1)
        for cui in SEED.cuis
    }


PLACES = places()


def fitted(fit: list[list[str]], asserted: list[list[str]]) -> tuple[ConceptGraph, ConceptStatistics]:
    """The graph of ``asserted``, and the statistics of ``fit`` with what that graph lacks."""
    graph = ConceptGraph.build(asserted, SEED)
    return graph, ConceptStatistics.fit(ConceptGraph.build(fit, SEED)).with_unseen(graph, SEED, ("is_a",))


def similarity(fit: list[list[str]], one: str, other: str, intrinsic: bool = True) -> float:
    graph, statistics = fitted(fit, [[one], [other]])
    if not intrinsic:
        statistics = ConceptStatistics(statistics.captions, statistics.asserted, statistics.covered)
    factors = SCORERS["ontology"](ScoringInput(graph, statistics, ["a", "b"])).matrix
    return float((factors @ factors.T).toarray()[0, 1])


def test_intrinsic_content_is_that_of_sanchez_and_a_stranger_counts_as_a_leaf() -> None:
    given_order = [*reversed(SEED.cuis), "C9999999"]
    expected = [PLACES.get(cui, 1.0) for cui in given_order]
    np.testing.assert_allclose(SEED.intrinsic_content(given_order), expected, atol=1e-12)
    assert SEED.intrinsic_content([]).tolist() == []
    assert PLACES[DISEASE] < PLACES[NAMES["Infection"]] < PLACES[PNEUMONIA]


def test_concepts_of_equal_meaning_have_one_place_whatever_the_relation() -> None:
    # 0 and 1 mean the same and lie below 2, as 3 and 4 do; 5 stands alone: leaves are {0, 1}, 3, 4, 5.
    graph = ParentLists.from_edges([0, 1, 0, 1, 3, 4], [1, 0, 2, 2, 2, 2], 6)
    root = -math.log((3 / 1 + 1) / 5) / math.log(5)
    np.testing.assert_allclose(intrinsic_content(graph, np.array([0, 1, 2, 5])), [1, 1, root, 1], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(fit=captions, asserted=captions)
def test_unseen_concepts_take_their_value_from_the_hierarchy(
    fit: list[list[str]], asserted: list[list[str]]
) -> None:
    graph, statistics = fitted(fit, asserted)
    top = math.log(len(fit) + 1)
    covered = {cui: sum(any(cui in up(c) for c in caption) for caption in fit) for cui in graph.concepts}
    direct = {cui: sum(cui in caption for caption in fit) for cui in graph.concepts}
    named = {cui for caption in asserted for cui in caption}

    def counted(count: int) -> float:
        return math.log((len(fit) + 1) / (count + 1))

    def ic(cui: str) -> float:
        if covered[cui]:
            return counted(covered[cui])
        joined = [
            top - (top - counted(covered[s])) * (1 - PLACES[cui]) / (1 - PLACES[s])
            for s in up(cui)
            if covered[s] and PLACES[s] < 1
        ]
        return max([top * PLACES[cui], *joined])

    contents = [ic(cui) for cui in graph.concepts]
    np.testing.assert_allclose(statistics.information_content(graph.concepts), contents, atol=1e-12)
    for cui, value in zip(graph.concepts, contents, strict=True):
        assert all(value >= contents[graph.concepts.index(above)] - 1e-12 for above in up(cui))
    asked = sorted(named)
    weights = [counted(direct[c]) if direct[c] else max(ic(c), top * PLACES[c]) for c in asked]
    np.testing.assert_allclose(statistics.inverse_document_frequency(asked), weights, atol=1e-12)


def test_pneumonia_and_meningioma_are_as_unlike_after_a_small_fit_as_after_a_large_one() -> None:
    generator = np.random.default_rng(0)
    findings = [cui for cui in SEED.cuis if SEED[cui].kind == "finding"]
    large = [
        [IMAGING[generator.integers(5)], *([findings[generator.integers(len(findings))]] if row % 3 else [])]
        for row in range(3000)
    ]
    small = [[IMAGING[row]] for row in range(5)]  # five captions that name no disease
    assert similarity(small, PNEUMONIA, MENINGIOMA, intrinsic=False) == pytest.approx(1 / 3, abs=0.01)
    apart = [similarity(fit, PNEUMONIA, MENINGIOMA) for fit in (small, large)]
    assert max(apart) < 0.05 and abs(apart[0] - apart[1]) < 0.04


def test_a_fit_split_keeps_its_counted_values() -> None:
    graph = ConceptGraph.build([[PNEUMONIA], [IMAGING[0]], []], SEED)
    statistics = ConceptStatistics.fit(graph)
    assert statistics.with_unseen(graph, SEED, ("is_a",)) is statistics


def test_concepts_of_equal_meaning_are_counted_as_one() -> None:
    asserted = [["C0000001"], ["C0000002", "C0000003"], ["C0000001", "C0000002", "C0000003"], [], []]
    graph = ConceptGraph.build(asserted, EQUAL_MEANING)
    statistics = ConceptStatistics.fit(graph)
    np.testing.assert_allclose(
        statistics.inverse_document_frequency(["C0000001", "C0000002"]), [math.log(6 / 4)] * 2
    )
    factors = SCORERS["ontology"](ScoringInput(graph, statistics, list("abcde"))).matrix.toarray()
    np.testing.assert_array_equal(factors[1], factors[2])  # naming it twice tells no more


def test_the_larger_weight_counts_where_a_caption_names_a_concept_by_two_cuis() -> None:
    edges = [("C0000001", "same_as", "C0000002"), ("C0000002", "same_as", "C0000001")]
    built = ConceptGraph.build([["C0000001", "C0000002"]], None, halved=[["C0000001"]])
    graph = ConceptGraph(built.concepts, built.has_attribute, built.closure, edges)
    assert graph.attributes.toarray().tolist() == [[1.0, 0.0]]
    assert graph.has_attribute.toarray().tolist() == [[0.5, 1.0]]
