"""What is frozen stays as it is, in weights, statistics and dropout; what cannot be frozen so is an error."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.clip import fakes as fakes
from training.clip.config import ModelConfig, check_precision
from training.clip.load import Clip, build_clip
from training.errors import ConfigError


def _learning(model: nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters() if value.requires_grad}


def _step(clip: Clip, size: int) -> dict[str, Tensor]:
    """State before an SGD step of everything that learns, in train mode; the model itself is changed."""
    clip.model.train()
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    torch.manual_seed(0)
    output = clip.model(torch.randn(4, 3, size, size), clip.tokenizer(["a", "b", "c", "d e"]))
    logits = output["logit_scale"] * output["image_features"] @ output["text_features"].T
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    torch.optim.SGD([p for p in clip.model.parameters() if p.requires_grad], lr=0.5).step()
    return before


def _changed(clip: Clip, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in clip.model.state_dict().items() if not torch.equal(value, before[name])}


def test_a_locked_image_tower_keeps_weights_and_batch_norm_statistics_through_training(
    tmp_path: Path,
) -> None:
    vision = fakes.timm_tower("test_resnet", 64, timm_pool="avg")
    name = fakes.register(tmp_path, "freeze-resnet", vision)
    clip = build_clip(ModelConfig(name=name, lock_image=True))
    changed = _changed(clip, _step(clip, 64))
    assert "visual.head.proj.weight" in changed  # the projection of a timm tower still learns
    assert not {key for key in changed if key.startswith("visual.trunk.")}
    assert not any(module.training for module in clip.model.visual.trunk.modules())
    assert clip.model.transformer.training
    free = build_clip(ModelConfig(name=name))
    assert any("running_mean" in key for key in _changed(free, _step(free, 64)))  # and it would have changed


def test_frozen_batch_norm_keeps_its_statistics_while_scale_and_shift_learn(tmp_path: Path) -> None:
    name = fakes.register(tmp_path, "freeze-bn", fakes.timm_tower("test_resnet", 64, timm_pool="avg"))
    clip = build_clip(ModelConfig(name=name, freeze_batch_norm=True))
    changed = _changed(clip, _step(clip, 64))
    assert not {key for key in changed if "running" in key or "num_batches" in key}
    assert {"visual.trunk.bn1.weight", "visual.trunk.bn1.bias", "visual.trunk.conv1.weight"} & changed
    clip.model.train()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        whole = clip.model.visual(images)
        parts = torch.cat([clip.model.visual(images[:1]), clip.model.visual(images[1:])])
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-4)  # each image by itself


def test_a_frozen_part_stays_in_eval_mode_in_copies_and_pickles_too() -> None:
    model = build_clip(ModelConfig(name="test-vit", lock_image=True)).model
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.train()
        assert other.training and not any(module.training for module in other.visual.modules())
        other.visual.training = True
        other.train()
        assert not other.visual.training  # its own, not the first model's


def test_dropout_of_a_frozen_hugging_face_tower_is_off_and_its_projection_learns(tmp_path: Path) -> None:
    bert = fakes.write_bert(tmp_path / "bert")
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    name = fakes.register(tmp_path, "freeze-hf", vision, fakes.hf_text(fakes.HUB_TEXT))
    clip = build_clip(ModelConfig(name=name, text_weights=str(bert), lock_text=True))
    clip.model.train()
    tokens = clip.tokenizer(["ct of the chest"])
    first, second = (clip.model.encode_text(tokens) for _ in range(2))
    assert torch.equal(first, second)
    changed = _changed(clip, _step(clip, 32))
    assert {key for key in changed if key.startswith("text.")} == {"text.proj.0.weight", "text.proj.2.weight"}
    half = build_clip(
        ModelConfig(name=name, text_weights=str(bert), lock_text=True, lock_text_unlocked_layers=1)
    )
    learning = {key for key in _learning(half.model) if key.startswith("text.transformer.")}
    assert learning and all(".layer.1." in key for key in learning)
    with pytest.raises(ConfigError, match=r"lock_text_unlocked_layers 3: .*it has 2 layers"):
        build_clip(
            ModelConfig(name=name, text_weights=str(bert), lock_text=True, lock_text_unlocked_layers=3)
        )
    half.model.train()
    layers: Any = half.model.text.transformer.encoder.layer
    assert not layers[0].training and layers[1].training


def test_unlocked_groups_and_layers_learn_again() -> None:
    config = ModelConfig(
        name="test-vit",
        lock_image=True,
        lock_image_unlocked_groups=1,
        lock_text=True,
        lock_text_unlocked_layers=1,
    )
    assert _learning(build_clip(config).model) == {"visual.proj", "text_projection", "logit_scale"}


def test_the_last_groups_of_a_timm_trunk_learn_and_its_frozen_batch_norm_rests(tmp_path: Path) -> None:
    name = fakes.register(tmp_path, "freeze-groups", fakes.timm_tower("test_resnet", 64, timm_pool="avg"))
    clip = build_clip(ModelConfig(name=name, lock_image=True, lock_image_unlocked_groups=1))
    changed = {key for key in _changed(clip, _step(clip, 64)) if key.startswith("visual.trunk.")}
    learning = {key for key in _learning(clip.model) if key.startswith("visual.trunk.")}
    assert learning and all(key.startswith("visual.trunk.layer4.") for key in learning)
    assert changed and all(key.startswith("visual.trunk.layer4.") for key in changed)


def test_locks_that_a_tower_does_not_offer_are_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"lock_image_unlocked_groups 2: open_clip cannot lock this tower so"
    ):
        build_clip(ModelConfig(name="demo-resnet", lock_image=True, lock_image_unlocked_groups=2))
    with pytest.raises(ConfigError, match=r"lock_image_unlocked_groups 9: unlocks the whole tower"):
        build_clip(ModelConfig(name="test-vit", lock_image=True, lock_image_unlocked_groups=9))
    with pytest.raises(ConfigError, match=r"lock_text_unlocked_layers 9: unlocks the whole tower"):
        build_clip(ModelConfig(name="test-vit", lock_text=True, lock_text_unlocked_layers=9))
    with pytest.raises(ConfigError, match="freeze every weight"):
        build_clip(ModelConfig(name="test-vit", lock_image=True, lock_text=True))
    with pytest.raises(ConfigError, match="grad_checkpointing: a tower does not offer it"):
        build_clip(ModelConfig(name="demo-resnet", grad_checkpointing=True))


@pytest.mark.parametrize("tower", ["test-vit", "timm", "hf"])
def test_gradient_checkpointing_gives_the_same_gradients(tower: str, tmp_path: Path) -> None:
    size, name, given = 32, "test-vit", {}
    if tower == "timm":
        size = 160
        name = fakes.register(tmp_path, "checkpoint-timm", fakes.timm_tower("test_vit", 160, timm_pool=""))
    elif tower == "hf":
        vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
        name = fakes.register(tmp_path, "checkpoint-hf", vision, fakes.hf_text(fakes.HUB_TEXT))
        bert = fakes.write_bert(tmp_path / "bert")
        settings = (bert / "config.json").read_text()
        (bert / "config.json").write_text(settings.replace('_dropout_prob": 0.1', '_dropout_prob": 0.0'))
        given = {"text_weights": str(bert)}
    plain = build_clip(ModelConfig(name=name, **given))
    saving = build_clip(ModelConfig(name=name, grad_checkpointing=True, **given))
    saving.model.load_state_dict(plain.model.state_dict())
    kept = []
    for clip in (plain, saving):
        count = 0

        def pack(value: Tensor) -> Tensor:
            nonlocal count
            count += value.numel()
            return value

        clip.model.train()
        images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            output = clip.model(images, clip.tokenizer(["a", "b", "c", "d e"]))
            logits = output["image_features"] @ output["text_features"].T
            loss = nn.functional.cross_entropy(logits, torch.arange(4))
        kept.append(count)
        loss.backward()
    for (name, one), (_, two) in zip(
        plain.model.named_parameters(), saving.model.named_parameters(), strict=True
    ):
        if one.grad is None:
            assert two.grad is None, name
        else:
            torch.testing.assert_close(two.grad, one.grad, atol=1e-6, rtol=1e-4)
    assert kept[1] < 0.7 * kept[0]  # what it is for: fewer activations are kept


def test_fields_that_contradict_each_other_are_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.lock_image_unlocked_groups needs model\.lock_image true"):
        ModelConfig(lock_image_unlocked_groups=1)
    with pytest.raises(ConfigError, match=r"model\.name brings .* leave model\.pretrained out"):
        ModelConfig(name="local-dir:somewhere", pretrained="openai")
    with pytest.raises(ConfigError, match=r"model\.pretrained brings .* leave model\.image_weights out"):
        ModelConfig(pretrained="openai", image_weights="efficientnet-lite0")
    with pytest.raises(ConfigError, match=r"model\.precision"):
        ModelConfig(precision="fp8")
    with pytest.raises(ConfigError, match=r"model\.image_size: 8 must be at least 16"):
        ModelConfig(image_size=8)


def test_fp16_is_refused_on_a_cpu_and_only_there() -> None:
    with pytest.raises(ConfigError, match=r"fp16 needs a GPU"):
        check_precision("fp16", "cpu")
    check_precision("fp16", "cuda")
    check_precision("bf16", "cpu")
