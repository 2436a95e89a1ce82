"""Tables of a grid: hand-made score sheets in, statistics and words out."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kg_targets.manifest.folds import FoldConfig
from pipelines.tables.design import Contrast, Design, Hypothesis, TableDesign
from pipelines.tables.grid import Comparison, Grid, Row, Table, Variant
from pipelines.tables.paper import PAPER, paper_row
from pipelines.tables.report import write_report
from pipelines.tables.results import Results
from pipelines.tables.statistics import Sheets, analyse
from training.errors import ConfigError, DataError
from training.evaluate.config import EvalConfig
from training.evaluate.measures import Scored
from training.evaluate.score_sheets import ScoreSheet, write_sheet

FOLDS, SEEDS, CASES = ("fold0", "fold1"), (0, 1), 20
"""Cases of each fold, with two images each."""
MEASURES = ("CUI@50", "CUI@10", "organ P@30")
LIFT = {"infonce": 0.0, "sm": 0.1, "noise": 0.0, "other": 0.05}
"""What a row adds to each query's score."""
DESIGN = Design(
    tables=(TableDesign(("infonce", "noise", "sm"), "infonce"), TableDesign(("sm", "other"), "sm")),
    primary=Hypothesis(Contrast("sm", "infonce"), "CUI@50"),
    secondary=("CUI@10",),
    draws=200,
)


def sheet(fold: str, row: str, seed: int | None, noise: float = 0.02) -> ScoreSheet:
    """Scores of two measures and one with gaps; the same queries for every row."""
    number = FOLDS.index(fold)
    images = [f"{fold}-{image}" for image in range(2 * CASES)]
    base = np.random.default_rng(number).random(2 * CASES)
    rng = np.random.default_rng([number, sorted(LIFT).index(row) if row in LIFT else 9, seed or 0])
    measures = {}
    for name in MEASURES:
        values = base + LIFT.get(row, -0.3) + noise * rng.standard_normal(2 * CASES)
        if name == "organ P@30":
            values[::5] = np.nan
        measures[name] = Scored(values, "image → image, features before the projection")
    facts = {"dataset": f"made-up-{fold}", "split": "test", "store": fold, "features": "before"}
    facts |= {"exclusion": "case", "images": 2 * CASES, "cases": CASES, "gallery": 38.0, "torch": "2"}
    facts |= {"open_clip": "3", **({} if seed is None else {"training seed": seed})}
    return ScoreSheet(images, [f"{fold}-case{image // 2}" for image in range(2 * CASES)], measures, facts)


def chance() -> dict[str, ScoreSheet]:
    return {fold: sheet(fold, "chance", None) for fold in FOLDS}


def sheets(rows: Sequence[str] = ("infonce", "noise", "sm", "other"), noise: float = 0.02) -> Sheets:
    return {
        row: {seed: {fold: sheet(fold, row, seed, noise) for fold in FOLDS} for seed in SEEDS} for row in rows
    }


def reference(given: Sheets, row: str, measure: str) -> np.ndarray:
    """Scores of all queries, averaged over seeds, by plain numpy."""
    return np.mean(
        [np.concatenate([folds[fold].measures[measure].values for fold in FOLDS]) for folds in given[row].values()],
        axis=0,
    )  # fmt: skip


def test_pooled_means_and_differences_equal_plain_float64_arithmetic() -> None:
    given = sheets()
    results = analyse(given, chance(), DESIGN)
    assert (results.images, results.cases, results.folds) == (80, 40, {"fold0": 40, "fold1": 40})
    for measure in MEASURES:
        one, other = reference(given, "sm", measure), reference(given, "infonce", measure)
        found = results.differences[Contrast("sm", "infonce")][measure]
        assert results.rows["sm"].intervals[measure].mean == pytest.approx(np.nanmean(one), abs=1e-12)
        assert found.interval.mean == pytest.approx(np.nanmean(one - other), abs=1e-12)
        assert found.interval.low < 0.1 < found.interval.high
        for fold, part in zip(FOLDS, (slice(0, 40), slice(40, 80)), strict=True):
            assert found.folds[fold] == pytest.approx(np.nanmean((one - other)[part]), abs=1e-12)
        by_seed = [
            np.nanmean(np.concatenate([folds[fold].measures[measure].values for fold in FOLDS]))
            for folds in given["sm"].values()
        ]
        assert results.rows["sm"].seed_means[measure] == pytest.approx(by_seed)
        assert results.rows["sm"].seed_sd(measure) == pytest.approx(np.std(by_seed, ddof=1))
    assert results.rows["sm"].intervals["organ P@30"].queries == 64


