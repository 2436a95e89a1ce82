"""Keeping the hierarchy whole when nodes leave it: children are tied to the next ancestors that stay."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from kg_targets.ontology.tables import IS_A, PART_OF, SAME_AS

Node = TypeVar("Node", bound=Hashable)


def compose(first: str, second: str) -> str:
    """What a path of two relations amounts to: ``part_of`` prevails, ``same_as`` changes nothing."""
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
