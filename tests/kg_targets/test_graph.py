"""The concept graph of images that join a store: concepts of equal meaning keep the columns that old factors have."""

import numpy as np
import pytest

from kg_targets.graph import representatives

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
