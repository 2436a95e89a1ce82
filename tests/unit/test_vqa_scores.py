from dataclasses import replace

import numpy as np
import pytest

from training.errors import DataError
from training.vqa.predictions import Prediction, Predictions
from training.vqa.scores import accuracies, correctness, differences

FACTS = {"dataset": "d", "protocol": "strict", "split": "test", "split_seed": 0}


def predictions(right: list[int], per_image: int = 2, **facts: object) -> Predictions:
    """Questions in turn open and closed, so many of one image."""
    rows = tuple(
        Prediction(
            id=str(number),
            image_id=f"i{number // per_image}",
            question="q",
            answer="a",
            normalised="a",
            predicted="a" if correct else "b",
            correct=bool(correct),
            probability=None,
            closed=bool(number % 2),
            category="X" if number % 3 else "Y",
            kind="k",
        )
        for number, correct in enumerate(right)
    )
    return Predictions(rows, {**FACTS, **facts})


def test_accuracy_of_every_group() -> None:
    found = accuracies([predictions([1, 0, 1, 0, 1, 1])])
    assert {name: one.interval.mean for name, one in found.items()} == pytest.approx(
        {"overall": 4 / 6, "open": 1.0, "closed": 1 / 3, "category X": 3 / 4, "category Y": 1 / 2}
    )
    assert found["overall"].interval.queries == 6
    assert found["overall"].interval.cases == 3
    assert found["overall"].seed_sd is None


def test_seeds_are_averaged_per_question_first() -> None:
    one = accuracies([predictions([1, 1, 0, 0]), predictions([1, 0, 0, 0])])["overall"]
    assert one.interval.mean == pytest.approx(3 / 8)
    assert one.seed_means == (0.5, 0.25)
    assert one.seed_sd == pytest.approx(np.std([0.5, 0.25], ddof=1))


def test_intervals_are_by_image_not_by_question() -> None:
    right = [1, 1, 1, 1, 0, 0, 0, 0] * 5
    together, apart = accuracies([predictions(right, 4)]), accuracies([predictions(right, 1)])
    width = [one["overall"].interval.high - one["overall"].interval.low for one in (together, apart)]
    assert width[0] > 1.5 * width[1]


def test_a_difference_that_is_everywhere_is_found_and_none_is_not() -> None:
    better, worse = [1, 1] * 30, [0, 1] * 30
    found = differences([predictions(better)], [predictions(worse)])
    assert found["overall"].difference.mean == pytest.approx(0.5)
    assert found["open"].p_value < 0.001
    assert found["closed"].difference.mean == 0
    assert found["closed"].p_value == 1
    assert differences([predictions(better)], [predictions(better)])["overall"].p_value == 1


def test_predictions_are_matched_by_question_not_by_place() -> None:
    one = predictions([1, 0, 0, 1])
    turned = replace(one, rows=one.rows[::-1])
    assert (correctness([one, turned])[0] == correctness([one, turned])[1]).all()


@pytest.mark.parametrize(
    "other",
    [
        predictions([1, 0, 1]),
        predictions([1, 0, 1, 1], protocol="paper"),
        predictions([1, 0, 1, 1], split_seed=1),
        replace(predictions([1, 0, 1, 1]), rows=(predictions([1]).rows * 4)),
        replace(
            predictions([1, 0, 1, 1]),
            rows=tuple(replace(row, normalised="b") for row in predictions([1, 0, 1, 1]).rows),
        ),
    ],
)
def test_what_does_not_belong_together_is_not_compared(other: Predictions) -> None:
    with pytest.raises(DataError):
        differences([predictions([1, 0, 1, 1])], [other])


def test_no_predictions_are_an_error() -> None:
    with pytest.raises(DataError, match="no predictions"):
        accuracies([])
