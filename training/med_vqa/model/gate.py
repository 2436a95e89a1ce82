"""Gated Cross-Attention: how much of the answers' vocabulary enters each token."""

import torch
from torch import Tensor, nn

from training.med_vqa.model.attention import Attention, FeedForward


class GatedCrossAttention(nn.Module):
    """x looks at the knowledge y, and a gate per channel decides how much of what it saw is taken.

        Att(q, k) = LN(q + MHA(q, k, k))
        y   = LN(y' + FFN₁(y')),  y' = Att(y, y)
        x₁  = Att(x, y)
        g   = σ(W x₁)                          W: width × width, no bias
        o   = g ∘ x₁ + (1 − g) ∘ x
        out = LN(o + FFN₂(o))

    Source: AMiF's supplement (14.8 M at width 768), one layer with 12 heads and inner width 3,072 by the authors' code.

    Args:
        width: of x and y.
        heads: of both attentions.
        ffn: inner width of FFN₁ and FFN₂.
        dropout: of each sublayer's output.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.knowledge_attention = Attention(width, heads, dropout)
        self.knowledge_feed_forward = FeedForward(width, ffn, dropout)
        self.attention = Attention(width, heads, dropout)
        self.gate = nn.Linear(width, width, bias=False)
        self.feed_forward = FeedForward(width, ffn, dropout)

    def forward(self, x: Tensor, knowledge: Tensor) -> Tensor:
        """Let the knowledge in.

        Args:
            x: ``[B, T, width]``; padded positions are computed like others and stay without effect on them.
            knowledge: ``[K, width]``, K > 0; the same for every row, so it is encoded once.

        Returns:
            ``[B, T, width]``.
        """
        y = knowledge[None]  # (1, K, width)
        y = self.knowledge_attention(y, self.knowledge_attention.keys_values(y))
        y = self.knowledge_feed_forward(y)
        # Every token of the batch attends to the same keys: they are the queries of one long sequence.
        x1 = self.attention(x.flatten(0, 1)[None], self.attention.keys_values(y))[0].view_as(
            x
        )  # (B, T, width)
        g = torch.sigmoid(self.gate(x1))
        result: Tensor = self.feed_forward(g * x1 + (1 - g) * x)
        return result
