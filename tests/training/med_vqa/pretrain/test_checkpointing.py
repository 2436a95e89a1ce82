"""``model.grad_checkpointing``: fewer activations are kept, and neither loss nor gradients change, dropout included."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.med_vqa import fakes as fakes
from training.med_vqa.pretrain.config import PretrainConfig, PretrainDataConfig, PretrainModelConfig
from training.med_vqa.pretrain.objective import PretrainingStep
from training.med_vqa.pretrain.soft_labels import StepTargets

LENGTHS = (6, 4, 5, 3, 6)


def made(folder: Path, stage: str, saving: bool) -> PretrainingStep:
    start = "x" if stage == "two" else None
    model = PretrainModelConfig(preset="tiny", dropout=0.3, init_from=start, grad_checkpointing=saving)
    data = PretrainDataConfig(store="s", data_root="d")
    vqa = fakes.built(folder / "bert", dropout=0.3).model
    torch.manual_seed(1)
    return PretrainingStep(PretrainConfig(output="o", stage=stage, model=model, data=data), vqa).train()


def trained(model: PretrainingStep) -> tuple[float, dict[str, Tensor], int]:
    """Loss and gradients of a step, and bytes of the activations that were kept for the gradients."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(2, len(LENGTHS), 3, 32, 32, generator=generator)
    ids = torch.randint(5, 12, (1, len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = fakes.mask(*LENGTHS)
    hard = fakes.hard_targets(len(LENGTHS), len(LENGTHS), 0)
    kept: dict[int, int] = {}
    weights = {value.data_ptr() for value in model.parameters()}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        wanted = StepTargets(hard, hard, hard, hard, hard, None)
        loss: Tensor = model(ids, mask[None], wanted, 0, mask, torch.Generator(), images)["loss"]
    loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return loss.item(), found, sum(kept.values())


@pytest.mark.parametrize("stage", ["one", "two"])
def test_less_is_kept_and_the_gradients_are_the_same(stage: str, tmp_path: Path) -> None:
    loss, gradients, kept = trained(made(tmp_path, stage, saving=False))
    again, others, fewer = trained(made(tmp_path, stage, saving=True))
    assert again == loss and gradients.keys() == others.keys()
    assert any(name.startswith("vqa.co_attention.") for name in gradients) == (stage == "two")
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, msg=name)
    assert fewer < (0.7 if stage == "one" else 0.5) * kept


def passes(model: PretrainingStep) -> int:
    """How often a step computes the first layer of the co-attention."""
    calls: list[nn.Module] = []
    first: nn.Module = model.vqa.co_attention.image[0].self_attention
    first.register_forward_pre_hook(lambda module, given: calls.append(module))
    trained(model)
    return len(calls)


def test_a_co_attention_that_learns_is_computed_twice(tmp_path: Path) -> None:
    once, twice = (passes(made(tmp_path, "two", saving)) for saving in (False, True))
    assert 0 < 2 * once == twice


def test_what_is_saved_and_scored_does_not_know_of_it(tmp_path: Path) -> None:
    plain, saving = (made(tmp_path, "two", saving).eval() for saving in (False, True))
    assert list(plain.state_dict()) == list(saving.state_dict())
    words, tokens = torch.randn(3, 6, 16), torch.randn(3, 5, plain.vqa.vision.width)
    with torch.no_grad():
        found = [model.fuse(words, fakes.mask(6, 4, 2), tokens) for model in (plain, saving)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
