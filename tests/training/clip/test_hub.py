"""Models from the hub's cache and from folders: BiomedCLIP's layout, plain open_clip, and wrong folders."""

import json
from pathlib import Path

import open_clip
import pytest
import torch

from tests.training.clip import fakes as fakes
from training.clip.config import ModelConfig
from training.clip.features import image_features, text_features
from training.clip.load import build_clip, load_clip, write_model_folder
from training.errors import CheckpointError, ConfigError

CAPTIONS = ["CT of the chest", "normal MRI of the head"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    fakes.use_cache(folder, monkeypatch)
    return folder


def test_biomed_clips_layout_loads_from_the_hubs_cache_and_its_saved_folder_needs_no_hub(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.cache_biomed_clip(tmp_path, cache)
    clip = load_clip(f"hf-hub:{fakes.HUB_CLIP}")
    clip.model.eval()
    tokens, images = clip.tokenizer(CAPTIONS), torch.randn(2, 3, 160, 160)
    assert tokens.tolist()[0][:6] == [2, 7, 9, 10, 5, 3]  # [CLS] ct of the chest [SEP]
    plain = open_clip.create_model(f"hf-hub:{fakes.HUB_CLIP}").eval()
    with torch.no_grad():
        expected = torch.nn.functional.normalize(plain.encode_text(tokens), dim=-1)
        torch.testing.assert_close(text_features(clip.model, tokens), expected)
        torch.testing.assert_close(clip.mean.flatten(), torch.tensor([0.48, 0.46, 0.41]))

        folder = tmp_path / "saved"
        write_model_folder(folder, clip.model, clip)
        texts = [p.read_text() for p in folder.iterdir() if p.suffix == ".json"]
        assert not any(str(tmp_path) in text for text in texts)
        # Plain open_clip finds the text tower's architecture in the cache, as it does for BiomedCLIP itself.
        again, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        torch.testing.assert_close(again.eval().encode_text(tokens), plain.encode_text(tokens))

        fakes.use_cache(tmp_path / "empty", monkeypatch)
        ours = load_clip(f"local-dir:{folder}")
        ours.model.eval()
        assert torch.equal(ours.tokenizer(CAPTIONS), tokens)
        torch.testing.assert_close(text_features(ours.model, tokens), expected)
        torch.testing.assert_close(
            image_features(ours.model, images), image_features(clip.model, images), atol=1e-6, rtol=1e-5
        )
        # The model card's lines for plain open_clip without a hub.
        text_cfg = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
        text_cfg |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
        offline, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}", text_cfg=text_cfg)
        torch.testing.assert_close(offline.eval().encode_text(tokens), plain.encode_text(tokens))
        assert torch.equal(open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS), tokens)


def test_a_model_that_the_hub_and_its_cache_lack_is_one_line(cache: Path) -> None:
    with pytest.raises(ConfigError, match=r'model\.name "hf-hub:tests/none"') as caught:
        load_clip("hf-hub:tests/none")
    assert "\n" not in str(caught.value)


def test_a_repository_without_weights_is_an_error_and_not_a_random_model(tmp_path: Path, cache: Path) -> None:
    fakes.cache_biomed_clip(tmp_path, cache)
    next(cache.glob("*biomed*/snapshots/*/open_clip_pytorch_model.bin")).unlink()
    with pytest.raises(ConfigError, match="could not be loaded"):
        load_clip(f"hf-hub:{fakes.HUB_CLIP}")


