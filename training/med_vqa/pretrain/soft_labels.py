"""Soft labels: what a batch's rows should look like to a frozen teacher, to the knowledge graph, or to both.

| source          | row i of P                                              | mark              |
|-----------------|---------------------------------------------------------|-------------------|
| none            | 1 at the positive: `hard_targets`                       | S, CLIP's own     |
| a model teacher | softmax(s·A_i·Bᵀ + λ·e_i): `teacher_targets`            | S, Eq. 5; C       |
| the graph       | a policy of `kg_targets.losses` over the store's S      | S, R              |
| several of them | Σ w·P / Σ w: `blend`                                    | R                 |

Every P is float32 ``[B_local, B_global]``, its rows sum to 1, and row i's positive stands in column ``offset + i``:
on the second of two processes of 32 items, column 32 belongs to row 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.checks import one_of
from training.errors import ConfigError, DataError, ShapeError
from training.med_vqa.pretrain.config import SPACES


def teacher_targets(
    block: Tensor,
    offset: int,
    lam: float,
    scale: float = 1.0,
    space: str = "logit",
    mask: Tensor | None = None,
) -> Tensor:
    """P = softmax(block + λ·I) (``logit``), or softmax(block + s·λ·I) (``cosine``): λ added to the cosine itself.

    At s = 100 and λ = 0.01 the former multiplies the odds of the positive by e^0.01, the latter by e^1.

    Args:
        block: s·A_local·B_globalᵀ of the teacher's unit factors, float ``[B_local, B_global]``.
        offset: column of row 0's positive, = rank · B_local.
        lam: λ ≥ 0, what the positive's similarity is raised by.
        scale: s > 0, exp of the teacher's logit scale; only ``cosine`` looks at it.
        space: ``logit`` or ``cosine``.
        mask: pairs that get no target, bool, same shape; never a positive.

    Returns:
        P, float32, same shape.

    Raises:
        ShapeError: the positives' columns lie outside the block, or the mask has another shape.
        ConfigError: no such space.
        DataError: the block holds a value that is not a finite number.

    Source: AMiF supplement, Eq. 5; λ behind the scale is the authors' code's, ``cosine`` ours (methods.md §2.2).
    """
    one_of("loss.lambda_space", space, SPACES)
    check_offset(block, offset)
    if not bool(torch.isfinite(block).all()):
        row = int((~torch.isfinite(block)).any(dim=1).nonzero()[0])
        raise DataError(
            f"soft labels: the teacher's similarities of item {offset + row} of the batch are not finite numbers: "
            "build the teacher's store again"
        )
    logits = block.to(torch.float32, copy=True)
    logits.diagonal(offset).add_(lam * scale if space == "cosine" else lam)
    if mask is not None:
        _check_mask(block, mask)
        logits.masked_fill_(mask, -torch.inf)  # a row has its positive, so none is wholly −inf
    return torch.softmax(logits, dim=-1)


def hard_targets(
    rows: int,
    columns: int,
    offset: int,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
) -> Tensor:
    """The identity: no soft labels. With it every contrastive term is CLIP's cross-entropy.

    Args:
        rows: B_local.
        columns: B_global.
        offset: column of row 0's positive, = rank · B_local.
        device: where it is wanted.

    Returns:
        P, float32 ``[rows, columns]``.

    Raises:
        ShapeError: the positives' columns lie outside.
    """
    targets = torch.zeros(rows, columns, device=device)
    check_offset(targets, offset)
    targets.diagonal(offset).fill_(1.0)
    return targets


def blend(parts: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Σ w·P / Σ w of several sources (R); weight 0 leaves a source out.

    Args:
        parts: weight ≥ 0 and P ``[B_local, B_global]`` of each source.

    Returns:
        P, float32, same shape; rows of distributions still sum to 1.

    Raises:
        ConfigError: no source has a weight above 0, or one is negative or not a number.
        ShapeError: the sources differ in shape.
    """
    total = sum(weight for weight, _ in parts)
    if not total > 0.0 or any(weight < 0.0 for weight, _ in parts):
        weights = ", ".join(f"{weight:g}" for weight, _ in parts) or "none"
        raise ConfigError(f"soft_labels: weights must be at least 0 and one of them above 0, not {weights}")
    (_, first), *_ = parts
    mixed = torch.zeros_like(first, dtype=torch.float32)
    for weight, targets in parts:
        if targets.shape != first.shape:
            raise ShapeError(
                f"soft labels of {list(first.shape)} and of {list(targets.shape)} cannot be mixed"
            )
        mixed.add_(targets.float(), alpha=weight / total)
    return mixed


def check_offset(block: Tensor, offset: int) -> None:
    """Refuse a block that does not hold its rows' positives.

    Raises:
        ShapeError: it is not ``[B_local, B_global]`` with ``0 ≤ offset ≤ B_global − B_local``.
    """
    if block.dim() != 2 or offset < 0 or offset + block.shape[0] > block.shape[1]:
        raise ShapeError(f"positives at offset {offset} lie outside a block of {list(block.shape)}")


def _check_mask(block: Tensor, mask: Tensor) -> None:
    if mask.shape != block.shape:
        raise ShapeError(f"a mask of {list(mask.shape)} does not fit a block of {list(block.shape)}")
