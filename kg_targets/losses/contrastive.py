"""Contrastive losses as pure functions of logits z and targets P (methods.md §1.4).

| name                | loss                                                              | source        |
|---------------------|-------------------------------------------------------------------|---------------|
| `semantic_matching` | ½ mean_i[−Σ_j P^i2t_ij log σ(z^i2t)_ij] + ½ the same for text→image | NB-CLIP, SM   |
| `info_nce`          | the same with P = identity                                        | CLIP baseline |
| `mse`               | Σ_ij (cos_ij − S_ij)² / B²                                        | NB-CLIP, MSE  |
| `sigmoid`           | Σ_ij BCE(scale·cos_ij + bias, clamp(S_ij, 0, 1)) / B              | NB-CLIP, Sigmoid |

σ is the softmax over a row. The first two compare distributions over a row, the last two single pairs with the
graded similarity S; those see each (image i, text j) once, so they need the image→text block only.

All logits and targets are ``[B_local, B_global]``: a process scores its own images (texts) against all ranks'
texts (images), and its row i's positive stands in column ``offset + i``.

A **mask** (bool, same shape, True = excluded) removes pairs that are neither positives nor fair negatives,
such as two images of one case. A masked pair is counted by nobody: it leaves the softmax or the sum and gets no
target.

**Several processes**: DDP averages gradients over ranks, so each loss is a sum over local rows divided by a number
that is the same on every rank (B_local, or B_local·B_global; never the count of unmasked pairs, which differs from
rank to rank). The average over ranks is then the loss of the whole batch, exactly.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, distributed

from kg_targets.errors import ShapeError
from kg_targets.losses.policies import check_finite

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
        DataError: targets or similarities are not finite (CPU).
        ShapeError: shapes differ.
    """
    _check_shapes(logits_i2t, logits_t2i)
    penalty = _penalty(logits_i2t, mask)
    image_to_text = _cross_entropy(logits_i2t, targets_i2t, penalty).mean()
    text_to_image = _cross_entropy(logits_t2i, targets_t2i, penalty).mean()
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
    penalty = _penalty(logits_i2t, mask)
    image_to_text = torch.nn.functional.cross_entropy(_masked(logits_i2t, penalty), labels)
    text_to_image = torch.nn.functional.cross_entropy(_masked(logits_t2i, penalty), labels)
    return 0.5 * (image_to_text + text_to_image)


