"""What a fine-tuning run learns from: the training questions alone, with all images that can be read, of any kind."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from kg_targets.manifest import Manifest
from tests.images import encoded, plain_clip
from tests.training.vqa.world import edit_questions, write_world
from training.arguments import read_config
from training.errors import ConfigError, DataError
from training.med_vqa.finetune.config import FinetuneConfig, VQADataConfig
from training.med_vqa.finetune.data import FinetuneData, StepImages
from training.med_vqa.model.images import ImageTable
from training.vqa.answers import accepted_answers
from training.vqa.protocols import PROTOCOLS, Split, prepare

SIZE = 8


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path / "world")


def split_of(world: Path, protocol: str = "strict") -> Split:
    return prepare(Manifest.load("vqa_rad", "questions"), world / "data", protocol, validation_share=0.2)


def fake_vqa(world: Path, positions: int = 64) -> Any:
    """Tokenizer and preprocessing of a model, and an image tower that averages colours into two tokens."""
    from transformers import AutoTokenizer

    clip = plain_clip(SIZE)
    part = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=positions))
    tower = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((1, 2)), torch.nn.Flatten(2))
    model = SimpleNamespace(text=part, decoder=part, vision=tower, image_tokens=tower)
    return SimpleNamespace(
        tokenizer=AutoTokenizer.from_pretrained(world / "tokenizer"), preprocess=clip.preprocess,
        mean=clip.mean, std=clip.std, size=SIZE, model=model,
    )  # fmt: skip


def data_of(world: Path, protocol: str = "strict", **data: Any) -> FinetuneData:
    config = VQADataConfig(dataset="vqa_rad", data_root=str(world / "data"), **data)
    return FinetuneData(config, split_of(world, protocol), fake_vqa(world))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_training_loader_asks_the_training_questions_and_no_other(protocol: str, world: Path) -> None:
    # The released code's training loader iterated the test set (methods.md §2.6).
    split, data = split_of(world, protocol), data_of(world, protocol)
    held = {question.id for question in (*split.validation, *split.test)}
    assert held and not held & {question.id for question in split.train}
    asked: set[str] = set()
    for epoch in range(1, 9):
        for positions in data.sampler(4, seed=0).epoch(epoch):
            texts = data.batch(torch.as_tensor(positions))
            for place, position in enumerate(positions.tolist()):
                question = data.train[position]
                asked.add(question.id)
                words = fake_vqa(world).tokenizer.decode(
                    texts["question_ids"][place], skip_special_tokens=True
                )
                assert words == question.question
    assert asked == {question.id for question in split.train}


def test_under_strict_the_answers_of_the_test_part_are_unknown(world: Path) -> None:
    assert "upper lobe" not in data_of(world).answers.knowledge
    assert "upper lobe" in data_of(world, "paper").answers.knowledge
    assert not data_of(world, "paper").validation
    assert data_of(world, knowledge=False).answers.knowledge == []
    assert len(data_of(world, knowledge=False).knowledge) == 0


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("damage", "message"),
    [(Path.unlink, "No such file"), (_cut, "train3.png"), (lambda p: p.write_text("x"), "not an")],
)
def test_missing_and_broken_images_are_counted_and_one_too_many_is_named(
    damage: Callable[[Path], object], message: str, world: Path
) -> None:
    damage(world / "data" / "images" / "train3.png")
    with pytest.raises(DataError) as caught:
        data_of(world)
    told = str(caught.value)
    assert told.startswith("1 of 12 images are missing or broken, 0 allowed (data.max_broken); the first: ")
    assert "train3.png" in told and message in told and "\n" not in told
    data = data_of(world, max_broken=1)
    metadata = data.metadata()
    assert (metadata["broken_images"], metadata["images"], metadata["questions_without_image"]) == (1, 11, 4)
    assert metadata["questions"] + metadata["validation_questions"] == 44
    assert not any(question.image_path.endswith("train3.png") for question in (*data.train, *data.validation))


def test_a_data_set_without_images_is_an_error_and_blank_images_need_none(world: Path) -> None:
    for path in (world / "data" / "images").glob("*"):
        path.unlink()
    with pytest.raises(DataError, match="12 of 12 images are missing or broken"):
        data_of(world, max_broken=99)
    data = data_of(world, images="blank")
    assert data.images is None and len(data.train) + len(data.validation) == 48
    assert data.metadata()["images"] == 0


def _kinds() -> dict[str, bytes]:
    """The same picture, dark left half and bright right half, as six kinds of file."""
    ramp = np.zeros((SIZE, SIZE), dtype=np.uint8)
    ramp[:, SIZE // 2 :] = 200
    grey = Image.fromarray(ramp)
    rgba = Image.merge("RGBA", [grey, grey, grey, Image.new("L", grey.size, 255)])
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    return {
        "grey": encoded(grey), "rgb": encoded(grey.convert("RGB")), "rgba": encoded(rgba),
        "deep": encoded(deep), "cmyk": encoded(grey.convert("RGB").convert("CMYK"), "TIFF"),
        "one_bit": encoded(grey.convert("1", dither=Image.Dither.NONE)),
    }  # fmt: skip


@pytest.mark.parametrize("kind", _kinds())
def test_images_of_every_kind_are_seen_alike(kind: str, world: Path) -> None:
    (world / "data" / "images" / "train0.png").write_bytes(_kinds()[kind])
    images = data_of(world).images
    assert images is not None
    seen = images.normalised("images/train0.png")
    assert seen.shape == (3, SIZE, SIZE) and seen.dtype == torch.float32 and torch.isfinite(seen).all()
    assert (seen[:, :, : SIZE // 2] < -1).all() and (seen[:, :, SIZE // 2 :] > 1).all()


def test_questions_that_cannot_be_learnt_from_are_skipped_and_counted(world: Path) -> None:
    edit_questions(
        world / "data", "train",
        train_0={"answer": " ... "}, train_1={"question": ""}, train_2={"question": "left " * 1250},
        train_6={"answer": "left " * 200},
    )  # fmt: skip
    data = data_of(world, max_question_tokens=16)
    metadata = data.metadata()
    assert (
        metadata["questions"] + metadata["validation_questions"] == 46
        and sum(metadata["skipped"].values()) == 2
    )
    learnt = {question.id for question in data.train}
    assert {"train-2", "train-6"} <= learnt  # of the seed's training part
    assert metadata["questions_truncated"] >= 1 and metadata["answers_truncated"] == 1
    assert data.right_answers.ids.shape[1] == 32


def test_lengths_beyond_the_models_positions_are_refused_before_anything_is_read(world: Path) -> None:
    config = VQADataConfig(dataset="vqa_rad", data_root=str(world / "nowhere"), max_answer_tokens=20)
    with pytest.raises(ConfigError, match=r"data\.max_question_tokens: 64 exceeds the model's 16 positions"):
        FinetuneData(config, split_of(world), fake_vqa(world, positions=16))


def inputs_of(world: Path, table: ImageTable | None, **data: Any) -> Any:
    given = {"dataset": "vqa_rad", "data_root": world, "cache": world / "cache", "batch_size": 6, **data}
    flags = [f"--data.{name}={value}" for name, value in given.items()]
    config = read_config(
        FinetuneConfig, ["--output=o", "--model.preset=tiny", "--model.lock_vision=true", *flags]
    )
    return StepImages(config, fake_vqa(world), table, Accelerator(cpu=True))


@pytest.mark.parametrize(("views", "name"), [(0, "images"), (3, "image_tokens")])
def test_an_image_is_seen_alike_whatever_the_number_of_processes(views: int, name: str, world: Path) -> None:
    data = data_of(world)
    inputs = inputs_of(world, data.images, cached_views=views)
    rows = data.image_rows[torch.arange(6)]
    ((kind, whole),) = inputs(rows, 5, 0).items()
    assert kind == name
    parts = torch.cat([inputs(rows[start : start + 3], 5, start)[name] for start in (0, 3)])
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    assert not torch.equal(inputs(rows, 6, 0)[name], whole)  # another step, another view
    assert whole.dtype == torch.float32


def test_no_view_is_a_mirror_image(world: Path) -> None:
    data = data_of(world)
    inputs = inputs_of(world, data.images)
    sides = [accepted_answers(question)[0] for question in data.train]
    chosen = torch.tensor([place for place, side in enumerate(sides) if side == "left"])
    for step in range(1, 20):
        seen = inputs(data.image_rows[chosen[:6]], step, 0)["images"]
        assert (seen[..., : SIZE // 2].mean(dim=(1, 2, 3)) > seen[..., SIZE // 2 :].mean(dim=(1, 2, 3))).all()


def test_a_blank_image_is_the_mean_colour_for_every_question(world: Path) -> None:
    data = data_of(world, images="blank")
    inputs = inputs_of(world, data.images, images="blank")
    tokens = inputs(data.image_rows[torch.arange(4)], 1, 0)["image_tokens"]
    assert tokens.shape == (4, 3, 2) and not tokens.any()


def test_cached_tokens_that_would_not_fit_are_told_with_their_size(world: Path) -> None:
    data = data_of(world)
    assert data.images is not None
    data.images.pixels = data.images.pixels.repeat(20, 1, 1, 1)
    with pytest.raises(ConfigError, match=r"1024 views of 240 images take 3 MB .* data\.cached_mb allows 1"):
        inputs_of(world, data.images, cached_views=1024, cached_mb=1)


def test_a_text_model_without_the_words_of_the_questions_is_refused_before_training(world: Path) -> None:
    path = world / "data" / "trainset.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace("where is the bright side", "quo quae quid"),
        encoding="utf-8",
    )
    metadata = data_of(world).metadata()
    assert 0 < metadata["unknown_tokens"] < 0.2 and metadata["answers_colliding"] == 0
    with pytest.raises(
        ConfigError, match=r"vqa_rad: this text model does not know its words: .*data.max_unknown 1 trains"
    ):
        data_of(world, max_unknown=0.01)
