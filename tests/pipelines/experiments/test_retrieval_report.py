"""Tables of a grid: hand-made score sheets, times and logs in, words out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from kg_targets.manifest import Manifest
from kg_targets.manifest.record import Record
from pipelines.experiments.grid import paper
from pipelines.experiments.retrieval_grid import RetrievalGrid
from pipelines.experiments.retrieval_report import write_report
from pipelines.experiments.tasks import read_grid
from tests.pipelines.experiments.score_sheet_fakes import FOLDS, LIFT, SEEDS, chance, sheet, sheets
from training.errors import ConfigError, DataError
from training.retrieval.score_sheets import read_sheet, write_sheet


def test_the_papers_figures_are_found_by_name_unless_the_grid_says_otherwise(
    finished: tuple[RetrievalGrid, Path],
) -> None:
    sm = finished[0].rows["sm"]
    assert sm.figures["CUI@50"] == 48.61 and sm.model_copy(update={"name": "uniform"}).figures == {}
    named = sm.model_copy(update={"name": "mine", "paper": "sm"})
    assert (
        named.figures == paper("retrieval").rows["sm"]
        and sm.model_copy(update={"paper": False}).figures == {}
    )


CONTENT = {
    "title": "Made-up scores",
    "dataset": "demo",
    "base": "training/configs/nb_clip_demo.yaml",
    "seeds": list(SEEDS),
    "split": {"folds": {"count": 2, "test": ["train", "test"], "train_only": ["dev"]}},
    "stores": {"ontology": {}},
    "evaluate_on": "ontology",
    "rows": {row: {"title": f"Row {row}", "store": "ontology"} for row in LIFT},
    "tables": [
        {"title": "Table 1", "rows": ["infonce", "noise", "sm"], "baseline": "infonce"},
        {"title": "Table 2", "rows": ["sm", "other"], "baseline": "sm"},
    ],
    "evaluation": {"draws": 200},
    "primary": {"row": "sm", "baseline": "infonce", "measure": "CUI@50"},
    "secondary": ["CUI@10"],
}


@pytest.fixture
def finished(tmp_path: Path) -> tuple[RetrievalGrid, Path]:
    """A grid with all its sheets and times, as the runner leaves it."""
    out = tmp_path / "out"
    for fold, one in chance().items():
        write_sheet(out / "scores" / "chance" / f"{fold}.parquet", one)
    for row, by_seed in sheets().items():
        for seed, folds in by_seed.items():
            for fold, one in folds.items():
                write_sheet(out / "scores" / row / f"{fold}-s{seed}.parquet", one)
                run = out / "runs" / row / f"{fold}-s{seed}"
                run.mkdir(parents=True)
                seconds = {"seconds": 60.0 + seed, "jobs": 2, "threads": 1}
                (run / "seconds.json").write_text(json.dumps(seconds))
                loss = "mse" if row == "other" else "semantic_matching"
                (run / "config.yaml").write_text(f"loss:\n  name: {loss}\n")
                steps = [
                    {"step": step, "diagonal": 0.6 + 0.1 * step, "entropy": 1.0 + seed, "positives": 3.5}
                    for step in (1, 2)
                ]
                lines = [*steps, {"epoch": 1, "seconds": 3.0}]
                (run / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "made-up.yaml").write_text(yaml.safe_dump(CONTENT))
    grid = read_grid(str(tmp_path / "made-up.yaml"), tmp_path)
    assert isinstance(grid, RetrievalGrid)
    return grid, out


def test_a_report_says_what_was_tested_how_and_how_to_make_it_again(
    finished: tuple[RetrievalGrid, Path], tmp_path: Path
) -> None:
    grid, out = finished
    docs = tmp_path / "docs" / "made-up.md"
    written = write_report(grid, out, docs)
    assert written == [out / "report.json", out / "tables.md", docs]
    text = docs.read_text()
    for expected in (
        "2 folds of whole cases of train and test (seed 0, 40 images held out), each case held out once",
        "cases of dev always trained on", "Holm's correction over 7 others",
        "`kg-targets tables made-up.yaml --data-root DIR --out DIR`",
        "**CUI@50, Row sm against Row infonce: higher by 10.", "the one test named beforehand, below 0.05",
        "survives Holm's correction", "### CUI@50 (primary)", "*the paper's*", "| *48.6* |",
        "## Knowledge against controls", "| Row sm − | CUI@50 | p | p Holm |", "all other measures are descriptive",
        "`kg-targets tables made-up.yaml --data-root DIR --out DIR --only sm`",
        "0.4 hours of 24 training runs, at most 2 at a time",
        "torch 2; open_clip 3", "In 6 of 6 pairs of training runs the difference has the sign of the mean.",
        "t test of D/SE; one primary", "**A against A:** two seeds of one row",
        "| Row sm | 6 | 61 | 0.75 | 2.00 | 3.5 |", "| Row other | 6 | 61 | – | – | – |", "## All other measures",
    ):  # fmt: skip
        assert expected in text, expected
    assert "## Every measure" not in text and "## Every measure" in (out / "tables.md").read_text()
    assert str(tmp_path) not in text + (out / "report.json").read_text()
    content = json.loads((out / "report.json").read_text())
    assert len(content["family"]) == 7 and content["rows"]["sm"]["seconds"] == 61
    (primary,) = [
        one
        for one in content["differences"]
        if (one["row"], one["baseline"], one["measure"]) == ("sm", "infonce", "CUI@50")
    ]
    assert primary["interval"]["mean"] == pytest.approx(0.1, abs=0.01) and primary["p_holm"] is None
    assert (
        primary["p"] < 0.01
        and primary["p_models"] is None
        and primary["noise"]["by_training"].keys() == set(FOLDS)
    )
    before = {path: path.read_bytes() for path in written}
    write_report(grid, out, docs)
    assert {path: path.read_bytes() for path in written} == before


def test_the_rows_of_a_table_come_with_marks_only_where_a_test_says_so(
    finished: tuple[RetrievalGrid, Path],
) -> None:
    grid, out = finished
    write_report(grid, out)
    text = (out / "tables.md").read_text()
    table = text[text.index("## Table 1") : text.index("### CUI@50 (primary)")]
    lines = {line.split(" | ")[0].strip("| "): line for line in table.splitlines() if line.startswith("|")}
    assert (
        lines["Row sm"].count("▲") == 2
    )  # CUI@50 and CUI@10; P@30 differs as much, but was not to be tested
    assert "▲" not in lines["Row infonce"] + lines["Row noise"]


def test_no_table_is_made_while_sheets_are_missing(finished: tuple[RetrievalGrid, Path]) -> None:
    grid, out = finished
    for name in ("sm/fold0-s1", "other/fold1-s0"):
        (out / "scores" / f"{name}.parquet").unlink()
    with pytest.raises(DataError) as error:
        write_report(grid, out)
    assert "2 of 26 score sheets are not in" in str(error.value) and "scores/sm/fold0-s1.parquet" in str(
        error.value
    )
    assert "run the grid without --stage report, which makes them" in str(error.value)
    assert not (out / "report.json").exists()
    assert write_report(grid, out, only=["infonce", "noise"]) == [out / "part.json", out / "part.md"]
    assert "none: only some of the grid's rows are here" in (out / "part.md").read_text()
    with pytest.raises(ConfigError, match='--only: row "nobody" is in no table'):
        write_report(grid, out, only=["nobody"])


def test_a_sheet_of_another_store_or_seed_is_refused(finished: tuple[RetrievalGrid, Path]) -> None:
    grid, out = finished
    for seed, fold, message in (
        (1, "fold0", "its training seed is 1, not 0"),
        (0, "fold1", "its dataset is"),
    ):
        write_sheet(out / "scores" / "sm" / "fold0-s0.parquet", sheet(fold, "sm", seed))
        with pytest.raises(DataError, match=message):
            write_report(grid, out)


def test_two_seeds_are_not_estimable_and_the_page_says_so(finished: tuple[RetrievalGrid, Path]) -> None:
    grid, out = finished
    write_report(grid.model_copy(update={"seeds": (0, 1)}), out)
    text = (out / "tables.md").read_text()
    assert "t test of D/SE: not estimable from two seeds, train a third" in text
    assert "points**, p is not estimable: the one test named beforehand." in text and "not tested." in text
    assert " ▲ |" not in text and " ▼ |" not in text and "survive" not in text
    content = json.loads((out / "report.json").read_text())
    assert all(one["p"] is one["p_holm"] is one["noise"] is None for one in content["differences"])


def test_with_one_seed_nothing_is_called_higher_or_lower(finished: tuple[RetrievalGrid, Path]) -> None:
    grid, out = finished
    write_report(grid.model_copy(update={"seeds": (0,)}), out)
    text = (out / "tables.md").read_text()
    assert "▲" not in text and "▼" not in text and "survive" not in text and "below 0.05" not in text
    assert "A against A" not in text
    short = text[text.index("## In short") : text.index("## Table 1")].strip().splitlines()[2:]
    assert len(short) == 4
    assert all("given these models; seed variance unknown (one seed)" in line for line in short)
    assert "| p given these models | Holm given these models |" in text and "| p Holm |" not in text
    content = json.loads((out / "report.json").read_text())
    assert all(one["p"] is one["p_holm"] is one["noise"] is None for one in content["differences"])


def test_seed_variance_is_shown_as_the_largest_difference_between_seeds_of_one_row(
    finished: tuple[RetrievalGrid, Path],
) -> None:
    grid, out = finished
    write_report(grid, out)
    given = sheets()
    said = [
        f"{100 * (max(means) - min(means)):.1f} points (Row {row})"
        for row in ("sm", "infonce")
        for means in [
            [
                np.mean([folds[fold].measures["CUI@50"].values for fold in FOLDS])
                for folds in given[row].values()
            ]
        ]
    ]
    assert f"differ in CUI@50 by up to {said[0]} and {said[1]}" in (out / "tables.md").read_text()


def test_lost_or_damaged_times_and_logs_are_dashes(finished: tuple[RetrievalGrid, Path]) -> None:
    grid, out = finished
    runs = out / "runs" / "sm"
    for place, fold in enumerate(FOLDS):
        for seed in SEEDS:
            seconds = runs / f"{fold}-s{seed}" / "seconds.json"
            seconds.unlink() if place else seconds.write_text('{"seconds": null, "jobs": 2, "threads": 1}')
    (runs / "fold0-s0" / "log.jsonl").write_text('{"diagonal": 0.5, "entr')
    (out / "runs" / "noise" / "fold0-s0" / "seconds.json").write_text("[]")
    write_report(grid, out)
    text = (out / "tables.md").read_text()
    assert "| Row sm | 6 | – | – | – | – |" in text and "| Row noise | 6 | 61 | 0.75 |" in text
    assert "0.3 hours of 17 training runs (not known of 7 others)" in text


def test_commands_have_the_options_that_are_not_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "my grids" / "made-up.yaml"
    mine.parent.mkdir()
    mine.write_text(yaml.safe_dump({**CONTENT, "data_root": "data/mine"}))
    usual = read_grid(str(mine))
    begin = "kg-targets tables"
    assert usual.command(Path("build/tables/made-up"), 1) == f"{begin} 'my grids/made-up.yaml'"
    assert usual.command(Path("build/else"), None).endswith("made-up.yaml' --out build/else")
    elsewhere = read_grid(str(mine), Path("/somewhere/private"))
    assert elsewhere.command(Path("/scratch/tables"), 4).endswith("--data-root DIR --out DIR --threads 4")
    assert elsewhere.command(Path("/scratch/tables"), 4, "sm").endswith("--threads 4 --only sm")
    assert read_grid("demo").command(Path("build/tables/demo"), 1) == f"{begin} demo"
    assert read_grid("rad").command(Path("build/vqa_tables/vqa_rad"), 1) == f"{begin} vqa_rad"


@pytest.mark.parametrize("name", ["demo", "vqa_table5"])
def test_a_fingerprint_is_of_what_the_grid_says_and_not_of_where_files_lie(name: str, tmp_path: Path) -> None:
    grid = read_grid(name)
    copy = tmp_path / f"{name}.yaml"
    copy.write_text(grid.path.read_text())
    assert read_grid(str(copy), tmp_path).fingerprint() == grid.fingerprint()
    copy.write_text(grid.path.read_text().replace("seeds: [0", "seeds: [7"))
    assert read_grid(str(copy)).fingerprint() != grid.fingerprint()


def test_images_of_a_subset_that_have_no_case_take_part_in_it(
    finished: tuple[RetrievalGrid, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds name the case of such an image by its id; stores without folds leave it empty."""
    grid, out = finished
    groups = ["", "", "fold0-case1", "fold0-case1"]
    records = [Record(f"fold0-{image}", "x.png", "words", group) for image, group in enumerate(groups)]
    monkeypatch.setattr(Manifest, "records", lambda *_: iter(records))
    for path in out.glob("scores/*/fold0*.parquet"):
        one = read_sheet(path)
        cases = ["fold0-0", "image fold0-1", *one.cases[2:]]
        write_sheet(path, replace(one, cases=cases))
    write_report(grid.model_copy(update={"subsets": {"few": "test"}}), out)
    assert "On few (4 images of 3 cases): CUI@50" in (out / "tables.md").read_text()