def test_the_family_is_fixed_by_the_design_and_counts_a_pair_of_rows_once() -> None:
    named = {(one.contrast.row, one.contrast.baseline, one.measure) for one in DESIGN.family}
    assert named == {
        ("sm", "infonce", "CUI@10"),
        ("sm", "noise", "CUI@50"), ("sm", "noise", "CUI@10"),
        ("sm", "other", "CUI@50"), ("sm", "other", "CUI@10"),
        ("noise", "infonce", "CUI@50"), ("noise", "infonce", "CUI@10"),
    }  # fmt: skip
    assert len(DESIGN.family) == len(named)  # other − sm is sm − other


def holm_by_hand(p_values: list[float]) -> list[float]:
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(
        [min(1.0, p_values[place] * (len(p_values) - rank)) for rank, place in enumerate(order)]
    )
    return adjusted.tolist()


def test_a_grid_can_name_whom_the_primary_row_is_tested_against() -> None:
    def pairs(against: tuple[str, ...] | None) -> set[frozenset[str]]:
        return {one.contrast.pair for one in replace(DESIGN, against=against).family}

    baselines = {frozenset(pair) for pair in (("noise", "infonce"), ("sm", "infonce"), ("sm", "other"))}
    assert pairs(()) == baselines
    assert pairs(("noise",)) == pairs(None) == baselines | {frozenset(("sm", "noise"))}


def test_only_the_family_is_corrected_and_only_what_was_named_is_tested() -> None:
    results = analyse(sheets(noise=0.3), chance(), DESIGN)
    found = [results.differences[one.contrast][one.measure] for one in DESIGN.family]
    assert [one.p_holm for one in found] == pytest.approx(holm_by_hand([one.p or 0 for one in found]))
    primary = results.differences[DESIGN.primary.contrast]["CUI@50"]
    assert primary.p is not None and primary.p_holm is None and primary.decisive_p == primary.p
    there, back = (
        results.differences[Contrast(*pair)]["CUI@50"] for pair in (("sm", "other"), ("other", "sm"))
    )
    assert (there.p, there.p_holm) == (back.p, back.p_holm)
    assert there.interval.mean == pytest.approx(-back.interval.mean)
    assert all(by["organ P@30"].p is None for by in results.differences.values())


def test_rows_that_do_not_differ_are_called_different_as_seldom_as_the_level_says() -> None:
    """300 questions without an answer: about one in twenty has p < 0.05 (the measures are independent)."""
    rng = np.random.default_rng(0)
    names = [f"measure {number}" for number in range(300)]

    def null(fold: str) -> ScoreSheet:
        images = [f"{fold}-{image}" for image in range(30)]
        measures = {name: Scored(rng.standard_normal(30), "all") for name in names}
        return ScoreSheet(images, [f"{fold}-{image // 2}" for image in range(30)], measures, {})

    given = {row: {0: {fold: null(fold) for fold in FOLDS}} for row in ("a", "b")}
    design = Design(
        (TableDesign(("a", "b"), "a"),), Hypothesis(Contrast("b", "a"), names[0]), tuple(names[1:]), draws=2
    )
    found = analyse(given, {fold: null(fold) for fold in FOLDS}, design)
    p_values = np.array([one.p for one in found.differences[Contrast("b", "a")].values()], dtype=np.float64)
    assert 0.02 < (p_values < 0.05).mean() < 0.08
    assert min(one.decisive_p or 0 for one in found.differences[Contrast("b", "a")].values()) > 0.05


