"""Asking a saved model, and evaluating it: what is printed and written, and every kind of bad input on one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from kg_targets.manifest import Manifest
from tests.processes import kg_targets
from tests.training.med_vqa.answer.fakes import one_thread
from tests.training.vqa.world import write_world
from training.med_vqa.answer.evaluation import derangement
from training.med_vqa.model.build import build_med_vqa
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.history import Digests, TrainedOn, save_trained_on
from training.med_vqa.model.saving import Answers, save_med_vqa
from training.vqa.predictions import read_predictions
from training.vqa.protocols import prepare

evaluate = kg_targets("evaluate vqa")
predict = kg_targets("predict")

__all__ = ["one_thread"]  # a fixture that pytest finds here
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data/``, and ``run/`` as a finished fine-tuning of an untrained tiny model leaves it."""
    folder = write_world(tmp_path_factory.mktemp("vqa"))
    split = prepare(Manifest.load("vqa_rad", "questions"), folder / "data", "strict")
    torch.manual_seed(0)
    built = build_med_vqa(VQAModelConfig(preset="tiny", text=None, tokenizer=str(folder / "tokenizer")))
    for parameter in built.model.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)
    answers = Answers(
        list(split.candidates), list(split.candidates), "strict", "vqa_rad", split.candidate_source
    )
    run = folder / "run"
    save_med_vqa(run / "checkpoint", built.model, built.tokenizer, answers)
    config = {
        "seed": 3,
        "model": {"preset": "tiny", "precision": "fp32"},
        "data": {"images": "real", "split_seed": 0},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "finished.json").write_text(json.dumps({"key": "a key"}))
    return folder


def ask(world: Path, *extra: str) -> int:
    return predict(["--model", str(world / "run"), *extra])


def score(world: Path, out: Path, *extra: str) -> int:
    data = ["--dataset", "vqa_rad", "--data-root", str(world / "data")]
    return evaluate(["--model", str(world / "run"), *data, "--out", str(out), *extra])


def image(world: Path, number: int = 0) -> str:
    return str(world / "data" / "images" / f"test{number}.png")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    streams = capsys.readouterr()
    assert not streams.out
    return streams.err.splitlines()[-1]


