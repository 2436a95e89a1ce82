"""Log-likelihoods of all candidates, or of a short-list, for questions that are encoded already.

Candidates are a tree (``Trie``) of their unique prefixes: a prefix that many answers share is decoded once. The root is
the token that every answer starts from, a node is a prefix, an answer is the node that its last token leads to. Its
log-likelihood is the sum over the edges of its path, log p(token | prefix), and log p(end | answer). The decoder reads
the tree as sequences (``pack``): every node at the position of its depth, seeing its ancestors only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.errors import DataError
from training.med_vqa.model.modeling import Encoded, MedVQAModel
from training.med_vqa.model.tokens import pieces_of
from training.vqa.answers import normalise_answer

TokenIds = tuple[int, ...]
SLICE = 1 << 23
"""Scores of words held at a time: 32 MB of float32, whatever the vocabulary and the number of candidates."""
IntArray = NDArray[np.int64]
CHUNK = 256
"""Nodes in a sequence, at most: the decoder's memory grows with it (attention with its square)."""


@dataclass(frozen=True)
class Trie:
    """N unique prefixes of C token sequences, in preorder: a node's descendants follow it without a gap."""

    tokens: IntArray
    """Last token of each prefix, int64 ``[N]``; the root's is the starting token."""
    parents: IntArray
    """The prefix without its last token, ``[N]``; the root's is -1."""
    ends: IntArray
    """Node of each whole sequence, ``[C]``, in the order they were given; equal sequences have the same one."""

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], start: int) -> "Trie":
        """The tree of token sequences; children stand in the order of their first sequence.

        Args:
            sequences: token ids, C of them, without special tokens.
            start: token of the root.
        """
        root: dict[int, Any] = {}
        last = []
        for sequence in sequences:
            node = root
            for token in sequence:
                node = node.setdefault(token, {})
            last.append(node)
        tokens, parents, numbers = list[int](), list[int](), dict[int, int]()
        pending = [(root, start, -1)]
        while pending:
            node, token, parent = pending.pop()
            number = numbers[id(node)] = len(tokens)
            tokens.append(token)
            parents.append(parent)
            pending += [(child, piece, number) for piece, child in reversed(node.items())]
        ends = [numbers[id(node)] for node in last]
        return cls(*(np.array(values, dtype=np.int64) for values in (tokens, parents, ends)))

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def depths(self) -> IntArray:
        """Tokens after the root, ``[N]``: the position at which the decoder reads the node."""
        depths = np.zeros(len(self), dtype=np.int64)
        for node in range(1, len(self)):  # preorder: parents come first
            depths[node] = depths[self.parents[node]] + 1
        return depths

    @cached_property
    def subtree_ends(self) -> IntArray:
        """One past the last descendant of each node, ``[N]``."""
        ends = np.arange(1, len(self) + 1)
        for node in range(len(self) - 1, 0, -1):
            ends[self.parents[node]] = max(ends[self.parents[node]], ends[node])
        return ends

    @cached_property
    def levels(self) -> tuple[IntArray, ...]:
        """Nodes of depth 1, 2, …: what a sum along all paths goes through."""
        return tuple(np.flatnonzero(self.depths == depth) for depth in range(1, int(self.depths.max()) + 1))

    def ancestors(self, node: int) -> IntArray:
        """The nodes above ``node``, the root first."""
        path = []
        while (node := int(self.parents[node])) >= 0:
            path.append(node)
        return np.array(path[::-1], dtype=np.int64)


@dataclass(frozen=True)
class Pack:
    """T nodes of a tree in one sequence; the last F are its own, those before are ancestors repeated for them.

    Every node is one pack's own. It is there that all continuations of its prefix are scored: that needs the tokens
    of its children, not their states, so children may lie in a later pack.
    """

    tokens: Tensor
    """Tokens that the decoder reads, int64 ``[T]``."""
    positions: Tensor
    """At which positions, int64 ``[T]``: depths in the tree."""
    mask: Tensor
    """bool ``[T, T]``, True where row i may attend to column j: j is i itself or one of its ancestors."""
    own: int
    """F."""
    rows: Tensor
    """Own node, counted from 0, of each continuation to be scored, int64 ``[E]``, ascending."""
    continuations: Tensor
    """Its token, int64 ``[E]``: a child's, or the one that ends an answer."""
    places: Tensor
    """Place of its log-probability, int64 ``[E]``: at v for a step to node v, at N + v for an answer that ends at v."""
    offsets: tuple[int, ...]
    """Positions in E at which own rows begin, and E: own + 1 numbers."""

    def to(self, device: torch.device) -> "Pack":
        """The same with its tensors on a device."""
        fields: dict[str, Any] = vars(self)
        moved = {name: value.to(device) for name, value in fields.items() if isinstance(value, Tensor)}
        return Pack(**(fields | moved))


