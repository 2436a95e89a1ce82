"""Small concept graphs."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from kg_targets.graph import ConceptGraph, Edge


def graph_of(asserted: Sequence[Sequence[str]], edges: Sequence[Edge]) -> ConceptGraph:
    """A graph of images' concepts and of edges between concepts; its closure holds no ancestors."""
    concepts = sorted({cui for cuis in asserted for cui in cuis} | {e for c, _, p in edges for e in (c, p)})
    column = {cui: index for index, cui in enumerate(concepts)}
    matrix = np.zeros((len(asserted), len(concepts)))
    for row, cuis in enumerate(asserted):
        matrix[row, [column[cui] for cui in cuis]] = 1.0
    closure = sparse.csr_array(sparse.eye_array(len(concepts)))
    return ConceptGraph(concepts, sparse.csr_array(matrix), closure, sorted(edges))


def cui(number: int) -> str:
    """A CUI."""
    return f"C{number:07d}"


def clusters(images: int = 60, seed: int = 0) -> ConceptGraph:
    """Images of four kinds, each with two or three of its kind's eight findings; a finding is_a group is_a kind."""
    generator = np.random.default_rng(seed)
    asserted = [
        [cui(100 * (row % 4) + int(finding)) for finding in generator.permutation(8)[: 2 + row % 2]]
        for row in range(images)
    ]
    edges = [
        edge
        for kind in range(4)
        for finding in range(8)
        for edge in (
            (cui(100 * kind + finding), "is_a", cui(100 * kind + 50 + finding // 4)),
            (cui(100 * kind + finding), "is_a", cui(100 * kind + 60)),
            (cui(100 * kind + 50 + finding // 4), "is_a", cui(900)),
        )
    ]
    return graph_of(asserted, sorted(set(edges)))
