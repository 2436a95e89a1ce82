"""Every grid of pipelines/grids is right, says how to run it, and prints its jobs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.experiments.grid import paper, training_config
from pipelines.experiments.med_vqa_report import MEAN
from pipelines.experiments.retrieval_grid import RetrievalGrid
from pipelines.experiments.tasks import plan_of, read_grid, shipped_grids
from tests.pipelines.experiments.grids import read_med_vqa, read_retrieval
from tests.processes import kg_targets

main = kg_targets("tables")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", shipped_grids())
def test_every_shipped_grid_is_right_and_says_how_to_run_it(name: str) -> None:
    grid = read_grid(name)
    usage = grid.path.read_text().split("title:")[0]
    assert grid.name == name and "make " in usage
    if isinstance(grid, RetrievalGrid):
        wanted = f"make tables DATASET={grid.dataset}"
        wanted += "" if grid.name == grid.dataset else f" GRID={grid.name}"
        assert wanted in usage and {"infonce", "sm"} <= grid.rows.keys()
    else:
        assert name.startswith("vqa_") and read_grid(name.removeprefix("vqa_")).name == name
    plan = plan_of(grid, Path("out"), 1, 1)
    assert all(job.command for job in plan.runs(plan.stages))


@pytest.mark.parametrize("name", shipped_grids())
def test_every_shipped_grid_prints_its_jobs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--dry-run"]) == 0
    counts = re.findall(r"^# (\w+).*: (\d+)$", printed := capsys.readouterr().out, re.MULTILINE)
    assert sum(int(count) for _, count in counts) == len(printed.splitlines()) - len(counts)
    assert "report" in {stage for stage, _ in counts}
    assert printed.count("training/run.py --config") >= 2  # two rows at least


def write_roco(root: Path) -> None:
    for split in ("train", "validation", "test"):
        (root / split / "radiology").mkdir(parents=True)
        lines = [f"ROCO_{number:05d}\tCT of the chest.\n" for number in range(3)]
        (root / split / "radiology" / "captions.txt").write_text("".join(lines), encoding="utf-8")


def write_roco_v2(root: Path) -> None:
    root.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        for name, column, values in (
            ("captions", "Caption", ["CT of the chest."] * 3),
            ("concepts", "CUIs", ["C0040405"] * 3),
            (
                "concepts_manual",
                "CUIs",
                ["C0040405", "C1306645;C0817096;C1996865", "C1306645;C0000726;C1999039"],
            ),
        ):
            rows = [f"ROCOv2_2023_{split}_{number:06d},{value}" for number, value in enumerate(values)]
            (root / f"{split}_{name}.csv").write_text(
                "\n".join([f"ID,{column}", *rows]) + "\n", encoding="utf-8"
            )


@pytest.mark.parametrize(("name", "write"), [("roco", write_roco), ("roco_v2", write_roco_v2)])
def test_the_grids_of_the_papers_data_measure_what_the_data_have(
    name: str, write: Callable[[Path], None], folder: Path
) -> None:
    write(folder / "data")
    told: list[str] = []
    plan_of(read_grid(name, folder / "data"), Path("out"), 1, 1).check(dry=False, say=told.append)
    assert not told  # splits, labels and measures are there
    config = training_config(read_grid(name).base, "nb_clip", {})
    assert (config.optim.epochs, config.optim.lr, config.model.pretrained) == (20, 3e-6, "openai")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["demo", "medpix", "roco", "roco_v2"])
def test_the_tables_have_all_rows_of_the_paper_and_the_controls(name: str) -> None:
    rows = {"infonce", "noise", "none", "sm", "mse", "sigmoid", "permuted", "uniform", "same_case"}
    grid = read_retrieval(name)
    assert grid.rows.keys() >= rows and grid.against is None


def test_the_grid_of_table_5_has_every_row_of_the_paper_and_our_own() -> None:
    rows = read_med_vqa("vqa_table5").rows
    assert {row.paper for row in rows.values() if row.paper} == paper("med_vqa").rows.keys()
    assert {"no_pretraining", "kg", "nb_clip", "kg_nb_clip"} <= rows.keys()
    assert all(len(row.pretrain) == 2 for name, row in rows.items() if name != "no_pretraining")


def test_table_5_has_the_same_rows_on_all_four_data_sets_of_the_paper() -> None:
    first = read_med_vqa("vqa_table5")
    others = {name: read_med_vqa(name) for name in first.beside}
    assert {name: grid.dataset for name, grid in others.items()} == first.beside
    assert {first.dataset, *first.beside.values(), MEAN} == set(next(iter(paper("med_vqa").rows.values())))
    for grid in others.values():
        assert grid.rows.keys() == first.rows.keys() and grid.seeds == first.seeds and not grid.beside
        assert f"--dataset {grid.dataset} " in " ".join(grid.stores["exclude"].command)
    for figures in paper("med_vqa").rows.values():
        *each, mean = figures.values()
        assert mean == pytest.approx(sum(each) / 4, abs=0.0051)


def test_the_grid_of_figure_6_has_every_lambda_in_both_spaces() -> None:
    found: dict[str, set[float]] = {}
    for row in read_med_vqa("vqa_fig6").rows.values():
        assert row.point is not None
        for stage in row.pretrain:
            assert stage.settings["loss.lambda_weight"] == row.point.x
            assert row.point.x == 0 or [stage.settings["loss.lambda_space"]] == list(row.point.series)
        for name in row.point.series:
            found.setdefault(name, set()).add(row.point.x)
    assert set(found) == {"logit", "cosine"} and all(
        line == {0, 0.001, 0.01, 0.1, 1} for line in found.values()
    )
