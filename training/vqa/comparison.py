"""Configurations of models and floors side by side: rows with accuracies, and the tests between them.

Predictions of one configuration that differ in the training's seed only are one row. What is one configuration, and
what it is compared with, is read from the facts beside each CSV (``kg-targets compare-vqa --help``).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from training.errors import DataError
from training.statistics.paired_tests import flips_for, holm
from training.vqa.predictions import Predictions
from training.vqa.scores import CUTS, FLOOR, HEADLINES, OVERALL, Accuracy, Difference, accuracies, differences

MODEL, QUESTION_ONLY, SHUFFLED, BLANK = "model", "question_only", "shuffled", "blank"
CONTROLS = (QUESTION_ONLY, SHUFFLED, BLANK)
PLACE = ("dataset", "protocol", "split", "split_seed")
"""Facts that tell the tables of a comparison apart."""
_IMAGES = {"real": MODEL, "shuffled": SHUFFLED, "blank": BLANK}
_SAME = ("dataset", "language", "protocol", "split", "name", "mode", "images", "trained_on", "seed")
"""Facts in which the parts of a pool may not differ."""


@dataclass(frozen=True)
class Row:
    """One configuration on one part: its predictions from every seed."""

    name: str
    role: str
    mode: str
    seeds: tuple[Any, ...]
    """Of the trainings, in order; ``None`` where a file names none."""
    predictions: tuple[Predictions, ...]
    accuracies: dict[str, Accuracy]

    @property
    def facts(self) -> dict[str, Any]:
        """Of its first predictions."""
        return self.predictions[0].facts


@dataclass(frozen=True)
class Test:
    """A model against another row, in one group of questions."""

    model: Row
    baseline: Row
    group: str
    difference: Difference
    """Of the accuracies; its interval, p, and what both rest on."""
    corrected: float
    """p after Holm over every test of the report."""


@dataclass(frozen=True)
class Table:
    """Everything on one part of one data set under one protocol and cut."""

    rows: tuple[Row, ...]
    tests: tuple[Test, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Data set, protocol, part, cut, candidates and ceiling, which its rows share."""
        return self.rows[0].facts


def role_of(facts: dict[str, Any]) -> str:
    """What predictions are compared as.

    Raises:
        DataError: the facts do not say which images were seen.
    """
    if facts.get("mode") == FLOOR:
        return FLOOR
    trained_on = facts.get("trained_on", "unknown")
    if trained_on not in ("real", "blank"):
        raise DataError(
            f'predictions of a model that was trained on "{trained_on}" images: real and blank are known. Its folder '
            "has no record of the training: answer with its finished run, or train it again"
        )
    if trained_on == "blank":
        return QUESTION_ONLY
    images = facts.get("images", "real")
    if images not in _IMAGES:
        raise DataError(f'predictions answered from images "{images}": real, shuffled and blank are known')
    return _IMAGES[images]


def tables_of(
    given: Iterable[tuple[str, Predictions]], draws: int = 2000, seed: int = 0, pool_cuts: bool = False
) -> list[Table]:
    """Rows of predictions, one table for each data set, protocol, part and cut, in order of first appearance.

    Args:
        given: (name, predictions); an empty name stands for the ``name`` of the facts.
        draws: bootstrap samples of each interval.
        seed: of bootstrap and sign flips.
        pool_cuts: whether predictions that differ in the cut only become one.

    Raises:
        DataError: predictions do not fit together, or the same seed is given twice.
    """
    if pool_cuts:
        given = _pooled(given)
    found: dict[tuple[Any, ...], dict[tuple[str, str, str], list[Predictions]]] = {}
    for name, predictions in given:
        facts = predictions.facts
        place = tuple(facts.get(key) for key in PLACE)
        row = (name or str(facts.get("name", "model")), role_of(facts), str(facts.get("mode", "")))
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
    cuts: dict[tuple[Any, ...], list[Predictions]] = {}
    for name, predictions in given:
        facts = predictions.facts
        place = tuple(facts.get(key) for key in ("dataset", "protocol", "split", "name", "mode", "seed"))
        cuts.setdefault((name, *place, role_of(facts)), []).append(predictions)
    return [(str(key[0]), pool(parts)) for key, parts in cuts.items()]


