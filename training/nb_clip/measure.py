"""What a log line tells about a batch: how far the model is from its targets, and how soft those are."""

import torch
from torch import Tensor

from training.nb_clip.losses import ContrastiveBatch, kl_to_targets, target_entropy


@torch.no_grad()
def measure(batch: ContrastiveBatch, *, distributions: bool = True) -> dict[str, Tensor]:
    """KL to the targets, mean diagonal mass, effective positives exp(H) and entropy H, over both directions.

    It costs about as much as the loss itself, so a loop asks for it only where it logs.

    Args:
        batch: logits and targets of a step.
        distributions: False where targets are similarities; they are then read as clamp(S, 0, 1) over its row sum.

    Returns:
        Scalars kl, entropy (nats), diagonal (probability) and positives (a number of images).
    """
    kl, diagonal, positives, entropy = [], [], [], []
    for logits, targets in ((batch.logits_i2t, batch.targets_i2t), (batch.logits_t2i, batch.targets_t2i)):
        if not distributions:
            graded = targets.clamp(0.0, 1.0)
            targets = graded / graded.sum(dim=-1, keepdim=True)  # the positive's 1 keeps the sum above 0
        spread = target_entropy(targets)
        kl.append(kl_to_targets(logits, targets, mask=batch.mask))
        diagonal.append(targets.diagonal(batch.offset).mean())
        positives.append(spread.exp().mean())
        entropy.append(spread.mean())
    return {
        "kl": torch.stack(kl).mean(),
        "diagonal": torch.stack(diagonal).mean(),
        "positives": torch.stack(positives).mean(),
        "entropy": torch.stack(entropy).mean(),
    }
