"""Teachers that are models: they compute in float32 whatever a training run does beside them and change nothing for it;
their digest changes with everything that changes their vectors, and with nothing else."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig

from tests.training.clip import fakes as fakes
from tests.training.teachers import checkpoints as checkpoints
from tests.training.teachers.fakes import FakeEncoder
from training.teachers import checkpoints as reading
from training.teachers import encoder as exactly
from training.teachers.encoder import Encoder, ExactConvolutions, exact
from training.teachers.registry import open_teacher

CAPTIONS = ["ct head", "normal chest of the head mri"]
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def convolved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The axes of each convolution that was told how to compute."""
    told: list[int] = []
    plain = exactly._convolve
    monkeypatch.setattr(
        exactly, "_convolve", lambda *given, **named: told.append(given[0]) or plain(*given, **named)
    )
    return told


@pytest.mark.parametrize("part", ["image", "text"])
def test_a_working_teacher_leaves_the_process_flags_alone(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    flags = {"allow_tf32": True, "benchmark": True, "deterministic": False}
    for name, value in flags.items():
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    teacher, found = FakeEncoder("1", "fake", torch.device("cpu")), []
    plain = getattr(teacher, f"encode_{part}")

    def looking(given: Any) -> Any:
        found.append({name: getattr(torch.backends.cudnn, name) for name in flags})
        return plain(given)

    monkeypatch.setattr(teacher, f"encode_{part}", looking)
    with torch.autocast("cpu", torch.bfloat16):
        vectors = teacher.image(torch.rand(2, 3, 8, 8)) if part == "image" else teacher.text(["a"])
    assert found == [flags] and vectors.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 3},
        {"padding": "valid", "bias": None},
        {"stride": (2,), "groups": 2},
    ],
)
def test_a_convolution_is_torchs(convolved: list[int], axes: int, given: dict[str, Any]) -> None:
    torch.manual_seed(0)
    function = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    sizes = (4, 3, 2)[:axes]
    weight = torch.randn(6, 4 // given.get("groups", 1), *sizes)
    called = {"bias": torch.randn(6), **given}
    image = torch.randn(2, 4, *(11, 9, 8)[:axes])
    expected = function(image, weight, **called)
    with ExactConvolutions():
        torch.testing.assert_close(function(image, weight, **called), expected)
    assert convolved == [axes]


def test_a_training_run_in_another_thread_is_not_told(convolved: list[int]) -> None:
    layer, image = nn.Conv2d(3, 4, 2), torch.randn(1, 3, 5, 5)
    with ThreadPoolExecutor(max_workers=1) as thread, exact(torch.device("cuda")):
        thread.submit(layer, image).result()
        assert not convolved
        layer(image)
        assert convolved == [2]
    with exact(torch.device("cpu")):
        layer(image)
    assert convolved == [2]


def resnet(folder: Path) -> None:
    checkpoints.write_medclip(folder, swin=False)


def pmc_clip(folder: Path) -> None:
    checkpoints.write_pmc_clip(folder, parts=True)


@pytest.mark.parametrize(
    ("kind", "write", "side"),
    [
        ("open_clip", checkpoints.write_open_clip, 32),
        ("hf", checkpoints.write_hf_clip, 32),
        ("medclip", checkpoints.write_medclip, 224),
        ("medclip", resnet, 224),
        ("pmc_clip", pmc_clip, 64),
    ],
)
def test_every_convolution_of_a_tower_is_reached(
    tmp_path: Path, convolved: list[int], kind: str, write: Callable[[Path], Any], side: int
) -> None:
    folder = tmp_path / "model"
    made = write(folder)
    teacher = open_teacher(f"{kind}:{made if isinstance(made, Path) else folder}", "cpu")
    assert isinstance(teacher, Encoder)
    pixels = torch.rand(1, 3, side, side)
    expected = teacher.image(pixels)
    with ExactConvolutions():
        torch.testing.assert_close(teacher.image(pixels), expected)
    layers = [module for module in teacher.model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolved) == len(layers) > 0


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
def test_digest_of_a_hugging_face_folder(tmp_path: Path, file: str, change: Change) -> None:
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
def test_digest_of_an_open_clip_folder(tmp_path: Path, change: Change) -> None:
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
def test_digest_of_an_open_clip_folder_whose_text_tower_is_hugging_faces(
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
def test_digest_of_what_was_read_off_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, given: dict[str, Any]
) -> None:
    """As if a later transformers took others for granted."""
    write(kind, tmp_path / kind)
    later = partial(BertConfig, **given)
    check(kind, tmp_path / kind, lambda: monkeypatch.setattr(reading, "BertConfig", later))


@pytest.mark.parametrize("kind", ["medclip", "pmc_clip"])
def test_digest_of_words_that_no_probe_holds(tmp_path: Path, kind: str) -> None:
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