def _row(name: str, role: str, mode: str, predictions: list[Predictions], draws: int, seed: int) -> Row:
    predictions.sort(key=lambda one: str(one.facts.get("seed", "")).zfill(12))
    seeds = tuple(one.facts.get("seed") for one in predictions)
    if len(set(seeds)) < len(seeds):
        twice = "predictions of one seed are given twice: remove one, or name them apart by NAME=FILE"
        raise DataError(f"{name} ({role}): {twice}")
    return Row(name, role, mode, seeds, tuple(predictions), accuracies(predictions, draws, seed))


def _pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Every model with what it is tested against: its own controls, answered in the same mode, and the best floor."""
    floors = [row for row in rows if row.role == FLOOR]
    best = sorted(floors, key=lambda row: -row.accuracies[OVERALL].interval.mean)[:1]
    pairs = []
    for model in (row for row in rows if row.role == MODEL):
        same = (row for row in rows if (row.name, row.mode) == (model.name, model.mode))
        pairs += [(model, row) for row in (*(row for row in same if row.role in CONTROLS), *best)]
    return pairs


def _check_same_models(model: Row, other: Row) -> None:
    """What other images do to answers is seen on the same weights only; pools of cuts name none."""
    if other.role not in (SHUFFLED, BLANK):
        return
    weights = {one.facts.get("seed"): one.facts.get("model") for one in model.predictions}
    for one in other.predictions:
        seed, digest = one.facts.get("seed"), one.facts.get("model")
        if digest and weights.get(seed) and weights[seed] != digest:
            raise DataError(
                f"{model.name}: the predictions from {other.role} images (seed {seed}) are of other weights than those "
                "from real images: answer both with one model"
            )


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of cuts that share no question as one, in the order of the cuts: each image tests once, by a model
    that never saw it.

    The pool's ``split_seed`` names all cuts, its ceiling is the mean over questions, its ``candidates`` the largest
    number among the cuts; ``model`` is gone, each cut has its own. ``cuts_of`` tells which question came from where.

    Raises:
        DataError: none is given, the cuts differ in more than the cut, or a question or an image is in two of them.
    """
    if not parts:
        raise DataError("no predictions to pool: give at least one file")
    parts = sorted(parts, key=lambda one: int(one.facts["split_seed"]))
    first = parts[0].facts
    for part in parts[1:]:
        differing = next((key for key in _SAME if part.facts.get(key) != first.get(key)), None)
        if differing is not None:
            raise DataError(f"cuts to pool differ in {differing}: pool predictions of one configuration only")
    images = (image for part in parts for image in dict.fromkeys(row.image_id for row in part.rows))
    for what, names, why in (
        ("question", (row.id for part in parts for row in part.rows), ""),
        ("image", images, ", and tests need each image's questions to be answered by one model"),
    ):
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise DataError(
                f"{what} {name!r} is in {times} of the cuts to pool: only cuts of one dealing under image_disjoint "
                f"share no {what}{why}"
            )
    facts: dict[str, Any] = {key: value for key, value in first.items() if key != "model"}
    facts["split_seed"] = ", ".join(str(part.facts["split_seed"]) for part in parts)
    facts["candidates"] = max(part.facts["candidates"] for part in parts)
    facts["ceiling"] = _ceiling(parts)
    facts[CUTS] = {row.id: str(part.facts["split_seed"]) for part in parts for row in part.rows}
    return Predictions(tuple(row for part in parts for row in part.rows), facts)


def _ceiling(parts: Sequence[Predictions]) -> dict[str, float]:
    """Mean over the questions of all cuts: overall, open, closed."""
    totals: dict[str, list[float]] = {}
    for part in parts:
        closed = sum(row.closed for row in part.rows)
        counts = {"overall": len(part.rows), "open": len(part.rows) - closed, "closed": closed}
        for name, share in part.facts["ceiling"].items():
            reached, asked = totals.setdefault(name, [0.0, 0.0])
            totals[name] = [reached + share * counts[name], asked + counts[name]]
    return {name: reached / asked for name, (reached, asked) in totals.items() if asked}
