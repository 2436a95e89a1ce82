"""Micro-batches by cached features: the gradient, the random numbers and the memory of the two passes."""

from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kg_targets.losses.registry import LOSSES
from kg_targets.store import TargetStore
from tests.training.nb_clip.fakes import fake_store
from training.clip.load import load_clip
from training.engine.sharing import slices
from training.errors import ConfigError
from training.nb_clip.batch_targets import TargetBuilder, Targets
from training.nb_clip.config import LossConfig, PolicyConfig
from training.nb_clip.objective import NBClipObjective, first_pass, second_pass

BATCH, WIDTH = 8, 16
ROWS = torch.tensor([0, 8, 5, 3, 9, 1, 6, 2])  # of fake_store: 0 & 8 and 1 & 9 share a case, 3 is unknown


class Towers(nn.Module):
    """Two small towers with dropout, and with gradient checkpointing where asked for."""

    def __init__(self, dropout: float = 0.0, checkpointed: bool = False, normalise: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.visual, self.textual = (
            nn.Sequential(
                nn.Linear(12, 32),
                nn.BatchNorm1d(32) if normalise else nn.LayerNorm(32),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(32, WIDTH),
            )
            for _ in range(2)
        )
        self.checkpointed = checkpointed
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        def encode(tower: nn.Module, inputs: Tensor) -> Tensor:
            features = checkpoint(tower, inputs, use_reentrant=False) if self.checkpointed else tower(inputs)
            return nn.functional.normalize(features, dim=-1)

        return {
            "image_features": encode(self.visual, image),
            "text_features": encode(self.textual, text),
            "logit_scale": self.logit_scale.exp(),
            "logit_bias": self.logit_bias,
        }


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(BATCH, 12, generator=generator), torch.randn(BATCH, 12, generator=generator)


def make_targets(loss: str) -> Targets:
    store = cast(TargetStore, fake_store())
    return TargetBuilder(store, LossConfig(name=loss), PolicyConfig())(ROWS, ROWS, 0, 0.1)


def gradients(
    model: nn.Module,
    loss: str = "semantic_matching",
    micro_batch: int | None = None,
    given: tuple[Tensor, Tensor] | None = None,
    accelerator: Accelerator | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    images, texts = given or inputs()
    task = NBClipObjective(
        LossConfig(name=loss, micro_batch=micro_batch), accelerator or Accelerator(cpu=True)
    )
    task.freeze_unused(model)
    model.zero_grad()
    torch.manual_seed(7)
    values = task.backward(model, lambda start, stop: images[start:stop], texts, make_targets(loss).rows, 0)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, values


def assert_same(
    actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5, at_least: int = 8
) -> None:
    assert actual.keys() == expected.keys() and len(expected) >= at_least
    norm = torch.cat([gradient.flatten() for gradient in expected.values()]).norm().item()
    for name, gradient in expected.items():
        size = max(gradient.norm().item(), 1e-2 * norm)
        assert (actual[name] - gradient).norm().item() <= tolerance * size, name


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("micro_batch", [2, 3])
def test_an_effective_batch_of_four_micro_batches_has_the_big_batchs_gradient(
    loss: str, micro_batch: int
) -> None:
    torch.manual_seed(0)
    clip = load_clip("test-vit", logit_bias=-3.0 if LOSSES[loss].biased else None)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 3, 32, 32, generator=generator)
    tokens = torch.randint(1, 49_000, (BATCH, 24), generator=generator)
    whole, values = gradients(clip.model, loss, None, (images, tokens))
    pieces, again = gradients(clip.model, loss, micro_batch, (images, tokens))
    assert_same(pieces, whole)
    assert values.keys() == again.keys()
    for name, value in values.items():
        assert again[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("checkpointed", [False, True])
def test_with_dropout_the_gradient_is_that_of_the_same_micro_batches_held_in_memory_together(
    checkpointed: bool,
) -> None:
    images, texts = inputs()
    model = Towers(dropout=0.5)
    targets = make_targets("sigmoid")
    torch.manual_seed(7)
    parts = [model(images[start:stop], texts[start:stop]) for start, stop in slices(BATCH, 2)]
    together = {
        name: torch.cat([part[name] for part in parts]) for name in ("image_features", "text_features")
    }
    task = NBClipObjective(LossConfig(name="sigmoid"), Accelerator(cpu=True))
    loss, _ = task._score({**parts[0], **together}, targets.rows, 0, measured=False)
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    actual, values = gradients(Towers(dropout=0.5, checkpointed=checkpointed), "sigmoid", 2)
    assert values["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    assert_same(actual, expected)


def test_the_second_pass_draws_what_the_first_drew_and_leaves_the_generator_where_it_was() -> None:
    images, texts = inputs()
    model = Towers(dropout=0.5)
    seen: list[Tensor] = []

    def encode(start: int, stop: int) -> dict[str, Tensor]:
        output: dict[str, Tensor] = model(images[start:stop], texts[start:stop])
        seen.append(output["image_features"].detach())
        return output

    parts = slices(BATCH, 3)
    assert parts == [(0, 3), (3, 6), (6, 8)]
    torch.manual_seed(5)
    leaves, states = first_pass(encode, parts, torch.device("cpu"))
    after = torch.get_rng_state()
    for leaf in leaves.values():
        leaf.grad = torch.ones_like(leaf)
    torch.manual_seed(99)  # whatever the loss drew in between
    second_pass(Accelerator(cpu=True), model, encode, parts, states, leaves)
    assert all(torch.equal(first, second) for first, second in zip(seen[:3], seen[3:], strict=True))
    assert torch.equal(torch.cat(seen[:3]), leaves["image_features"])
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(model(images[:3], texts[:3])["image_features"], seen[0])  # dropout is at work


def test_micro_batches_under_bf16_autocast_are_as_close_as_bf16_is() -> None:
    whole, _ = gradients(Towers())
    AcceleratorState._reset_state(reset_partial_state=True)
    half = Accelerator(cpu=True, mixed_precision="bf16")
    pieces, values = gradients(half.prepare(Towers()), micro_batch=2, accelerator=half)
    assert_same(pieces, whole, tolerance=0.05)
    assert not all(torch.equal(pieces[name], whole[name]) for name in whole)  # autocast is at work
    assert values["loss"].dtype == torch.float32


def test_a_loss_scaler_scales_the_gradients_of_micro_batches_once() -> None:
    whole, _ = gradients(Towers())
    scaled = Accelerator(cpu=True)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    pieces, _ = gradients(Towers(), micro_batch=2, accelerator=scaled)
    assert_same(pieces, {name: 1024 * gradient for name, gradient in whole.items()})


def test_processes_exchange_gradients_only_after_the_last_micro_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accelerator = Accelerator(cpu=True)
    events: list[str] = []
    no_sync, backward = accelerator.no_sync, accelerator.backward

    def quiet(model: nn.Module) -> Any:
        events.append("no_sync")
        return no_sync(model)

    def loud(loss: Tensor) -> None:
        events.append("backward")
        backward(loss)

    monkeypatch.setattr(accelerator, "no_sync", quiet)
    monkeypatch.setattr(accelerator, "backward", loud)
    gradients(Towers(), micro_batch=3, accelerator=accelerator)
    assert events == ["no_sync", "backward", "no_sync", "backward", "backward"]


class Activation:
    """A tensor that autograd keeps for the backward pass, counted while it lives."""

    alive = peak = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        Activation.alive += tensor.nbytes
        Activation.peak = max(Activation.peak, Activation.alive)

    def __del__(self) -> None:
        Activation.alive -= self.tensor.nbytes


def peak_activations(micro_batch: int | None) -> tuple[int, list[int]]:
    """Most bytes of activations that are kept at once, and the sizes of the forward passes."""
    model = Towers()
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    Activation.alive = Activation.peak = 0

    def pack(tensor: Tensor) -> Tensor | Activation:
        return tensor if tensor.data_ptr() in weights else Activation(tensor)

    def unpack(kept: Tensor | Activation) -> Tensor:
        return kept.tensor if isinstance(kept, Activation) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        gradients(model, "info_nce", micro_batch)
    return Activation.peak, sizes


def test_activations_are_those_of_one_micro_batch() -> None:
    whole, sizes = peak_activations(None)
    assert sizes == [BATCH]
    pieces, sizes = peak_activations(2)
    assert sizes == [2] * 4 + [2] * 4
    assert whole > 10_000 and pieces < 0.5 * whole


def test_a_loss_that_is_not_finite_is_returned_without_a_second_pass() -> None:
    images, texts = inputs()
    images[5] = torch.nan
    model = Towers()
    calls: list[tuple[int, int]] = []

    def load(start: int, stop: int) -> Tensor:
        calls.append((start, stop))
        return images[start:stop]

    task = NBClipObjective(LossConfig(micro_batch=4), Accelerator(cpu=True))
    values = task.backward(model, load, texts, make_targets("semantic_matching").rows, 0)
    assert not values["loss"].isfinite()
    assert calls == [(0, 4), (4, 8)]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_batch_norm_in_training_mode_is_refused_with_the_two_ways_out() -> None:
    model = Towers(normalise=True)
    with pytest.raises(
        ConfigError, match=r"^loss\.micro_batch: visual\.1 .* --model\.freeze_batch_norm=true or .*=null$"
    ):
        gradients(model, micro_batch=2)
    gradients(model)  # the whole batch at once is no matter
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    whole, _ = gradients(model)
    pieces, _ = gradients(model, micro_batch=2)
    assert_same(pieces, whole)


def test_a_micro_batch_of_at_least_the_local_batch_is_one_pass() -> None:
    whole, _ = gradients(Towers(dropout=0.5))
    for micro_batch in (BATCH, 100):
        pieces, _ = gradients(Towers(dropout=0.5), micro_batch=micro_batch)
        assert all(torch.equal(pieces[name], whole[name]) for name in whole)


def test_a_micro_batch_below_one_is_named() -> None:
    with pytest.raises(ConfigError, match=r"loss\.micro_batch: 0 must be at least 1"):
        LossConfig(micro_batch=0)
