"""Configurations of models and baselines side by side: rows with accuracies, and the tests between them.

Predictions of one configuration that differ in the training seed only are one row. What is one configuration, and
what it is compared with, is read from the metadata beside each CSV (``kg-targets compare-vqa --help``).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from training.errors import DataError
from training.statistics.paired_tests import Difference, flips_for, holm
from training.statistics.seed_variance import seed_of_grid
from training.vqa.predictions import MAJORITY, Predictions
from training.vqa.scores import (
    CLOSED,
    FOLDS,
    HEADLINES,
    OPEN,
    OVERALL,
    Accuracy,
    accuracies,
    differences,
)

MODEL, QUESTION_ONLY, SHUFFLED, BLANK = "model", "question_only", "shuffled", "blank"
CONTROLS = (QUESTION_ONLY, SHUFFLED, BLANK)
_TITLES = {
    QUESTION_ONLY: ", question only (blank images in training and test)",
    SHUFFLED: ", images shuffled at test",
    BLANK: ", blank images at test",
    MAJORITY: " (baseline)",
}
PLACE = ("dataset", "protocol", "split", "split_seed")
"""Metadata that tell the tables of a comparison apart."""
_IMAGES = {"real": MODEL, "shuffled": SHUFFLED, "blank": BLANK}
_SAME = ("dataset", "language", "protocol", "split", "name", "mode", "images", "trained_on")
"""Metadata in which the parts of a pool may not differ."""


@dataclass(frozen=True)
class Row:
    """One configuration on one part: its predictions from every seed."""

    name: str
    role: str
    mode: str
    seeds: tuple[Any, ...]
    """Training seeds, in order; ``None`` where a file names none."""
    predictions: tuple[Predictions, ...]
    accuracies: dict[str, Accuracy]

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of its first predictions."""
        return self.predictions[0].metadata

    @property
    def title(self) -> str:
        """Its name, with what sets it apart from a model that sees the images."""
        return self.name + _TITLES.get(self.role, "")

    @property
    def seeds_text(self) -> str:
        """The seeds for people."""
        seeds = ("?" if seed is None else str(seed) for seed in self.seeds)
        return "–" if self.role == MAJORITY else ", ".join(seeds)


@dataclass(frozen=True)
class Test:
    """A model against another row, in one group of questions."""

    model: Row
    baseline: Row
    group: str
    difference: Difference
    """Difference of the accuracies; its interval, p, and what both rest on."""
    corrected: float
    """p after Holm over every test of the report."""


@dataclass(frozen=True)
class Table:
    """Everything on one part of one data set under one protocol and split seed."""

    least_questions: ClassVar[int] = 10
    """Questions in a category that is shown, at least."""

    rows: tuple[Row, ...]
    tests: tuple[Test, ...]

    @property
    def metadata(self) -> dict[str, Any]:
        """Data set, protocol, part, split seed, candidates and ceiling, which its rows share."""
        return self.rows[0].metadata

    @property
    def title(self) -> str:
        """Data set, part, protocol and split seed."""
        return "{dataset}, {split}, protocol `{protocol}`, split seed {split_seed}".format_map(self.metadata)

    @property
    def tested(self) -> list[Row]:
        """The models and what they are tested against."""
        tested = {id(row) for test in self.tests for row in (test.model, test.baseline)}
        return [row for row in self.rows if id(row) in tested]

    def categories(self) -> list[str]:
        """Categories of questions to show; none where nothing is tested."""
        groups = self.rows[0].accuracies.items() if self.tests else ()
        large = [name for name, one in groups if one.interval.queries >= self.least_questions]
        return [name for name in large if name not in HEADLINES]


def role_of(metadata: dict[str, Any]) -> str:
    """Tell what predictions are compared as.

    Raises:
        DataError: the metadata does not say which images were seen.
    """
    if metadata.get("mode") == MAJORITY:
        return MAJORITY
    trained_on = metadata.get("trained_on", "unknown")
    if trained_on not in ("real", "blank"):
        raise DataError(
            f'predictions of a model that was trained on "{trained_on}" images: real and blank are known. Its folder '
            "has no record of its training: answer with its finished run, or train it again"
        )
    if trained_on == "blank":
        return QUESTION_ONLY
    images = metadata.get("images", "real")
    if images not in _IMAGES:
        raise DataError(f'predictions answered from images "{images}": real, shuffled and blank are known')
    return _IMAGES[images]


