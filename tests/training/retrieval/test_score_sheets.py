"""Score sheets: the scores that the report is made of, kept exactly, pooled only where that is right."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from kg_targets.store import TargetStore
from kg_targets.store.block import case_codes
from tests.processes import kg_targets
from tests.training.tiny import write_store
from training.clip.load import load_clip, write_model_folder
from training.data.sources import open_source
from training.errors import CheckpointError, DataError
from training.retrieval.config import EvalConfig
from training.retrieval.measures import Scored
from training.retrieval.scores import ScoreSheet, pool, read_sheet, score_chance, score_run, write_sheet
from training.statistics.intervals import case_interval, nan_to_null

evaluate = kg_targets("evaluate retrieval")
main = kg_targets("score-sheet")

OPTIONS = ("--features=before,after", "--direction=image-image,text-image", "--zero-shot=modality")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of twelve images and a finished run with an untrained model."""
    folder = tmp_path_factory.mktemp("sheets")
    write_store(folder / "dev", folder / "data", "dev", images=12)
    torch.manual_seed(0)
    clip = load_clip("test-vit")
    (folder / "run").mkdir()
    write_model_folder(folder / "run" / "checkpoint", clip.model, clip)
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump({"seed": 3}))
    (folder / "run" / "finished.json").write_text(json.dumps({"key": "a key"}))
    return folder


def score(world: Path, out: Path, *extra: str, model: str = "") -> int:
    which = [model] if model else ["--run", str(world / "run")]
    store = ["--store", str(world / "dev"), "--data-root", str(world / "data")]
    return main([*store, *which, "--out", str(out), *OPTIONS, *extra])


def test_the_report_s_figures_are_those_of_the_sheets_to_the_last_bit(world: Path, tmp_path: Path) -> None:
    assert score(world, tmp_path / "run.parquet") == 0
    assert score(world, tmp_path / "chance.parquet", model="--chance") == 0
    command = ["--store", str(world / "dev"), "--data-root", str(world / "data"), *OPTIONS, "--draws=50"]
    assert evaluate([*command, "--run", str(world / "run"), "--out", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "retrieval.json").read_text())["runs"]
    for name in ("run", "chance"):
        sheet = read_sheet(tmp_path / f"{name}.parquet")
        assert sheet.measures.keys() == report[name]["measures"].keys()
        for measure, scored in sheet.measures.items():
            found = case_interval(scored.values, case_codes(sheet.cases), 50, 0, scored.classes)
            told = report[name]["measures"][measure]
            assert nan_to_null([found.mean, found.low, found.high]) == [
                told["mean"],
                told["low"],
                told["high"],
            ]
            assert (found.queries, found.cases) == (told["queries"], told["cases"])
    # The image without concepts shares none with any other: it has no CUI@K, and keeps a place without a score.
    assert np.isnan(read_sheet(tmp_path / "run.parquet").measures["CUI@50"].values).tolist() == [
        False
    ] * 11 + [True]


def test_a_sheet_says_what_it_rests_on_and_comes_back_exactly(world: Path, tmp_path: Path) -> None:
    store = TargetStore.open(world / "dev")
    source, config = open_source(world / "data", store), EvalConfig(zero_shot=("modality",))
    sheet = score_run(store, source, world / "run", config)
    assert sheet.image_ids == store.image_ids and sheet.cases == store.group_ids
    assert {name: sheet.metadata[name] for name in ("dataset", "split", "run", "training seed", "exclusion")} == {
        "dataset": "tiny", "split": "dev", "run": "a key", "training seed": 3, "exclusion": "case",
    }  # fmt: skip
    assert (sheet.metadata["images"], sheet.metadata["cases"], sheet.metadata["gallery"]) == (12, 6, 10.0)
    assert sheet.metadata["store"] == store.fingerprint
    write_sheet(tmp_path / "a" / "b.parquet", sheet)
    back = read_sheet(tmp_path / "a" / "b.parquet")
    assert (back.image_ids, back.cases, back.metadata) == (sheet.image_ids, sheet.cases, sheet.metadata)
    for name, scored in sheet.measures.items():
        np.testing.assert_array_equal(back.measures[name].values, scored.values)
        assert back.measures[name].section == scored.section
        classes = back.measures[name].classes
        assert (classes is None) == (scored.classes is None)
        assert classes is None or np.array_equal(classes, scored.classes)
    write_sheet(tmp_path / "again.parquet", back)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "a" / "b.parquet").read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.parquet"]


