"""Blocks and shrinkage of the ontology scorer against a reference in plain float64 Python."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.errors import ConfigError
from kg_targets.graph import ConceptGraph
from kg_targets.scoring import SCORERS, ConceptStatistics, ScoringInput
from kg_targets.scoring.ontology import BLOCKS, parse_blocks
from tests.kg_targets.ontology.tiny import HIERARCHY

KINDS = {
    "C0000001": "finding",
    "C0000002": "finding",
    "C0000003": "finding",
    "C0000004": "modality",
    "C0000005": "organ",
    "C0000006": "laterality",
    "C0000007": "finding",
    "C0000008": "finding",
    "C0000009": "finding",
}
CT, LUNG, LEFT, EFFUSION, PNEUMOTHORAX = "C0000004", "C0000005", "C0000006", "C0000001", "C0000002"
captions = st.lists(st.lists(st.sampled_from(sorted(KINDS)), max_size=4), min_size=1, max_size=9)
Vector = dict[str, float]


def block_of(asserted: list[list[str]], weights: Sequence[float], shrinkage: float = 0.0) -> np.ndarray:
    graph = ConceptGraph.build(asserted, HIERARCHY)
    data = ScoringInput(
        graph,
        ConceptStatistics.fit(graph),
        [str(row) for row in range(len(asserted))],
        shrinkage=shrinkage,
        blocks=tuple(weights),
        kinds=[KINDS[cui] for cui in graph.concepts],
    )
    factors = SCORERS["ontology"](data).matrix.toarray().astype(np.float64)
    return factors @ factors.T


def reference(asserted: list[list[str]], weights: Sequence[float], shrinkage: float) -> np.ndarray:
    """Σ_b w_b·K_i^b·K_j^b, concept by concept."""
    up = {cui: set(HIERARCHY.distances(cui)) for cui in KINDS}

    def surprise(count: int) -> float:
        return math.log((len(asserted) + 1) / (count + 1))

    ic = {a: surprise(sum(any(a in up[c] for c in caption) for caption in asserted)) for a in KINDS}
    vectors = []
    for caption in asserted:
        total: Vector = {}
        for cui in set(caption):
            norm = math.sqrt(sum(ic[a] ** 2 for a in up[cui]))
            for a in up[cui]:
                idf = surprise(sum(cui in other for other in asserted))
                total[a] = total.get(a, 0.0) + (idf * ic[a] / norm if norm else 0.0)
        vectors.append(total)

    def part(vector: Vector, kinds: tuple[str, ...]) -> Vector:
        own = {a: value for a, value in vector.items() if KINDS[a] in kinds}
        norm = math.sqrt(sum(value**2 for value in own.values()) + shrinkage**2)
        return {a: value / norm if norm else 0.0 for a, value in own.items()}

    def similarity(one: Vector, other: Vector) -> float:
        found = 0.0
        for weight, kinds in zip(weights, BLOCKS.values(), strict=True):
            left, right = part(one, kinds), part(other, kinds)
            found += weight * sum(value * right.get(a, 0.0) for a, value in left.items())
        return found

    return np.array([[similarity(one, other) for other in vectors] for one in vectors])


@settings(max_examples=60, deadline=None)
@given(
    asserted=captions,
    weights=st.sampled_from(["1:2:1", "1:0:0", "3:1:2"]).map(parse_blocks),
    shrinkage=st.sampled_from([0.0, 0.7]),
)
def test_blocks_match_the_formula(
    asserted: list[list[str]], weights: Sequence[float], shrinkage: float
) -> None:
    expected = reference(asserted, weights, shrinkage)
    np.testing.assert_allclose(block_of(asserted, weights, shrinkage), expected, atol=2e-6)


def test_what_one_caption_does_not_tell_adds_nothing_and_makes_no_two_images_equal() -> None:
    asserted = [
        [CT],
        [CT],
        [CT, EFFUSION],
        [CT, EFFUSION],
        [CT, LUNG, EFFUSION],
        [CT, LUNG, EFFUSION],
        [LEFT],
        [],
    ]
    block = block_of(asserted, parse_blocks("1:2:1"))
    assert block[0, 1] == pytest.approx(0.25) and block[0, 2] == pytest.approx(0.25)
    assert block[2, 3] == pytest.approx(0.5) and block[2, 4] == pytest.approx(0.5)
    assert block[4, 5] == pytest.approx(1.0)
    np.testing.assert_array_equal(block[6], 0.0)  # a side alone is no knowledge


def test_weights_are_shares_and_no_text_means_no_blocks() -> None:
    assert parse_blocks("1:2:1") == (0.25, 0.5, 0.25) and parse_blocks("") == ()
    with pytest.raises(ConfigError, match="technique:anatomy:finding"):
        parse_blocks("1:2:1:1")
