"""A teacher's digest changes with everything that changes its vectors, and with nothing else."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BertConfig

from tests.training.clip import fakes as fakes
from tests.training.teachers import checkpoints as checkpoints
from training.teachers import checkpoints as reading
from training.teachers.encoder import Encoder
from training.teachers.registry import open_teacher

CAPTIONS = ["ct head", "normal chest of the head mri"]
Change = Callable[[dict[str, Any]], Any]


def seen(kind: str, folder: Path) -> tuple[str, Tensor]:
    """Digest, and the vectors of two captions and two images."""
    teacher = open_teacher(f"{kind}:{folder}", "cpu")
    assert isinstance(teacher, Encoder)
    pictures = [Image.effect_mandelbrot((40, 60), (-2, -1, 1, 1), 20), Image.linear_gradient("L")]
    vectors = teacher.image(torch.stack([teacher.prepare(picture) for picture in pictures]))
    return teacher.digest, torch.cat([teacher.text(CAPTIONS), vectors])


def edit(path: Path, change: Change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def check(kind: str, folder: Path, change: Callable[[], Any]) -> None:
    """``change`` gives other vectors, and so another digest."""
    digest, vectors = seen(kind, folder)
    change()
    other, changed = seen(kind, folder)
    assert (vectors - changed).abs().max() > 1e-6, "the test must change something"
    assert other != digest


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda all: all["text_config"].update(eos_token_id=9)),
        ("config.json", lambda all: all["vision_config"].update(num_attention_heads=4)),
        ("config.json", lambda all: all["text_config"].update(num_attention_heads=4)),
        ("config.json", lambda all: all["vision_config"].update(layer_norm_eps=0.01)),
        ("config.json", lambda all: all["text_config"].update(hidden_act="gelu")),
        ("preprocessor_config.json", lambda all: all.update(do_normalize=False)),
        ("preprocessor_config.json", lambda all: all.update(do_rescale=False)),
        ("preprocessor_config.json", lambda all: all.update(resample=0)),
    ],
)
def test_of_a_hugging_face_folder(tmp_path: Path, file: str, change: Change) -> None:
    checkpoints.write_hf_clip(tmp_path)
    check("hf", tmp_path, lambda: edit(tmp_path / file, change))


def test_where_a_folder_lies_and_who_wrote_it_are_not_asked(tmp_path: Path) -> None:
    checkpoints.write_hf_clip(tmp_path / "here")
    digest, vectors = seen("hf", tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "elsewhere")

    def rename(config: dict[str, Any]) -> None:
        for part in (config, config["text_config"], config["vision_config"]):
            part.update(transformers_version="4.0.0", _name_or_path="/of/others", dtype="float16")

    edit(tmp_path / "elsewhere" / "config.json", rename)
    edit(tmp_path / "elsewhere" / "preprocessor_config.json", lambda all: all.update(processor_class="CLIP"))
    other, moved = seen("hf", tmp_path / "elsewhere")
    assert torch.equal(vectors, moved) and other == digest
    assert seen("hf", tmp_path / "here")[0] == digest


@pytest.mark.parametrize(
    "change",
    [
        lambda all: all["vision_cfg"].update(head_width=32),
        lambda all: all["text_cfg"].update(heads=4),
        lambda all: all["text_cfg"].update(pool_type="last"),
        lambda all: all["text_cfg"].update(norm_kwargs={"eps": 0.01}),
        lambda all: all.update(quick_gelu=True),
    ],
)
def test_of_an_open_clip_folder(tmp_path: Path, change: Change) -> None:
    folder = checkpoints.write_open_clip(tmp_path)
    check(
        "open_clip",
        folder,
        lambda: edit(folder / "open_clip_config.json", lambda all: change(all["model_cfg"])),
    )


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda all: all.update(num_attention_heads=4)),
        ("config.json", lambda all: all.update(layer_norm_eps=0.1)),
        (
            "open_clip_config.json",
            lambda all: all["model_cfg"]["text_cfg"].update(hf_pooler_type="mean_pooler"),
        ),
    ],
)
def test_of_an_open_clip_folder_whose_text_tower_is_hugging_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, change: Change
) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "biomedclip"
    for place in (cache, folder):
        place.mkdir()
    fakes.use_cache(cache, monkeypatch)
    fakes.cache_biomed_clip(tmp_path, cache)
    for place in sorted(cache.glob("*/snapshots/*"), reverse=True):
        for source in place.iterdir():
            (folder / source.name).write_bytes(source.read_bytes())
    check("open_clip", folder, lambda: edit(folder / file, change))


@pytest.mark.parametrize("kind", ["medclip", "pmc_clip"])
@pytest.mark.parametrize("given", [{"hidden_act": "relu"}, {"layer_norm_eps": 0.1}])
def test_of_what_was_read_off_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, given: dict[str, Any]
) -> None:
    """As if a later transformers took others for granted."""
    write(kind, tmp_path / kind)
    later = partial(BertConfig, **given)
    check(kind, tmp_path / kind, lambda: monkeypatch.setattr(reading, "BertConfig", later))


@pytest.mark.parametrize("kind", ["medclip", "pmc_clip"])
def test_of_words_that_no_probe_holds(tmp_path: Path, kind: str) -> None:
    write(kind, tmp_path / kind)
    vocabulary = tmp_path / kind / "vocab.txt"
    words = vocabulary.read_text().split("\n")
    ct, head = words.index("ct"), words.index("head")
    words[ct], words[head] = "head", "ct"
    check(kind, tmp_path / kind, lambda: vocabulary.write_text("\n".join(words)))


def write(kind: str, folder: Path) -> None:
    if kind == "medclip":
        checkpoints.write_medclip(folder)
    else:
        checkpoints.write_pmc_clip(folder, parts=True)
