"""The TransE step with gradients in closed form: no autograd graph, no dense update.

    D(h, r, t) = ‖h + r − t‖,  p = 1 or 2
    L = mean over B true triples and their K corrupted ones of max(0, margin + D(true) − D(corrupted))

With q = h + r where the tail is replaced and q = t − r where the head is, D(corrupted) = ‖q − e‖, e the replacing node.
∂‖x‖₁/∂x = sign(x), ∂‖x‖₂/∂x = x/‖x‖. Adagrad on the rows that the step touched, then nodes back to the unit sphere
(relations are free). Rows that a step does not touch have gradient 0, for which Adagrad does nothing, so this is
the dense update exactly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kg_targets.transe.settings import TransESettings

_BLOCK_FLOATS = 1 << 18  # differences at a time, so that they stay in a core's cache
_EPSILON = 1e-10  # Adagrad's, as in torch


@dataclass(frozen=True)
class Batch:
    """B true triples, each with K nodes that replace one of its ends."""

    heads: Tensor
    """int64 [B]; all three are rows of the table."""
    relations: Tensor
    tails: Tensor
    replaces_head: Tensor
    """bool [B, K]: which end each of the K nodes replaces."""
    negatives: Tensor
    """int64 [B, K]."""


class TransE:
    """One table of vectors: E nodes on the unit sphere, then R relations."""

    def __init__(self, table: Tensor, nodes: int, settings: TransESettings, trainable: int | None = None):
        """Take a table as it is.

        Args:
            table: [E + R, dim], float; changed in place.
            nodes: E.
            trainable: only this many leading rows are changed; None: all.
        """
        self.table, self.nodes, self.settings = table, nodes, settings
        self.trainable = len(table) if trainable is None else trainable
        self.squares = torch.zeros_like(table)
        """Adagrad's sum of squared gradients."""
        self.gradient = torch.zeros_like(table)
        """∂L/∂table between ``accumulate`` and ``update``, else zeros."""
        self._touched = torch.zeros(len(table), dtype=torch.bool, device=table.device)
        self._scratch = table.new_empty(2, 0, table.shape[1])  # kept: fresh memory costs as much as the sums

    @classmethod
    def start(
        cls, nodes: int, relations: int, settings: TransESettings, generator: torch.Generator
    ) -> "TransE":
        """Uniform in ±6/√dim (Bordes et al. 2013), every row scaled to length 1."""
        shape, device = (nodes + relations, settings.dim), generator.device
        table = torch.rand(shape, generator=generator, device=device).sub_(0.5)
        return cls(torch.nn.functional.normalize(table), nodes, settings)

    def step(self, batch: Batch) -> Tensor:
        """One update; the loss before it, a scalar that nobody waits for."""
        loss = self.accumulate(batch)
        self.update(batch)
        return loss

    def accumulate(self, batch: Batch) -> Tensor:
        """Add ∂L/∂table to ``gradient``; L, scalar."""
        margin, dim = self.settings.margin, self.table.shape[1]
        triples, negatives = batch.negatives.shape
        head, relation, tail = (
            self.table.index_select(0, rows) for rows in (batch.heads, batch.relations, batch.tails)
        )
        difference = head + relation - tail  # [B, dim]
        distance = self._length(difference)  # [B]
        # What a replaced tail and a replaced head are compared with, row 2·i + (whether the head is replaced)
        queries = torch.stack([head + relation, tail - relation], dim=1).view(-1, dim)  # [2·B, dim]
        number = torch.arange(triples, device=queries.device)[:, None] * 2 + batch.replaces_head  # [B, K]
        by_query = torch.zeros_like(queries)  # ∂L/∂queries
        violated = torch.zeros_like(distance)  # how many of its K corrupted triples are too close
        loss = torch.zeros((), dtype=self.table.dtype, device=self.table.device)
        scale = 1.0 / (triples * negatives)
        block = min(triples, max(1, _BLOCK_FLOATS // (negatives * dim)))
        if self._scratch.shape[1] < block * negatives:
            self._scratch = self.table.new_empty(2, block * negatives, dim)
        for start in range(0, triples, block):
            chosen = slice(start, start + block)
            nodes, query = batch.negatives[chosen].reshape(-1), number[chosen].reshape(-1)  # [b·K]
            apart, spare = self._scratch[:, : len(nodes)].unbind()  # [b·K, dim] each
            torch.index_select(queries, 0, query, out=apart)
            apart.sub_(torch.index_select(self.table, 0, nodes, out=spare))
            lengths = self._length(apart, spare)  # [b·K]
            excess = (margin + distance[chosen, None]) - lengths.view(-1, negatives)  # [b, K]
            active = excess > 0
            loss += excess.clamp_(min=0.0).sum()
            violated[chosen] = active.sum(dim=1).to(violated.dtype)
            active = active.view(-1)
            if active.is_cuda:  # counting the active ones would make the host wait
                direction = self._direction(apart, lengths).mul_(active[:, None])
            else:
                kept = active.nonzero().squeeze(1)
                nodes, query, lengths = nodes[kept], query[kept], lengths[kept]
                direction = self._direction(
                    torch.index_select(apart, 0, kept, out=spare[: len(kept)]), lengths
                )
                self._touched.index_fill_(0, nodes, True)
            self.gradient.index_add_(0, nodes, direction, alpha=scale)
            by_query.index_add_(0, query, direction, alpha=-scale)
        by_true = self._direction(difference, distance).mul_((violated * scale)[:, None])
        by_head_and_relation, by_tail_less_relation = by_query.view(-1, 2, dim).unbind(dim=1)
        self.gradient.index_add_(0, batch.heads, by_true + by_head_and_relation)
        self.gradient.index_add_(0, batch.tails, by_tail_less_relation - by_true)
        self.gradient.index_add_(0, batch.relations, by_true + by_head_and_relation - by_tail_less_relation)
        return loss * scale

    def update(self, batch: Batch) -> None:
        """Adagrad with ``gradient`` on the rows of a batch, which is zeroed; nodes return to the unit sphere."""
        true = torch.cat([batch.heads, batch.relations, batch.tails])
        if self.table.is_cuda:
            # Rows repeat: each repetition computes and writes the same, and no size depends on the data.
            rows = torch.cat([true, batch.negatives.reshape(-1)])
            changed = rows.clamp(max=self.trainable - 1) if self.trainable < len(self.table) else rows
        else:
            self._touched.index_fill_(0, true, True)
            rows = self._touched.nonzero().squeeze(1)
            self._touched.index_fill_(0, rows, False)
            changed = rows[rows < self.trainable]
        gradient = self.gradient.index_select(0, changed)
        squares = self.squares.index_select(0, changed).addcmul_(gradient, gradient)
        self.squares.index_copy_(0, changed, squares)
        vectors = self.table.index_select(0, changed)
        vectors.addcdiv_(gradient, squares.sqrt_().add_(_EPSILON), value=-self.settings.lr)
        lengths = torch.linalg.vector_norm(vectors, dim=1).clamp_(min=1e-12)
        lengths.masked_fill_(changed >= self.nodes, 1.0)
        self.table.index_copy_(0, changed, vectors.div_(lengths[:, None]))
        self.gradient.index_fill_(0, rows, 0.0)

    def _length(self, vectors: Tensor, spare: Tensor | None = None) -> Tensor:
        if self.settings.norm == "l1":
            return torch.abs(vectors, out=spare).sum(dim=-1)
        lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
        return lengths

    def _direction(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """∂‖x‖/∂x of rows whose norm is known; may overwrite them."""
        if self.settings.norm == "l1":
            return vectors.sign_()
        return vectors.div_(lengths.clamp(min=1e-12)[:, None])