def test_queries_are_paired_by_image_whatever_their_order() -> None:
    given, mixed = sheets(), sheets()
    turned = mixed["sm"][0]["fold0"]
    measures = {name: Scored(one.values[::-1].copy(), one.section) for name, one in turned.measures.items()}
    mixed["sm"][0]["fold0"] = ScoreSheet(turned.image_ids[::-1], turned.cases[::-1], measures, turned.facts)  # type: ignore[index]
    assert analyse(mixed, chance(), DESIGN) == analyse(given, chance(), DESIGN)


def test_rows_scored_on_other_images_are_not_compared() -> None:
    given = sheets()
    one = given["sm"][0]["fold0"]
    given["sm"][0]["fold0"] = ScoreSheet(["x", *one.image_ids[1:]], one.cases, one.measures, one.facts)  # type: ignore[index]
    with pytest.raises(DataError, match="row sm, seed 0, fold0: scored on other images"):
        analyse(given, chance(), DESIGN)


def test_a_measure_that_nobody_measured_is_told() -> None:
    design = Design(DESIGN.tables, DESIGN.primary, ("CUI@7",))
    with pytest.raises(
        ConfigError, match='"CUI@7" was not measured; primary and secondary can be: CUI@50, CUI@10'
    ):
        analyse(sheets(), chance(), design)


def test_some_rows_alone_are_described_but_not_tested() -> None:
    results = analyse(sheets(("infonce", "sm")), chance(), DESIGN)
    assert not results.tested and list(results.differences) == [Contrast("sm", "infonce")]
    assert all(one.p is None for one in results.differences[Contrast("sm", "infonce")].values())


def test_a_subset_of_cases_gives_the_primary_comparison_again() -> None:
    given = sheets()
    cases = frozenset(f"fold1-case{number}" for number in range(5))
    results: Results = analyse(given, chance(), DESIGN, {"five": cases | {"unknown"}})
    subset = results.subsets["five"]
    assert (subset.images, subset.cases, list(subset.differences)) == (10, 5, ["CUI@50", "CUI@10"])
    difference = (reference(given, "sm", "CUI@50") - reference(given, "infonce", "CUI@50"))[40:50]
    assert subset.differences["CUI@50"].difference.mean == pytest.approx(difference.mean())
    with pytest.raises(DataError, match='subset "none": none of its 1 cases'):
        analyse(given, chance(), DESIGN, {"none": frozenset({"unknown"})})


def test_the_papers_figures_are_found_by_name_and_unknown_names_are_told() -> None:
    assert paper_row("sm")["CUI@50"] == 48.61 and paper_row("uniform") == {}
    assert paper_row("mine", "sm") == PAPER["sm"] and paper_row("sm", False) == {}
    with pytest.raises(ConfigError, match=r"rows\.mine\.paper: row of the paper 'smm' is not one of"):
        paper_row("mine", "smm")


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Grid, Path]:
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
    base = tmp_path / "base.yaml"
    base.write_text("seed: 0\n")
    grid = Grid(
        name="made-up",
        path=tmp_path / "made-up.yaml",
        title="Made-up scores",
        dataset="demo",
        data_root=tmp_path,
        base=base,
        seeds=SEEDS,
        split=FoldConfig(("train", "test"), ("dev",), 2),
        stores={"ontology": Variant("ontology", "demo")},
        evaluate_on="ontology",
        rows={row: Row(row, f"Row {row}", "ontology") for row in LIFT},
        tables=(
            Table("Table 1", ("infonce", "noise", "sm"), "infonce"),
            Table("Table 2", ("sm", "other"), "sm"),
        ),
        evaluation=EvalConfig(draws=200),
        evaluation_arguments=(),
        primary=Comparison("sm", "infonce", "CUI@50"),
        secondary=("CUI@10",),
    )
    return grid, out


