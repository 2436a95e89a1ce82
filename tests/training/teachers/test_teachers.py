"""Every kind of teacher from a tiny random checkpoint in its real format, against the towers called by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from torchvision.models.resnet import Bottleneck, ResNet
from transformers import CLIPModel, SwinModel

from tests.training.clip import fakes as fakes
from tests.training.teachers import checkpoints as checkpoints
from training.arguments import read_config
from training.errors import CheckpointError, ConfigError, DataError, KGTargetsError
from training.teachers.base import ImageTexts
from training.teachers.encoder import Encoder
from training.teachers.registry import (
    FOLDER,
    TEACHERS,
    TeacherConfig,
    named_teachers,
    open_teacher,
    slug,
)

CAPTIONS = ["ct head", "normal chest of the head mri", "ct head"]


def picture(seed: int = 0, size: tuple[int, int] = (70, 50)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    return Image.fromarray(pixels)


def pairs(count: int, captions: list[str] | None = None) -> ImageTexts:
    source: Any = SimpleNamespace(read=lambda row: picture(row))
    return ImageTexts([f"img{row}" for row in range(count)], captions or CAPTIONS[:count], source)


def opened(spec: str) -> Encoder:
    teacher = open_teacher(spec, "cpu")
    assert isinstance(teacher, Encoder)
    return teacher


def check_contract(teacher: Encoder, scale: float) -> None:
    """What every model teacher must do: unit vectors, one vector a caption in any batch, a stable digest."""
    assert teacher.scale == pytest.approx(scale, rel=1e-5)
    rows = np.arange(3)
    encoded = teacher.images(pairs(3), rows)
    texts = teacher.texts(pairs(3), rows)
    for vectors in (encoded.factors, texts):
        assert vectors.shape == (3, teacher.dim) and vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert not encoded.broken
    np.testing.assert_array_equal(texts[0], texts[2])
    np.testing.assert_allclose(teacher.texts(pairs(3), rows[1:2])[0], texts[1], atol=1e-5)
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert json.dumps(teacher.metadata()) and len(teacher.digest) == 64 and "/" not in teacher.name


def test_open_clip_folders_files_and_finished_runs(tmp_path: Path) -> None:
    folder = checkpoints.write_open_clip(tmp_path)
    teacher = opened(f"open_clip:{folder}")
    check_contract(teacher, 1 / 0.07)
    plain, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pixels = preprocess(picture())[None]
    with torch.no_grad():
        expected = normalize(plain.eval().encode_image(pixels), dim=-1)
        torch.testing.assert_close(teacher.image(teacher.prepare(picture())[None]), expected)
    same = opened(f"open_clip:tiny-teacher,{folder / 'open_clip_model.safetensors'}")
    torch.testing.assert_close(same.text(CAPTIONS), teacher.text(CAPTIONS))
    assert same.digest == teacher.digest
    run = tmp_path / "runs" / "sm"
    run.mkdir(parents=True)
    folder.rename(run / "checkpoint")
    with pytest.raises(CheckpointError, match="is not a finished training run"):
        open_teacher(f"run:{run}")
    (run / "finished.json").write_text("{}")
    ours = opened(f"run:{run}")
    torch.testing.assert_close(ours.text(CAPTIONS), teacher.text(CAPTIONS))
    assert ours.name == "run:sm" and slug(ours) == f"run-sm-{ours.digest[:8]}"


def test_biomed_clip_from_a_downloaded_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    fakes.use_cache(cache, monkeypatch)
    fakes.cache_biomed_clip(tmp_path, cache)
    hub = opened(f"open_clip:hf-hub:{fakes.HUB_CLIP}")
    check_contract(hub, 1 / 0.07)
    folder = tmp_path / "biomedclip"
    for place in sorted(
        cache.glob("*/snapshots/*"), reverse=True
    ):  # the architecture's files last, as advised
        folder.mkdir(exist_ok=True)
        for file in place.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    fakes.use_cache(tmp_path / "empty", monkeypatch)
    local = opened(f"open_clip:{folder}")
    torch.testing.assert_close(local.text(CAPTIONS), hub.text(CAPTIONS))


@pytest.mark.parametrize("pickled", [False, True])
def test_a_hugging_face_clip_folder(tmp_path: Path, pickled: bool) -> None:
    checkpoints.write_hf_clip(tmp_path / "pubmedclip", pickled)
    teacher = opened(f"hf:{tmp_path / 'pubmedclip'}")
    plain = CLIPModel.from_pretrained(tmp_path / "pubmedclip").eval()
    check_contract(teacher, float(plain.logit_scale.detach().exp()))
    tokens = teacher.tokens(CAPTIONS)
    with torch.no_grad():
        found = plain(pixel_values=teacher.prepare(picture())[None], **tokens)
    torch.testing.assert_close(teacher.image(teacher.prepare(picture())[None]), found.image_embeds)
    torch.testing.assert_close(teacher.text(CAPTIONS), found.text_embeds)


def test_a_hugging_face_folder_with_missing_weights_is_no_random_teacher(tmp_path: Path) -> None:
    model = checkpoints.write_hf_clip(tmp_path / "clip", pickled=True)
    weights = model.state_dict()
    del weights["text_projection.weight"]
    torch.save(weights, tmp_path / "clip" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r'parameter "text_projection\.weight" is missing'):
        open_teacher(f"hf:{tmp_path / 'clip'}")


@pytest.mark.parametrize("older", [False, True])
def test_medclip_with_swin(tmp_path: Path, older: bool) -> None:
    weights = checkpoints.write_medclip(tmp_path / "medclip", older=older)
    teacher = opened(f"medclip:{tmp_path / 'medclip'}")
    check_contract(teacher, float(np.exp(2.0)))
    swin = SwinModel.from_pretrained(tmp_path / "medclip" / "swin").eval()
    pixels = teacher.prepare(picture())
    with torch.no_grad():
        image = (
            swin(pixel_values=pixels[None]).pooler_output @ weights["vision_model.projection_head.weight"].T
        )
        torch.testing.assert_close(teacher.image(pixels[None]), normalize(image, dim=-1))
        # As MedCLIP's own code on one caption, which then has no padding.
        states = bert_states(
            weights, "text_model.model.", torch.tensor([[2, 7, 6, 3]])
        )  # [CLS] ct head [SEP]
        text = torch.stack([states[1], states[2], states[-1]]).permute(1, 0, 2, 3).mean(2).mean(1)
        text = text @ weights["text_model.projection_head.weight"].T
        text = text + weights.get("text_model.projection_head.bias", torch.zeros(16))
        torch.testing.assert_close(teacher.text(["ct head"]), normalize(text, dim=-1), atol=1e-5, rtol=1e-5)


def test_medclip_pads_grey_images_to_a_square(tmp_path: Path) -> None:
    checkpoints.write_medclip(tmp_path / "medclip")
    pixels = opened(f"medclip:{tmp_path / 'medclip'}").prepare(Image.new("RGB", (448, 112), (255, 255, 255)))
    assert pixels.shape == (3, 224, 224)
    values = pixels * 0.27950088968644304 + 0.5862785803043838
    assert torch.allclose(values[:, 112, 112], torch.ones(3), atol=1e-5)
    assert torch.allclose(values[:, 20, 112], torch.zeros(3), atol=1e-5)


def bert_states(weights: dict[str, Tensor], prefix: str, ids: Tensor) -> tuple[Tensor, ...]:
    """Every layer's states ``[B, L, H]`` of the BERT below ``prefix``; no token is masked."""
    bert = checkpoints.tiny_bert().eval()
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    bert.load_state_dict(own, strict=False)
    states: tuple[Tensor, ...] = bert(input_ids=ids, output_hidden_states=True).hidden_states
    return states


