"""Statistics, scorers and neighbours against references written here, independently, in plain float64 Python."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from kg_targets.graph import ConceptGraph
from kg_targets.scoring import SCORERS, ConceptStatistics, Factors, ScoringInput
from kg_targets.scoring.neighbors import nearest
from tests.kg_targets.ontology.tiny import EQUAL_MEANING, HIERARCHY, TinyOntology

CUIS = [f"C000000{digit}" for digit in (1, 2, 3, 7, 8, 9)]
captions = st.lists(st.lists(st.sampled_from(CUIS), max_size=4), min_size=1, max_size=12)


def dense(factors: Factors) -> np.ndarray:
    return factors.matrix.toarray() if sparse.issparse(factors.matrix) else factors.matrix


def scored(
    asserted: list[list[str]],
    scorer: str = "ontology",
    ontology: TinyOntology | None = HIERARCHY,
    seed: int = 0,
) -> Factors:
    graph = ConceptGraph.build(asserted, ontology)
    ids = [f"image{row}" for row in range(len(asserted))]
    texts = [" ".join(cuis) for cuis in asserted]
    data = ScoringInput(
        graph, ConceptStatistics.fit(graph), ids, seed=seed, captions=lambda: texts, encode=one_hot
    )
    return SCORERS[scorer](data)


def one_hot(texts: Sequence[str], ids: Sequence[str], advance: Callable[[int], object]) -> np.ndarray:
    return np.eye(len(texts), dtype=np.float32)


def reference_similarity(fit: list[list[str]], asserted: list[list[str]], with_edges: bool) -> np.ndarray:
    """Section "ontology scorer" of docs/methods.md, concept by concept with dictionaries."""

    def up(cui: str) -> set[str]:
        return set(HIERARCHY.distances(cui)) if with_edges else {cui}

    def surprise(count: int) -> float:
        return -math.log((count + 1) / (len(fit) + 1))

    def unit(vector: dict[str, float]) -> dict[str, float]:
        norm = math.sqrt(sum(value * value for value in vector.values()))
        return {key: value / norm for key, value in vector.items()} if norm > 0 else {}

    def image(cuis: list[str]) -> dict[str, float]:
        total: dict[str, float] = {}
        for cui in set(cuis):
            idf = surprise(sum(cui in caption for caption in fit))
            concept = unit(
                {a: surprise(sum(any(a in up(c) for c in caption) for caption in fit)) for a in up(cui)}
            )
            for a, value in concept.items():
                total[a] = total.get(a, 0.0) + idf * value
        return unit(total)

    vectors = [image(cuis) for cuis in asserted]
    size = len(vectors)
    block = np.array([[sum(v * w.get(a, 0.0) for a, v in u.items()) for w in vectors] for u in vectors])
    return block.reshape(size, size)


@settings(max_examples=60, deadline=None)
@given(fit=captions, asserted=captions, with_edges=st.booleans())
def test_ontology_scorer_matches_the_formula(
    fit: list[list[str]], asserted: list[list[str]], with_edges: bool
) -> None:
    ontology = HIERARCHY if with_edges else None
    statistics = ConceptStatistics.fit(ConceptGraph.build(fit, ontology))
    graph = ConceptGraph.build(asserted, ontology)
    factors = dense(
        SCORERS["ontology"](ScoringInput(graph, statistics, [str(i) for i in range(len(asserted))]))
    )
    expected = reference_similarity(fit, asserted, with_edges)
    np.testing.assert_allclose(factors.astype(np.float64) @ factors.T.astype(np.float64), expected, atol=2e-6)


def test_siblings_are_closer_than_strangers_and_only_through_the_ontology() -> None:
    asserted = [["C0000001"], ["C0000002"], ["C0000003"], [], []]
    with_edges = dense(scored(asserted)) @ dense(scored(asserted)).T
    without = dense(scored(asserted, ontology=None)) @ dense(scored(asserted, ontology=None)).T
    assert with_edges[0, 1] > with_edges[0, 2] + 0.1
    assert without[0, 1] == without[0, 2] == 0.0


def test_statistics_of_the_fit_split_are_reused_for_concepts_it_never_saw() -> None:
    statistics = ConceptStatistics.fit(ConceptGraph.build([["C0000001"], ["C0000001"], []], HIERARCHY))
    ic = statistics.information_content(["C0000001", "C0000009", "C0000003"])
    np.testing.assert_allclose(ic, [math.log(4 / 3), math.log(4 / 3), math.log(4)])


def test_an_image_whose_only_concept_is_in_every_caption_is_unknown() -> None:
    factors = scored([["C0000001"], ["C0000001"]])
    assert not factors.known.any()


def test_max_hops_limits_what_is_shared() -> None:
    far = TinyOntology({"C0000001": ["C0000002"], "C0000002": ["C0000003"]})
    graph = ConceptGraph.build([["C0000001"], ["C0000003"]], far, max_hops=1)
    assert graph.concepts == ["C0000001", "C0000002", "C0000003"]
    assert graph.closure.toarray()[0].tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_known_images_have_unit_factors_and_unknown_ones_none(scorer: str) -> None:
    if scorer == "transe":
        pytest.importorskip("torch")
    factors = scored([["C0000001"], [], ["C0000003", "C0000002"], ["C0000002"]], scorer)
    norms = np.linalg.norm(dense(factors), axis=1)
    assert factors.known.tolist() == [True, False, True, True]
    expected = [0, 0, 0, 0] if scorer == "identity" else [1, 0, 1, 1]
    np.testing.assert_allclose(norms, expected, atol=1e-6)


def test_permuted_factors_keep_the_spectrum_and_leave_no_image_its_own() -> None:
    asserted = [[cui] for cui in CUIS[:3]] + [["C0000001", "C0000003"], []]
    original, permuted = dense(scored(asserted)), dense(scored(asserted, "permuted"))
    eigenvalues = [np.linalg.eigvalsh(matrix @ matrix.T) for matrix in (original, permuted)]
    np.testing.assert_allclose(*eigenvalues, atol=1e-6)
    assert all(not np.allclose(original[row], permuted[row]) for row in range(4))


def test_noise_follows_the_image_id_and_the_seed_but_not_the_row() -> None:
    graph = ConceptGraph.build([["C0000001"], ["C0000002"]], HIERARCHY)
    statistics = ConceptStatistics.fit(graph)
    one = dense(SCORERS["noise"](ScoringInput(graph, statistics, ["a", "b"])))
    other = dense(SCORERS["noise"](ScoringInput(graph, statistics, ["b", "a"])))
    reseeded = dense(SCORERS["noise"](ScoringInput(graph, statistics, ["a", "b"], seed=1)))
    np.testing.assert_array_equal(one, other[::-1])
    assert not np.allclose(one, reseeded)


@settings(max_examples=40, deadline=None)
@given(
    asserted=captions,
    k=st.integers(1, 12),
    chunk=st.integers(1, 13),
    scorer=st.sampled_from(["ontology", "noise"]),
)
def test_neighbours_are_exact_and_ties_are_broken_by_both_ids(
    asserted: list[list[str]], k: int, chunk: int, scorer: str
) -> None:
    factors = scored(asserted, scorer)
    full = dense(factors).astype(np.float64) @ dense(factors).T.astype(np.float64)
    ids = [f"image{row}" for row in range(len(asserted))]
    found = [pair for part in nearest(factors, k, ids, chunk_rows=chunk) for pair in part]
    assert len(found) == len(asserted)
    for row, (rows, scores) in enumerate(found):
        keys = full[row] + np.array([tie(ids[row], other) for other in ids])
        order = [other for other in np.argsort(-keys) if other != row and keys[other] > 5e-7][:k]
        assert rows.tolist() == order
        np.testing.assert_allclose(scores, full[row][order], atol=1e-6)


def tie(one: str, other: str) -> float:
    """½·1e-6·cos of the difference of the angles that two ids are hashed to."""
    angles = [
        int.from_bytes(hashlib.sha256(f"0\n{name}".encode()).digest()[at : at + 8], "little") / 2**64
        for name, at in ((one, 0), (other, 8))
    ]
    return 5e-7 * math.cos(2 * math.pi * (angles[0] - angles[1]))


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_equal_images_share_out_who_is_whose_neighbour(kind: str) -> None:
    asserted = [["C0000001"]] * 500 + [["C0000003"]] * 30
    factors = scored(asserted)
    if kind == "dense":
        factors = replace(factors, matrix=dense(factors))
    ids = [f"image{row}" for row in range(530)]
    found = [rows for part in nearest(factors, 16, ids, 64) for rows, _ in part]
    degree = np.bincount(np.concatenate(found), minlength=530)[:500]
    assert (
        degree.mean() == pytest.approx(16, abs=0.5) and degree.max() <= 2 * 16
    )  # 500 when the first rows won
    mixed = np.random.default_rng(0).permutation(530)
    again = [
        rows
        for part in nearest(replace(factors, matrix=factors.matrix[mixed]), 16, [ids[i] for i in mixed], 100)
        for rows, _ in part
    ]
    for row, rows in zip(mixed, again, strict=True):
        assert mixed[rows].tolist() == found[row].tolist(), "the order of the images plays no part"


def test_neighbours_do_not_depend_on_the_number_of_threads() -> None:
    generator = np.random.default_rng(0)
    asserted = [[CUIS[i] for i in generator.integers(0, 6, 3)] for _ in range(300)]
    ids = [str(row) for row in range(300)]
    one, two = (
        [pair for part in nearest(scored(asserted), 16, ids, 64, threads) for pair in part]
        for threads in (1, 2)
    )
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left[0], right[0])
        np.testing.assert_array_equal(left[1], right[1])


def test_concepts_of_equal_meaning_share_one_column() -> None:
    graph = ConceptGraph.build([["C0000001"], ["C0000002"], []], EQUAL_MEANING)
    assert graph.closure.toarray().tolist() == [[1, 0, 1], [1, 0, 1], [0, 0, 1]]
    factors = dense(SCORERS["ontology"](ScoringInput(graph, ConceptStatistics.fit(graph), ["a", "b", "c"])))
    np.testing.assert_allclose(factors @ factors.T, [[1, 1, 0], [1, 1, 0], [0, 0, 0]], atol=1e-6)


def test_shrinkage_makes_little_evidence_less_similar_and_none_of_it_changes_nothing() -> None:
    asserted = [["C0000001"], ["C0000001"], ["C0000001", "C0000003"], ["C0000001", "C0000003"], [], []]
    graph = ConceptGraph.build(asserted, HIERARCHY)
    statistics, ids = ConceptStatistics.fit(graph), [str(row) for row in range(6)]

    def block(shrinkage: float) -> np.ndarray:
        factors = dense(SCORERS["ontology"](ScoringInput(graph, statistics, ids, shrinkage=shrinkage)))
        return factors @ factors.T

    plain, shrunk = block(0.0), block(1.0)
    assert plain[0, 1] == pytest.approx(1.0) and plain[2, 3] == pytest.approx(1.0)
    assert shrunk[0, 1] < shrunk[2, 3] < 1.0
    np.testing.assert_array_equal(shrunk[4:], 0.0)


def test_flat_ancestors_count_alike_whatever_they_tell() -> None:
    asserted = [["C0000001"], ["C0000002"], ["C0000003"], ["C0000003"], ["C0000003"], []]
    graph = ConceptGraph.build(asserted, HIERARCHY)
    data = ScoringInput(graph, ConceptStatistics.fit(graph), list("abcdef"), flat_ancestors=True)
    factors = dense(SCORERS["ontology"](data))
    # Each concept and its two ancestors weigh 1/3; two pleural diseases share two of them, the brain's only the root.
    np.testing.assert_allclose((factors @ factors.T)[0, :3], [1, 2 / 3, 1 / 3], atol=1e-6)
    by_content = dense(SCORERS["ontology"](replace(data, flat_ancestors=False)))
    assert (by_content @ by_content.T)[0, 2] < 0.1  # the root tells little
