"""Grids of both tasks are read strictly and tell what is wrong on one line, before anything runs."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kg_targets.errors import ConfigError
from kg_targets.manifest.folds import FoldConfig
from pipelines.experiments.grid import GRIDS, as_arguments, training_config
from pipelines.experiments.med_vqa_grid import Part
from pipelines.experiments.retrieval_grid import Official
from pipelines.experiments.tasks import plan_of, read_grid, shipped_grids
from tests.pipelines.experiments.grids import (
    BASES,
    changed,
    med_vqa,
    read_med_vqa,
    read_retrieval,
    retrieval,
    written,
)
from tests.processes import kg_targets

main = kg_targets("tables")

R, V = BASES


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_grid_extends_another_one_beside_it(folder: Path) -> None:
    written(med_vqa())
    own = {"extends": "tiny", "title": "Own", "rows": {"kg": {"title": "graph"}}, "seeds": [7]}
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    grid, parent = read_med_vqa("own.yaml"), read_med_vqa("tiny.yaml")
    assert (grid.name, grid.title, grid.seeds) == (
        "own",
        "Own",
        (7,),
    ) and grid.rows.keys() == parent.rows.keys()
    assert grid.rows["kg"].title == "graph" and grid.rows["kg"].pretrain == parent.rows["kg"].pretrain
    for extends, message in (("own", "it extends itself"), ("none", "none.yaml cannot be read")):
        (folder / "own.yaml").write_text(yaml.safe_dump({**own, "extends": extends}))
        with pytest.raises(ConfigError, match=message):
            read_grid("own.yaml")


def test_a_retrieval_grid_is_read_with_the_defaults_of_its_rows() -> None:
    grid = read_retrieval(written(retrieval()))
    assert grid.name == "tiny" and grid.folds == ("fold0", "fold1") and grid.parts == ("train", "test")
    assert grid.split == FoldConfig(("train", "test"), ("dev",), 2, 0)
    assert grid.rows["infonce"].settings == {"optim.epochs": 1, "loss.name": "info_nce"}
    assert grid.rows["sm"].settings == {"optim.epochs": 3, "optim.clip_norm": None}
    assert [variant.name for variant in grid.variants] == ["ontology", "none"]
    assert grid.stores["none"].arguments == ("--no-ontology",)
    assert grid.evaluation.features == ("before", "after") and not grid.evaluation.recall
    assert grid.evaluation_arguments == ("--features", "before,after", "--no-recall", "--draws", "50")
    assert grid.data_root == Path("data") and read_grid(str(grid.path), Path("x")).data_root == Path("x")
    settings = {**grid.rows["sm"].settings, "output": "run", "data.train_store": "x", "data.data_root": "x"}
    config = training_config(grid.base, "nb_clip", settings)
    assert config.optim.epochs == 3 and config.optim.clip_norm is None


def test_official_splits_are_one_fold_that_may_have_a_dev_split() -> None:
    content = changed("retrieval", "split", {"official": {"train": "train", "test": "dev"}}) | {"dev": "test"}
    grid = read_retrieval(written(content))
    assert (
        grid.split == Official(train="train", test="dev")
        and grid.folds == ("dev",)
        and grid.parts == ("train", "dev")
    )
    plan = plan_of(grid, Path("out"), 1, 1)
    (_, runs), (_, folds) = plan.rounds("runs")[0], plan.rounds("folds")[0]
    options = dict(zip(runs()[0].command[2::2], runs()[0].command[3::2], strict=True))
    assert options["--data.dev_store"].endswith("out/stores/ontology/dev/test")
    assert not folds()


def test_a_med_vqa_grid_is_read_with_the_defaults_of_its_rows() -> None:
    grid = read_med_vqa(written(med_vqa()))
    assert grid.parts == (Part("strict", 0), Part("image_disjoint", 1), Part("image_disjoint", 2))
    assert [part.name for part in grid.parts] == ["strict", "image_disjoint-fold1", "image_disjoint-fold2"]
    assert grid.pooled and grid.pretrain_seeds == (0, 1) and grid.data_root == Path("data")
    assert grid.rows["kg"].settings == {"optim.epochs": 3, "optim.lr": 1e-4, "optim.clip_norm": None}
    assert grid.rows["teacher"].stores == ("kg", "teacher") and grid.rows["kg"].stores == ("kg",)
    assert grid.rows["teacher"].requires == {"models/clip": "fetch it"} and not grid.rows["kg"].requires
    assert not read_med_vqa(written(changed("med_vqa", "parts", [{"protocol": "paper"}]))).pooled


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        (R, "titel", "x", "grid: key 'titel' is not one of title"),
        (R, "primary", ..., "grid: primary is missing"),
        (R, "dataset", "dmeo", "data set 'dmeo' is not one of"),
        (R, "base", "no.yaml", "base: no.yaml does not exist"),
        (R, "seeds", [0, 0], "seeds: give at least one, each once"),
        (R, "seeds", ["a"], "seeds: expected a whole number"),
        (R, "split", {}, "split: give either folds or official"),
        (R, "split/folds/count", 1, "--folds 1 must be at least 2"),
        (R, "split/folds/count", "2", "split.folds.count: expected a whole number"),
        (R, "split", {"official": {"train": "a", "test": "a"}}, "the same split"),
        (R, "dev", "dev", "dev: folds have no part to choose an epoch by"),
        (R, "stores/none", {"scorr": "noise"}, "stores.none: key 'scorr' is not one of"),
        (R, "stores/none", {"scorer": "nois"}, "stores.none: --scorer nois is not one of"),
        (R, "stores/none", {"no_ontology": "yes please"}, "stores.none.no_ontology must be true or false"),
        (R, "stores/none", {"max_hops": 1, "no_ontology": True}, "contradict each other"),
        (R, "stores", {"a/b": {}}, '"a/b" cannot name a folder'),
        (R, "evaluate_on", "onto", "evaluate_on: store 'onto' is not one of"),
        (R, "rows/sm/store", "nothing", "rows.sm.store: store 'nothing' is not one of"),
        (R, "rows/sm/set", {"los.name": "mse"}, '"los.name" is not a config field of nb_clip (did you mean'),
        (R, "rows/sm/set", {"loss.name": "mes"}, 'rows.sm.set: loss.name: "mes" is not one of'),
        (R, "rows/sm/set", {"optim.epochs": "many"}, "rows.sm.set: optim.epochs must be an integer"),
        (R, "rows/sm/set", {"loss": {"name": "mse"}}, "write its fields as loss.name"),
        (R, "rows/sm/set", {"seed": 3}, "seed is set by the grid's runner"),
        (R, "rows/sm/paper", "smm", "rows.sm.paper: row of the paper 'smm' is not one of"),
        (R, "rows/chance", {"title": "x", "store": "ontology"}, '"chance" is the name of the random order'),
        (R, "rows/extra", {"title": "x", "store": "ontology"}, "rows.extra is in no table"),
        (R, "tables/0/rows", ["infonce", "smm"], "tables.0.rows: row 'smm' is not one of infonce, sm"),
        (R, "tables/0/baseline", "sm2", "tables.0.baseline: row of the table 'sm2' is not one of"),
        (R, "primary/row", "best", "primary.row: row 'best' is not one of"),
        (R, "evaluation/feature", ["before"], "evaluation: key 'feature' is not one of"),
        (R, "evaluation/features", ["during"], 'evaluation: --features: "during" is not one of before, after'),
        (R, "evaluation/draws", "many", "evaluation: argument --draws: invalid int value"),
        (R, "rows", [], "rows: give at least one, by name"),
        (R, "rows/sm/paper", [], "rows.sm.paper: expected text"),
        (R, "tables/0/rows", ["infonce", "sm", "sm"], 'tables.0.rows: "sm" is given twice'),
        (R, "primary/baseline", "sm", 'primary: row and baseline are both "sm"'),
        (R, "primary/measure", ["CUI@50"], "primary.measure: expected text"),
        (R, "secondary", ["CUI@10", "CUI@10"], 'secondary: "CUI@10" is given twice'),
        (R, "secondary", ["CUI@50"], 'secondary: "CUI@50" is the primary measure already'),
        (R, "against", ["smm"], "against: row 'smm' is not one of"),
        (R, "against", ["sm"], 'against: "sm" is in the primary comparison already'),
        (R, "against", ["infonce"], 'against: "infonce" is in the primary comparison already'),
        (R, "subsets", ["test"], "subsets: expected titles and splits"),
        (R, "seeds", [1000], "seeds: give at least one, each once, from 0 to 999"),
        (R, "split/folds/seed", "x", "split.folds.seed: expected a whole number"),
        (R, "split", {"official": {"train": [], "test": "x"}}, "split.official.train: expected text"),
        (R, "stores/none", {"max_hops": "2"}, "stores.none.max_hops: expected a whole number"),
        (R, "stores/none", {"ontology": ["seed"]}, "stores.none.ontology: expected text"),
        (R, "stores/none", [], "stores.none: expected a mapping"),
        (R, "tables", "x", "tables: expected a list"),
        (V, "titel", "x", "grid: key 'titel' is not one of title"),
        (V, "dataset", "vqa_rda", "vqa_rda"),
        (V, "base", "no.yaml", "base: no.yaml does not exist"),
        (V, "base", "one.yaml", "one.yaml is a configuration of med_vqa_pretrain: give one of med_vqa_finetune"),
        (V, "seeds", [0, 0], "seeds: give at least one, each once"),
        (V, "pretrain_seeds", [0, 1, 2], "pretrain_seeds: give one for all, or one for each of the 2 seeds"),
        (V, "parts", [], "parts: give at least one, each protocol and fold once"),
        (V, "parts/0/protocol", "strikt", "parts.0.protocol: protocol 'strikt' is not one of"),
        (V, "parts/1/folds", [], "parts.1.folds: give at least one"),
        (V, "parts", [{"protocol": "strict", "folds": [0, 1]}], "strict always has the same test questions"),
        (V, "evaluation", {"mod": "exact"}, "evaluation: key 'mod' is not one of mode"),
        (V, "stores/kg/command", "rm -r {here}", "command: begin with `kg-targets` or `python training/run.py`"),
        (V, "stores/kg/command", "python training/run.py x", "say with {here} where it writes"),
        (V, "stores/kg/command", "kg-targets x {teacher} {here}", "stores.kg.command: store 'teacher' is not one of"),
        (V, "stores/here", {"command": "kg-targets x {here}"}, '"here" means something else in commands'),
        (V, "stores/kg/requires", ["x"], "stores.kg.requires: expected paths and how to get them"),
        (V, "pretrain/0/base", "base.yaml", "is a configuration of med_vqa_finetune: give one of med_vqa_pretrain"),
        (V, "pretrain/0/set", {"data.stor": "x"}, '"data.stor" is not a config field'),
        (V, "pretrain/1/set", {"model.init_from": "x"}, "model.init_from is set by the grid's runner"),
        (V, "pretrain", ..., "rows.kg.pretrain: the grid has no `pretrain` to add to"),
        (V, "baseline", "plane", "baseline: row 'plane' is not one of plain, kg, teacher"),
        (V, "plot", ..., "rows.kg.point: the grid has no `plot`"),
        (V, "rows/kg/point", ..., "plot: no row has a point"),
        (V, "rows/kg/point/series", [], "rows.kg.point.series: name at least one line"),
        (V, "rows/kg/title", "plain", "rows.kg.title: plain has it, too"),
        (V, "rows/kg/set", {"data.protocol": "paper"}, "data.protocol is set by the grid's runner"),
        (V, "rows/kg/set", {"model.init_from": "x"}, "model.init_from is set by the grid's runner"),
        (V, "rows/kg/set", {"optim.lr": "many"}, "rows.kg.set: optim.lr must be a number"),
        (V, "rows/kg/pretrain", {"set": {"soft_labels": [{"stor": "x"}]}}, "rows.kg.pretrain.0: "),
        (V, "rows/kg/pretrain", {"set": {"soft_labels": [{"store": "{gk}"}]}}, "rows.kg: store 'gk' is not one of"),
        (V, "rows/kg/controls", ["blank"], "rows.kg.controls: control 'blank' is not one of question_only, shuffled"),
        (V, "rows/a-b", {"title": "x"}, '"a-b" must not contain "-"'),
        (V, "rows/teacher/paper", "klip", "rows.teacher.paper: row of the paper 'klip' is not one of"),
        (V, "rows", {}, "rows: give at least one, by name"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_told_on_one_line_before_anything_runs(
    kind: str, key: str, value: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(changed(kind, key, value))
    assert main([path, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ") and message in error and error.count("\n") == 1
    assert not Path("out").exists()


def test_unreadable_grids_and_options_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    path = written(retrieval())
    Path("broken.yaml").write_text("a: [")
    Path("list.yaml").write_text("[a]")
    Path("twice.yaml").write_text("title: x\nrows: {sm: {title: a}, sm: {title: b}}\n")
    Path("vqa").mkdir()
    vqa = written(med_vqa(), Path("vqa"))
    for name in ("base", "one", "two"):
        shutil.copy(f"vqa/{name}.yaml", f"{name}.yaml")
    shipped = ", ".join(shipped_grids())
    for arguments, message in (
        (["dmo"], f"grid 'dmo' is not one of {shipped} (did you mean 'demo'?); a path must end in .yaml"),
        (["rda"], f"grid 'rda' is not one of {shipped}"),
        (["no.yaml"], "no.yaml cannot be read"),
        (["broken.yaml"], "is not valid YAML"),
        (["list.yaml"], "list.yaml: grid: expected a mapping of names, got list"),
        (["twice.yaml"], 'is not valid YAML: "sm" is given twice in "<unicode string>", line 2'),
        ([path, "--only", ""], "--only: row '' is not one of infonce, sm"),
        ([path, "--docs"], "--docs is for the grids of pipelines/grids"),
        (["demo", "--docs", "--only", "sm"], "--docs and --only contradict each other"),
        (["demo", "--docs", "--stage", "runs"], "--docs and --stage contradict each other"),
        ([path, "--only", "sm,best"], "--only: row 'best' is not one of infonce, sm"),
        ([path, "--jobs", "0"], "--jobs: 0 must be at least 1"),
        ([path, "--threads", "0"], "--threads: 0 must be at least 1"),
        ([path, "--stage", "all"], "argument --stage: invalid choice"),
        (
            [path, "--stage", "pretrain"],
            "--stage: stage of this grid 'pretrain' is not one of folds, stores, runs,",
        ),
        ([path, "--data-root", "nowhere"], "Set DATA_ROOT if it is elsewhere"),
        ([vqa, "--only", "plane"], "--only: row 'plane' is not one of plain, kg, teacher"),
        ([vqa, "--docs", "x.md", "--only", "plain"], "--docs and --only contradict each other"),
        ([vqa, "--jobs", "0"], "--jobs: 0 must be at least 1"),
        ([vqa, "--stage", "all"], "argument --stage: invalid choice"),
        (
            [vqa, "--stage", "runs"],
            "--stage: stage of this grid 'runs' is not one of stores, pretrain, finetune",
        ),
        ([vqa, "--data-root", "nowhere"], "nowhere/trainset.json does not exist"),
    ):
        assert main([*arguments, "--out", "out"]) == 2
        *told, error = capsys.readouterr().err.splitlines()
        assert error.startswith("error: ") and message in error
        assert all(line.startswith("row teacher is not run") for line in told)
    assert not Path("out").exists()


def test_the_task_follows_from_the_keys_even_where_one_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, key in ((V, "parts"), (R, "split")):
        assert main([written(changed(kind, key, ...))]) == 2
        assert f"grid: {key} is missing" in capsys.readouterr().err


def test_a_dry_run_of_retrieval_prints_the_commands_and_touches_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(retrieval())
    before = sorted(folder.iterdir())
    assert main(["tiny.yaml", "--out", "out", "--only", "sm", "--dry-run", "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# folds: 1", "# stores: 4", "# runs: 4", "# scores: 6", "# report: 1",
    ]  # fmt: skip
    assert lines[-1].endswith("kg-targets tables tiny.yaml --out out --threads 2 --only sm --stage report")
    folds = next(line for line in lines if " folds demo " in line)
    assert "--data-root data --test train,test --train-only dev --folds 2 --seed 0 --out out/folds" in folds
    store = next(line for line in lines if "out/stores/none/fold1" in line)
    assert "build out/folds/fold1/manifest.yaml --data-root out/folds/fold1 --no-ontology" in store
    run = shlex.split(next(line for line in lines if "--output out/runs/sm/fold1-s1" in line))
    options = dict(zip(run[2::2], run[3::2], strict=True))
    assert (
        run[1].endswith("training/run.py") and options["--data.train_store"] == "out/stores/none/fold1/train"
    )
    assert (options["--seed"], options["--threads"], options["--data.dev_store"]) == ("1001", "2", "null")
    assert options["--optim.clip_norm"] == "null" and options["--overwrite"] == "true"
    score = next(line for line in lines if "--out out/scores/sm/fold1-s1.parquet" in line)
    assert score.startswith("OMP_NUM_THREADS=2 ") and "--store out/stores/ontology/fold1/test" in score
    assert sorted(folder.iterdir()) == before


def test_a_dry_run_of_med_vqa_prints_the_commands_and_touches_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(med_vqa())
    before = sorted(folder.iterdir())
    assert main([path, "--out", "out", "--only", "plain,kg", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# stores: 1", "# pretrain: 2", "# pretrain (stage two): 2", "# finetune: 18", "# score: 27", "# report: 1",
    ]  # fmt: skip
    assert lines[-1].endswith("kg-targets tables tiny.yaml --out out --only plain,kg --stage report")
    run = shlex.split(next(line for line in lines if "--output out/runs/plain-strict-seed1" in line))
    assert (
        run[1].endswith("training/run.py")
        and dict(zip(run[2::2], run[3::2], strict=True))["--threads"] == "1"
    )
    assert sorted(folder.iterdir()) == before


def test_settings_are_written_as_the_command_line_reads_them() -> None:
    settings = {
        "optim.lr": 0.0005,
        "optim.clip_norm": None,
        "loss.mask_same_case": False,
        "policy.name": "softmax",
    }
    words = as_arguments(settings)
    assert words[1::2] == ["0.0005", "null", "false", "softmax"]


def test_null_leaves_an_option_of_a_store_out() -> None:
    content = changed("retrieval", "stores/none", {"max_hops": None, "no_ontology": None, "shrinkage": 2})
    variant = read_retrieval(written(content)).stores["none"]
    assert variant.arguments == ("--shrinkage", "2") and variant.options == {"shrinkage": 2}


def test_a_name_is_told_wrong_without_loading_torch() -> None:
    code = (
        "import sys; from pipelines.cli import main; "
        "print(main(['tables', *sys.argv[1:]]), 'torch' in sys.modules)"
    )
    for given in ("dmo", written(changed("retrieval", "titel", "x"))):
        done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, check=True)
        assert done.stdout == "2 False\n"


@pytest.mark.parametrize("kind", BASES)
def test_a_reader_that_has_seen_enough_is_no_error(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, unseen = os.pipe()
    os.close(seen)
    with os.fdopen(unseen, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main([written(BASES[kind]()), "--out", "out", "--dry-run"]) == 0


@pytest.mark.parametrize("kind", BASES)
def test_a_stop_while_libraries_are_loaded_is_obeyed(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return read_grid(*given)

    monkeypatch.setattr("pipelines.experiments.command.read_grid", interrupted)
    assert main([written(BASES[kind]()), "--out", "out"]) == 130
    assert capsys.readouterr().err == "stopped by SIGINT: the same command continues\n"
    assert not Path("out").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "given", "expected"),
    [
        ("tables", ["DATASET=medpix"], "tables medpix"),
        ("tables", ["DATASET=medpix", "OUT=here"], "tables medpix --out here"),
        ("vqa", ["GRID=rad"], "tables rad"),
        ("table5", ["OUT=here", "JOBS=1"], "tables vqa_table5 --out here --jobs 1"),
        ("fig6", [], "tables vqa_fig6"),
        ("tables", ["DATASET=roco", "DATA_ROOT=a b/c"], "tables roco --data-root a b/c"),
        ("table5all", ["JOBS=2"], "tables table5 --jobs 2"),
    ],
)
def test_make_passes_a_given_folder_on(target: str, given: list[str], expected: str, folder: Path) -> None:
    (folder / "kg-targets").write_text('#!/bin/sh\necho "$@"\n')
    (folder / "kg-targets").chmod(0o755)
    inherited = ("OUT", "GRID", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    made = subprocess.run(
        ["make", "--old-file=.venv/.installed", f"BIN={folder}", target, *given],
        cwd=GRIDS.parents[1], env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout.splitlines()[-1] == expected
