"""Losses against float64 loops written from the formulas, and against open_clip's own loss."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from open_clip.loss import ClipLoss

from kg_targets.losses.contrastive import (
    ContrastiveBatch,
    info_nce_loss,
    kl_to_targets,
    semantic_matching_loss,
    target_entropy,
)
from kg_targets.losses.registry import LOSSES
from training.errors import ShapeError

Array = NDArray[np.float64]


def cross_entropy_reference(z: Array, p: Array, mask: Array | None = None) -> float:
    """Mean over rows of −Σ_j p_ij ln softmax(z_i)_j, in float64, element by element, over unmasked columns."""
    total = 0.0
    for i in range(z.shape[0]):
        columns = [j for j in range(z.shape[1]) if mask is None or not mask[i, j]]
        normaliser = sum(np.exp(z[i, j] - z[i].max()) for j in columns)
        for j in columns:
            if p[i, j] > 0:
                total -= p[i, j] * (z[i, j] - z[i].max() - np.log(normaliser))
    return total / z.shape[0]


def random_case(rows: int = 5, columns: int = 9, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.full(columns, 0.3), size=(2, rows))
    return rng.normal(0, 6, (rows, columns)), rng.normal(0, 6, (rows, columns)), targets[0], targets[1]


def tensors(*arrays: Array) -> list[torch.Tensor]:
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]


def test_semantic_matching_equals_the_formula_in_both_directions() -> None:
    z_i2t, z_t2i, p_i2t, p_t2i = random_case()
    expected = 0.5 * (cross_entropy_reference(z_i2t, p_i2t) + cross_entropy_reference(z_t2i, p_t2i))
    actual = semantic_matching_loss(*tensors(z_i2t, z_t2i, p_i2t, p_t2i))
    assert actual.item() == pytest.approx(expected, rel=1e-5)


def test_masked_pairs_are_counted_by_neither_logits_nor_targets() -> None:
    z_i2t, z_t2i, p_i2t, p_t2i = random_case()
    mask = np.random.default_rng(1).random(z_i2t.shape) < 0.4
    mask[np.arange(5), np.arange(5)] = False
    p_i2t, p_t2i = (np.where(mask, 0, p) / np.where(mask, 0, p).sum(1, keepdims=True) for p in (p_i2t, p_t2i))
    expected = 0.5 * (
        cross_entropy_reference(z_i2t, p_i2t, mask) + cross_entropy_reference(z_t2i, p_t2i, mask)
    )
    actual = semantic_matching_loss(*tensors(z_i2t, z_t2i, p_i2t, p_t2i), mask=torch.tensor(mask))
    assert actual.item() == pytest.approx(expected, rel=1e-5)
    # Whatever a masked logit is, it changes nothing.
    changed = np.where(mask, 1e4, z_i2t)
    again = semantic_matching_loss(*tensors(changed, z_t2i, p_i2t, p_t2i), mask=torch.tensor(mask))
    assert again.item() == actual.item()


def test_identity_targets_reproduce_open_clips_loss_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (
        torch.nn.functional.normalize(torch.randn(12, 7, generator=generator), dim=-1) for _ in range(2)
    )
    image.requires_grad_(), text.requires_grad_()
    scale = torch.tensor(14.3)
    theirs = ClipLoss()(image, text, scale)
    their_gradient = torch.autograd.grad(theirs, [image, text])
    logits_i2t, logits_t2i = scale * image @ text.T, scale * text @ image.T
    for ours in (
        semantic_matching_loss(logits_i2t, logits_t2i, torch.eye(12), torch.eye(12)),
        info_nce_loss(logits_i2t, logits_t2i),
    ):
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
        for mine, other in zip(
            torch.autograd.grad(ours, [image, text], retain_graph=True), their_gradient, strict=True
        ):
            torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)


def test_offset_moves_the_positive_of_a_later_process() -> None:
    z_i2t, z_t2i, _, _ = random_case(rows=3, columns=9)
    identity = np.zeros((3, 9))
    identity[np.arange(3), np.arange(3) + 6] = 1
    expected = 0.5 * (cross_entropy_reference(z_i2t, identity) + cross_entropy_reference(z_t2i, identity))
    assert info_nce_loss(*tensors(z_i2t, z_t2i), offset=6).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ShapeError, match="offset 7 \\+ 3 rows does not fit into 9 columns"):
        info_nce_loss(*tensors(z_i2t, z_t2i), offset=7)


def test_both_losses_agree_under_a_mask_when_targets_are_the_identity() -> None:
    z_i2t, z_t2i, _, _ = random_case(rows=6, columns=6)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[0, 1] = mask[1, 0] = mask[4, 5] = mask[5, 4] = True
    logits = tensors(z_i2t, z_t2i)
    soft = semantic_matching_loss(*logits, torch.eye(6), torch.eye(6), mask=mask)
    assert info_nce_loss(*logits, mask=mask).item() == pytest.approx(soft.item(), rel=1e-6)


@pytest.mark.parametrize("wholly", [True, False], ids=["everything", "all but the positive"])
def test_gradients_stay_finite_when_a_row_is_masked(wholly: bool) -> None:
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).mul(100).requires_grad_()
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[2] = True
    mask[2, 2] = wholly
    for loss in (
        semantic_matching_loss(logits, logits.T, torch.eye(4), torch.eye(4), mask=mask),
        info_nce_loss(logits, logits.T, mask=mask),
    ):
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_kl_is_zero_at_the_targets_and_is_cross_entropy_minus_entropy_elsewhere() -> None:
    z, _, p, _ = random_case()
    entropy = -np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0), axis=1)
    (logits, targets) = tensors(z, p)
    np.testing.assert_allclose(target_entropy(targets).numpy(), entropy, rtol=1e-5, atol=1e-6)
    expected = cross_entropy_reference(z, p) - entropy.mean()
    assert kl_to_targets(logits, targets).item() == pytest.approx(expected, rel=1e-5)
    soft = torch.softmax(logits, dim=-1)
    assert kl_to_targets(logits, soft).item() == pytest.approx(0.0, abs=1e-5)


def test_half_precision_logits_are_scored_in_float32() -> None:
    z_i2t, z_t2i, p_i2t, p_t2i = tensors(*random_case())
    low = semantic_matching_loss(z_i2t.bfloat16(), z_t2i.bfloat16(), p_i2t, p_t2i)
    assert low.dtype == torch.float32
    assert (
        low.item()
        == semantic_matching_loss(z_i2t.bfloat16().float(), z_t2i.bfloat16().float(), p_i2t, p_t2i).item()
    )


def test_shapes_that_disagree_are_named() -> None:
    with pytest.raises(ShapeError, match=r"\[3, 4\], \[4, 3\]"):
        semantic_matching_loss(torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(4, 3), torch.zeros(3, 4))


def test_registry_computes_the_named_losses() -> None:
    z_i2t, z_t2i, p_i2t, p_t2i = tensors(*random_case())
    batch = ContrastiveBatch(z_i2t, z_t2i, p_i2t, p_t2i, offset=2, mask=None)
    assert LOSSES["semantic_matching"].compute(batch) == semantic_matching_loss(z_i2t, z_t2i, p_i2t, p_t2i)
    assert LOSSES["info_nce"].compute(batch) == info_nce_loss(z_i2t, z_t2i, 2)
    assert LOSSES["semantic_matching"].soft and not LOSSES["info_nce"].soft
    assert LOSSES["semantic_matching"].targets == "policy" and LOSSES["info_nce"].targets == "pairs"
