"""Accuracy after normalisation with intervals by image, and paired tests by image between models.

A question is right if the answer, normalised, is one of its right answers, normalised. Questions of one image are not
independent: intervals resample images. Of several training runs of one configuration the mean over runs is taken per
question first; the interval of an accuracy then is that of these trained models.

A difference of two configurations contains seed variance, in interval and p, where pairs of training runs share a seed
(``training.statistics.paired_test``: three of them at least, with two nothing can be estimated). Where there is one
pair or none, an image's summed difference has its sign flipped at random, and what is said holds for these runs only:
no claim about other seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.statistics.intervals import Interval, case_interval, per_cent, seed_sd
from training.statistics.paired_tests import MIN_FLIPS, Difference, Pair, compare_all, shared_seeds
from training.statistics.seed_variance import paired_test
from training.vqa.predictions import MAJORITY, Prediction, Predictions

OVERALL, OPEN, CLOSED = "overall", "open", "closed"
HEADLINES = (OVERALL, OPEN, CLOSED)
"""Groups of questions that are tested; categories are described."""
FOLDS = "folds"
"""In the metadata of a pool of several folds: question to the fold it came from."""
_SAME = ("dataset", "protocol", "split", "split_seed")
"""Metadata that predictions must share to be compared question by question."""


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers in one group of questions."""

    interval: Interval
    """Mean, 95 % bootstrap interval over images, numbers of questions and (as ``cases``) of images."""
    seed_means: tuple[float, ...]
    """Mean of each training run, in the order given."""

    @property
    def seed_sd(self) -> float | None:
        """Standard deviation of ``seed_means``; ``None`` for one."""
        return seed_sd(self.seed_means)

    @property
    def text(self) -> str:
        """For tables: mean and interval, and ``seed_sd`` of several seeds, per cent."""
        return per_cent(self.interval) + ("" if self.seed_sd is None else f" ± {100 * self.seed_sd:.1f}")


def accuracies(seeds: Sequence[Predictions], draws: int = 2000, seed: int = 0) -> dict[str, Accuracy]:
    """Accuracy overall, of the open, of the closed, and per category (``category X``); groups without a question miss.

    Args:
        seeds: predictions of one configuration, a training run each, on the same questions.
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
    """Paired comparison of two configurations, ``seeds`` minus ``baseline``, by image and by training run.

    With two or more pairs of training runs that share a seed, runs without a partner are left out, and interval and p
    are ``paired_test``'s, with images as cases. Each training run is paired with the same majority baseline. With
    fewer, all training runs are averaged, the interval is a bootstrap over images and p that of sign flips over images.

    Args:
        seeds: predictions of a configuration, a training run each, told apart by ``seed`` in their metadata.
        baseline: of the other, or of a majority baseline.
        names: groups of questions; those without a question are left out.
        draws: bootstrap samples.
        flips: random sign assignments.
        seed: of the draws and the flips.

    Raises:
        DataError: they do not answer the same questions of the same fold, or a seed is given twice.
    """
    one, other = correctness(seeds), correctness([seeds[0], *baseline])[1:]
    rows = seeds[0].rows
    images = image_codes(rows)
    members = {name: group for name, group in groups(rows).items() if name in names}
    partners = _partners(seeds, baseline)
    if len(partners) < 2:
        ours, theirs = one.mean(axis=0), other.mean(axis=0)
        pairs = [Pair(np.where(group, ours, np.nan), theirs) for group in members.values()]
        compared = map(Difference.of, compare_all(pairs, images, draws, flips, seed))
        return dict(zip(members, compared, strict=True))
    names_of_folds, folds = _folds([*seeds, *baseline])
    by_run = np.stack([one[first] - other[second] for first, second in partners.values()])
    return {
        name: Difference.of(
            paired_test(np.where(group, by_run, np.nan), images, folds, names_of_folds), partners
        )
        for name, group in members.items()
    }


def correctness(seeds: Sequence[Predictions]) -> NDArray[np.float64]:
    """1 where a question was answered right, ``[S, N]``, in the order of the first predictions' questions.

    Raises:
        DataError: there are none, or they do not answer the same questions of the same fold.
    """
    if not seeds or not seeds[0].rows:
        raise DataError("no predictions to score: give at least one file with a question")
    first = seeds[0]
    order = [row.id for row in first.rows]
    right = []
    for predictions in seeds:
        for key in _SAME:
            one, other = first.metadata.get(key), predictions.metadata.get(key)
            if one != other:
                raise DataError(
                    f"predictions differ in {key} ({one!r} and {other!r}): "
                    "only answers to the same questions can be compared"
                )
        by_id = {row.id: row for row in predictions.rows}
        if len(by_id) != len(predictions.rows) or by_id.keys() != set(order):
            raise DataError(
                "predictions answer different questions, or one twice: make them again on one fold"
            )
        if any(by_id[row.id].normalised != row.normalised for row in first.rows):
            raise DataError("predictions disagree on the right answers: make them again with one version")
        right.append([by_id[question].correct for question in order])
    return np.asarray(right, dtype=np.float64)


def _partners(seeds: Sequence[Predictions], baseline: Sequence[Predictions]) -> dict[Any, tuple[int, int]]:
    """Training seed to its places in both; with a majority baseline, to its only one. No seed, no partner."""
    ours, theirs = ([one.metadata.get("seed") for one in runs] for runs in (seeds, baseline))
    for runs in (ours, theirs):
        if len(shared_seeds(runs, runs)) < len(runs) - runs.count(None):
            raise DataError("predictions of one seed are given twice: give each training run once")
    if len(baseline) == 1 and baseline[0].metadata.get("mode") == MAJORITY:
        return {seed: (place, 0) for seed, (place, _) in shared_seeds(ours, ours).items()}
    return shared_seeds(ours, theirs)


def _folds(seeds: Sequence[Predictions]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the folds, and which one each question is in, ``[N]``, in the order of the first predictions."""
    first, *others = (folds_by_question(one) for one in seeds)
    if any(other != first for other in others):
        raise DataError(
            "predictions have the same questions in different folds: make them again with one version"
        )
    names, codes = np.unique([first[row.id] for row in seeds[0].rows], return_inverse=True)
    return names.tolist(), codes.astype(np.int64)


def folds_by_question(predictions: Predictions) -> dict[str, str]:
    """Question to the fold whose model answered it; of predictions that are no pool, all to theirs."""
    folds: dict[str, str] | None = predictions.metadata.get(FOLDS)
    own = str(predictions.metadata.get("split_seed"))
    return folds or dict.fromkeys((row.id for row in predictions.rows), own)


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