def length_one(vectors: Tensor) -> Tensor:
    return vectors / vectors.square().sum(dim=1, keepdim=True).sqrt()


@torch.no_grad()
def test_medclip_with_resnet(tmp_path: Path) -> None:
    weights = checkpoints.write_medclip(tmp_path / "medclip", swin=False)
    teacher = opened(f"medclip:{tmp_path / 'medclip'}")
    check_contract(teacher, float(np.exp(2.0)))
    tower = ResNet(Bottleneck, [1, 1, 1, 1])
    tower.fc = torch.nn.Identity()  # what is left ends with the mean over places
    prefix = "vision_model.model."
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    tower.load_state_dict({name: value for name, value in own.items() if name != "fc.weight"})
    grey = np.asarray(picture(size=(224, 224)), dtype=np.float64) / 255
    pixels = torch.tensor((grey - 0.5862785803043838) / 0.27950088968644304).float().expand(1, 3, 224, 224)
    image = tower.eval()(pixels) @ own["fc.weight"].T
    torch.testing.assert_close(
        teacher.image(teacher.prepare(picture(size=(224, 224)))[None]), length_one(image), atol=1e-5, rtol=0
    )
    states = bert_states(weights, "text_model.model.", torch.tensor([[2, 7, 6, 3]]))  # [CLS] ct head [SEP]
    mean = sum(states[layer].mean(dim=1) for layer in (1, 2, 3)) / 3
    text = mean @ weights["text_model.projection_head.weight"].T
    torch.testing.assert_close(teacher.text(["ct head"]), length_one(text), atol=1e-5, rtol=0)


