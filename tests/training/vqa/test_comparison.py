from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import kg_targets
from tests.training.vqa.fakes import write_data
from training.errors import DataError
from training.statistics.seed_variance import fold_seed
from training.vqa.baselines import majority_baseline
from training.vqa.comparison import pool, tables_of
from training.vqa.predictions import Predictions, predictions_of, write_predictions
from training.vqa.protocols import Split, prepare
from training.vqa.scores import accuracies, folds_by_question

main = kg_targets("compare-vqa")


@pytest.fixture
def folds(tmp_path: Path) -> list[Split]:
    manifest = write_data(tmp_path / "data")
    return [prepare(manifest, tmp_path / "data", "image_disjoint", seed=seed) for seed in range(4)]


def answered(split: Split, seed: int = 0) -> Predictions:
    metadata = {
        "name": "tiny",
        "mode": "exact",
        "images": "real",
        "trained_on": "real",
        "seed": seed,
        "model": "x",
    }
    return predictions_of(split, "test", [question.answer for question in split.test], metadata=metadata)


def test_a_pool_has_every_question_once_and_the_mean_ceiling(folds: list[Split]) -> None:
    pooled = pool([answered(fold) for fold in reversed(folds)])
    assert len({row.id for row in pooled.rows}) == len(pooled.rows) == 48
    assert pooled.metadata["split_seed"] == "0, 1, 2, 3"
    reached = sum(fold.ceiling["overall"] * len(fold.test) for fold in folds)
    assert pooled.metadata["ceiling"]["overall"] == pytest.approx(reached / 48)
    assert "model" not in pooled.metadata
    assert folds_by_question(pooled) == {
        question.id: str(number) for number, fold in enumerate(folds) for question in fold.test
    }
    assert set(folds_by_question(answered(folds[2])).values()) == {"2"}
    assert accuracies([pooled])["overall"].interval.cases == 12


def test_the_folds_of_one_seed_of_a_grid_are_pooled_though_each_trains_with_its_own(
    folds: list[Split],
) -> None:
    parts = [answered(fold, fold_seed(seed, number)) for number, fold in enumerate(folds) for seed in (0, 2)]
    assert [part.metadata["seed"] for part in parts[:4]] == [0, 2, 1000, 1002]
    assert pool(parts[1::2]).metadata["seed"] == 2
    (table,) = tables_of([("", part) for part in parts], draws=100, pool_folds=True)
    assert [row.seeds for row in table.rows] == [(0, 2)]
    with pytest.raises(DataError, match="differ in seed"):
        pool([parts[0], parts[3]])


def test_folds_that_were_trained_with_the_same_seeds_are_pooled_by_them(folds: list[Split]) -> None:
    parts = [answered(fold, seed) for fold in folds for seed in (5, 1005, 20260101)]
    (table,) = tables_of([("", part) for part in parts], draws=100, pool_folds=True)
    assert [row.seeds for row in table.rows] == [(5, 1005, 20260101)]


def test_cuts_that_share_questions_or_differ_in_more_are_refused(folds: list[Split]) -> None:
    with pytest.raises(DataError, match="in 2 of the folds"):
        pool([answered(folds[0]), answered(folds[0])])
    image = folds[0].test[0].image_id
    moved = answered(folds[1])
    moved = replace(moved, rows=(replace(moved.rows[0], image_id=image), *moved.rows[1:]))
    with pytest.raises(DataError, match=f"image '{image}' is in 2 of the folds"):
        pool([answered(folds[0]), moved])
    with pytest.raises(DataError, match="differ in seed"):
        pool([answered(folds[0]), answered(folds[1], seed=1)])
    with pytest.raises(DataError, match="no predictions"):
        pool([])


def test_the_report_pools_when_asked(folds: list[Split], tmp_path: Path) -> None:
    for number, fold in enumerate(folds):
        write_predictions(tmp_path / f"majority{number}.csv", majority_baseline(fold, "kind"))
        for seed in range(3):
            write_predictions(tmp_path / f"tiny{number}-{seed}.csv", answered(fold, seed))
    files = [str(path) for path in sorted(tmp_path.glob("*.csv"))]
    assert main([*files, "--pool-folds", "--out", str(tmp_path / "r.md")]) == 0
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "split seed 0, 1, 2, 3" in text
    assert "48 questions about 12 images" in text
    assert "| tiny | 0, 1, 2 |" in text
    assert "of 12 (seeds 0, 1, 2) |" in text  # four folds, three seeds
    assert main([*files, "--out", str(tmp_path / "r.md")]) == 0
    assert (tmp_path / "r.md").read_text(encoding="utf-8").count("\n## tiny_vqa") == 4
    assert (
        main([*files[1:], "--pool-folds", "--out", str(tmp_path / "r.md")]) == 0
    )  # the baseline lacks a fold
    assert (tmp_path / "r.md").read_text(encoding="utf-8").count("\n## tiny_vqa") == 2
