"""The contrastive terms of both stages: one function, called once for each direction.

| term | rows and columns               | positive of an item                           | τ, default | mark            |
|------|--------------------------------|-----------------------------------------------|------------|-----------------|
| ITC  | images × texts, texts × images | its own text, its own image                   | τ₁ 0.07    | S               |
| IMV  | views × other views, both ways | its own other view                            | τ₂ 0.07    | S               |
| TT   | texts × texts encoded again    | itself under another dropout, or another text | τ₃ 0.07    | S; positives: R |

The supplement names L_TT and τ₃, not what a text's positive is. Ours (R): the same text through the encoder a second
time, with other dropout (Gao et al. 2021), or a second text of the same item where the data has one. With the very
same features on both sides the positive's cosine is the constant 1, and only the soft labels' other columns teach.

L = mean_i KL(P_i ‖ Q_i), Q_i = softmax(Â_i·B̂ᵀ/τ), P of `soft_labels` (C). P does not depend on the model, so its
gradient is the cross-entropy's; P being the identity, its value is that, too: CLIP's loss.

**Several processes**: rows are this process's, columns everybody's, from `training.nb_clip.gather.gather_features`,
which keeps their gradient. Each process takes the mean over its own rows, all have the same number of them, and DDP
averages gradients: that is the gradient of the whole batch.
"""

import torch
from torch import Tensor

from training.errors import ShapeError
from training.med_vqa.pretrain.objectives.soft_labels import check_offset
from training.nb_clip.losses import kl_to_targets


def soft_contrastive_loss(
    features: Tensor,
    others_global: Tensor,
    targets: Tensor,
    temperature: float | Tensor,
    offset: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean over this process's rows of KL(P ‖ softmax(Â·B̂ᵀ/τ)), in float32 whatever the features' precision.

    Args:
        features: Â, this process's, unit length, ``[B_local, D]``.
        others_global: B̂, everybody's in rank order, unit length, ``[B_global, D]``.
        targets: P, ``[B_local, B_global]``; rows sum to 1, nothing on masked pairs.
        temperature: τ > 0, units of cosine; a tensor where it is learnt.
        offset: column of row 0's positive, = rank · B_local.
        mask: pairs that neither Q nor P counts (two items of one case), bool, same shape as P; never a positive.

    Returns:
        Scalar float32, nats; 0 for a batch of one item.

    Raises:
        ShapeError: the parts do not fit each other.
    """
    if features.shape[1:] != others_global.shape[1:]:
        raise ShapeError(
            f"features of {list(features.shape)} cannot be compared with {list(others_global.shape)}"
        )
    check_offset(targets, offset)
    with torch.autocast(features.device.type, enabled=False):
        logits = (features.float() / temperature) @ others_global.float().T  # (B_local, B_global)
        return kl_to_targets(logits, targets, mask=mask)
