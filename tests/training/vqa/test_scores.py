from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from training.errors import DataError
from training.statistics.paired_tests import Difference
from training.statistics.seed_variance import paired_test
from training.vqa.comparison import pool
from training.vqa.predictions import Prediction, Predictions
from training.vqa.scores import accuracies, correctness, differences

FACTS = {"dataset": "d", "protocol": "strict", "split": "test", "split_seed": 0}


def predictions(right: list[int], per_image: int = 2, **metadata: object) -> Predictions:
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
    return Predictions(rows, {**FACTS, **metadata})


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
    assert found["overall"].interval.mean == pytest.approx(0.5)
    assert found["overall"].seeds == () and found["overall"].noise is None
    assert found["open"].p_value < 0.001
    assert found["closed"].interval.mean == 0
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


FOLDS, SEEDS, IMAGES, PER_IMAGE = 4, 3, 12, 2
"""Of the simulated comparisons; images of each fold, questions of each image."""


def configuration(
    rng: np.random.Generator, ease: NDArray[np.float64], luck: float, gain: float = 0.0
) -> list[Predictions]:
    """One training run for each seed and fold, folds end to end; ``luck`` is what a run adds to all its answers."""
    runs = []
    for seed in range(SEEDS):
        chances = ease + gain + luck * rng.standard_normal((FOLDS, 1, 1))
        right = (rng.random(ease.shape) < chances).astype(int)
        folds = [cut_of(fold, answered.ravel().tolist(), seed) for fold, answered in enumerate(right)]
        runs.append(pool(folds))
    return runs


def cut_of(fold: int, right: list[int], seed: int) -> Predictions:
    one = predictions(
        right, PER_IMAGE, protocol="image_disjoint", split_seed=fold, seed=seed, candidates=1, ceiling={}
    )
    rows = tuple(replace(row, id=f"{fold}-{row.id}", image_id=f"{fold}-{row.image_id}") for row in one.rows)
    return replace(one, rows=rows)


def simulated(luck: float, draws: int, gain: float = 0.0, paired: bool = True) -> Iterator[Difference]:
    """Overall differences of configurations that differ in ``gain``; without seeds they have no partners."""
    rng = np.random.default_rng(0)
    for _ in range(draws):
        common, *own = 0.2 * rng.standard_normal((3, FOLDS, IMAGES, 1)).repeat(PER_IMAGE, axis=3)
        ours, theirs = (
            configuration(rng, 0.5 + common + ease, luck, more)
            for ease, more in zip(own, (gain, 0.0), strict=True)
        )
        if not paired:
            ours, theirs = (
                [replace(x, metadata={**x.metadata, "seed": None}) for x in y] for y in (ours, theirs)
            )
        yield differences(ours, theirs, ["overall"], draws=2, flips=400)["overall"]


def rejected(luck: float, draws: int = 100, gain: float = 0.0, paired: bool = True) -> float:
    return float(np.mean([one.p_value < 0.05 for one in simulated(luck, draws, gain, paired)]))


def test_lucky_training_runs_are_no_difference() -> None:
    """Equal configurations: at the level, with and without seed variance; sign flips take it for a difference."""
    assert rejected(luck=0.25) <= 0.1
    assert rejected(luck=0.0, draws=60) <= 0.1
    assert rejected(luck=0.25, draws=40, paired=False) > 0.2


def test_a_true_difference_is_found_through_the_seed_variance() -> None:
    assert rejected(luck=0.05, draws=40, gain=0.25) > 0.7


def test_training_runs_are_paired_by_seed_and_questions_are_in_their_folds() -> None:
    rng = np.random.default_rng(1)
    ease = np.full((FOLDS, IMAGES, PER_IMAGE), 0.5)
    ours, theirs = configuration(rng, ease, 0.1), configuration(rng, ease, 0.1)
    found = differences(ours, theirs[::-1], ["overall"])["overall"]
    size = FOLDS * IMAGES * PER_IMAGE
    by_hand = paired_test(
        correctness(ours) - correctness(theirs),
        np.arange(size) // PER_IMAGE,
        np.arange(size) // (IMAGES * PER_IMAGE),
        [str(fold) for fold in range(FOLDS)],
    )
    assert (found.interval, found.p_value, found.noise) == (by_hand.interval, by_hand.p, by_hand.error)
    assert found.seeds == (0, 1, 2)
    assert found.noise is not None and found.noise.by_training.keys() == {"0", "1", "2", "3"}
    assert found.noise.agreeing(found.interval.mean)[1] == FOLDS * SEEDS


RIGHT = ([1, 1, 0, 1, 1, 0, 1, 1], [1, 0, 0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0, 1, 1])
WRONG = ([0, 1, 0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0, 1, 0])


def trained(
    right: Sequence[list[int]], seeds: tuple[int | None, ...], **metadata: object
) -> list[Predictions]:
    return [predictions(one, seed=seed) for one, seed in zip(right, seeds, strict=True)]


def test_a_training_without_a_partner_is_left_out() -> None:
    ours = trained(RIGHT, (0, 1, 2))
    found = differences(ours, trained(WRONG[1:], (2, 1)))
    assert found == differences(ours[1:], trained(WRONG[:0:-1], (1, 2)))
    assert found["overall"].seeds == (1, 2)


@pytest.mark.parametrize("theirs", [(2, 3, 4), (3, 4, 5), (None, 0, 7)])
def test_fewer_than_two_partners_are_a_test_of_these_models(theirs: tuple[int | None, ...]) -> None:
    many = [[3 * one for one in answers] for answers in (RIGHT, WRONG)]  # of twelve images
    found = differences(trained(many[0], (0, 1, 2)), trained(many[1], theirs))["overall"]
    assert found.seeds == () and found.noise is None and not np.isnan(found.p_value)
    assert found.interval.mean == pytest.approx(np.mean(RIGHT) - np.mean(WRONG))


def test_every_training_is_compared_with_the_same_floor() -> None:
    baseline = [predictions(WRONG[0], mode="majority")]
    found = differences(trained(RIGHT, (0, 1, 2)), baseline)
    assert found == differences(trained(RIGHT, (0, 1, 2)), trained((WRONG[0],) * 3, (0, 1, 2)))
    assert found["open"].seeds == (0, 1, 2)
    assert found["overall"].interval.mean == pytest.approx(np.mean(RIGHT) - np.mean(WRONG[0]))
    assert differences(trained(RIGHT[:1], (0,)), baseline)["overall"].seeds == ()


def test_a_seed_given_twice_is_an_error() -> None:
    with pytest.raises(DataError, match="twice"):
        differences(trained(RIGHT, (0, 1, 1)), trained(WRONG, (0, 1, 2)))


def test_the_same_questions_in_other_cuts_are_not_compared() -> None:
    def pooled(order: tuple[int, int], seed: int) -> Predictions:
        parts = [cut_of(image, [1, 0], seed) for image in order]
        return pool([replace(x, metadata={**x.metadata, "split_seed": fold}) for fold, x in enumerate(parts)])

    ours = [pooled((0, 1), seed) for seed in range(2)]
    with pytest.raises(DataError, match="in different folds"):
        differences(ours, [pooled((1, 0), seed) for seed in range(2)])


def test_one_image_in_each_cut_is_described_but_not_tested() -> None:
    ours, theirs = ([predictions([right, 0], seed=seed) for seed in (0, 1)] for right in (1, 0))
    found = differences(ours, theirs)["overall"]
    assert found.interval.mean == 0.5 and found.seeds == (0, 1)
    assert found.noise is None and np.isnan(found.p_value)
