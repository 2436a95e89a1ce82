"""What the decoder says comes next, as log-probabilities of word pieces."""

import torch
from torch import Tensor

from training.med_vqa.model.decoder import AnswerDecoder
from training.med_vqa.model.modeling import Encoded, MedVQAModel


def word_scores(decoder: AnswerDecoder, states: Tensor) -> Tensor:
    """Logits of the next word piece, ``[…, D]`` to ``[…, V]``, float32 (float64 for a model in float64)."""
    return _wide(decoder.scores(states))


def next_words(model: MedVQAModel, beginnings: Tensor, encoded: Encoded) -> Tensor:
    """log p of every word piece after the beginnings of B answers, ``[B, V]``; arguments as of ``next_scores``."""
    return log_chances(next_scores(model, beginnings, encoded))


def log_chances(scores: Tensor) -> Tensor:
    """Logits to log p, float32 or float64."""
    return _wide(scores).log_softmax(dim=-1)


def next_scores(model: MedVQAModel, beginnings: Tensor, encoded: Encoded) -> Tensor:
    """Logits of every word piece after the beginnings of B answers, ``[B, V]``, in the precision they are computed in.

    Args:
        model: in eval mode.
        beginnings: int64 ``[B, T]``, the starting token first.
        encoded: B questions, with the decoder's memory.
    """
    decoder, memory, length = model.decoder, encoded.memory or (), beginnings.shape[1]
    mask = torch.ones(length, length, dtype=torch.bool, device=beginnings.device).tril()
    states = decoder.blind(beginnings, mask, torch.arange(length, device=beginnings.device))
    return decoder.scores(decoder.seeing(states, mask, memory, encoded.mask)[:, -1])


def _wide(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()
