"""A contrastive loss computed on a few rows of logits at a time, for batches whose B×B matrices would not fit.

Row i of the logits needs image i and all texts (text i and all images), and row i of the targets the similarities of
image i to all others: nothing else. So the batch is cut into ranges of rows, and each goes from features to gradient
before the next begins::

    z = scale·I[a:b]·T_allᵀ + bias      and the same of T[a:b] and I_all, [R, B_global]
    L_R, ∂L_R/∂z                        by the loss and torch's autograd, on R rows
    ∂L/∂I[a:b] += scale·(∂L_R/∂z)·T_all,   ∂L/∂T_all += (∂L_R/∂z)ᵀ·scale·I[a:b]

L is the mean of L_R over rows, as a batch's loss is the mean over processes. These are the six B×B×D products of the
loss in one piece and none is repeated: what is kept between forward and backward pass is the gradient of the features,
[B, D], and not the logits. Memory is that of R rows; passes over logits and targets stay in the cache of a CPU.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kg_targets.errors import ShapeError

LossOfRows = Callable[[Tensor, Tensor, int, int], Tensor]
"""Logits of image→text and of text→image, ``[R, B_global]``, and the local rows start, stop that they are, to the loss
averaged over these R rows, a scalar."""
_ELEMENTS = {"cpu": 1 << 20}
_ELEMENTS_ON_GPU = 1 << 22
"""Logits of one direction that are computed at once: 4 MB on a CPU (its cache), 16 MB on a GPU."""
_FEWEST = {"cpu": 64}
_FEWEST_ON_GPU = 512
"""Rows below which a matrix product is no longer efficient; they win over the limit above."""


def rows_at_once(columns: int, device: torch.device) -> int:
    """Rows of logits that ``chunked_loss`` computes together.

    Args:
        columns: B_global.
        device: where they are computed.
    """
    elements = _ELEMENTS.get(device.type, _ELEMENTS_ON_GPU)
    return max(_FEWEST.get(device.type, _FEWEST_ON_GPU), elements // columns)


def chunked_loss(
    image: Tensor,
    text: Tensor,
    loss_of_rows: LossOfRows,
    *,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    all_image: Tensor | None = None,
    all_text: Tensor | None = None,
) -> Tensor:
    """Mean of ``loss_of_rows`` over all rows of the batch, with its exact gradient.

    Everything is computed in float32, under autocast too (in float64 if the features are).

    Args:
        image: unit features of this process, ``[B_local, D]``.
        text: likewise.
        loss_of_rows: called once for each range of rows, in order; targets that it makes get no gradient.
        scale: exp(logit_scale), a scalar; None: logits are cosines.
        bias: added to the logits, a scalar.
        all_image: ``[B_global, D]`` from ``gather_features``; ``image`` if left out.
        all_text: likewise.

    Returns:
        Scalar. Its gradient reaches the features, the scale and the bias; it cannot be differentiated twice.

    Raises:
        ShapeError: features do not fit together.
    """
    all_image, all_text = image if all_image is None else all_image, text if all_text is None else all_text
    if image.shape != text.shape or all_image.shape != all_text.shape or image.dim() != 2:
        shapes = ", ".join(str(list(one.shape)) for one in (image, text, all_image, all_text))
        raise ShapeError(f"expected two [B_local, D] and two [B_global, D] tensors, got {shapes}")
    with torch.autocast(device_type=image.device.type, enabled=False):
        wide = torch.promote_types(image.dtype, torch.float32)
        one = torch.ones((), dtype=wide, device=image.device) if scale is None else scale.to(wide)
        features = [each.to(wide) for each in (image, text, all_image, all_text)]
        loss: Tensor = _Chunked.apply(loss_of_rows, one, None if bias is None else bias.to(wide), *features)
    return loss


class _Chunked(torch.autograd.Function):
    """Forward computes the gradients too, while each range of rows is at hand; backward hands them out."""

    @staticmethod
    def forward(
        ctx: Any, loss_of_rows: LossOfRows, scale: Tensor, bias: Tensor | None, *features: Tensor
    ) -> Tensor:
        image, text, all_image, all_text = features
        learning = any(ctx.needs_input_grad)
        of_image, of_text, of_all_image, of_all_text = found = [torch.zeros_like(one) for one in features]
        of_scale, of_bias = torch.zeros_like(scale), None if bias is None else torch.zeros_like(bias)
        total = torch.zeros_like(scale)
        width = rows_at_once(len(all_image), image.device)
        for start in range(0, len(image), width):
            stop = min(start + width, len(image))
            sides = (
                (image[start:stop], all_text, of_image[start:stop], of_all_text),
                (text[start:stop], all_image, of_text[start:stop], of_all_image),
            )
            logits = [(scale * rows) @ columns.T for rows, columns, *_ in sides]  # B·D products, not B·B
            if bias is not None:
                logits = [z.add_(bias) for z in logits]
            with torch.set_grad_enabled(learning):
                for z in logits:
                    z.requires_grad_(learning)
                loss = loss_of_rows(logits[0], logits[1], start, stop) * ((stop - start) / len(image))
            total += loss.detach()
            if not learning:
                continue
            # A pairwise loss looks at one direction only.
            gradients = torch.autograd.grad(loss, logits, allow_unused=True)
            for of_logits, (rows, columns, of_rows, of_columns) in zip(gradients, sides, strict=True):
                if of_logits is None:
                    continue
                of_scaled = of_logits @ columns
                torch.mul(of_scaled, scale, out=of_rows)
                of_columns.addmm_(of_logits.T, scale * rows)
                of_scale += (of_scaled * rows).sum()
                if of_bias is not None:
                    of_bias += of_logits.sum()
        ctx.found = of_scale, of_bias, *found
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(None if one is None else upstream[0] * one for one in ctx.found)