def attention_pool(grid: Tensor, weights: dict[str, Tensor], heads: int) -> Tensor:
    """CLIP's ResNet ends so: the mean over places asks itself and all places; ``[C, H, W]`` to ``[1, D]``."""
    places = grid.flatten(1).T
    tokens = torch.cat([places.mean(dim=0, keepdim=True), places]) + weights["attnpool.positional_embedding"]
    query, keys, values = (
        tokens @ weights[f"attnpool.{part}_proj.weight"].T + weights[f"attnpool.{part}_proj.bias"]
        for part in ("q", "k", "v")
    )
    width = tokens.shape[1] // heads
    seen = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = query[0, part] @ keys[:, part].T / width**0.5
        seen.append(
            torch.exp(logits - logits.max()) @ values[:, part] / torch.exp(logits - logits.max()).sum()
        )
    return (torch.cat(seen) @ weights["attnpool.c_proj.weight"].T + weights["attnpool.c_proj.bias"])[None]


@pytest.mark.parametrize(("parts", "scale"), [(True, 4.4292), (False, 3.0)])
@torch.no_grad()
def test_pmc_clip_in_both_published_forms(tmp_path: Path, parts: bool, scale: float) -> None:
    weights = checkpoints.write_pmc_clip(tmp_path / "pmcclip", parts)
    teacher = opened(f"pmc_clip:{tmp_path / 'pmcclip'}")
    check_contract(teacher, float(np.exp(scale)))
    assert teacher.preprocessing["size"] == 64
    # 70 x 50: the shorter side to 64, the middle of the longer one.
    wide = picture().convert("RGB").resize((89, 64), Image.Resampling.BICUBIC).crop((12, 0, 76, 64))
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = torch.tensor((np.asarray(wide) / 255.0 - mean) / std).permute(2, 0, 1).float()
    torch.testing.assert_close(teacher.prepare(picture()), pixels)
    tower = ModifiedResNet([1, 1, 1, 1], output_dim=64, heads=4, image_size=64, width=8).eval()
    tower.load_state_dict({name: value for name, value in weights.items() if name in tower.state_dict()})
    tower.attnpool = torch.nn.Identity()
    image = attention_pool(tower(pixels[None])[0], weights, heads=4)  # 8 channels of the stem · 32 / 64
    torch.testing.assert_close(teacher.image(pixels[None]), length_one(image), atol=1e-5, rtol=0)
    ids = torch.tensor([[2, 7, 6, 3, *[0] * 73]])  # [CLS] ct head [SEP], padding attended to
    text = bert_states(weights, "text_encoder.", ids)[-1][:, 0] @ weights["text_projection"]
    torch.testing.assert_close(teacher.text(["ct head"]), length_one(text), atol=1e-5, rtol=0)


