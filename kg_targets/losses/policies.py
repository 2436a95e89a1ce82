"""Target policies: how a similarity block S becomes target distributions P (methods.md §1.4).

| policy               | row i of P                                                                         | mark |
|----------------------|------------------------------------------------------------------------------------|------|
| `softmax`            | softmax(S_i / τ)                                                                   | C    |
| `fixed_mass`         | P_ij = (1 − α)·w_ij/(1 + Σ_k w_ik), w_ij = exp((S_ij − θ)/τ_o) − 1 above θ, else 0 | R    |
| `fixed_mass_softmax` | P_ii = α; the others share 1 − α by softmax_{j≠i}(S_ij / τ_o)                      | R    |
| `evidence`           | P_ii = 1 − (1 − α)·min(1, m_i/m₀); the others share the rest by similarity above θ | R    |
| `identity`           | P_ii = 1, CLIP's own target                                                        | S    |
| `uniform`            | P_ii = α, the others share 1 − α equally: label smoothing, a control               | R    |
| `same_case`          | P_ii = α, the other images of the case share 1 − α equally: a control              | R    |

(C: the authors' code, R: our reconstruction, S: the supplement.) Every policy is a pure function of S
``[B_local, B_global]`` whose row i has its positive in column ``offset + i``; P is float32 and rows sum to 1.

Soft mass may only reach a **soft positive**: a column other than the positive, whose image has concepts and is not
excluded (same case), in a row whose image has concepts; where the policy has a threshold θ, one with S_ij > θ. A row
without soft positives gets the identity, P_ii = 1, under every policy, and that is how such rows are counted.

For text→image pass the similarity of [texts_local, images_global], which is Sᵀ of the global block: normalising rows
and transposing do not commute, so P^t2i is never P^i2t transposed.

The pairwise losses (`mse`, `sigmoid`) take no policy but S itself, with the same promises: `similarity_targets`.
Either kind of target may be mixed with the identity in a run's first steps: `mix_identity`, `identity_weight`.

S and P that are not finite are refused (`check_finite`): on the CPU where they enter, on a GPU by the loss they make.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kg_targets.errors import ConfigError, DataError, ShapeError


@dataclass(frozen=True)
class Pairs:
    """A row's positive, and the columns that may take soft mass; both bool ``[B_local, B_global]``."""

    positive: Tensor
    soft_positives: Tensor


def pair_structure(
    similarity: Tensor,
    offset: int = 0,
    known_rows: Tensor | None = None,
    known_columns: Tensor | None = None,
    excluded: Tensor | None = None,
) -> Pairs:
    """Positives at column ``offset + i``, and the soft positives that policies may give mass to.

    Args:
        similarity: S, ``[B_local, B_global]``.
        offset: column of row 0's positive, = rank · B_local.
        known_rows: False where the row's image has no concept, bool ``[B_local]``.
        known_columns: the same for columns, bool ``[B_global]``.
        excluded: pairs of one case, bool ``[B_local, B_global]``; a positive in it stays a positive.

    Returns:
        The masks of positives and of soft positives.

    Raises:
        ShapeError: S is no matrix, the positives' columns lie outside it, or a mask has another shape or is not bool.
    """
    if similarity.dim() != 2:
        raise ShapeError(f"similarities must be [B_local, B_global], got {list(similarity.shape)}")
    rows, columns = similarity.shape
    if offset < 0 or offset + rows > columns:
        raise ShapeError(f"offset {offset} + {rows} rows does not fit into {columns} columns of similarities")
    index = torch.arange(rows, device=similarity.device)
    positive = torch.zeros(rows, columns, dtype=torch.bool, device=similarity.device)
    positive[index, index + offset] = True
    soft = ~positive
    masks = (
        (known_rows, (rows, 1), False),
        (known_columns, (1, columns), False),
        (excluded, (rows, columns), True),
    )
    for mask, shape, inverted in masks:
        if mask is None:
            continue
        vector = min(shape) == 1 and mask.shape == (max(shape),)
        if (tuple(mask.shape) != shape and not vector) or mask.dtype != torch.bool:
            kind = f"a mask of shape {list(mask.shape)} and type {mask.dtype}"
            raise ShapeError(f"{kind} does not fit S of {[rows, columns]}: expected bool, {list(shape)}")
        allowed = mask.reshape(shape)
        soft = soft & (~allowed if inverted else allowed)
    return Pairs(positive, soft)


