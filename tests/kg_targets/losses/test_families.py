"""What every loss and every target policy of the registries promises, whoever adds one."""

import subprocess
import sys

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss

from kg_targets.errors import DataError
from kg_targets.losses.contrastive import ContrastiveBatch, measure
from kg_targets.losses.policies import (
    identity_policy,
    mix_identity,
    pair_structure,
    similarity_targets,
    uniform_policy,
)
from kg_targets.losses.registry import LOSSES, POLICIES, Loss, bind_policy
from tests import REPOSITORY

ROWS = 6
PARAMETERS = {"temperature": 0.3, "alpha": 0.6, "threshold": 0.2, "saturation": 1.5}


def features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    both = [
        torch.nn.functional.normalize(torch.randn(ROWS, 5, generator=generator), dim=-1) for _ in range(2)
    ]
    return [part.requires_grad_() for part in both]


def batch(
    loss: Loss,
    image: torch.Tensor,
    text: torch.Tensor,
    rows: slice = slice(None),
    targets: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> ContrastiveBatch:
    """What a process that holds ``rows`` gives to a loss: scale 14.3, bias −10, targets the identity if omitted."""
    targets = torch.eye(ROWS) if targets is None else targets
    scale, bias = 14.3 if loss.scaled else 1.0, -10.0 if loss.biased else 0.0
    return ContrastiveBatch(
        scale * image[rows] @ text.T + bias,
        scale * text[rows] @ image.T + bias,
        targets[rows],
        targets.T[rows],
        rows.start or 0,
        None if mask is None else mask[rows],
    )


def soft_targets(loss: Loss) -> torch.Tensor:
    similarity = torch.rand(ROWS, ROWS, generator=torch.Generator().manual_seed(1)).fill_diagonal_(1.0)
    return similarity if loss.targets == "similarity" else similarity / similarity.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_finite_float32_scalars_whatever_is_masked(name: str) -> None:
    loss, (image, text) = LOSSES[name], features()
    mask = torch.zeros(ROWS, ROWS, dtype=torch.bool)
    mask[0, 1:], mask[3, 4] = True, True
    given = batch(loss, image, text, targets=soft_targets(loss), mask=mask)
    value = loss.compute(given)
    assert value.shape == () and value.dtype == torch.float32 and bool(value.isfinite())
    assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(value, [image, text]))
    assert all(
        bool(told.isfinite()) for told in measure(given, distributions=loss.targets != "similarity").values()
    )


@pytest.mark.parametrize("name", LOSSES)
def test_mean_over_equal_shares_of_the_rows_is_the_loss_and_the_gradient_of_the_whole_batch(
    name: str,
) -> None:
    """What DDP computes: each process the loss of its rows against all columns, then the mean over processes."""
    loss, (image, text) = LOSSES[name], features()
    targets = soft_targets(loss)
    targets = targets if loss.targets == "similarity" else torch.eye(ROWS) * 0.7 + targets * 0.3
    whole = loss.compute(batch(loss, image, text, targets=targets))
    shares = [loss.compute(batch(loss, image, text, rows, targets)) for rows in (slice(0, 3), slice(3, 6))]
    mean = torch.stack(shares).mean()
    torch.testing.assert_close(mean, whole)
    for mine, other in zip(
        *(torch.autograd.grad(value, [image, text]) for value in (mean, whole)), strict=True
    ):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_identity_targets_reproduce_the_loss_that_open_clip_has_for_them(name: str) -> None:
    loss, (image, text) = LOSSES[name], features()
    found = loss.compute(batch(loss, image, text)).item()
    if loss.targets != "similarity":
        expected = ClipLoss()(image, text, 14.3)
    elif loss.biased:
        expected = SigLipLoss()(image, text, 14.3, -10.0)
    else:
        expected = (image @ text.T - torch.eye(ROWS)).square().mean()
    assert found == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_a_function_of_its_module_and_says_what_it_is(name: str) -> None:
    loss = LOSSES[name]
    assert loss.summary and isinstance(loss.function, str)
    assert loss.soft == (loss.targets in ("policy", "similarity"))


