"""Fusion of question, image and knowledge: co-attention and gate, and the two sublayers that they are made of.

The sublayers are residual and normalised after the sum, as in BERT; the decoder's cross-attention is one of them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-12  # BERT's

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of the attended states, each ``[B, heads, S, width / heads]``."""


def attend(query: Tensor, keys_values: KeysValues, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √w) v over the keys that may be attended; zero where there is none.

    Args:
        query: ``[B, heads, T, w]``.
        keys_values: of ``[B, heads, S, w]`` each.
        mask: bool, True = may be attended, broadcast to ``[B, heads, T, S]``; None: all.

    Returns:
        ``[B, heads, T, w]``; without a key the softmax would be 0/0.
    """
    keys, values = keys_values
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # Seven times faster at these lengths than what torch has for bfloat16 (backward, 17 keys).
        with torch.autocast("cpu", enabled=False):
            return attend(query.float(), (keys.float(), values.float()), mask).to(query.dtype)
    if mask is None:
        return F.scaled_dot_product_attention(query, keys, values)
    some = mask.any(dim=-1, keepdim=True)
    attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask | ~some)
    return attended * some.to(attended.dtype)


class Attention(nn.Module):
    """Att(q, k) = LN(q + MHA(q, k, k)), dropout on the output of MHA.

    Args:
        width: of queries and attended states.
        heads: divides the width.
        dropout: share of the sublayer's outputs that training sets to zero.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def keys_values(self, states: Tensor) -> KeysValues:
        """Keys and values of states ``[B, S, width]``, for the queries of any number of calls."""
        return self._split(self.key(states)), self._split(self.value(states))

    def forward(self, query: Tensor, keys_values: KeysValues, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            query: ``[B, T, width]``.
            keys_values: of the attended states ``[B, S, width]``.
            mask: bool ``[B, S]``, True = real; None: all are.

        Returns:
            ``[B, T, width]``.
        """
        spread = None if mask is None else mask[:, None, None, :]
        attended = attend(self._split(self.query(query)), keys_values, spread)  # (B, heads, T, w)
        mixed: Tensor = self.output(attended.transpose(1, 2).flatten(2))  # (B, T, width)
        result: Tensor = self.norm(query + self.dropout(mixed))
        return result

    def _split(self, states: Tensor) -> Tensor:
        """``[B, S, width]`` to ``[B, heads, S, width / heads]``."""
        batch, length, width = states.shape
        return states.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class FeedForward(nn.Module):
    """LN(x + W₂ gelu(W₁ x)), dropout on the output of W₂.

    Args:
        width: of the states.
        inner: width between the two layers.
        dropout: share of the sublayer's outputs that training sets to zero.
    """

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, inner)
        self.output = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, states: Tensor) -> Tensor:
        """``[…, width]`` to the same shape."""
        result: Tensor = self.norm(states + self.dropout(self.output(F.gelu(self.inner(states)))))
        return result


def real_somewhere(mask: Tensor) -> Tensor:
    """The mask, and the first position of rows without any: a transformer over nothing would be 0/0.

    Args:
        mask: bool ``[B, L]``, L > 0.
    """
    first = torch.zeros_like(mask)
    first[:, 0] = ~mask.any(dim=1)
    return mask | first


def bert_mask(real: Tensor) -> Tensor:
    """``real_somewhere`` as transformers' BERT takes it: as it is, or on a GPU spread out, ``[B, 1, L, L]``.

    Of a mask ``[B, L]`` transformers asks whether it hides anything, to go without, and a GPU's host waits for the
    answer.

    Args:
        real: bool ``[B, L]``, L > 0.
    """
    mask = real_somewhere(real)
    if mask.device.type == "cpu":
        return mask
    return mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)


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
        x1 = self.attention(x.flatten(0, 1)[None], self.attention.keys_values(y))[0]
        x1 = x1.view_as(x)  # (B, T, width)
        g = torch.sigmoid(self.gate(x1))
        result: Tensor = self.feed_forward(g * x1 + (1 - g) * x)
        return result