def check_finite(values: Tensor, what: str) -> None:
    """Refuse NaN and infinities in similarities or targets, on the CPU; neither leaves a sum finite.

    Finite values of float32 may overflow in a sum of that type; in one of float64, which takes five times as long, not.

    On a GPU this would wait for the device in every step. NaN goes through to the loss there, at which a training loop
    looks before the optimizer moves anything (``training/run.py`` does); a store refuses factors with NaN as it opens.

    Raises:
        DataError: a value is not finite.
    """
    if values.device.type != "cpu" or bool(values.sum().isfinite()):
        return
    if not bool(values.sum(dtype=torch.float64).isfinite()):
        raise DataError(f"{what} must be finite: look at where they come from (a store's are)")


def _pairs_of(similarity: Tensor, pairs: Pairs | None) -> Pairs:
    check_finite(similarity, "similarities")
    pairs = pairs or pair_structure(similarity)
    if pairs.positive.shape != similarity.shape:
        raise ShapeError(f"pairs of {list(pairs.positive.shape)} do not fit S of {list(similarity.shape)}")
    return pairs


def _check_range(name: str, value: float, low: float, high: float | None) -> None:
    if not value > low or (high is not None and not value <= high):
        upper = "" if high is None else f" and at most {high:g}"
        raise ConfigError(f"{name} {value:g} must be above {low:g}{upper}")


def softmax_policy(similarity: Tensor, temperature: float = 1.0, *, pairs: Pairs | None = None) -> Tensor:
    """P_i = softmax(S_i / τ) over the positive and the soft positives (C: the authors' earlier code, τ = 1).

    Its diagonal mass falls with the batch size; see methods.md for the measurement.

    Args:
        similarity: S, ``[B_local, B_global]``.
        temperature: τ > 0, in units of S.
        pairs: positives and soft positives; the plain diagonal when omitted.

    Returns:
        P, float32, same shape.

    Raises:
        ConfigError: τ is not above 0.
        DataError: S is not finite.
        ShapeError: S and ``pairs`` differ in shape.
    """
    _check_range("temperature", temperature, 0.0, None)
    pairs = _pairs_of(similarity, pairs)
    allowed = pairs.positive | pairs.soft_positives
    scores = (similarity.float() / temperature).masked_fill(~allowed, -torch.inf)
    return torch.softmax(scores, dim=-1)  # each row has its positive, so no row is wholly −inf


