"""Draws images and their concepts as a layered graph, from the images on the left to the broadest concepts."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from textwrap import fill

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Curve

from kg_targets.inspect.captions import COLOURS, group
from kg_targets.store import TargetStore


def graph_figure(store: TargetStore, image_ids: Sequence[str], hops: int = 8) -> Figure:
    """Images, what their captions assert and what that is, from left to right; shared concepts have a bold frame.

    Edges that follow from longer paths are left out of the drawing (not of the graph).
    """
    graph = nx.DiGraph()
    for image_id in image_ids:
        part = store.to_networkx(image_id, hops)
        graph.add_nodes_from(part.nodes(data=True))
        edges = part.edges(keys=True)
        graph.add_edges_from((a, b) for a, b, kind in edges if kind in ("has_attribute", "is_a", "part_of"))
    graph = nx.DiGraph(
        graph.subgraph(set(image_ids).union(*(nx.descendants(graph, name) for name in image_ids)))
    )
    if nx.is_directed_acyclic_graph(graph):
        graph.remove_edges_from(set(graph.edges) - set(nx.transitive_reduction(graph).edges))
    reached = [nx.descendants(graph, name) for name in image_ids]
    shared = set.intersection(*reached) if len(reached) > 1 else set()
    place, chains = _layered(graph, image_ids)
    columns = 1 + max(x for x, _ in place.values())
    bottom, top = min(y for _, y in place.values()), max(y for _, y in place.values())
    figure = Figure(figsize=(1.75 * columns, 0.48 * (top - bottom + 1) + 0.5))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-0.5, columns - 0.5), ylim=(bottom - 1.5, top + 0.5))
    axis.set_axis_off()
    boxes = {}
    for node, data in graph.nodes(data=True):
        is_image = data["kind"] == "image"
        colour = "#333333" if is_image else COLOURS[group(data["kind"])]
        face, width = (colour if is_image else _pale(colour)), (2.6 if node in shared else 1.0)
        boxes[node] = axis.text(
            *place[node], node if is_image else fill(data["name"], 17), ha="center", va="center", zorder=3,
            fontsize=9.5, color="white" if is_image else "black", linespacing=1.0,
            bbox={"boxstyle": "round,pad=0.35", "fc": face, "ec": colour, "lw": width},
        )  # fmt: skip
    figure.draw_without_rendering()  # now every box knows its width
    to_data = axis.transData.inverted()
    patches = {node: text.get_bbox_patch() for node, text in boxes.items()}
    extents = {node: patch.get_window_extent() for node, patch in patches.items() if patch is not None}
    half = {node: extent.transformed(to_data).width / 2 for node, extent in extents.items()}
    for chain in chains:
        axis.add_patch(_edge([place[node] for node in chain], half[chain[0]], half[chain[-1]]))
    keys = [Patch(fc=_pale(colour), ec=colour, label=name) for name, colour in COLOURS.items()]
    axis.legend(handles=keys, loc="lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _layered(
    graph: nx.DiGraph, first: Sequence[str]
) -> tuple[dict[object, tuple[int, float]], list[list[object]]]:
    """Column and height of every node, and every edge as a chain with a placeholder in each column that it crosses.

    Columns are longest distances from the images. Inside a column a node stands near the nodes that it is tied to
    (barycentres, after Sugiyama et al. 1981), so that few edges cross.
    """
    condensed = nx.condensation(graph)
    column: dict[object, int] = {
        node: depth
        for depth, parts in enumerate(nx.topological_generations(condensed))
        for part in parts
        for node in condensed.nodes[part]["members"]
    }
    chains = [[a, *((a, b, x) for x in range(column[a] + 1, column[b])), b] for a, b in graph.edges]
    column.update({point: point[2] for chain in chains for point in chain[1:-1]})
    ties = nx.Graph([pair for chain in chains for pair in pairwise(chain)])
    layers: list[list[object]] = [[] for _ in range(1 + max(column.values()))]
    for image_id in first:
        for node in nx.dfs_preorder_nodes(ties, image_id, sort_neighbors=_by_name):
            if not any(node in layer for layer in layers):
                layers[column[node]].append(node)
    layers[0] = list(first)
    gap = max(map(len, layers)) / len(first)
    height: dict[object, float] = {
        node: gap * ((len(first) - 1) / 2 - index) for index, node in enumerate(first)
    }
    best, least = dict(height), np.inf
    for layer in layers[1:]:
        height.update({node: (len(layer) - 1) / 2 - index for index, node in enumerate(layer)})
    for sweep in range(30):
        for layer in layers[1:] if sweep % 2 else layers[:0:-1]:
            layer.sort(key=lambda node: -np.mean([height[near] for near in ties[node]]))
            height.update({node: (len(layer) - 1) / 2 - index for index, node in enumerate(layer)})
        length = sum(abs(height[a] - height[b]) for a, b in ties.edges)
        if length < least:
            best, least = dict(height), length
    return {node: (column[node], y) for node, y in best.items()}, chains


def _by_name(nodes: Iterable[object]) -> list[object]:
    return sorted(nodes, key=str)


def _edge(points: list[tuple[float, float]], start: float, stop: float) -> PathPatch:
    """A smooth line through ``points`` that begins and ends at the boxes' sides."""
    points = [(points[0][0] + start, points[0][1]), *points[1:-1], (points[-1][0] - stop, points[-1][1])]
    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        vertices += [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1), (x1, y1)]
        codes += [Curve.CURVE4] * 3
    return PathPatch(Curve(vertices, codes), fc="none", ec="#9a9a9a", lw=1.0, zorder=1)


def _pale(colour: str) -> tuple[float, float, float]:
    red, green, blue = (1 - 0.18 * (1 - int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return red, green, blue