def test_chance_is_of_the_images_that_a_model_can_read(world: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "dev", tmp_path / "data", "dev", images=12)
    (tmp_path / "data" / "images" / "dev0.png").write_text("no image")
    (tmp_path / "data" / "images" / "dev1.png").unlink()
    store = TargetStore.open(tmp_path / "dev")
    source, config = open_source(tmp_path / "data", store), EvalConfig(max_broken=2)
    chance = score_chance(store, source, config)
    assert (
        chance.image_ids == score_run(store, source, world / "run", config).image_ids == store.image_ids[2:]
    )
    with pytest.raises(DataError, match=r"2 broken image\(s\), 1 allowed"):
        score_chance(store, source, replace(config, max_broken=1))


def sheet(fold: str, **metadata: str | int) -> ScoreSheet:
    values = np.array([0.5, np.nan, 1.0, 0.0])
    measures = {"CUI@5": Scored(values, "a"), "accuracy": Scored(values, "b", np.array([0, 0, 1, 1]))}
    images = [f"{fold}{number}" for number in range(4)]
    return ScoreSheet(images, [f"{fold}x", f"{fold}x", f"{fold}y", f"{fold}y"], measures, dict(metadata))


def test_pooled_folds_stand_end_to_end() -> None:
    pooled = pool(
        [sheet("a", images=4, split="test", store="1"), sheet("b", images=4, split="test", store="2")]
    )
    assert pooled.image_ids == ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"]
    assert len(set(pooled.cases)) == 4 and pooled.metadata == {"images": 8, "split": "test"}
    np.testing.assert_array_equal(pooled.measures["CUI@5"].values, [0.5, np.nan, 1, 0] * 2)
    np.testing.assert_array_equal(pooled.measures["accuracy"].classes, [0, 0, 1, 1] * 2)


def test_what_must_not_be_pooled_is_told() -> None:
    one, other = sheet("a"), sheet("b")
    name = "zero-shot classes of modality"
    for sheets, message in (
        ([], "no score sheets to pool"),
        ([one, replace(other, image_ids=one.image_ids)], 'image "a0" is in 2 folds'),
        ([one, replace(other, cases=["ax", *other.cases[1:]])], 'case "ax" is in 2 folds'),
        (
            [one, replace(other, measures={"CUI@5": other.measures["CUI@5"]})],
            'differ in the measure "accuracy"',
        ),
        (
            [replace(one, metadata={name: "[1]"}), replace(other, metadata={name: "[2]"})],
            f"differ in the {name}",
        ),
    ):
        with pytest.raises(DataError, match=message):
            pool(sheets)


@pytest.mark.parametrize(
    ("extra", "model", "message"),
    [
        (["--features=inside"], "", "--features"),
        (["--run=nowhere"], "--chance", "not allowed with argument --chance"),
        (["--labels=colour"], "", 'the store has no label "colour"'),
    ],
)
def test_options_that_cannot_be_are_one_line_and_leave_nothing(
    extra: list[str],
    model: str,
    message: str,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert score(world, tmp_path / "sheet.parquet", *extra, model=model) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_sheet_or_no_place_for_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no Parquet")
    for path in (tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(DataError, match="is missing or no score sheet: make it again"):
            read_sheet(path)
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_sheet(tmp_path / "file" / "sheet.parquet", sheet("a"))
