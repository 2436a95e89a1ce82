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
from PIL import Image
from torch.nn.functional import normalize
from transformers import CLIPModel, SwinModel

from tests import teacher_checkpoints as checkpoints
from tests.unit import clip_fakes as fakes
from training.clip.load import load_clip
from training.clip.save import write_model_folder
from training.errors import CheckpointError, ConfigError, DataError, KGTargetsError
from training.teachers.base import Pairs
from training.teachers.config import FOLDER, named_teachers, read_teacher_config
from training.teachers.encoder import Encoder
from training.teachers.registry import TEACHERS, open_teacher, slug

CAPTIONS = ["ct head", "normal chest of the head mri", "ct head"]


def picture(seed: int = 0, size: tuple[int, int] = (70, 50)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    return Image.fromarray(pixels)


def pairs(count: int, captions: list[str] | None = None) -> Pairs:
    source: Any = SimpleNamespace(read=lambda row: picture(row))
    return Pairs([f"img{row}" for row in range(count)], captions or CAPTIONS[:count], source)


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
    assert json.dumps(teacher.facts()) and len(teacher.digest) == 64 and "/" not in teacher.name


def tiny_open_clip(folder: Path) -> Path:
    """An open_clip model folder."""
    name = fakes.register(
        folder, "tiny-teacher", {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32}
    )
    torch.manual_seed(0)
    clip = load_clip(name)
    write_model_folder(folder / "clip", clip.model, clip)
    return folder / "clip"


def test_open_clip_folders_files_and_finished_runs(tmp_path: Path) -> None:
    folder = tiny_open_clip(tmp_path)
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
    bert = checkpoints.tiny_bert().eval()
    prefix = "text_model.model."
    bert.load_state_dict(
        {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}, strict=False
    )
    pixels = teacher.prepare(picture())
    with torch.no_grad():
        image = (
            swin(pixel_values=pixels[None]).pooler_output @ weights["vision_model.projection_head.weight"].T
        )
        torch.testing.assert_close(teacher.image(pixels[None]), normalize(image, dim=-1))
        # As MedCLIP's own code on one caption, which then has no padding.
        ids = torch.tensor([[2, 7, 6, 3]])  # [CLS] ct head [SEP]
        states = bert(input_ids=ids, output_hidden_states=True).hidden_states
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


def test_medclip_with_resnet(tmp_path: Path) -> None:
    checkpoints.write_medclip(tmp_path / "medclip", swin=False)
    check_contract(opened(f"medclip:{tmp_path / 'medclip'}"), float(np.exp(2.0)))


@pytest.mark.parametrize(("parts", "scale"), [(True, 4.4292), (False, 3.0)])
def test_pmc_clip_in_both_published_forms(tmp_path: Path, parts: bool, scale: float) -> None:
    checkpoints.write_pmc_clip(tmp_path / "pmcclip", parts)
    teacher = opened(f"pmc_clip:{tmp_path / 'pmcclip'}")
    check_contract(teacher, float(np.exp(scale)))
    assert teacher.preprocessing["size"] == 64


def test_ready_embeddings(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    table = pa.table(
        {
            "image_id": ["img2", "img1", "other", "img0"],
            "image_embedding": list(vectors),
            "text_embedding": list(-2 * vectors),
            "scale": [25.0] * 4,
        }
    )
    pq.write_table(table, tmp_path / "ready.parquet")
    teacher = open_teacher(f"parquet:{tmp_path / 'ready.parquet'}")
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
    pq.write_table(pa.table(columns), tmp_path / "ready.parquet")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_teacher(f"parquet:{tmp_path / 'ready.parquet'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("value", "state"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_an_embedding_that_is_none_names_its_image(tmp_path: Path, value: float, state: str) -> None:
    vectors = [[1.0, 0.0], [value, value if value else 0.0]]
    table = {"image_id": ["img0", "img1"], "image_embedding": vectors, "text_embedding": vectors}
    pq.write_table(pa.table(table), tmp_path / "ready.parquet")
    teacher = open_teacher(f"parquet:{tmp_path / 'ready.parquet'}")
    with pytest.raises(DataError, match=f"embedding of image img1 is {state}"):
        teacher.images(pairs(2), np.arange(2))
    with pytest.raises(DataError, match=f"embedding of the caption of image img1 is {state}"):
        teacher.texts(pairs(2), np.arange(2))


def test_weights_that_are_not_finite_name_the_first_image(tmp_path: Path) -> None:
    teacher = opened(f"open_clip:{tiny_open_clip(tmp_path)}")
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
        "open_clip": lambda: (tiny_open_clip(tmp_path).rename(folder), "open_clip_pytorch_model.bin"),
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
        config = read_teacher_config(FOLDER / f"{name}.yaml")
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