def test_precomputed_embeddings(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    table = pa.table(
        {
            "image_id": ["img2", "img1", "other", "img0"],
            "image_embedding": list(vectors),
            "text_embedding": list(-2 * vectors),
            "scale": [25.0] * 4,
        }
    )
    pq.write_table(table, tmp_path / "embeddings.parquet")
    teacher = open_teacher(f"parquet:{tmp_path / 'embeddings.parquet'}")
    assert (teacher.dim, teacher.scale, teacher.reads_images) == (5, 25.0, False)
    expected = vectors[[3, 1, 0]] / np.linalg.norm(vectors[[3, 1, 0]], axis=1, keepdims=True)
    np.testing.assert_allclose(teacher.images(pairs(3), np.arange(3)).factors, expected, atol=1e-6)
    np.testing.assert_allclose(teacher.texts(pairs(3), np.arange(3)), -expected, atol=1e-6)
    with pytest.raises(DataError, match="no embedding of image img3"):
        teacher.images(pairs(4, ["a"] * 4), np.arange(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_embedding": None}, "has no column image_embedding"),
        ({"image_embedding": [[1.0], [2.0]]}, "image_embedding is 1 wide and text_embedding is 2 wide"),
        ({"image_embedding": [[1.0, 2.0], [2.0]]}, "lists of one width"),
        ({"image_id": ["a", "a"]}, "image_id occurs twice"),
        ({"scale": [1.0, 2.0]}, "one positive number"),
        ({"image_embedding": ["x", "y"]}, "must hold lists of numbers"),
    ],
)
def test_a_wrong_embeddings_file_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    columns = {
        "image_id": ["a", "b"],
        "image_embedding": [[1.0, 0.0]] * 2,
        "text_embedding": [[1.0, 0.0]] * 2,
    }
    columns = {key: value for key, value in {**columns, **change}.items() if value is not None}
    pq.write_table(pa.table(columns), tmp_path / "embeddings.parquet")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_teacher(f"parquet:{tmp_path / 'embeddings.parquet'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("value", "state"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_an_embedding_that_is_none_names_its_image(tmp_path: Path, value: float, state: str) -> None:
    vectors = [[1.0, 0.0], [value, value if value else 0.0]]
    table = {"image_id": ["img0", "img1"], "image_embedding": vectors, "text_embedding": vectors}
    pq.write_table(pa.table(table), tmp_path / "embeddings.parquet")
    teacher = open_teacher(f"parquet:{tmp_path / 'embeddings.parquet'}")
    with pytest.raises(DataError, match=f"embedding of image img1 is {state}"):
        teacher.images(pairs(2), np.arange(2))
    with pytest.raises(DataError, match=f"embedding of the caption of image img1 is {state}"):
        teacher.texts(pairs(2), np.arange(2))


def test_weights_that_are_not_finite_name_the_first_image(tmp_path: Path) -> None:
    teacher = opened(f"open_clip:{checkpoints.write_open_clip(tmp_path)}")
    next(iter(teacher.model.parameters())).data.fill_(float("nan"))
    teacher.model.visual.conv1.weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match="embedding of image img0 is not finite"):
        teacher.images(pairs(3), np.arange(3))


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("kind", ["medclip", "pmc_clip", "hf", "open_clip"])
def test_no_code_in_a_checkpoint_is_run(tmp_path: Path, kind: str) -> None:
    trace, folder = tmp_path / "trace", tmp_path / "model"
    write: dict[str, Callable[[], tuple[Any, str]]] = {
        "medclip": lambda: (checkpoints.write_medclip(folder), "pytorch_model.bin"),
        "pmc_clip": lambda: (checkpoints.write_pmc_clip(folder, parts=False), "checkpoint.pt"),
        "hf": lambda: (checkpoints.write_hf_clip(folder, pickled=True), "pytorch_model.bin"),
        "open_clip": lambda: (
            checkpoints.write_open_clip(tmp_path).rename(folder),
            "open_clip_pytorch_model.bin",
        ),
    }
    file = write[kind]()[1]
    (folder / "open_clip_model.safetensors").unlink(missing_ok=True)
    torch.save({"state_dict": Evil(trace)}, folder / file)
    with pytest.raises(KGTargetsError):
        open_teacher(f"{kind}:{folder}")
    assert not trace.exists()


def test_a_checkpoint_of_another_kind_names_what_is_missing(tmp_path: Path) -> None:
    checkpoints.write_medclip(tmp_path / "medclip")
    (tmp_path / "medclip" / "pytorch_model.bin").rename(tmp_path / "medclip" / "checkpoint.pt")
    with pytest.raises(
        CheckpointError, match=r'parameter "conv3.weight" is missing: it is a checkpoint of another'
    ):
        open_teacher(f"pmc_clip:{tmp_path / 'medclip'}")
    with pytest.raises(CheckpointError, match=r"has none of model\.safetensors.*docs/teachers\.md"):
        open_teacher(f"medclip:{tmp_path / 'medclip'}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("biomedclp", "is not one of biomedclip, clip, medclip, none, pmcclip, pubmedclip"),
        ("blip:x", "'blip' is not one of open_clip, hf"),
        ("medclip:", "say where the weights are"),
        ("open_clip:ViT-B-16", "names no weights"),
        ("open_clip:models/none", "there is no folder"),
        ("missing.yaml", "is not one of"),
    ],
)
def test_a_teacher_that_is_not_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(KGTargetsError, match=message) as caught:
        open_teacher(spec)
    assert "\n" not in str(caught.value)


def test_all_six_rows_of_table_5_have_a_config_and_say_how_to_get_the_weights() -> None:
    assert named_teachers() == ["biomedclip", "clip", "medclip", "none", "pmcclip", "pubmedclip"]
    for name in named_teachers():
        config = read_config(TeacherConfig, ["--config", str(FOLDER / f"{name}.yaml")])
        assert config.kind in TEACHERS
        if name != "none":
            assert config.source and config.licence and "hf download" in config.how_to_get
    assert open_teacher("none").dim == 0


def test_missing_weights_of_a_named_teacher_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("biomedclip", "medclip", "pmcclip", "pubmedclip"):
        with pytest.raises((CheckpointError, ConfigError), match=rf"models/{name}.*hf download") as caught:
            open_teacher(name)
        assert "\n" not in str(caught.value)
