"""From targets and features to loss and gradient: what each loss is given, and what a log line tells."""

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from kg_targets.losses.contrastive import mse_loss, semantic_matching_loss, sigmoid_loss
from kg_targets.losses.policies import evidence_policy, pair_structure
from kg_targets.losses.registry import LOSSES
from tests.training.nb_clip.fakes import FakeStore, builder, fake_store
from training.errors import ConfigError, ShapeError
from training.nb_clip.config import LossConfig
from training.nb_clip.objective import NBClipObjective


class Passthrough(nn.Module):
    """Returns its inputs as features."""

    def __init__(self, bias: float | None = None) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(5.0))
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(bias))

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        output = {"image_features": image, "text_features": text, "logit_scale": self.logit_scale}
        return output if self.logit_bias is None else {**output, "logit_bias": self.logit_bias}


def unit_features() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(nn.functional.normalize(torch.randn(4, 6, generator=generator), dim=-1) for _ in range(2))  # type: ignore[return-value]


def make_task(loss: str = "semantic_matching", **fields: Any) -> NBClipObjective:
    AcceleratorState._reset_state(reset_partial_state=True)
    return NBClipObjective(LossConfig(name=loss, **fields), Accelerator(cpu=True))


def backward(
    model: nn.Module, store: FakeStore, rows: Tensor, loss: str = "semantic_matching", measured: bool = True
) -> dict[str, Tensor]:
    image, text = unit_features()
    image.requires_grad_()
    targets = builder(store, loss)(rows, rows, 0)
    return make_task(loss).backward(
        model, lambda start, stop: image[start:stop], text, targets.rows, 0, measured=measured
    )


def test_backward_scores_the_policy_targets_and_reports_what_they_are_like() -> None:
    store = fake_store(cases=10)
    image, text = unit_features()
    rows = torch.tensor([5, 3, 2, 6])
    model = Passthrough()
    values = backward(model, store, rows)
    block = torch.from_numpy(store.block(rows.numpy()))
    known = torch.from_numpy(store.known)[rows]
    pairs = pair_structure(block, 0, known, known)
    i2t, t2i = (evidence_policy(s, store.threshold, pairs=pairs) for s in (block, block.T))
    scale = torch.tensor(5.0, requires_grad=True)
    expected = semantic_matching_loss(scale * image @ text.T, scale * text @ image.T, i2t, t2i)
    expected.backward()
    assert values["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(model.logit_scale.grad, scale.grad)
    assert values["diagonal"].item() == pytest.approx(
        (i2t.diagonal().mean() + t2i.diagonal().mean()).item() / 2
    )
    assert values["kl"] <= values["loss"] and values["positives"] >= 1 and values["entropy"] >= 0


def test_what_only_the_log_needs_is_computed_only_when_asked_for() -> None:
    rows = torch.tensor([5, 3, 2, 6])
    assert set(backward(Passthrough(), fake_store(), rows, measured=False)) == {"loss", "logit_scale"}
    sigmoid = backward(Passthrough(-3.0), fake_store(), rows, "sigmoid", measured=False)
    assert set(sigmoid) == {"loss", "logit_scale", "logit_bias"}


def test_mse_compares_unscaled_cosines_and_sigmoid_biased_logits_with_the_stores_similarities() -> None:
    store = fake_store(cases=10)
    image, text = unit_features()
    rows = torch.tensor([5, 3, 2, 6])  # 3 is unknown
    similarity = torch.from_numpy(store.block(rows.numpy()))
    similarity[1], similarity[:, 1] = torch.eye(4)[1], torch.eye(4)[1]
    cosines = image @ text.T
    values = backward(Passthrough(), store, rows, "mse")
    assert values["loss"].item() == pytest.approx(mse_loss(cosines, similarity).item(), rel=1e-6)
    assert "logit_bias" not in values
    model = Passthrough(-3.0)
    values = backward(model, store, rows, "sigmoid")
    assert values["loss"].item() == pytest.approx(sigmoid_loss(5 * cosines - 3, similarity).item(), rel=1e-6)
    nn.init.zeros_(model.logit_bias)  # type: ignore[arg-type]  # an optimizer's step must not change what is logged
    nn.init.zeros_(model.logit_scale)
    assert values["logit_bias"] == -3 and values["logit_scale"] == 5 and values["kl"] >= 0
    # A batch row of similarities tells what it would be as a distribution.
    assert values["diagonal"].item() == pytest.approx(
        ((1 / similarity.sum(0)).mean() + (1 / similarity.sum(1)).mean()).item() / 2
    )


@pytest.mark.parametrize(
    ("loss", "trained"),
    [
        ("semantic_matching", ["logit_scale"]),
        ("info_nce", ["logit_scale"]),
        ("mse", []),
        ("sigmoid", ["logit_scale", "logit_bias"]),
    ],
)
def test_scale_and_bias_that_a_loss_ignores_are_frozen_so_that_ddp_does_not_wait_for_them(
    loss: str, trained: list[str]
) -> None:
    model = Passthrough(-10.0)
    make_task(loss).freeze_unused(model)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trained
    backward(model, fake_store(), torch.tensor([5, 3, 2, 6]), loss)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in trained)


def test_sigmoid_on_a_model_without_a_bias_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs a model with a logit bias"):
        backward(Passthrough(), fake_store(), torch.tensor([5, 3, 2, 6]), "sigmoid")


def test_targets_of_another_batch_are_an_error() -> None:
    image, text = unit_features()
    rows = torch.tensor([5, 3, 2])
    targets = builder(fake_store())(rows, rows, 0)
    with pytest.raises(ShapeError, match=r"targets are \[3, 3\], not \[4, 4\]"):
        make_task().backward(Passthrough(), lambda start, stop: image[start:stop], text, targets.rows, 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_of_unknown_images_and_a_batch_of_one_train_on_the_true_pairs_and_stay_finite(
    loss: str,
) -> None:
    store = fake_store(unknown=tuple(range(10)))
    rows = torch.tensor([5, 3, 2, 6])
    assert torch.equal(builder(store, loss)(rows, rows, 0).i2t, torch.eye(4))
    assert all(value.isfinite() for value in backward(Passthrough(-3.0), store, rows, loss).values())
    one = builder(fake_store(), loss)(rows[:1], rows[:1], 0)
    assert one.i2t.tolist() == one.t2i.tolist() == [[1.0]]
    image, text = unit_features()
    image.requires_grad_()
    values = make_task(loss).backward(Passthrough(-3.0), lambda start, stop: image[:1], text[:1], one.rows, 0)
    assert all(value.isfinite() for value in values.values()) and bool(image.grad.isfinite().all())  # type: ignore[union-attr]
