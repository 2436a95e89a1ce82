"""The graph as triples, held-out edges, corruption and ranks."""

import numpy as np
import pytest

from kg_targets.graph import ConceptGraph
from kg_targets.transe.triples import Triples
from tests.kg_targets.transe.graphs import clusters, graph_of


def named(triples: Triples, graph: ConceptGraph) -> set[tuple[str, str, str]]:
    """Edges with images as ``#row`` and concepts as the CUIs of their node, joined."""
    name = {node: f"#{row}" for node, row in enumerate(triples.rows.tolist())}
    for node in set(triples.concept_nodes.tolist()):
        name[node] = "+".join(np.array(graph.concepts)[triples.concept_nodes == node].tolist())
    return {(name[h], triples.relations[r], name[t]) for h, r, t in triples.edges.tolist()}


def test_edges_are_those_of_the_graph_with_equal_meanings_as_one_node() -> None:
    graph = graph_of(
        [["C0000001"], [], ["C0000002", "C0000003"]],
        [
            ("C0000001", "is_a", "C0000009"),
            ("C0000002", "is_a", "C0000009"),
            ("C0000002", "part_of", "C0000003"),
            ("C0000001", "same_as", "C0000002"),
            ("C0000002", "same_as", "C0000001"),
        ],
    )
    triples = Triples.of(graph)
    one = "C0000001+C0000002"
    assert named(triples, graph) == {
        ("#0", "has_attribute", one),
        ("#2", "has_attribute", one),
        ("#2", "has_attribute", "C0000003"),
        (one, "is_a", "C0000009"),
        (one, "part_of", "C0000003"),
    }
    assert (triples.images, triples.nodes) == (2, 5)


def test_held_out_edges_are_seeded_and_leave_every_node_an_edge() -> None:
    triples = Triples.of(clusters())
    fitted, held = triples.hold_out(0.3, seed=1)
    assert len(held) > 20 and len(fitted) + len(held) == len(triples.edges)
    assert set(held[:, 1].tolist()) == {0, 1}
    assert set(fitted[:, [0, 2]].ravel().tolist()) == set(triples.edges[:, [0, 2]].ravel().tolist())
    assert np.array_equal(triples.hold_out(0.3, seed=1)[1], held)
    assert not np.array_equal(triples.hold_out(0.3, seed=2)[1], held)


def test_a_graph_of_single_edges_holds_nothing_out() -> None:
    triples = Triples.of(graph_of([["C0000001"], ["C0000002"]], []))
    assert len(triples.hold_out(0.5, seed=0)[1]) == 0


def test_typed_corruption_replaces_images_by_images_and_bernoulli_prefers_the_rarer_end() -> None:
    torch = pytest.importorskip("torch")
    from kg_targets.transe.corruption import Corruption
    from kg_targets.transe.settings import TransESettings

    triples = Triples.of(clusters())
    relations = torch.tensor([0] * 4000 + [1] * 4000)

    def drawn(settings: TransESettings) -> tuple[np.ndarray, np.ndarray]:
        corruption = Corruption.fit(triples.edges, 2, triples.images, triples.nodes, settings, "cpu")
        sides, nodes = corruption.draw(relations, 5, torch.Generator().manual_seed(0))
        return sides.numpy(), nodes.numpy()

    sides, nodes = drawn(TransESettings())
    is_image = nodes < triples.images
    assert np.array_equal(is_image[:4000], sides[:4000])
    assert not is_image[4000:].any()
    assert set(nodes.ravel().tolist()) == set(range(triples.nodes))
    own = triples.edges[triples.edges[:, 1] == 0]
    tails_of_a_head, heads_of_a_tail = len(own) / len(set(own[:, 0])), len(own) / len(set(own[:, 2]))
    expected = tails_of_a_head / (tails_of_a_head + heads_of_a_tail)
    assert sides[:4000].mean() == pytest.approx(expected, abs=0.03)

    sides, nodes = drawn(TransESettings(corruption="uniform", typed=False))
    assert sides.mean() == pytest.approx(0.5, abs=0.02)
    assert (nodes < triples.images).mean() == pytest.approx(triples.images / triples.nodes, abs=0.02)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("typed", [True, False])
def test_filtered_ranks_match_one_by_one_counting(norm: str, typed: bool) -> None:
    torch = pytest.importorskip("torch")
    from kg_targets.transe.corruption import Corruption
    from kg_targets.transe.ranks import LinkPrediction, Ranker
    from kg_targets.transe.settings import TransESettings

    triples = Triples.of(clusters())
    _, held = triples.hold_out(0.2, seed=0)
    settings = TransESettings(norm=norm, typed=typed)
    corruption = Corruption.fit(triples.edges, 2, triples.images, triples.nodes, settings, "cpu")
    table = torch.randn(triples.nodes + 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table[3] = table[4]  # a tie
    ranker = Ranker(held, triples.edges, corruption.first.numpy(), corruption.count.numpy())
    ranks = ranker.ranks(table, triples.nodes, norm)

    known, vectors = set(map(tuple, triples.edges.tolist())), table.numpy()

    def distance(h: int, r: int, t: int) -> float:
        return float(
            np.linalg.norm(vectors[h] + vectors[triples.nodes + r] - vectors[t], 1 if norm == "l1" else 2)
        )

    def same_type(first: int, second: int) -> bool:
        return not typed or (first < triples.images) == (second < triples.images)

    for line, (h, r, t) in enumerate(held.tolist()):
        own = distance(h, r, t)
        for side, end in ((0, t), (1, h)):
            others = [
                distance(*other)
                for node in range(triples.nodes)
                if same_type(node, end)
                and (other := (h, r, node) if side == 0 else (node, r, t)) not in known
            ]
            closer = sum(value < own - 1e-12 for value in others)
            equal = sum(abs(value - own) <= 1e-12 for value in others)
            assert ranks[line, side] == pytest.approx(1 + closer + equal / 2)
    found = LinkPrediction.of(ranks)
    assert found.mrr == pytest.approx(np.mean(1 / ranks))
    assert found.hits_at_10 == pytest.approx(np.mean(ranks <= 10))
