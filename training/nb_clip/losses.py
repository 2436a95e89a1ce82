"""The older name of ``kg_targets.losses``' contrastive losses and their registry; it keeps working."""

from kg_targets.losses.contrastive import (
    ContrastiveBatch,
    info_nce_loss,
    kl_to_targets,
    mse_loss,
    semantic_matching_loss,
    sigmoid_loss,
    target_entropy,
)
from kg_targets.losses.registry import LOSSES, Loss

__all__ = [
    "LOSSES", "ContrastiveBatch", "Loss", "info_nce_loss", "kl_to_targets", "mse_loss", "semantic_matching_loss",
    "sigmoid_loss", "target_entropy",
]  # fmt: skip
