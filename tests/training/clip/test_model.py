"""Where image features are taken, and what makes a model loadable again."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from training.clip.features import image_features
from training.clip.load import load_clip
from training.errors import CheckpointError, ConfigError


class Touch:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["demo-resnet", "test-vit"])
def test_features_before_the_projection_become_the_embedding_when_projected(name: str) -> None:
    clip = load_clip(name)
    clip.model.eval()
    visual = clip.model.visual
    images = torch.randn(
        2, 3, *visual.image_size if isinstance(visual.image_size, tuple) else [visual.image_size] * 2
    )
    with torch.no_grad():
        before = image_features(clip.model, images)
        after = image_features(clip.model, images, projected=True)
        # Directions are all that unit features keep, so compare the projection of the direction up to its bias.
        if name == "demo-resnet":
            visual.attnpool.c_proj.bias.zero_()
            after = image_features(clip.model, images, projected=True)
            projected = visual.attnpool.c_proj(before)
        else:
            projected = before @ visual.proj
    torch.testing.assert_close(torch.nn.functional.normalize(projected, dim=-1), after, atol=1e-5, rtol=1e-4)
    assert before.shape[1] == {"demo-resnet": 768, "test-vit": 32}[name]


def test_taking_features_leaves_the_model_as_it_was() -> None:
    clip = load_clip("demo-resnet")
    names = list(clip.model.state_dict())
    image_features(clip.model.eval(), torch.randn(1, 3, 64, 64))
    assert list(clip.model.state_dict()) == names


def test_unknown_architecture_and_broken_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shipped here: demo-resnet, lite0-minilm"):
        load_clip("no-such-model")
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json is missing or damaged"):
        load_clip(f"local-dir:{tmp_path}")


def test_weights_without_a_logit_bias_get_the_one_asked_for_and_not_open_clips_zero(tmp_path: Path) -> None:
    plain = load_clip("test-vit")
    torch.save(plain.model.state_dict(), tmp_path / "weights.pt")
    clip = load_clip("test-vit", str(tmp_path / "weights.pt"), logit_bias=-10.0)
    assert clip.model.logit_bias.item() == -10.0 and clip.model.logit_bias.requires_grad
    assert clip.config["model_cfg"]["init_logit_bias"] == -10.0
    assert plain.model.logit_bias is None and "init_logit_bias" not in plain.config["model_cfg"]


def test_a_file_that_is_no_weights_is_one_error_and_nothing_in_it_is_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text").write_text("hostname\n")
    (tmp_path / "text.safetensors").write_text("hostname\n")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Touch(str(tmp_path / "touched"))))
    torch.save(Touch(str(tmp_path / "touched")), tmp_path / "evil_zip.pt")
    torch.save({}, tmp_path / "nothing.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("text", "text.safetensors", "evil.pt", "evil_zip.pt", "nothing.pt", "list.pt", "absent.pt"):
        with pytest.raises(ConfigError, match=r"model\.pretrained .*") as caught:
            load_clip("test-vit", str(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()
    assert not caplog.records  # open_clip logs some of them as well, on the root logger
