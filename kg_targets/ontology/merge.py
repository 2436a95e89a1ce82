"""Uniting two ontologies.

Keeping the hierarchy whole when nodes leave it: children are tied to the next ancestors that stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from kg_targets.ontology.compiled import successors_of
from kg_targets.ontology.names import settled_edges
from kg_targets.ontology.tables import IS_A, PART_OF, SAME_AS, Tables

Ints = npt.NDArray[np.int64]
Node = TypeVar("Node", bound=Hashable)


def compose(first: str, second: str) -> str:
    """Relation that a path of two relations amounts to: ``part_of`` prevails, ``same_as`` changes nothing."""
    if PART_OF in (first, second):
        return PART_OF
    return SAME_AS if first == second == SAME_AS else IS_A


def bridged(
    parents: Mapping[Node, Iterable[tuple[str, Node]]], keep: Container[Node]
) -> Iterator[tuple[Node, str, Node]]:
    """Edges between kept nodes, walking through dropped ones.

    Args:
        parents: for each node its ``(relation, parent)``; cycles are allowed.
        keep: the nodes that stay.
    Yields:
        Distinct ``(child, relation, ancestor)`` with both ends kept: the edges as they are, and one edge per
        path whose inner nodes are all dropped, with the relation that the path composes to.
    """
    for child in parents:
        if child not in keep:
            continue
        found: set[tuple[str, Node]] = set()
        direct = set(parents[child])
        stack = sorted(direct, key=repr)
        while stack:
            relation, node = stack.pop()
            if (relation, node) in found:
                continue
            found.add((relation, node))
            if node in keep:
                if node == child and (relation, node) not in direct:
                    continue  # A way round through dropped nodes says nothing.
                yield child, relation, node
            else:
                stack.extend((compose(relation, step), parent) for step, parent in parents.get(node, ()))


def renewed(tables: Tables, retired: Ints, successors: Ints) -> Tables:
    """Tables in which every retired CUI is written as its successor.

    Args:
        tables: of a source that may use CUIs of an older release.
        retired: int64 ``[S]``, ascending.
        successors: int64 ``[S]``.
    """
    if not len(retired):
        return tables

    def current(table: pa.Table, *columns: str) -> pa.Table:
        for name in columns:
            numbers = np.asarray(table[name].to_numpy(), dtype=np.int64)
            where = np.minimum(np.searchsorted(retired, numbers), len(retired) - 1)
            found = pa.array(np.where(retired[where] == numbers, successors[where], numbers), pa.int32())
            table = table.set_column(table.column_names.index(name), table.schema.field(name), found)
        return table

    return replace(
        tables,
        names=current(tables.names, "cui"),
        terms=current(tables.terms, "cui"),
        edges=current(tables.edges, "child", "parent"),
    )


_FUSED = "equal-meaning link to a concept that the sources before keep apart from another of its group"


def merged(first: Tables, second: Tables) -> Tables:
    """Concepts, names and edges of both, CUIs that one of them has retired written as their successors in the other."""
    first, second = settled_edges(first), settled_edges(second)
    left, right = (
        successors_of(part.edges, np.unique(part.names["cui"].to_numpy())) for part in (first, second)
    )
    return united(renewed(first, *right), renewed(second, *left))


def united(first: Tables, second: Tables) -> Tables:
    """Concepts, names and edges of both; the left one's layers stay in front.

    Verification is decided anew, over all names: a vocabulary of the left and one of the right may confirm
    each other.
    """
    second_edges, kept_apart = _without_fusions(second.edges, first)
    offset = max(_layers(first.names), _layers(first.terms))
    return Tables(
        release=f"{first.release} | {second.release}",
        names=pa.concat_tables([first.names, _shifted(second.names, offset)]),
        terms=pa.concat_tables([first.terms, _shifted(second.terms, offset)]),
        edges=pa.concat_tables([first.edges, second_edges]),
        skipped=dict(Counter(first.skipped) + Counter(second.skipped) + Counter({_FUSED: kept_apart})),
        self_loops=first.self_loops + second.self_loops,
    )


def _without_fusions(edges: pa.Table, first: Tables) -> tuple[pa.Table, int]:
    """``edges`` without the ``same_as`` links that would make one concept of two that ``first`` knows apart.

    Cross-references are generous: one term of a disease ontology may carry the CUIs of "aneurysm" and of "vascular
    disease". In a group with two or more concepts of ``first``, these leave the group; the others stay united.

    Returns:
        The edges kept, and the number of concepts that left a group.
    """
    own = np.unique(first.names["cui"].to_numpy())
    child, parent = edges["child"].to_numpy(), edges["parent"].to_numpy()
    same = pc.equal(edges["relation"], SAME_AS).to_numpy()
    cuis = np.unique(np.concatenate([child[same], parent[same]]))
    ends = np.searchsorted(cuis, child[same]), np.searchsorted(cuis, parent[same])
    links = sparse.csr_array((np.ones(int(same.sum())), ends), shape=(len(cuis), len(cuis)))
    group = (
        sparse.csgraph.connected_components(links, directed=False)[1] if len(cuis) else np.zeros(0, np.int64)
    )
    known = np.isin(cuis, own)
    crowded = np.bincount(group[known], minlength=len(cuis) + 1) > 1
    leaving = cuis[known & crowded[group]]
    dropped = same & (np.isin(child, leaving) | np.isin(parent, leaving))
    return edges.filter(pa.array(~dropped)), len(leaving)


def _layers(table: pa.Table) -> int:
    return int(pc.max(table["layer"]).as_py() or 0) + 1


def _shifted(table: pa.Table, offset: int) -> pa.Table:
    position = table.column_names.index("layer")
    shifted = np.asarray(table["layer"].to_numpy(), dtype=np.int64) + offset
    return table.set_column(position, table.schema.field("layer"), pa.array(shifted.astype(np.uint8)))
