"""Explanations of a similarity, and the concept graph around one image.

With sparse factors the similarity is a sum over concepts, S_ij = Σ_a K_i[a]·K_j[a], so each shared concept has a share
of it: an exact attribution, not an estimate. A mixture's is a sum over its parts, S_ij = Σ_p w_p·S^p_ij.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from scipy import sparse

from kg_targets.errors import printable
from kg_targets.store.factors import AnyFactors
from kg_targets.store.mixture import MIXTURE, product_of_pair, split_parts

ADDITIVE = ("ontology",)
"""Scorers whose similarity is a sum over concepts."""


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
class PartShare:
    """What one part of a mixture adds to a similarity."""

    name: str
    """Its scorer, and encoder where it has one."""
    weight: float
    """w_p, in (0, 1)."""
    share: float
    """w_p·S^p: the parts' shares sum to the similarity."""
    shared: tuple[SharedConcept, ...] = ()
    """Of an additive part: concepts whose shares, of this part, sum to 1."""

    def __str__(self) -> str:
        return f"{self.share:6.3f}  {self.name}, weight {self.weight:.2f}"


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
    parts: tuple[PartShare, ...] = ()
    """Of a mixture: what each part adds, in the order of the parts."""
    note: str = ""
    """Reason why there is nothing to take apart, where that is so."""

    def __str__(self) -> str:
        lines = [f"{self.first} ~ {self.second}: similarity {self.similarity:.3f}"]
        told = (f"  {self.first}: {self.first_caption}", f"  {self.second}: {self.second_caption}")
        lines += map(_harmless, told)
        if self.note:
            lines.append(f"  {self.note}")
        lines += _concept_lines(self.shared)
        for part in self.parts:
            lines += [f"  {part}", *(f"    {line}" for line in _concept_lines(part.shared))]
        return "\n".join(_harmless(part) for line in lines for part in line.split("\n"))

    def _repr_html_(self) -> str:
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        captions = "".join(
            f"<p><b>{html.escape(image)}</b>: {html.escape(caption)}</p>"
            for image, caption in ((self.first, self.first_caption), (self.second, self.second_caption))
        )
        tables = self._table(self.shared)
        for part in self.parts:
            tables += f"<p><b>{part.share:.3f}</b> {html.escape(part.name)}, weight {part.weight:.2f}</p>"
            tables += self._table(part.shared)
        return f"<div><p>similarity <b>{self.similarity:.3f}</b></p>{captions}{note}{tables}</div>"

    def _table(self, shared: Sequence[SharedConcept]) -> str:
        rows = "".join(
            _html_row("td", f"{c.share:.1%}", c.name, c.cui, _short(c.first_path), _short(c.second_path))
            for c in shared
        )
        head = _html_row("th", "share", "shared concept", "CUI", self.first, self.second)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if shared else ""


def taken_apart(
    pair: Explanation,
    manifest: Mapping[str, Any],
    factors: tuple[AnyFactors, AnyFactors],
    asserted: tuple[Sequence[str], Sequence[str]],
    concepts: pd.DataFrame,
    hierarchy: nx.DiGraph,
) -> Explanation:
    """The explanation of two known images with its shares: of concepts, or of a mixture's parts.

    Args:
        pair: what it explains.
        manifest: of the store.
        factors: K of both images, [1, D] each.
        asserted, concepts, hierarchy: as for ``shared_concepts``.
    """
    scorer = manifest["config"]["scorer"]
    if MIXTURE in manifest:
        return replace(pair, parts=part_shares(manifest[MIXTURE], factors, asserted, concepts, hierarchy))
    if scorer == "transe":
        return replace(pair, note=_told_of_learnt(asserted, concepts))
    if scorer not in ADDITIVE:
        note = (
            f"The {scorer} scorer derives no similarity from these images' own concepts: nothing to explain."
        )
        return replace(pair, note=note)
    shared = shared_concepts(factors, asserted, concepts, hierarchy)
    return replace(pair, shared=shared, note="" if shared else "They share no concept.")


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


def _told_of_learnt(asserted: tuple[Sequence[str], Sequence[str]], concepts: pd.DataFrame) -> str:
    """What can be said of vectors that are learnt from the whole graph: the concepts in common, without shares."""
    name_of = dict(zip(concepts["cui"], concepts["name"], strict=True))
    common = [name_of[cui] for cui in sorted(set(asserted[0]) & set(asserted[1]))]
    told = (
        f"both captions mention {', '.join(common)}" if common else "the captions have no concept in common"
    )
    return f"TransE's vectors are learnt from the whole graph, so no concept has a share of its own; {told}."


def part_shares(
    parts: Sequence[Mapping[str, Any]],
    factors: tuple[AnyFactors, AnyFactors],
    asserted: tuple[Sequence[str], Sequence[str]],
    concepts: pd.DataFrame,
    hierarchy: nx.DiGraph,
) -> tuple[PartShare, ...]:
    """What each part of a mixture adds to the similarity of two images.

    Args:
        parts: entry ``mixture`` of the manifest.
        factors: K of both images, [1, D] each.
        asserted, concepts, hierarchy: as for ``shared_concepts``.
    """
    found = []
    columns = [split_parts(each, parts, len(concepts)) for each in factors]
    for part, one, other in zip(parts, *columns, strict=True):
        pairs = list(zip(one, other, strict=True))
        shared: tuple[SharedConcept, ...] = ()
        if part["scorer"] in ADDITIVE:
            shared = shared_concepts(pairs[0], asserted, concepts, hierarchy)
        share = sum(product_of_pair(*pair) for pair in pairs)
        found.append(PartShare(part["name"], part["weight"], share, shared))
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


def _concept_lines(shared: Sequence[SharedConcept]) -> list[str]:
    return [f"  {each.share:6.1%}  {each.name} ({each.cui}){_paths(each)}" for each in shared]


def _paths(concept: SharedConcept) -> str:
    climbed = [path for path in (concept.first_path, concept.second_path) if len(path) > 1]
    return "".join(f"\n            via {' → '.join(path)}" for path in dict.fromkeys(climbed))


def _short(path: tuple[str, ...]) -> str:
    """First and last concepts of a path: the steps between are on the rows above."""
    return " → ".join(path if len(path) <= 3 else (path[0], "…", path[-2], path[-1]))


def _harmless(line: str) -> str:
    """A line as it is, but control characters of captions, which a terminal would obey, as ``\\x1b``."""
    indent = len(line) - len(line.lstrip(" "))
    return line if line.isprintable() else line[:indent] + printable(line)


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