def tables_of(
    given: Iterable[tuple[str, Predictions]], draws: int = 2000, seed: int = 0, pool_folds: bool = False
) -> list[Table]:
    """Rows of predictions, one table for each data set, protocol, part and split seed, in order of first appearance.

    Args:
        given: (name, predictions); an empty name stands for the ``name`` of the metadata.
        draws: bootstrap samples of each interval.
        seed: of bootstrap and sign flips.
        pool_folds: whether predictions that differ in the split seed only become one.

    Raises:
        DataError: predictions do not fit together, or the same seed is given twice.
    """
    if pool_folds:
        given = _pooled(given)
    found: dict[tuple[Any, ...], dict[tuple[str, str, str], list[Predictions]]] = {}
    for name, predictions in given:
        metadata = predictions.metadata
        place = tuple(metadata.get(key) for key in PLACE)
        row = (name or str(metadata.get("name", "model")), role_of(metadata), str(metadata.get("mode", "")))
        found.setdefault(place, {}).setdefault(row, []).append(predictions)
    tables = [tuple(_row(*key, each, draws, seed) for key, each in rows.items()) for rows in found.values()]
    pairs = [_pairs(rows) for rows in tables]
    for pair in chain.from_iterable(pairs):
        _check_same_models(*pair)
    flips = flips_for(len(HEADLINES) * sum(map(len, pairs)))
    tested = [
        [
            (model, baseline, group, difference)
            for model, baseline in of_table
            for group, difference in differences(
                model.predictions, baseline.predictions, HEADLINES, draws, flips, seed
            ).items()
        ]
        for of_table in pairs
    ]
    corrected = iter(holm([difference.p_value for of_table in tested for *_, difference in of_table]))
    return [
        Table(rows, tuple(Test(*test, next(corrected)) for test in of_table))
        for rows, of_table in zip(tables, tested, strict=True)
    ]


def _pooled(given: Iterable[tuple[str, Predictions]]) -> list[tuple[str, Predictions]]:
    folds: dict[tuple[Any, ...], list[Predictions]] = {}
    for name, predictions in given:
        metadata = predictions.metadata
        place = tuple(metadata.get(key) for key in ("dataset", "protocol", "split", "name", "mode"))
        folds.setdefault((name, *place, role_of(metadata)), []).append(predictions)
    return [(str(key[0]), pool(parts)) for key, every in folds.items() for parts in _by_seed(every)]


def _by_seed(given: Sequence[Predictions]) -> list[list[Predictions]]:
    """Predictions of one configuration by seed: by the grid's, unless all folds were trained with the same seeds."""
    of_fold: dict[Any, set[Any]] = {}
    for one in given:
        of_fold.setdefault(one.metadata["split_seed"], set()).add(one.metadata.get("seed"))
    same = len(set(map(frozenset, of_fold.values()))) == 1
    found: dict[Any, list[Predictions]] = {}
    for one in given:
        found.setdefault(one.metadata.get("seed") if same else _grid_seed(one), []).append(one)
    return list(found.values())


def _grid_seed(one: Predictions) -> int | None:
    seed = one.metadata.get("seed")
    return None if seed is None else seed_of_grid(seed, int(one.metadata["split_seed"]))


def _row(name: str, role: str, mode: str, predictions: list[Predictions], draws: int, seed: int) -> Row:
    predictions.sort(key=lambda one: str(one.metadata.get("seed", "")).zfill(12))
    seeds = tuple(one.metadata.get("seed") for one in predictions)
    if len(set(seeds)) < len(seeds):
        twice = "predictions of one seed are given twice: remove one, or name them apart by NAME=FILE"
        raise DataError(f"{name} ({role}): {twice}")
    return Row(name, role, mode, seeds, tuple(predictions), accuracies(predictions, draws, seed))


