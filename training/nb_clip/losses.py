"""Contrastive losses as pure functions of logits z and targets P (methods.md §1.4).

| name                | loss                                                              | source        |
|---------------------|-------------------------------------------------------------------|---------------|
| `semantic_matching` | ½ mean_i[−Σ_j P^i2t_ij log σ(z^i2t)_ij] + ½ the same for text→image | NB-CLIP, SM   |
| `info_nce`          | the same with P = identity                                        | CLIP baseline |

σ is the softmax over a row. All logits and targets are ``[B_local, B_global]``: a process scores its own
images (texts) against everybody's texts (images), and its row i's positive stands in column ``offset + i``.

A **mask** (bool, same shape, True = excluded) removes pairs that are neither positives nor fair negatives,
such as two images of one case. A masked pair is counted by nobody: it leaves the softmax and gets no target.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.errors import ShapeError

# Finite on purpose: −inf turns a wholly masked row into NaN, while exp(−1e30 − max) is exactly 0 in float32.
_MASKED_LOGIT = -1e30


def semantic_matching_loss(
    logits_i2t: Tensor,
    logits_t2i: Tensor,
    targets_i2t: Tensor,
    targets_t2i: Tensor,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Symmetric soft-target cross-entropy, the SM loss of NB-CLIP.

    L = ½·mean_i[−Σ_j P^i2t_ij log softmax_j z^i2t_ij] + ½·mean_i[−Σ_j P^t2i_ij log softmax_j z^t2i_ij]

    Args:
        logits_i2t: exp(logit_scale)·Î_local·T̂_globalᵀ, ``[B_local, B_global]``.
        logits_t2i: exp(logit_scale)·T̂_local·Î_globalᵀ, same shape.
        targets_i2t: P^i2t, same shape; rows sum to 1, nothing on masked pairs.
        targets_t2i: P^t2i, the policy applied to Sᵀ (not the transpose of P^i2t), same shape.
        mask: excluded pairs, bool, same shape.

    Returns:
        Scalar float32, nats.

    Raises:
        ShapeError: shapes differ.
    """
    image_to_text = _cross_entropy(logits_i2t, targets_i2t, mask).mean()
    text_to_image = _cross_entropy(logits_t2i, targets_t2i, mask).mean()
    return 0.5 * (image_to_text + text_to_image)


def info_nce_loss(
    logits_i2t: Tensor, logits_t2i: Tensor, offset: int = 0, *, mask: Tensor | None = None
) -> Tensor:
    """CLIP's loss: the softmax cross-entropy of the true pair, averaged over both directions.

    Args:
        logits_i2t: exp(logit_scale)·Î_local·T̂_globalᵀ, ``[B_local, B_global]``.
        logits_t2i: exp(logit_scale)·T̂_local·Î_globalᵀ, same shape.
        offset: column of row 0's positive, = rank · B_local.
        mask: excluded pairs, bool, same shape; never a positive.

    Returns:
        Scalar float32, nats.

    Raises:
        ShapeError: shapes differ, or the positives' columns lie outside the logits.
    """
    _check_shapes(logits_i2t, logits_t2i)
    rows, columns = logits_i2t.shape
    if offset < 0 or offset + rows > columns:
        raise ShapeError(f"offset {offset} + {rows} rows does not fit into {columns} columns of logits")
    labels = torch.arange(offset, offset + rows, device=logits_i2t.device)
    image_to_text = torch.nn.functional.cross_entropy(_masked(logits_i2t, mask), labels)
    text_to_image = torch.nn.functional.cross_entropy(_masked(logits_t2i, mask), labels)
    return 0.5 * (image_to_text + text_to_image)


def kl_to_targets(logits: Tensor, targets: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """KL(P ‖ softmax(z)), averaged over rows: how far the model still is, whatever the targets' own entropy.

    Args:
        logits: z, ``[B_local, B_global]``; already scaled by exp(logit_scale).
        targets: P, same shape; rows sum to 1.
        mask: excluded pairs, bool, same shape.

    Returns:
        Scalar float32, nats.

    Raises:
        ShapeError: shapes differ.
    """
    return (_cross_entropy(logits, targets, mask) - target_entropy(targets)).mean()


def target_entropy(targets: Tensor) -> Tensor:
    """H(P_i) = −Σ_j P_ij ln P_ij of each row, float32 ``[B_local]``, nats; its exp counts effective positives."""
    entropy: Tensor = torch.special.entr(targets.float()).sum(dim=-1)
    return entropy


def _cross_entropy(logits: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    """−Σ_j P_ij log softmax_j z_ij for each row, ``[B_local]``."""
    _check_shapes(logits, targets)
    log_probability = torch.log_softmax(_masked(logits, mask), dim=-1)  # [B_local, B_global]
    if mask is not None:
        log_probability = log_probability.masked_fill(mask, 0.0)
    # Half the time of F.cross_entropy with probability targets at B = 4,096.
    return -(targets.float() * log_probability).sum(dim=-1)


def _masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return logits.float()
    _check_shapes(logits, mask)
    return logits.float().masked_fill(mask, _MASKED_LOGIT)


def _check_shapes(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.dim() != 2:
        raise ShapeError(
            f"expected two [B_local, B_global] tensors, got {list(first.shape)}, {list(second.shape)}"
        )


@dataclass(frozen=True)
class ContrastiveBatch:
    """What every contrastive loss may look at; tensors are ``[B_local, B_global]``."""

    logits_i2t: Tensor
    logits_t2i: Tensor
    targets_i2t: Tensor
    targets_t2i: Tensor
    offset: int
    mask: Tensor | None


@dataclass(frozen=True)
class Loss:
    """A member of the family: the function, and whether it needs a policy's soft targets or just pairs."""

    compute: Callable[[ContrastiveBatch], Tensor]
    soft: bool


LOSSES: dict[str, Loss] = {
    "semantic_matching": Loss(
        lambda b: semantic_matching_loss(
            b.logits_i2t, b.logits_t2i, b.targets_i2t, b.targets_t2i, mask=b.mask
        ),
        soft=True,
    ),
    "info_nce": Loss(lambda b: info_nce_loss(b.logits_i2t, b.logits_t2i, b.offset, mask=b.mask), soft=False),
}