def fixed_mass_policy(
    similarity: Tensor,
    alpha: float = 0.7,
    temperature: float = 0.05,
    threshold: float = 0.0,
    *,
    pairs: Pairs | None = None,
) -> Tensor:
    """The soft positives share nearly 1 − α as soon as one is clearly similar, and nothing where S is at most θ (R).

    w_ij = exp((S_ij − θ)/τ_o) − 1 for soft positives j with S_ij > θ, else 0; m_i = Σ_j w_ij;
    P_ij = (1 − α)·w_ij/(1 + m_i), P_ii = 1 − (1 − α)·m_i/(1 + m_i). P is continuous in S, and S = I gives the identity;
    a similarity of θ + 5τ_o is enough for all but 1 % of 1 − α.

    Args:
        similarity: S, ``[B_local, B_global]``.
        alpha: least probability that the true pair keeps, in (0, 1].
        temperature: τ_o > 0, in units of S.
        threshold: θ < 1, similarity that earns nothing.
        pairs: positives and soft positives; the plain diagonal when omitted.

    Returns:
        P, float32, same shape.

    Raises:
        ConfigError: α, τ_o or θ is out of range.
        DataError: S is not finite.
        ShapeError: S and ``pairs`` differ in shape.
    """
    _check_range("temperature", temperature, 0.0, None)
    _check_range("alpha", alpha, 0.0, 1.0)
    _check_range("1 - threshold", 1.0 - threshold, 0.0, None)
    pairs = _pairs_of(similarity, pairs)
    above = ((similarity.float() - threshold) / temperature).clamp(min=0.0) * pairs.soft_positives
    peak = above.amax(dim=-1, keepdim=True)  # everything is divided by e^peak, which may not be representable
    weights = -torch.exp(above - peak) * torch.expm1(-above)  # (e^x − 1)/e^peak, exact near x = 0; 0 at x = 0
    soft = (1.0 - alpha) * weights / (torch.exp(-peak) + weights.sum(dim=-1, keepdim=True))
    return torch.where(pairs.positive, 1.0 - soft.sum(dim=-1, keepdim=True), soft)


def fixed_mass_softmax_policy(
    similarity: Tensor, alpha: float = 0.7, temperature: float = 0.05, *, pairs: Pairs | None = None
) -> Tensor:
    """P_ii = α, the soft positives share 1 − α by softmax(S_ij / τ_o), those of similarity 0 as well (R).

    What ``fixed_mass`` was until version 0.3: S = I gives each of B images' rows α and (1 − α)/(B − 1).

    Args:
        similarity: S, ``[B_local, B_global]``.
        alpha: the positive's probability, in (0, 1].
        temperature: τ_o > 0, in units of S.
        pairs: positives and soft positives; the plain diagonal when omitted.

    Returns:
        P, float32, same shape; rows without soft positives are the identity.

    Raises:
        ConfigError: α or τ_o is out of range.
        DataError: S is not finite.
        ShapeError: S and ``pairs`` differ in shape.
    """
    _check_range("temperature", temperature, 0.0, None)
    _check_range("alpha", alpha, 0.0, 1.0)
    pairs = _pairs_of(similarity, pairs)
    shares = _masked_softmax(similarity.float() / temperature, pairs.soft_positives)
    any_soft = pairs.soft_positives.any(dim=-1, keepdim=True)  # [B_local, 1]
    diagonal = torch.where(any_soft, alpha, 1.0)
    return torch.where(pairs.positive, diagonal, (1.0 - diagonal) * shares)


def evidence_policy(
    similarity: Tensor,
    threshold: float,
    alpha: float = 0.7,
    saturation: float = 1.0,
    *,
    pairs: Pairs | None = None,
) -> Tensor:
    """Only similarity above θ softens a row, and never below α (R).

    w_ij = max(S_ij − θ, 0)/(1 − θ) for soft positives j, m_i = Σ_j w_ij, P_ii = a_i = 1 − (1 − α)·min(1, m_i/m₀),
    P_ij = (1 − a_i)·w_ij/m_i; m_i = 0 gives the identity.

    Args:
        similarity: S, ``[B_local, B_global]``.
        threshold: θ < 1; a store suggests the p95 of its training similarities.
        alpha: least probability that the true pair keeps, in (0, 1].
        saturation: m₀ > 0, evidence at which the row is as soft as it gets.
        pairs: positives and soft positives; the plain diagonal when omitted.

    Returns:
        P, float32, same shape.

    Raises:
        ConfigError: θ, α or m₀ is out of range.
        DataError: S is not finite.
        ShapeError: S and ``pairs`` differ in shape.
    """
    _check_range("alpha", alpha, 0.0, 1.0)
    _check_range("saturation", saturation, 0.0, None)
    _check_range("1 - threshold", 1.0 - threshold, 0.0, None)
    pairs = _pairs_of(similarity, pairs)
    weights = ((similarity.float() - threshold).clamp(min=0.0) / (1.0 - threshold)) * pairs.soft_positives
    mass = weights.sum(dim=-1, keepdim=True)  # m, [B_local, 1]
    softness = (1.0 - alpha) * (mass / saturation).clamp(max=1.0)
    shares = weights / mass.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(pairs.positive, 1.0 - softness, softness * shares)