def _pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Every model with what it is tested against: its own controls in the same mode, and the best baseline."""
    majority = [row for row in rows if row.role == MAJORITY]
    best = sorted(majority, key=lambda row: -row.accuracies[OVERALL].interval.mean)[:1]
    pairs = []
    for model in (row for row in rows if row.role == MODEL):
        same = (row for row in rows if (row.name, row.mode) == (model.name, model.mode))
        pairs += [(model, row) for row in (*(row for row in same if row.role in CONTROLS), *best)]
    return pairs


def _check_same_models(model: Row, other: Row) -> None:
    """Refuse other weights: only the same ones show what other images do to answers; pools of folds name none."""
    if other.role not in (SHUFFLED, BLANK):
        return
    weights = {one.metadata.get("seed"): one.metadata.get("model") for one in model.predictions}
    for one in other.predictions:
        seed, digest = one.metadata.get("seed"), one.metadata.get("model")
        if digest and weights.get(seed) and weights[seed] != digest:
            raise DataError(
                f"{model.name}: the predictions from {other.role} images (seed {seed}) are of other weights than those "
                "from real images: answer both with one model"
            )


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of folds that share no question as one, in the order of the folds: each image tests once, by a model
    that never saw it.

    A grid's folds have training seeds of their own; those of one of its seeds are pooled, and the pool has that one.
    Its ``split_seed`` names all folds, its ceiling is the mean over questions, its ``candidates`` the largest
    number among the folds; ``model`` is gone, each fold has its own. ``folds_by_question`` tells which question came
    from where.

    Raises:
        DataError: none is given, the folds differ in more than the fold, or a question or an image is in two of them.
    """
    if not parts:
        raise DataError("no predictions to pool: give at least one file")
    parts = sorted(parts, key=lambda one: int(one.metadata["split_seed"]))
    first = parts[0].metadata
    for part in parts[1:]:
        differing = next((key for key in _SAME if part.metadata.get(key) != first.get(key)), None)
        if part.metadata.get("seed") != first.get("seed") and _grid_seed(part) != _grid_seed(parts[0]):
            differing = "seed"
        if differing is not None:
            raise DataError(
                f"folds to pool differ in {differing}: pool predictions of one configuration only"
            )
    images = (image for part in parts for image in dict.fromkeys(row.image_id for row in part.rows))
    for what, names, why in (
        ("question", (row.id for part in parts for row in part.rows), ""),
        ("image", images, ", and tests need each image's questions to be answered by one model"),
    ):
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise DataError(
                f"{what} {name!r} is in {times} of the folds to pool: only folds of one cross-validation under "
                f"image_disjoint share no {what}{why}"
            )
    metadata: dict[str, Any] = {key: value for key, value in first.items() if key != "model"}
    if any(part.metadata.get("seed") != first.get("seed") for part in parts):
        metadata["seed"] = _grid_seed(parts[0])
    metadata["split_seed"] = ", ".join(str(part.metadata["split_seed"]) for part in parts)
    metadata["candidates"] = max(part.metadata["candidates"] for part in parts)
    metadata["ceiling"] = _ceiling(parts)
    metadata[FOLDS] = {row.id: str(part.metadata["split_seed"]) for part in parts for row in part.rows}
    return Predictions(tuple(row for part in parts for row in part.rows), metadata)


def _ceiling(parts: Sequence[Predictions]) -> dict[str, float]:
    """Mean over the questions of all folds: overall, open, closed."""
    totals: dict[str, list[float]] = {}
    for part in parts:
        closed = sum(row.closed for row in part.rows)
        counts = {OVERALL: len(part.rows), OPEN: len(part.rows) - closed, CLOSED: closed}
        for name, share in part.metadata["ceiling"].items():
            reached, asked = totals.setdefault(name, [0.0, 0.0])
            totals[name] = [reached + share * counts[name], asked + counts[name]]
    return {name: reached / asked for name, (reached, asked) in totals.items() if asked}
