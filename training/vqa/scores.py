"""Accuracy after normalisation with intervals by image, and paired tests by image between models.

A question is right if the answer, normalised, is one of its right answers, normalised. Questions of one image are not
independent: intervals resample images. Of several trainings of one configuration the mean over trainings is taken per
question first; the interval of an accuracy then is that of these trained models.

A difference of two configurations contains seed variance, in interval and p, where at least two pairs of training runs
share a seed (``training.statistics.seed_variance``). Where there are fewer, an image's summed difference has its sign
flipped at random, and what is said holds for these trained models only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.statistics.intervals import Interval, case_interval, per_cent, seed_sd
from training.statistics.paired_tests import MIN_FLIPS, Pair, compare_all
from training.statistics.seed_variance import SeedVariance, t_test
from training.vqa.predictions import Prediction, Predictions

OVERALL, OPEN, CLOSED = "overall", "open", "closed"
HEADLINES = (OVERALL, OPEN, CLOSED)
"""Groups of questions that are tested; categories are described."""
FLOOR = "floor"
"""Mode of answers without a training: every training is compared with the same ones."""
CUTS = "cuts"
"""Fact of a pool of several cuts: question to the cut it came from."""
_SAME = ("dataset", "protocol", "split", "split_seed")
"""Facts that predictions must share to be compared question by question."""


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers in one group of questions."""

    interval: Interval
    """Mean, 95 % bootstrap interval over images, numbers of questions and (as ``cases``) of images."""
    seed_means: tuple[float, ...]
    """Of each training, in the order given."""

    @property
    def seed_sd(self) -> float | None:
        """Standard deviation of ``seed_means``; ``None`` for one."""
        return seed_sd(self.seed_means)


@dataclass(frozen=True)
class Difference:
    """Of the accuracies of two configurations in one group of questions."""

    interval: Interval
    """95 %; with ``seeds`` it contains the luck of the trainings, else it is that of these models (bootstrap)."""
    p_value: float
    """Two-sided, of no difference: t test with ``seeds``, else paired sign flips; NaN where it cannot be told."""
    seeds: tuple[Any, ...] = ()
    """Of the pairs of training runs that were compared; none where interval and p are those of these models only."""
    noise: SeedVariance | None = None
    """What the t test rests on; ``None`` without one, and where no cut has two images."""


def accuracies(seeds: Sequence[Predictions], draws: int = 2000, seed: int = 0) -> dict[str, Accuracy]:
    """Accuracy overall, of the open, of the closed, and per category (``category X``); groups without a question miss.

    Args:
        seeds: predictions of one configuration, a training each, on the same questions.
        draws: bootstrap samples.
        seed: of the draws.

    Raises:
        DataError: they do not answer the same questions.
    """
    right = correctness(seeds)
    rows = seeds[0].rows
    images = image_codes(rows)
    found = {}
    for name, members in groups(rows).items():
        scores = np.where(members, right.mean(axis=0), np.nan)
        means = tuple(float(one[members].mean()) for one in right)
        found[name] = Accuracy(case_interval(scores, images, draws, seed), means)
    return found


def differences(
    seeds: Sequence[Predictions],
    baseline: Sequence[Predictions],
    names: Sequence[str] = HEADLINES,
    draws: int = 2000,
    flips: int = MIN_FLIPS,
    seed: int = 0,
) -> dict[str, Difference]:
    """Paired comparison of two configurations, ``seeds`` minus ``baseline``, by image and by training.

    With two or more pairs of training runs that share a seed, runs without a partner are left out, and interval and p
    are ``t_test``'s, with images as cases and cuts as folds. Each training is paired with the same floor. With fewer,
    all trainings are averaged, the interval is a bootstrap over images and p that of sign flips over images.

    Args:
        seeds: predictions of a configuration, a training each, told apart by the fact ``seed``.
        baseline: of the other, or a floor.
        names: groups of questions; those without a question are left out.
        draws: bootstrap samples.
        flips: random sign assignments.
        seed: of the draws and the flips.

    Raises:
        DataError: they do not answer the same questions of the same cut, or a seed is given twice.
    """
    one, other = correctness(seeds), correctness([seeds[0], *baseline])[1:]
    rows = seeds[0].rows
    images = image_codes(rows)
    members = {name: group for name, group in groups(rows).items() if name in names}
    partners = _partners(seeds, baseline)
    if len(partners) < 2:
        ours, theirs = one.mean(axis=0), other.mean(axis=0)
        pairs = [Pair(np.where(group, ours, np.nan), theirs) for group in members.values()]
        compared = compare_all(pairs, images, draws, flips, seed)
        found = [Difference(each.difference, each.p_value) for each in compared]
        return dict(zip(members, found, strict=True))
    cuts, folds = _cuts([*seeds, *baseline])
    by_training = np.stack([one[first] - other[second] for first, second in partners.values()])
    tested = (t_test(np.where(group, by_training, np.nan), images, folds, cuts) for group in members.values())
    found = [Difference(each.interval, each.p, tuple(partners), each.noise) for each in tested]
    return dict(zip(members, found, strict=True))


