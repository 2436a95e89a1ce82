"""The folder that open_clip loads: every tensor, no path of this machine, a full disk told as one."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from training.clip.load import WEIGHTS, Clip, load_clip, write_model_folder


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip("test-vit")


def test_a_trained_copy_with_strided_and_shared_tensors_comes_back_exactly(
    clip: Clip, tmp_path: Path
) -> None:
    model = load_clip("test-vit").model
    model.to(memory_format=torch.channels_last)
    model.visual.proj = nn.Parameter(torch.randn(16, 32).T)  # not contiguous
    model.ln_final.bias = model.ln_final.weight  # two names, one tensor
    storage = torch.randn(64)
    model.visual.ln_post.weight = nn.Parameter(storage[:32])  # two views of one storage
    model.visual.ln_post.bias = nn.Parameter(storage[32:])
    expected = {name: value.detach().clone() for name, value in model.state_dict().items()}
    write_model_folder(tmp_path / "model", model, clip)
    found = load_file(tmp_path / "model" / WEIGHTS)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    again = open_clip.create_model(f"local-dir:{tmp_path / 'model'}")
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())


def test_a_text_tower_that_was_named_by_a_path_is_named_by_its_folder(clip: Clip, tmp_path: Path) -> None:
    clip.config["model_cfg"]["text_cfg"]["hf_model_name"] = str(tmp_path)
    try:
        write_model_folder(tmp_path / "model", clip.model, clip)
    finally:
        del clip.config["model_cfg"]["text_cfg"]["hf_model_name"]
    saved = json.loads((tmp_path / "model" / "open_clip_config.json").read_text())
    assert saved["model_cfg"]["text_cfg"]["hf_model_name"] == "."


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_model_folder(tmp_path / "file" / "model", clip.model, clip)
    folder = tmp_path / "model"
    (folder / WEIGHTS).mkdir(parents=True)  # safetensors cannot put its file there
    with pytest.raises(OSError):
        write_model_folder(folder, clip.model, clip)
