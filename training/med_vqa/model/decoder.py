"""The answer decoder: a BERT that predicts the next word piece and sees question and image in its last layers only."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig
from transformers.models.bert.modeling_bert import (
    BertEmbeddings,
    BertLayer,
    BertPredictionHeadTransform,
    BertPreTrainedModel,
)

from training.errors import ConfigError
from training.med_vqa.model.attention import Attention, KeysValues

Memory = tuple[KeysValues, ...]
"""Keys and values of the encoder states for each layer that sees them, first to last."""


ATTENTION = "sdpa"


def check_attention(kind: str | None) -> None:
    """Refuse an attention that reads the decoder's mask otherwise: transformers' ``eager`` adds a bool one as numbers.

    Raises:
        ConfigError: it is not ``sdpa``.
    """
    if kind not in (None, ATTENTION):
        only = f"this model's decoder masks correctly with {ATTENTION} only"
        raise ConfigError(f'attn_implementation "{kind}": {only}')


class DecoderLayer(nn.Module):
    """A BERT layer, with cross-attention between its attention and its feed-forward part only where ``sees``."""

    def __init__(self, config: BertConfig, sees: bool) -> None:
        super().__init__()
        self.bert: Any = BertLayer(config)  # type: ignore[no-untyped-call]
        width, heads, dropout = config.hidden_size, config.num_attention_heads, config.hidden_dropout_prob
        self.cross_attention = Attention(width, heads, dropout) if sees else None

    def forward(
        self, states: Tensor, mask: Tensor, memory: KeysValues | None, memory_mask: Tensor | None
    ) -> Tensor:
        """One layer.

        Args:
            states: ``[B, T, D]``.
            mask: bool ``[B or 1, 1, T, T]``, True = may attend.
            memory: keys and values of the encoder states, where the layer sees them.
            memory_mask: bool ``[B, S]``, True = real.

        Returns:
            ``[B, T, D]``.
        """
        states = self.bert.attention(states, attention_mask=mask)[0]
        if self.cross_attention is not None and memory is not None:
            states = self.cross_attention(states, memory, memory_mask)
        result: Tensor = self.bert.feed_forward_chunk(states)
        return result


class AnswerDecoder(BertPreTrainedModel):  # type: ignore[no-untyped-call]
    """BERT as a language model: embeddings, layers, and a head that shares the word embeddings' weights.

    Cross-attention stands in the last layers only: in all twelve of BERT-base it would be 136.7 M parameters instead of
    122.5 M (AMiF's supplement: 122 M).

    Args:
        config: of a BERT with ``is_decoder`` true and ``add_cross_attention`` false.
        cross_attention_layers: how many of the last layers see the encoder states.
    """

    def __init__(self, config: BertConfig, cross_attention_layers: int) -> None:
        super().__init__(config)
        self.without_sight = config.num_hidden_layers - cross_attention_layers
        self.embeddings = BertEmbeddings(config)  # type: ignore[no-untyped-call]
        self.layers = nn.ModuleList(
            [DecoderLayer(config, number >= self.without_sight) for number in range(config.num_hidden_layers)]
        )
        self.transform = BertPredictionHeadTransform(config)  # type: ignore[no-untyped-call]
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.post_init()  # type: ignore[no-untyped-call]

    def memory(self, states: Tensor) -> Memory:
        """Keys and values of the encoder states ``[B, S, D]``, for any number of calls about the same questions."""
        attentions = (cast(DecoderLayer, layer).cross_attention for layer in self.layers)
        return tuple(attention.keys_values(states) for attention in attentions if attention is not None)

    def blind(self, input_ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """States after the layers that see no encoder states: for the same answers the same whatever the question.

        Args:
            input_ids: int64 ``[B, T]``.
            mask: bool ``[T, T]`` or ``[B, T, T]``, True = row may attend to column; each position sees itself anyway.
            positions: int64 ``[T]``.

        Returns:
            ``[B, T, D]``.
        """
        check_attention(self.config._attn_implementation)
        states: Tensor = self.embeddings(input_ids, position_ids=positions[None])
        for layer in self.layers[: self.without_sight]:
            states = layer(states, _spread(mask), None, None)
        return states

    def seeing(self, states: Tensor, mask: Tensor, memory: Memory, memory_mask: Tensor) -> Tensor:
        """States ``[B, T, D]`` of ``blind`` after the other layers.

        Args:
            states: of answers to the same B questions.
            mask: as for ``blind``.
            memory: of ``memory``.
            memory_mask: bool ``[B, S]``, True = real.
        """
        for layer, seen in zip(self.layers[self.without_sight :], memory, strict=True):
            states = layer(states, _spread(mask), seen, memory_mask)
        return states

    def scores(self, states: Tensor) -> Tensor:
        """Logits of the next word piece, states ``[…, D]`` of ``seeing`` to ``[…, V]``."""
        return F.linear(self.transform(states), self.embeddings.word_embeddings.weight, self.bias)

    def forward(
        self, input_ids: Tensor, mask: Tensor, positions: Tensor, memory: Memory, memory_mask: Tensor
    ) -> Tensor:
        """``blind`` and ``seeing`` one after the other, with their arguments: states ``[B, T, D]`` for ``scores``."""
        return self.seeing(self.blind(input_ids, mask, positions), mask, memory, memory_mask)


def _spread(mask: Tensor) -> Tensor:
    """``[T, T]`` or ``[B, T, T]`` to ``[1 or B, 1, T, T]``; where nothing may be attended, attention would be 0/0."""
    mask = mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    return mask[None, None] if mask.dim() == 2 else mask[:, None]
