import json
from pathlib import Path

import pytest

from tests.training.vqa.fakes import write_data
from training.errors import DataError, ShapeError
from training.vqa.predictions import (
    MAJORITY,
    Predictions,
    predictions_of,
    read_predictions,
    write_predictions,
)
from training.vqa.protocols import Split, prepare


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return prepare(write_data(tmp_path / "data"), tmp_path / "data", "strict")


def answered(split: Split, metadata: dict[str, object] | None = None) -> Predictions:
    predicted = [question.answer.upper() + "." for question in split.test]
    predicted[0] = 'two\nlines, "quoted", 中文'
    return predictions_of(split, "test", predicted, [0.1 * (n % 7) for n in range(len(predicted))], metadata)


def test_what_is_written_is_read_again(split: Split, tmp_path: Path) -> None:
    predictions = answered(split, {"name": "m", "seed": 3})
    write_predictions(tmp_path / "out" / "p.csv", predictions)
    again = read_predictions(tmp_path / "out" / "p.csv")
    assert again.rows == predictions.rows
    assert again.metadata.items() >= predictions.metadata.items()
    assert again.metadata["correct"] == sum(row.correct for row in again.rows) == len(split.test) - 1


def test_the_same_content_gives_the_same_bytes_and_no_path(split: Split, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_predictions(tmp_path / name / "p.csv", answered(split))
    for file in ("p.csv", "p.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert str(tmp_path) not in (tmp_path / "a" / file).read_text(encoding="utf-8")


def test_the_ceiling_is_that_of_the_part(split: Split) -> None:
    metadata = {part: answered_part(split, part).metadata["ceiling"] for part in ("validation", "test")}
    assert metadata["test"] == split.ceiling
    assert metadata["validation"]["overall"] == 1.0  # their answers are candidates


def answered_part(split: Split, part: str) -> Predictions:
    return predictions_of(split, part, ["" for _ in split.part(part)])


def test_normalisation_decides_and_nothing_is_never_right(split: Split) -> None:
    rows = predictions_of(split, "test", ["" for _ in split.test]).rows
    assert not any(row.correct for row in rows)
    assert rows[0].probability is None
    assert predictions_of(split, "test", [f"The {q.answer}!" for q in split.test]).rows[0].correct


def test_majority_answers_of_before_keep_their_role(split: Split, tmp_path: Path) -> None:
    """They were called floors up to version 0.1.0."""
    write_predictions(tmp_path / "p.csv", answered(split, {"mode": "floor"}))
    assert read_predictions(tmp_path / "p.csv").metadata["mode"] == MAJORITY


def test_a_csv_that_was_changed_is_refused(split: Split, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_predictions(path, answered(split))
    path.write_text(path.read_text(encoding="utf-8").replace(",0,", ",1,", 1), encoding="utf-8")
    with pytest.raises(DataError, match="do not belong together"):
        read_predictions(path)


def test_missing_metadata_and_files_are_an_error(split: Split, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    with pytest.raises(DataError, match="missing or holds no predictions"):
        read_predictions(path)
    written = answered(split)
    metadata = {name: value for name, value in written.metadata.items() if name != "ceiling"}
    write_predictions(path, Predictions(written.rows, metadata))
    with pytest.raises(DataError, match="lacks ceiling"):
        read_predictions(path)


@pytest.mark.parametrize(
    "change", [{"trained_on": "real"}, {"ceiling": {"overall": 1.0}}, {"split": "train"}]
)
def test_metadata_that_was_changed_is_refused(
    split: Split, tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "p.csv"
    write_predictions(path, answered(split, {"trained_on": "blank"}))
    metadata = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**metadata, **change}))
    with pytest.raises(DataError, match="do not belong together"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dataset": 3}, '"dataset" is 3'),
        ({"split_seed": "0"}, "\"split_seed\" is '0'"),
        ({"candidates": None}, '"candidates" is None'),
        ({"ceiling": [1]}, r'"ceiling" is \[1\]'),
        ({"ceiling": {"open": "all"}}, "the ceiling of \"open\" is 'all'"),
        ({"seed": ["1"]}, '"seed" is'),
        ({"mode": {}}, '"mode" is'),
    ],
)
def test_metadata_of_wrong_types_is_an_error(
    split: Split, tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    write_predictions(tmp_path / "p.csv", answered(split, wrong))
    with pytest.raises(DataError, match=message):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize("content", ["[]", "3", '{"format": 2, "sha256": 5}', '{"format": []}'])
def test_a_json_file_of_another_kind_is_told(split: Split, tmp_path: Path, content: str) -> None:
    write_predictions(tmp_path / "p.csv", answered(split))
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(DataError):
        read_predictions(tmp_path / "p.csv")


def test_an_answer_too_few_is_an_error(split: Split) -> None:
    with pytest.raises(ShapeError):
        predictions_of(split, "test", ["yes"])
