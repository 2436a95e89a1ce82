"""Free generation: the likeliest word piece after the likeliest word piece, until the answer ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from training.med_vqa.answer.ranking import TokenIds, log_probs, next_token_logits
from training.med_vqa.model.modeling import Encoded, MedVQAModel

MAX_TOKENS = 32
"""Word pieces of a generated answer, at most."""


@dataclass(frozen=True)
class Generated:
    """One answer in the model's own words."""

    token_ids: TokenIds
    """Without special tokens."""
    log_likelihood: float
    """Σ log p of its tokens and of the end, nats; of a cut answer: of its tokens."""
    cut: bool
    """Whether it had not ended after the largest number of tokens."""


@torch.inference_mode()
def generate(
    model: MedVQAModel,
    encoded: Encoded,
    start: int,
    end: int,
    forbidden: Sequence[int] = (),
    max_tokens: int = MAX_TOKENS,
) -> list[Generated]:
    """Greedy answers to B questions.

    The whole beginning is decoded anew for each token: answers have a few of them, and a cache of transformers would
    have to be one for encoder and decoder.

    Args:
        model: in eval mode.
        encoded: the questions.
        start: token that answers start from.
        end: token that ends an answer; not as the first one, an answer has words.
        forbidden: tokens that are never chosen; probabilities are those without the prohibition.
        max_tokens: at least 1, and less than the decoder's positions.
    """
    encoded = encoded if encoded.memory is not None else model.precompute_cross_attention_kv(encoded)
    device = model.device
    tokens = torch.full((len(encoded), 1), start, device=device)
    total = torch.zeros(len(encoded), dtype=torch.float64)
    ended = torch.zeros(len(encoded), dtype=torch.bool, device=device)
    for length in range(max_tokens + 1):
        scores = log_probs(next_token_logits(model, tokens, encoded))
        barred = [*forbidden, end] if length == 0 else list(forbidden)
        likeliest = scores.index_fill(1, torch.tensor(barred, dtype=torch.int64, device=device), -torch.inf)
        chosen = likeliest.argmax(dim=1)
        counted = ~ended if length < max_tokens else ~ended & (chosen == end)
        total += torch.where(counted, scores.gather(1, chosen[:, None])[:, 0], 0.0).cpu().double()
        chosen = chosen.masked_fill(ended, end)
        ended |= chosen == end
        tokens = torch.cat([tokens, chosen[:, None]], dim=1)
        if ended.all():
            break
    return [
        Generated(tuple(takewhile(lambda token: token != end, row[:max_tokens])), likelihood, not whole)
        for row, likelihood, whole in zip(tokens[:, 1:].tolist(), total.tolist(), ended.tolist(), strict=True)
    ]