def uniform_policy(similarity: Tensor, alpha: float = 0.7, *, pairs: Pairs | None = None) -> Tensor:
    """P_ii = α, the soft positives share 1 − α equally, however similar they are: label smoothing (R).

    The control for soft targets without knowledge. With the other images of the case as the only soft positives it is
    the control ``same_case``: several positives by the case number alone.

    Args:
        similarity: S, ``[B_local, B_global]``; of its values only that they are finite matters.
        alpha: the positive's probability, in (0, 1].
        pairs: positives and soft positives; the plain diagonal when omitted.

    Returns:
        P, float32, same shape; rows without soft positives are the identity.

    Raises:
        ConfigError: α is out of range.
        DataError: S is not finite.
        ShapeError: S and ``pairs`` differ in shape.
    """
    check_finite(similarity, "similarities")
    return fixed_mass_softmax_policy(torch.zeros_like(similarity), alpha, 1.0, pairs=pairs)


def identity_policy(similarity: Tensor, *, pairs: Pairs | None = None) -> Tensor:
    """P_ii = 1: the target of InfoNCE, float32, same shape as S, which must be finite."""
    return _pairs_of(similarity, pairs).positive.float()


def similarity_targets(similarity: Tensor, *, pairs: Pairs | None = None) -> Tensor:
    """S as the pairwise losses compare with it: S_ii = 1 (methods.md §1.3), S_ij for soft positives, 0 for all others.

    An image without concepts thus has the identity as its row and as its column: nothing is known about it but its
    own pair.

    Args:
        similarity: S, ``[B_local, B_global]``.
        pairs: positives and soft positives; the plain diagonal when omitted.

    Returns:
        Targets in the range of S, float32, same shape.

    Raises:
        DataError: S is not finite.
        ShapeError: S and ``pairs`` differ in shape.
    """
    pairs = _pairs_of(similarity, pairs)
    return torch.where(pairs.positive, 1.0, similarity.float() * pairs.soft_positives)


def mix_identity(targets: Tensor, weight: float, *, pairs: Pairs) -> Tensor:
    """(1 − w)·P + w·I, where I has its ones at the positives (R); rows of a distribution still sum to 1.

    Args:
        targets: P or S, float ``[B_local, B_global]``.
        weight: w in [0, 1].
        pairs: positives, bool, same shape.

    Returns:
        The mixture, float32, same shape.

    Raises:
        DataError: the targets are not finite.
    """
    check_finite(targets, "targets")
    return (1.0 - weight) * targets + weight * pairs.positive.float()


def identity_weight(step: int, total_steps: int, start: float, share: float) -> float:
    """w of a step: ``start`` at the first, falling linearly to 0 over ``share`` of the steps, then 0 (R).

    w = start·max(0, 1 − (step − 1)/(share·total_steps))

    Args:
        step: optimizer step, counted from 1.
        total_steps: optimizer steps of the whole run, at least 1.
        start: w of the first step, in [0, 1].
        share: share of the steps over which w falls to 0, in (0, 1].
    """
    return start * max(0.0, 1.0 - (step - 1) / (share * total_steps))


def _masked_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Softmax over each row's allowed columns; zeros in a row that has none, where a plain softmax is NaN."""
    peak = scores.masked_fill(~allowed, -torch.inf).amax(dim=-1, keepdim=True)
    peak = torch.where(peak.isfinite(), peak, 0.0)
    weights = torch.exp((scores - peak).clamp(max=0.0)) * allowed
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
