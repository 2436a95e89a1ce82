"""Soft labels and the contrastive terms against float64 loops written from the formulas."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tests.training.med_vqa import fakes as fakes
from training.errors import ConfigError, DataError, ShapeError
from training.med_vqa.pretrain.losses import soft_contrastive_loss
from training.med_vqa.pretrain.soft_labels import teacher_targets

Array = NDArray[np.float64]
LOCAL, GLOBAL, OFFSET, TAU = 4, 12, 8, 0.07


def unit(rows: int, seed: int, width: int = 6) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def softmax_reference(logits: Array, allowed: NDArray[np.bool_]) -> Array:
    result = np.zeros_like(logits)
    for i, row in enumerate(logits):
        weights = [np.exp(z - row.max()) if ok else 0.0 for z, ok in zip(row, allowed[i], strict=True)]
        result[i] = np.array(weights) / sum(weights)
    return result


def kl_reference(targets: Array, probabilities: Array) -> float:
    total = 0.0
    for p, q in zip(targets.ravel(), probabilities.ravel(), strict=True):
        total += p * (np.log(p) - np.log(q)) if p > 0 else 0.0
    return total / len(targets)


def a_mask() -> Tensor:
    mask = torch.zeros(LOCAL, GLOBAL, dtype=torch.bool)
    mask[0, 3] = mask[1, 10] = mask[3, :6] = True
    return mask


@pytest.mark.parametrize(("space", "raised"), [("logit", 0.3), ("cosine", 0.3 * 20)])
def test_teacher_targets_equal_equation_5_with_lambda_on_the_positive_of_every_row(
    space: str, raised: float
) -> None:
    block, mask = 20 * unit(LOCAL, 0) @ unit(GLOBAL, 1).T, a_mask()
    expected = block.double().numpy().copy()
    for i in range(LOCAL):
        expected[i, OFFSET + i] += raised
    actual = teacher_targets(block, OFFSET, 0.3, scale=20.0, space=space, mask=mask)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), softmax_reference(expected, ~mask.numpy()), atol=1e-6)
    np.testing.assert_allclose(actual.sum(1).numpy(), 1, atol=1e-6)


def test_lambda_behind_the_teachers_scale_is_almost_no_operation_and_on_the_cosine_is_not() -> None:
    block = 100 * unit(8, 0) @ unit(8, 1).T
    without = teacher_targets(block, 0, 0.0)
    odds = {
        space: (p := teacher_targets(block, 0, 0.01, scale=100.0, space=space))[0, 0] / p[0, 1]
        for space in ("logit", "cosine")
    }
    before = without[0, 0] / without[0, 1]
    assert (odds["logit"] / before).item() == pytest.approx(np.exp(0.01), rel=1e-4)
    assert (odds["cosine"] / before).item() == pytest.approx(np.e, rel=1e-4)


def test_the_positive_is_not_raised_on_the_main_diagonal_of_a_later_process() -> None:
    """AMiF's code fills the diagonal of a block [B_local, B_global] on every rank."""
    targets = teacher_targets(torch.zeros(LOCAL, GLOBAL), OFFSET, 2.0)
    assert targets.argmax(dim=1).tolist() == [8, 9, 10, 11]
    assert (targets[:, :OFFSET] < targets[0, OFFSET]).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_teachers_similarity_that_is_no_number_is_an_error_that_names_the_item(bad: float) -> None:
    block = torch.zeros(LOCAL, GLOBAL)
    block[2, 5] = bad
    with pytest.raises(DataError, match="item 10 of the batch are not finite numbers: build"):
        teacher_targets(block, OFFSET, 0.01)


