"""Image-text matching: does this text belong to this image? Positives, and mined negatives in both directions.

    L_ITM = −(1/R) Σ_r log softmax(W·[CLS_text; CLS_image]_r)_{label r}         (S; C: on the concatenated CLS tokens)

Rows of a batch of B items: B true pairs, then for each text a negative image, then for each image a negative text,
R ≤ 3·B. `MatchingPairs` holds indices only: `matching_inputs` takes tokens **and mask** of a row's text by one index,
so that a negative text brings its own mask.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.errors import ShapeError


@dataclass(frozen=True)
class MatchingPairs:
    """Which image meets which text, by their places in the batch; int64 ``[R]`` each."""

    images: Tensor
    texts: Tensor
    labels: Tensor
    """1 = they belong together, 0 = they do not."""


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
    return MatchingPairs(images[kept], texts[kept], labels[kept])


def matching_inputs(
    pairs: MatchingPairs, image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What co-attention takes for each row, the mask being that of the row's own text.

    Args:
        pairs: R rows.
        image_tokens: of the items that the pairs count, ``[B, N, d]``.
        text_tokens: likewise, ``[B, L, d]``.
        text_mask: likewise, bool ``[B, L]``, True = real.

    Returns:
        Image tokens ``[R, N, d]``, text tokens ``[R, L, d]``, text mask ``[R, L]``.
    """
    return image_tokens[pairs.images], text_tokens[pairs.texts], text_mask[pairs.texts]


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
