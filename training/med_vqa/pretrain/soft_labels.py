"""Soft labels P of a batch's rows by a frozen teacher, by the knowledge graph, or by both.

| source          | row i of P                                              | mark              |
|-----------------|---------------------------------------------------------|-------------------|
| none            | 1 at the positive                                       | S, CLIP's own     |
| a model teacher | softmax(s·A_i·Bᵀ + λ·e_i): `teacher_targets`            | S, Eq. 5; C       |
| the graph       | a policy of `kg_targets.losses` over the store's S      | S, R              |
| several of them | Σ w·P / Σ w: `LabelBuilder`                             | R                 |

Every P is float32 ``[B_local, B_global]``, its rows sum to 1, and row i's positive stands in column ``offset + i``:
on the second of two processes of 32 items, column 32 belongs to row 0.
"""

import torch
from torch import Tensor

from training.checks import one_of
from training.errors import DataError, ShapeError
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
        if mask.shape != block.shape:
            raise ShapeError(f"a mask of {list(mask.shape)} does not fit a block of {list(block.shape)}")
        logits.masked_fill_(mask, -torch.inf)  # a row has its positive, so none is wholly −inf
    return torch.softmax(logits, dim=-1)


def check_offset(block: Tensor, offset: int) -> None:
    """Refuse a block that does not hold its rows' positives.

    Raises:
        ShapeError: it is not ``[B_local, B_global]`` with ``0 ≤ offset ≤ B_global − B_local``.
    """
    if block.dim() != 2 or offset < 0 or offset + block.shape[0] > block.shape[1]:
        raise ShapeError(f"positives at offset {offset} lie outside a block of {list(block.shape)}")
