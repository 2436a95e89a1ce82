"""The folder of a model: what comes back, and what is told when it does not."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests import REPOSITORY
from tests.training.clip import fakes as clip_fakes
from tests.training.med_vqa import fakes as fakes
from training.errors import CheckpointError, ConfigError
from training.med_vqa import MedVQAModel
from training.med_vqa.model.saving import Answers, MedVQA, load_answers, load_med_vqa, save_med_vqa
from training.med_vqa.model.vision import build_tower

ANSWERS = Answers(["yes", "kopf μ"], ["yes", "no"], "strict", "vqa_rad", "training part of train")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> MedVQA:
    return fakes.built(tmp_path_factory.mktemp("start") / "bert")


@pytest.fixture
def folder(built: MedVQA, tmp_path: Path) -> Path:
    save_med_vqa(tmp_path / "model", built.model, built.tokenizer, ANSWERS)
    return tmp_path / "model"


def logits(model: MedVQAModel) -> torch.Tensor:
    batch = {name: value % 12 if name.endswith("_ids") else value for name, value in fakes.batch().items()}
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**batch)["logits"]
    return found


def test_a_saved_model_answers_bit_for_bit_the_same(built: MedVQA, folder: Path) -> None:
    again = load_med_vqa(folder)
    assert torch.equal(logits(again.model), logits(built.model)) and not again.model.training
    assert torch.equal(logits(MedVQAModel.from_pretrained(folder)), logits(built.model))
    assert again.clip_config == built.clip_config and again.size == built.size
    assert again.tokenizer("chest ct").input_ids == built.tokenizer("chest ct").input_ids
    assert load_answers(folder) == ANSWERS


def test_an_attention_that_reads_the_mask_otherwise_is_refused(built: MedVQA, folder: Path) -> None:
    # transformers' eager attention adds the decoder's bool mask as numbers: answers would see their own words.
    with pytest.raises(ConfigError, match='attn_implementation "eager"'):
        MedVQAModel.from_pretrained(folder, attn_implementation="eager")
    model = MedVQAModel.from_pretrained(folder, attn_implementation="sdpa")
    with pytest.raises(ConfigError, match="sdpa only"):
        model.set_attn_implementation("eager")
    assert torch.equal(logits(model), logits(built.model))
    model.set_attn_implementation("sdpa")
    model.decoder.set_attn_implementation("eager")
    with pytest.raises(ConfigError, match="sdpa only"):
        logits(model)


@pytest.mark.parametrize(
    "tower",
    [
        clip_fakes.timm_tower("test_vit", 160, timm_pool="avg"),
        clip_fakes.timm_tower("test_efficientnet", 64, timm_pool="avg"),
        {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    ],
    ids=["timm-vit", "timm-conv", "resnet"],
)
def test_every_kind_of_tower_comes_back_from_the_folder_alone(
    built: MedVQA, tower: dict[str, object], tmp_path: Path
) -> None:
    size = tower["image_size"]
    config = fakes.config(
        clip={"model_cfg": {"embed_dim": 16, "vision_cfg": tower}, "preprocess_cfg": {"size": size}}
    )
    torch.manual_seed(2)
    model = MedVQAModel(config).eval()
    save_med_vqa(tmp_path / "model", model, built.tokenizer, ANSWERS)
    images = torch.randn(2, 3, size, size)  # type: ignore[call-overload]
    with torch.no_grad():
        assert torch.equal(
            load_med_vqa(tmp_path / "model").model.image_tokens(images), model.image_tokens(images)
        )


def test_the_tower_keeps_its_own_initialisation() -> None:
    torch.manual_seed(4)
    own = build_tower(fakes.config().clip).state_dict()
    torch.manual_seed(4)
    within = MedVQAModel(fakes.config()).vision.state_dict()
    assert all(torch.equal(own[name], within[name]) for name in own)


def test_what_is_written_depends_on_the_model_alone(built: MedVQA, folder: Path, tmp_path: Path) -> None:
    again = load_med_vqa(folder)
    save_med_vqa(tmp_path / "again", again.model, again.tokenizer, load_answers(folder))
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "answers.json",
    } <= set(names)
    for name in names:
        content = (folder / name).read_bytes()
        assert content == (tmp_path / "again" / name).read_bytes(), name
        if name != "model.safetensors":
            assert str(tmp_path.parent) not in content.decode() and "bert/" not in content.decode(), name
    AutoTokenizer.from_pretrained(tmp_path / "again")


def test_others_may_read_the_files(built: MedVQA, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_med_vqa(tmp_path / "model", built.model, built.tokenizer, ANSWERS)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o644}


def change_json(name: str, **given: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **given}))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def cut(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "config.json").unlink(),
            "is not a Med-VQA model folder: it has no config.json",
        ),
        (cut("config.json"), r"config\.json is damaged"),
        (change_json("config.json", model_type="bert"), 'holds a model of type "bert", not kg_med_vqa'),
        (change_json("config.json", clip={}), "cannot be loaded: clip does not describe an image tower"),
        (
            change_json("config.json", gate_heads=5),
            "cannot be loaded: hidden_size: 32 must be a multiple of gate_heads 5",
        ),
        (
            change_json("config.json", gate_ffn=80),
            r'"gate\.feed_forward\.inner\.bias" is \[64\] in the file and \[80\]',
        ),
        (
            change_json("config.json", co_attention_layers=2),
            r'"co_attention\.image\.1\..*" is missing from the file',
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), r"it has no model\.safetensors"),
        (cut("model.safetensors"), "cannot be loaded: the .safetensors file is truncated or damaged"),
        (
            change_weights(lambda w: w.pop("gate.gate.weight")),
            r'"gate\.gate\.weight" is missing from the file',
        ),
        (change_weights(lambda w: w.update(more=torch.zeros(2))), '"more" of the file is not in the model'),
        (cut("tokenizer.json"), "cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_told_on_one_line(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as told:
        load_med_vqa(folder)
    assert "\n" not in str(told.value) and len(str(told.value)) < 600


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "answers.json").unlink(), "it has no answers.json"),
        (cut("answers.json"), r"answers\.json is damaged"),
        (lambda folder: (folder / "answers.json").write_text("[]"), "it is not a JSON object"),
        (change_json("answers.json", candidates="yes"), '"candidates": Input should be a valid array'),
        (change_json("answers.json", knowledge=[1]), r'"knowledge\.0": Input should be a valid string'),
        (change_json("answers.json", protocol=None), '"protocol": Input should be a valid string'),
    ],
)
def test_damaged_answers_are_told_on_one_line(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_answers(folder)


def test_the_page_shows_python_that_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = REPOSITORY / "docs" / "med_vqa.md"
    section = page.read_text(encoding="utf-8").split("## Model")[1]
    block = section.split("```python\n")[1].split("```")[0]
    Image.new("L", (50, 40), 90).save(tmp_path / "image.png")
    (tmp_path / "build" / "vqa").mkdir(parents=True)
    folder.rename(tmp_path / "build" / "vqa" / "checkpoint")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, str(page), "exec"), {})
    assert set(capsys.readouterr().out.split()) <= set(clip_fakes.WORDS)
