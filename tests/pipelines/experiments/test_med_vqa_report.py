"""The report of a Med-VQA grid: from predictions to a page, figures for machines and a plot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pipelines.vqa_tables.figure import Panel, draw
from pipelines.vqa_tables.grid import Part, Plot
from pipelines.vqa_tables.jobs import split_of
from pipelines.vqa_tables.plan import Plan
from pipelines.vqa_tables.report import write_report

from kg_targets.errors import ConfigError, DataError
from pipelines.experiments.job import SECONDS
from pipelines.experiments.tasks import read_grid
from tests.training.vqa.fakes import rows, write_data
from training.statistics.bootstrap import Interval
from training.vqa.floors import FLOORS, floor
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
    "parts": [{"protocol": "paper"}, {"protocol": "image_disjoint", "cuts": [0, 1]}],
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
    monkeypatch.setattr("pipelines.vqa_tables.results.DRAWS", 200)
    split_of.cache_clear()
    write_data(Path("data"), rows(range(24), 0), rows(range(24, 36), 1000))
    for name, content in (("base", BASE), ("one", ONE), ("tiny", GRID)):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return tmp_path


def answered(plan: Plan) -> Plan:
    """Every run is finished and scored: a share of the questions is answered rightly."""
    for job in plan.scores():
        split = split_of(plan.grid.dataset, plan.grid.data_root, job.run.part, 0.1)
        twin = "-question_only" if job.run.blank else "-shuffled" if job.shuffled else ""
        random = np.random.default_rng(job.run.seed).random(len(split.test))
        right = random < SHARE[job.run.row.name + twin]
        facts = {
            "name": job.run.row.name, "mode": "exact", "seed": job.run.seed, "model": job.name,
            "trained_on": "blank" if job.run.blank else "real",
            "images": "shuffled" if job.shuffled else "blank" if job.run.blank else "real",
        }  # fmt: skip
        texts = [question.answer if ok else "nothing" for question, ok in zip(split.test, right, strict=True)]
        write_predictions(job.made.with_suffix(".csv"), predictions_of(split, "test", texts, None, facts))
    for floors in plan.floors():
        split = split_of(plan.grid.dataset, plan.grid.data_root, floors.part, 0.1)
        for name, file in zip(FLOORS, floors.files, strict=True):
            write_predictions(file, floor(split, name))
    for run in (*plan.finetunings(), *plan.pretrainings(0)):
        run.folder.mkdir(parents=True)
        (run.folder / SECONDS).write_text(json.dumps({"seconds": 60.0, "jobs": 1, "threads": 1}))
        (run.folder / "metrics.json").write_text(json.dumps({"parameters": 2_400_000}))
    return plan


def plan(only: tuple[str, ...] = ()) -> Plan:
    return Plan(read_grid("tiny.yaml", Path("data")), Path("out"), 1, 1, only)


def test_the_report_puts_rows_beside_the_paper_the_baseline_the_controls_and_the_floors() -> None:
    done = answered(plan())
    files = write_report(done, Path("docs/tiny.md"))
    assert [str(file) for file in files] == [
        "out/report.json", "out/report.png", "out/report.md", "docs/tiny.png", "docs/tiny.md",
    ]  # fmt: skip
    page = Path("out/report.md").read_text()
    assert page.startswith("# Tiny: which λ\n")
    assert "cuts of one protocol are put end to end" in page and "image_disjoint, cuts 0, 1" in page
    assert "0 from 5, 1 from 5, 2 from 5; where fine-tunings share a pre-training" in page
    assert "| CLIP | – | not run |" in page  # the paper has no figure for an invented data set
    assert "CLIP: `models/clip` is not there. To run it: fetch it" in page
    assert "| better | 2.4 | 60 | 9 | 60 | `python -m pipelines.experiments tiny.yaml --out out" in page
    assert "--only better` |" in page and "![Accuracy over λ](report.png)" in page
    assert "(docs/tiny.png)" not in page and "(tiny.png)" in Path("docs/tiny.md").read_text()
    assert "## What the image adds" in page and "majority by kind (floor)" in page
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
    write_report(done, Path("docs/tiny.md"))
    assert before == {file: file.read_bytes() for file in files}


def test_some_rows_have_files_of_their_own() -> None:
    answered(plan())
    assert [file.name for file in write_report(plan(("plain",)))] == ["part.json", "part.png", "part.md"]
    page = Path("out/part.md").read_text()
    assert "## Against the baseline" not in page and "better" not in page.split("## How to read this")[0]


def test_damaged_predictions_are_told(folder: Path) -> None:
    answered(plan())
    path = folder / "out/scores/better-paper-seed1/predictions.csv"
    path.write_text(path.read_text().replace("nothing", "something"))
    with pytest.raises(DataError, match="better-paper-seed1"):
        write_report(plan())


def test_cuts_of_different_dealings_are_refused_before_anything_is_trained() -> None:
    grid = read_grid("tiny.yaml", Path("data"))
    assert grid.plot is not None and Plan(grid, Path("out"), 1, 1).check_data() is None
    content = {**GRID, "parts": [{"protocol": "image_disjoint", "cuts": [0, 3]}]}
    Path("tiny.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="cuts 0 and 3 of image_disjoint share test questions"):
        plan().check_data()


def test_a_line_is_drawn_where_only_some_values_are_known(folder: Path) -> None:
    known, alone = Interval(0.5, 0.4, 0.6, 10, 3), Interval(0.6, float("nan"), float("nan"), 10, 1)
    panel = Panel("strict", {"logit": {0: known, 1: alone}, "cosine": {0.1: known}}, 0.3)
    draw(folder / "x.png", [panel], "Tiny", Plot("λ", 0.01))
    assert Image.open(folder / "x.png").format == "PNG"


def test_the_digest_of_a_part_is_that_of_its_questions() -> None:
    found = plan()
    one = found.test_digest(Part("paper", 0))
    assert one == found.test_digest(Part("paper", 0)) != found.test_digest(Part("image_disjoint", 0))
