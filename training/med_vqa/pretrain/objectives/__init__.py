"""Objectives of AMiF's pre-training as pure functions (methods.md §2.2, §2.3; docs/med_vqa_objectives.md)."""

from training.med_vqa.model.transport import inner_tokens, ipot_plan, transport_loss
from training.med_vqa.pretrain.objectives.contrastive import soft_contrastive_loss
from training.med_vqa.pretrain.objectives.matching import (
    MatchingPairs,
    matching_inputs,
    matching_loss,
    matching_pairs,
)
from training.med_vqa.pretrain.objectives.mining import hard_negatives
from training.med_vqa.pretrain.objectives.soft_labels import SPACES, blend, hard_targets, teacher_targets

__all__ = [
    "SPACES",
    "MatchingPairs",
    "blend",
    "hard_negatives",
    "hard_targets",
    "inner_tokens",
    "ipot_plan",
    "matching_inputs",
    "matching_loss",
    "matching_pairs",
    "soft_contrastive_loss",
    "teacher_targets",
    "transport_loss",
]
