"""The pairwise losses (MSE, Sigmoid) and the identity mix against float64 loops written from their formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from open_clip.loss import SigLipLoss

from kg_targets.losses.contrastive import ContrastiveBatch, mse_loss, sigmoid_loss
from kg_targets.losses.policies import (
    identity_weight,
    mix_identity,
    pair_structure,
    similarity_targets,
)
from kg_targets.losses.registry import LOSSES, bind_policy
from training.errors import ShapeError

Array = NDArray[np.float64]


def mse_reference(cosines: Array, similarity: Array, mask: Array) -> float:
    """Σ (cos − S)² over unmasked pairs, divided by all pairs."""
    total = 0.0
    for i, j in np.ndindex(cosines.shape):
        if not mask[i, j]:
            total += (cosines[i, j] - similarity[i, j]) ** 2
    return total / cosines.size


def sigmoid_reference(logits: Array, similarity: Array, mask: Array) -> float:
    """Σ −[t ln σ(z) + (1 − t) ln σ(−z)] over unmasked pairs, divided by the rows."""
    total = 0.0
    for i, j in np.ndindex(logits.shape):
        if mask[i, j]:
            continue
        target = min(max(similarity[i, j], 0.0), 1.0)
        total += target * math.log1p(math.exp(-logits[i, j]))
        total += (1 - target) * math.log1p(math.exp(logits[i, j]))
    return total / logits.shape[0]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    """Cosines, similarities and a mask of any shape, with negative similarities among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 9)))
    return rng.uniform(-1, 1, shape), rng.uniform(-1, 1.2, shape), rng.random(shape) < draw(st.floats(0, 1))


def tensors(*arrays: Array) -> list[torch.Tensor]:
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_pairwise_losses_equal_their_formulas_with_and_without_a_mask(
    case: tuple[Array, Array, Array],
) -> None:
    cosines, similarity, mask = case
    nothing = np.zeros_like(mask)
    for excluded in (nothing, mask):
        given_mask = None if excluded is nothing else torch.tensor(excluded)
        mse = mse_loss(*tensors(cosines, similarity), mask=given_mask)
        assert mse.item() == pytest.approx(mse_reference(cosines, similarity, excluded), rel=1e-5, abs=1e-7)
        sigmoid = sigmoid_loss(*tensors(14 * cosines - 10, similarity), mask=given_mask)
        expected = sigmoid_reference(14 * cosines - 10, similarity, excluded)
        assert sigmoid.item() == pytest.approx(expected, rel=1e-5, abs=3e-6)


def test_sigmoid_keeps_its_digits_where_the_starting_bias_puts_most_pairs() -> None:
    logits, similarity = np.full((4, 4), -15.0), np.zeros((4, 4))
    loss = sigmoid_loss(*tensors(logits, similarity))
    assert loss.item() == pytest.approx(
        sigmoid_reference(logits, similarity, similarity > 1), rel=1e-5, abs=0
    )


@pytest.mark.parametrize("loss", [mse_loss, sigmoid_loss], ids=["mse", "sigmoid"])
def test_loss_of_a_batch_is_the_mean_over_equal_shares_whatever_is_masked_in_each(loss: object) -> None:
    rng = np.random.default_rng(3)
    values, similarity = tensors(rng.uniform(-1, 1, (6, 6)), rng.uniform(0, 1, (6, 6)))
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[0, 1:] = True  # only the first share has masked pairs
    whole = loss(values, similarity, mask=mask)  # type: ignore[operator]
    shares = [loss(values[r], similarity[r], mask=mask[r]) for r in (slice(0, 3), slice(3, 6))]  # type: ignore[operator]
    assert whole.item() == pytest.approx(torch.stack(shares).mean().item(), rel=1e-6)


@pytest.mark.parametrize("loss", [mse_loss, sigmoid_loss], ids=["mse", "sigmoid"])
def test_masked_pairs_give_no_gradient_and_overconfident_logits_stay_finite(loss: object) -> None:
    logits = torch.full((3, 3), 1e4).requires_grad_()
    mask = torch.eye(3, dtype=torch.bool).roll(1, dims=1)
    value = loss(logits, torch.zeros(3, 3), mask=mask)  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()
    assert (gradient[mask] == 0).all() and (gradient[~mask] > 0).all()


