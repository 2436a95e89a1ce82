"""The concept graph of images that join a store: concepts of equal meaning keep the columns that old factors have."""

from pathlib import Path

import numpy as np
import pytest

from kg_targets.graph import ConceptGraph, representatives
from kg_targets.ontology import Ontology
from kg_targets.scoring import ConceptStatistics

A, B, C, D = "C0000001", "C0000002", "C0000003", "C0000004"


def same(*pairs: tuple[str, str]) -> list[tuple[str, str, str]]:
    return [(one, "same_as", other) for one, other in pairs]


@pytest.mark.parametrize(
    ("edges", "earlier", "expected"),
    [
        (same((A, B), (B, C)), [], [0, 0, 0, 3]),
        (same((A, B)), [[B, C]], [1, 1, 2, 3]),  # a new one joins the column of the old one
        (same((A, B), (A, C)), [[B, C]], [1, 1, 2, 3]),  # and never makes one of two
        (same((A, B), (A, C)), [[B], [C], [D]], [1, 1, 2, 3]),
        (same((A, D), (B, D)), [[C]], [0, 0, 2, 0]),  # new ones among themselves: the first of them
        (same((A, B), (C, D)), [[D, B], [C]], [1, 1, 3, 3]),
        ([(A, "is_a", B)], [[B]], [0, 1, 2, 3]),
    ],
)
def test_a_later_concept_joins_the_group_that_is_there(
    edges: list[tuple[str, str, str]], earlier: list[list[str]], expected: list[int]
) -> None:
    np.testing.assert_array_equal(representatives([A, B, C, D], edges, earlier), expected)
    swapped = [(parent, relation, child) for child, relation, parent in edges]
    np.testing.assert_array_equal(representatives([A, B, C, D], swapped, earlier), expected)


def test_an_image_has_the_ancestors_of_its_concept_whichever_of_its_cuis_the_caption_has(
    tmp_path: Path,
) -> None:
    path = tmp_path / "twins.obo"
    path.write_text(
        "format-version: 1.2\nontology: twins\n\n"
        f"[Term]\nid: T:1\nname: disease\nxref: UMLS:{D}\n\n"
        f"[Term]\nid: T:2\nname: cancer\nxref: UMLS:{A}\nxref: UMLS:{B}\nis_a: T:1\n"
    )
    ontology = Ontology.from_obo(path)
    for cui in (A, B):  # the second is not the one whose column both share
        graph = ConceptGraph.build([[cui]], ontology)
        reached = graph.attributes @ graph.closure
        assert {graph.concepts[column] for column in reached.indices} == {A, D}, cui
        assert ConceptStatistics.fit(graph).covered == {A: 1, B: 1, D: 1}
