"""Hard negatives: for each item one of the others, drawn where the student itself confuses them."""

import torch
from torch import Tensor

from training.errors import ConfigError, ShapeError
from training.med_vqa.pretrain.objectives.soft_labels import check_offset


@torch.no_grad()
def hard_negatives(
    similarity: Tensor,
    targets: Tensor,
    offset: int,
    generator: torch.Generator,
    match_share: float = 0.5,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One negative column for each row, with probability softmax(similarity) over the columns that may be one.

    A column may be a negative unless it is the positive, the soft labels call it a match (P_ij ≥ share·P_ii), it is
    masked, or its similarity is not a finite number. Drawn as argmax(similarity − ln E), E exponential noise (the
    Gumbel-max trick): exact for logits of any size and sign, and the same on every machine.

    Call it with image→text similarities for a negative text of each image, and with text→image ones for a negative
    image of each text. Columns may be everybody's, or this process's own (offset 0) where only their tokens are here.

    Args:
        similarity: the student's **logits** cos/τ, float ``[B_local, B_global]``; no gradient goes through them.
        targets: P of the same direction, same shape; the identity where there are no soft labels.
        offset: column of row 0's positive, = rank · B_local.
        generator: drawn from for all B_global rows, so that processes with equally seeded generators together draw
            what one process draws for the whole batch.
        match_share: share > 0 of the positive's probability from which on a column counts as a match.
        mask: pairs that are neither positives nor fair negatives (one case), bool, same shape.

    Returns:
        Columns, int64 ``[B_local]``, and whether there is one, bool ``[B_local]``: a row without any column left has
        False (and column 0, which means nothing) and is to be skipped.

    Raises:
        ShapeError: the parts do not fit each other.
        ConfigError: ``match_share`` is not above 0.

    Source: AMiF draws from the student's similarity (C); a proper distribution, and no matches in it, is ours
    (methods.md §2.3).
    """
    if not match_share > 0.0:
        raise ConfigError(f"loss.match_share: {match_share} must be above 0")
    check_offset(similarity, offset)
    for name, other in (("targets", targets), ("mask", mask)):
        if other is not None and other.shape != similarity.shape:
            raise ShapeError(f"{name} of {list(other.shape)} for similarities of {list(similarity.shape)}")
    rows, columns = similarity.shape
    positive = targets.diagonal(offset)[:, None]  # (B_local, 1)
    allowed = (targets < match_share * positive) & torch.isfinite(similarity)
    allowed.diagonal(offset).fill_(False)
    if mask is not None:
        allowed &= ~mask
    noise = torch.empty(columns, columns, device=generator.device).exponential_(generator=generator)
    noise = noise[offset : offset + rows].to(similarity.device).log_()
    scores = (similarity.float() - noise).masked_fill_(~allowed, -torch.inf)
    has = allowed.any(dim=1)
    return torch.where(has, scores.argmax(dim=1), 0), has