def test_sigmoid_with_identity_targets_is_open_clips_siglip_loss_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (
        torch.nn.functional.normalize(torch.randn(12, 7, generator=generator), dim=-1) for _ in range(2)
    )
    image.requires_grad_(), text.requires_grad_()
    scale, bias = torch.tensor(14.3, requires_grad=True), torch.tensor(-10.0, requires_grad=True)
    leaves = [image, text, scale, bias]
    theirs = SigLipLoss()(image, text, scale, bias)
    ours = sigmoid_loss(scale * image @ text.T + bias, torch.eye(12))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for mine, other in zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True
    ):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("loss", [mse_loss, sigmoid_loss], ids=["mse", "sigmoid"])
def test_half_precision_is_scored_in_float32_and_wrong_shapes_are_named(loss: object) -> None:
    values = torch.rand(3, 4)
    assert loss(values.bfloat16(), values).dtype == torch.float32  # type: ignore[operator]
    with pytest.raises(ShapeError, match=r"\[3, 4\], \[4, 3\]"):
        loss(values, values.T)  # type: ignore[operator]
    with pytest.raises(ShapeError, match=r"\[3, 4\], \[3, 3\]"):
        loss(values, values, mask=torch.zeros(3, 3, dtype=torch.bool))  # type: ignore[operator]


def test_pairwise_losses_of_the_registry_read_the_image_to_text_block_alone() -> None:
    logits, targets = torch.rand(3, 4), torch.rand(3, 4)
    never = torch.full((3, 4), torch.nan)
    batch = ContrastiveBatch(logits, never, targets, never, offset=1, mask=None)
    assert LOSSES["mse"].compute(batch) == mse_loss(logits, targets)
    assert LOSSES["sigmoid"].compute(batch) == sigmoid_loss(logits, targets)
    assert not LOSSES["mse"].scaled and LOSSES["sigmoid"].scaled
    assert [name for name, loss in LOSSES.items() if loss.biased] == ["sigmoid"]


def test_similarities_of_unknown_images_are_the_identity_in_their_row_and_column() -> None:
    similarity = torch.tensor(np.random.default_rng(0).uniform(-1, 1, (4, 6)), dtype=torch.float32)
    known_rows = torch.tensor([True, False, True, True])
    known_columns = torch.tensor([True, True, True, False, True, False])  # columns 2..5 are the rows' images
    excluded = torch.zeros(4, 6, dtype=torch.bool)
    excluded[2, 1] = True
    pairs = pair_structure(similarity, 2, known_rows, known_columns, excluded)
    targets = similarity_targets(similarity, pairs=pairs)
    assert targets[1].tolist() == [0, 0, 0, 1, 0, 0]
    assert targets[:, 3].tolist() == [0, 1, 0, 0] and targets[:, 5].tolist() == [0, 0, 0, 1]
    assert targets[2, 1] == 0 and targets[0, 2] == targets[2, 4] == 1
    assert targets[0, 0] == similarity[0, 0] and targets[3, 1] == similarity[3, 1]  # negative ones included


@pytest.mark.parametrize("name", ["softmax", "fixed_mass", "evidence"])
def test_identity_mix_moves_mass_to_the_true_pair_and_keeps_a_distribution(name: str) -> None:
    similarity = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    pairs = pair_structure(similarity, 1)
    policy = bind_policy(name, temperature=0.3, alpha=0.6, threshold=0.2, saturation=1.5)(
        similarity, pairs=pairs
    )
    mixed = mix_identity(policy, 0.25, pairs=pairs)
    identity = np.eye(3, 5, k=1)
    np.testing.assert_allclose(mixed.numpy(), 0.75 * policy.double().numpy() + 0.25 * identity, atol=1e-6)
    np.testing.assert_allclose(mixed.sum(dim=1).numpy(), 1, atol=1e-6)
    assert torch.equal(mix_identity(policy, 1.0, pairs=pairs), pairs.positive.float())


def test_identity_weight_falls_linearly_from_its_start_to_zero_and_stays_there() -> None:
    weights = [identity_weight(step, 20, start=0.8, share=0.2) for step in range(1, 21)]
    assert weights[:6] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0, 0.0]) and max(weights[4:]) == 0.0
    assert identity_weight(1, 20, start=0.0, share=0.2) == 0.0
    assert identity_weight(20, 20, start=1.0, share=1.0) == pytest.approx(0.05)
