"""The two residual sublayers that co-attention, gate and decoder are made of, normalised after the sum as in BERT."""

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
        """What the queries of any number of calls attend to: ``[B, S, width]`` to keys and values."""
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
