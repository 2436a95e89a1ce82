"""Accuracy after normalisation with intervals by image, and paired tests by image between models.

A question is right if the answer, normalised, is one of its right answers, normalised. Questions of one image are not
independent: intervals resample images, tests flip the sign of an image's summed difference. Of several trainings of one
configuration the mean over trainings is taken per question first; interval and p then are those of these trained
models, and what another training would give is only in the spread over seeds beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.evaluate.bootstrap import Comparison, Interval, Pair, case_interval, compare_all
from training.vqa.predictions import Prediction, Predictions

OVERALL, OPEN, CLOSED = "overall", "open", "closed"
HEADLINES = (OVERALL, OPEN, CLOSED)
"""Groups of questions that are tested; categories are described."""
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
        return float(np.std(self.seed_means, ddof=1)) if len(self.seed_means) > 1 else None


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
    flips: int = 10_000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Paired comparison of two configurations: difference of accuracies, interval and sign-flip p, both by image.

    Args:
        seeds: predictions of a configuration, a training each.
        baseline: of the other; the number of trainings may differ.
        names: groups of questions; those without a question are left out.
        flips: random sign assignments.

    Raises:
        DataError: they do not answer the same questions of the same cut.
    """
    one, other = correctness(seeds), correctness([seeds[0], *baseline])[1:]
    rows = seeds[0].rows
    members = {name: group for name, group in groups(rows).items() if name in names}
    pairs = [
        Pair(np.where(group, one.mean(axis=0), np.nan), other.mean(axis=0)) for group in members.values()
    ]
    return dict(zip(members, compare_all(pairs, image_codes(rows), draws, flips, seed), strict=True))


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
            if predictions.facts.get(fact) != first.facts.get(fact):
                raise DataError(
                    f"predictions differ in {fact} ({first.facts.get(fact)!r} and {predictions.facts.get(fact)!r}): "
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


def per_cent(interval: Interval, signed: bool = False) -> str:
    """``52.1 [48.0, 56.3]``; with a sign for differences."""
    form = "+.1f" if signed else ".1f"
    return f"{100 * interval.mean:{form}} [{100 * interval.low:{form}}, {100 * interval.high:{form}}]"
