"""Grids are read strictly, become the commands a user could type, and are run without one failure stopping others."""

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

from kg_targets.errors import DataError
from kg_targets.manifest.folds import FoldConfig
from pipelines.tables.__main__ import main
from pipelines.tables.common import as_arguments
from pipelines.tables.grid import GRIDS, Official, shipped_grids
from pipelines.tables.plan import Plan
from pipelines.tables.read_grid import read_grid, training_config
from tests.builds import build


def base() -> dict[str, Any]:
    return {
        "title": "Tiny",
        "dataset": "demo",
        "data_root": "data",
        "base": "training/configs/nb_clip_demo.yaml",
        "set": {"optim.epochs": 1},
        "seeds": [0, 1],
        "split": {"folds": {"count": 2, "test": ["train", "test"], "train_only": ["dev"]}},
        "stores": {"ontology": {}, "none": {"no_ontology": True}, "unused": {"scorer": "noise"}},
        "evaluate_on": "ontology",
        "rows": {
            "infonce": {"title": "InfoNCE", "store": "ontology", "set": {"loss.name": "info_nce"}},
            "sm": {"title": "SM", "store": "none", "set": {"optim.epochs": 3, "optim.clip_norm": None}},
        },
        "tables": [{"title": "Table 1", "rows": ["infonce", "sm"], "baseline": "infonce"}],
        "evaluation": {"features": ["before", "after"], "recall": False, "draws": 50},
        "primary": {"row": "sm", "baseline": "infonce", "measure": "CUI@50"},
        "secondary": ["CUI@10"],
        "subsets": {"official test": "test"},
    }


def written(folder: Path, content: Any) -> str:
    path = folder / "tiny.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return str(path)


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


@pytest.mark.parametrize("name", shipped_grids())
def test_every_shipped_grid_is_right_and_says_how_to_run_it(name: str) -> None:
    grid = read_grid(name)
    assert grid.name == name and {"infonce", "sm"} <= grid.rows.keys()
    wanted = f"make tables DATASET={grid.dataset}"
    wanted += "" if grid.name == grid.dataset else f" GRID={grid.name}"
    assert wanted in grid.path.read_text().split("title:")[0]


@pytest.mark.parametrize("name", ["demo", "medpix"])
def test_the_tables_have_all_rows_of_the_paper_and_the_controls(name: str) -> None:
    rows = {"infonce", "noise", "none", "sm", "mse", "sigmoid", "permuted", "uniform", "same_case"}
    grid = read_grid(name)
    assert grid.rows.keys() >= rows and grid.against is None


def test_a_grid_is_read_with_the_defaults_of_its_rows(tmp_path: Path) -> None:
    grid = read_grid(written(tmp_path, base()))
    assert grid.name == "tiny" and grid.folds == ("fold0", "fold1") and grid.parts == ("train", "test")
    assert grid.split == FoldConfig(("train", "test"), ("dev",), 2, 0)
    assert grid.rows["infonce"].settings == {"optim.epochs": 1, "loss.name": "info_nce"}
    assert grid.rows["sm"].settings == {"optim.epochs": 3, "optim.clip_norm": None}
    assert [variant.name for variant in grid.variants] == ["ontology", "none"]
    assert grid.stores["none"].arguments == ("--no-ontology",)
    assert grid.evaluation.features == ("before", "after") and not grid.evaluation.recall
    assert grid.evaluation_arguments == ("--features", "before,after", "--no-recall", "--draws", "50")
    assert grid.data_root == Path("data") and read_grid(str(grid.path), Path("x")).data_root == Path("x")
    config = training_config(grid.base, grid.rows["sm"].settings)
    assert config.optim.epochs == 3 and config.optim.clip_norm is None