@pytest.mark.parametrize("name", POLICIES)
def test_rows_of_a_policys_targets_sum_to_one_and_true_pairs_keep_mass(name: str) -> None:
    similarity = torch.rand(ROWS, ROWS, generator=torch.Generator().manual_seed(1)).fill_diagonal_(1.0)
    targets = bind_policy(name, **PARAMETERS)(similarity)
    assert targets.shape == similarity.shape and targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(ROWS))
    assert bool((targets >= 0).all()) and bool((targets.diagonal() > 0).all())


def test_names_are_known_and_checked_without_loading_torch() -> None:
    check = (
        "import sys, kg_targets, kg_targets.losses; from kg_targets.losses.registry import LOSSES, POLICIES;"
        "assert not {'torch', 'numpy'} & set(sys.modules) and LOSSES and POLICIES;"
        "from kg_targets.losses import semantic_matching_loss, softmax_policy; assert 'torch' in sys.modules;"
        "assert not {'accelerate', 'open_clip', 'transformers', 'scipy', 'pyarrow'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY).returncode == 0


def test_the_older_names_are_the_same_functions() -> None:
    import kg_targets.losses as library
    from kg_targets.losses import contrastive, policies
    from training.nb_clip import losses, targets

    older = {name: value for module in (losses, targets) for name, value in vars(module).items()}
    contract = {
        *(f"{name}_loss" for name in LOSSES),
        "softmax_policy",
        "fixed_mass_policy",
        "evidence_policy",
    }
    assert contract <= set(library.__all__) and contract <= set(older)
    assert all(older[name] is getattr(library, name) for name in contract)
    assert {
        "LOSSES",
        "Loss",
        "ContrastiveBatch",
        "POLICIES",
        "Pairs",
        "bind_policy",
        "pair_structure",
    } <= set(older)
    assert older["LOSSES"] is LOSSES and older["POLICIES"] is POLICIES
    for name in set(library.__all__) - {"chunked_loss"}:  # younger than those names
        assert getattr(library, name) in (getattr(contrastive, name, None), getattr(policies, name, None))


def test_the_trainer_minimises_the_librarys_own_functions() -> None:
    import kg_targets.losses as library

    functions = {name: loss.load() for name, loss in LOSSES.items()}
    assert functions == {name: getattr(library, f"{name}_loss") for name in LOSSES}
    for name in ("softmax", "fixed_mass", "evidence"):
        assert bind_policy(name, **PARAMETERS).func is getattr(library, f"{name}_policy")  # type: ignore[attr-defined]


def _soft() -> list[str]:
    """Policies that look at S."""
    return [name for name, policy in POLICIES.items() if not policy.control and name != "identity"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_targets_and_similarities_that_are_not_finite_are_refused_where_they_enter(value: float) -> None:
    image, text = features()
    broken = torch.full((ROWS, ROWS), 0.5)
    broken[1, 2] = value
    for loss in (one for one in LOSSES.values() if one.soft):
        with pytest.raises(DataError, match="must be finite"):
            loss.compute(batch(loss, image, text, targets=broken))
    for policy in _soft():
        with pytest.raises(DataError, match="similarities must be finite"):
            bind_policy(policy, **PARAMETERS)(broken)
    for takes in (similarity_targets, uniform_policy, identity_policy):
        with pytest.raises(DataError, match="similarities must be finite"):
            takes(broken)
    with pytest.raises(DataError, match="targets must be finite"):
        mix_identity(broken, 0.5, pairs=pair_structure(broken))


def test_finite_similarities_are_accepted_however_large_their_sum_is() -> None:
    large = torch.full((ROWS, ROWS), 3e38)
    assert torch.equal(identity_policy(large), torch.eye(ROWS))


@pytest.mark.parametrize("name", LOSSES)
def test_on_a_gpu_where_nobody_waits_for_a_check_nan_reaches_the_loss(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("policies", "contrastive"):
        monkeypatch.setattr(f"kg_targets.losses.{module}.check_finite", lambda values, what: None)
    loss, (image, text) = LOSSES[name], features()
    broken = soft_targets(loss)
    broken[1, 2] = float("nan")
    if loss.targets == "pairs":
        image.data[1, 0] = float("nan")
    assert bool(loss.compute(batch(loss, image, text, targets=broken)).isnan())
    for policy in _soft() if loss.targets == "policy" else []:
        assert bool(
            loss.compute(batch(loss, image, text, targets=bind_policy(policy, **PARAMETERS)(broken))).isnan()
        )
