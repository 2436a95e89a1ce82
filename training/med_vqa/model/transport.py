"""Optimal transport between a text's words and an image's places: L_OT, and the plan that pictures show.

    T* = argmin_T ⟨T, C⟩,  T ≥ 0,  T·1 = 1/n,  Tᵀ·1 = 1/m,        C_ij = 1 − cos(x_i, y_j)
    L_OT = mean over items ⟨T*, C⟩, T* taken as a constant

T* comes from the proximal point method IPOT (Xie, Wang, Wang & Zha 2020, Algorithm 1), the one that AMiF cites (**S**)
with β = 0.5, 50 outer and 1 inner steps (**C**):

    σ ← 1/n,  T ← 1,  G = exp(−C/β)
    outer times:  Q = G ∘ T;   inner times: δ = (1/m)/(Qᵀσ), σ = (1/n)/(Qδ);   T = diag(σ)·Q·diag(δ)

σ is updated last: T's sums over places are 1/n to float32's rounding, those over words approach 1/m with ``outer``.

How it is computed: T, Q and Q·diag(δ) are one buffer, changed in place, so that with C and G three of N × M are alive;
sums run along memory, where products with a column vector would be five times slower on a CPU. Costs are first reduced
by each place's least, and σ starts at 1: that changes σ and δ but no T, and keeps them in float32's range.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.errors import ConfigError, ShapeError

_LARGEST_EXPONENT = 60.0
"""Bound of G's exponent: float32 ends at e^−87, and G meets plans whose entries are as small as 1/(N·M)."""


@torch.no_grad()
def ipot_plan(
    cost: Tensor, x_mask: Tensor, y_mask: Tensor, beta: float = 0.5, outer: int = 50, inner: int = 1
) -> Tensor:
    """The transport plan of each item, by IPOT in float32, without gradient and under no autocast.

    Args:
        cost: C, float ``[B, N, M]``; padded places may hold anything.
        x_mask: bool ``[B, N]``, True = real.
        y_mask: bool ``[B, M]``, True = real.
        beta: β > 0, units of cost: the smaller, the fewer steps and the less even the plan on the way.
        outer: proximal steps, at least 1.
        inner: scaling steps in each of them, at least 1.

    Returns:
        T, float32 ``[B, N, M]``; exactly 0 at padded places, and everywhere in an item that has no real place on one
        of the two sides. Costs that are not numbers spoil the plan of their own item only.

    Raises:
        ShapeError: masks and costs do not fit.
        ConfigError: a parameter is out of range, or β too small for the costs.
    """
    if x_mask.shape != cost.shape[:2] or y_mask.shape != (cost.shape[0], *cost.shape[2:]):
        raise ShapeError(
            f"costs of {list(cost.shape)} with masks of {list(x_mask.shape)} and {list(y_mask.shape)}: "
            "expected [B, N, M], [B, N] and [B, M]"
        )
    if not beta > 0.0 or outer < 1 or inner < 1:
        raise ConfigError(f"beta {beta}, outer {outer}, inner {inner}: beta above 0, the others at least 1")
    if not cost.numel():
        return torch.zeros_like(cost, dtype=torch.float32)
    with torch.autocast(cost.device.type, enabled=False):
        both = (x_mask.any(dim=1) & y_mask.any(dim=1))[:, None]
        x, y = (x_mask & both)[:, :, None], (y_mask & both)[:, None, :]  # (B, N, 1), (B, 1, M)
        return _scaled(_kernel(cost, x, y, beta), x, y, outer, inner)


def _kernel(cost: Tensor, x: Tensor, y: Tensor, beta: float) -> Tensor:
    """G of the reduced costs, 0 at padded places."""
    padded = ~(x & y)  # (B, N, M)
    reduced = cost.to(torch.float32, copy=True).masked_fill_(padded, torch.inf)
    least = reduced.amin(dim=1, keepdim=True)
    reduced.sub_(least.masked_fill_(least.isinf(), 0.0))
    reduced.masked_fill_(padded, 0.0)
    # Cosine costs differ by 2 at most; where β allows for that, a GPU's host need not wait for them.
    if cost.device.type != "cpu" and beta * _LARGEST_EXPONENT >= 2.0:
        return reduced.div_(-beta).exp_().masked_fill_(padded, 0.0)
    largest = float(reduced.amax())
    if largest > _LARGEST_EXPONENT * beta:
        raise ConfigError(
            f"beta: {beta:g} is too small for costs that differ by {largest:.3g}: give at least "
            f"{largest / _LARGEST_EXPONENT:.3g}"
        )
    return reduced.div_(-beta).exp_().masked_fill_(padded, 0.0)


