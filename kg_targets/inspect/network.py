"""networkx views of the concept graph around an image, for notebooks and graph tools."""

from typing import TYPE_CHECKING

import networkx as nx

if TYPE_CHECKING:
    from kg_targets.store import TargetStore


def concept_hierarchy(store: "TargetStore") -> nx.DiGraph:
    """Every edge that the closure follows, child → parent: ``is_a``, ``same_as`` both ways, ``part_of`` if built so."""
    edges = store.is_a
    graph = nx.DiGraph()
    graph.add_edges_from(zip(edges["child"], edges["parent"], strict=True))
    return graph


def neighbourhood(store: "TargetStore", image_id: str, hops: int = 2) -> nx.MultiDiGraph:
    """The image, its concepts (``has_attribute``) and what those are (``is_a``), ``hops`` edges from the image.

    Nodes carry ``kind`` ("image" or the concept's kind) and ``name``; edges carry ``relation``, also as their key.

    Raises:
        StoreError: no such image.
    """
    row = store.row(image_id)
    concepts = store.concepts.set_index("cui")
    graph = nx.MultiDiGraph()
    graph.add_node(image_id, kind="image", name=store.captions[row])
    frontier = store.cuis[row] if hops > 0 else []
    for cui in frontier:
        graph.add_edge(image_id, cui, key="has_attribute", relation="has_attribute")
    parents = store.is_a.groupby("child")
    for _ in range(hops - 1):
        reached: set[str] = set()
        for child in frontier:
            if child not in parents.groups:
                continue
            edges = parents.get_group(child)
            for relation, parent in zip(edges["relation"], edges["parent"], strict=True):
                graph.add_edge(child, parent, key=relation, relation=relation)
                reached.add(parent)
        frontier = sorted(reached)
    for node in graph.nodes:
        if node != image_id:
            graph.nodes[node].update(kind=concepts.at[node, "kind"], name=concepts.at[node, "name"])
    return graph