def test_an_answer_is_printed_with_its_probability(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = ["--image", image(world), "--question", "where is the bright side"]
    assert ask(world, *question, "--top", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{image(world)}: where is the bright side" and len(lines) == 3
    assert ask(world, *question, "--json") == 0
    (answered,) = json.loads(capsys.readouterr().out)
    assert answered["question_truncated"] is False and len(answered["answers"]) == 5
    assert sum(one["probability"] for one in answered["answers"]) == pytest.approx(1, abs=1e-5)
    best = answered["answers"][0]
    assert lines[1] == f"  {best['probability']:6.4f}  {best['answer']}"
    for mode in ("shortlist", "generate"):
        assert ask(world, *question, "--mode", mode, "--k", "2") == 0
        assert len(capsys.readouterr().out.splitlines()) == (3 if mode == "shortlist" else 2)


def test_many_questions_by_options_and_by_table(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--question", "what is shown", "--question", "is the left side bright", "--top=1", "--json"]
    assert ask(world, "--image", image(world), *asked) == 0
    first = json.loads(capsys.readouterr().out)
    assert ask(world, "--image", image(world), "--image", image(world, 1), *asked) == 0
    second = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in second] == [image(world), image(world, 1)]
    assert second[0] == first[0]
    table = world / "data" / "asked.csv"
    table.write_text(
        "question,image\nwhat is shown,images/test0.png\nis the left side bright,images/test0.png\n"
    )
    assert ask(world, "--csv", str(table), "--top=1", "--json") == 0
    assert json.loads(capsys.readouterr().out) == first


def test_every_kind_of_image_is_answered(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 50), dtype=np.uint8)
    plain = Image.fromarray(grey)
    plain.convert("CMYK").save(tmp_path / "cmyk.jpg")
    plain.convert("RGBA").save(tmp_path / "rgba.png")
    plain.save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    names = sorted(tmp_path.iterdir())
    options = [part for name in names for part in ("--image", str(name))]
    assert ask(world, *options, "--question", "what is shown", "--json") == 0
    answered = json.loads(capsys.readouterr().out)
    assert [Path(row["image"]) for row in answered] == names
    assert all(0 <= one["probability"] <= 1 for row in answered for one in row["answers"])


def test_a_long_question_is_cut_and_told(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(world, "--image", image(world), "--question", "left " * 1000, "--json") == 0
    streams = capsys.readouterr()
    assert "note: question 1 (left left" in streams.err and "lost its end" in streams.err
    assert json.loads(streams.out)[0]["question_truncated"] is True


def test_a_question_without_a_known_word_is_told(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(world, "--image", image(world), "--question", "z" * 5000) == 0
    assert "holds no word that the model knows" in capsys.readouterr().err
    assert ask(world, "--image", image(world), "--question", "left zzz") == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--image", "IMAGE"), "give --image and --question, or --csv"),
        (("--image", "IMAGE", "--question", " "), "is empty: ask something"),
        (("--image", "IMAGE", "--question", "where", "--top", "0"), "--top: 0 must be at least 1"),
        (("--image", "IMAGE", "--question", "where", "--mode", "beam"), '--mode: "beam" is not one of'),
        (("--image", "IMAGE", "--question", "where", "--precision", "fp16"), "fp16 needs a GPU"),
        (("--image", "gone.png", "--question", "where"), "image gone.png (No such file"),
        (("--image", "TORN", "--question", "where"), "torn.png ("),
        (("--image", "TEXT", "--question", "where"), "not an image file that is read"),
        (("--csv", "gone.csv"), "--csv gone.csv cannot be read"),
        (("--csv", "gone.csv", "--question", "where"), "--csv brings images and questions"),
        (("--csv", "TEXT"), "has no line below its header"),
        (("--csv", "NAMES"), "a line has no question"),
        (("--csv", "EMPTY"), "question 2 names no image"),
        (("--csv", "NUL"), "holds a NUL byte: name an image file"),
        (("--image", "IMAGE", "--question", "\u200b \ufeff"), "is empty: ask something"),
        (("--image", "IMAGE", *["--question", "a"] * 3, "--image", "IMAGE"), "2 images and 3 questions"),
    ],
)
def test_bad_input_is_told_on_one_line(
    world: Path, tmp_path: Path, extra: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torn.png").write_bytes(Path(image(world)).read_bytes()[:200])
    (tmp_path / "text.csv").write_text("hello\n")
    (tmp_path / "names.csv").write_text("image,asked\na.png,where\n")
    places = {"IMAGE": Path(image(world)), "TORN": tmp_path / "torn.png", "TEXT": tmp_path / "text.csv"}
    (tmp_path / "empty.csv").write_text(f"image,question\n{image(world)},where\n ,where\n")
    (tmp_path / "nul.csv").write_bytes(b"image,question\na\0b.png,where\n")
    places |= {name: tmp_path / f"{name.lower()}.csv" for name in ("NAMES", "EMPTY", "NUL")}
    if not torch.cuda.is_available() or "fp16" not in extra:
        assert ask(world, *(str(places.get(part, part)) for part in extra)) == 2
        told = last_line(capsys)
        assert told.startswith("error: ") and message in told


def test_what_is_no_model_is_told(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = ["--image", image(world), "--question", "where"]
    assert predict(["--model", str(tmp_path / "gone"), *question]) == 2
    assert "is not a folder" in last_line(capsys)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    assert predict(["--model", str(tmp_path), *question]) == 2
    assert "is an unfinished run" in last_line(capsys)
    shutil.copytree(world / "run" / "checkpoint", tmp_path / "copy")
    content = json.loads((tmp_path / "copy" / "answers.json").read_text())
    for candidates, message in ((["left", "!"], "empty after normalisation"), ("left", "is damaged")):
        (tmp_path / "copy" / "answers.json").write_text(json.dumps({**content, "candidates": candidates}))
        assert predict(["--model", str(tmp_path / "copy"), *question]) == 2
        assert message in last_line(capsys)


def test_an_evaluation_answers_every_question_of_the_part(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(world, tmp_path / "out") == 0
    table = capsys.readouterr().out
    assert "vqa_rad, protocol strict, test part: model tiny, mode exact, images real; 5 candidates" in table
    assert "overall" in table and "16 questions" in table
    predictions = read_predictions(tmp_path / "out" / "predictions.csv")
    split = prepare(Manifest.load("vqa_rad", "questions"), world / "data", "strict")
    assert [row.id for row in predictions.rows] == [question.id for question in split.test]
    assert {row.predicted for row in predictions.rows} <= set(split.candidates)
    wanted = {
        "seed": 3,
        "trained_on": "real",
        "images": "real",
        "mode": "exact",
        "name": "tiny",
        "split": "test",
    }
    assert {name: predictions.metadata[name] for name in wanted} == wanted
    assert str(world) not in (tmp_path / "out" / "predictions.json").read_text()
    for row in predictions.rows[:4]:
        assert ask(world, "--image", image(world), "--question", row.question, "--json") == 0
        best = json.loads(capsys.readouterr().out)[0]["answers"][0]
        assert best["answer"] == row.predicted
        assert best["probability"] == pytest.approx(row.probability, abs=1e-5)
    before = (tmp_path / "out" / "predictions.csv").stat().st_mtime_ns
    assert score(world, tmp_path / "out") == 0
    assert "up to date" in capsys.readouterr().out
    assert (tmp_path / "out" / "predictions.csv").stat().st_mtime_ns == before
    assert score(world, tmp_path / "again") == 0
    for name in ("predictions.csv", "predictions.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_other_images_are_other_predictions(world: Path, tmp_path: Path) -> None:
    probabilities: dict[str, list[Any]] = {}
    for kind in ("real", "shuffled", "blank"):
        assert score(world, tmp_path / kind, "--images", kind) == 0
        predictions = read_predictions(tmp_path / kind / "predictions.csv")
        assert predictions.metadata["images"] == kind
        probabilities[kind] = [row.probability for row in predictions.rows]
    assert all(
        one != other for one, other in zip(probabilities["real"], probabilities["shuffled"], strict=True)
    )
    blank = tmp_path / "run"
    shutil.copytree(world / "run", blank)
    config = yaml.safe_load((blank / "config.yaml").read_text())
    (blank / "config.yaml").write_text(yaml.safe_dump({**config, "data": {"images": "blank"}}))
    data = ["--dataset", "vqa_rad", "--data-root", str(world / "data")]
    assert evaluate(["--model", str(blank), *data, "--out", str(tmp_path / "question_only")]) == 0
    predictions = read_predictions(tmp_path / "question_only" / "predictions.csv")
    assert predictions.metadata["images"] == predictions.metadata["trained_on"] == "blank"
    assert [row.probability for row in predictions.rows] == probabilities["blank"]
    assert probabilities["blank"][:4] == pytest.approx(probabilities["blank"][4:8], abs=1e-5)


def test_a_copy_of_the_folder_tells_what_it_was_trained_on(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = tmp_path / "model", ["--dataset", "vqa_rad", "--data-root", str(world / "data")]
    shutil.copytree(world / "run" / "checkpoint", model)
    asked = ["--model", str(model), *data, "--out", str(tmp_path / "out"), "--mode", "winner"]
    assert evaluate(asked) == 0  # an older folder, without the record
    metadata = read_predictions(tmp_path / "out" / "predictions.csv").metadata
    assert (metadata["trained_on"], metadata["questions_trained_on"], metadata["k"]) == ("unknown", None, 32)
    assert "no record of its training questions" in capsys.readouterr().err
    assert evaluate([*asked, "--split", "validation"]) == 2
    assert "--split validation: it is not recorded" in last_line(capsys)
    split = prepare(Manifest.load("vqa_rad", "questions"), world / "data", "strict")
    config = {"seed": 5, "model": {"preset": "tiny"}, "data": {"images": "blank"}}
    save_trained_on(
        model, replace(TrainedOn.of_config(config, "vqa_rad", "strict"), digests=Digests.of(split.train))
    )
    assert evaluate(asked) == 0
    metadata = read_predictions(tmp_path / "out" / "predictions.csv").metadata
    assert (metadata["trained_on"], metadata["images"], metadata["seed"]) == ("blank", "blank", 5)
    assert (metadata["questions_trained_on"], metadata["images_trained_on"], metadata["name"]) == (
        0,
        0,
        "tiny",
    )
    assert evaluate([*asked, "--split", "train"]) == 0
    metadata = read_predictions(tmp_path / "out" / "predictions.csv").metadata
    assert metadata["questions_trained_on"] == len(split.train)


def test_shuffling_leaves_no_image_in_its_place() -> None:
    names = [f"image{number}" for number in range(50)]
    one, other = derangement(names * 2, 0), derangement(names, 1)
    assert sorted(one) == sorted(one.values()) == sorted(names) and one != other
    assert all(name != shown for name, shown in one.items())


def test_missing_images_are_counted_as_wrong_where_allowed(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "data", tmp_path / "data")
    (tmp_path / "data" / "images" / "test1.png").unlink()
    (tmp_path / "data" / "images" / "test2.png").write_bytes(b"torn")
    data = ["--model", str(world / "run"), "--dataset", "vqa_rad", "--data-root", str(tmp_path / "data")]
    assert evaluate([*data, "--out", str(tmp_path / "out")]) == 2
    assert "2 of 4 images are missing or broken, 0 allowed (--max-broken)" in last_line(capsys)
    assert not (tmp_path / "out").exists()
    assert evaluate([*data, "--out", str(tmp_path / "out"), "--max-broken", "2"]) == 0
    streams = capsys.readouterr()
    assert "note: 8 questions have no image and count as answered wrongly" in streams.err
    assert "16 questions" in streams.out
    rows = read_predictions(tmp_path / "out" / "predictions.csv").rows
    assert [row.predicted == "" for row in rows] == [False] * 4 + [True] * 8 + [False] * 4
    assert evaluate([*data, "--out", str(tmp_path / "out"), "--max-broken", "2", "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["accuracies"]["overall"]["interval"]["mean"] < 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--protocol", "paper"), "trained on vqa_rad under protocol strict, not paper"),
        (("--split-seed", "1"), "trained on another split of vqa_rad (split seed 0"),
        (("--split-seed", "-1"), "error: --split-seed: -1 must be at least 0"),
        (
            ("--validation-share", "0.3"),
            "trained on another split of vqa_rad (split seed 0, validation share 0.1",
        ),
        (("--protocol", "best"), '--protocol: "best" is not one of'),
        (("--split", "dev"), 'split: "dev" is not one of train, validation, test'),
        (("--images", "none"), '--images: "none" is not one of real, shuffled, blank'),
        (("--k", "0"), "--k: 0 must be at least 1"),
        (("--max-broken", "-1"), "--max-broken: -1 must be at least 0"),
    ],
)
def test_an_evaluation_that_would_mislead_is_refused(
    world: Path, tmp_path: Path, extra: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(world, tmp_path / "out", *extra) == 2
    assert message in last_line(capsys) and not (tmp_path / "out").exists()