def test_blocks_that_do_not_hold_their_positives_and_unknown_spaces_are_errors() -> None:
    with pytest.raises(ShapeError, match=r"offset 9 lie outside a block of \[4, 12\]"):
        teacher_targets(torch.zeros(LOCAL, GLOBAL), 9, 0.01)
    with pytest.raises(ConfigError, match=r'loss\.lambda_space: "angle" is not one of logit, cosine'):
        teacher_targets(torch.zeros(LOCAL, GLOBAL), 0, 0.01, space="angle")
    with pytest.raises(ShapeError, match="a mask"):
        teacher_targets(torch.zeros(2, 2), 0, 0.01, mask=torch.zeros(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_is_the_kl_divergence_of_the_formula(masked: bool) -> None:
    features, others = unit(LOCAL, 0), unit(GLOBAL, 1)
    mask = a_mask() if masked else torch.zeros(LOCAL, GLOBAL, dtype=torch.bool)
    targets = teacher_targets(3 * unit(LOCAL, 2) @ unit(GLOBAL, 3).T, OFFSET, 0.5, mask=mask)
    q = softmax_reference((features.double() @ others.double().T / TAU).numpy(), ~mask.numpy())
    actual = soft_contrastive_loss(features, others, targets, TAU, OFFSET, mask if masked else None)
    assert actual.item() == pytest.approx(kl_reference(targets.double().numpy(), q), rel=1e-5)


@pytest.mark.parametrize("offset", [0, OFFSET])
def test_hard_labels_give_clips_cross_entropy_and_its_gradient(offset: int) -> None:
    features, others = unit(LOCAL, 0).requires_grad_(), unit(GLOBAL, 1).requires_grad_()
    ours = soft_contrastive_loss(features, others, fakes.hard_targets(LOCAL, GLOBAL, offset), TAU, offset)
    theirs = F.cross_entropy(features @ others.T / TAU, torch.arange(offset, offset + LOCAL))
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    gradients = [torch.autograd.grad(loss, [features, others]) for loss in (ours, theirs)]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)


def test_the_loss_is_zero_where_the_student_equals_the_teacher() -> None:
    features, others = unit(LOCAL, 0), unit(GLOBAL, 1)
    targets = teacher_targets(features @ others.T / TAU, OFFSET, 0.0)
    assert soft_contrastive_loss(features, others, targets, TAU, OFFSET).item() == pytest.approx(0, abs=1e-6)


def test_a_learnt_temperature_gets_the_gradient_of_the_formula() -> None:
    features, others = unit(LOCAL, 0).double(), unit(GLOBAL, 1).double()
    targets = fakes.hard_targets(LOCAL, GLOBAL, OFFSET)
    tau = torch.tensor(TAU, requires_grad=True)
    loss = soft_contrastive_loss(features.float(), others.float(), targets, tau, OFFSET)
    (gradient,) = torch.autograd.grad(loss, tau)

    def at(value: float) -> float:
        logits = features @ others.T / value
        return F.cross_entropy(logits, torch.arange(OFFSET, OFFSET + LOCAL)).item()

    assert gradient.item() == pytest.approx((at(TAU + 1e-6) - at(TAU - 1e-6)) / 2e-6, rel=1e-4)


def test_autocast_does_not_lower_the_precision_of_the_loss() -> None:
    features, others, targets = unit(LOCAL, 0), unit(GLOBAL, 1), fakes.hard_targets(LOCAL, GLOBAL, 0)
    alone = soft_contrastive_loss(features, others, targets, TAU, 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert soft_contrastive_loss(features, others, targets, TAU, 0).item() == alone.item()


def test_one_item_has_nothing_to_learn_and_no_nan() -> None:
    features = unit(1, 0).requires_grad_()
    targets = teacher_targets(torch.full((1, 1), 40.0), 0, 0.01)
    loss = soft_contrastive_loss(features, unit(1, 1), targets, TAU, 0)
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.item() == 0 and not gradient.any()


def test_features_of_different_width_and_foreign_targets_are_errors() -> None:
    with pytest.raises(ShapeError, match="cannot be compared"):
        soft_contrastive_loss(unit(2, 0), unit(2, 1, width=5), torch.eye(2), TAU, 0)
    with pytest.raises(ShapeError):
        soft_contrastive_loss(unit(2, 0), unit(3, 1), torch.eye(2), TAU, 0)
    with pytest.raises(ShapeError, match="outside"):
        soft_contrastive_loss(unit(2, 0), unit(2, 1), torch.eye(2), TAU, 2)
