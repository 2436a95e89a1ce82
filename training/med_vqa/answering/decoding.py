"""What the decoder says comes next, as log-probabilities of word pieces."""

import torch
from torch import Tensor

from training.med_vqa.decoder import AnswerDecoder
from training.med_vqa.modeling import Encoded, MedVQAModel


def word_scores(decoder: AnswerDecoder, states: Tensor) -> Tensor:
    """Logits of the next word piece, ``[…, D]`` to ``[…, V]``, float32 (float64 for a model in float64)."""
    scores = decoder.scores(states)
    return scores if scores.dtype == torch.float64 else scores.float()


def next_words(model: MedVQAModel, beginnings: Tensor, encoded: Encoded) -> Tensor:
    """log p of every word piece after the beginnings of B answers, ``[B, V]``, float32 or float64.

    Args:
        model: in eval mode.
        beginnings: int64 ``[B, T]``, the starting token first.
        encoded: B questions, with the decoder's memory.
    """
    decoder, memory, length = model.decoder, encoded.memory or (), beginnings.shape[1]
    mask = torch.ones(length, length, dtype=torch.bool, device=beginnings.device).tril()
    states = decoder.blind(beginnings, mask, torch.arange(length, device=beginnings.device))
    last = decoder.seeing(states, mask, memory, encoded.mask)[:, -1]
    return word_scores(decoder, last).log_softmax(dim=-1)
