"""IPOT against a linear-programming solver and a float64 copy of the published algorithm; what L_OT promises."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor
from torch.nn import functional as F

from training.errors import ConfigError, ShapeError
from training.med_vqa.model.transport import cosine_cost, inner_tokens, ipot_plan, transport_loss

Array = NDArray[np.float64]
N, M = 5, 9


def tokens(batch: int, count: int, seed: int, width: int = 8) -> Tensor:
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(seed))


def costs(batch: int = 3, seed: int = 0) -> Tensor:
    """1 − cos of random states."""
    x, y = F.normalize(tokens(batch, N, seed), dim=-1), F.normalize(tokens(batch, M, seed + 100), dim=-1)
    return 1 - x @ y.mT


def all_real(batch: int, length: int) -> Tensor:
    return torch.ones(batch, length, dtype=torch.bool)


def exact_plan_cost(cost: Array) -> float:
    n, m = cost.shape
    sums = np.zeros((n + m, n * m))
    for i in range(n):
        sums[i, i * m : (i + 1) * m] = 1
    for j in range(m):
        sums[n + j, j::m] = 1
    shares = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    return float(linprog(cost.ravel(), A_eq=sums, b_eq=shares, bounds=(0, None)).fun)


def ipot_reference(cost: Array, beta: float, outer: int, inner: int) -> Array:
    """Algorithm 1 of Xie et al., word by word."""
    n, m = cost.shape
    sigma, plan, kernel = np.full(n, 1 / n), np.ones((n, m)), np.exp(-cost / beta)
    for _ in range(outer):
        q = kernel * plan
        for _ in range(inner):
            delta = (1 / m) / (q.T @ sigma)
            sigma = (1 / n) / (q @ delta)
        plan = np.diag(sigma) @ q @ np.diag(delta)
    return plan


@pytest.mark.parametrize(("beta", "outer", "inner"), [(0.5, 50, 1), (0.2, 7, 3), (1.0, 1, 1)])
def test_the_plan_is_that_of_the_published_algorithm(beta: float, outer: int, inner: int) -> None:
    cost = costs()
    plan = ipot_plan(cost, all_real(3, N), all_real(3, M), beta, outer, inner)
    for actual, one in zip(plan, cost, strict=True):
        np.testing.assert_allclose(
            actual.numpy(), ipot_reference(one.double().numpy(), beta, outer, inner), atol=2e-7
        )


def test_the_plans_cost_falls_to_the_linear_programs_as_steps_grow() -> None:
    cost = costs()
    exact = torch.tensor([exact_plan_cost(one.double().numpy()) for one in cost])
    gaps = []
    for outer in (10, 50, 250, 1250):
        plan = ipot_plan(cost, all_real(3, N), all_real(3, M), outer=outer)
        gaps.append(((plan * cost).sum(dim=(1, 2)) - exact).abs().max().item())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-5


def test_the_marginal_updated_last_is_exact_and_the_other_one_close_and_closer_with_more_steps() -> None:
    cost, errors = costs(batch=8), []
    for outer in (10, 50, 250):
        plan = ipot_plan(cost, all_real(8, N), all_real(8, M), outer=outer)
        torch.testing.assert_close(plan.sum(dim=2), torch.full((8, N), 1 / N), atol=1e-7, rtol=0)
        errors.append((plan.sum(dim=1) - 1 / M).abs().max().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[1] <= 1e-3


def test_padding_changes_nothing_and_receives_exactly_nothing() -> None:
    cost = costs()
    padded = torch.full((3, N + 4, M + 2), float("nan"))
    padded[:, 2 : 2 + N, :M] = cost
    x_mask, y_mask = all_real(3, N + 4), all_real(3, M + 2)
    x_mask[:, :2] = x_mask[:, 2 + N :] = y_mask[:, M:] = False
    plan = ipot_plan(padded, x_mask, y_mask)
    alone = ipot_plan(cost, all_real(3, N), all_real(3, M))
    torch.testing.assert_close(plan[:, 2 : 2 + N, :M], alone, atol=1e-8, rtol=1e-6)
    assert not plan[~(x_mask[:, :, None] & y_mask[:, None, :])].any()


def test_reordering_words_and_places_reorders_the_plan() -> None:
    cost = costs()
    words, places = torch.randperm(N), torch.randperm(M)
    plan = ipot_plan(cost, all_real(3, N), all_real(3, M))
    other = ipot_plan(cost[:, words][:, :, places], all_real(3, N), all_real(3, M))
    torch.testing.assert_close(other, plan[:, words][:, :, places], atol=1e-7, rtol=1e-5)


def test_an_item_without_words_or_places_gets_a_plan_of_zeros_and_spoils_no_other() -> None:
    cost, x_mask, y_mask = costs(), all_real(3, N), all_real(3, M)
    x_mask[0], y_mask[2] = False, False
    plan = ipot_plan(cost, x_mask, y_mask)
    assert not plan[[0, 2]].any()
    torch.testing.assert_close(plan[1], ipot_plan(cost[1:2], all_real(1, N), all_real(1, M))[0])


def test_costs_that_are_no_numbers_spoil_their_own_item_only() -> None:
    cost = costs()
    cost[1, 2, 3] = float("nan")
    plan = ipot_plan(cost, all_real(3, N), all_real(3, M))
    assert plan[1].isnan().any() and plan[[0, 2]].isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_nothing_to_transport_is_an_empty_plan(shape: tuple[int, int, int]) -> None:
    batch, n, m = shape
    assert ipot_plan(torch.zeros(shape), all_real(batch, n), all_real(batch, m)).shape == shape


def test_a_large_offset_of_the_costs_changes_nothing() -> None:
    cost = costs()
    shifted = ipot_plan(cost.double() + 1000, all_real(3, N), all_real(3, M))
    torch.testing.assert_close(shifted, ipot_plan(cost, all_real(3, N), all_real(3, M)), atol=1e-4, rtol=0)


def test_a_beta_that_float32_cannot_hold_and_parameters_out_of_range_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"beta: 0\.001 is too small for costs that differ by .*: give at"):
        ipot_plan(costs(), all_real(3, N), all_real(3, M), beta=0.001)
    for bad in ({"beta": 0.0}, {"beta": float("nan")}, {"outer": 0}, {"inner": 0}):
        with pytest.raises(ConfigError, match="beta above 0, the others at least 1"):
            ipot_plan(costs(), all_real(3, N), all_real(3, M), **bad)
    with pytest.raises(ShapeError, match="expected"):
        ipot_plan(costs(), all_real(3, M), all_real(3, N))


def test_autocast_leaves_the_plan_alone() -> None:
    cost = costs()
    alone = ipot_plan(cost, all_real(3, N), all_real(3, M))
    with torch.autocast("cpu", torch.bfloat16):
        plan = ipot_plan(cost, all_real(3, N), all_real(3, M))
    assert plan.dtype == torch.float32 and torch.equal(plan, alone)


def test_the_loss_is_the_plans_cost_and_its_gradient_takes_the_plan_as_a_constant() -> None:
    words, places = tokens(3, N, 0).double().requires_grad_(), tokens(3, M, 1).double().requires_grad_()
    mask = all_real(3, N)
    mask[1, 3:] = False
    loss = transport_loss(words, places, mask)
    expected = torch.zeros((), dtype=torch.float64)
    for item, length in enumerate((N, 3, N)):
        cosine = F.normalize(words[item, :length], dim=-1) @ F.normalize(places[item], dim=-1).T
        plan = torch.as_tensor(ipot_reference((1 - cosine).detach().numpy(), 0.5, 50, 1))
        expected = expected + (plan * (1 - cosine)).sum() / 3
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for mine, other in zip(
        torch.autograd.grad(loss, [words, places]),
        torch.autograd.grad(expected, [words, places]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)


def test_a_text_without_words_is_skipped_without_nan_whatever_its_states_hold() -> None:
    words, places, mask = tokens(3, N, 0), tokens(3, M, 1), all_real(3, N)
    mask[0] = False
    words[0] = float("nan")
    words.requires_grad_()
    loss = transport_loss(words, places, mask)
    torch.testing.assert_close(loss, transport_loss(words[1:], places[1:], mask[1:]))
    (gradient,) = torch.autograd.grad(loss, words)
    assert gradient.isfinite().all() and not gradient[0].any() and gradient[1:].any()
    nothing = transport_loss(words[:1], places[:1], mask[:1])
    (gradient,) = torch.autograd.grad(nothing, words)
    assert nothing.item() == 0 and not gradient.any()


def test_a_common_divisor_makes_parts_add_up_to_the_whole_batch() -> None:
    words, places, mask = tokens(4, N, 0), tokens(4, M, 1), all_real(4, N)
    mask[0] = False
    whole = transport_loss(words, places, mask)
    parts = [
        transport_loss(words[part], places[part], mask[part], divisor=1.5)
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_places_can_be_masked_too() -> None:
    words, places, image_mask = tokens(2, N, 0), tokens(2, M, 1), all_real(2, M)
    image_mask[:, 6:] = False
    actual = transport_loss(words, places, all_real(2, N), image_mask)
    torch.testing.assert_close(actual, transport_loss(words, places[:, :6], all_real(2, N)))


def test_tokens_that_do_not_belong_together_are_errors() -> None:
    with pytest.raises(ShapeError, match="text tokens of"):
        transport_loss(tokens(2, N, 0), tokens(3, M, 0), all_real(2, N))


def test_first_and_last_real_token_are_left_out() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0] * 5])
    assert inner_tokens(mask).int().tolist() == [
        [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0] * 5, [0] * 5, [0] * 5,
    ]  # fmt: skip


def test_the_cost_of_a_word_equal_to_a_place_is_zero() -> None:
    states = tokens(2, N, 0)
    cost = cosine_cost(states, states, all_real(2, N), all_real(2, N))
    torch.testing.assert_close(cost.diagonal(dim1=1, dim2=2), torch.zeros(2, N), atol=1e-6, rtol=0)
