"""The losses of pre-training but for optimal transport (model/transport.py): contrastive terms, and matching.

**Contrastive terms** of both stages: one function, called once for each direction.

| term | rows and columns               | positive of an item                           | τ, default | mark            |
|------|--------------------------------|-----------------------------------------------|------------|-----------------|
| ITC  | images × texts, texts × images | its own text, its own image                   | τ₁ 0.07    | S               |
| IMV  | views × other views, both ways | its own other view                            | τ₂ 0.07    | S               |
| TT   | texts × texts encoded again    | itself under another dropout, or another text | τ₃ 0.07    | S; positives: R |

The supplement names L_TT and τ₃, not what a text's positive is. Ours (R): the same text through the encoder a second
time, with other dropout (Gao et al. 2021), or a second text of the same item where the data has one. With the very
same features on both sides the positive's cosine is the constant 1, and only the soft labels' other columns teach.

L = mean_i KL(P_i ‖ Q_i), Q_i = softmax(Â_i·B̂ᵀ/τ), P of `soft_labels.py` (C). P does not depend on the model, so its
gradient is the cross-entropy's; P being the identity, its value is that, too: CLIP's loss.

**Several processes**: rows are this process's, columns all ranks', from `gather_features` of kg_targets.losses,
which keeps their gradient. Each process takes the mean over its own rows, all have the same number of them, and DDP
averages gradients: that is the gradient of the whole batch.

**Image-text matching** of stage two: does this text belong to this image? Positives, and mined negatives in both
directions.

L_ITM = −(1/R) Σ_r log softmax(W·[CLS_text; CLS_image]_r)_{label r}         (S; C: on the concatenated CLS tokens)

Rows of a batch of B items: B true pairs, then for each text a negative image, then for each image a negative text,
R ≤ 3·B. `MatchingPairs` holds indices only: tokens **and mask** of a row's text are taken by one index, so that a
negative text brings its own mask.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kg_targets.losses.contrastive import kl_to_targets
from training.errors import ConfigError, ShapeError
from training.med_vqa.pretrain.soft_labels import check_offset


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
        others_global: B̂, all ranks' in rank order, unit length, ``[B_global, D]``.
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
    image of each text. Columns may be all ranks', or this process's own (offset 0) where only their tokens are here.

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
    noise = noise[offset : offset + rows].to(similarity.device, non_blocking=True).log_()
    scores = (similarity.float() - noise).masked_fill_(~allowed, -torch.inf)
    has = allowed.any(dim=1)
    return torch.where(has, scores.argmax(dim=1), 0), has


@dataclass(frozen=True)
class MatchingPairs:
    """Pairs of an image and a text, by their places in the batch; int64 ``[R]`` each."""

    images: Tensor
    texts: Tensor
    labels: Tensor
    """1 = they belong together, 0 = they do not."""
    true: int
    """How many belong together; they stand first."""


def matching_pairs(
    negative_images: tuple[Tensor, Tensor],
    negative_texts: tuple[Tensor, Tensor],
    offset: int = 0,
    usable: Tensor | None = None,
) -> MatchingPairs:
    """[positives; negative images; negative texts] of this process's items.

    Args:
        negative_images: of `hard_negatives`, text→image: for each text an image, int64 ``[B_local]``, and whether
            it has one, bool ``[B_local]``.
        negative_texts: of `hard_negatives`, image→text: for each image a text, likewise.
        offset: place of this process's first item among those that the indices count.
        usable: False at texts without a token, bool ``[B_global]``: every row with such a text is left out, since there
            is nothing to match. None: all are usable.

    Returns:
        R ≤ 3·B_local rows; items without a negative are only in the positives.

    Raises:
        ShapeError: the two directions differ in length.
    """
    (image, has_image), (text, has_text) = negative_images, negative_texts
    if not image.shape == has_image.shape == text.shape == has_text.shape:
        shapes = ", ".join(str(list(part.shape)) for part in (image, has_image, text, has_text))
        raise ShapeError(f"negatives of {shapes}: all of them must be [B_local]")
    own = torch.arange(offset, offset + len(image), device=image.device)
    images, texts = torch.cat([own, image, own]), torch.cat([own, own, text])
    labels = torch.cat([torch.ones_like(own), torch.zeros_like(own), torch.zeros_like(own)])
    kept = torch.cat([torch.ones_like(has_image), has_image, has_text])
    if usable is not None:
        kept = kept & usable[texts]
    on_host = kept.cpu()  # read once: the host has to know how many there are
    rows = on_host.nonzero()[:, 0].to(kept.device, non_blocking=True)
    return MatchingPairs(images[rows], texts[rows], labels[rows], int(on_host[: len(own)].sum()))


def matching_loss(logits: Tensor, labels: Tensor, divisor: float | Tensor | None = None) -> Tensor:
    """Cross-entropy over the two classes, in float32, of the logits as they are: clamped ones would have no gradient.

    Args:
        logits: ``[R, 2]``; column 1 = they belong together.
        labels: int64 ``[R]``, 0 or 1.
        divisor: what the sum over rows is divided by; None: by R. Where R differs between processes, give its mean
            over them, and DDP's mean is that of the whole batch.

    Returns:
        Scalar float32, nats; 0, with gradients of 0, without any row.

    Raises:
        ShapeError: logits are not ``[R, 2]`` for R labels.
    """
    if logits.shape != (len(labels), 2):
        raise ShapeError(f"logits of {list(logits.shape)} for {len(labels)} labels: expected [R, 2]")
    total = F.cross_entropy(logits.float(), labels, reduction="sum")
    return total / (max(len(labels), 1) if divisor is None else divisor)
