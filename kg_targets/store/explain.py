"""Why two images are as similar as they are, and the concept graph around one of them.

With sparse factors the similarity is a sum over concepts, S_ij = Σ_a K_i[a]·K_j[a], so each shared concept has a share
of it: an exact attribution, not an estimate.
"""

import html
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import networkx as nx
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

_ADDITIVE = ("ontology",)


class Knowledge(Protocol):
    """A store of knowledge, as far as it is looked at here; its members are those of ``TargetStore``."""

    manifest: dict[str, Any]

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool [N]: whether anything is known about a row."""

    @property
    def captions(self) -> list[str]:
        """One per row."""

    @property
    def cuis(self) -> list[list[str]]:
        """Of each row, what its caption asserts."""

    @property
    def concepts(self) -> pd.DataFrame:
        """One row per column of sparse factors, with cui and name."""

    @property
    def is_a(self) -> pd.DataFrame:
        """Edges: child, relation, parent."""

    @property
    def factors(self) -> sparse.csr_array | NDArray[np.float32]:
        """[N, C]: one factor per row."""

    def row(self, image_id: str) -> int:
        """Row of an image."""

    def block(self, rows: list[int], cols: list[int]) -> NDArray[np.float32]:
        """Similarities of rows and columns."""

    def __hash__(self) -> int:
        """By identity: what was derived from a store is kept for it."""


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
    shared: tuple[SharedConcept, ...]
    """Largest share first."""
    note: str = ""
    """Why there is nothing to take apart, where that is so."""

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


def explain(store: Knowledge, first: str, second: str) -> Explanation:
    """Take the similarity of two images apart into shared concepts.

    Raises:
        StoreError: one of the images is not in the store.
    """
    rows = (store.row(first), store.row(second))
    similarity = float(store.block([rows[0]], [rows[1]])[0, 0])
    scorer = store.manifest["config"]["scorer"]
    shared: tuple[SharedConcept, ...] = ()
    note = ""
    if first == second:
        note = "It is the same image: similarity 1 by definition."
    elif not store.known[list(rows)].all():
        unknown = first if not store.known[rows[0]] else second
        note = f"Nothing is known about {unknown}: its similarity to every other image is 0."
    elif scorer not in _ADDITIVE:
        note = f"The {scorer} scorer does not derive similarity from these images' own concepts: nothing to explain."
    else:
        shared = _shared(store, rows)
        note = "" if shared else "They share no concept."
    return Explanation(
        first, second, store.captions[rows[0]], store.captions[rows[1]], similarity, shared, note
    )


def _shared(store: Knowledge, rows: tuple[int, int]) -> tuple[SharedConcept, ...]:
    left, right = (sparse.csr_array(store.factors[[row]]) for row in rows)
    product = sparse.csr_array(left.multiply(right))
    names = store.concepts["name"].tolist()
    cuis = store.concepts["cui"].tolist()
    name_of = dict(zip(cuis, names, strict=True))
    total = float(product.data.sum())
    found = []
    for index in np.argsort(-product.data, kind="stable"):
        column = int(product.indices[index])
        paths = [
            tuple(name_of[cui] for cui in _path(store, tuple(store.cuis[row]), cuis[column])) for row in rows
        ]
        share = float(product.data[index]) / total
        found.append(SharedConcept(cuis[column], names[column], share, paths[0], paths[1]))
    return tuple(found)


@lru_cache(maxsize=4)
def _hierarchy(store: Knowledge) -> nx.DiGraph:
    """Every edge that the closure follows, child → parent: ``is_a``, ``same_as`` both ways, ``part_of`` if built so."""
    edges = store.is_a
    graph = nx.DiGraph()
    graph.add_edges_from(zip(edges["child"], edges["parent"], strict=True))
    return graph


def _path(store: Knowledge, asserted: tuple[str, ...], target: str) -> list[str]:
    """Shortest ``is_a`` path from one of the asserted concepts up to ``target``; ties by CUI."""
    if target in asserted:
        return [target]
    graph = _hierarchy(store)
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
    """Where a path starts and how it ends: the steps between are on the rows above."""
    return " → ".join(path if len(path) <= 3 else (path[0], "…", path[-2], path[-1]))


def _html_row(tag: str, *cells: str) -> str:
    # Notebooks align cells to the right unless told otherwise.
    return (
        "<tr>"
        + "".join(f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>" for cell in cells)
        + "</tr>"
    )


def neighbourhood(store: Knowledge, image_id: str, hops: int = 2) -> nx.MultiDiGraph:
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