def correctness(seeds: Sequence[Predictions]) -> NDArray[np.float64]:
    """1 where a question was answered right, ``[S, N]``, in the order of the first predictions' questions.

    Raises:
        DataError: there are none, or they do not answer the same questions of the same cut.
    """
    if not seeds or not seeds[0].rows:
        raise DataError("no predictions to score: give at least one file with a question")
    first = seeds[0]
    order = [row.id for row in first.rows]
    right = []
    for predictions in seeds:
        for fact in _SAME:
            one, other = first.facts.get(fact), predictions.facts.get(fact)
            if one != other:
                raise DataError(
                    f"predictions differ in {fact} ({one!r} and {other!r}): "
                    "only answers to the same questions can be compared"
                )
        by_id = {row.id: row for row in predictions.rows}
        if len(by_id) != len(predictions.rows) or by_id.keys() != set(order):
            raise DataError(
                "predictions answer different questions, or one twice: make them again on one cut"
            )
        if any(by_id[row.id].normalised != row.normalised for row in first.rows):
            raise DataError("predictions disagree on the right answers: make them again with one version")
        right.append([by_id[question].correct for question in order])
    return np.asarray(right, dtype=np.float64)


def _partners(seeds: Sequence[Predictions], baseline: Sequence[Predictions]) -> dict[Any, tuple[int, int]]:
    """Seed of a training to its places in both; with a floor, to the floor's. No seed, no partner."""
    ours = _by_seed(seeds)
    if all(one.facts.get("mode") == FLOOR for one in baseline):
        return {seed: (place, 0) for seed, place in ours.items()} if len(baseline) == 1 else {}
    theirs = _by_seed(baseline)
    return {seed: (place, theirs[seed]) for seed, place in ours.items() if seed in theirs}


def _by_seed(trainings: Sequence[Predictions]) -> dict[Any, int]:
    seeds = [one.facts.get("seed") for one in trainings]
    known = [(seed, place) for place, seed in enumerate(seeds) if seed is not None]
    if len(dict(known)) < len(known):
        raise DataError("predictions of one seed are given twice: give each training once")
    return dict(known)


def _cuts(seeds: Sequence[Predictions]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the cuts, and which one each question is in, ``[N]``, in the order of the first predictions."""
    first, *others = (cuts_of(one) for one in seeds)
    if any(other != first for other in others):
        raise DataError(
            "predictions have the same questions in different cuts: make them again with one version"
        )
    names, codes = np.unique([first[row.id] for row in seeds[0].rows], return_inverse=True)
    return names.tolist(), codes.astype(np.int64)


def cuts_of(predictions: Predictions) -> dict[str, str]:
    """Question to the cut whose model answered it; of predictions that are no pool, all to theirs."""
    cuts: dict[str, str] | None = predictions.facts.get(CUTS)
    own = str(predictions.facts.get("split_seed"))
    return cuts or dict.fromkeys((row.id for row in predictions.rows), own)


def groups(rows: Sequence[Prediction]) -> dict[str, NDArray[np.bool_]]:
    """Name to which questions belong, ``[N]``: overall, open, closed, then categories by name."""
    closed = np.array([row.closed for row in rows], dtype=bool)
    members = {OVERALL: np.ones(len(rows), dtype=bool), OPEN: ~closed, CLOSED: closed}
    for category in sorted({row.category for row in rows}):
        members[f"category {category}"] = np.array([row.category == category for row in rows], dtype=bool)
    return {name: group for name, group in members.items() if group.any()}


def image_codes(rows: Sequence[Prediction]) -> NDArray[np.int64]:
    """Number of each question's image, ``[N]``."""
    return np.unique([row.image_id for row in rows], return_inverse=True)[1].astype(np.int64)


def as_text(found: Mapping[str, Accuracy]) -> str:
    """A line per group, per cent."""
    width = max(map(len, found))
    return "".join(
        f"  {name:<{width}}  {per_cent(accuracy.interval)}  {accuracy.interval.queries:,} questions\n"
        for name, accuracy in found.items()
    )
