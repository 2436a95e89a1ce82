"""Pictures of words over images: what the maps sum to, what is written, and what cannot be drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BertTokenizerFast

from tests.processes import kg_targets
from tests.training.med_vqa.answer.fakes import one_thread
from tests.training.vqa.world import SPECIAL, write_world
from tests.training.vqa.world import WORDS as VOCABULARY
from training.errors import ConfigError
from training.med_vqa.answer.attention_maps import KINDS, WordMaps, draw, word_maps
from training.med_vqa.model.build import build_med_vqa
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.saving import Answers, MedVQA, save_med_vqa
from training.med_vqa.model.tokens import questions_as_tokens

predict = kg_targets("predict")

__all__ = ["one_thread"]  # a fixture that pytest finds here
pytestmark = pytest.mark.e2e
QUESTION = "is the left-side bright?"
WORDS = ["is", "the", "left", "-", "side", "bright", "?"]


def built(world: Path, **given: str) -> MedVQA:
    torch.manual_seed(0)
    config = VQAModelConfig(preset="tiny", text=None, tokenizer=str(world / "tokenizer"), **given)  # type: ignore[arg-type]
    med_vqa = build_med_vqa(config)
    for parameter in med_vqa.model.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)
    med_vqa.model.eval()
    return med_vqa


def maps_of(med_vqa: MedVQA, kind: str, question: str = QUESTION, longest: int = 64) -> WordMaps:
    tokens = questions_as_tokens([question], med_vqa.tokenizer, longest)
    return word_maps(med_vqa, pixels_of(med_vqa), question, tokens, kind)


def pixels_of(med_vqa: MedVQA) -> Tensor:
    return torch.randn(3, med_vqa.size, med_vqa.size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_world(tmp_path_factory.mktemp("vqa"), images=2, test_images=1)
    med_vqa = built(folder)
    answers = Answers(["left", "no", "yes"], ["left", "yes"], "strict", "vqa_rad", "train")
    save_med_vqa(folder / "model", med_vqa.model, med_vqa.tokenizer, answers)
    return folder


@pytest.mark.parametrize("vision", ["test-vit", "demo-resnet"])
def test_maps_of_a_plan_sum_to_the_marginals_on_grids_of_patches_and_of_convolutions(
    world: Path, vision: str
) -> None:
    med_vqa = built(world, vision=vision)
    found = maps_of(med_vqa, "transport")
    count, side, other = found.maps.shape
    assert side == other and found.words == WORDS and count == 7
    assert found.maps.sum(axis=(1, 2)) == pytest.approx(1 / 7, abs=1e-6), "a word's share of the question"
    assert found.maps.sum(axis=0) == pytest.approx(1 / side**2, rel=0.05), "a place's share of the image"
    attended = maps_of(med_vqa, "co_attention")
    assert attended.maps.shape == found.maps.shape
    assert attended.maps.sum(axis=(1, 2)) == pytest.approx(1, abs=1e-6)
    assert abs(attended.maps - found.maps * 7).max() > 1e-3


def test_pieces_of_a_word_are_one_map_and_what_the_model_does_not_read_has_none(
    world: Path, tmp_path: Path
) -> None:
    med_vqa = built(world)
    found = maps_of(med_vqa, "transport", "is unheardof bright", longest=4)
    assert found.words == ["is", "unheardof"]
    assert found.maps.sum() == pytest.approx(1, abs=1e-6)
    (tmp_path / "vocab.txt").write_text("\n".join((*SPECIAL, *VOCABULARY[:-1], "##er")) + "\n")
    pieces = MedVQA(med_vqa.model, BertTokenizerFast(str(tmp_path / "vocab.txt")))
    found = maps_of(pieces, "transport", "is brighter left")
    assert found.words == ["is", "brighter", "left"]
    assert found.maps.sum(axis=(1, 2)) == pytest.approx([0.25, 0.5, 0.25], abs=1e-6)


def test_co_attention_is_the_softmax_of_the_last_layers_queries_and_keys(world: Path) -> None:
    med_vqa = built(world)
    attention: Any = med_vqa.model.co_attention.text[-1].cross_attention
    seen: dict[str, list[Tensor]] = {"query": [], "key": []}
    for name, outputs in seen.items():
        getattr(attention, name).register_forward_hook(lambda *call, to=outputs: to.append(call[-1]))
    found = maps_of(med_vqa, "co_attention")
    query, key = (outputs[0][0].double().numpy() for outputs in seen.values())  # (L, d), (N, d)
    width = query.shape[1] // attention.heads
    total = np.zeros((len(query), len(key)))
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        weights = np.exp(query[:, part] @ key[:, part].T / np.sqrt(width))
        total += weights / weights.sum(axis=1, keepdims=True)
    places = total[1:-1, 1:]
    expected = places / places.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.maps.reshape(len(WORDS), -1), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_written_beside_the_answer(
    world: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", str(world / "model"), "--image", str(world / "data" / "images" / "test0.png")]
    picture = tmp_path / "new" / "words.png"
    drawn = ["--attention", str(picture), "--attention-kind", kind]
    assert predict([*asked, "--question", QUESTION, *drawn]) == 0
    assert QUESTION in capsys.readouterr().out
    first = picture.read_bytes()
    with Image.open(picture) as image:
        width, height = image.size
    assert 1000 < width < 1500 and 350 < height < 700, "eight panels in two rows"
    assert [path.name for path in picture.parent.iterdir()] == ["words.png"]
    assert predict([*asked, "--question", QUESTION, *drawn]) == 0
    assert picture.read_bytes() == first


@pytest.mark.parametrize("places", [1, 2])
def test_maps_of_any_form_are_drawn(world: Path, tmp_path: Path, places: int) -> None:
    med_vqa = built(world)
    maps = maps_of(med_vqa, "transport").maps[:1, :places, :places]
    found = WordMaps(["$x_1$ " + "w" * 40], maps)
    draw(tmp_path / "one.png", found, pixels_of(med_vqa), med_vqa, "a $title$\nof two lines", "transport")
    assert (tmp_path / "one.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--attention", "words.jpg"), "pictures are PNG files"),
        (("--attention", "words.png", "--attention-kind", "saliency"), '--attention-kind: "saliency" is not'),
        (("--attention", "words.png", "--question", "what is shown"), "one question about one image, not 2"),
        (("--attention", "FILE/words.png"), "is a file, not a folder"),
        (("--attention", "FOLDER.png"), "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_is_told_on_one_line_and_nothing_is_printed(
    world: Path, tmp_path: Path, extra: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "FILE").write_text("")
    (tmp_path / "FOLDER.png").mkdir()
    (tmp_path / "FOLDER.png" / "full").write_text("")
    asked = ["--model", str(world / "model"), "--image", str(world / "data" / "images" / "test0.png")]
    options = [str(tmp_path / part) if Path(part).suffix else part for part in extra]
    assert predict([*asked, "--question", QUESTION, *options]) == 2
    streams = capsys.readouterr()
    assert not streams.out and message in streams.err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FILE", "FOLDER.png"]


def test_a_question_without_words_is_an_error(world: Path) -> None:
    with pytest.raises(ConfigError, match="no word that could be drawn"):
        maps_of(built(world), "transport", " ")