def test_a_report_says_what_was_tested_how_and_how_to_make_it_again(
    finished: tuple[Grid, Path], tmp_path: Path
) -> None:
    grid, out = finished
    docs = tmp_path / "docs" / "made-up.md"
    written = write_report(grid, out, docs)
    assert written == [out / "report.json", out / "tables.md", docs]
    text = docs.read_text()
    for expected in (
        "2 folds of whole cases of train and test (seed 0, 40 images held out), each case held out once",
        "cases of dev always trained on", "Holm's correction over 7 others",
        "`python -m pipelines.tables made-up.yaml`",
        "**CUI@50, Row sm against Row infonce: higher by 10.", "the one test named beforehand, below 0.05",
        "survives Holm's correction", "### CUI@50 (primary)", "*the paper's*", "| *48.6* |",
        "## Knowledge against controls", "| Row sm − | CUI@50 | p | p Holm |", "all other measures are descriptive",
        "`python -m pipelines.tables made-up.yaml --only sm`", "0.3 hours of 16 training runs, at most 2 at a time",
        "torch 2; open_clip 3",
    ):  # fmt: skip
        assert expected in text, expected
    assert str(tmp_path) not in text + (out / "report.json").read_text()
    content = json.loads((out / "report.json").read_text())
    assert len(content["family"]) == 7 and content["rows"]["sm"]["seconds"] == 60.5
    (primary,) = [
        one
        for one in content["differences"]
        if (one["row"], one["baseline"], one["measure"]) == ("sm", "infonce", "CUI@50")
    ]
    assert primary["interval"]["mean"] == pytest.approx(0.1, abs=0.01) and primary["p_holm"] is None
    before = {path: path.read_bytes() for path in written}
    write_report(grid, out, docs)
    assert {path: path.read_bytes() for path in written} == before


def test_the_rows_of_a_table_come_with_marks_only_where_a_test_says_so(finished: tuple[Grid, Path]) -> None:
    grid, out = finished
    write_report(grid, out)
    text = (out / "tables.md").read_text()
    table = text[text.index("## Table 1") : text.index("### CUI@50 (primary)")]
    lines = {line.split(" | ")[0].strip("| "): line for line in table.splitlines() if line.startswith("|")}
    assert (
        lines["Row sm"].count("▲") == 2
    )  # CUI@50 and CUI@10; P@30 differs as much, but was not to be tested
    assert "▲" not in lines["Row infonce"] + lines["Row noise"]


def test_no_table_is_made_while_sheets_are_missing(finished: tuple[Grid, Path]) -> None:
    grid, out = finished
    for name in ("sm/fold0-s1", "other/fold1-s0"):
        (out / "scores" / f"{name}.parquet").unlink()
    with pytest.raises(DataError) as error:
        write_report(grid, out)
    assert "2 of 18 score sheets are not in" in str(error.value) and "scores/sm/fold0-s1.parquet" in str(
        error.value
    )
    assert "make them with python -m pipelines.tables made-up.yaml" in str(error.value)
    assert not (out / "report.json").exists()
    assert write_report(grid, out, only=["infonce", "noise"]) == [out / "part.json", out / "part.md"]
    assert "none: only some of the grid's rows are here" in (out / "part.md").read_text()
    with pytest.raises(ConfigError, match='--only: row "nobody" is in no table'):
        write_report(grid, out, only=["nobody"])


def test_a_sheet_of_another_store_or_seed_is_refused(finished: tuple[Grid, Path]) -> None:
    grid, out = finished
    for seed, fold, message in (
        (1, "fold0", "its training seed is 1, not 0"),
        (0, "fold1", "its dataset is"),
    ):
        write_sheet(out / "scores" / "sm" / "fold0-s0.parquet", sheet(fold, "sm", seed))
        with pytest.raises(DataError, match=message):
            write_report(grid, out)
