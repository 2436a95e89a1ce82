"""Closure over graphs with cycles, against a reference that condenses and searches with networkx."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.ontology.closure import ParentLists, ancestor_hops, cycles

graphs = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30)
    )
)


def reference(count: int, edges: list[tuple[int, int]], node: int, max_hops: int | None) -> dict[int, int]:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(edges)
    condensed = nx.condensation(graph)
    home = condensed.graph["mapping"]
    hops = {}
    for component, distance in nx.single_source_shortest_path_length(condensed, home[node]).items():
        for member in condensed.nodes[component]["members"]:
            hops[member] = 0 if member == node else max(distance, 1)
    return {other: hop for other, hop in hops.items() if max_hops is None or hop <= max_hops}


@settings(max_examples=300, deadline=None)
@given(graphs, st.one_of(st.none(), st.integers(0, 4)), st.data())
def test_hops_equal_a_search_on_the_condensation(graph, max_hops, data):
    count, edges = graph
    nodes = data.draw(st.lists(st.integers(0, count - 1), max_size=6))
    child, parent = (np.array([edge[i] for edge in edges], dtype=np.int64) for i in (0, 1))
    lists = ParentLists.from_edges(child, parent, count)
    rows, ancestors, hops = ancestor_hops(lists, np.array(nodes, dtype=np.int64), max_hops)
    found = [{} for _ in nodes]
    for row, ancestor, hop in zip(rows.tolist(), ancestors.tolist(), hops.tolist(), strict=True):
        assert ancestor not in found[row]
        found[row][ancestor] = hop
    assert found == [reference(count, edges, node, max_hops) for node in nodes]


@settings(max_examples=100, deadline=None)
@given(graphs, st.randoms(use_true_random=False))
def test_the_order_of_edges_does_not_matter(graph, random):
    count, edges = graph
    shuffled = edges * 2
    random.shuffle(shuffled)
    nodes = np.arange(count)
    results = []
    for rows in (edges, shuffled):
        child, parent = (np.array([edge[i] for edge in rows], dtype=np.int64) for i in (0, 1))
        results.append(ancestor_hops(ParentLists.from_edges(child, parent, count), nodes))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_cycle_members_share_their_ancestors_even_under_a_hop_limit():
    # 0 → 1 → 2 → 0 is a cycle; only 2 has a parent outside of it.
    lists = ParentLists.from_edges([0, 1, 2, 2], [1, 2, 0, 3], 4)
    for node in (0, 1, 2):
        _, ancestors, hops = ancestor_hops(lists, np.array([node]), max_hops=1)
        assert dict(zip(ancestors.tolist(), hops.tolist(), strict=True)) == {
            other: 0 if other == node else 1 for other in range(4)
        }


def test_cycles_are_reported_as_sorted_groups():
    lists = ParentLists.from_edges([5, 4, 0, 1, 2], [4, 5, 1, 0, 3], 6)
    assert [group.tolist() for group in cycles(lists)] == [[0, 1], [4, 5]]


@pytest.mark.parametrize("count", [0, 3])
def test_no_nodes_and_no_edges_are_no_trouble(count):
    lists = ParentLists.from_edges([], [], count)
    rows, ancestors, hops = ancestor_hops(lists, np.zeros(0, dtype=np.int64))
    assert len(rows) == len(ancestors) == len(hops) == 0
    assert cycles(lists) == []


def test_a_chain_of_ten_thousand_needs_no_recursion():
    nodes = np.arange(10_000)
    lists = ParentLists.from_edges(nodes[:-1], nodes[1:], len(nodes))
    _, ancestors, hops = ancestor_hops(lists, np.array([0]))
    np.testing.assert_array_equal(hops, nodes)
    np.testing.assert_array_equal(ancestors, nodes)
