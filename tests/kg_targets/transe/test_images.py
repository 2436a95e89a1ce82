"""Vectors of images from those of concepts, against references in float64, and images placed among frozen concepts."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from kg_targets.transe.images import ConceptVectors, centred, mean_of_known, unit_parts
from tests.kg_targets.transe.graphs import clusters, graph_of

SEEDS, DIM = 2, 3


def fitted(*cuis: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {cui: unit_parts(generator.standard_normal(SEEDS * DIM), SEEDS) for cui in cuis}


def test_inductive_vectors_match_the_formula() -> None:
    graph = graph_of([["C0000001", "C0000002"], [], ["C0000002"], ["C0000003"], ["C0000001", "C0000003"]], [])
    vectors = fitted(*graph.concepts)
    relation = np.linspace(-1, 1, SEEDS * DIM).astype(np.float32)
    weights = np.array([0.5, 2.0, 1.0])
    concepts = ConceptVectors.of(graph, vectors, SEEDS, SEEDS * DIM)
    sums = concepts.sums(sparse.csr_array(graph.has_attribute * weights), relation, SEEDS)
    found = centred(sums, mean_of_known(sums), SEEDS).astype(np.float64)

    asserted = graph.has_attribute.toarray()
    for seed in range(SEEDS):
        part = slice(seed * DIM, (seed + 1) * DIM)
        rows = []
        for image in range(5):
            total = np.zeros(DIM)
            for column, cui in enumerate(graph.concepts):
                if asserted[image, column]:
                    total += weights[column] * (vectors[cui][part].astype(np.float64) - relation[part])
            rows.append(total / np.linalg.norm(total) if total.any() else total)
        mean = np.mean([row for row in rows if row.any()], axis=0)
        for image, row in enumerate(rows):
            moved = row - mean if row.any() else row
            expected = moved / np.linalg.norm(moved) if row.any() else moved
            np.testing.assert_allclose(found[image, part] * np.sqrt(SEEDS), expected, atol=1e-6)


def test_an_image_that_is_the_mean_itself_has_no_direction() -> None:
    sums = unit_parts(np.ones((3, SEEDS * DIM)), SEEDS)
    assert not centred(sums, mean_of_known(sums), SEEDS).any()


def test_a_concept_that_the_fit_lacks_borrows_from_its_nearest_ancestors() -> None:
    graph = graph_of(
        [["C0000001"], ["C0000002"], ["C0000007"]],
        [
            ("C0000001", "is_a", "C0000003"),
            ("C0000003", "is_a", "C0000004"),
            ("C0000003", "is_a", "C0000005"),
            ("C0000005", "is_a", "C0000006"),
            ("C0000002", "is_a", "C0000003"),
        ],
    )
    vectors = fitted("C0000002", "C0000004", "C0000005", "C0000006")
    found = ConceptVectors.of(graph, vectors, SEEDS, SEEDS * DIM)
    assert (found.borrowed, found.missing) == (1, 1)
    np.testing.assert_array_equal(found.matrix[1], vectors["C0000002"])
    expected = unit_parts(vectors["C0000004"] + vectors["C0000005"], SEEDS)
    np.testing.assert_allclose(found.matrix[0], expected, atol=1e-7)
    assert not found.matrix[graph.concepts.index("C0000007")].any()


def test_a_meaning_whose_first_cui_the_fit_lacks_borrows_from_its_other_cui() -> None:
    graph = graph_of(
        [["C0000002"]], [("C0000001", "same_as", "C0000002"), ("C0000002", "same_as", "C0000001")]
    )
    vectors = fitted("C0000002")
    found = ConceptVectors.of(graph, vectors, SEEDS, SEEDS * DIM)
    assert (found.borrowed, found.missing) == (1, 0)
    np.testing.assert_allclose(found.matrix[0], vectors["C0000002"], atol=1e-7)


def test_images_placed_among_frozen_concepts_come_out_where_the_fit_had_them() -> None:
    pytest.importorskip("torch")
    from kg_targets.transe.fit import fit
    from kg_targets.transe.placing import place
    from kg_targets.transe.settings import TransESettings
    from kg_targets.transe.triples import Triples

    settings = TransESettings(dim=16, epochs=40, batch=32, seeds=2, holdout=0.0, device="cpu")
    graph = clusters(100)
    triples = Triples.of(graph)
    table = fit(triples, settings).table
    concepts, relation = table[triples.concept_nodes], table[triples.nodes]
    placed = place(graph.has_attribute, concepts, relation, settings, seed=0)
    own = (placed * table[: triples.images]).sum(axis=1)
    others = (placed @ table[: triples.images].T).mean()
    assert own.mean() > 0.7 > 0.3 > others
    np.testing.assert_allclose(np.linalg.norm(placed, axis=1), 1.0, atol=1e-5)
    assert place(graph.has_attribute, concepts, relation, settings, seed=0).tobytes() == placed.tobytes()
    nothing = place(
        graph.has_attribute, np.zeros_like(concepts), relation, replace(settings, seeds=2), seed=0
    )
    assert nothing.shape == placed.shape and not nothing.any()
