"""A tree of prefixes as sequences for a decoder: every node at the position of its depth, seeing its ancestors only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.med_vqa.answer.trie import IntArray, Trie

CHUNK = 256
"""Nodes in a sequence, at most: the decoder's memory grows with it (attention with its square)."""


@dataclass(frozen=True)
class Pack:
    """T nodes of a tree in one sequence; the last F are its own, those before are ancestors repeated for them.

    Every node is one pack's own. It is there that all continuations of its prefix are scored: that needs the tokens
    of its children, not their states, so children may lie in a later pack.
    """

    tokens: IntArray
    """What the decoder reads, int64 ``[T]``."""
    positions: IntArray
    """At which positions, ``[T]``: depths in the tree."""
    mask: NDArray[np.bool_]
    """``[T, T]``, True where row i may attend to column j: j is i itself or one of its ancestors."""
    own: int
    """F."""
    rows: IntArray
    """Own node, counted from 0, of each continuation to be scored, ``[E]``, ascending."""
    continuations: IntArray
    """Its token, ``[E]``: a child's, or the one that ends an answer."""
    places: IntArray
    """Where its log-probability belongs, ``[E]``: at v for a step to node v, at N + v for an answer that ends at v."""


def pack(trie: Trie, end: int, chunk: int = CHUNK) -> tuple[Pack, ...]:
    """The tree in sequences of about ``chunk`` nodes, cut in preorder, so that whole subtrees stay together.

    A cut costs the path above it, which is repeated: a few nodes, as answers are short.

    Args:
        trie: N prefixes.
        end: token that ends an answer.
        chunk: nodes in a sequence at most, ancestors among them; at least one is the sequence's own in any case.
    """
    packs, start = [], 0
    while start < len(trie):
        above = trie.ancestors(start)
        stop = min(start + max(chunk - len(above), 1), len(trie))
        packs.append(_pack(trie, end, above, start, stop))
        start = stop
    return tuple(packs)


def _pack(trie: Trie, end: int, above: IntArray, start: int, stop: int) -> Pack:
    nodes = np.concatenate([above, np.arange(start, stop)])
    row, column = nodes[:, None], nodes[None, :]
    children = np.flatnonzero((trie.parents >= start) & (trie.parents < stop))
    answers = np.unique(trie.ends[(trie.ends >= start) & (trie.ends < stop)])
    rows = np.concatenate([trie.parents[children], answers]) - start
    order = np.argsort(rows, kind="stable")
    return Pack(
        tokens=trie.tokens[nodes],
        positions=trie.depths[nodes],
        mask=(column <= row) & (row < trie.subtree_ends[column]),
        own=stop - start,
        rows=rows[order],
        continuations=np.concatenate([trie.tokens[children], np.full(len(answers), end)])[order],
        places=np.concatenate([children, len(trie) + answers])[order],
    )
