"""Why two images are as similar as they are.

With sparse factors the similarity is a sum over concepts, S_ij = Σ_a K_i[a]·K_j[a], so each shared concept has a share
of it: an exact attribution, not an estimate.
"""

import html
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
from scipy import sparse

from kg_targets.inspect.network import concept_hierarchy

if TYPE_CHECKING:
    from kg_targets.store import TargetStore

_ADDITIVE = ("ontology",)


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


def explain(store: "TargetStore", first: str, second: str) -> Explanation:
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


def _shared(store: "TargetStore", rows: tuple[int, int]) -> tuple[SharedConcept, ...]:
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
def _hierarchy(store: "TargetStore") -> nx.DiGraph:
    return concept_hierarchy(store)


def _path(store: "TargetStore", asserted: tuple[str, ...], target: str) -> list[str]:
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