def test_official_splits_are_one_fold_that_may_have_a_dev_split(tmp_path: Path) -> None:
    content = changed("split", {"official": {"train": "train", "test": "dev"}}) | {"dev": "test"}
    grid = read_grid(written(tmp_path, content))
    assert (
        grid.split == Official("train", "dev") and grid.folds == ("dev",) and grid.parts == ("train", "dev")
    )
    job = Plan(grid, tmp_path / "out", 1, 1).stage("runs")[0]
    options = dict(zip(job.command[2::2], job.command[3::2], strict=True))
    assert options["--data.dev_store"].endswith("out/stores/ontology/dev/test")
    assert not Plan(grid, tmp_path / "out", 1, 1).stage("folds")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("titel", "x", "grid: key 'titel' is not one of title"),
        ("primary", ..., "grid: primary is missing"),
        ("dataset", "dmeo", "data set 'dmeo' is not one of"),
        ("base", "no.yaml", "base: no.yaml does not exist"),
        ("seeds", [0, 0], "seeds: give at least one, each once"),
        ("seeds", ["a"], "seeds: expected a whole number"),
        ("split", {}, "split: give either folds or official"),
        ("split/folds/count", 1, "--folds 1 must be at least 2"),
        ("split/folds/count", "2", "split.folds.count: expected a whole number"),
        ("split", {"official": {"train": "a", "test": "a"}}, "the same split"),
        ("dev", "dev", "dev: folds have no part to choose an epoch by"),
        ("stores/none", {"scorr": "noise"}, "stores.none: key 'scorr' is not one of"),
        ("stores/none", {"scorer": "nois"}, "stores.none: --scorer nois is not one of"),
        ("stores/none", {"no_ontology": "yes please"}, "stores.none.no_ontology must be true or false"),
        ("stores/none", {"max_hops": 1, "no_ontology": True}, "contradict each other"),
        ("stores", {"a/b": {}}, '"a/b" cannot name a folder'),
        ("evaluate_on", "onto", "evaluate_on: store 'onto' is not one of"),
        ("rows/sm/store", "nothing", "rows.sm.store: store 'nothing' is not one of"),
        ("rows/sm/set", {"los.name": "mse"}, 'rows.sm.set: "los.name" is not a config field (did you mean "loss.'),
        ("rows/sm/set", {"loss.name": "mes"}, 'rows.sm.set: loss.name: "mes" is not one of'),
        ("rows/sm/set", {"optim.epochs": "many"}, "rows.sm.set: optim.epochs must be integer"),
        ("rows/sm/set", {"loss": {"name": "mse"}}, "write its fields as loss.name"),
        ("rows/sm/set", {"seed": 3}, "seed is set by the grid's runner"),
        ("rows/sm/paper", "smm", "rows.sm.paper: row of the paper 'smm' is not one of"),
        ("rows/chance", {"title": "x", "store": "ontology"}, '"chance" is the name of the random order'),
        ("rows/extra", {"title": "x", "store": "ontology"}, "rows.extra is in no table"),
        ("tables/0/rows", ["infonce", "smm"], "tables.0.rows: row 'smm' is not one of infonce, sm"),
        ("tables/0/baseline", "sm2", "tables.0.baseline: row of the table 'sm2' is not one of"),
        ("primary/row", "best", "primary.row: row 'best' is not one of"),
        ("evaluation/feature", ["before"], "evaluation: key 'feature' is not one of"),
        ("evaluation/features", ["during"], 'evaluation: --features: "during" is not one of before, after'),
        ("evaluation/draws", "many", "evaluation: argument --draws: invalid int value"),
        ("rows", [], "rows: give at least one, by name"),
        ("rows/sm/paper", [], "rows.sm.paper: expected text"),
        ("tables/0/rows", ["infonce", "sm", "sm"], 'tables.0.rows: "sm" is given twice'),
        ("primary/baseline", "sm", 'primary: row and baseline are both "sm"'),
        ("primary/measure", ["CUI@50"], "primary.measure: expected text"),
        ("secondary", ["CUI@10", "CUI@10"], 'secondary: "CUI@10" is given twice'),
        ("secondary", ["CUI@50"], 'secondary: "CUI@50" is the primary measure already'),
        ("against", ["smm"], "against: row 'smm' is not one of"),
        ("against", ["sm"], 'against: "sm" is in the primary comparison already'),
        ("against", ["infonce"], 'against: "infonce" is in the primary comparison already'),
        ("subsets", ["test"], "subsets: expected titles and splits"),
        ("seeds", [2**31], "seeds: give at least one, each once, from 0 to"),
        ("split/folds/seed", "x", "split.folds.seed: expected a whole number"),
        ("split", {"official": {"train": [], "test": "x"}}, "split.official.train: expected text"),
        ("stores/none", {"max_hops": "2"}, "stores.none.max_hops: expected a whole number"),
        ("stores/none", {"ontology": ["seed"]}, "stores.none.ontology: expected text"),
        ("stores/none", [], "stores.none: expected a mapping"),
        ("tables", "x", "tables: expected a list"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_told_on_one_line_before_anything_runs(
    key: str, value: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, changed(key, value))
    assert main([path, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unreadable_grids_and_options_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, broken = written(tmp_path, base()), tmp_path / "broken.yaml"
    broken.write_text("a: [")
    twice = tmp_path / "twice.yaml"
    twice.write_text("title: x\nrows: {sm: {title: a}, sm: {title: b}}\n")
    for arguments, message in (
        (
            ["dmo"],
            "grid 'dmo' is not one of demo, medpix, medpix_explore, medpix_search (did you mean 'demo'?)",
        ),
        (["no.yaml"], "no.yaml cannot be read"),
        ([str(broken)], "is not valid YAML"),
        ([str(twice)], 'is not valid YAML: "sm" is given twice in "<unicode string>", line 2'),
        ([path, "--only", ""], "--only: row '' is not one of infonce, sm"),
        ([path, "--docs"], "--docs is for the grids of pipelines/grids"),
        (["demo", "--docs", "--only", "sm"], "--docs and --only contradict each other"),
        (["demo", "--docs", "--stage", "runs"], "--docs and --stage contradict each other"),
        ([path, "--only", "sm,best"], "--only: row 'best' is not one of infonce, sm"),
        ([path, "--jobs", "0"], "--jobs: 0 must be at least 1"),
        ([path, "--threads", "0"], "--threads: 0 must be at least 1"),
        ([path, "--stage", "all"], "argument --stage: invalid choice"),
        ([path, "--data-root", str(tmp_path / "no")], "Set DATA_ROOT if it is elsewhere"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_commands_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, base())
    monkeypatch.chdir(tmp_path)
    assert main(["tiny.yaml", "--out", "out", "--only", "sm", "--dry-run", "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# folds: 1", "# stores: 4", "# runs: 4", "# scores: 6", "# report: 1",
    ]  # fmt: skip
    assert lines[-1].endswith("-m pipelines.tables tiny.yaml --out out --threads 2 --only sm --stage report")
    folds = next(line for line in lines if " folds demo " in line)
    assert "--data-root data --test train,test --train-only dev --folds 2 --seed 0 --out out/folds" in folds
    store = next(line for line in lines if "out/stores/none/fold1" in line)
    assert "build out/folds/fold1/manifest.yaml --data-root out/folds/fold1 --no-ontology" in store
    run = shlex.split(next(line for line in lines if "--output out/runs/sm/fold1-s1" in line))
    options = dict(zip(run[2::2], run[3::2], strict=True))
    assert (
        run[1].endswith("training/run.py") and options["--data.train_store"] == "out/stores/none/fold1/train"
    )
    assert (options["--seed"], options["--threads"], options["--data.dev_store"]) == ("1", "2", "null")
    assert options["--optim.clip_norm"] == "null" and options["--overwrite"] == "true"
    score = next(line for line in lines if "--out out/scores/sm/fold1-s1.parquet" in line)
    assert score.startswith("OMP_NUM_THREADS=2 ") and "--store out/stores/ontology/fold1/test" in score
    assert [entry.name for entry in tmp_path.iterdir()] == [Path(path).name]


def test_settings_are_written_as_the_command_line_reads_them() -> None:
    settings = {
        "optim.lr": 0.0005,
        "optim.clip_norm": None,
        "loss.mask_same_case": False,
        "policy.name": "softmax",
    }
    words = as_arguments(settings)
    assert words[1::2] == ["0.0005", "null", "false", "softmax"]


def test_variants_over_other_images_are_refused(tmp_path: Path) -> None:
    grid = read_grid(written(tmp_path, base()))
    plan = Plan(grid, tmp_path / "out", 1, 1)
    for variant, captions in (("ontology", ("CT of the chest.",) * 4), ("none", ("CT of the chest.",) * 6)):
        store = build(tmp_path / variant, captions)
        place = plan.store(variant, "fold0", "train")
        place.parent.mkdir(parents=True)
        Path(store.path).rename(place)
    with pytest.raises(DataError, match="does not hold the images and cases of"):
        plan.check_stores()


def test_null_leaves_an_option_of_a_store_out(tmp_path: Path) -> None:
    content = changed("stores/none", {"max_hops": None, "no_ontology": None, "shrinkage": 2})
    variant = read_grid(written(tmp_path, content)).stores["none"]
    assert variant.arguments == ("--shrinkage", "2") and variant.options == {"shrinkage": 2}


def test_a_name_is_told_wrong_without_loading_torch(tmp_path: Path) -> None:
    code = "import sys; from pipelines.tables.__main__ import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    for given in ("dmo", written(tmp_path, changed("titel", "x"))):
        done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, check=True)
        assert done.stdout == "2 False\n"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, unseen = os.pipe()
    os.close(seen)
    with os.fdopen(unseen, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main([written(tmp_path, base()), "--out", str(tmp_path / "out"), "--dry-run"]) == 0


def test_a_stop_while_libraries_are_loaded_is_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return read_grid(*given)

    monkeypatch.setattr("pipelines.tables.__main__.read_grid", interrupted)
    assert main([written(tmp_path, base()), "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "stopped by SIGINT: the same command continues\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_passes_a_given_folder_on() -> None:
    inherited = ("OUT", "GRID", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    for given, expected in (([], False), (["OUT=here"], True)):
        made = subprocess.run(
            ["make", "-n", "tables", "DATASET=medpix", *given],
            cwd=GRIDS.parents[1], env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ("--out" in made.stdout.splitlines()[-1]) is expected
        assert not expected or "--out here" in made.stdout