def pack(trie: Trie, end: int, chunk: int = CHUNK) -> tuple[Pack, ...]:
    """The tree in sequences of about ``chunk`` nodes, split in preorder, so that whole subtrees stay together.

    Each split repeats the path above it: a few nodes, as answers are short.

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
    continuations = np.concatenate([trie.tokens[children], np.full(len(answers), end)])
    return Pack(
        tokens=torch.from_numpy(trie.tokens[nodes]),
        positions=torch.from_numpy(trie.depths[nodes]),
        mask=torch.from_numpy((column <= row) & (row < trie.subtree_ends[column])),
        own=stop - start,
        rows=torch.from_numpy(rows[order]),
        continuations=torch.from_numpy(continuations[order]),
        places=torch.from_numpy(np.concatenate([children, len(trie) + answers])[order]),
        offsets=tuple(rows[order].searchsorted(range(stop - start + 1)).tolist()),
    )


@dataclass(frozen=True)
class Candidates:
    """C answers and their tokens, in the order given, which breaks ties."""

    texts: tuple[str, ...]
    """As they will be given back."""
    token_ids: tuple[TokenIds, ...]
    """Without special tokens; no two are equal, none is empty."""
    merged: dict[str, str]
    """Answers that have the same tokens as an earlier one, which stands for both: later text to the earlier."""

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Any, longest: int) -> "Candidates":
        """Tokenise answers; one that spells the same tokens as an earlier one is merged with it.

        The model cannot tell such answers apart: as two, they would count twice in every probability.

        Args:
            texts: answers.
            tokenizer: a tokenizer of transformers.
            longest: tokens that the decoder can read of an answer, at most.

        Raises:
            DataError: one normalises or tokenises to nothing, or is too long.
        """
        empty = next((text for text in texts if not normalise_answer(text)), None)
        if empty is not None:
            raise DataError(f"candidate answer {empty!r} is empty after normalisation: remove it")
        kept: dict[TokenIds, str] = {}
        merged: dict[str, str] = {}
        for text, ids in zip(texts, pieces_of(texts, tokenizer), strict=True):
            if not ids:
                raise DataError(f"candidate answer {text!r} has no token the model knows: remove it")
            if len(ids) > longest:
                raise DataError(
                    f"candidate answer {text[:40]!r}… has {len(ids)} tokens, the decoder reads {longest}: shorten it"
                )
            first = kept.setdefault(tuple(ids), text)
            if first != text:
                merged[text] = first
        return cls(tuple(kept.values()), tuple(kept), merged)

    def __len__(self) -> int:
        return len(self.texts)


class Ranker:
    """Scores C candidates for any number of questions.

    log p(candidate) = Σ_t log p(token_t | tokens before it, question, image) + log p(end | candidate, question, image)

    Every unique prefix of the candidates is decoded once per question, and below the layers with cross-attention once
    at all. It holds states of the model as it is now: after a change of the weights, make another.

    Args:
        model: in eval mode.
        sequences: token ids of the candidates, without special tokens, none empty.
        start: token that answers start from.
        end: token that ends an answer.
        chunk: prefixes decoded at a time.
    """

    @torch.inference_mode()
    def __init__(
        self, model: MedVQAModel, sequences: tuple[TokenIds, ...], start: int, end: int, chunk: int = CHUNK
    ) -> None:
        self._model, device = model, model.device
        self._trie = Trie.of(sequences, start)
        self._packs = [one.to(device) for one in pack(self._trie, end, chunk)]
        # After the decoder's layers that see no question, ``[1, T, D]`` each.
        self._states = [model.decoder.blind(one.tokens[None], one.mask, one.positions) for one in self._packs]
        self._parents = torch.as_tensor(self._trie.parents, device=device)
        self._levels = [torch.as_tensor(nodes, device=device) for nodes in self._trie.levels]
        self._ends = torch.as_tensor(self._trie.ends, device=device)

    @torch.inference_mode()
    def log_likelihoods(self, encoded: Encoded) -> Tensor:
        """log p of every candidate, nats, float32 (float64 for a model in float64) ``[B, C]``.

        Args:
            encoded: B questions.
        """
        encoded = self._model.precompute_cross_attention_kv(encoded)
        parts = [self._steps(*prepared, encoded) for prepared in zip(self._packs, self._states, strict=True)]
        nodes = len(self._trie)
        steps = parts[0].new_zeros(len(encoded), 2 * nodes)
        for one, part in zip(self._packs, parts, strict=True):
            steps[:, one.places] = part
        paths = steps[:, :nodes]
        for level in self._levels:  # sums along the paths, from the root down
            paths[:, level] += paths[:, self._parents[level]]
        return paths[:, self._ends] + steps[:, nodes + self._ends]

    def _steps(self, one: Pack, states: Tensor, encoded: Encoded) -> Tensor:
        """log p of a pack's continuations, ``[B, E]``."""
        decoder, questions = self._model.decoder, len(encoded)
        alike = states.expand(questions, -1, -1)
        states = decoder.seeing(alike, one.mask, encoded.memory or (), encoded.mask)[:, -one.own :]
        size = max(1, SLICE // (questions * decoder.config.vocab_size))
        parts = []
        for start in range(0, one.own, size):
            scores = _widened(decoder.scores(states[:, start : start + size]))  # (B, size, V)
            here = slice(one.offsets[start], one.offsets[min(start + size, one.own)])
            rows = one.rows[here] - start
            parts.append(scores[:, rows, one.continuations[here]] - scores.logsumexp(-1)[:, rows])
        return torch.cat(parts, dim=1)


def log_probs(logits: Tensor) -> Tensor:
    """log p of every word piece, float32 (float64 for a model in float64)."""
    return _widened(logits).log_softmax(dim=-1)


def _widened(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def shortlist(first: Tensor, sequences: tuple[TokenIds, ...], k: int) -> Tensor:
    """The k candidates whose first tokens are the likeliest, int64 ``[B, min(k, C)]``, in the candidates' order.

    Candidates with the same first token are equally likely so far and each takes a place; where not all of them have
    room, those that stand first among the candidates are in.

    Args:
        first: log p of every word piece as the first one, ``[B, V]``.
        sequences: token ids of the C candidates.
        k: at least 1.
    """
    beginnings = torch.tensor([sequence[0] for sequence in sequences], device=first.device)
    order = first[:, beginnings].sort(dim=1, descending=True, stable=True).indices
    return order[:, :k].sort(dim=1).values
