"""Modality Co-Attention: question and image look at each other."""

import torch
from torch import Tensor, nn

from training.med_vqa.model.attention import Attention, FeedForward


class CoAttentionBlock(nn.Module):
    """One stream of a layer: self-attention, cross-attention to the other stream, feed-forward.

    Args:
        width: of both streams.
        heads: of each attention.
        ffn: inner width of the feed-forward layer.
        dropout: of each sublayer's output.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.cross_attention = Attention(width, heads, dropout)
        self.feed_forward = FeedForward(width, ffn, dropout)

    def forward(
        self, own: Tensor, other: Tensor, own_mask: Tensor | None, other_mask: Tensor | None
    ) -> Tensor:
        """``own`` ``[B, S, width]`` after it saw itself and ``other`` ``[B, R, width]``; masks bool, True = real."""
        own = self.self_attention(own, self.self_attention.keys_values(own), own_mask)
        own = self.cross_attention(own, self.cross_attention.keys_values(other), other_mask)
        result: Tensor = self.feed_forward(own)
        return result


class CoAttention(nn.Module):
    """L layers of two parallel blocks, text ← image and image ← text; both take the streams of the layer before.

    Each stream first gets a learned modality embedding. Source: AMiF's supplement (L = 6, 113.4 M at width 768); the
    order inside a block is the authors' code's.

    Args:
        width: of both streams.
        layers: L.
        heads: of each attention.
        ffn: inner width of the feed-forward layers.
        dropout: of each sublayer's output.
    """

    def __init__(self, width: int, layers: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.modality = nn.Parameter(torch.empty(2, width))
        self.text = nn.ModuleList([CoAttentionBlock(width, heads, ffn, dropout) for _ in range(layers)])
        self.image = nn.ModuleList([CoAttentionBlock(width, heads, ffn, dropout) for _ in range(layers)])

    def forward(self, text: Tensor, image: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the streams.

        Args:
            text: ``[B, L, width]``.
            image: ``[B, N, width]``; every token is real.
            text_mask: bool ``[B, L]``, True = real.

        Returns:
            Both streams, in their shapes. Values at padded text positions mean nothing.
        """
        text, image = text + self.modality[0], image + self.modality[1]
        for of_text, of_image in zip(self.text, self.image, strict=True):
            text, image = of_text(text, image, text_mask, None), of_image(image, text, None, text_mask)
        return text, image