def test_a_text_tower_starts_from_a_local_folder_and_its_hub_is_not_asked(
    tmp_path: Path, cache: Path
) -> None:
    bert = fakes.write_bert(tmp_path / "bert")
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    name = fakes.register(tmp_path, "tiny-hf-text", vision, fakes.hf_text(fakes.HUB_TEXT))
    with pytest.raises(ConfigError, match=r"tiny-hf-text.*--model\.text_weights"):
        load_clip(name)
    clip = build_clip(ModelConfig(name=name, text_weights=str(bert), lock_text=True))
    from transformers import AutoModel

    own = AutoModel.from_pretrained(bert, add_pooling_layer=False).state_dict()
    loaded = clip.model.text.transformer.state_dict()
    assert all(torch.equal(own[key], loaded[key]) for key in own)
    assert clip.config["model_cfg"]["text_cfg"]["hf_model_name"] == fakes.HUB_TEXT
    learning = {name for name, value in clip.model.text.named_parameters() if value.requires_grad}
    assert learning == {"proj.0.weight", "proj.2.weight"}
    write_model_folder(tmp_path / "saved", clip.model, clip)
    again = load_clip(f"local-dir:{tmp_path / 'saved'}")
    tokens = clip.tokenizer(CAPTIONS)
    assert torch.equal(again.tokenizer(CAPTIONS), tokens)
    with torch.no_grad():
        clip.model.eval(), again.model.eval()
        torch.testing.assert_close(text_features(again.model, tokens), text_features(clip.model, tokens))


def test_a_hub_tokenizer_before_an_own_text_tower_is_saved_with_the_model(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.into_cache(cache, fakes.HUB_TEXT, fakes.write_bert(tmp_path / "bert"))
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {**fakes.TINY_TEXT, "hf_tokenizer_name": fakes.HUB_TEXT}  # as SigLIP's architectures have it
    clip = load_clip(fakes.register(tmp_path, "tiny-hub-tokenizer", vision, text))
    write_model_folder(tmp_path / "saved", clip.model, clip)
    fakes.use_cache(tmp_path / "empty", monkeypatch)
    again = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'saved'}")
    assert torch.equal(again(CAPTIONS), clip.tokenizer(CAPTIONS))
    assert again(CAPTIONS).shape == (2, 12)


def test_text_weights_need_a_hugging_face_tower_and_a_model_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"\(those of a Hugging Face text tower\): set --model.text_weights null, or --model.name lite0-m",
    ):
        build_clip(ModelConfig(name="test-vit", text_weights=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        build_clip(ModelConfig(name="lite0-minilm", text_weights=str(tmp_path)))


def test_wrong_model_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not an open_clip model folder.*missing"):
        load_clip(f"local-dir:{tmp_path / 'nothing'}")
    clip = load_clip("test-vit")
    folder = tmp_path / "model"
    write_model_folder(folder, clip.model, clip)
    weights = folder / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"truncated or damaged") as caught:
        load_clip(f"local-dir:{folder}")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    weights.unlink()
    with pytest.raises(CheckpointError, match="could not be loaded"):
        load_clip(f"local-dir:{folder}")
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": 3, "text_cfg": {}}}')
    with pytest.raises(CheckpointError, match="damaged"):
        load_clip(f"local-dir:{folder}")


def test_weights_of_another_architecture_are_told_by_their_first_parameter(tmp_path: Path) -> None:
    clip = load_clip("test-vit")
    state = clip.model.state_dict()
    torch.save(state | {"visual.ln_post.weight": torch.ones(7)}, tmp_path / "shape.pt")
    with pytest.raises(ConfigError, match=r'"visual\.ln_post\.weight" is \[7\] in the file and \[32\]'):
        load_clip("test-vit", str(tmp_path / "shape.pt"))
    torch.save({k: v for k, v in state.items() if k != "visual.proj"}, tmp_path / "missing.pt")
    with pytest.raises(ConfigError, match=r'"visual\.proj" is missing from the file'):
        load_clip("test-vit", str(tmp_path / "missing.pt"))
    torch.save(state | {"visual.other": torch.ones(1)}, tmp_path / "extra.pt")
    with pytest.raises(ConfigError, match=r'"visual\.other" of the file is not in the model'):
        load_clip("test-vit", str(tmp_path / "extra.pt"))


def test_an_unknown_tag_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"its tags: .*openai"):
        load_clip("ViT-B-32", "no-such-tag")
