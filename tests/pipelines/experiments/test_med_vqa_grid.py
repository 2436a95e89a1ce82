"""Grids of Med-VQA are read strictly and become the commands a user could type."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kg_targets.errors import ConfigError
from pipelines.tables.grid import GRIDS, shipped_grids
from pipelines.tables.replaced import keep_finished
from pipelines.vqa_tables.__main__ import main
from pipelines.vqa_tables.grid import FINETUNE, PRETRAIN_STAGES, SCORE, Part
from pipelines.vqa_tables.paper import TEACHERS
from pipelines.vqa_tables.plan import Plan
from pipelines.vqa_tables.read_grid import read_grid
from training.engine.checkpoint import CONFIG, FINISHED
from training.med_vqa.finetune.config import FinetuneConfig
from training.med_vqa.pretrain.config import PretrainConfig
from training.options import to_yaml

MODEL = {"preset": "tiny", "text": None, "tokenizer": "tokenizer"}
DATA = {"store": "store", "data_root": "data"}
BASE = {
    "task": "med_vqa_finetune",
    "output": "run",
    "model": MODEL,
    "data": {"dataset": "vqa_rad", "data_root": "data"},
}
ONE = {"task": "med_vqa_pretrain", "output": "run", "model": MODEL, "data": DATA}
TWO = {**ONE, "stage": "two", "model": {**MODEL, "start": "before"}}


def base() -> dict[str, Any]:
    return {
        "title": "Tiny",
        "dataset": "vqa_rad",
        "data_root": "data",
        "base": "base.yaml",
        "set": {"optim.epochs": 3},
        "seeds": [0, 1],
        "parts": [{"protocol": "strict"}, {"protocol": "image_disjoint", "cuts": [1, 2]}],
        "stores": {
            "kg": {"command": "kg-targets build demo --data-root {data_root} --out {here}"},
            "teacher": {
                "command": "python -m training.run --data.train_store {kg}/train --output {here}",
                "requires": {"models/clip": "fetch it"},
            },
        },
        "pretrain": [
            {"base": "one.yaml", "set": {"data.store": "{kg}/train"}},
            {"base": "two.yaml", "set": {"data.store": "{kg}/train"}},
        ],
        "baseline": "plain",
        "plot": {"x": "λ", "marked": 0.1},
        "rows": {
            "plain": {"title": "plain", "controls": ["question_only", "shuffled"]},
            "kg": {
                "title": "KG",
                "set": {"optim.lr": 1e-4, "optim.clip_norm": None},
                "pretrain": {"set": {"soft_labels": [{"store": "{kg}/train", "policy": "evidence"}]}},
                "point": {"series": ["a", "b"], "x": 0},
            },
            "teacher": {
                "title": "CLIP",
                "paper": "clip",
                "pretrain": [{"base": "one.yaml", "set": {"soft_labels": [{"store": "{teacher}/train"}]}}],
            },
        },
    }  # fmt: skip


def changed(key: str, value: Any) -> dict[str, Any]:
    """``base()`` with one value changed, or left out for ``...``; the key is dotted with slashes."""
    content = base()
    *groups, last = key.split("/")
    place: Any = content
    for group in groups:
        place = place[int(group)] if isinstance(place, list) else place[group]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("base", {**BASE, "data": {"dataset": "vqa_rad", "data_root": "data"}}),
        ("one", ONE),
        ("two", TWO),
    ):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def written(content: Any) -> str:
    Path("tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return "tiny.yaml"


def plan(content: Any = None, only: tuple[str, ...] = ()) -> Plan:
    return Plan(read_grid(written(content or base())), Path("out"), 1, 1, only)


def options(command: tuple[str, ...]) -> dict[str, str]:
    given = command[2:]
    return dict(zip(given[::2], given[1::2], strict=True))


@pytest.mark.parametrize("name", shipped_grids(vqa=True))
def test_every_shipped_grid_is_right_and_says_how_to_run_it(name: str) -> None:
    grid = read_grid(name)
    assert grid.name == name and read_grid(name.removeprefix("vqa_")).name == name
    assert "make " in grid.path.read_text().split("title:")[0]
    for part in Plan(grid, Path("out"), 1, 1).stage(FINETUNE):
        assert part.command


def test_the_grid_of_table_5_has_every_row_of_the_paper_and_our_own() -> None:
    rows = read_grid("vqa_table5").rows
    assert {row.paper for row in rows.values() if row.paper} == TEACHERS.keys()
    assert {"no_pretraining", "kg", "nb_clip", "kg_nb_clip"} <= rows.keys()
    assert all(len(row.pretrain) == 2 for name, row in rows.items() if name != "no_pretraining")


def test_the_grid_of_figure_6_has_every_lambda_in_both_spaces() -> None:
    found: dict[str, set[float]] = {}
    for row in read_grid("vqa_fig6").rows.values():
        assert row.point is not None
        for stage in row.pretrain:
            assert stage.settings["loss.lambda_weight"] == row.point.x
            assert row.point.x == 0 or [stage.settings["loss.lambda_space"]] == list(row.point.series)
        for name in row.point.series:
            found.setdefault(name, set()).add(row.point.x)
    assert set(found) == {"logit", "cosine"} and all(
        line == {0, 0.001, 0.01, 0.1, 1} for line in found.values()
    )


def test_a_grid_is_read_with_the_defaults_of_its_rows() -> None:
    grid = read_grid(written(base()))
    assert grid.parts == (Part("strict", 0), Part("image_disjoint", 1), Part("image_disjoint", 2))
    assert [part.name for part in grid.parts] == ["strict", "image_disjoint-cut1", "image_disjoint-cut2"]
    assert grid.pooled and grid.pretrain_seeds == (0, 1) and grid.data_root == Path("data")
    assert grid.rows["kg"].settings == {"optim.epochs": 3, "optim.lr": 1e-4, "optim.clip_norm": None}
    assert grid.rows["teacher"].stores == ("kg", "teacher") and grid.rows["kg"].stores == ("kg",)
    assert grid.rows["teacher"].requires == {"models/clip": "fetch it"} and not grid.rows["kg"].requires
    assert not read_grid(written(changed("parts", [{"protocol": "paper"}]))).pooled


def test_rows_become_a_chain_of_runs_each_of_which_goes_on_from_the_one_before() -> None:
    found = plan(only=("kg",))
    (first, _), (second, _) = (found.stage(name) for name in PRETRAIN_STAGES)
    one, two = options(first.command), options(second.command)
    assert one["--output"] == "out/pretrain/kg-stage1-seed0" and "--model.start" not in one
    assert one["--soft_labels"] == '[{"store": "out/stores/kg/train", "policy": "evidence"}]'
    assert (two["--output"], two["--model.start"]) == ("out/pretrain/kg-stage2-seed0", one["--output"])
    assert [str(path) for path in second.needs] == [
        "out/stores/kg",
        "out/pretrain/kg-stage1-seed0/finished.json",
    ]
    tuned = [options(job.command) for job in found.stage(FINETUNE)]
    assert [one["--output"] for one in tuned[:3]] == [
        "out/runs/kg-strict-seed0", "out/runs/kg-image_disjoint-cut1-seed0", "out/runs/kg-image_disjoint-cut2-seed0",
    ]  # fmt: skip
    assert [one["--model.start"] for one in tuned] == [
        f"out/pretrain/kg-stage2-seed{s}" for s in (0, 0, 0, 1, 1, 1)
    ]
    assert tuned[1]["--data.split_seed"] == "1" and tuned[1]["--data.protocol"] == "image_disjoint"
    configs = [job.config() for job in (*found.pretrainings(1), *found.finetunings())]
    assert isinstance(configs[0], PretrainConfig) and configs[0].soft_labels[0].policy == "evidence"
    assert (
        isinstance(configs[-1], FinetuneConfig) and configs[-1].model.start == "out/pretrain/kg-stage2-seed1"
    )


def test_one_pretraining_can_serve_every_seed() -> None:
    found = plan({**base(), "pretrain_seeds": [7]}, ("kg",))
    assert [job.name for job in found.stage(PRETRAIN_STAGES[0])] == ["kg-stage1-seed7"]
    starts = {options(job.command)["--model.start"] for job in found.stage(FINETUNE)}
    assert starts == {"out/pretrain/kg-stage2-seed7"}


def test_controls_are_a_twin_without_images_and_answers_to_other_images() -> None:
    found = plan(only=("plain",))
    runs = {job.name: options(job.command)["--data.images"] for job in found.stage(FINETUNE)}
    assert len(runs) == 12 and runs["plain-strict-seed1"] == "real"
    assert runs["plain-question_only-strict-seed1"] == "blank"
    scores = {job.name: " ".join(job.command) for job in found.scores()}
    assert len(scores) == 18
    assert (
        "--images shuffled --seed 1 --name plain --out out/scores/plain-strict-seed1-shuffled"
        in scores["plain-strict-seed1-shuffled"]
    )
    assert "--images" not in scores["plain-question_only-strict-seed1"]
    floors = [" ".join(job.command) for job in found.stage(SCORE)[:3]]
    assert "--protocol image_disjoint --split-seed 2 --validation-share 0.1" in floors[2]


def test_a_finished_pretraining_of_the_same_settings_is_kept_and_one_of_others_is_not_replaced_unasked() -> (
    None
):
    job = plan(only=("kg",)).pretrainings(0)[0]
    job.folder.mkdir(parents=True)
    (job.folder / FINISHED).write_text("{}")
    (job.folder / CONFIG).write_text(to_yaml(job.config()))
    keep_finished([job], settings_only=True)
    other = plan(changed("rows/kg/pretrain", {"set": {"loss.lambda_weight": 1}}), ("kg",)).pretrainings(0)
    with pytest.raises(ConfigError, match=r"1 finished run .*kg-stage1-seed0 \(soft_labels was"):
        keep_finished(other, settings_only=True)


def test_stores_are_made_by_their_commands_in_the_order_of_the_grid() -> None:
    Path("models/clip").mkdir(parents=True)
    (kg,), (teacher,) = plan().store_rounds()
    assert kg.command[1:] == (
        *("-m", "pipelines.cli", "build", "demo", "--data-root", "data", "--out", "out/stores/kg"),
    )
    assert teacher.command[1:] == (
        *(
            "-m",
            "training.run",
            "--data.train_store",
            "out/stores/kg/train",
            "--output",
            "out/stores/teacher",
        ),
    )
    assert teacher.needs == (Path("out/stores/kg"),)
    for job in (kg, teacher):
        job.begins()
        job.made.mkdir()  # type: ignore[attr-defined]
        job.ended(1.0, True)
    assert teacher.is_current() and not kg.is_current()  # kg-targets looks for itself
    content = base()
    content["stores"]["teacher"]["command"] += " --seed 1"
    assert not plan(content).store_rounds()[1][0].is_current()


def test_rows_that_need_what_is_not_there_are_told_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written(base()), "--out", "out", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert told.err == "row teacher is not run, models/clip is not there: fetch it\n"
    assert "teacher" not in told.out
    assert main(["tiny.yaml", "--only", "teacher"]) == 2
    assert "no row can be run; teacher needs models/clip: fetch it" in capsys.readouterr().err
    Path("models/clip").mkdir(parents=True)
    assert main(["tiny.yaml", "--only", "teacher", "--dry-run"]) == 0
    assert "teacher-stage1-seed0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("titel", "x", "grid: key 'titel' is not one of title"),
        ("dataset", "vqa_rda", "vqa_rda"),
        ("base", "no.yaml", "base: no.yaml does not exist"),
        ("base", "one.yaml", "one.yaml is a configuration of med_vqa_pretrain: give one of med_vqa_finetune"),
        ("seeds", [0, 0], "seeds: give at least one, each once"),
        ("pretrain_seeds", [0, 1, 2], "pretrain_seeds: give one for all, or one for each of the 2 seeds"),
        ("parts", [], "parts: give at least one, each protocol and cut once"),
        ("parts/0/protocol", "strikt", "parts.0.protocol: protocol 'strikt' is not one of"),
        ("parts/1/cuts", [], "parts.1.cuts: give at least one"),
        ("parts", [{"protocol": "strict", "cuts": [0, 1]}], "strict always has the same test questions"),
        ("evaluation", {"mod": "exact"}, "evaluation: key 'mod' is not one of mode"),
        ("stores/kg/command", "rm -r {here}", "stores.kg.command: begin with `kg-targets` or `python -m`"),
        ("stores/kg/command", "python -m x", "say with {here} where it writes"),
        ("stores/kg/command", "kg-targets build {teacher} {here}", "stores.kg.command: store 'teacher' is not one of"),
        ("stores/here", {"command": "kg-targets x {here}"}, '"here" means something else in commands'),
        ("stores/kg/requires", ["x"], "stores.kg.requires: expected paths and how to get them"),
        ("pretrain/0/base", "base.yaml", "is a configuration of med_vqa_finetune: give one of med_vqa_pretrain"),
        ("pretrain/0/set", {"data.stor": "x"}, '"data.stor" is not a config field'),
        ("pretrain/1/set", {"model.start": "x"}, "model.start is set by the grid's runner"),
        ("pretrain", ..., "rows.kg.pretrain: the grid has no `pretrain` to add to"),
        ("baseline", "plane", "baseline: row 'plane' is not one of plain, kg, teacher"),
        ("plot", ..., "rows.kg.point: the grid has no `plot`"),
        ("rows/kg/point", ..., "plot: no row has a point"),
        ("rows/kg/point/series", [], "rows.kg.point.series: name at least one line"),
        ("rows/kg/title", "plain", "rows.kg.title: plain has it, too"),
        ("rows/kg/set", {"data.protocol": "paper"}, "data.protocol is set by the grid's runner"),
        ("rows/kg/set", {"model.start": "x"}, "model.start is set by the grid's runner"),
        ("rows/kg/set", {"optim.lr": "many"}, "rows.kg.set: optim.lr must be number"),
        ("rows/kg/pretrain", {"set": {"soft_labels": [{"stor": "x"}]}}, "rows.kg.pretrain.0: "),
        ("rows/kg/pretrain", {"set": {"soft_labels": [{"store": "{gk}"}]}}, "rows.kg: store 'gk' is not one of"),
        ("rows/kg/controls", ["blank"], "rows.kg.controls: control 'blank' is not one of question_only, shuffled"),
        ("rows/a-b", {"title": "x"}, '"a-b" must not contain "-"'),
        ("rows/teacher/paper", "klip", "rows.teacher.paper: row of the paper 'klip' is not one of"),
        ("rows", {}, "rows: give at least one, by name"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_told_on_one_line_before_anything_runs(
    key: str, value: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(changed(key, value))
    assert main([path, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ") and message in error and error.count("\n") == 1
    assert not Path("out").exists()


def test_options_that_are_wrong_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    written(base())
    for arguments, message in (
        (["rda"], "grid 'rda' is not one of vqa_fig6, vqa_rad, vqa_table5"),
        (["medpix"], "grid 'medpix' is not one of vqa_fig6"),
        (["tiny.yaml", "--only", "plane"], "--only: row 'plane' is not one of plain, kg, teacher"),
        (["tiny.yaml", "--docs", "x.md", "--only", "plain"], "--docs and --only contradict each other"),
        (["tiny.yaml", "--jobs", "0"], "--jobs: 0 must be at least 1"),
        (["tiny.yaml", "--stage", "all"], "argument --stage: invalid choice"),
        (["tiny.yaml", "--data-root", "nowhere"], "nowhere/trainset.json does not exist"),
    ):
        assert main([*arguments, "--out", "out"]) == 2
        error = capsys.readouterr().err.splitlines()
        assert message in error[-1] and error[-1].startswith("error: ")
    assert not Path("out").exists()


def test_a_dry_run_prints_the_commands_and_touches_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    path = written(base())
    assert main([path, "--out", "out", "--only", "plain,kg", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# stores: 1", "# pretrain: 2", "# pretrain (stage two): 2", "# finetune: 18", "# score: 27", "# report: 1",
    ]  # fmt: skip
    assert lines[-1].endswith("-m pipelines.vqa_tables tiny.yaml --out out --only plain,kg --stage report")
    run = shlex.split(next(line for line in lines if "--output out/runs/plain-strict-seed1" in line))
    assert run[1].endswith("training/run.py") and options(tuple(run))["--threads"] == "1"
    assert sorted(folder.iterdir()) == sorted([*before, folder / path])


def test_rows_that_would_be_asked_other_questions_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written(changed("rows/kg/set", {"data.validation_share": 0.3})), "--only", "plain,kg"]) == 2
    assert "rows plain and kg have another data.validation_share" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_passes_a_given_folder_on() -> None:
    inherited = ("OUT", "GRID", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    for target, given, expected in (
        ("vqa", ["GRID=rad"], "vqa_tables rad"),
        ("table5", ["OUT=here", "JOBS=1"], "vqa_tables vqa_table5 --out here --jobs 1"),
        ("fig6", [], "vqa_tables vqa_fig6"),
    ):
        made = subprocess.run(
            ["make", "-n", target, *given],
            cwd=GRIDS.parents[1], env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert " ".join(made.stdout.splitlines()[-1].split()).endswith(expected)