def mse_loss(cosines: Tensor, similarities: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Squared error between the model's cosines and the graded similarities, the MSE loss of NB-CLIP.

    L = Σ_ij (cos_ij − S_ij)² / (B_local·B_global), which is the mean over B² where nothing is masked. A masked pair
    adds 0 and stays in the divisor, so that the other pairs weigh the same whoever shares their batch.

    Args:
        cosines: Î_local·T̂_globalᵀ, **not** scaled by exp(logit_scale), ``[B_local, B_global]``.
        similarities: S[images_local, texts_global], same shape; 1 at the true pair.
        mask: excluded pairs, bool, same shape.

    Returns:
        Scalar float32.

    Raises:
        DataError: targets or similarities are not finite (CPU).
        ShapeError: shapes differ.
    """
    _check_shapes(cosines, similarities)
    check_finite(similarities, "similarities")
    squared = (cosines.float() - similarities.float()).square()
    return _unmasked_sum(squared, mask) / cosines.numel()


def sigmoid_loss(logits: Tensor, similarities: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of every pair against its graded similarity, the Sigmoid loss of NB-CLIP.

    L = Σ_ij −[t_ij ln σ(z_ij) + (1 − t_ij) ln(1 − σ(z_ij))] / B_local, t = clamp(S, 0, 1), σ the logistic function;
    with t = identity it is SigLIP's loss (Zhai et al. 2023, Eq. 1 without its ±1 notation).

    Args:
        logits: z = exp(logit_scale)·Î_local·T̂_globalᵀ + logit_bias, ``[B_local, B_global]``.
        similarities: S[images_local, texts_global], same shape; 1 at the true pair.
        mask: excluded pairs, bool, same shape.

    Returns:
        Scalar float32, nats per image.

    Raises:
        DataError: targets or similarities are not finite (CPU).
        ShapeError: shapes differ.
    """
    _check_shapes(logits, similarities)
    check_finite(similarities, "similarities")
    logits = logits.float()
    # softplus(z) − t·z is F.binary_cross_entropy_with_logits, which computes (1 − t)·z + softplus(−z) instead: that
    # cancels at z ≪ 0, where a bias of −10 puts nearly every pair, and loses three digits.
    pairwise = torch.nn.functional.softplus(logits) - similarities.float().clamp(0.0, 1.0) * logits
    return _unmasked_sum(pairwise, mask) / len(logits)


def kl_to_targets(logits: Tensor, targets: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """KL(P ‖ softmax(z)), averaged over rows: how far the model still is, whatever the targets' own entropy.

    Args:
        logits: z, ``[B_local, B_global]``; already scaled by exp(logit_scale).
        targets: P, same shape; rows sum to 1.
        mask: excluded pairs, bool, same shape.

    Returns:
        Scalar float32, nats.

    Raises:
        DataError: targets or similarities are not finite (CPU).
        ShapeError: shapes differ.
    """
    return (_cross_entropy(logits, targets, _penalty(logits, mask)) - target_entropy(targets)).mean()


def target_entropy(targets: Tensor) -> Tensor:
    """H(P_i) = −Σ_j P_ij ln P_ij of each row, float32 ``[B_local]``, nats; its exp counts effective positives."""
    entropy: Tensor = torch.special.entr(targets.float()).sum(dim=-1)
    return entropy


def _cross_entropy(logits: Tensor, targets: Tensor, penalty: Tensor | None) -> Tensor:
    """−Σ_j P_ij log softmax_j z_ij for each row, ``[B_local]``."""
    _check_shapes(logits, targets)
    check_finite(targets, "targets")
    log_probability = torch.log_softmax(_masked(logits, penalty), dim=-1)  # [B_local, B_global]
    # Half the time of F.cross_entropy with probability targets at B = 4,096.
    return -(targets.float() * log_probability).sum(dim=-1)


def _penalty(logits: Tensor, mask: Tensor | None) -> Tensor | None:
    """What masked logits are given to bear: added, which a CPU does in a quarter of the time of a fill."""
    if mask is None:
        return None
    _check_mask(logits, mask)
    return mask * _MASKED_LOGIT


def _masked(logits: Tensor, penalty: Tensor | None) -> Tensor:
    return logits.float() if penalty is None else logits.float() + penalty


def _unmasked_sum(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.sum()
    _check_mask(values, mask)
    return values.masked_fill(mask, 0.0).sum()


def _check_shapes(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.dim() != 2:
        raise ShapeError(
            f"expected two [B_local, B_global] tensors, got {list(first.shape)}, {list(second.shape)}"
        )


def _check_mask(values: Tensor, mask: Tensor) -> None:
    _check_shapes(values, mask)
    if mask.dtype != torch.bool:
        raise ShapeError(f"a mask must be bool, True where a pair is left out; got {mask.dtype}")


@dataclass(frozen=True)
class ContrastiveBatch:
    """Inputs of every contrastive loss; tensors are ``[B_local, B_global]``."""

    logits_i2t: Tensor
    """z of images_local × texts_global, as the loss asks for it: scale·cos, with a bias, or plain cos."""
    logits_t2i: Tensor
    """The same of texts_local × images_global."""
    targets_i2t: Tensor
    """Targets of the kind that ``Loss.targets`` names: a distribution over each row, or a similarity for each pair."""
    targets_t2i: Tensor
    offset: int
    mask: Tensor | None

    def arguments(self, targets: Literal["pairs", "policy", "similarity"]) -> tuple[Any, ...]:
        """Positional arguments of a loss with these ``Loss.targets``."""
        if targets == "pairs":
            return self.logits_i2t, self.logits_t2i, self.offset
        if targets == "similarity":
            return self.logits_i2t, self.targets_i2t
        return self.logits_i2t, self.logits_t2i, self.targets_i2t, self.targets_t2i


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


# ``accelerator.gather`` loses the gradient silently. open_clip's ``gather_features`` keeps it, by a torch function that
# torch 2.15 calls deprecated; this is the same with one exchange for images and texts together.
def gather_features(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """All ranks' features in rank order; every process has to call it, and to go backward through it.

    A process's features matter to the losses of all processes: their gradient is the sum of what each of them found.

    Args:
        image: this process's, ``[B_local, D]``; B_local and D are the same on every process.
        text: likewise, of the same shape and dtype.

    Returns:
        Images and texts, ``[B_global, D]``.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return image, text
    both: Tensor = _Gather.apply(torch.cat([image, text], dim=1))
    return both[:, : image.shape[1]], both[:, image.shape[1] :]


def gather_rows(rows: Tensor, share: int, device: torch.device | None = None) -> Tensor:
    """Store rows of all processes in rank order; every process has to call it.

    Args:
        rows: store rows of this process's share of the batch, int64 ``[B_local]``.
        share: B_local, the same on every process.
        device: of this process, where its backend exchanges tensors; the CPU if omitted.

    Returns:
        int64 ``[B_global]``, on the CPU.

    Raises:
        ShapeError: on all processes, if one of them has another number of rows.
    """
    # The count travels with the rows: a gather of unequal shapes may hang or mix up rows instead of failing.
    message = torch.full((1, share + 1), -1, dtype=torch.int64)
    message[0, 0] = len(rows)
    message[0, 1 : 1 + len(rows)] = rows[:share].cpu()
    parts = [message]
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        message = message.to(device)
        parts = [torch.empty_like(message) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, message)
    gathered = torch.cat(parts).cpu()
    counts = gathered[:, 0].tolist()
    if counts != [share] * len(parts):
        raise ShapeError(
            f"the processes hold {', '.join(map(str, counts))} images of this batch, not {share} each: the global "
            "batch must divide evenly"
        )
    return gathered[:, 1:].reshape(-1)


class _Gather(torch.autograd.Function):
    """Concatenation over processes; backward, the sum over processes of the gradients of this one's part."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.rows = len(features)
        parts = [torch.empty_like(features) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, features.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        # Reduce-scatter would send half as much, but the gloo of older torch has none.
        distributed.all_reduce(gradient)
        start = ctx.rows * distributed.get_rank()
        return gradient[start : start + ctx.rows]
