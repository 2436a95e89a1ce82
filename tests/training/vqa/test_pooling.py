from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import kg_targets
from tests.training.vqa.fakes import write_data
from training.errors import DataError
from training.vqa.comparison import pool
from training.vqa.floors import floor
from training.vqa.predictions import Predictions, predictions_of, write_predictions
from training.vqa.protocols import Split, prepare
from training.vqa.scores import accuracies, cuts_of

main = kg_targets("compare-vqa")


@pytest.fixture
def cuts(tmp_path: Path) -> list[Split]:
    manifest = write_data(tmp_path / "data")
    return [prepare(manifest, tmp_path / "data", "image_disjoint", seed=seed) for seed in range(4)]


def answered(split: Split, seed: int = 0) -> Predictions:
    facts = {
        "name": "tiny",
        "mode": "exact",
        "images": "real",
        "trained_on": "real",
        "seed": seed,
        "model": "x",
    }
    return predictions_of(split, "test", [question.answer for question in split.test], facts=facts)


def test_a_pool_has_every_question_once_and_the_mean_ceiling(cuts: list[Split]) -> None:
    pooled = pool([answered(cut) for cut in reversed(cuts)])
    assert len({row.id for row in pooled.rows}) == len(pooled.rows) == 48
    assert pooled.facts["split_seed"] == "0, 1, 2, 3"
    reached = sum(cut.ceiling["overall"] * len(cut.test) for cut in cuts)
    assert pooled.facts["ceiling"]["overall"] == pytest.approx(reached / 48)
    assert "model" not in pooled.facts
    assert cuts_of(pooled) == {
        question.id: str(number) for number, cut in enumerate(cuts) for question in cut.test
    }
    assert set(cuts_of(answered(cuts[2])).values()) == {"2"}
    assert accuracies([pooled])["overall"].interval.cases == 12


def test_cuts_that_share_questions_or_differ_in_more_are_refused(cuts: list[Split]) -> None:
    with pytest.raises(DataError, match="in 2 of the cuts"):
        pool([answered(cuts[0]), answered(cuts[0])])
    image = cuts[0].test[0].image_id
    moved = answered(cuts[1])
    moved = replace(moved, rows=(replace(moved.rows[0], image_id=image), *moved.rows[1:]))
    with pytest.raises(DataError, match=f"image '{image}' is in 2 of the cuts"):
        pool([answered(cuts[0]), moved])
    with pytest.raises(DataError, match="differ in seed"):
        pool([answered(cuts[0]), answered(cuts[1], seed=1)])
    with pytest.raises(DataError, match="no predictions"):
        pool([])


def test_the_report_pools_when_asked(cuts: list[Split], tmp_path: Path) -> None:
    for number, cut in enumerate(cuts):
        write_predictions(tmp_path / f"floor{number}.csv", floor(cut, "kind"))
        for seed in range(2):
            write_predictions(tmp_path / f"tiny{number}-{seed}.csv", answered(cut, seed))
    files = [str(path) for path in sorted(tmp_path.glob("*.csv"))]
    assert main([*files, "--pool-cuts", "--out", str(tmp_path / "r.md")]) == 0
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "cut 0, 1, 2, 3" in text
    assert "48 questions about 12 images" in text
    assert "| tiny | 0, 1 |" in text
    assert "of 8 (seeds 0, 1) |" in text  # four cuts, two seeds
    assert main([*files, "--out", str(tmp_path / "r.md")]) == 0
    assert (tmp_path / "r.md").read_text(encoding="utf-8").count("\n## tiny_vqa") == 4
    assert main([*files[1:], "--pool-cuts", "--out", str(tmp_path / "r.md")]) == 0  # the floor lacks a cut
    assert (tmp_path / "r.md").read_text(encoding="utf-8").count("\n## tiny_vqa") == 2
