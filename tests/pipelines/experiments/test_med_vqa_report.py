"""The report of a Med-VQA grid: from predictions to a page, figures for machines and a plot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from kg_targets.errors import ConfigError, DataError
from pipelines.experiments import med_vqa
from pipelines.experiments.job import SECONDS
from pipelines.experiments.med_vqa import MedVQAPlan, digest_of_test, split_of
from pipelines.experiments.med_vqa_grid import Part
from pipelines.experiments.med_vqa_report import Panel, draw
from pipelines.experiments.tasks import plan_of, read_grid
from tests.training.vqa.fakes import rows, write_data
from training.statistics.intervals import Interval
from training.vqa.baselines import BASELINES, majority_baseline
from training.vqa.predictions import predictions_of, write_predictions

MODEL = {"preset": "tiny", "text": None, "tokenizer": "tokenizer"}
BASE = {
    "task": "med_vqa_finetune", "output": "run", "model": MODEL, "data": {"dataset": "vqa_rad", "data_root": "data"},
}  # fmt: skip
ONE = {**BASE, "task": "med_vqa_pretrain", "data": {"store": "store", "data_root": "data"}}
GRID: dict[str, Any] = {
    "title": "Tiny: which λ",
    "dataset": "data/tiny_vqa.yaml",
    "base": "base.yaml",
    "seeds": [0, 1, 2],
    "pretrain_seeds": [5],
    "parts": [{"protocol": "paper"}, {"protocol": "image_disjoint", "folds": [0, 1]}],
    "baseline": "plain",
    "plot": {"x": "λ", "marked": 0.01},
    "rows": {
        "plain": {
            "title": "plain", "paper": "none", "controls": ["question_only", "shuffled"],
            "point": {"series": ["logit", "cosine"], "x": 0},
        },
        "better": {"title": "better", "pretrain": [{"base": "one.yaml"}], "point": {"series": ["logit"], "x": 0.01}},
        "clip": {"title": "CLIP", "paper": "clip", "requires": {"models/clip": "fetch it"}},
    },
}  # fmt: skip
SHARE = {"plain": 0.5, "better": 0.9, "plain-question_only": 0.3, "plain-shuffled": 0.4}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.experiments.med_vqa_report.DRAWS", 200)
    med_vqa.split_of.cache_clear()
    med_vqa.digest_of_test.cache_clear()
    write_data(Path("data"), rows(range(24), 0), rows(range(24, 36), 1000))
    for name, content in (("base", BASE), ("one", ONE), ("tiny", GRID)):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return tmp_path


def answered(plan: MedVQAPlan) -> MedVQAPlan:
    """Every run is finished and scored: a share of the questions is answered correctly."""
    for one in plan.answers():
        run, split = one, split_of(plan.questions(one.part))
        control = "-question_only" if run.blank else "-shuffled" if one.shuffled else ""
        right = np.random.default_rng(run.seed).random(len(split.test)) < SHARE[run.row.name + control]
        metadata = {
            "name": run.row.name, "mode": "exact", "seed": run.seed, "model": one.name,
            "trained_on": "blank" if run.blank else "real",
            "images": "shuffled" if one.shuffled else "blank" if run.blank else "real",
        }  # fmt: skip
        texts = [question.answer if ok else "nothing" for question, ok in zip(split.test, right, strict=True)]
        write_predictions(plan.predictions(one), predictions_of(split, "test", texts, None, metadata))
    for part in plan.grid.parts:
        for name, file in zip(BASELINES, plan.baseline_files(part), strict=True):
            write_predictions(file, majority_baseline(split_of(plan.questions(part)), name))
    for job in plan.runs(plan.stages):
        job.folder.mkdir(parents=True)
        (job.folder / SECONDS).write_text(json.dumps({"seconds": 60.0, "jobs": 1, "threads": 1}))
        (job.folder / "metrics.json").write_text(json.dumps({"parameters": 2_400_000}))
    return plan


def plan(only: tuple[str, ...] = ()) -> MedVQAPlan:
    found = plan_of(read_grid("tiny.yaml", Path("data")), Path("out"), 1, 1, only)
    assert isinstance(found, MedVQAPlan)
    return found


def test_the_report_puts_rows_beside_the_paper_the_controls_and_the_baselines() -> None:
    done = answered(plan())
    files = done.write_report(Path("docs/tiny.md"))
    assert [str(file) for file in files] == [
        "out/report.json", "out/report.png", "out/report.md", "docs/tiny.png", "docs/tiny.md",
    ]  # fmt: skip
    page = Path("out/report.md").read_text()
    assert page.startswith("# Tiny: which λ\n")
    assert "folds of one protocol are put end to end" in page and "image_disjoint, folds 0, 1" in page
    assert "0 from 5, 1 from 5, 2 from 5; where fine-tuning runs share a pre-training run" in page
    assert "| CLIP | – | not run |" in page  # the paper has no figure for an invented data set
    assert "CLIP: `models/clip` is not there. To run it: fetch it" in page
    assert "| better | 2.4 | 60 | 9 | 60 | `kg-targets tables tiny.yaml --out out" in page
    assert "--only better` |" in page and "![Accuracy over λ](report.png)" in page
    assert "(docs/tiny.png)" not in page and "(tiny.png)" in Path("docs/tiny.md").read_text()
    assert "## What the image adds" in page and "majority by kind (baseline)" in page
    assert str(Path.cwd()) not in page

    told = json.loads(Path("out/report.json").read_text())
    against = {(one["protocol"], one["group"]): one for one in told["against_baseline"]}
    assert len(against) == 6 and {one["row"] for one in told["against_baseline"]} == {"better"}
    gain = against["image_disjoint", "overall"]
    assert gain["difference"]["interval"]["mean"] > 0.2 and gain["difference"]["seeds"] == [0, 1, 2]
    assert gain["difference"]["p_value"] <= gain["corrected"]
    places = [table["place"] for table in told["comparison"]["tables"]]
    assert [(place["protocol"], place["split_seed"]) for place in places] == [
        ("paper", "0"),
        ("image_disjoint", "0, 1"),
    ]
    assert told["points"] == {"plain": 0, "better": 0.01}
    assert told["not_run"] == {"clip": {"needs": "models/clip", "how": "fetch it"}}
    assert Image.open("out/report.png").size[0] > 800

    before = {file: file.read_bytes() for file in files}
    done.write_report(Path("docs/tiny.md"))
    assert before == {file: file.read_bytes() for file in files}


def test_reports_of_other_data_sets_are_put_together_with_the_mean_over_all() -> None:
    beside = {"other": "slake_en", "absent": "path_vqa"}
    Path("tiny.yaml").write_text(
        yaml.safe_dump(GRID | {"beside": beside}, sort_keys=False, allow_unicode=True)
    )
    done = answered(plan())
    Path("other").mkdir()
    Path("other/report.json").write_text(json.dumps({"accuracy": {"paper": {"plain": 0.25, "better": 0.5}}}))
    done.write_report(None)
    own = json.loads(Path("out/report.json").read_text())["accuracy"]["paper"]["plain"]
    page = Path("out/report.md").read_text()
    assert "## Over all data sets" in page and "under `paper`" in page
    assert f"| plain | {100 * own:.1f} | 25.0 | not run | – | *73.95* |" in page
    assert "| CLIP | not run | not run | not run | – | *74.37* |" in page
    Path("absent").mkdir()
    Path("absent/report.json").write_text(json.dumps({"accuracy": {"paper": {"plain": 0.75}}}))
    done.write_report(None)
    page = Path("out/report.md").read_text()
    assert f"| plain | {100 * own:.1f} | 25.0 | 75.0 | {100 * (own + 1) / 3:.1f} | *73.95* |" in page


def test_some_rows_have_files_of_their_own() -> None:
    answered(plan())
    assert [file.name for file in plan(("plain",)).write_report(None)] == ["part.json", "part.png", "part.md"]
    page = Path("out/part.md").read_text()
    assert "## Against the baseline" not in page and "better" not in page.split("## How to read this")[0]


def test_damaged_predictions_are_told(folder: Path) -> None:
    answered(plan())
    path = folder / "out/scores/better-paper-seed1/predictions.csv"
    path.write_text(path.read_text().replace("nothing", "something"))
    with pytest.raises(DataError, match="better-paper-seed1"):
        plan().write_report(None)


def test_folds_of_different_cross_validations_are_refused_before_anything_is_trained() -> None:
    told = list[str]()
    plan().check(dry=False, say=told.append)
    assert told == ["row clip is not run, models/clip is not there: fetch it"]
    content = {**GRID, "parts": [{"protocol": "image_disjoint", "folds": [0, 3]}]}
    Path("tiny.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="folds 0 and 3 of image_disjoint share test questions"):
        plan().check(dry=False, say=told.append)


def test_a_line_is_drawn_where_only_some_values_are_known(folder: Path) -> None:
    known, alone = Interval(0.5, 0.4, 0.6, 10, 3), Interval(0.6, float("nan"), float("nan"), 10, 1)
    panel = Panel("strict", {"logit": {0: known, 1: alone}, "cosine": {0.1: known}}, 0.3)
    draw(folder / "x.png", [panel], "Tiny", "λ", 0.01, "--out")
    assert Image.open(folder / "x.png").format == "PNG"


def test_the_digest_of_a_part_is_that_of_its_questions() -> None:
    found = plan()
    one = digest_of_test(found.questions(Part("paper", 0)))
    digest_of_test.cache_clear()
    assert one == digest_of_test(found.questions(Part("paper", 0)))
    assert one != digest_of_test(found.questions(Part("image_disjoint", 0)))