def _scaled(kernel: Tensor, x: Tensor, y: Tensor, outer: int, inner: int) -> Tensor:
    """IPOT's steps. A 1 in the denominators of padded places keeps their 0 from becoming 0/0."""
    x_share = x / x.sum(dim=1, keepdim=True).clamp(min=1)
    y_share = y / y.sum(dim=2, keepdim=True).clamp(min=1)
    x_one, y_one = (~x).float(), (~y).float()
    plan, row, column = kernel.clone(), x.float(), torch.empty_like(y_share)
    for step in range(outer):
        if step:
            plan.mul_(kernel)
        for _ in range(inner):
            torch.bmm(row.mT, plan, out=column)
            plan.mul_(column.add_(y_one).reciprocal_().mul_(y_share))
            torch.sum(plan, dim=2, keepdim=True, out=row)
            row.add_(x_one).reciprocal_().mul_(x_share)
        plan.mul_(row)
    return plan


def transport_loss(
    text_tokens: Tensor,
    image_tokens: Tensor,
    text_mask: Tensor,
    image_mask: Tensor | None = None,
    *,
    beta: float = 0.5,
    outer: int = 50,
    inner: int = 1,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """L_OT = mean over items of ⟨T, 1 − cos⟩; the plan is a constant, gradients go through the cosines.

    Args:
        text_tokens: co-attended states ``[B, N, d]``.
        image_tokens: likewise ``[B, M, d]``, the places only (without CLS).
        text_mask: bool ``[B, N]``, True = a word: `inner_tokens` leaves out CLS, SEP and padding.
        image_mask: bool ``[B, M]``; None: every place is real.
        beta: see `ipot_plan`.
        outer: see `ipot_plan`.
        inner: see `ipot_plan`.
        divisor: what the sum over items is divided by; None: by the number of items that have words and places. Where
            that differs between processes, give its mean over them, and DDP's mean is that of the whole batch.

    Returns:
        Scalar float32, units of cosine, in [0, 2]. An item without words is skipped; without any the loss is 0, with
        gradients of 0.

    Raises:
        ShapeError: the parts do not fit each other.
        ConfigError: see `ipot_plan`.
    """
    if text_tokens.shape[0] != image_tokens.shape[0] or text_tokens.shape[2:] != image_tokens.shape[2:]:
        raise ShapeError(
            f"text tokens of {list(text_tokens.shape)} and image tokens of {list(image_tokens.shape)}"
        )
    text_mask = text_mask.bool()
    image_mask = image_mask.bool() if image_mask is not None else text_mask.new_ones(image_tokens.shape[:2])
    with torch.autocast(text_tokens.device.type, enabled=False):
        cost = cosine_cost(text_tokens, image_tokens, text_mask, image_mask)
        plan = ipot_plan(cost.detach(), text_mask, image_mask, beta, outer, inner)
        if divisor is None:
            divisor = (text_mask.any(dim=1) & image_mask.any(dim=1)).sum().clamp(min=1)
        return (plan * cost).sum() / divisor


def cosine_cost(text_tokens: Tensor, image_tokens: Tensor, text_mask: Tensor, image_mask: Tensor) -> Tensor:
    """1 − cos of every word and place, float32 ``[B, N, M]``; padded ones, whatever they hold, count as zeros."""
    words = F.normalize(text_tokens.float().masked_fill(~text_mask[..., None], 0.0), dim=-1)
    places = F.normalize(image_tokens.float().masked_fill(~image_mask[..., None], 0.0), dim=-1)
    return torch.baddbmm(words.new_ones(1, 1, 1), words, places.mT, alpha=-1.0)


def inner_tokens(mask: Tensor) -> Tensor:
    """The mask without each row's first and last real token, which are BERT's [CLS] and [SEP].

    Args:
        mask: bool or int ``[B, L]``, nonzero = real.

    Returns:
        bool ``[B, L]``; a row of two tokens or fewer has none left.
    """
    real = mask.bool()
    count = real.cumsum(dim=1)
    return real & (count > 1) & (count < count[:, -1:])
