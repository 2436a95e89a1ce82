"""Explanations of a similarity, and the concept graph around one image.

With sparse factors the similarity is a sum over concepts, S_ij = Σ_a K_i[a]·K_j[a], so each shared concept has a share
of it: an exact attribution, not an estimate.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import pandas as pd
from scipy import sparse


@dataclass(frozen=True)
class SharedConcept:
    """One concept that both images have, themselves or through something they are a kind of."""

    cui: str
    name: str
    share: float
    """Part of the similarity, in (0, 1]; all shares sum to 1."""
    first_path: tuple[str, ...]
    """Names from the first image's own concept up to this one; one name when it asserts the concept itself."""
    second_path: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """The similarity of two images, taken apart. ``str`` for a terminal, HTML in a notebook."""

    first: str
    second: str
    first_caption: str
    second_caption: str
    similarity: float
    shared: tuple[SharedConcept, ...] = ()
    """Largest share first."""
    note: str = ""
    """Reason why there is nothing to take apart, where that is so."""

    def __str__(self) -> str:
        lines = [f"{self.first} ~ {self.second}: similarity {self.similarity:.3f}"]
        lines += [f"  {self.first}: {self.first_caption}", f"  {self.second}: {self.second_caption}"]
        if self.note:
            lines.append(f"  {self.note}")
        for concept in self.shared:
            lines.append(f"  {concept.share:6.1%}  {concept.name} ({concept.cui}){_paths(concept)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            _html_row("td", f"{c.share:.1%}", c.name, c.cui, _short(c.first_path), _short(c.second_path))
            for c in self.shared
        )
        head = _html_row("th", "share", "shared concept", "CUI", self.first, self.second)
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        captions = "".join(
            f"<p><b>{html.escape(image)}</b>: {html.escape(caption)}</p>"
            for image, caption in ((self.first, self.first_caption), (self.second, self.second_caption))
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if self.shared else ""
        return f"<div><p>similarity <b>{self.similarity:.3f}</b></p>{captions}{note}{table}</div>"


def shared_concepts(
    factors: tuple[sparse.csr_array, sparse.csr_array],
    asserted: tuple[Sequence[str], Sequence[str]],
    concepts: pd.DataFrame,
    hierarchy: nx.DiGraph,
) -> tuple[SharedConcept, ...]:
    """Concepts that two images have in common, each with its share of their similarity, largest first.

    Args:
        factors: K of both images, [1, C] each.
        asserted: CUIs that their captions assert.
        concepts: one row per column of the factors, with cui and name.
        hierarchy: child → parent, every edge that the closure follows.
    """
    product = sparse.csr_array(factors[0].multiply(factors[1]))
    names, cuis = concepts["name"].tolist(), concepts["cui"].tolist()
    name_of = dict(zip(cuis, names, strict=True))
    total = float(product.data.sum())
    found = []
    for index in np.argsort(-product.data, kind="stable"):
        column, share = int(product.indices[index]), float(product.data[index]) / total
        paths = [tuple(name_of[cui] for cui in _path(hierarchy, own, cuis[column])) for own in asserted]
        found.append(SharedConcept(cuis[column], names[column], share, paths[0], paths[1]))
    return tuple(found)


def hierarchy(is_a: pd.DataFrame) -> nx.DiGraph:
    """Every edge that the closure follows, child → parent: ``is_a``, ``same_as`` both ways, ``part_of`` if built so."""
    graph = nx.DiGraph()
    graph.add_edges_from(zip(is_a["child"], is_a["parent"], strict=True))
    return graph


def _path(graph: nx.DiGraph, asserted: Sequence[str], target: str) -> list[str]:
    """Shortest ``is_a`` path from one of the asserted concepts up to ``target``; ties by CUI."""
    if target in asserted:
        return [target]
    candidates = [
        nx.shortest_path(graph, cui, target)
        for cui in asserted
        if cui in graph and target in graph and nx.has_path(graph, cui, target)
    ]
    return min(candidates, key=lambda path: (len(path), path)) if candidates else [target]


def _paths(concept: SharedConcept) -> str:
    climbed = [path for path in (concept.first_path, concept.second_path) if len(path) > 1]
    return "".join(f"\n            via {' → '.join(path)}" for path in dict.fromkeys(climbed))


def _short(path: tuple[str, ...]) -> str:
    """First and last concepts of a path: the steps between are on the rows above."""
    return " → ".join(path if len(path) <= 3 else (path[0], "…", path[-2], path[-1]))


def _html_row(tag: str, *cells: str) -> str:
    # Notebooks align cells to the right unless told otherwise.
    return (
        "<tr>"
        + "".join(f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>" for cell in cells)
        + "</tr>"
    )


def neighbourhood(
    image: tuple[str, str], asserted: Sequence[str], concepts: pd.DataFrame, is_a: pd.DataFrame, hops: int
) -> nx.MultiDiGraph:
    """The image, its concepts (``has_attribute``) and what those are (``is_a``), ``hops`` edges from the image.

    Args:
        image: its id and its caption.
        asserted: CUIs that the caption asserts.
        concepts: cui, kind and name of each concept.
        is_a: edges: child, relation, parent.
        hops: edges on the longest path from the image.
    """
    graph, details = nx.MultiDiGraph(), concepts.set_index("cui")
    graph.add_node(image[0], kind="image", name=image[1])
    frontier = list(asserted) if hops > 0 else []
    for cui in frontier:
        graph.add_edge(image[0], cui, key="has_attribute", relation="has_attribute")
    for _ in range(hops - 1):
        edges = is_a[is_a["child"].isin(frontier)]
        for child, relation, parent in zip(edges["child"], edges["relation"], edges["parent"], strict=True):
            graph.add_edge(child, parent, key=relation, relation=relation)
        frontier = sorted(set(edges["parent"]))
    for node in list(graph)[1:]:
        graph.nodes[node].update(kind=details.at[node, "kind"], name=details.at[node, "name"])
    return graph
